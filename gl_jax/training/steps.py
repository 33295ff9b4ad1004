"""The three steps of the paper's Algorithm 1, as pure functions.

Each is `step(setup, state, images, key) -> (state, metrics)`: `setup` is static, `state`
and `metrics` are arrays on the device, `images` is this device's share of the batch as
uint8 [b, h, w, 3]. Nothing comes back to the host in between. Metrics describe the state
before the update, averaged over the whole batch.

A step differentiates one network at a time by argument, so the other cannot move: the
completion step leaves the discriminator bitwise unchanged and the discriminator step the
completion network. Real and fake images pass through the discriminator together, as two
batches: batch normalisation never mixes their statistics.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, UInt8

from gl_jax.config import Config, HolesConfig, LossConfig, Phase
from gl_jax.holes import (
    HOLES,
    NOISE,
    REAL_PATCHES,
    Holes,
    Images,
    composite,
    crop,
    example_keys,
    network_input,
    sample_holes,
)
from gl_jax.models.ordering import after
from gl_jax.training.losses import (
    adversarial_loss,
    completion_loss,
    discriminator_loss,
    structure_loss,
)
from gl_jax.training.parallel import axis_index, axis_size, pmean
from gl_jax.training.state import (
    NetState,
    Networks,
    Optimizers,
    TrainState,
    build_networks,
    build_optimizers,
)

Tree = Any
Metrics = dict[str, Float[Array, ""]]
Step = Callable[
    [TrainState, UInt8[Array, "b h w 3"], Key[Array, ""]], tuple[TrainState, Metrics]
]


class Setup(NamedTuple):
    """What a step needs besides arrays; fixed for the whole run."""

    networks: Networks
    optimizers: Optimizers
    mean_color: tuple[float, float, float]
    holes: HolesConfig
    loss: LossConfig
    noise: optax.Schedule | None  # on what the discriminators see; None: none at all
    accumulate: int
    ema_decay: float | None
    axis_name: str | None


class Examples(NamedTuple):
    """Photographs of a step with what was drawn for them."""

    images: Images
    holes: Holes  # M_c
    real_corner: Int[Array, "b 2"]  # M_d: where the real photographs' window lies
    # Of the noise on fakes and photographs to learn from, and on fakes to be judged.
    noise: Key[Array, "3 b"]


class Seen(NamedTuple):
    """A batch as the discriminators see it."""

    images: Images
    corner: Int[Array, "b 2"]


class Completion(NamedTuple):
    """One forward pass of the completion network, and the way back through it."""

    completed: Images
    batch_stats: Tree
    pullback: Callable[[Images], tuple[Tree]]


def make_steps(
    config: Config,
    mean_color: tuple[float, float, float],
    *,
    axis_name: str | None = None,
) -> dict[Phase, Step]:
    """The steps of a run, one for each phase: (state, images, key) -> (state, metrics).

    With an `axis_name` they run under a map over devices of that name, else on one.
    """
    setup = Setup(
        networks=build_networks(config, axis_name=axis_name),
        optimizers=build_optimizers(config),
        mean_color=mean_color,
        holes=config.holes,
        loss=config.loss,
        noise=_noise_schedule(config),
        accumulate=config.run.accumulate,
        ema_decay=config.run.ema_decay,
        axis_name=axis_name,
    )
    steps: dict[Phase, Step] = {Phase.COMPLETION: partial(completion_step, setup)}
    if setup.networks.discriminator is not None:
        steps[Phase.DISCRIMINATOR] = partial(discriminator_step, setup)
        steps[Phase.JOINT] = partial(joint_step, setup)
    return steps


def completion_step(
    setup: Setup,
    state: TrainState,
    images: UInt8[Array, "b h w 3"],
    key: Key[Array, ""],
) -> tuple[TrainState, Metrics]:
    """Updates the completion network by the completion loss (Algorithm 1, t < T_C)."""

    def gradients(
        batch_stats: Tree, examples: Examples
    ) -> tuple[Tree, tuple[Tree, Metrics]]:
        completion = _complete(setup, state.completion.params, batch_stats, examples)
        error, metrics = _completion_error(setup, completion.completed, examples)
        (grads,) = completion.pullback(error)
        return completion.batch_stats, (grads, metrics)

    batch_stats, (grads, metrics) = _over_pieces(
        setup,
        gradients,
        state.completion.batch_stats,
        images,
        jax.random.fold_in(key, state.step),
    )
    return _updated_completion(setup, state, batch_stats, grads), _finished(
        setup, metrics
    )


def discriminator_step(
    setup: Setup,
    state: TrainState,
    images: UInt8[Array, "b h w 3"],
    key: Key[Array, ""],
) -> tuple[TrainState, Metrics]:
    """Updates the discriminator alone (Algorithm 1, T_C <= t < T_C + T_D)."""

    def gradients(
        batch_stats: Tree, examples: Examples
    ) -> tuple[Tree, tuple[Tree, Metrics]]:
        frozen = state.completion
        completion = _complete(setup, frozen.params, frozen.batch_stats, examples)
        return _discriminator_gradients(
            setup,
            _discriminator(state).params,
            batch_stats,
            examples,
            completion.completed,
            state.step,
        )

    batch_stats, (grads, metrics) = _over_pieces(
        setup,
        gradients,
        _discriminator(state).batch_stats,
        images,
        jax.random.fold_in(key, state.step),
    )
    discriminator = _updated(
        setup.optimizers.discriminator, _discriminator(state), batch_stats, grads
    )
    state = replace(state, step=state.step + 1, discriminator=discriminator)
    return state, _finished(setup, metrics)


def joint_step(
    setup: Setup,
    state: TrainState,
    images: UInt8[Array, "b h w 3"],
    key: Key[Array, ""],
) -> tuple[TrainState, Metrics]:
    """Updates the discriminator, then the completion network against the updated one.

    Both use the same photographs and the same holes M_c (Algorithm 1, t >= T_C + T_D).
    """
    key = jax.random.fold_in(key, state.step)
    frozen = state.completion
    # Without accumulation one forward pass of the completion network serves both updates.
    shared: Completion | None = None
    if setup.accumulate == 1:
        whole = _draw(setup, images, key, _first_index(setup, images.shape[0]))
        shared = _complete(setup, frozen.params, frozen.batch_stats, whole)

    def for_discriminator(batch_stats: Tree, examples: Examples) -> tuple[Tree, Any]:
        completion = shared or _complete(
            setup, frozen.params, frozen.batch_stats, examples
        )
        return _discriminator_gradients(
            setup,
            _discriminator(state).params,
            batch_stats,
            examples,
            completion.completed,
            state.step,
        )

    batch_stats, (grads, discriminator_metrics) = _over_pieces(
        setup, for_discriminator, _discriminator(state).batch_stats, images, key
    )
    discriminator = _updated(
        setup.optimizers.discriminator, _discriminator(state), batch_stats, grads
    )

    def for_completion(batch_stats: Tree, examples: Examples) -> tuple[Tree, Any]:
        completion = shared or _complete(setup, frozen.params, batch_stats, examples)
        error, metrics = _joint_error(
            setup, discriminator, completion.completed, examples, state.step
        )
        (grads,) = completion.pullback(error)
        return completion.batch_stats, (grads, metrics)

    batch_stats, (grads, completion_metrics) = _over_pieces(
        setup, for_completion, frozen.batch_stats, images, key
    )
    state = replace(state, discriminator=discriminator)
    state = _updated_completion(setup, state, batch_stats, grads)
    return state, _finished(setup, discriminator_metrics | completion_metrics)


# ---- what the steps are made of -----------------------------------------------------


def _first_index(setup: Setup, per_device: int) -> Int[Array, ""] | int:
    """The index in the whole batch of this device's first photograph."""
    return axis_index(setup.axis_name) * per_device


def _draw(
    setup: Setup, images: UInt8[Array, "b h w 3"], key: Key[Array, ""], first: Any
) -> Examples:
    count, height, width, _ = images.shape
    holes = setup.holes
    numbers = {
        "min_size": holes.min_size,
        "max_size": holes.max_size,
        "local_size": holes.local_size,
    }
    shape = (height, width)
    fake = sample_holes(example_keys(key, HOLES, first, count), shape, **numbers)
    real = sample_holes(example_keys(key, REAL_PATCHES, first, count), shape, **numbers)
    keys = example_keys(key, NOISE, first, count)
    noise = jax.vmap(partial(jax.random.split, num=3), out_axes=1)(keys)
    return Examples(images.astype(jnp.float32) / 255, fake, real.corner, noise)


def _complete(
    setup: Setup, params: Tree, batch_stats: Tree, examples: Examples
) -> Completion:
    mean_color = jnp.asarray(setup.mean_color, jnp.float32)
    inputs = network_input(examples.images, examples.holes.mask, mean_color)

    def forward(params: Tree) -> tuple[Images, Tree]:
        completed, updates = setup.networks.completion.apply(
            {"params": params, "batch_stats": batch_stats},
            inputs,
            train=True,
            mutable=["batch_stats"],
        )
        return completed, updates["batch_stats"]

    completed, pullback, batch_stats = jax.vjp(forward, params, has_aux=True)
    return Completion(completed, batch_stats, pullback)


def _judge(
    setup: Setup, params: Tree, batch_stats: Tree, batches: Sequence[Seen]
) -> tuple[list[Float[Array, " b"]], Tree]:
    """The discriminator's logits with each batch's statistics, and its new running ones."""
    assert setup.networks.discriminator is not None
    size = setup.holes.local_size
    logits, updates = setup.networks.discriminator.apply(
        {"params": params, "batch_stats": batch_stats},
        jnp.concatenate([batch.images for batch in batches]),
        jnp.concatenate([crop(batch.images, batch.corner, size) for batch in batches]),
        train=True,
        batches=len(batches),
        mutable=["batch_stats"],
    )
    return jnp.split(logits, len(batches)), updates["batch_stats"]


def _seen(
    setup: Setup,
    images: Images,
    corner: Int[Array, "b 2"],
    noise: Key[Array, " b"],
    step: Int[Array, ""],
) -> Seen:
    if setup.noise is not None:
        images = _noisy(images, noise, setup.noise(step))
    return Seen(images, corner)


def _noise_schedule(config: Config) -> optax.Schedule | None:
    """The deviation of the noise by steps done; its end is reached with the last."""
    start, end = config.loss.discriminator_noise, config.loss.discriminator_noise_end
    if start == 0:
        return None
    if end is None:
        return optax.constant_schedule(start)
    first = config.schedule.completion_steps + config.schedule.discriminator_steps
    return optax.exponential_decay(
        start,
        transition_steps=max(config.schedule.total_steps - first, 1),
        decay_rate=end / start,
        transition_begin=first,
    )


def _noisy(images: Images, keys: Key[Array, " b"], deviation: Any) -> Images:
    """`images` with normal noise of this deviation."""
    shape = images.shape[1:]
    noise = jax.vmap(lambda key: jax.random.normal(key, shape, images.dtype))(keys)
    return images + deviation * noise


def _discriminator_gradients(
    setup: Setup,
    params: Tree,
    batch_stats: Tree,
    examples: Examples,
    completed: Images,
    step: Int[Array, ""],
) -> tuple[Tree, tuple[Tree, Metrics]]:
    images, holes = examples.images, examples.holes
    fakes = jax.lax.stop_gradient(composite(completed, images, holes.mask))

    def objective(params: Tree) -> tuple[Float[Array, ""], Any]:
        batches = [
            _seen(setup, fakes, holes.corner, examples.noise[0], step),
            _seen(setup, images, examples.real_corner, examples.noise[1], step),
        ]
        logits, stats = _judge(setup, params, batch_stats, batches)
        fake_logits, real_logits = logits
        loss = discriminator_loss(real_logits, fake_logits)
        metrics = {
            "discriminator_loss": loss,
            "real_score": jnp.mean(jax.nn.sigmoid(real_logits)),
            "fake_score": jnp.mean(jax.nn.sigmoid(fake_logits)),
        }
        return setup.loss.discriminator_weight * loss, (stats, metrics)

    grads, (batch_stats, metrics) = jax.grad(objective, has_aux=True)(params)
    return batch_stats, (grads, metrics)


def _completion_error(
    setup: Setup, completed: Images, examples: Examples
) -> tuple[Images, Metrics]:
    """The gradient of the completion loss at the completed image, with that of structure."""
    settings, images, mask = setup.loss, examples.images, examples.holes.mask

    def objective(completed: Images) -> tuple[Float[Array, ""], Metrics]:
        loss = completion_loss(completed, images, mask, normalizer=settings.normalizer)
        metrics = {"completion_loss": loss}
        if settings.structure_weight > 0:
            metrics["structure_loss"] = structure_loss(completed, images, mask)
            loss += settings.structure_weight * metrics["structure_loss"]
        return loss, metrics

    error, metrics = jax.grad(objective, has_aux=True)(completed)
    return error, metrics | {"completion_gradient_norm": _squared_norm(error)}


def _joint_error(
    setup: Setup,
    discriminator: NetState,
    completed: Images,
    examples: Examples,
    step: Int[Array, ""],
) -> tuple[Images, Metrics]:
    """The gradient of Eq. 5 at the completed image, where both losses meet.

    Behind this point both travel through the same linear pullback, so their norms here
    tell how the two are balanced at no cost.
    """
    images, holes = examples.images, examples.holes

    def adversary(completed: Images) -> Float[Array, ""]:
        fakes = composite(completed, images, holes.mask)
        # The discriminator judges as it was trained, by batch statistics; the running
        # ones it would update here are dropped.
        seen = _seen(setup, fakes, holes.corner, examples.noise[2], step)
        (logits,), _ = _judge(
            setup, discriminator.params, discriminator.batch_stats, [seen]
        )
        return adversarial_loss(logits, kind=setup.loss.adversarial)

    completion_error, metrics = _completion_error(setup, completed, examples)
    loss, adversarial_error = jax.value_and_grad(adversary)(completed)
    alpha = jnp.asarray(setup.loss.alpha, jnp.float32)
    if setup.loss.adversarial_ratio is not None:
        norms = pmean(
            (_squared_norm(completion_error), _squared_norm(adversarial_error)),
            setup.axis_name,
        )
        alpha = setup.loss.adversarial_ratio * jnp.sqrt(norms[0] / (norms[1] + 1e-20))
    adversarial_error = alpha * adversarial_error
    metrics |= {
        "adversarial_loss": loss,
        "adversarial_gradient_norm": _squared_norm(adversarial_error),
        "alpha": alpha,
    }
    return completion_error + adversarial_error, metrics


def _over_pieces(
    setup: Setup,
    gradients: Callable[[Tree, Examples], tuple[Tree, Any]],
    batch_stats: Tree,
    images: UInt8[Array, "b h w 3"],
    key: Key[Array, ""],
) -> tuple[Tree, Any]:
    """Gradients and metrics averaged over accumulation pieces and over devices.

    Pieces follow one another, handing the running statistics on. What is drawn for a
    photograph does not depend on the piece it is in.
    """
    pieces, per_device = setup.accumulate, images.shape[0]
    first = _first_index(setup, per_device)
    if pieces == 1:
        batch_stats, averages = gradients(batch_stats, _draw(setup, images, key, first))
        return batch_stats, pmean(averages, setup.axis_name)
    size = per_device // pieces

    def piece(carry: tuple[Tree, Any], inputs: Any) -> tuple[tuple[Tree, Any], None]:
        (batch_stats, sums), (index, piece_images) = carry, inputs
        examples = _draw(setup, piece_images, key, first + index * size)
        batch_stats, values = gradients(batch_stats, examples)
        return (batch_stats, jax.tree.map(jnp.add, sums, values)), None

    stacked = images.reshape(pieces, size, *images.shape[1:])
    shapes = jax.eval_shape(
        gradients, batch_stats, _draw(setup, stacked[0], key, first)
    )[1]
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    (batch_stats, sums), _ = jax.lax.scan(
        piece, (batch_stats, zeros), (jnp.arange(pieces, dtype=jnp.int32), stacked)
    )
    averages = jax.tree.map(lambda leaf: leaf / pieces, sums)
    return batch_stats, pmean(averages, setup.axis_name)


def _squared_norm(tree: Tree) -> Float[Array, ""]:
    return sum(
        (jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)), jnp.zeros(())
    )


def _finished(setup: Setup, metrics: Metrics) -> Metrics:
    """The metrics, squared norms of the parts turned into the norm of the whole batch.

    Each part's gradient is that of its own mean, so the whole's is smaller by the number
    of parts n: its squared norm is sum / n^2, and the average over parts is sum / n.
    """
    parts = setup.accumulate * axis_size(setup.axis_name)
    return {
        name: jnp.sqrt(value / parts) if name.endswith("gradient_norm") else value
        for name, value in metrics.items()
    }


def _updated(
    optimizer: optax.GradientTransformation,
    net: NetState,
    batch_stats: Tree,
    grads: Tree,
) -> NetState:
    # optax raises its decay rates to integer step counts.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = optimizer.update(grads, net.opt_state, net.params)
    params = optax.apply_updates(net.params, _in_turn(updates, opt_state))
    return NetState(params, batch_stats, opt_state)


def _in_turn(updates: Tree, opt_state: Tree) -> Tree:
    """The updates, each after the optimizer's new state for the same weights.

    XLA would do that state last, and keep for it what both are made of: of Adadelta
    three arrays as large as the weights, 0.5 GB for the discriminators.
    """
    states = jax.tree.leaves_with_path(opt_state)

    def turn(path: tuple[Any, ...], update: Array) -> Array:
        own = [state for place, state in states if place[-len(path) :] == path]
        return after(update, *own)

    return jax.tree.map_with_path(turn, updates)


def _updated_completion(
    setup: Setup, state: TrainState, batch_stats: Tree, grads: Tree
) -> TrainState:
    completion = _updated(
        setup.optimizers.completion, state.completion, batch_stats, grads
    )
    step, ema = state.step + 1, state.ema
    if ema is not None and setup.ema_decay is not None:
        # A young average would remember the random weights: let it start short.
        updates = step.astype(jnp.float32)
        decay = jnp.minimum(setup.ema_decay, (1 + updates) / (10 + updates))
        new = {"params": completion.params, "batch_stats": completion.batch_stats}
        ema = jax.tree.map(
            lambda old, value: decay * old + (1 - decay) * value, ema, new
        )
    return replace(state, step=step, completion=completion, ema=ema)


def _discriminator(state: TrainState) -> NetState:
    assert state.discriminator is not None
    return state.discriminator
