"""Losses: pure functions of arrays and logits, with their equations.

`completed` and `images` are float RGB in [0, 1]; logits are log odds of "real". An
`Objective` combines the losses and the penalty of a run.
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


# ---- completion network ---------------------------------------------------------------------


def completion_loss(
    completed: Images, images: Images, mask: Mask, *, normalizer: Normalizer = "image"
) -> Scalar:
    """Returns the squared error inside the hole (Eq. 2), averaged over the whole image.

    Eq. 2 read literally is a sum, for which alpha = 0.0004 is a million times too small.
    The average over the image, as in Torch's MSECriterion, brings both losses to one
    order of magnitude. `normalizer="hole"` averages over each image's hole instead.
    """
    return _averaged(jnp.square(mask * (completed - images)), mask, normalizer)


def absolute_loss(
    completed: Images, images: Images, mask: Mask, *, normalizer: Normalizer = "image"
) -> Scalar:
    """Returns the absolute error inside the hole, averaged like `completion_loss`.

    It weights small errors more than the squared error, and its minimum is the median
    of the possible colours, not their mean. mmediting's GLCIC averages it over holes.
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
    """Returns 1 - SSIM of the composite images, averaged over the whole image.

    Not in the paper. The squared error barely penalises faint edges or a step at the
    hole's rim; SSIM compares each neighbourhood relative to its contrast (Zhao et al.
    2017, "Loss Functions for Image Restoration with Neural Networks"). Windows at the
    rim contain known pixels too.
    """
    return jnp.mean(1 - ssim(composite(completed, images, mask), images))


# ---- adversarial game -----------------------------------------------------------------------


def discriminator_loss(real_logits: Logits, fake_logits: Logits) -> Scalar:
    """Returns the mean of -log D(real) - log(1 - D(fake)), D's loss in Eq. 3."""
    real = jax.nn.softplus(-real_logits)
    fake = jax.nn.softplus(fake_logits)
    return jnp.mean(real) + jnp.mean(fake)


def adversarial_loss(fake_logits: Logits) -> Scalar:
    """Returns the mean of -log D(fake), C's adversarial loss in every published GLCIC.

    Its fixed point is that of Eq. 5, but its gradient does not vanish if D is certain
    (Goodfellow et al. 2014, section 3).
    """
    return jnp.mean(jax.nn.softplus(-fake_logits))


def saturating_loss(fake_logits: Logits) -> Scalar:
    """Returns the mean of log(1 - D(fake)): Eq. 5 read literally."""
    return jnp.mean(-jax.nn.softplus(fake_logits))


def hinge_discriminator_loss(real_logits: Logits, fake_logits: Logits) -> Scalar:
    """Returns D's hinge loss: the mean of max(0, 1 - real) + max(0, 1 + fake).

    Lim and Ye 2017, arXiv:1705.02894.
    """
    real = jax.nn.relu(1 - real_logits)
    fake = jax.nn.relu(1 + fake_logits)
    return jnp.mean(real) + jnp.mean(fake)


def linear_loss(fake_logits: Logits) -> Scalar:
    """Returns the mean of -fake, C's loss in the hinge and Wasserstein games."""
    return -jnp.mean(fake_logits)


def least_squares_discriminator_loss(
    real_logits: Logits, fake_logits: Logits
) -> Scalar:
    """Returns the mean of ((D(real) - 1)^2 + D(fake)^2) / 2, with D = logit + 1/2.

    Mao et al. 2017, Eq. 9. The 1/2 puts D's threshold at a logit of 0, as in the other
    games.
    """
    real = jnp.square(real_logits - 0.5)
    fake = jnp.square(fake_logits + 0.5)
    return 0.5 * (jnp.mean(real) + jnp.mean(fake))


def least_squares_loss(fake_logits: Logits) -> Scalar:
    """Returns the mean of (D(fake) - 1)^2 / 2, with D = logit + 1/2 (Mao et al., Eq. 9)."""
    return 0.5 * jnp.mean(jnp.square(fake_logits - 0.5))


def wasserstein_discriminator_loss(real_logits: Logits, fake_logits: Logits) -> Scalar:
    """Returns the mean of fake minus the mean of real (Arjovsky et al. 2017, Eq. 3).

    D must be Lipschitz: use a gradient penalty or spectral normalisation.
    """
    return jnp.mean(fake_logits) - jnp.mean(real_logits)


def relativistic_discriminator_loss(real_logits: Logits, fake_logits: Logits) -> Scalar:
    """Returns the mean of -log D(real - mean fake) - log(1 - D(fake - mean real)).

    D is the sigmoid. This is the relativistic average GAN of Jolicoeur-Martineau 2018
    (arXiv:1807.00734).
    """
    real = jax.nn.softplus(jnp.mean(fake_logits) - real_logits)
    fake = jax.nn.softplus(fake_logits - jnp.mean(real_logits))
    return jnp.mean(real) + jnp.mean(fake)


def relativistic_loss(fake_logits: Logits, real_logits: Logits) -> Scalar:
    """Returns C's relativistic average loss: D's with real and fake exchanged."""
    return relativistic_discriminator_loss(fake_logits, real_logits)


def feature_loss(fake: Sequence[Array], real: Sequence[Array]) -> Scalar:
    """Returns the mean absolute difference of D's features, averaged over its layers.

    Each completion is compared with its own photograph in the same views (Wang et al.
    2018, "pix2pixHD", Eq. 4, which sums over the layers). `fake` and `real` have one
    array [b, ...] for each layer.
    """
    layers = [jnp.mean(jnp.abs(f - r)) for f, r in zip(fake, real, strict=True)]
    return sum(layers[1:], layers[0]) / len(layers)


class Game(NamedTuple):
    """The two losses of an adversarial game: D's and C's."""

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


# ---- objective of a run ---------------------------------------------------------------------


@dataclass(frozen=True)
class Term:
    """One term of the completion network's own loss."""

    loss: CompletionLoss
    weight: float = 1.0
    over_holes: bool = False
    """If set, the loss, a mean over all pixels, is divided by the missing fraction of the
    batch's pixels, which makes it a mean over the batch's missing pixels."""


@dataclass(frozen=True)
class Objective:
    """The networks' losses: by default equations 2 to 5 of the paper.

    The discriminators minimise `discriminator_weight` times `discriminator(real_logits,
    fake_logits)`, plus `penalty` if there is one. The completion network minimises its
    weighted terms and, in the joint phase, alpha times the sum of
    `adversarial(fake_logits)` and the weighted `matching`.
    """

    completion: Mapping[str, Term] = field(
        default_factory=lambda: {"completion_loss": Term(completion_loss)}
    )
    """Terms by the names under which their unweighted values are logged."""
    discriminator: DiscriminatorLoss = discriminator_loss
    adversarial: AdversarialLoss = adversarial_loss
    relativistic: bool = False
    """If set, `adversarial(fake_logits, real_logits)` gets the photographs' logits too,
    which costs another pass of D. Both game losses then get the logits of all devices,
    but of one accumulation piece."""
    discriminator_weight: float = 1.0
    joint_discriminator_weight: float | None = None
    """`discriminator_weight` of the joint phase, if it differs."""
    joint_completion_weight: float = 1.0
    """Scales the completion terms in the joint phase."""
    alpha: float = 4e-4
    ratio: float | None = None
    """If set, each step chooses alpha so that the norm of the adversarial gradient is this
    fraction of the completion gradient's, both taken at the completed image."""
    penalty: Penalty | None = None
    """(logits_of, real_views, fake_views, keys) -> scalar; see `penalties`."""
    penalty_every: int = 1
    """Steps between penalties. The gradient is multiplied by the same number, so that its
    mean over the steps is unchanged (Karras et al. 2020, "StyleGAN2", section 3.1)."""
    matching: FeatureLoss | None = None
    """(fake_features, real_features) -> scalar, of the arrays that the discriminator sows
    under "features". It costs another pass of D."""
    matching_weight: float = 1.0
