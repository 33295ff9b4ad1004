"""The gradients of one network over the whole batch, before any optimizer.

All of a step happens here but the update: completed, composed, seen by the discriminators,
differentiated, averaged over devices. One network is differentiated at a time, by argument.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from gl_jax.config import Phase
from gl_jax.holes import Holes, Images
from gl_jax.parallel import gathered, local, pmean
from gl_jax.training.augment import AdaptiveState
from gl_jax.training.parts import Parts
from gl_jax.training.pieces import Gradients, Measured, over_pieces
from gl_jax.training.setup import (
    Batch,
    Drawn,
    Examples,
    Setup,
    examples_of,
    set_up,
)
from gl_jax.training.state import NetState, TrainState
from gl_jax.weights.convention import Color

Tree = Any
Scalar = Float[Array, ""]
Scalars = dict[str, Scalar]
Logits = Float[Array, " b"]
GradientsOf = Callable[..., "Gradients"]
"""(state, images, key, drawn=None) -> Gradients."""


class Completion(NamedTuple):
    """One forward pass of the completion network, and the way back through it."""

    completed: Images
    batch_stats: Tree
    pullback: Callable[[Images], tuple[Tree]]


def make_gradients(
    parts: Parts,
    mean_color: Color,
    *,
    accumulate: int = 1,
    axis_name: str | None = None,
) -> dict[Phase, GradientsOf]:
    """The gradients of each phase's loss, without an optimizer; arguments of `make_steps`.

    Those of the joint phase are the completion network's (Eq. 5), against the
    discriminators as they are.
    """
    setup = set_up(parts, mean_color, accumulate, axis_name)

    def gradients_of(function: Any) -> GradientsOf:
        def gradients(
            state: TrainState,
            images: Batch,
            key: Key[Array, ""],
            drawn: Drawn | None = None,
        ) -> Gradients:
            return function(setup, state, examples_of(setup, state, images, key, drawn))

        return gradients

    made = {Phase.COMPLETION: gradients_of(completion_gradients)}
    if parts.discriminator is not None:
        made[Phase.DISCRIMINATOR] = gradients_of(discriminator_gradients)
        made[Phase.JOINT] = gradients_of(partial(completion_gradients, joint=True))
    return made


# ---- of the completion network ------------------------------------------------------------


def completion_gradients(
    setup: Setup,
    state: TrainState,
    examples: Examples,
    shared: Completion | None = None,
    *,
    joint: bool = False,
) -> Gradients:
    """Gradients of the completion loss (Eq. 2), in the joint phase of Eq. 5."""
    weight = setup.parts.objective.joint_completion_weight if joint else 1.0

    def gradients(batch_stats: Tree, examples: Examples) -> tuple[Tree, Measured]:
        completion = shared or complete(setup, state, batch_stats, examples)
        error, measured = _completion_error(
            setup, completion.completed, examples, weight
        )
        if joint:
            adversarial, more = _adversarial_error(
                setup, state, completion.completed, examples, measured
            )
            error, measured = error + adversarial, more
        (params,) = completion.pullback(error)
        return completion.batch_stats, measured._replace(params=params)

    return over_pieces(setup, gradients, state.completion.batch_stats, examples)


def complete(
    setup: Setup, state: TrainState, batch_stats: Tree, examples: Examples
) -> Completion:
    """One forward pass of the completion network over the filled photographs."""
    convention = setup.parts.encoding.completion(setup.mean_color)
    inputs = setup.parts.inputs(
        examples.codes, examples.images, examples.holes.mask, setup.mean_color
    )

    def forward(params: Tree) -> tuple[Images, Tree]:
        outputs, stats = _applied(setup.parts.completion, params, batch_stats, inputs)
        return convention.decode(outputs), stats

    params = local(state.completion.params, setup.axis_name)
    completed, pullback, batch_stats = jax.vjp(forward, params, has_aux=True)
    batch_stats = _shared(setup, setup.parts.completion, batch_stats)
    return Completion(completed, batch_stats, pullback)


def _completion_error(
    setup: Setup, completed: Images, examples: Examples, weight: float
) -> tuple[Images, Measured]:
    """The gradient of the completion loss at the completed image."""

    def loss(completed: Images) -> tuple[Scalar, Scalars]:
        terms = setup.parts.objective.completion
        metrics = {}
        for name, term in terms.items():
            value = term.loss(completed, examples.images, examples.holes.mask)
            if term.over_holes and examples.missing is not None:
                value = value / examples.missing[0]
            metrics[name] = value
        weighted = [term.weight * metrics[name] for name, term in terms.items()]
        # A generator of an unconditional GAN has no terms.
        total = sum(weighted[1:], weighted[0]) if weighted else jnp.zeros(())
        return weight * total, metrics

    error, metrics = jax.grad(loss, has_aux=True)(completed)
    squares = {"completion_gradient_norm": jnp.sum(jnp.square(error))}
    return error, Measured(None, metrics, squares)


def _adversarial_error(
    setup: Setup,
    state: TrainState,
    completed: Images,
    examples: Examples,
    measured: Measured,
) -> tuple[Images, Measured]:
    """The gradient of alpha times the adversarial loss at the completed image.

    Behind this point both losses travel through the same linear pullback, so their norms
    here tell how the two are balanced at no cost.
    """
    objective, net = setup.parts.objective, discriminator_of(state)

    def judged(images: Images) -> tuple[Float[Array, " n"], list[Array]]:
        # Photographs are seen in the windows of their own completions. By batch
        # statistics, as the discriminators are trained; the running ones are dropped.
        seen = _views(setup, state, images, examples.holes, examples.augment[:, 2])
        logits, kept = setup.parts.discriminator.apply(  # type: ignore[union-attr]
            _variables(net.params, net.batch_stats),
            seen,
            train=True,
            mutable=["batch_stats", "features"],
        )
        features = kept.get("features", {}) if objective.matching else {}
        return _of_the_game(setup, logits), jax.tree.leaves(features)

    compared: list[Any] = [None, None]
    if objective.relativistic or objective.matching:
        compared = [*judged(examples.images)]
    if objective.matching and not compared[1]:
        raise ValueError(
            "objective.matching compares what the discriminator sows under 'features', and "
            f"{type(setup.parts.discriminator).__name__} sows nothing there."
        )

    def loss(completed: Images) -> tuple[Scalar, Scalars]:
        mask = examples.holes.mask
        fake, features = judged(setup.parts.fakes(completed, examples.images, mask))
        real = compared[:1] if objective.relativistic else []
        value = objective.adversarial(fake, *real)
        metrics = {"adversarial_loss": value}
        if objective.matching:
            matching = objective.matching(features, compared[1])
            metrics["feature_loss"] = matching
            value = value + objective.matching_weight * matching
        return value, metrics

    error, metrics = jax.grad(loss, has_aux=True)(completed)
    alpha = jnp.asarray(objective.alpha, jnp.float32)
    if objective.ratio is not None:
        norms = (
            measured.squares["completion_gradient_norm"],
            jnp.sum(jnp.square(error)),
        )
        completion, adversarial = pmean(norms, setup.axis_name)
        alpha = objective.ratio * jnp.sqrt(completion / (adversarial + 1e-20))
    error = alpha * error
    metrics = measured.metrics | metrics | {"alpha": local(alpha, setup.axis_name)}
    squares = measured.squares | {
        "adversarial_gradient_norm": jnp.sum(jnp.square(error))
    }
    return error, Measured(None, metrics, squares)


# ---- of the discriminators ----------------------------------------------------------------


def discriminator_gradients(
    setup: Setup,
    state: TrainState,
    examples: Examples,
    shared: Completion | None = None,
    *,
    joint: bool = False,
) -> Gradients:
    """Gradients of the discriminators' loss (Eq. 3), the completion network held still."""
    objective, frozen = setup.parts.objective, state.completion
    net = discriminator_of(state)
    weight = objective.discriminator_weight
    if joint and objective.joint_discriminator_weight is not None:
        weight = objective.joint_discriminator_weight
    logits_of = partial(_applied, setup.parts.discriminator)

    def gradients(batch_stats: Tree, examples: Examples) -> tuple[Tree, Measured]:
        completion = shared or complete(setup, state, frozen.batch_stats, examples)
        completed = jax.lax.stop_gradient(completion.completed)
        fakes = setup.parts.fakes(completed, examples.images, examples.holes.mask)
        fake = _views(setup, state, fakes, examples.holes, examples.augment[:, 0])
        real = _views(
            setup, state, examples.images, examples.windows, examples.augment[:, 1]
        )

        def loss(params: Tree) -> tuple[Scalar, Any]:
            fake_logits, stats = logits_of(params, batch_stats, fake)
            real_logits, stats = logits_of(params, stats, real)
            value, metrics = game(setup, real_logits, fake_logits)
            return weight * value, (stats, metrics)

        params = local(net.params, setup.axis_name)
        slopes, (stats, metrics) = jax.grad(loss, has_aux=True)(params)
        if objective.penalty is not None:
            penalty, more = _penalty(
                setup, state, batch_stats, real, fake, examples.penalty
            )
            slopes = jax.tree.map(jnp.add, slopes, more)
            metrics = metrics | {"penalty": penalty}
        stats = _shared(setup, setup.parts.discriminator, stats)
        return stats, Measured(slopes, metrics, {})

    return over_pieces(setup, gradients, net.batch_stats, examples)


def game(
    setup: Setup, real_logits: Logits, fake_logits: Logits
) -> tuple[Scalar, Scalars]:
    """The discriminators' loss, and how often they are right about each side.

    `real_accuracy` is the share of photographs with a logit above 0, `fake_accuracy` that
    of completions with one below; in a relativistic game above and below the other
    side's mean.
    """
    objective = setup.parts.objective
    real, fake = (_of_the_game(setup, logits) for logits in (real_logits, fake_logits))
    value = objective.discriminator(real, fake)
    above = jnp.mean(fake) if objective.relativistic else 0.0
    below = jnp.mean(real) if objective.relativistic else 0.0
    return value, {
        "discriminator_loss": value,
        "real_score": jnp.mean(jax.nn.sigmoid(real_logits)),
        "fake_score": jnp.mean(jax.nn.sigmoid(fake_logits)),
        "real_accuracy": _share(real_logits > above),
        "fake_accuracy": _share(fake_logits < below),
    }


def _penalty(
    setup: Setup,
    state: TrainState,
    batch_stats: Tree,
    real: Tree,
    fake: Tree,
    keys: Key[Array, " b"],
) -> tuple[Scalar, Tree]:
    """The penalty and its gradient in the steps in which it is due; else zeros.

    In float32 also if the network is not: slopes are squared, and their own slopes taken.
    """
    objective, network = setup.parts.objective, setup.parts.discriminator
    params = local(discriminator_of(state).params, setup.axis_name)
    every = objective.penalty_every
    if hasattr(network, "dtype"):
        network = network.clone(dtype=jnp.float32)  # type: ignore[union-attr]

    def penalty(params: Tree) -> Scalar:
        def logits_of(views: Tree) -> Logits:
            return _applied(network, params, batch_stats, views)[0]

        return objective.penalty(logits_of, real, fake, keys)  # type: ignore[misc]

    def due() -> tuple[Scalar, Tree]:
        value, slopes = jax.value_and_grad(penalty)(params)
        # As many times as large as it is rare, so that its mean over the steps is the same.
        return value, jax.tree.map(lambda slope: every * slope, slopes)

    if every == 1:
        return due()
    zero = local(jnp.zeros(()), setup.axis_name)
    zeros = jax.tree.map(jnp.zeros_like, params)
    return jax.lax.cond((state.step + 1) % every == 0, due, lambda: (zero, zeros))


def discriminator_of(state: TrainState) -> NetState:
    """The state's discriminators; ValueError where it has none."""
    if state.discriminator is None:
        raise ValueError("this state has no discriminators to train with.")
    return state.discriminator


def adaptive_of(state: TrainState) -> AdaptiveState:
    """The state's controller of the augmentation; ValueError where it has none."""
    if state.adaptive is None:
        raise ValueError("this state has no probability of the augmentation to lead.")
    return state.adaptive


# ---- what they are made of ----------------------------------------------------------------


def _views(
    setup: Setup,
    state: TrainState,
    images: Images,
    holes: Holes,
    keys: Key[Array, " b"],
) -> dict[str, Array]:
    """The images as the discriminators see them."""
    parts, step = setup.parts, state.step
    if parts.noise is not None:
        images = parts.noise(keys, images, step)
    views = {name: view(images, holes) for name, view in parts.views.items()}
    if parts.augment is not None:
        # Other keys than the noise's.
        keys = jax.vmap(partial(jax.random.fold_in, data=1))(keys)
        probability = jnp.ones(())
        if parts.adaptive is not None:
            probability = adaptive_of(state).probability
        views = dict(parts.augment(keys, views, step, probability))
    return jax.tree.map(parts.encoding.discriminator.encode_image, views)


def _of_the_game(setup: Setup, logits: Logits) -> Float[Array, " n"]:
    """The logits that the losses compare: all devices' if they are relativistic."""
    if setup.parts.objective.relativistic:
        return gathered(logits, setup.axis_name)
    return logits


def _share(right: Array) -> Scalar:
    return jnp.mean(right.astype(jnp.float32))


def _variables(params: Tree, batch_stats: Tree) -> Tree:
    return {"params": params, "batch_stats": batch_stats}


def _applied(
    network: Any, params: Tree, batch_stats: Tree, inputs: Any
) -> tuple[Any, Tree]:
    """The network's outputs in training, and its new running statistics."""
    outputs, updated = network.apply(
        _variables(params, batch_stats), inputs, train=True, mutable=["batch_stats"]
    )
    return outputs, updated.get("batch_stats", {})


def _shared(setup: Setup, network: Any, batch_stats: Tree) -> Tree:
    """Running statistics that are the same on all devices, and that JAX knows to be.

    A network with an `axis_name` has shared them already, but for the vectors of spectral
    normalisation, which follow from each device's own parameters to a gradient.
    """
    if hasattr(network, "axis_name") and not getattr(network, "spectral_norm", False):
        return batch_stats
    return pmean(batch_stats, setup.axis_name)
