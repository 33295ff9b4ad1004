"""DCGAN (Radford, Metz and Chintala, ICLR 2016): a generator and a discriminator.

Both are one column of 4x4 kernels between an image and a map of 4x4 pixels, and one more
4x4 kernel between that map and a vector. Batch normalisation follows every layer but those
at the image and the discriminator's last; kernels begin as N(0, 0.02).
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from gl_jax.models.completion import scaled
from gl_jax.models.layers import ConvBlock, NormOrder, UpBlock
from gl_jax.models.ops import NATIVE, Ops

# Output channels of the layers that halve an image down to 4x4 pixels, the last of these
# as its size needs: 64 to 512 at 64x64, with one more 64 at 128x128.
CHANNELS = (64, 64, 64, 64, 64, 128, 256, 512)
SMALLEST_MAP = 4

KERNEL_INIT = nn.initializers.normal(0.02)

leaky_relu = partial(nn.leaky_relu, negative_slope=0.2)


def channels(size: int) -> tuple[int, ...]:
    """Channels of the layers from an image of `size` pixels to a map of 4x4.

    Raises ValueError if halving does not lead from one to the other.
    """
    depth = (size // SMALLEST_MAP).bit_length() - 1
    if SMALLEST_MAP << depth != size or not 1 <= depth <= len(CHANNELS):
        largest = SMALLEST_MAP << len(CHANNELS)
        raise ValueError(
            f"the side of the image (={size}) must be a power of two from "
            f"{2 * SMALLEST_MAP} to {largest}: it is halved to {SMALLEST_MAP}."
        )
    return CHANNELS[-depth:]


class ToVector(ConvBlock):
    """A ConvBlock that takes a map of 4x4 pixels to one: a 4x4 convolution, not padded."""

    kernel_size: int = SMALLEST_MAP

    def linear(self, inputs: Array, kernel: Array) -> Array:
        """One pixel of all that the map holds."""
        return jnp.einsum("byxi,yxio->bo", inputs, kernel)[:, None, None]


class FromVector(ConvBlock):
    """A ConvBlock that takes one pixel to a map of 4x4: the transposed convolution."""

    kernel_size: int = SMALLEST_MAP

    def linear(self, inputs: Array, kernel: Array) -> Array:
        """The map; `inputs` are [b, 1, 1, i]."""
        return jnp.einsum("bi,yxio->byxo", inputs[:, 0, 0], kernel)


class Generator(nn.Module):
    """Makes images of codes: [b, n] in, square images [b, s, s, 3] in [0, 1] out.

    A tanh takes the last layer to [-1, 1], and a half of it and a half to [0, 1]. At
    64x64 and codes of 100 it has 3,576,704 parameters, not counting biases of kernels.
    """

    size: int = 64
    """Side of the images in pixels."""
    codes: int = 100
    """Numbers of a code; unlike channels not scaled by `width`."""
    width: float = 1.0
    norm_order: NormOrder = "norm_activation"
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    momentum: float = 0.9
    ops: Ops = NATIVE

    @nn.compact
    def __call__(
        self, codes: Float[Array, "b n"], train: bool = False
    ) -> Float[Array, "b s s 3"]:
        """The images; `train` normalises by the batch and updates running statistics."""
        if codes.shape[-1] != self.codes:
            raise ValueError(
                f"the codes have {codes.shape[-1]} numbers, this generator's {self.codes}."
            )
        block = _settings(self) | {"norm_order": self.norm_order}
        first, *others = (scaled(n, self.width) for n in reversed(channels(self.size)))
        outputs = FromVector(first, name="map", **block)(codes[:, None, None], train)
        for index, features in enumerate(others, 1):
            outputs = UpBlock(features, name=f"up{index}", **block)(outputs, train)
        block |= {"norm_order": "none", "activation": nn.tanh}
        outputs = UpBlock(3, name="image", **block)(outputs, train)
        return (outputs.astype(jnp.float32) + 1) / 2


class Discriminator(nn.Module):
    """Judges the one view that it is shown: square images in [-1, 1], logits out.

    At 64x64 pixels it has 2,765,568 parameters, not counting biases of kernels.
    """

    size: int = 64
    """Side of the images in pixels."""
    width: float = 1.0
    norm_order: NormOrder = "norm_activation"
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    momentum: float = 0.9
    ops: Ops = NATIVE

    @nn.compact
    def __call__(
        self, views: Mapping[str, Float[Array, "b s s 3"]], train: bool = False
    ) -> Float[Array, " b"]:
        """The log odds that an image is a photograph; `train` is that of the generator."""
        (images,) = views.values()
        if images.shape[1:3] != (self.size, self.size):
            raise ValueError(
                f"this discriminator sees {self.size}x{self.size} pixels, these are "
                f"{images.shape[1]}x{images.shape[2]}."
            )
        outputs = halved(self, images, train)
        block = _settings(self) | {"norm_order": "none", "activation": None}
        outputs = ToVector(1, name="logit", **block)(outputs, train)
        return outputs[:, 0, 0, 0].astype(jnp.float32)


def halved(
    network: Any, images: Float[Array, "b s s c"], train: bool
) -> Float[Array, "b 4 4 f"]:
    """Halves square images down to 4x4 by the layers conv1, conv2, ... of `network`.

    To be called while that is applied; its fields are those of `Discriminator`.
    """
    outputs = images
    for index, features in enumerate(channels(network.size), 1):
        outputs = ConvBlock(
            scaled(features, network.width),
            kernel_size=4,
            stride=2,
            norm_order="none" if index == 1 else network.norm_order,
            activation=leaky_relu,
            name=f"conv{index}",
            **_settings(network),
        )(outputs, train)
    return outputs


def _settings(network: Any) -> dict[str, Any]:
    names = ("dtype", "axis_name", "momentum", "ops")
    return {n: getattr(network, n) for n in names} | {"kernel_init": KERNEL_INIT}
