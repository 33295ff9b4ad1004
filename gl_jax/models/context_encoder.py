"""The Context Encoder (Pathak et al., CVPR 2016), as its released training code builds it.

A column of 4x4 convolutions and a bottleneck of one pixel encode a square photograph, and
DCGAN's generator decodes that: into the middle of the photograph, or the whole of it. The
channel-wise layer of the paper's text is not in that code. Its discriminator is DCGAN's.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from gl_jax.models.completion import scaled
from gl_jax.models.dcgan import KERNEL_INIT, Generator, ToVector, halved, leaky_relu
from gl_jax.models.layers import NormOrder
from gl_jax.models.ops import NATIVE, Ops

# RGB in [0, 1] that the hole is painted with.
FILL = (117 / 255, 104 / 255, 123 / 255)


class ContextEncoder(nn.Module):
    """Completes photographs of one size: [b, s, s, 4] in, colours [b, s, s, 3] in [0, 1] out.

    The inputs are colours in [-1, 1] with the hole painted in FILL; the mask, their fourth
    channel, is not looked at. At 128x128 and not counting biases of kernels it has
    71,124,544 parameters for a middle of 64x64, and 71,190,208 for the whole photograph.
    """

    size: int = 128
    """Side of the photographs in pixels."""
    predicted: int = 128
    """Side of the square in the middle that is predicted; around it the output is the
    input. The same as `size` for the whole photograph, whose holes may be anywhere."""
    bottleneck: int = 4000
    """Values between encoder and decoder; scaled by `width` as all channels are."""
    width: float = 1.0
    norm_order: NormOrder = "norm_activation"
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    momentum: float = 0.9
    ops: Ops = NATIVE

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "b s s 4"], train: bool = False
    ) -> Float[Array, "b s s 3"]:
        """The completed photographs; raises ValueError for another size."""
        if inputs.shape[1:3] != (self.size, self.size):
            raise ValueError(
                f"this context encoder completes {self.size}x{self.size} pixels only, "
                f"these are {inputs.shape[1]}x{inputs.shape[2]}."
            )
        colors = inputs[..., :3]
        shared: dict[str, Any] = {
            "norm_order": self.norm_order,
            "dtype": self.dtype,
            "axis_name": self.axis_name,
            "momentum": self.momentum,
            "ops": self.ops,
        }
        code = ToVector(
            scaled(self.bottleneck, self.width),
            activation=leaky_relu,
            kernel_init=KERNEL_INIT,
            name="bottleneck",
            **shared,
        )(halved(self, colors, train), train)
        codes = code[:, 0, 0]
        decoder = Generator(
            self.predicted, codes.shape[-1], self.width, name="decoder", **shared
        )
        predicted = decoder(codes, train)
        if self.predicted == self.size:
            return predicted
        middle = middle_of(self.size, self.predicted)
        return ((colors + 1) / 2).at[:, middle, middle].set(predicted)


def middle_of(size: int, predicted: int) -> slice:
    """The rows, or the columns, of a middle of `predicted` pixels out of `size`."""
    start = (size - predicted) // 2
    return slice(start, start + predicted)
