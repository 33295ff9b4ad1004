"""The gradients of one network over the whole batch, before any optimizer.

All of a step happens here but the update: photographs to floats, holes drawn, completed,
composed, seen by the discriminators, differentiated, averaged over devices. One network
is differentiated at a time, by argument.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt8

from gl_jax.config import Phase
from gl_jax.holes import (
    HOLES,
    NOISE,
    REAL_PATCHES,
    Holes,
    Images,
    composite,
    example_keys,
    network_input,
)
from gl_jax.parallel import axis_index, axis_size, local, pmean
from gl_jax.training.parts import Parts
from gl_jax.training.state import NetState, TrainState

Tree = Any
Color = tuple[float, float, float]
Batch = UInt8[Array, "b h w 3"]
Scalars = dict[str, Float[Array, ""]]
GradientsOf = Callable[..., "Gradients"]
"""(state, images, key, drawn=None) -> Gradients."""


class Drawn(NamedTuple):
    """Holes of one's own for a step, instead of those that it draws."""

    holes: Holes
    """M_c: what is missing in each photograph, and the window around it."""
    windows: Holes
    """M_d: the place at which the real photographs are looked at."""


class Gradients(NamedTuple):
    """The gradients of one network over the whole batch, and what came of the way there."""

    params: Tree
    batch_stats: Tree
    """The network's new running statistics."""
    metrics: Scalars


@dataclass(frozen=True)
class Setup:
    """A step's parts and numbers besides arrays; fixed for the whole run."""

    parts: Parts
    mean_color: Color
    accumulate: int = 1
    ema_decay: float | None = None
    axis_name: str | None = None


class Examples(NamedTuple):
    """Photographs of a step with what was drawn for them."""

    images: Images
    holes: Holes
    windows: Holes
    keys: Key[Array, "b 3"]
    """Keys of the augmentation: for the fakes and photographs of the discriminators' update,
    and for the fakes of the completion network's."""


class Completion(NamedTuple):
    """One forward pass of the completion network, and the way back through it."""

    completed: Images
    batch_stats: Tree
    pullback: Callable[[Images], tuple[Tree]]


class Measured(NamedTuple):
    """A part of the batch's gradients with its metrics, before they are averaged."""

    params: Tree
    metrics: Scalars
    squares: Scalars
    """Squared norms of gradients at the completed images, by the norms' names."""


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
    setup = set_up(parts, mean_color, accumulate, None, axis_name)

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


def completion_gradients(
    setup: Setup,
    state: TrainState,
    examples: Examples,
    shared: Completion | None = None,
    *,
    joint: bool = False,
) -> Gradients:
    """Gradients of the completion loss (Eq. 2), in the joint phase of Eq. 5."""

    def gradients(batch_stats: Tree, examples: Examples) -> tuple[Tree, Measured]:
        completion = shared or complete(setup, state, batch_stats, examples)
        error, measured = _completion_error(setup, completion.completed, examples)
        if joint:
            adversarial, more = _adversarial_error(
                setup, state, completion.completed, examples, measured
            )
            error, measured = error + adversarial, more
        (params,) = completion.pullback(error)
        return completion.batch_stats, measured._replace(params=params)

    return _over_pieces(setup, gradients, state.completion.batch_stats, examples)


def discriminator_gradients(
    setup: Setup,
    state: TrainState,
    examples: Examples,
    shared: Completion | None = None,
) -> Gradients:
    """Gradients of the discriminators' loss (Eq. 3), the completion network held still."""
    objective, frozen, net = (
        setup.parts.objective,
        state.completion,
        discriminator_of(state),
    )
    logits_of = partial(_applied, setup.parts.discriminator)

    def gradients(batch_stats: Tree, examples: Examples) -> tuple[Tree, Measured]:
        completion = shared or complete(setup, state, frozen.batch_stats, examples)
        completed = jax.lax.stop_gradient(completion.completed)
        fakes = composite(completed, examples.images, examples.holes.mask)
        views = partial(_views, setup, state.step)
        fake = views(fakes, examples.holes, examples.keys[:, 0])
        real = views(examples.images, examples.windows, examples.keys[:, 1])

        def loss(params: Tree) -> tuple[Float[Array, ""], Any]:
            fake_logits, stats = logits_of(params, batch_stats, fake)
            real_logits, stats = logits_of(params, stats, real)
            value = objective.discriminator(real_logits, fake_logits)
            metrics = {
                "discriminator_loss": value,
                "real_score": jnp.mean(jax.nn.sigmoid(real_logits)),
                "fake_score": jnp.mean(jax.nn.sigmoid(fake_logits)),
            }
            value = objective.discriminator_weight * value
            if objective.penalty is not None:
                penalty = objective.penalty(
                    lambda views: logits_of(params, batch_stats, views)[0],
                    real,
                    fake,
                )
                metrics["penalty"], value = penalty, value + penalty
            return value, (stats, metrics)

        params, (stats, metrics) = jax.grad(loss, has_aux=True)(
            local(net.params, setup.axis_name)
        )
        return stats, Measured(params, metrics, {})

    return _over_pieces(setup, gradients, net.batch_stats, examples)


def _completion_error(
    setup: Setup, completed: Images, examples: Examples
) -> tuple[Images, Measured]:
    """The gradient of the completion loss at the completed image."""

    def loss(completed: Images) -> tuple[Float[Array, ""], Scalars]:
        terms = setup.parts.objective.completion
        metrics = {
            name: term.loss(completed, examples.images, examples.holes.mask)
            for name, term in terms.items()
        }
        weighted = [term.weight * metrics[name] for name, term in terms.items()]
        return sum(weighted[1:], weighted[0]), metrics

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

    def loss(completed: Images) -> Float[Array, ""]:
        fakes = composite(completed, examples.images, examples.holes.mask)
        seen = _views(setup, state.step, fakes, examples.holes, examples.keys[:, 2])
        # The discriminators judge as they were trained, by batch statistics; the running
        # ones they would update here are dropped.
        network = setup.parts.discriminator
        logits, _ = _applied(network, net.params, net.batch_stats, seen)
        return objective.adversarial(logits)

    value, error = jax.value_and_grad(loss)(completed)
    alpha = jnp.asarray(objective.alpha, jnp.float32)
    if objective.ratio is not None:
        norms = (
            measured.squares["completion_gradient_norm"],
            jnp.sum(jnp.square(error)),
        )
        completion, adversarial = pmean(norms, setup.axis_name)
        alpha = objective.ratio * jnp.sqrt(completion / (adversarial + 1e-20))
    error = alpha * error
    metrics = measured.metrics | {
        "adversarial_loss": value,
        "alpha": local(alpha, setup.axis_name),
    }
    squares = measured.squares | {
        "adversarial_gradient_norm": jnp.sum(jnp.square(error))
    }
    return error, Measured(None, metrics, squares)


# ---- what they are made of ----------------------------------------------------------------


def set_up(
    parts: Parts,
    mean_color: Color,
    accumulate: int,
    ema_decay: float | None,
    axis_name: str | None,
) -> Setup:
    """The setup, with the networks' statistics shared over the devices of the axis."""

    def shared(network: nn.Module | None) -> Any:
        if hasattr(network, "axis_name"):
            return network.clone(axis_name=axis_name)  # type: ignore[union-attr]
        return network

    parts = replace(
        parts,
        completion=shared(parts.completion),
        discriminator=shared(parts.discriminator),
    )
    return Setup(parts, mean_color, accumulate, ema_decay, axis_name)


def examples_of(
    setup: Setup,
    state: TrainState,
    images: Batch,
    key: Key[Array, ""],
    drawn: Drawn | None,
) -> Examples:
    """The photographs in [0, 1] with their holes, drawn by their place in the whole batch."""
    count, *shape, _ = images.shape
    key = jax.random.fold_in(key, state.step)
    keys = partial(
        example_keys, key, first=axis_index(setup.axis_name) * count, count=count
    )
    if drawn is None:
        sample = setup.parts.sample_holes
        drawn = Drawn(
            sample(keys(stream=HOLES), tuple(shape)),
            sample(keys(stream=REAL_PATCHES), tuple(shape)),
        )
    augmentation = jax.vmap(partial(jax.random.split, num=3))(keys(stream=NOISE))
    return Examples(images.astype(jnp.float32) / 255, *drawn, augmentation)


def complete(
    setup: Setup, state: TrainState, batch_stats: Tree, examples: Examples
) -> Completion:
    """One forward pass of the completion network over the filled photographs."""
    mean_color = jnp.asarray(setup.mean_color, jnp.float32)
    inputs = network_input(examples.images, examples.holes.mask, mean_color)

    def forward(params: Tree) -> tuple[Images, Tree]:
        return _applied(setup.parts.completion, params, batch_stats, inputs)

    params = local(state.completion.params, setup.axis_name)
    completed, pullback, batch_stats = jax.vjp(forward, params, has_aux=True)
    return Completion(completed, batch_stats, pullback)


def _views(
    setup: Setup,
    step: Int[Array, ""],
    images: Images,
    holes: Holes,
    key: Key[Array, " b"],
) -> dict[str, Array]:
    """The images as the discriminators see them."""
    if setup.parts.augment is not None:
        images = setup.parts.augment(key, images, step)
    return {name: view(images, holes) for name, view in setup.parts.views.items()}


def _applied(
    network: Any, params: Tree, batch_stats: Tree, inputs: Any
) -> tuple[Any, Tree]:
    """The network's outputs in training, and its new running statistics."""
    outputs, updated = network.apply(
        {"params": params, "batch_stats": batch_stats},
        inputs,
        train=True,
        mutable=["batch_stats"],
    )
    return outputs, updated.get("batch_stats", {})


def discriminator_of(state: TrainState) -> NetState:
    """The state's discriminators; ValueError where it has none."""
    if state.discriminator is None:
        raise ValueError("this state has no discriminators to train with.")
    return state.discriminator


def _over_pieces(
    setup: Setup,
    gradients: Callable[[Tree, Examples], tuple[Tree, Measured]],
    batch_stats: Tree,
    examples: Examples,
) -> Gradients:
    """Gradients and metrics averaged over accumulation pieces and over devices.

    Pieces follow one another, handing the running statistics on. What was drawn for a
    photograph does not depend on the piece it is in.
    """
    pieces, axis_name = setup.accumulate, setup.axis_name
    if pieces == 1:
        batch_stats, measured = gradients(batch_stats, examples)
    else:
        split = jax.tree.map(
            lambda leaf: leaf.reshape(pieces, -1, *leaf.shape[1:]), examples
        )

        def add(carry: tuple[Tree, Any], piece: Examples) -> tuple[Any, None]:
            batch_stats, sums = carry
            batch_stats, measured = gradients(batch_stats, piece)
            return (batch_stats, jax.tree.map(jnp.add, sums, measured)), None

        first = jax.tree.map(lambda leaf: leaf[0], split)
        shapes = jax.eval_shape(gradients, batch_stats, first)[1]
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        carry = (batch_stats, local(zeros, axis_name))
        (batch_stats, sums), _ = jax.lax.scan(add, carry, split)
        measured = jax.tree.map(lambda leaf: leaf / pieces, sums)
    measured = pmean(measured, axis_name)
    # Each part's gradient is that of its own mean, so the whole's is smaller by the number
    # of parts n: its squared norm is sum / n^2, and the average over parts is sum / n.
    parts = pieces * axis_size(axis_name)
    norms = {name: jnp.sqrt(value / parts) for name, value in measured.squares.items()}
    return Gradients(measured.params, batch_stats, measured.metrics | norms)
