"""Losses: pure functions of arrays and logits, with their equations.

`completed` and `images` are float RGB in [0, 1]; logits are log odds of "real". An
`Objective` says which of them a run minimises, and which penalty of `penalties`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gl_jax.holes import Images, Mask, composite
from gl_jax.metrics import ssim
from gl_jax.training.penalties import Penalty

Normalizer = Literal["image", "hole"]
Adversarial = Literal[
    "non_saturating",
    "saturating",
    "hinge",
    "least_squares",
    "wasserstein",
    "relativistic",
]

Scalar = Float[Array, ""]
Logits = Float[Array, " b"]
CompletionLoss = Callable[[Images, Images, Mask], Scalar]
DiscriminatorLoss = Callable[[Logits, Logits], Scalar]
AdversarialLoss = Callable[..., Scalar]
FeatureLoss = Callable[[Sequence[Array], Sequence[Array]], Scalar]


# ---- of the completion network alone ------------------------------------------------------


def completion_loss(
    completed: Images, images: Images, mask: Mask, *, normalizer: Normalizer = "image"
) -> Scalar:
    """The squared error inside the hole (Eq. 2), averaged over all values of the image.

    Eq. 2 read literally is a sum, beside which alpha = 0.0004 would be a million times
    too small; averaged over the image, as Torch's MSECriterion does, both losses are of
    one order. `normalizer="hole"` averages over each hole's own values instead.
    """
    return _averaged(jnp.square(mask * (completed - images)), mask, normalizer)


def absolute_loss(
    completed: Images, images: Images, mask: Mask, *, normalizer: Normalizer = "image"
) -> Scalar:
    """The absolute error inside the hole, averaged as `completion_loss` is.

    mmediting's GLCIC minimises it, averaged over the holes. Less blind to small errors
    than the squared error; it estimates the median of what may be there, not the mean.
    """
    return _averaged(jnp.abs(mask * (completed - images)), mask, normalizer)


def _averaged(
    errors: Float[Array, "b h w 3"], mask: Mask, normalizer: Normalizer
) -> Scalar:
    if normalizer == "image":
        return jnp.mean(errors)
    per_image = jnp.sum(errors, axis=(1, 2, 3)) / (3 * jnp.sum(mask, axis=(1, 2, 3)))
    return jnp.mean(per_image)


def structure_loss(completed: Images, images: Images, mask: Mask) -> Scalar:
    """1 - SSIM of the photographs with their holes filled; not in the paper.

    The squared error is nearly blind to faint edges and to a step at the hole's rim; SSIM
    compares each neighbourhood by its own contrast (Zhao et al. 2017, "Loss Functions for
    Image Restoration with Neural Networks"). Averaged over the whole image, as
    `completion_loss` is; windows at the rim see known pixels too.
    """
    return jnp.mean(1 - ssim(composite(completed, images, mask), images))


# ---- of the game --------------------------------------------------------------------------


def discriminator_loss(real_logits: Logits, fake_logits: Logits) -> Scalar:
    """-log D(real) - log(1 - D(fake)), averaged over the batch: what D minimises in Eq. 3."""
    real = jax.nn.softplus(-real_logits)
    fake = jax.nn.softplus(fake_logits)
    return jnp.mean(real) + jnp.mean(fake)


def adversarial_loss(fake_logits: Logits) -> Scalar:
    """-log D(fake), averaged: what C minimises against D in every published GLCIC.

    Its fixed point is that of Eq. 5, its gradient does not vanish where D is sure
    (Goodfellow et al. 2014, section 3).
    """
    return jnp.mean(jax.nn.softplus(-fake_logits))


def saturating_loss(fake_logits: Logits) -> Scalar:
    """log(1 - D(fake)), averaged: Eq. 5 of the paper read literally."""
    return jnp.mean(-jax.nn.softplus(fake_logits))


def hinge_discriminator_loss(real_logits: Logits, fake_logits: Logits) -> Scalar:
    """max(0, 1 - real) + max(0, 1 + fake), averaged (Lim and Ye 2017, arXiv:1705.02894)."""
    real = jax.nn.relu(1 - real_logits)
    fake = jax.nn.relu(1 + fake_logits)
    return jnp.mean(real) + jnp.mean(fake)


def linear_loss(fake_logits: Logits) -> Scalar:
    """-fake, averaged: C's side of the hinge and of the Wasserstein game."""
    return -jnp.mean(fake_logits)


def least_squares_discriminator_loss(
    real_logits: Logits, fake_logits: Logits
) -> Scalar:
    """((D(real) - 1)^2 + D(fake)^2) / 2 (Mao et al. 2017, Eq. 9), with D = logit + 1/2.

    The half puts D's threshold between real and fake at a logit of 0, as everywhere here.
    """
    real = jnp.square(real_logits - 0.5)
    fake = jnp.square(fake_logits + 0.5)
    return 0.5 * (jnp.mean(real) + jnp.mean(fake))


def least_squares_loss(fake_logits: Logits) -> Scalar:
    """(D(fake) - 1)^2 / 2 (Mao et al. 2017, Eq. 9), with D = logit + 1/2."""
    return 0.5 * jnp.mean(jnp.square(fake_logits - 0.5))


def wasserstein_discriminator_loss(real_logits: Logits, fake_logits: Logits) -> Scalar:
    """Mean of fake less mean of real (Arjovsky et al. 2017, Eq. 3).

    D has to be Lipschitz: give a gradient penalty or spectral normalisation.
    """
    return jnp.mean(fake_logits) - jnp.mean(real_logits)


def relativistic_discriminator_loss(real_logits: Logits, fake_logits: Logits) -> Scalar:
    """-log D(real - mean fake) - log(1 - D(fake - mean real)), averaged.

    D is the sigmoid: the relativistic average GAN of Jolicoeur-Martineau 2018
    (arXiv:1807.00734).
    """
    real = jax.nn.softplus(jnp.mean(fake_logits) - real_logits)
    fake = jax.nn.softplus(fake_logits - jnp.mean(real_logits))
    return jnp.mean(real) + jnp.mean(fake)


def relativistic_loss(fake_logits: Logits, real_logits: Logits) -> Scalar:
    """The relativistic average with real and fake exchanged: what C minimises."""
    return relativistic_discriminator_loss(fake_logits, real_logits)


def feature_loss(fake: Sequence[Array], real: Sequence[Array]) -> Scalar:
    """Mean absolute difference of D's features, averaged over its layers.

    Each completion is compared with its own photograph, seen in the same views (Wang et
    al. 2018, "pix2pixHD", Eq. 4, which sums over the layers). `fake` and `real` are arrays
    [b, ...], one a layer.
    """
    layers = [jnp.mean(jnp.abs(f - r)) for f, r in zip(fake, real, strict=True)]
    return sum(layers[1:], layers[0]) / len(layers)


class Game(NamedTuple):
    """The two sides of a game: D's loss and C's."""

    discriminator: DiscriminatorLoss
    adversarial: AdversarialLoss
    relativistic: bool = False
    """See `Objective.relativistic`."""


GAMES: dict[Adversarial, Game] = {
    "non_saturating": Game(discriminator_loss, adversarial_loss),
    "saturating": Game(discriminator_loss, saturating_loss),
    "hinge": Game(hinge_discriminator_loss, linear_loss),
    "least_squares": Game(least_squares_discriminator_loss, least_squares_loss),
    "wasserstein": Game(wasserstein_discriminator_loss, linear_loss),
    "relativistic": Game(relativistic_discriminator_loss, relativistic_loss, True),
}


# ---- of a run -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Term:
    """One term of the completion network's own loss."""

    loss: CompletionLoss
    weight: float = 1.0
    over_holes: bool = False
    """If set, the loss, a mean over all pixels, is divided by the share of the whole batch's
    pixels that is missing: a mean over the missing ones, whichever image they are in."""


@dataclass(frozen=True)
class Objective:
    """The losses that the networks minimise: by default equations 2 to 5 of the paper.

    The discriminators minimise `discriminator_weight` times `discriminator(real_logits,
    fake_logits)`, plus `penalty` if there is one. The completion network minimises its
    weighted terms and, in the joint phase, alpha times the sum of
    `adversarial(fake_logits)` and the weighted `matching`.
    """

    completion: Mapping[str, Term] = field(
        default_factory=lambda: {"completion_loss": Term(completion_loss)}
    )
    """Under the names by which their values, without weights, are logged."""
    discriminator: DiscriminatorLoss = discriminator_loss
    adversarial: AdversarialLoss = adversarial_loss
    relativistic: bool = False
    """If set, `adversarial(fake_logits, real_logits)` is given the photographs' logits too,
    for one more pass of D, and the losses of the game see the logits of all devices, but of
    one accumulation piece."""
    discriminator_weight: float = 1.0
    joint_discriminator_weight: float | None = None
    """`discriminator_weight` of the joint phase, if it is another."""
    joint_completion_weight: float = 1.0
    """Scales the completion terms in the joint phase."""
    alpha: float = 4e-4
    ratio: float | None = None
    """If set, alpha makes the adversarial gradient this share of the completion gradient's
    norm, both taken at the completed image."""
    penalty: Penalty | None = None
    """(logits_of, real_views, fake_views, keys) -> scalar; see `penalties`."""
    penalty_every: int = 1
    """The penalty is added, and logged, every so many steps and as many times as large:
    its mean over the steps is the same (Karras et al. 2020, "StyleGAN2", section 3.1)."""
    matching: FeatureLoss | None = None
    """(fake_features, real_features) -> scalar, of what the discriminator sows under
    "features"; for one more pass of D."""
    matching_weight: float = 1.0
