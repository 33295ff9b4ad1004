"""The context discriminators: one sees the whole image, one the window around the hole.

Both are the same column of 5x5 convolutions of stride 2; its depth follows from the size
of its input, and the paper's tables are the two columns for 256 and 128 pixels. Neither
sees the mask. The fusion layer judges all columns' features together.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from gl_jax.models.completion import scaled
from gl_jax.models.layers import KERNEL_INIT, ConvBlock, Dense, NormOrder
from gl_jax.models.ops import NATIVE, Ops

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


class PatchDiscriminator(nn.Module):
    """A column of convolutions and a dense layer: a square image in, 1024 features out.

    What each convolution gives is sown under "features", for whoever asks for it.
    """

    width: float = 1.0
    norm_order: NormOrder = "norm_activation"
    spectral_norm: bool = False
    """Divides each kernel by its largest singular value (Miyato et al. 2018)."""
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    momentum: float = 0.9
    rematerialize: bool = False
    ops: Ops = NATIVE

    @nn.compact
    def __call__(
        self, images: Float[Array, "b s s 3"], train: bool = False
    ) -> Float[Array, "b f"]:
        """The features; `train` is that of ContextDiscriminator."""
        height, width = images.shape[1:3]
        if height != width:
            raise ValueError(
                f"a discriminator's images (={height}x{width}) must be square."
            )
        block = (
            nn.remat(ConvBlock, static_argnums=(2,))
            if self.rematerialize
            else ConvBlock
        )
        layers = depth(height)
        # Inputs beyond 256 pixels get more layers of the last width.
        channels = CHANNELS + CHANNELS[-1:] * max(0, layers - len(CHANNELS))
        outputs = images
        for index, features in enumerate(channels[:layers], 1):
            outputs = block(
                features=scaled(features, self.width),
                kernel_size=5,
                stride=2,
                norm_order=self.norm_order,
                spectral_norm=self.spectral_norm,
                dtype=self.dtype,
                axis_name=self.axis_name,
                momentum=self.momentum,
                ops=self.ops,
                name=f"conv{index}",
            )(outputs, train)
            if not self.is_initializing():
                self.sow("features", "conv", outputs)
        outputs = outputs.reshape(outputs.shape[0], -1)
        outputs = Dense(
            scaled(FEATURES, self.width),
            KERNEL_INIT,
            self.spectral_norm,
            self.dtype,
            name="features",
        )(outputs, train)
        return nn.relu(outputs).astype(jnp.float32)


class LocalDiscriminator(PatchDiscriminator):
    """Judges the window around the hole (paper: 128x128, 19,253,248 parameters)."""


class GlobalDiscriminator(PatchDiscriminator):
    """Judges the whole image (paper: 256x256, 25,808,384 parameters)."""


COLUMNS: dict[str, type[PatchDiscriminator]] = {
    "local": LocalDiscriminator,
    "global": GlobalDiscriminator,
}


class ContextDiscriminator(nn.Module):
    """A discriminator for each view of the images, and the layer that fuses them.

    Views in, logits out. The paper's two views are the window ("local") and the whole
    image ("global"); one of them alone is its ablation, and another name is one more
    column. A logit is the log odds that the image is a real photograph; the sigmoid is
    in the loss.
    """

    views: tuple[str, ...] = ("local", "global")
    width: float = 1.0
    norm_order: NormOrder = "norm_activation"
    spectral_norm: bool = False
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    momentum: float = 0.9
    rematerialize: bool = False
    ops: Ops = NATIVE

    @nn.compact
    def __call__(
        self, views: Mapping[str, Float[Array, "b _ _ 3"]], train: bool = False
    ) -> Float[Array, " b"]:
        """The logits; `train` normalises by the batch and updates running statistics.

        Real and fake images are two batches, two calls: one with both in it would mix
        their statistics. Raises ValueError where a view is missing or not square.
        """
        missing = [name for name in self.views if name not in views]
        if missing:
            raise ValueError(
                f"the discriminator looks at {', '.join(self.views)}, and is shown only "
                f"{', '.join(views) or 'nothing'}."
            )
        settings: dict[str, Any] = {
            "width": self.width,
            "norm_order": self.norm_order,
            "spectral_norm": self.spectral_norm,
            "dtype": self.dtype,
            "axis_name": self.axis_name,
            "momentum": self.momentum,
            "rematerialize": self.rematerialize,
            "ops": self.ops,
        }
        features = [
            COLUMNS.get(name, PatchDiscriminator)(**settings, name=name)(
                views[name], train
            )
            for name in self.views
        ]
        fusion = Dense(1, spectral_norm=self.spectral_norm, name="fusion")
        return fusion(jnp.concatenate(features, axis=-1), train)[:, 0]
