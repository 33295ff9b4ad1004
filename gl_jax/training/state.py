"""The training state: arrays only, all of which go into a checkpoint."""

from functools import partial
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from gl_jax import compilation
from gl_jax.training.augment import AdaptiveState, adaptive_start
from gl_jax.training.parts import Parts

Tree = Any


@flax.struct.dataclass
class NetState:
    """One network: its parameters, running statistics and optimizer state.

    `batch_stats` is empty for a network without batch normalisation.
    """

    params: Tree
    batch_stats: Tree
    opt_state: Tree


@flax.struct.dataclass
class TrainState:
    """A run after `step` updates: both networks and their optimizers.

    `discriminator` is None if the run has none. `ema` is None or the moving average of
    the completion network, a dictionary of `params` and `batch_stats`.
    """

    step: jax.Array
    completion: NetState
    discriminator: NetState | None
    ema: Tree | None
    adaptive: AdaptiveState | None = None
    """The controller of the augmentation's probability; None if that is fixed."""


def create_state(
    parts: Parts, image_size: int, *, seed: int = 0, ema: bool = False
) -> TrainState:
    """Returns the state before the first step, for square images of `image_size` pixels.

    The networks' own `init` makes the weights from `seed`. With `ema` the state holds a
    moving average of the completion network, which starts at these weights.
    """
    create = partial(_created, parts, image_size, ema)
    # `once`: compiling the many random draws takes far longer than running them.
    state: TrainState = compilation.jit(create, once=True)(jax.random.key(seed))
    return state


def state_shapes(parts: Parts, image_size: int, *, ema: bool = False) -> TrainState:
    """Returns the shapes and types of `create_state`'s arrays without computing them."""
    create = partial(_created, parts, image_size, ema)
    state: TrainState = jax.eval_shape(create, jax.random.key(0))
    return state


def _created(parts: Parts, image_size: int, ema: bool, key: jax.Array) -> TrainState:
    completion_key, discriminator_key = jax.random.split(key)
    inputs, views = parts.example_inputs(image_size)
    optimizers = parts.optimizers
    completion = _net_state(
        parts.completion, completion_key, inputs, optimizers.completion
    )
    discriminator = None
    if parts.discriminator is not None:
        discriminator = _net_state(
            parts.discriminator, discriminator_key, views, optimizers.discriminator
        )
    average = None
    if ema:
        average = {"params": completion.params, "batch_stats": completion.batch_stats}
    adaptive = None if parts.adaptive is None else adaptive_start()
    step = jnp.zeros((), jnp.int32)
    return TrainState(step, completion, discriminator, average, adaptive)


def inference_variables(state: TrainState) -> Tree:
    """Returns the variables for inference: the moving average if there is one."""
    return variables_of(state.completion) if state.ema is None else state.ema


def variables_of(net: NetState) -> Tree:
    """Returns a network's variables for `apply`."""
    return {"params": net.params, "batch_stats": net.batch_stats}


def _net_state(
    network: nn.Module,
    key: jax.Array,
    inputs: Any,
    optimizer: optax.GradientTransformation,
) -> NetState:
    variables = network.init(key, inputs, train=False)
    params = variables["params"]
    return NetState(params, variables.get("batch_stats", {}), optimizer.init(params))
