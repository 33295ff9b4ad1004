"""Inception v3 as FID was published with it: 2048 features of an image.

The features are `pool3` of pytorch-fid: torchvision's Inception v3 (Szegedy et al. 2016)
except that average pooling leaves the border out of its mean and that the last block has
a max pooling. The weights are its pt_inception-2015-12-05-6726825d.pth, or the same
converted to safetensors, with torchvision's names:
  Conv2d_1a_3x3.conv.weight, .bn.weight, .bn.bias, .bn.running_mean, .bn.running_var, ...
  Mixed_5b.branch1x1.conv.weight, ... Mixed_7c.branch_pool.bn.running_var
torchvision's own Inception v3 has them too, but gives numbers that nobody else has.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gl_jax.weights import tensors
from gl_jax.weights.arrays import Arrays

Resize = Literal["pytorch-fid", "tensorflow"]
"""The ways of resizing by which published FIDs differ; see `resized`."""

SIDE = 299
"""Pixels that images are resized to."""
FEATURES = 2048
"""Features of an image: its channels at the end."""
BATCH_NORM_EPSILON = 0.001
PUBLISHED_CLASSES = 1008
"""Classes in the file that FID was published with; torchvision's has 1000."""


class Conv(NamedTuple):
    """Convolution, batch normalisation, ReLU; a stride of 2 goes without padding."""

    name: str
    outputs: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padded: bool = True


class Pool(NamedTuple):
    """The mean or the largest of 3x3 pixels; a stride of 1 keeps the size."""

    kind: Literal["mean", "max"]
    stride: int = 1


class Split(NamedTuple):
    """Convolutions side by side, their channels one after the other."""

    convs: tuple[Conv, ...]


Step = Conv | Pool | Split
Branch = tuple[Step, ...]


class Block(NamedTuple):
    """Branches that see the same input, their channels one after the other."""

    name: str
    branches: tuple[Branch, ...]


def _block_a(name: str, pooled: int) -> Block:
    return Block(name, (
        (Conv("branch1x1", 64),),
        (Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, (5, 5))),
        (
            Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, (3, 3)),
            Conv("branch3x3dbl_3", 96, (3, 3)),
        ),
        (Pool("mean"), Conv("branch_pool", pooled)),
    ))  # fmt: skip


def _block_c(name: str, inner: int) -> Block:
    return Block(name, (
        (Conv("branch1x1", 192),),
        (
            Conv("branch7x7_1", inner), Conv("branch7x7_2", inner, (1, 7)),
            Conv("branch7x7_3", 192, (7, 1)),
        ),
        (
            Conv("branch7x7dbl_1", inner), Conv("branch7x7dbl_2", inner, (7, 1)),
            Conv("branch7x7dbl_3", inner, (1, 7)),
            Conv("branch7x7dbl_4", inner, (7, 1)),
            Conv("branch7x7dbl_5", 192, (1, 7)),
        ),
        (Pool("mean"), Conv("branch_pool", 192)),
    ))  # fmt: skip


def _block_e(name: str, kind: Literal["mean", "max"]) -> Block:
    def split(branch: str) -> Split:
        return Split((Conv(f"{branch}a", 384, (1, 3)), Conv(f"{branch}b", 384, (3, 1))))

    return Block(name, (
        (Conv("branch1x1", 320),),
        (Conv("branch3x3_1", 384), split("branch3x3_2")),
        (
            Conv("branch3x3dbl_1", 448), Conv("branch3x3dbl_2", 384, (3, 3)),
            split("branch3x3dbl_3"),
        ),
        (Pool(kind), Conv("branch_pool", 192)),
    ))  # fmt: skip


STEM: Branch = (
    Conv("Conv2d_1a_3x3", 32, (3, 3), stride=2),
    Conv("Conv2d_2a_3x3", 32, (3, 3), padded=False),
    Conv("Conv2d_2b_3x3", 64, (3, 3)),
    Pool("max", stride=2),
    Conv("Conv2d_3b_1x1", 80),
    Conv("Conv2d_4a_3x3", 192, (3, 3), padded=False),
    Pool("max", stride=2),
)
BLOCKS = (
    _block_a("Mixed_5b", 32),
    _block_a("Mixed_5c", 64),
    _block_a("Mixed_5d", 64),
    Block("Mixed_6a", (
        (Conv("branch3x3", 384, (3, 3), stride=2),),
        (
            Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, (3, 3)),
            Conv("branch3x3dbl_3", 96, (3, 3), stride=2),
        ),
        (Pool("max", stride=2),),
    )),
    _block_c("Mixed_6b", 128),
    _block_c("Mixed_6c", 160),
    _block_c("Mixed_6d", 160),
    _block_c("Mixed_6e", 192),
    Block("Mixed_7a", (
        (Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, (3, 3), stride=2)),
        (
            Conv("branch7x7x3_1", 192), Conv("branch7x7x3_2", 192, (1, 7)),
            Conv("branch7x7x3_3", 192, (7, 1)),
            Conv("branch7x7x3_4", 192, (3, 3), stride=2),
        ),
        (Pool("max", stride=2),),
    )),
    _block_e("Mixed_7b", "mean"),
    _block_e("Mixed_7c", "max"),
)  # fmt: skip


class Weights(NamedTuple):
    """The arrays of `shapes()`, and whether they are of the file FID is published with."""

    arrays: Arrays
    published: bool


def load(path: str | Path) -> Weights:
    """Loads the weights of a file; raises UsageError, one line, if some are missing."""
    arrays = tensors.read(path)
    head = arrays.get("fc.bias")
    published = head is not None and head.shape == (PUBLISHED_CLASSES,)
    return Weights(tensors.require(arrays, shapes(), str(path)), published)


def shapes() -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all arrays, by name, in PyTorch's order of axes."""
    expected: dict[str, tuple[int, ...]] = {}
    inputs = 3
    for block in (Block("", (STEM,)), *BLOCKS):
        outputs = 0
        for branch in block.branches:
            width = inputs
            for step in branch:
                if isinstance(step, Pool):
                    continue
                convs = step.convs if isinstance(step, Split) else (step,)
                for conv in convs:
                    expected |= _conv_shapes(_place(block, conv), width, conv)
                width = sum(conv.outputs for conv in convs)
            outputs += width
        inputs = outputs
    return expected


def features(
    arrays: Arrays,
    images: Float[Array, "b h w 3"],
    resize: Resize = "pytorch-fid",
) -> Float[Array, "b 2048"]:
    """Returns the 2048 features of images in [0, 1], resized to 299x299.

    Either `resize` is bilinear without averaging: an image larger than 299 is sampled.
    """
    outputs = resized(images, resize)
    for block in (Block("", (STEM,)), *BLOCKS):
        results = []
        for branch in block.branches:
            result = outputs
            for step in branch:
                result = jnp.concatenate(
                    list(_applied(arrays, block, step, result)), axis=3
                )
            results.append(result)
        outputs = jnp.concatenate(results, axis=3)
    return jnp.mean(outputs, axis=(1, 2))


def resized(
    images: Float[Array, "b h w 3"], resize: Resize
) -> Float[Array, "b 299 299 3"]:
    """Returns images in [0, 1] at the side and in the range of the network's input.

    `pytorch-fid` aligns the middles of pixels and maps to [-1, 1]. `tensorflow` is of the
    graph that FID was published with, and of StyleGAN's and MAT's programs: only the
    first pixels stay aligned, and a level v of 255 becomes (v - 128) / 128.
    """
    if resize == "pytorch-fid":
        shape = (images.shape[0], SIDE, SIDE, 3)
        return jax.image.resize(images, shape, "linear", antialias=False) * 2 - 1
    for axis in (1, 2):
        length = images.shape[axis]
        places = np.arange(SIDE) * (length / SIDE)
        first = places.astype(int)
        share = jnp.asarray(places - first, jnp.float32)
        share = share.reshape((1, -1, 1, 1) if axis == 1 else (1, 1, -1, 1))
        before = jnp.take(images, first, axis)
        after = jnp.take(images, np.minimum(first + 1, length - 1), axis)
        images = before + (after - before) * share
    return (images * 255 - 128) / 128


def _place(block: Block, conv: Conv) -> str:
    return f"{block.name}.{conv.name}".removeprefix(".")


def _conv_shapes(place: str, inputs: int, conv: Conv) -> dict[str, tuple[int, ...]]:
    norm = ("weight", "bias", "running_mean", "running_var")
    return {f"{place}.conv.weight": (conv.outputs, inputs, *conv.kernel)} | {
        f"{place}.bn.{name}": (conv.outputs,) for name in norm
    }


def _applied(
    arrays: Arrays, block: Block, step: Step, inputs: Float[Array, "b h w c"]
) -> Iterator[Float[Array, "b y x d"]]:
    if isinstance(step, Pool):
        yield _pooled(step, inputs)
    elif isinstance(step, Split):
        for conv in step.convs:
            yield _convolved(arrays, _place(block, conv), conv, inputs)
    else:
        yield _convolved(arrays, _place(block, step), step, inputs)


def _convolved(
    arrays: Arrays, place: str, conv: Conv, inputs: Float[Array, "b h w c"]
) -> Float[Array, "b y x d"]:
    around = conv.padded and conv.stride == 1
    outputs = jax.lax.conv_general_dilated(
        inputs,
        jnp.asarray(arrays[f"{place}.conv.weight"]),
        (conv.stride, conv.stride),
        [(side // 2, side // 2) if around else (0, 0) for side in conv.kernel],
        dimension_numbers=("NHWC", "OIHW", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,
    )
    scale, offset, mean, variance = (
        jnp.asarray(arrays[f"{place}.bn.{name}"]).reshape(1, 1, 1, -1)
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    outputs = (outputs - mean) * jax.lax.rsqrt(variance + BATCH_NORM_EPSILON)
    return jax.nn.relu(outputs * scale + offset)


def _pooled(pool: Pool, inputs: Float[Array, "b h w c"]) -> Float[Array, "b y x c"]:
    window, strides = (1, 3, 3, 1), (1, pool.stride, pool.stride, 1)
    padding = "SAME" if pool.stride == 1 else "VALID"
    if pool.kind == "max":
        return jax.lax.reduce_window(
            inputs, -jnp.inf, jax.lax.max, window, strides, padding
        )
    total, count = (
        jax.lax.reduce_window(values, 0.0, jax.lax.add, window, strides, padding)
        for values in (inputs, jnp.ones((1, *inputs.shape[1:3], 1), jnp.float32))
    )
    return total / count
