"""Weights, inputs and sizes of the golden networks, the same with and without torch.

Every array is drawn from its own `numpy.random.RandomState`, whose stream NumPy keeps
frozen, seeded by the array's name. Arrays are float32 in torch's layout (out, in, kh, kw;
in, out, kh, kw for a deconv). The scales keep activations alive through all layers: He's
bound for kernels, statistics of BatchNorm far enough from (0, 1) to matter.
"""

import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[np.float32]]

# The paper's table of the completion network: type, kernel, inputs, outputs.
COMPLETION = (
    ("conv1", 5, 4, 64),
    ("conv2", 3, 64, 128),
    ("conv3", 3, 128, 128),
    ("conv4", 3, 128, 256),
    ("conv5", 3, 256, 256),
    ("conv6", 3, 256, 256),
    ("conv7", 3, 256, 256),
    ("conv8", 3, 256, 256),
    ("conv9", 3, 256, 256),
    ("conv10", 3, 256, 256),
    ("conv11", 3, 256, 256),
    ("conv12", 3, 256, 256),
    ("deconv13", 4, 256, 128),
    ("conv14", 3, 128, 128),
    ("deconv15", 4, 128, 64),
    ("conv16", 3, 64, 32),
    ("conv17", 3, 32, 3),
)

# The paper's tables of the discriminators: outputs of the 5x5 convolutions of stride 2.
LOCAL = (64, 128, 256, 512, 512)
GLOBAL = (64, 128, 256, 512, 512, 512)

# Height and width of the completed images. On the second, a quarter of the size is wider
# than the dilation of 16, so every tap of conv10 reaches the image; on the first it is not.
SIZES = {"square": (64, 64), "wide": (96, 136)}

# Of the completed images every third pixel is kept each way: a third of the bytes squared,
# and still each of the 4x4 phases of the two deconvs.
KEEP = 3

# What is stored of the completion network: order of norm, output, size, mode.
CASES = (
    "norm_activation.sigmoid.square.eval",
    "norm_activation.sigmoid.square.train",
    "norm_activation.sigmoid.wide.eval",
    "norm_activation.sigmoid.wide.train",
    "norm_activation.clamp.wide.eval",
    "activation_norm.sigmoid.wide.eval",
    "activation_norm.sigmoid.wide.train",
)

# The case whose running statistics are stored too, as they are after one batch.
MOVED = "norm_activation.sigmoid.square.train"


def draw(
    name: str, shape: tuple[int, ...], low: float, high: float
) -> npt.NDArray[np.float32]:
    """Uniform float32 numbers in [low, high) that depend on the name and shape only."""
    stream = np.random.RandomState(zlib.crc32(name.encode()))
    return stream.uniform(low, high, shape).astype(np.float32)


def kernel(
    name: str, shape: tuple[int, ...], fan_in: float, gain: float = 1.0
) -> Arrays:
    """A kernel within He's uniform bound times `gain`, and a bias for its outputs."""
    bound = gain * (6.0 / fan_in) ** 0.5
    outputs = shape[1] if "deconv" in name else shape[0]
    return {
        f"{name}.weight": draw(f"{name}.weight", shape, -bound, bound),
        f"{name}.bias": draw(f"{name}.bias", (outputs,), -0.2, 0.2),
    }


def norm(name: str, channels: int) -> Arrays:
    """Scale, shift and running statistics of one BatchNorm."""
    ranges = {
        "weight": (0.6, 1.4),
        "bias": (-0.2, 0.2),
        "running_mean": (-0.3, 0.3),
        "running_var": (0.6, 1.4),
    }
    return {
        f"{name}.norm.{field}": draw(f"{name}.norm.{field}", (channels,), low, high)
        for field, (low, high) in ranges.items()
    }


def completion() -> Arrays:
    """All arrays of the completion network, by names such as `conv1.norm.running_mean`."""
    arrays: Arrays = {}
    for name, size, inputs, outputs in COMPLETION:
        if name.startswith("deconv"):
            # Two of the four taps each way reach an output pixel.
            arrays |= kernel(name, (inputs, outputs, size, size), inputs * 4)
        else:
            # The last layer is smaller, so that sigmoid and clamp keep most of their range.
            gain = 0.35 if name == "conv17" else 1.0
            arrays |= kernel(
                name, (outputs, inputs, size, size), inputs * size**2, gain
            )
        if name != "conv17":
            arrays |= norm(name, outputs)
    arrays["conv17.bias"] += np.float32(0.75)
    return arrays


def column(name: str, channels: Iterable[int], flat: int) -> Arrays:
    """One discriminator: its convolutions and the dense layer from `flat` numbers to 1024."""
    arrays: Arrays = {}
    inputs = 3
    for index, outputs in enumerate(channels, 1):
        arrays |= kernel(f"{name}.conv{index}", (outputs, inputs, 5, 5), inputs * 25)
        arrays |= norm(f"{name}.conv{index}", outputs)
        inputs = outputs
    return arrays | kernel(f"{name}.features", (1024, flat), flat)


def discriminator() -> Arrays:
    """All arrays of both discriminators and of the layer that fuses [local, global]."""
    fusion = kernel("fusion", (1, 2048), 2048)
    return column("local", LOCAL, 8192) | column("global", GLOBAL, 8192) | fusion


def images(name: str, height: int, width: int) -> npt.NDArray[np.float32]:
    """Two images in [0, 1], [2, 3, height, width]: waves under noise."""
    y, x = np.mgrid[:height, :width] / 16.0
    phase = draw(f"{name}.phase", (2, 3, 1, 1), 0.0, 6.0)
    slope = draw(f"{name}.slope", (2, 3, 1, 1), -4.0, 4.0)
    waves = 0.5 + 0.3 * np.sin(slope * x + (1 - slope) * y + phase)
    noise = draw(f"{name}.noise", (2, 3, height, width), -0.2, 0.2)
    return np.asarray(waves + noise, np.float32)


def completion_inputs(name: str) -> npt.NDArray[np.float32]:
    """What the completion network sees, [2, 4, h, w]: centred photographs and masks."""
    height, width = SIZES[name]
    mask = np.zeros((2, 1, height, width), np.float32)
    mask[0, :, 11:40, 20:51] = 1
    mask[1, :, 30:63, 3:25] = 1
    centred = images(f"completion.{name}", height, width) - np.float32(0.45)
    return np.concatenate([centred * (1 - mask), mask], axis=1)


def discriminator_inputs() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Two images of 256x256 and, unrelated to them, two windows of 128x128."""
    return images("images", 256, 256), images("patches", 128, 128)


def flax_variables(arrays: Arrays) -> dict[str, Any]:
    """The arrays as gl_jax's networks take them: {"params": ..., "batch_stats": ...}."""
    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for name, array in arrays.items():
        *path, field = name.split(".")
        kind = "batch_stats" if field.startswith("running_") else "params"
        branch = variables[kind]
        for part in path:
            branch = branch.setdefault(part, {})
        branch[_flax_name(path[-1], field)] = _flax_layout(path[-1], array)
    return variables


def _flax_name(layer: str, field: str) -> str:
    if field == "weight":
        return "scale" if layer == "norm" else "kernel"
    return field.removeprefix("running_")


def _flax_layout(layer: str, array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    if array.ndim == 4:
        # (out, in, kh, kw), or (in, out, kh, kw) of a deconv, to (kh, kw, in, out).
        return array.transpose((2, 3, 0, 1) if "deconv" in layer else (2, 3, 1, 0))
    if layer == "features" and array.ndim == 2:
        # torch flattens a 4x4 map as (channels, y, x), gl_jax as (y, x, channels).
        maps = array.reshape(len(array), -1, 4, 4)
        return maps.transpose(2, 3, 1, 0).reshape(-1, len(array))
    return array.T
