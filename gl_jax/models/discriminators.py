"""The context discriminators of the whole image and of the window around the hole.

Both are a column of 5x5 convolutions of stride 2, whose depth depends on the size of the
input; the paper's tables are the columns for 256 and 128 pixels. Neither gets the mask.
The fusion layer computes a logit from the features of all columns.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from gl_jax.models.completion import scaled
from gl_jax.models.layers import KERNEL_INIT, ConvBlock, NormOrder
from gl_jax.models.ops import NATIVE, Ops

# Output channels of the convolutions; a smaller input uses fewer of them.
CHANNELS = (64, 128, 256, 512, 512, 512)
FEATURES = 1024

# Largest side of the last map: 256 -> 4 in six layers, 128 -> 4, 160 -> 5 and 96 -> 3 in
# five, which are the depths of the paper's tables and of the published face models.
SMALLEST_MAP = 5


def depth(input_size: int) -> int:
    """Returns the number of convolutions for an input of `input_size` pixels."""
    layers, side = 0, input_size
    while side > SMALLEST_MAP:
        layers, side = layers + 1, -(-side // 2)
    return layers


def constrained(layer: nn.Module, spectral_norm: bool, train: bool) -> Any:
    """Divides the layer's kernel by its largest singular value, if `spectral_norm`.

    Miyato et al. 2018, "Spectral Normalization for GANs": one step of power iteration per
    call in training, on vectors in the batch statistics.
    """
    if not spectral_norm:
        return layer
    return partial(nn.SpectralNorm(layer), update_stats=train)


class PatchDiscriminator(nn.Module):
    """A column of convolutions and a dense layer: a square image in, 1024 features out.

    Each convolution's output is sown under "features".
    """

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
        self, images: Float[Array, "b s s 3"], train: bool = False
    ) -> Float[Array, "b f"]:
        """Returns the features; see ContextDiscriminator for `train`."""
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
        # Inputs larger than 256 pixels get more layers of the last width.
        channels = CHANNELS + CHANNELS[-1:] * max(0, layers - len(CHANNELS))
        outputs = images
        for index, features in enumerate(channels[:layers], 1):
            layer = block(
                features=scaled(features, self.width),
                kernel_size=5,
                stride=2,
                norm_order=self.norm_order,
                dtype=self.dtype,
                axis_name=self.axis_name,
                momentum=self.momentum,
                ops=self.ops,
                name=f"conv{index}",
            )
            outputs = constrained(layer, self.spectral_norm, train)(outputs, train)
            if not self.is_initializing():
                self.sow("features", "conv", outputs)
        outputs = outputs.reshape(outputs.shape[0], -1)
        dense = nn.Dense(
            scaled(FEATURES, self.width),
            dtype=self.dtype,
            kernel_init=KERNEL_INIT,
            name="features",
        )
        outputs = constrained(dense, self.spectral_norm, train)(outputs)
        return nn.relu(outputs).astype(jnp.float32)


class LocalDiscriminator(PatchDiscriminator):
    """Discriminator of the window around the hole (paper: 128x128, 19,253,248 parameters)."""


class GlobalDiscriminator(PatchDiscriminator):
    """Discriminator of the whole image (paper: 256x256, 25,808,384 parameters)."""


COLUMNS: dict[str, type[PatchDiscriminator]] = {
    "local": LocalDiscriminator,
    "global": GlobalDiscriminator,
}


class ContextDiscriminator(nn.Module):
    """A discriminator for each view of the images, and a fusion layer: views to logits.

    The paper's two views are the window ("local") and the whole image ("global"); its
    ablations use one of them. Each other name adds a column. A logit is the log odds that
    the image is a real photograph; the sigmoid is in the loss.
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
        """Returns the logits; `train` uses batch and updates running statistics.

        Real and fake images need two calls, because one batch of both would mix their
        statistics. Raises ValueError if a view is missing or not square.
        """
        missing = [name for name in self.views if name not in views]
        if missing:
            raise ValueError(
                f"the discriminator needs the views {', '.join(self.views)}, but got only "
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
        fusion = constrained(nn.Dense(1, name="fusion"), self.spectral_norm, train)
        fused = fusion(jnp.concatenate(features, axis=-1))
        return fused[:, 0]
