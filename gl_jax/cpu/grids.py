"""The geometry of a layer: the pixels that its kernel's taps connect."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float


@dataclass(frozen=True)
class Layer:
    """A kernel between a fine grid of pixels and a coarse one, smaller by `stride`.

    Tap t connects coarse pixel y with fine pixel stride * y + dilation * t - padding. A
    convolution maps the fine grid to the coarse one, a transposed convolution back. At
    stride 1 both grids are the same. Kernels are [size, size, fine, coarse].
    """

    size: int
    stride: int = 1
    dilation: int = 1

    @property
    def padding(self) -> int:
        """Pixels of zero padding before the first fine pixel."""
        return self.dilation * (self.size - 1) // 2

    @property
    def reach(self) -> int:
        """Side of the square of fine pixels connected with one coarse pixel."""
        return self.dilation * (self.size - 1) + 1

    def coarse_sides(self, fine: Sequence[int]) -> tuple[int, int]:
        """Returns the sides of the coarse grid, ceil(side / stride)."""
        height, width = fine
        return -(-height // self.stride), -(-width // self.stride)


def mirrored(kernel: Float[Array, "k l i o"]) -> Float[Array, "k l o i"]:
    """Returns the kernel of a stride-1 convolution's input gradient."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


# A 5x5 convolution of stride 2 is equal to a 3x3 one of stride 1 whose input has squares
# of 2x2 fine pixels as pixels of four times the features.


def squares(fine: Float[Array, "b 2*h 2*w f"]) -> Float[Array, "b h w 4*f"]:
    """Turns squares of 2x2 pixels into one pixel of four times the features."""
    b, height, width, features = fine.shape
    split = fine.reshape(b, height // 2, 2, width // 2, 2, features)
    ordered = split.transpose(0, 1, 3, 2, 4, 5)
    return ordered.reshape(b, height // 2, width // 2, 4 * features)


def pixels(squares: Float[Array, "b h w 4*f"]) -> Float[Array, "b 2*h 2*w f"]:
    """Turns squares back into pixels: the inverse of `squares`."""
    b, height, width, features = squares.shape
    split = squares.reshape(b, height, width, 2, 2, features // 4)
    ordered = split.transpose(0, 1, 3, 2, 4, 5)
    return ordered.reshape(b, 2 * height, 2 * width, features // 4)


def kernel_of_squares(kernel: Float[Array, "5 5 f o"]) -> Float[Array, "3 3 4*f o"]:
    """Returns the kernel on squares equivalent to a stride-2 layer's kernel on pixels."""
    *_, fine, coarse = kernel.shape
    filled = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    split = filled.reshape(3, 2, 3, 2, fine, coarse)
    return split.transpose(0, 2, 1, 3, 4, 5).reshape(3, 3, 4 * fine, coarse)


def kernel_of_pixels(kernel: Float[Array, "3 3 4*f o"]) -> Float[Array, "5 5 f o"]:
    """Returns the stride-2 layer's kernel: the inverse of `kernel_of_squares`."""
    *_, features, coarse = kernel.shape
    split = kernel.reshape(3, 3, 2, 2, features // 4, coarse)
    filled = split.transpose(0, 2, 1, 3, 4, 5).reshape(6, 6, features // 4, coarse)
    return filled[:5, :5]
