"""The two blocks that every network here is made of, and the convolution beneath them.

A block is convolution, batch normalisation, activation. `ConvBlock` keeps, dilates or
halves the resolution; `UpBlock` doubles it with a 4x4 transposed convolution of stride 2.
"""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

NormOrder = Literal["norm_activation", "activation_norm"]
Activation = Callable[[Array], Array]

# Torch's BatchNorm, which trained the published weights.
BATCH_NORM_EPSILON = 1e-5

KERNEL_INIT = nn.initializers.he_normal()


def convolve(
    inputs: Float[Array, "b h w i"],
    kernel: Float[Array, "k k i o"],
    *,
    stride: int = 1,
    dilation: int = 1,
) -> Float[Array, "b y x o"]:
    """The "same" convolution of the paper's tables: zero padding of dilation * (k - 1) / 2."""
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
    """The 4x4 transposed convolution of stride 2 and padding 1: exactly twice the size.

    `kernel[dy, dx]` carries input pixel (y, x) to output pixel (2y + dy - 1, 2x + dx - 1).
    Each of the four output phases depends on 2x2 input pixels, so one product of the 3x3
    shifted inputs with a kernel of four phases, followed by depth to space, computes it:
    XLA's gradient of the native form is about a hundred times slower.
    """
    b, h, w, i = inputs.shape
    features = kernel.shape[-1]
    # Output row 2y + p takes input row y + s - 1 through kernel row dy = p + 3 - 2s.
    phases = jnp.zeros((3, 3, i, 2, 2, features), kernel.dtype)
    for phase_y, shift_y, dy in _PHASES:
        for phase_x, shift_x, dx in _PHASES:
            phases = phases.at[shift_y, shift_x, :, phase_y, phase_x].set(
                kernel[dy, dx]
            )
    mixed = convolve(inputs, phases.reshape(3, 3, i, 4 * features))
    mixed = mixed.reshape(b, h, w, 2, 2, features).transpose(0, 1, 3, 2, 4, 5)
    return mixed.reshape(b, 2 * h, 2 * w, features)


_PHASES = [
    (p, s, p + 3 - 2 * s) for p in (0, 1) for s in (0, 1, 2) if 0 <= p + 3 - 2 * s <= 3
]


class BatchNorm(nn.Module):
    """Batch normalisation over images and pixels, its statistics shared over devices.

    Statistics are float32 whatever the type of the inputs, which the outputs keep.
    Unlike Torch's, the running variance is that of the batch itself, not n / (n - 1)
    of it; with thousands of pixels a channel the two are the same.
    """

    axis_name: str | None = None
    momentum: float = 0.9

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "b h w c"], train: bool
    ) -> Float[Array, "b h w c"]:
        """Normalises by the batch's statistics where `train`, else by the running ones."""
        shape = inputs.shape[-1:]
        scale = self.param("scale", nn.initializers.ones_init(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        mean, var = running_mean.value, running_var.value
        if train:
            mean, var = batch_statistics(inputs, self.axis_name)
            if not self.is_initializing():
                for running, value in ((running_mean, mean), (running_var, var)):
                    old = self.momentum * running.value
                    running.value = old + (1 - self.momentum) * value
        factor = scale * jax.lax.rsqrt(var + BATCH_NORM_EPSILON)
        offset = bias - mean * factor
        outputs = inputs.astype(jnp.float32) * _channels(factor) + _channels(offset)
        return outputs.astype(inputs.dtype)


def batch_statistics(
    inputs: Float[Array, "b h w c"], axis_name: str | None
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Mean and variance of each channel over the whole batch, all devices included."""
    values = inputs.astype(jnp.float32)
    mean = _over_devices(jnp.mean(values, axis=(0, 1, 2)), axis_name)
    squares = jnp.mean(jnp.square(values - _channels(mean)), axis=(0, 1, 2))
    return mean, _over_devices(squares, axis_name)


def _over_devices(value: Array, axis_name: str | None) -> Array:
    return value if axis_name is None else jax.lax.pmean(value, axis_name)


def _channels(vector: Float[Array, " c"]) -> Float[Array, "1 1 1 c"]:
    return vector[None, None, None, :]


class ConvBlock(nn.Module):
    """Convolution, batch normalisation, activation; `norm=False` leaves the middle out."""

    features: int
    kernel_size: int = 3
    stride: int = 1
    dilation: int = 1
    norm: bool = True
    norm_order: NormOrder = "norm_activation"
    activation: Activation | None = nn.relu
    dtype: DTypeLike = (
        jnp.float32
    )  # of activations and products; parameters are float32
    axis_name: str | None = None  # devices to share batch statistics over
    momentum: float = 0.9

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "b h w i"], train: bool
    ) -> Float[Array, "b y x o"]:
        """Applies the block; `train` normalises by the batch and updates running statistics."""
        k = self.kernel_size
        kernel = self.param(
            "kernel", KERNEL_INIT, (k, k, inputs.shape[-1], self.features)
        )
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        outputs = self.linear(inputs.astype(self.dtype), kernel.astype(self.dtype))
        outputs = outputs + _channels(bias.astype(self.dtype))
        if self.norm and self.norm_order == "norm_activation":
            outputs = self.normalize(outputs, train)
        if self.activation is not None:
            outputs = self.activation(outputs)
        if self.norm and self.norm_order == "activation_norm":
            outputs = self.normalize(outputs, train)
        return outputs

    def linear(self, inputs: Array, kernel: Array) -> Array:
        """The block's linear map, before bias and normalisation."""
        return convolve(inputs, kernel, stride=self.stride, dilation=self.dilation)

    def normalize(self, inputs: Array, train: bool) -> Array:
        """Batch normalisation under the name `norm`."""
        norm = BatchNorm(axis_name=self.axis_name, momentum=self.momentum, name="norm")
        return norm(inputs, train)


class UpBlock(ConvBlock):
    """A ConvBlock that doubles the resolution by a 4x4 transposed convolution."""

    kernel_size: int = 4
    stride: int = 2

    def linear(self, inputs: Array, kernel: Array) -> Array:
        """Twice the resolution, before bias and normalisation."""
        return upsample(inputs, kernel)
