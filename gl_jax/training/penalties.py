"""Penalties that keep discriminators smooth: pure functions of logits and views.

A penalty is `(logits_of, real_views, fake_views, keys) -> scalar`, `logits_of` being the
discriminator, in float32, as a function of views, `keys` one for each image. Views are
dictionaries of arrays [b, h, w, c], as the discriminator sees them: augmented.
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
    """Gamma / 2 times the mean squared norm of D's gradient at photographs.

    Mescheder, Geiger and Nowozin 2018, "Which Training Methods for GANs do actually
    Converge?", Eq. 9. D may not be steep where the photographs are.
    """

    def penalty(
        logits_of: LogitsOf, real: Views, fake: Views, keys: Key[Array, " b"]
    ) -> Float[Array, ""]:
        del fake, keys
        return gamma / 2 * jnp.mean(_squared_slopes(logits_of, real))

    return penalty


def r2(gamma: float) -> Penalty:
    """Gamma / 2 times the mean squared norm of D's gradient at completions (Eq. 10 there)."""

    def penalty(
        logits_of: LogitsOf, real: Views, fake: Views, keys: Key[Array, " b"]
    ) -> Float[Array, ""]:
        del real, keys
        return gamma / 2 * jnp.mean(_squared_slopes(logits_of, fake))

    return penalty


def gradient_penalty(weight: float) -> Penalty:
    """Weight times the mean of (norm of D's gradient - 1)^2 between real and fake.

    Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", Eq. 3: at a point drawn
    uniformly on the line between a photograph and a completion. Meant for discriminators
    without batch normalisation, whose logits depend on one image each.
    """

    def penalty(
        logits_of: LogitsOf, real: Views, fake: Views, keys: Key[Array, " b"]
    ) -> Float[Array, ""]:
        share = jax.vmap(partial(jax.random.uniform, shape=(1, 1, 1)))(keys)
        between = jax.tree.map(lambda r, f: share * r + (1 - share) * f, real, fake)
        # The slope of a root is infinite at 0.
        norms = jnp.sqrt(_squared_slopes(logits_of, between) + 1e-12)
        return weight * jnp.mean(jnp.square(norms - 1))

    return penalty


def total(*penalties: Penalty) -> Penalty | None:
    """The sum of the penalties; None of none."""
    if not penalties:
        return None

    def penalty(
        logits_of: LogitsOf, real: Views, fake: Views, keys: Key[Array, " b"]
    ) -> Float[Array, ""]:
        values = [one(logits_of, real, fake, keys) for one in penalties]
        return sum(values[1:], values[0])

    return penalty


def _squared_slopes(logits_of: LogitsOf, views: Views) -> Float[Array, " b"]:
    """The squared norm of the logit's gradient, for each image, over all its views."""
    slopes = jax.grad(lambda seen: jnp.sum(logits_of(seen)))(views)
    squares = [
        jnp.sum(jnp.square(slope), axis=(1, 2, 3)) for slope in jax.tree.leaves(slopes)
    ]
    return sum(squares[1:], squares[0])
