"""The two operations of the networks, as values.

A network takes its operations as a field: `NATIVE` is plain XLA, for accelerators;
`gl_jax.cpu.ops()` computes the same with faster gradients on processors.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jaxtyping import Array, Float

Convolve = Callable[[Array, Array, int, int], Array]
Upsample = Callable[[Array, Array], Array]


class Ops(NamedTuple):
    """A convolution and a transposed one; `convolve` and `upsample` define them."""

    convolve: Convolve
    upsample: Upsample


def convolve(
    inputs: Float[Array, "b h w i"],
    kernel: Float[Array, "k k i o"],
    stride: int = 1,
    dilation: int = 1,
) -> Float[Array, "b y x o"]:
    """Convolves with zero padding of dilation * (k - 1) / 2 on every side.

    The kernel's side k is odd and the sides of the output are ceil(side / stride); or k is
    4, the stride 2 and the sides even, and the padding of 1 halves them.
    """
    padding = dilation * (kernel.shape[0] - 1) // 2
    return jax.lax.conv_general_dilated(
        inputs,
        kernel,
        window_strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def upsample(
    inputs: Float[Array, "b h w i"], kernel: Float[Array, "4 4 i o"]
) -> Float[Array, "b 2*h 2*w o"]:
    """Doubles both sides by a 4x4 transposed convolution of stride 2 and padding 1.

    `kernel[dy, dx]` maps input pixel (y, x) to output pixel (2y + dy - 1, 2x + dx - 1).
    """
    return jax.lax.conv_general_dilated(
        inputs,
        kernel[::-1, ::-1],
        window_strides=(1, 1),
        padding=((2, 2), (2, 2)),
        lhs_dilation=(2, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


NATIVE = Ops(convolve, upsample)
