"""Narrow networks with the names that other projects give their weights; NumPy only.

Used by make_foreign.py, which lets PyTorch compute with them, and by the tests, which
save them in each project's own format. Names and conventions are from paper.md 6.
Widths are a sixteenth of the paper's, and at least 4. BatchNorm's statistics are far
from (0, 1), and every array is drawn from a frozen stream named after it.
"""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt

weights = SimpleNamespace(
    **runpy.run_path(str(Path(__file__).parents[1] / "golden" / "weights.py"))
)
Arrays = dict[str, npt.NDArray[np.float32]]

# The paper's table, narrow: name, kernel, inputs, outputs.
OUTPUTS = (4, 8, 8, *[16] * 9, 8, 8, 4, 4, 3)
TABLE = tuple(
    (name, size, inputs, outputs)
    for (name, size, _, _), inputs, outputs in zip(
        weights.COMPLETION, (4, *OUTPUTS), OUTPUTS, strict=False
    )
)
DISCRIMINATOR = (4, 8, 16, 32, 32, 32)
FEATURES = 64

HEIGHT, WIDTH = 96, 136
KEEP = 3  # of the completed pixels every third is stored each way
MEAN = (0.5062325495504219, 0.4255871700324652, 0.38299278586700136)

# Sides of the image and of the window, and the numbers of convolutions; `small` is of no
# project, and for golden/make_peers.py.
ARCHES = {
    "places2": (256, 128, 6, 5),
    "celeba": (160, 96, 5, 5),
    "small": (32, 16, 3, 2),
}

FIELDS = ("weight", "bias", "running_mean", "running_var")


def photo() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """An RGB photograph, [h, w, 3], and its hole, [h, w]: 1 = missing."""
    image = weights.images("foreign", HEIGHT, WIDTH)[0].transpose(1, 2, 0)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[20:61, 33:90] = 1
    return np.clip(image * 255, 0, 255).round().astype(np.uint8), mask


def shown(arch: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Two images and two windows in [0, 1], RGB, [2, 3, side, side]."""
    image, local, _, _ = ARCHES[arch]
    pair = (
        weights.images(f"{arch}.images", image, image),
        weights.images(f"{arch}.patches", local, local),
    )
    return tuple(np.clip(x, 0, 1) for x in pair)


def completion(*, bias: bool = True) -> tuple[list[Arrays], list[Arrays]]:
    """For each layer weight and bias, and for all but the last the normalisation."""
    convs, norms = [], []
    for name, size, inputs, outputs in TABLE:
        deconv, last = name.startswith("deconv"), name == "conv17"
        sides = (inputs, outputs) if deconv else (outputs, inputs)
        fan_in = inputs * (4 if deconv else size**2)
        drawn = weights.kernel(
            f"narrow.{name}", (*sides, size, size), fan_in, 0.35 if last else 1.0
        )
        conv = {key.rpartition(".")[2]: array for key, array in drawn.items()}
        if not (bias or last):
            del conv["bias"]
        convs.append(conv)
        if not last:
            drawn = weights.norm(f"narrow.{name}", outputs)
            norms.append({key.rpartition(".")[2]: a for key, a in drawn.items()})
    return convs, norms


def named(
    convs: list[Arrays],
    norms: list[Arrays],
    conv_names: list[str],
    norm_names: list[str],
) -> Arrays:
    """One flat dictionary: the fields of every layer under its name."""
    pairs = [*zip(conv_names, convs, strict=True), *zip(norm_names, norms, strict=True)]
    return {f"{name}.{key}": a for name, layer in pairs for key, a in layer.items()}


def sequential() -> Arrays:
    """The state_dict of the authors' nn.Sequential of 50 modules."""
    return named(
        *completion(),
        [str(3 * index) for index in range(17)],
        [str(3 * index + 1) for index in range(16)],
    )


def nested_sequential() -> Arrays:
    """The same network as a sequence of blocks."""
    blocks = [str(index) for index in range(16)]
    return named(
        *completion(), [f"{b}.0" for b in blocks] + ["16"], [f"{b}.1" for b in blocks]
    )


def mmediting(arch: str = "places2") -> Arrays:
    """The state_dict of mmediting's GLInpaintor, without biases before BatchNorm."""
    blocks = [f"encoder.enc{index}" for index in (1, 2, 3, 4, 5, 6)]
    blocks += [f"dilation_neck.dilation_convs.{index}" for index in (0, 1, 2, 3)]
    blocks += [f"decoder.dec{index}" for index in (1, 2, 3, 4, 5, 6, 7)]
    blocks = [f"generator.{block}" for block in blocks]
    arrays = named(
        *completion(bias=False),
        [f"{block}.conv" for block in blocks],
        [f"{block}.bn" for block in blocks[:-1]],
    )
    # The output is clamped to [-1, 1] and should use that range.
    arrays["generator.decoder.dec7.conv.bias"] -= np.float32(0.37)
    image, local, image_depth, local_depth = ARCHES[arch]
    for side, size, depth in (
        ("global", image, image_depth),
        ("local", local, local_depth),
    ):
        arrays |= column(
            f"mm.{side}", f"disc.{side}_disc.conv{{}}.conv",
            f"disc.{side}_disc.conv{{}}.bn", f"disc.{side}_disc.fc.linear", size, depth,
            bias=False,
        )  # fmt: skip
    fusion = weights.kernel("disc.fc", (1, 2 * FEATURES), 2 * FEATURES)
    return with_counters(arrays | fusion)


def glcic_completion() -> Arrays:
    """GLCIC-PyTorch's model_cn."""
    return with_counters(
        named(*completion(), [n for n, *_ in TABLE], [f"bn{i}" for i in range(1, 17)])
    )


def glcic_discriminator(arch: str) -> Arrays:
    """GLCIC-PyTorch's model_cd."""
    image, local, image_depth, local_depth = ARCHES[arch]
    arrays: Arrays = {}
    for side, size, depth in (("ld", local, local_depth), ("gd", image, image_depth)):
        arrays |= column(
            f"{arch}.{side}", f"model_{side}.conv{{}}", f"model_{side}.bn{{}}",
            f"model_{side}.linear{depth + 1}", size, depth,
        )  # fmt: skip
    fusion = weights.kernel("linear1", (1, 2 * FEATURES), 2 * FEATURES)
    return with_counters(arrays | fusion)


def column(
    stream: str, conv: str, norm: str, dense: str, size: int, depth: int,
    *, bias: bool = True,
) -> Arrays:  # fmt: skip
    """One discriminator: convolutions, normalisations and the dense layer."""
    arrays: Arrays = {}
    inputs, side = 3, size
    for index, outputs in enumerate(DISCRIMINATOR[:depth], 1):
        drawn = weights.kernel(
            f"{stream}.{index}", (outputs, inputs, 5, 5), inputs * 25
        ) | weights.norm(f"{stream}.{index}", outputs)
        for key, array in drawn.items():
            field = key.rpartition(".")[2]
            name = norm if ".norm." in key else conv
            if bias or name == norm or field == "weight":
                arrays[f"{name.format(index)}.{field}"] = array
        inputs, side = outputs, -(-side // 2)
    flat = inputs * side**2
    drawn = weights.kernel(f"{stream}.dense", (FEATURES, flat), flat)
    return arrays | {f"{dense}.{k.rpartition('.')[2]}": a for k, a in drawn.items()}


def with_counters(arrays: Arrays) -> Arrays:
    """Beside each running_var the num_batches_tracked of torch 0.4.1 and later."""
    counted: dict[str, npt.NDArray] = {}
    for name, array in arrays.items():
        counted[name] = array
        if name.endswith(".running_var"):
            counter = name.replace("running_var", "num_batches_tracked")
            counted[counter] = np.asarray(7, np.int64)
    return counted
