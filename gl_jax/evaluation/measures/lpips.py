"""LPIPS: how different two images look to a trained network (Zhang et al., CVPR 2018).

The features of five layers of AlexNet or VGG-16, each position's channels scaled to
length 1, are subtracted, squared, weighted by a learned number per channel, summed over
channels and averaged over positions; the sum over the layers is the distance. The weights
are version 0.1 with the calibrated input, the default of the authors' code.

Weights come from files that the user gives, together holding
  features.N.weight, features.N.bias    torchvision's AlexNet or VGG-16
                                        (alexnet-owt-7be5be79.pth, vgg16-397923af.pth)
  lin0.model.1.weight .. lin4.model.1.weight, [1, channels, 1, 1]
                                        the authors' heads (v0.1/alex.pth, v0.1/vgg.pth)
The state_dict of the authors' whole module holds both; its names are understood too.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gl_jax.config import UsageError
from gl_jax.weights import tensors
from gl_jax.weights.arrays import Arrays

Images = Float[Array, "b h w 3"]
Distances = Float[Array, " b"]

# The mean and deviation of ImageNet's colours, for images in [-1, 1].
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)


class Layer(NamedTuple):
    """A convolution and its ReLU; `pool` says whether the image is halved before it."""

    number: int
    """The number in torchvision's names: features.NUMBER."""
    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    pool: bool = False
    tap: bool = False
    """The distance uses the output of this layer."""


class Trunk(NamedTuple):
    """A network of torchvision's up to the last layer that LPIPS looks at."""

    name: str
    layers: tuple[Layer, ...]
    window: int
    """Side of the max pooling's window, in pixels; its stride is 2."""
    smallest: int
    """Side of the smallest image, of which one pixel is left at the end."""


ALEXNET = Trunk(
    "AlexNet",
    (
        Layer(0, 3, 64, kernel=11, stride=4, padding=2, tap=True),
        Layer(3, 64, 192, kernel=5, padding=2, pool=True, tap=True),
        Layer(6, 192, 384, pool=True, tap=True),
        Layer(8, 384, 256, tap=True),
        Layer(10, 256, 256, tap=True),
    ),
    window=3,
    smallest=31,
)
VGG16 = Trunk(
    "VGG-16",
    (
        Layer(0, 3, 64),
        Layer(2, 64, 64, tap=True),
        Layer(5, 64, 128, pool=True),
        Layer(7, 128, 128, tap=True),
        Layer(10, 128, 256, pool=True),
        Layer(12, 256, 256),
        Layer(14, 256, 256, tap=True),
        Layer(17, 256, 512, pool=True),
        Layer(19, 512, 512),
        Layer(21, 512, 512, tap=True),
        Layer(24, 512, 512, pool=True),
        Layer(26, 512, 512),
        Layer(28, 512, 512, tap=True),
    ),
    window=2,
    smallest=16,
)
TRUNKS = {11: ALEXNET, 3: VGG16}
"""Trunks by the side of their first kernel, in which their files differ."""

# net.slice2.3.weight of the authors' module is features.3.weight of torchvision.
RULES = ((r"^net\.slice\d\.(\d+)\.", r"features.\1."),)


def load(paths: Sequence[str | Path]) -> "Lpips":
    """Loads the distance with the weights of files that complement each other.

    Raises UsageError, one line, if a file cannot be read or arrays are missing.
    """
    names = ", ".join(map(str, paths))
    arrays: Arrays = {}
    for path in paths:
        arrays |= tensors.renamed(tensors.read(path), RULES)
    first = arrays.get("features.0.weight")
    side = first.shape[-1] if first is not None and first.ndim == 4 else 0
    if side not in TRUNKS:
        raise UsageError(
            f"{names} holds no features.0.weight of AlexNet (11x11) or VGG-16 (3x3): "
            "give torchvision's file and the LPIPS heads, --lpips-weights TRUNK,HEADS."
        )
    trunk = TRUNKS[side]
    return Lpips(trunk, tensors.require(arrays, shapes(trunk), names))


def shapes(trunk: Trunk) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all arrays of a trunk and its heads, by name."""
    expected: dict[str, tuple[int, ...]] = {}
    for layer in trunk.layers:
        kernel = (layer.outputs, layer.inputs, layer.kernel, layer.kernel)
        expected[f"features.{layer.number}.weight"] = kernel
        expected[f"features.{layer.number}.bias"] = (layer.outputs,)
    taps = [layer for layer in trunk.layers if layer.tap]
    for index, layer in enumerate(taps):
        expected[f"lin{index}.model.1.weight"] = (1, layer.outputs, 1, 1)
    return expected


class Lpips:
    """The distance as a function of arrays; see `__call__`."""

    def __init__(self, trunk: Trunk, arrays: Arrays) -> None:
        """Takes the arrays of `shapes(trunk)` as PyTorch lays them out."""
        self.name = trunk.name
        self.smallest = trunk.smallest
        self.arrays = arrays
        self._trunk = trunk

    def __call__(self, arrays: Arrays, images: Images, targets: Images) -> Distances:
        """Returns one distance per image in [0, 1]; equal images have 0.

        `arrays` are those of this object, passed again so that a jitted caller does not
        keep the weights in its program. Raises ValueError for images too small for the
        network.
        """
        if min(images.shape[1:3]) < self.smallest:
            raise ValueError(
                f"LPIPS by {self.name} needs images of at least {self.smallest} pixels."
            )
        first, second = (
            _features(self._trunk, arrays, batch) for batch in (images, targets)
        )
        total = jnp.zeros(images.shape[0], jnp.float32)
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            head = jnp.asarray(arrays[f"lin{index}.model.1.weight"]).reshape(
                1, 1, 1, -1
            )
            squares = jnp.square(_unit(one) - _unit(other))
            total += jnp.mean(jnp.sum(squares * head, axis=3), axis=(1, 2))
        return total


def _features(
    trunk: Trunk, arrays: Arrays, images: Images
) -> list[Float[Array, "b y x c"]]:
    shift, scale = (
        jnp.asarray(values, jnp.float32).reshape(1, 1, 1, 3)
        for values in (SHIFT, SCALE)
    )
    outputs = (images * 2 - 1 - shift) / scale
    taps = []
    for layer in trunk.layers:
        if layer.pool:
            window = (1, trunk.window, trunk.window, 1)
            outputs = jax.lax.reduce_window(
                outputs, -jnp.inf, jax.lax.max, window, (1, 2, 2, 1), "VALID"
            )
        # PyTorch's kernels are [out, in, y, x].
        outputs = jax.lax.conv_general_dilated(
            outputs,
            jnp.asarray(arrays[f"features.{layer.number}.weight"]),
            (layer.stride, layer.stride),
            [(layer.padding, layer.padding)] * 2,
            dimension_numbers=("NHWC", "OIHW", "NHWC"),
            precision=jax.lax.Precision.HIGHEST,
        )
        bias = jnp.asarray(arrays[f"features.{layer.number}.bias"])
        outputs = jax.nn.relu(outputs + bias.reshape(1, 1, 1, -1))
        if layer.tap:
            taps.append(outputs)
    return taps


def _unit(features: Float[Array, "b y x c"]) -> Float[Array, "b y x c"]:
    """Scales each position's channels to length 1, with the authors' small number."""
    length = jnp.sqrt(jnp.sum(jnp.square(features), axis=3, keepdims=True))
    return features / (length + 1e-10)
