"""The gradients of one network over the whole batch.

This is all of a step except the optimizer: forward passes, losses, gradients, averages
over devices. One network is differentiated at a time, by argument.
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
    """A forward pass of the completion network, with its backward pass."""

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
    """Returns the gradients of each phase's loss; the arguments are those of `make_steps`.

    In the joint phase they are the completion network's (Eq. 5), with the current
    discriminators.
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


# ---- completion network ---------------------------------------------------------------------


def completion_gradients(
    setup: Setup,
    state: TrainState,
    examples: Examples,
    shared: Completion | None = None,
    *,
    joint: bool = False,
) -> Gradients:
    """Returns gradients of the completion loss (Eq. 2), or of Eq. 5 with `joint`."""
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
    """Runs the completion network on the filled photographs."""
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
    """Returns the gradient of the completion loss at the completed image."""

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
    """Returns the gradient of alpha times the adversarial loss at the completed image.

    From here on both losses pass through the same linear pullback, so their norms here
    show their balance at no cost.
    """
    objective, net = setup.parts.objective, discriminator_of(state)

    def discriminate(images: Images) -> tuple[Float[Array, " n"], list[Array]]:
        # Photographs are viewed at the windows of their own completions. `train=True`:
        # batch statistics, as in the discriminators' update; new running ones are dropped.
        views = _views(setup, state, images, examples.holes, examples.augment[:, 2])
        logits, collections = setup.parts.discriminator.apply(  # type: ignore[union-attr]
            _variables(net.params, net.batch_stats),
            views,
            train=True,
            mutable=["batch_stats", "features"],
        )
        features = collections.get("features", {}) if objective.matching else {}
        return _compared_logits(setup, logits), jax.tree.leaves(features)

    real: list[Any] = [None, None]
    if objective.relativistic or objective.matching:
        real = [*discriminate(examples.images)]
    if objective.matching and not real[1]:
        raise ValueError(
            "objective.matching compares the discriminator's arrays sown under 'features', "
            f"but {type(setup.parts.discriminator).__name__} sows none."
        )

    def loss(completed: Images) -> tuple[Scalar, Scalars]:
        mask = examples.holes.mask
        fakes = setup.parts.fakes(completed, examples.images, mask)
        logits, features = discriminate(fakes)
        real_logits = real[:1] if objective.relativistic else []
        value = objective.adversarial(logits, *real_logits)
        metrics = {"adversarial_loss": value}
        if objective.matching:
            matching = objective.matching(features, real[1])
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


# ---- discriminators -------------------------------------------------------------------------


def discriminator_gradients(
    setup: Setup,
    state: TrainState,
    examples: Examples,
    shared: Completion | None = None,
    *,
    joint: bool = False,
) -> Gradients:
    """Returns gradients of the discriminators' loss (Eq. 3); the completion is constant."""
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
    """Returns the discriminators' loss, and metrics with their accuracy.

    `real_accuracy` is the fraction of photographs with a logit above 0, `fake_accuracy`
    that of completions with a logit below 0. In a relativistic game the threshold is the
    other side's mean instead of 0.
    """
    objective = setup.parts.objective
    real, fake = (_compared_logits(setup, x) for x in (real_logits, fake_logits))
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
    """Returns the penalty and its gradient every `penalty_every` steps, else zeros.

    Always in float32, because it squares gradients and differentiates them again.
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
        # Times `every`, so that the mean over the steps does not depend on it.
        return value, jax.tree.map(lambda slope: every * slope, slopes)

    if every == 1:
        return due()
    zero = local(jnp.zeros(()), setup.axis_name)
    zeros = jax.tree.map(jnp.zeros_like, params)
    return jax.lax.cond((state.step + 1) % every == 0, due, lambda: (zero, zeros))


def discriminator_of(state: TrainState) -> NetState:
    """Returns the state's discriminators; raises ValueError if it has none."""
    if state.discriminator is None:
        raise ValueError("this state has no discriminators to train with.")
    return state.discriminator


def adaptive_of(state: TrainState) -> AdaptiveState:
    """Returns the state of adaptive augmentation; raises ValueError if it has none."""
    if state.adaptive is None:
        raise ValueError("this state has no probability of the augmentation to adapt.")
    return state.adaptive


# ---- shared by both -------------------------------------------------------------------------


def _views(
    setup: Setup,
    state: TrainState,
    images: Images,
    holes: Holes,
    keys: Key[Array, " b"],
) -> dict[str, Array]:
    """Returns the discriminators' inputs: noise, views, augmentation, encoding."""
    parts, step = setup.parts, state.step
    if parts.noise is not None:
        images = parts.noise(keys, images, step)
    views = {name: view(images, holes) for name, view in parts.views.items()}
    if parts.augment is not None:
        # Keys that differ from the noise's.
        keys = jax.vmap(partial(jax.random.fold_in, data=1))(keys)
        probability = jnp.ones(())
        if parts.adaptive is not None:
            probability = adaptive_of(state).probability
        views = dict(parts.augment(keys, views, step, probability))
    return jax.tree.map(parts.encoding.discriminator.encode_image, views)


def _compared_logits(setup: Setup, logits: Logits) -> Float[Array, " n"]:
    """Returns the logits for the losses: those of all devices if relativistic."""
    if setup.parts.objective.relativistic:
        return gathered(logits, setup.axis_name)
    return logits


def _share(correct: Array) -> Scalar:
    return jnp.mean(correct.astype(jnp.float32))


def _variables(params: Tree, batch_stats: Tree) -> Tree:
    return {"params": params, "batch_stats": batch_stats}


def _applied(
    network: Any, params: Tree, batch_stats: Tree, inputs: Any
) -> tuple[Any, Tree]:
    """Returns the network's outputs in training, and its new running statistics."""
    outputs, updated = network.apply(
        _variables(params, batch_stats), inputs, train=True, mutable=["batch_stats"]
    )
    return outputs, updated.get("batch_stats", {})


def _shared(setup: Setup, network: Any, batch_stats: Tree) -> Tree:
    """Averages running statistics over devices, unless the network has done so.

    A network with an `axis_name` shares its batch statistics, but not the vectors of
    spectral normalisation.
    """
    if hasattr(network, "axis_name") and not getattr(network, "spectral_norm", False):
        return batch_stats
    return pmean(batch_stats, setup.axis_name)
