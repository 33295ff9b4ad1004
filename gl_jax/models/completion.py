"""The completion network: the paper's table of 17 layers, fully convolutional."""

from typing import Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from gl_jax.models.layers import ConvBlock, NormOrder, UpBlock
from gl_jax.models.ops import NATIVE, Ops


class Row(NamedTuple):
    """One row of the table."""

    kind: Literal["conv", "deconv"]
    kernel: int
    dilation: int
    stride: int
    outputs: int


# The paper's table of the completion network; a deconv's stride is written 1/2 there.
LAYERS = (
    Row("conv", 5, 1, 1, 64),
    Row("conv", 3, 1, 2, 128),
    Row("conv", 3, 1, 1, 128),
    Row("conv", 3, 1, 2, 256),
    Row("conv", 3, 1, 1, 256),
    Row("conv", 3, 1, 1, 256),
    Row("conv", 3, 2, 1, 256),
    Row("conv", 3, 4, 1, 256),
    Row("conv", 3, 8, 1, 256),
    Row("conv", 3, 16, 1, 256),
    Row("conv", 3, 1, 1, 256),
    Row("conv", 3, 1, 1, 256),
    Row("deconv", 4, 1, 2, 128),
    Row("conv", 3, 1, 1, 128),
    Row("deconv", 4, 1, 2, 64),
    Row("conv", 3, 1, 1, 32),
    Row("conv", 3, 1, 1, 3),
)

# Sides of the image must be multiples of this, because the network halves them twice.
STRIDE = 4


def context() -> tuple[int, int]:
    """Returns the pixels of context before and after a block of output pixels.

    A block is STRIDE x STRIDE pixels, aligned to the image; the context is rounded up to
    whole blocks: (152, 148). One pixel depends on 303 x 303. (The paper counts 307,
    because it gives each deconv the reach of a 3x3 kernel.)
    """
    first, last = 0, STRIDE - 1
    for row in reversed(LAYERS):
        if row.kind == "deconv":
            # Output o has the inputs i with o - 2 <= 2i <= o + 1.
            first, last = -((2 - first) // 2), (last + 1) // 2
        else:
            reach = row.dilation * (row.kernel // 2)
            first, last = first * row.stride - reach, last * row.stride + reach
    return -(first // STRIDE) * STRIDE, last // STRIDE * STRIDE


def layer_name(index: int) -> str:
    """Returns the parameter name of row `index`, from 0: conv1 ... deconv13 ... conv17."""
    return f"{LAYERS[index].kind}{index + 1}"


def scaled(features: int, width: float) -> int:
    """Multiplies a channel count by the width, with a minimum of 4."""
    return max(4, round(features * width))


class CompletionNetwork(nn.Module):
    """The completion network: filled photograph and mask to colours in [0, 1].

    The input is encoded by `weights.convention`, [b, h, w, 4], with sides that are
    multiples of 4; the output is [b, h, w, 3], float32. 6,072,131 parameters at width 1.
    """

    width: float = 1.0
    norm_order: NormOrder = "norm_activation"
    output_activation: Literal["sigmoid", "clamp", "signed_clamp"] = "sigmoid"
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    momentum: float = 0.9
    rematerialize: bool = False
    ops: Ops = NATIVE

    @nn.compact
    def __call__(
        self,
        inputs: Float[Array, "b h w 4"],
        train: bool = False,
        size: Int[Array, " 2"] | None = None,
    ) -> Float[Array, "b h w 3"]:
        """Completes images; `train` uses batch and updates running statistics.

        With a `size` (height, width), multiples of 4, the images are in the top left of
        the array. The rest is set to 0 in every layer, like the zero padding at an image's
        edge, and is undefined in the output. One compiled program thus serves all images
        up to its size.
        """
        height, width = inputs.shape[1:3]
        if height % STRIDE or width % STRIDE:
            raise ValueError(
                f"the sides of the image (={height}x{width}) must be multiples of {STRIDE}: "
                "the network halves them twice and doubles them twice. Pad the image first."
            )
        outputs, level = _inside(inputs, size, 1), 1
        for index, row in enumerate(LAYERS):
            last = index == len(LAYERS) - 1
            up = row.kind == "deconv"
            block = UpBlock if up else ConvBlock
            if self.rematerialize:
                block = nn.remat(block, static_argnums=(2,))
            outputs = block(
                features=row.outputs if last else scaled(row.outputs, self.width),
                kernel_size=row.kernel,
                stride=row.stride,
                dilation=row.dilation,
                norm_order="none" if last else self.norm_order,
                activation=None if last else nn.relu,
                dtype=self.dtype,
                axis_name=self.axis_name,
                momentum=self.momentum,
                ops=self.ops,
                name=layer_name(index),
            )(outputs, train)
            level = level // row.stride if up else level * row.stride
            outputs = _inside(outputs, size, level)
        outputs = outputs.astype(jnp.float32)
        if self.output_activation == "clamp":
            return jnp.clip(outputs, 0.0, 1.0)
        if self.output_activation == "signed_clamp":
            return (jnp.clip(outputs, -1.0, 1.0) + 1) / 2
        return nn.sigmoid(outputs)


def _inside(
    outputs: Float[Array, "b h w c"], size: Int[Array, " 2"] | None, level: int
) -> Float[Array, "b h w c"]:
    """Sets outputs beyond `size` to 0; `level` pixels of the image are one pixel here."""
    if size is None:
        return outputs
    height, width = outputs.shape[1:3]
    rows = jnp.arange(height)[:, None] < size[0] // level
    columns = jnp.arange(width)[None, :] < size[1] // level
    inside = jnp.logical_and(rows, columns)[None, :, :, None]
    return jnp.where(inside, outputs, jnp.zeros((), outputs.dtype))
