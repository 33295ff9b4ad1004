"""Losses and penalties: pure functions of arrays and logits, with their equations.

`completed` and `images` are float RGB in [0, 1]; logits are log odds of "real". An
`Objective` says which of them a run minimises.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gl_jax.holes import Images, Mask, composite
from gl_jax.metrics import ssim

Normalizer = Literal["image", "hole"]
Adversarial = Literal["non_saturating", "saturating"]

Scalar = Float[Array, ""]
Views = Mapping[str, Array]
CompletionLoss = Callable[[Images, Images, Mask], Scalar]
DiscriminatorLoss = Callable[[Float[Array, " b"], Float[Array, " b"]], Scalar]
AdversarialLoss = Callable[[Float[Array, " b"]], Scalar]
LogitsOf = Callable[[Any], Float[Array, " b"]]
Penalty = Callable[[LogitsOf, Any, Any], Scalar]


def completion_loss(
    completed: Images, images: Images, mask: Mask, *, normalizer: Normalizer = "image"
) -> Scalar:
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


def structure_loss(completed: Images, images: Images, mask: Mask) -> Scalar:
    """1 - SSIM of the photographs with their holes filled; not in the paper.

    The squared error is nearly blind to faint edges and to a step at the hole's rim; SSIM
    compares each neighbourhood by its own contrast (Zhao et al. 2017, "Loss Functions for
    Image Restoration with Neural Networks"). Averaged over the whole image, as
    `completion_loss` is; windows at the rim see known pixels too.
    """
    return jnp.mean(1 - ssim(composite(completed, images, mask), images))


def discriminator_loss(
    real_logits: Float[Array, " b"], fake_logits: Float[Array, " b"]
) -> Scalar:
    """-log D(real) - log(1 - D(fake)), averaged over the batch: what D minimises in Eq. 3."""
    real = jax.nn.softplus(-real_logits)
    fake = jax.nn.softplus(fake_logits)
    return jnp.mean(real) + jnp.mean(fake)


def adversarial_loss(
    fake_logits: Float[Array, " b"], *, kind: Adversarial = "non_saturating"
) -> Scalar:
    """What C minimises against D: log(1 - D(fake)) of Eq. 5, or -log D(fake).

    The second has its fixed point in the same place but a gradient that does not vanish
    where D is sure; every published implementation trains with it.
    """
    if kind == "saturating":
        return jnp.mean(-jax.nn.softplus(fake_logits))
    return jnp.mean(jax.nn.softplus(-fake_logits))


@dataclass(frozen=True)
class Term:
    """One term of the completion network's own loss."""

    loss: CompletionLoss
    weight: float = 1.0


@dataclass(frozen=True)
class Objective:
    """The losses that the networks minimise: by default equations 2 to 5 of the paper.

    The discriminators minimise `discriminator_weight` times `discriminator(real_logits,
    fake_logits)`, plus `penalty(logits_of, real_views, fake_views)` if there is one,
    `logits_of` being the discriminator as a function of views. The completion network
    minimises its weighted terms and, in the joint phase, alpha times
    `adversarial(fake_logits)`.
    """

    completion: Mapping[str, Term] = field(
        default_factory=lambda: {"completion_loss": Term(completion_loss)}
    )
    """Under the names by which their values, without weights, are logged."""
    discriminator: DiscriminatorLoss = discriminator_loss
    adversarial: AdversarialLoss = adversarial_loss
    discriminator_weight: float = 1.0
    alpha: float = 4e-4
    ratio: float | None = None
    """If set, alpha makes the adversarial gradient this share of the completion gradient's
    norm, both taken at the completed image."""
    penalty: Penalty | None = None
