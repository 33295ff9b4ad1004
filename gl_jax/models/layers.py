"""The two blocks that every network here is made of.

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

from gl_jax.models.convolution import convolve, upsample

NormOrder = Literal["norm_activation", "activation_norm"]
Activation = Callable[[Array], Array]

# Torch's BatchNorm, which trained the published weights.
BATCH_NORM_EPSILON = 1e-5

KERNEL_INIT = nn.initializers.he_normal()


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
        self,
        inputs: Float[Array, "b h w c"],
        train: bool,
        added: Float[Array, " c"] | float = 0.0,
        batches: int = 1,
    ) -> Float[Array, "b h w c"]:
        """Normalises by the batch's statistics where `train`, else by the running ones.

        `added` is a bias that the inputs are seen with. It moves their mean and nothing
        else, so it is never added to them: that saves two passes over each image. Where
        the images are several `batches`, one behind the other, each has its own
        statistics, and the running ones see one after the other.
        """
        shape = inputs.shape[-1:]
        scale = self.param("scale", nn.initializers.ones_init(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        mean, var = running_mean.value - added, running_var.value
        split = inputs.reshape(batches, -1, *inputs.shape[1:])
        if train:
            mean, var = batch_statistics(split, self.axis_name)
            if not self.is_initializing():
                for seen_mean, seen_var in zip(mean, var, strict=True):
                    seen = ((running_mean, seen_mean + added), (running_var, seen_var))
                    for running, value in seen:
                        old = self.momentum * running.value
                        running.value = old + (1 - self.momentum) * value
        mean, var = (value.reshape(-1, *shape) for value in (mean, var))
        factor = scale[None] * jax.lax.rsqrt(var + BATCH_NORM_EPSILON)
        offset = bias[None] - mean * factor
        outputs = split.astype(jnp.float32) * _over_pixels(factor)
        outputs = outputs + _over_pixels(offset)
        return outputs.reshape(inputs.shape).astype(inputs.dtype)


def batch_statistics(
    inputs: Float[Array, "n b h w c"], axis_name: str | None
) -> tuple[Float[Array, "n c"], Float[Array, "n c"]]:
    """Mean and variance of each channel over each whole batch, all devices included."""
    values = inputs.astype(jnp.float32)
    mean = _over_devices(jnp.mean(values, axis=(1, 2, 3)), axis_name)
    squares = jnp.square(values - _over_pixels(mean))
    squares = jnp.mean(squares, axis=(1, 2, 3))
    return mean, _over_devices(squares, axis_name)


def _over_devices(value: Array, axis_name: str | None) -> Array:
    return value if axis_name is None else jax.lax.pmean(value, axis_name)


def _over_pixels(vectors: Float[Array, "n c"]) -> Float[Array, "n 1 1 1 c"]:
    return vectors[:, None, None, None]


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
        self, inputs: Float[Array, "b h w i"], train: bool, batches: int = 1
    ) -> Float[Array, "b y x o"]:
        """Applies the block; `train` and `batches` are those of BatchNorm."""
        k = self.kernel_size
        kernel = self.param(
            "kernel", KERNEL_INIT, (k, k, inputs.shape[-1], self.features)
        )
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        outputs = self.linear(inputs.astype(self.dtype), kernel.astype(self.dtype))
        if self.norm and self.norm_order == "norm_activation":
            outputs = self.normalize(outputs, train, batches, bias)
        else:
            outputs = outputs + bias.astype(self.dtype)[None, None, None]
        if self.activation is not None:
            outputs = self.activation(outputs)
        if self.norm and self.norm_order == "activation_norm":
            outputs = self.normalize(outputs, train, batches)
        return outputs

    def linear(self, inputs: Array, kernel: Array) -> Array:
        """The block's linear map, before bias and normalisation."""
        return convolve(inputs, kernel, self.stride, self.dilation)

    def normalize(
        self, inputs: Array, train: bool, batches: int, added: Array | float = 0.0
    ) -> Array:
        """Batch normalisation under the name `norm`."""
        norm = BatchNorm(axis_name=self.axis_name, momentum=self.momentum, name="norm")
        return norm(inputs, train, added, batches)


class UpBlock(ConvBlock):
    """A ConvBlock that doubles the resolution by a 4x4 transposed convolution."""

    kernel_size: int = 4
    stride: int = 2

    def linear(self, inputs: Array, kernel: Array) -> Array:
        """Twice the resolution, before bias and normalisation."""
        return upsample(inputs, kernel)
