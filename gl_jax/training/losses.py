"""The losses of the paper's equations 2 to 5 and one of structure, as functions of arrays.

`completed` and `images` are float RGB in [0, 1]; logits are log odds of "real".
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gl_jax.evaluation.metrics import ssim
from gl_jax.holes import Images, Mask, composite

Normalizer = Literal["image", "hole"]
Adversarial = Literal["non_saturating", "saturating"]


def completion_loss(
    completed: Images, images: Images, mask: Mask, *, normalizer: Normalizer = "image"
) -> Float[Array, ""]:
    """The squared error inside the hole (Eq. 2), averaged over all values of the image.

    Eq. 2 read literally is a sum, beside which alpha = 0.0004 would be a million times
    too small; averaged over the image, as Torch's MSECriterion does, both losses are of
    one order. `normalizer="hole"` averages over each hole's own values instead.
    """
    squared = jnp.square(mask * (completed - images))
    if normalizer == "image":
        return jnp.mean(squared)
    per_image = jnp.sum(squared, axis=(1, 2, 3)) / (3 * jnp.sum(mask, axis=(1, 2, 3)))
    return jnp.mean(per_image)


def structure_loss(completed: Images, images: Images, mask: Mask) -> Float[Array, ""]:
    """1 - SSIM of the photographs with their holes filled; not in the paper.

    The squared error is nearly blind to faint edges and to a step at the hole's rim; SSIM
    compares each neighbourhood by its own contrast (Zhao et al. 2017, "Loss Functions for
    Image Restoration with Neural Networks"). Averaged over the whole image, as
    `completion_loss` is; windows at the rim see known pixels too.
    """
    return jnp.mean(1 - ssim(composite(completed, images, mask), images))


def discriminator_loss(
    real_logits: Float[Array, " b"], fake_logits: Float[Array, " b"]
) -> Float[Array, ""]:
    """-log D(real) - log(1 - D(fake)), averaged over the batch: what D minimises in Eq. 3."""
    real = jax.nn.softplus(-real_logits)
    fake = jax.nn.softplus(fake_logits)
    return jnp.mean(real) + jnp.mean(fake)


def adversarial_loss(
    fake_logits: Float[Array, " b"], *, kind: Adversarial = "non_saturating"
) -> Float[Array, ""]:
    """What C minimises against D: log(1 - D(fake)) of Eq. 5, or -log D(fake).

    The second has its fixed point in the same place but a gradient that does not vanish
    where D is sure; every published implementation trains with it.
    """
    if kind == "saturating":
        return jnp.mean(-jax.nn.softplus(fake_logits))
    return jnp.mean(jax.nn.softplus(-fake_logits))
