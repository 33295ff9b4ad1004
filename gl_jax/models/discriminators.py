"""The context discriminators: one sees the whole image, one the window around the hole.

Both are the same column of 5x5 convolutions of stride 2; its depth follows from the size
of its input, and the paper's tables are the two columns for 256 and 128 pixels. Neither
sees the mask. The fusion layer judges both feature vectors together.
"""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from gl_jax.models.completion import scaled
from gl_jax.models.convolution import multiply
from gl_jax.models.layers import KERNEL_INIT, ConvBlock, NormOrder

Variant = Literal["both", "global", "local"]

# Output channels of the convolutions, as many of them as the input size needs.
CHANNELS = (64, 128, 256, 512, 512, 512)
FEATURES = 1024

# Halve until the map is this small: 256 -> 4 in six layers, 128 -> 4, 160 -> 5 and 96 -> 3
# in five, which are the depths of the paper's tables and of the published face models.
SMALLEST_MAP = 5


def depth(input_size: int) -> int:
    """How many convolutions an input of `input_size` pixels passes through."""
    layers, side = 0, input_size
    while side > SMALLEST_MAP:
        layers, side = layers + 1, -(-side // 2)
    return layers


def _product(inputs: Array, kernel: Array, *_: Any, **__: Any) -> Array:
    """`multiply` as what a dense layer asks for."""
    return multiply(inputs, kernel)


class PatchDiscriminator(nn.Module):
    """A column of convolutions and a dense layer: a square image in, 1024 features out."""

    input_size: int
    width: float = 1.0
    norm_order: NormOrder = "norm_activation"
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    momentum: float = 0.9
    rematerialize: bool = False

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w 3"], train: bool, batches: int = 1
    ) -> Float[Array, "b f"]:
        """The features; `train` and `batches` are those of ContextDiscriminator."""
        if images.shape[1:3] != (self.input_size, self.input_size):
            raise ValueError(
                f"this discriminator was built for input_size (={self.input_size}), "
                f"but the images are {images.shape[1]}x{images.shape[2]}."
            )
        block = (
            nn.remat(ConvBlock, static_argnums=(2, 3))
            if self.rematerialize
            else ConvBlock
        )
        layers = depth(self.input_size)
        # Inputs beyond 256 pixels get more layers of the last width.
        channels = CHANNELS + CHANNELS[-1:] * max(0, layers - len(CHANNELS))
        outputs = images
        for index, features in enumerate(channels[:layers], 1):
            outputs = block(
                features=scaled(features, self.width),
                kernel_size=5,
                stride=2,
                norm_order=self.norm_order,
                dtype=self.dtype,
                axis_name=self.axis_name,
                momentum=self.momentum,
                name=f"conv{index}",
            )(outputs, train, batches)
        outputs = outputs.reshape(outputs.shape[0], -1)
        outputs = nn.Dense(
            scaled(FEATURES, self.width),
            dtype=self.dtype,
            kernel_init=KERNEL_INIT,
            dot_general=_product,
            name="features",
        )(outputs)
        return nn.relu(outputs).astype(jnp.float32)


class LocalDiscriminator(PatchDiscriminator):
    """Judges the window around the hole (paper: 128x128, 19,253,248 parameters)."""

    input_size: int = 128


class GlobalDiscriminator(PatchDiscriminator):
    """Judges the whole image (paper: 256x256, 25,808,384 parameters)."""

    input_size: int = 256


class ContextDiscriminator(nn.Module):
    """Both discriminators and the layer that fuses them: images and windows in, logits out.

    A logit is the log odds that the image is a real photograph; the sigmoid is in the
    loss. `variant` leaves one of the two out (the paper's ablation).
    """

    image_size: int = 256
    local_size: int = 128
    variant: Variant = "both"
    width: float = 1.0
    norm_order: NormOrder = "norm_activation"
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    momentum: float = 0.9
    rematerialize: bool = False

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "b h w 3"],
        patches: Float[Array, "b s s 3"],
        train: bool = False,
        batches: int = 1,
    ) -> Float[Array, " b"]:
        """The logits; `train` normalises by the batch and updates running statistics.

        Several `batches`, one behind the other, are each normalised by themselves: real
        and fake images, whose statistics must not mix, pass through together.
        """
        settings: dict[str, Any] = {
            "width": self.width,
            "norm_order": self.norm_order,
            "dtype": self.dtype,
            "axis_name": self.axis_name,
            "momentum": self.momentum,
            "rematerialize": self.rematerialize,
        }
        features = []
        if self.variant != "global":
            local = LocalDiscriminator(self.local_size, **settings, name="local")
            features.append(local(patches, train, batches))
        if self.variant != "local":
            whole = GlobalDiscriminator(self.image_size, **settings, name="global")
            features.append(whole(images, train, batches))
        fused = nn.Dense(1, name="fusion")(jnp.concatenate(features, axis=-1))
        return fused[:, 0]
