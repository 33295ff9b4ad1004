"""The training state: arrays only. What is in the state is what is in the checkpoint."""

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
    """One network: its parameters, its running statistics and its optimizer's state.

    `batch_stats` is empty for a network without batch normalisation.
    """

    params: Tree
    batch_stats: Tree
    opt_state: Tree


@flax.struct.dataclass
class TrainState:
    """The whole run at one step: completed updates and both networks.

    `discriminator` is None where the run has none. `ema` is None or the moving average
    of the completion network, a dictionary of `params` and `batch_stats`.
    """

    step: jax.Array
    completion: NetState
    discriminator: NetState | None
    ema: Tree | None
    adaptive: AdaptiveState | None = None
    """The augmentation's probability; None where it is no matter of the state."""


def create_state(
    parts: Parts, image_size: int, *, seed: int = 0, ema: bool = False
) -> TrainState:
    """The state before the first step, for square images of `image_size` pixels.

    Initial weights are what the networks' own `init` gives; they follow from `seed`. With
    `ema` the state holds a moving average of the completion network, which begins there.
    """
    create = partial(_created, parts, image_size, ema)
    # Each kernel has a draw of its own, and compiling these takes far longer than drawing.
    state: TrainState = compilation.jit(create, once=True)(jax.random.key(seed))
    return state


def state_shapes(parts: Parts, image_size: int, *, ema: bool = False) -> TrainState:
    """The shapes and types of `create_state`'s arrays, without computing any."""
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
    """The variables to complete photographs with: the moving average where there is one."""
    return variables_of(state.completion) if state.ema is None else state.ema


def variables_of(net: NetState) -> Tree:
    """The variables to apply a network with."""
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
