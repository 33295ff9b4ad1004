"""Penalties on discriminators' gradients: pure functions of logits and views.

A penalty is `(logits_of, real_views, fake_views, keys) -> scalar`. `logits_of` is the
float32 discriminator as a function of views; `keys` has a key for each image. Views are
dictionaries of arrays [b, h, w, c] after augmentation.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

Views = Any
LogitsOf = Callable[[Any], Float[Array, " b"]]
Penalty = Callable[
    [LogitsOf, Views, Views, Key[Array, " b"]],
    Float[Array, ""],
]


def r1(gamma: float) -> Penalty:
    """Returns the R1 penalty: gamma / 2 x mean squared norm of D's gradient at photographs.

    Mescheder, Geiger and Nowozin 2018, "Which Training Methods for GANs do actually
    Converge?", Eq. 9.
    """

    def penalty(
        logits_of: LogitsOf, real: Views, fake: Views, keys: Key[Array, " b"]
    ) -> Float[Array, ""]:
        del fake, keys
        return gamma / 2 * jnp.mean(_squared_slopes(logits_of, real))

    return penalty


def r2(gamma: float) -> Penalty:
    """Returns the R2 penalty: like `r1`, but at completions (Eq. 10 of the same paper)."""

    def penalty(
        logits_of: LogitsOf, real: Views, fake: Views, keys: Key[Array, " b"]
    ) -> Float[Array, ""]:
        del real, keys
        return gamma / 2 * jnp.mean(_squared_slopes(logits_of, fake))

    return penalty


def gradient_penalty(weight: float) -> Penalty:
    """Returns the gradient penalty: weight x the mean of (norm of D's gradient - 1)^2.

    Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", Eq. 3. The gradient is
    taken at a uniformly random point between a photograph and a completion. For
    discriminators without batch normalisation, so that a logit depends on one image.
    """

    def penalty(
        logits_of: LogitsOf, real: Views, fake: Views, keys: Key[Array, " b"]
    ) -> Float[Array, ""]:
        share = jax.vmap(partial(jax.random.uniform, shape=(1, 1, 1)))(keys)
        between = jax.tree.map(lambda r, f: share * r + (1 - share) * f, real, fake)
        # The square root has an infinite gradient at 0.
        norms = jnp.sqrt(_squared_slopes(logits_of, between) + 1e-12)
        return weight * jnp.mean(jnp.square(norms - 1))

    return penalty


def total(*penalties: Penalty) -> Penalty | None:
    """Returns the sum of the penalties; None if there are none."""
    if not penalties:
        return None

    def penalty(
        logits_of: LogitsOf, real: Views, fake: Views, keys: Key[Array, " b"]
    ) -> Float[Array, ""]:
        values = [one(logits_of, real, fake, keys) for one in penalties]
        return sum(values[1:], values[0])

    return penalty


def _squared_slopes(logits_of: LogitsOf, views: Views) -> Float[Array, " b"]:
    """Returns each image's squared norm of the logit's gradient, over all its views."""
    slopes = jax.grad(lambda inputs: jnp.sum(logits_of(inputs)))(views)
    squares = [
        jnp.sum(jnp.square(slope), axis=(1, 2, 3)) for slope in jax.tree.leaves(slopes)
    ]
    return sum(squares[1:], squares[0])
