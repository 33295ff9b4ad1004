"""The two blocks that make up the networks.

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

from gl_jax.models.ops import NATIVE, Ops

NormOrder = Literal["norm_activation", "activation_norm", "none"]
Activation = Callable[[Array], Array]
Initializer = Callable[..., Array]

# As in Torch's BatchNorm, because the published weights were trained with it.
BATCH_NORM_EPSILON = 1e-5

KERNEL_INIT = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
"""He-normal (He et al. 2015), not truncated."""


class BatchNorm(nn.Module):
    """Batch normalisation over images and pixels, with statistics shared over devices.

    Statistics are float32 for inputs of any type; outputs keep the inputs' type. The
    running variance is the batch's own, while Torch multiplies it by n / (n - 1); with
    thousands of pixels a channel this makes no difference.
    """

    axis_name: str | None = None
    momentum: float = 0.9

    @nn.compact
    def __call__(
        self,
        inputs: Float[Array, "b h w c"],
        train: bool,
        added: Float[Array, " c"] | float = 0.0,
    ) -> Float[Array, "b h w c"]:
        """Normalises by the batch's statistics if `train`, else by the running ones.

        `added` is a bias of the inputs. It changes only their mean, so it is not added to
        them: the sum would be another array saved for the backward pass.
        """
        shape = inputs.shape[-1:]
        scale = self.param("scale", nn.initializers.ones_init(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        mean, var = running_mean.value, running_var.value
        if train:
            mean, var = batch_statistics(inputs, mean, self.axis_name, added)
            if not self.is_initializing():
                for running, new in ((running_mean, mean), (running_var, var)):
                    old = self.momentum * running.value
                    running.value = old + (1 - self.momentum) * new
        factor = scale * jax.lax.rsqrt(var + BATCH_NORM_EPSILON)
        offset = bias + (added - mean) * factor
        outputs = inputs.astype(jnp.float32) * _over_pixels(factor)
        return (outputs + _over_pixels(offset)).astype(inputs.dtype)


def batch_statistics(
    inputs: Float[Array, "b h w c"],
    near: Float[Array, " c"],
    axis_name: str | None,
    added: Float[Array, " c"] | float = 0.0,
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Returns mean and variance of each channel over the whole batch on all devices.

    They are the statistics of `inputs + added`, which is never computed.

    One collective averages the devices' means and mean squares. Both are taken relative
    to `near`, which is the same on all devices, because the difference of two large
    squares would lose all digits.
    """
    values = inputs.astype(jnp.float32)
    mean = jnp.mean(values, axis=(0, 1, 2))
    var = jnp.mean(jnp.square(values - _over_pixels(mean)), axis=(0, 1, 2))
    mean = mean + added
    if axis_name is None:
        return mean, var
    shift = mean - near
    shift, square = jax.lax.pmean(
        jnp.stack([shift, var + jnp.square(shift)]), axis_name
    )
    return near + shift, jnp.maximum(square - jnp.square(shift), 0.0)


def _over_pixels(vector: Float[Array, " c"]) -> Float[Array, "1 1 1 c"]:
    return vector[None, None, None]


class ConvBlock(nn.Module):
    """Convolution, batch normalisation (unless `norm_order` is "none"), activation."""

    features: int
    kernel_size: int = 3
    stride: int = 1
    dilation: int = 1
    norm_order: NormOrder = "norm_activation"
    activation: Activation | None = nn.relu
    dtype: DTypeLike = jnp.float32
    """Type of activations and products; parameters are float32."""
    axis_name: str | None = None
    """Mapped axis of devices that share batch statistics."""
    momentum: float = 0.9
    ops: Ops = NATIVE
    kernel_init: Initializer = KERNEL_INIT

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "b h w i"], train: bool
    ) -> Float[Array, "b y x o"]:
        """Applies the block; `train` is passed to BatchNorm."""
        k = self.kernel_size
        kernel = self.param(
            "kernel", self.kernel_init, (k, k, inputs.shape[-1], self.features)
        )
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        outputs = self.linear(inputs.astype(self.dtype), kernel.astype(self.dtype))
        if self.norm_order == "norm_activation":
            # Subtracting the batch's mean cancels the bias, so its gradient would be
            # pure rounding error, which Adam and Adadelta would scale to full steps.
            added = jax.lax.stop_gradient(bias) if train else bias
            outputs = self.normalize(outputs, train, added)
        else:
            outputs = outputs + _over_pixels(bias.astype(self.dtype))
        if self.activation is not None:
            outputs = self.activation(outputs)
        if self.norm_order == "activation_norm":
            outputs = self.normalize(outputs, train)
        return outputs

    def linear(self, inputs: Array, kernel: Array) -> Array:
        """Applies the block's linear map, before bias and normalisation."""
        return self.ops.convolve(inputs, kernel, self.stride, self.dilation)

    def normalize(
        self, inputs: Array, train: bool, added: Array | float = 0.0
    ) -> Array:
        """Applies batch normalisation under the name `norm`."""
        norm = BatchNorm(axis_name=self.axis_name, momentum=self.momentum, name="norm")
        return norm(inputs, train, added)


class UpBlock(ConvBlock):
    """A ConvBlock that doubles the resolution by a 4x4 transposed convolution."""

    kernel_size: int = 4
    stride: int = 2

    def linear(self, inputs: Array, kernel: Array) -> Array:
        """Doubles the resolution, before bias and normalisation."""
        return self.ops.upsample(inputs, kernel)
