"""The three steps of the paper's Algorithm 1, as pure functions.

Each is `step(state, images, key) -> (state, metrics)`: `state` and `metrics` are arrays
on the device, `images` is this device's share of the batch as uint8 [b, h, w, 3]. Metrics
describe the state before the update, averaged over the whole batch.

A step differentiates one network at a time by argument, so the other is bitwise
unchanged. Real and fake images pass through the discriminator as two batches, so batch
normalisation does not mix their statistics.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from gl_jax.config import Phase
from gl_jax.parallel import axis_size
from gl_jax.training.augment import adapted
from gl_jax.training.gradients import (
    Scalars,
    adaptive_of,
    complete,
    completion_gradients,
    discriminator_gradients,
    discriminator_of,
)
from gl_jax.training.parts import Parts
from gl_jax.training.pieces import Gradients
from gl_jax.training.setup import Batch, Drawn, Setup, examples_of, set_up
from gl_jax.training.state import NetState, TrainState
from gl_jax.weights.convention import Color

Step = Callable[..., tuple[TrainState, Scalars]]
"""(state, images, key, drawn=None) -> (state, metrics)."""


def make_steps(
    parts: Parts,
    mean_color: Color,
    *,
    accumulate: int = 1,
    ema_decay: float | None = None,
    ema_ramp: float | None = None,
    axis_name: str | None = None,
) -> dict[Phase, Step]:
    """Returns the step of each phase: (state, images, key) -> (state, metrics).

    `mean_color` is RGB in [0, 1] and fills the holes. The batch is processed in
    `accumulate` pieces, one after another. `ema_decay` and `ema_ramp` are arguments of
    `decay_at`. With an `axis_name` the steps run under a map over devices of that name;
    without one on one device, or on several under `jax.jit` with sharded images.
    """
    setup = set_up(parts, mean_color, accumulate, axis_name, ema_decay, ema_ramp)
    steps: dict[Phase, Step] = {Phase.COMPLETION: partial(completion_step, setup)}
    if parts.discriminator is not None:
        steps[Phase.DISCRIMINATOR] = partial(discriminator_step, setup)
        steps[Phase.JOINT] = partial(joint_step, setup)
    return steps


def completion_step(
    setup: Setup,
    state: TrainState,
    images: Batch,
    key: Key[Array, ""],
    drawn: Drawn | None = None,
) -> tuple[TrainState, Scalars]:
    """Updates the completion network by the completion loss (Algorithm 1, t < T_C)."""
    examples = examples_of(setup, state, images, key, drawn)
    gradients = completion_gradients(setup, state, examples)
    return _with_completion(setup, state, gradients), gradients.metrics


def discriminator_step(
    setup: Setup,
    state: TrainState,
    images: Batch,
    key: Key[Array, ""],
    drawn: Drawn | None = None,
) -> tuple[TrainState, Scalars]:
    """Updates the discriminators alone (Algorithm 1, T_C <= t < T_C + T_D)."""
    examples = examples_of(setup, state, images, key, drawn)
    gradients = discriminator_gradients(setup, state, examples)
    state, metrics = _with_discriminator(setup, state, gradients, len(images))
    return replace(state, step=state.step + 1), metrics


def joint_step(
    setup: Setup,
    state: TrainState,
    images: Batch,
    key: Key[Array, ""],
    drawn: Drawn | None = None,
) -> tuple[TrainState, Scalars]:
    """Updates the discriminators, then the completion network against the updated ones.

    Both use the same photographs and the same holes M_c (Algorithm 1, t >= T_C + T_D).
    """
    examples = examples_of(setup, state, images, key, drawn)
    # In one piece, one forward pass of the completion network serves both updates.
    shared = None
    if setup.accumulate == 1:
        shared = complete(setup, state, state.completion.batch_stats, examples)
    gradients = discriminator_gradients(setup, state, examples, shared, joint=True)
    state, metrics = _with_discriminator(setup, state, gradients, len(images))
    gradients = completion_gradients(setup, state, examples, shared, joint=True)
    return _with_completion(setup, state, gradients), metrics | gradients.metrics


def _updated(
    optimizer: optax.GradientTransformation, net: NetState, gradients: Gradients
) -> NetState:
    # optax raises its decay rates to the power of integer step counts.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = optimizer.update(
            gradients.params, net.opt_state, net.params
        )
    params = optax.apply_updates(net.params, updates)
    return NetState(params, gradients.batch_stats, opt_state)


def _with_discriminator(
    setup: Setup, state: TrainState, gradients: Gradients, count: int
) -> tuple[TrainState, Scalars]:
    """Updates the discriminator and its augmentation; `count` is images per device."""
    parts, metrics = setup.parts, gradients.metrics
    net = discriminator_of(state)
    net = _updated(parts.optimizers.discriminator, net, gradients)
    state = replace(state, discriminator=net)
    if parts.adaptive is None:
        return state, metrics
    before, batch = adaptive_of(state), count * axis_size(setup.axis_name)
    # Back to a whole number, because the accuracy's last bit depends on the number of
    # devices, and at the target it would decide the direction.
    correct = jnp.round(metrics["real_accuracy"] * batch)
    # The mean sign of the logits: (positive - negative) / batch, as none is exactly 0.
    adaptive = adapted(parts.adaptive, before, (2 * correct - batch) / batch, batch)
    metrics = metrics | {"augment_probability": before.probability}
    return replace(state, adaptive=adaptive), metrics


def _with_completion(
    setup: Setup, state: TrainState, gradients: Gradients
) -> TrainState:
    optimizer = setup.parts.optimizers.completion
    completion = _updated(optimizer, state.completion, gradients)
    ema = state.ema
    if ema is not None and setup.ema_decay is not None:
        decay = decay_at(state.step, setup.ema_decay, setup.ema_ramp)
        new = {"params": completion.params, "batch_stats": completion.batch_stats}
        ema = jax.tree.map(
            lambda old, value: decay * old + (1 - decay) * value, ema, new
        )
    return replace(state, step=state.step + 1, completion=completion, ema=ema)


def decay_at(
    step: Int[Array, ""], decay: float, ramp: float | None = None
) -> Float[Array, ""]:
    """Returns the moving average's decay after `step` completed updates.

    The decay starts small, so that the average soon forgets the random weights. With a
    `ramp` its half-life is at most this fraction of the steps so far,

        min(decay, 0.5^(1 / (ramp step))),

    which is `ema_rampup` of StyleGAN2-ADA (Karras et al. 2020). That counts photographs
    instead of steps, but the batch size cancels. Without a ramp the decay is

        min(decay, (1 + n) / (10 + n)),  n = step + 1,

    as in TensorFlow's ExponentialMovingAverage.
    """
    done = step.astype(jnp.float32)
    # At step 0 the exponent is infinite and the decay 0.
    longest = (2 + done) / (11 + done) if ramp is None else 0.5 ** (1 / (ramp * done))
    return jnp.minimum(decay, longest)
