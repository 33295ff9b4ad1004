"""Where the taps of a kernel lie: the one description that all formulations share."""

from dataclasses import dataclass

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

    def places(self) -> tuple[Places, ...]:
        """For every phase of the fine grid its taps, at -1, 0 and 1 on the coarse grid.

        The phases are the pixels' remainders modulo the stride. For kernels of 3, and at
        stride 2 of up to 5 taps: none of them is further away.
        """
        return tuple(
            (self._tap(phase, -1), self._tap(phase, 0), self._tap(phase, 1))
            for phase in range(self.stride)
        )

    def _tap(self, phase: int, place: int) -> int | None:
        tap = self.stride * place + phase + self.padding // self.dilation
        return tap if 0 <= tap < self.size else None
