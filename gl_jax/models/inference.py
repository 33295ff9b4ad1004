"""The completion network in use: `CompletionNetwork`'s numbers from fewer operations.

Two things set it apart from the module that is trained. Batch normalisation, whose
statistics are fixed now, is folded into the convolution before it where the order of
layers allows it. And the image may be smaller than the array that holds it: what lies
beyond is kept at zero in every layer, which is what zero padding at the image's own
edge does, so one compiled program serves all images up to its size.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gl_jax.models.completion import LAYERS, layer_name
from gl_jax.models.convolution import convolve, upsample
from gl_jax.models.layers import BATCH_NORM_EPSILON, NormOrder


class Block(NamedTuple):
    """A layer's arrays; scale and offset only where normalisation follows the ReLU."""

    kernel: Array | np.ndarray
    bias: Array | np.ndarray
    scale: Array | np.ndarray | None = None
    offset: Array | np.ndarray | None = None


def prepare(variables: Mapping[str, Any], norm_order: NormOrder) -> list[Block]:
    """The blocks of a network with variables {"params", "batch_stats"}, as numpy arrays.

    In the order "norm_activation" normalisation is folded into kernel and bias. In the
    other order it cannot be folded into the next layer, whose zero padding is added
    after it.
    """
    blocks = []
    for index in range(len(LAYERS)):
        name = layer_name(index)
        params = variables["params"][name]
        kernel, bias = (
            np.asarray(params[key], np.float64) for key in ("kernel", "bias")
        )
        scale = offset = None
        if "norm" in params:
            stats = variables["batch_stats"][name]["norm"]
            mean, var = (np.asarray(stats[key], np.float64) for key in ("mean", "var"))
            norm = params["norm"]
            scale = np.asarray(norm["scale"], np.float64)
            scale = scale / np.sqrt(var + BATCH_NORM_EPSILON)
            offset = np.asarray(norm["bias"], np.float64) - mean * scale
            if norm_order == "norm_activation":
                kernel, bias = kernel * scale, bias * scale + offset
                scale = offset = None
        arrays = (kernel, bias, scale, offset)
        blocks.append(Block(*(_single(array) for array in arrays)))
    return blocks


def complete(
    blocks: list[Block],
    inputs: Float[Array, "b h w 4"],
    size: Int[Array, " 2"],
    output_activation: Literal["sigmoid", "clamp"],
) -> Float[Array, "b h w 3"]:
    """Completes images of `size` (height, width) in the top left of `inputs`.

    All of h, w and `size` are multiples of 4. What is returned beyond `size` means
    nothing. `inputs` is what `CompletionNetwork` takes, and so is the rest returned.
    """
    outputs = jnp.where(_inside(inputs, size, 1), inputs, 0)
    level = 1
    for row, block in zip(LAYERS, blocks, strict=True):
        if row.kind == "deconv":
            outputs, level = upsample(outputs, block.kernel), level // 2
        else:
            level *= row.stride
            outputs = convolve(outputs, block.kernel, row.stride, row.dilation)
        outputs = outputs + _channels(block.bias)
        if row is LAYERS[-1]:
            break
        outputs = jax.nn.relu(outputs)
        if block.scale is not None and block.offset is not None:
            outputs = outputs * _channels(block.scale) + _channels(block.offset)
        outputs = jnp.where(_inside(outputs, size, level), outputs, 0)
    if output_activation == "clamp":
        return jnp.clip(outputs, 0.0, 1.0)
    return jax.nn.sigmoid(outputs)


def _single(array: np.ndarray | None) -> Any:
    return None if array is None else array.astype(np.float32)


def _inside(
    outputs: Float[Array, "b h w c"], size: Int[Array, " 2"], level: int
) -> Bool[Array, "1 h w 1"]:
    height, width = outputs.shape[1:3]
    rows = jnp.arange(height)[:, None] < size[0] // level
    columns = jnp.arange(width)[None, :] < size[1] // level
    return jnp.logical_and(rows, columns)[None, :, :, None]


def _channels(vector: Array | np.ndarray) -> Float[Array, "1 1 1 c"]:
    return jnp.asarray(vector)[None, None, None, :]
