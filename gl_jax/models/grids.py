"""Where the taps of a kernel lie: the one description that all formulations share."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

Places = tuple[int | None, int | None, int | None]


@dataclass(frozen=True)
class Layer:
    """A kernel between a fine grid of pixels and a coarse one, every `stride`-th of it.

    Coarse pixel y meets fine pixel stride * y + dilation * t - padding through tap t. A
    convolution leads from the fine grid to the coarse one, a transposed convolution from
    the coarse one to the fine one, and each one's input gradient is the other. At stride
    1 both grids are the same.
    """

    size: int
    stride: int = 1
    dilation: int = 1
    upsampling: bool = False
    """Whether kernels are stored as [k, k, coarse, fine], not [k, k, fine, coarse]."""

    @property
    def padding(self) -> int:
        """Pixels of 0 before the first one of the fine grid."""
        return self.dilation * (self.size - 1) // 2

    def coarse_side(self, side: int) -> int:
        """Pixels of a side of the coarse grid, ceil(side / stride)."""
        return -(-side // self.stride)

    def fine_first(self, kernel: Array) -> Array:
        """A stored kernel as [k, k, fine, coarse], and one in that order as it is stored."""
        return kernel.swapaxes(2, 3) if self.upsampling else kernel

    def features(self, kernel: tuple[int, ...]) -> tuple[int, int]:
        """The fine and the coarse features of a stored kernel of that shape."""
        first, last = kernel[2:]
        return (last, first) if self.upsampling else (first, last)

    def places(self) -> tuple[Places, ...]:
        """For every phase of the fine grid its taps, at -1, 0 and 1 on the coarse grid.

        The phases are the pixels' remainders modulo the stride. For kernels of 3, and at
        stride 2 of up to 5 taps: none of them is further away.
        """
        taps = range(-self._missing, -self._missing + 3 * self.stride)
        known = [tap if 0 <= tap < self.size else None for tap in taps]
        phases = (known[phase :: self.stride] for phase in range(self.stride))
        return tuple((first, middle, last) for first, middle, last in phases)

    @property
    def _missing(self) -> int:
        """Taps that a kernel would have before its first, were all places taken."""
        return self.stride - self.padding // self.dilation

    def by_place(self, kernel: Array) -> Array:
        """A stored kernel as [3, 3, p, q, i, o]: by place and phase, 0 where no tap is.

        The phases stand before the fine features, which may be the last.
        """
        n = self.stride
        around = (self._missing, 3 * n - self._missing - self.size)
        filled = jnp.pad(kernel, (around, around, (0, 0), (0, 0)))
        split = filled.reshape(3, n, 3, n, *kernel.shape[2:])
        order = (0, 2, 4, 1, 3, 5) if self.upsampling else (0, 2, 1, 3, 4, 5)
        return split.transpose(order)

    def from_places(self, places: Array) -> Array:
        """The kernel as it is stored, from [3, 3, p, q, i, o] as `by_place` gives it."""
        n, first = self.stride, self._missing
        order = (0, 3, 1, 4, 2, 5) if self.upsampling else (0, 2, 1, 3, 4, 5)
        split = places.transpose(order)
        filled = split.reshape(3 * n, 3 * n, *split.shape[4:])
        return filled[first : first + self.size, first : first + self.size]
