"""The training state: arrays only. What is in the state is what is in the checkpoint."""

from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from gl_jax.config import Config
from gl_jax.models.completion import CompletionNetwork
from gl_jax.models.discriminators import ContextDiscriminator
from gl_jax.training.optimizers import create_optimizer

Tree = Any


@flax.struct.dataclass
class NetState:
    """One network: its parameters, its running statistics and its optimizer's state."""

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


class Networks(NamedTuple):
    """The modules of a run."""

    completion: CompletionNetwork
    discriminator: ContextDiscriminator | None


class Optimizers(NamedTuple):
    """The optimizer of each network."""

    completion: optax.GradientTransformation
    discriminator: optax.GradientTransformation


def build_networks(config: Config, *, axis_name: str | None = None) -> Networks:
    """The networks that `config` describes; batch statistics are shared over `axis_name`."""
    model = config.model
    common: dict[str, Any] = {
        "width": model.width,
        "norm_order": model.norm_order,
        "dtype": jnp.dtype(model.compute_dtype),
        "axis_name": axis_name,
        "momentum": model.batch_norm_momentum,
        "rematerialize": model.rematerialize,
    }
    completion = CompletionNetwork(output_activation=model.output_activation, **common)
    if model.discriminators == "none":
        return Networks(completion, None)
    discriminator = ContextDiscriminator(
        image_size=config.data.image_size,
        local_size=config.holes.local_size,
        variant=model.discriminators,
        **common,
    )
    return Networks(completion, discriminator)


def build_optimizers(config: Config) -> Optimizers:
    """The optimizers that `config` describes, each counting its own network's updates."""
    schedule = config.schedule
    total = schedule.total_steps
    first = min(schedule.completion_steps, total)
    second = min(schedule.discriminator_steps, total - first)
    joint = total - first - second
    if config.model.discriminators == "none":
        first, second, joint = total, 0, 0
    return Optimizers(
        create_optimizer(config.completion_optimizer, first + joint, joint),
        create_optimizer(config.discriminator_optimizer, second + joint, joint),
    )


def create_state(config: Config) -> TrainState:
    """The state before the first step; the weights follow from `run.seed` alone."""
    networks, optimizers = build_networks(config), build_optimizers(config)
    size, local_size = config.data.image_size, config.holes.local_size
    key = jax.random.key(config.run.seed)

    def create(key: jax.Array) -> TrainState:
        completion_key, discriminator_key = jax.random.split(key)
        inputs = jnp.zeros((1, size, size, 4))
        variables = _initial_variables(networks.completion, completion_key, inputs)
        completion = _net_state(variables, optimizers.completion)
        discriminator = None
        if networks.discriminator is not None:
            variables = _initial_variables(
                networks.discriminator,
                discriminator_key,
                jnp.zeros((1, size, size, 3)),
                jnp.zeros((1, local_size, local_size, 3)),
            )
            discriminator = _net_state(variables, optimizers.discriminator)
        ema = None
        if config.run.ema_decay is not None:
            ema = {"params": completion.params, "batch_stats": completion.batch_stats}
        return TrainState(jnp.zeros((), jnp.int32), completion, discriminator, ema)

    return jax.jit(create)(key)


def inference_variables(state: TrainState) -> Tree:
    """The variables to complete photographs with: the moving average where there is one."""
    if state.ema is not None:
        return state.ema
    return {
        "params": state.completion.params,
        "batch_stats": state.completion.batch_stats,
    }


def _initial_variables(network: nn.Module, key: jax.Array, *inputs: jax.Array) -> Tree:
    """What `network.init` gives, its He-normal kernels cut from one draw.

    Each draw of its own would cost XLA half a second of compilation, 20 s a state;
    those that `init` makes are dead code here.
    """
    variables = network.init(key, *inputs)
    leaves, structure = jax.tree_util.tree_flatten_with_path(variables["params"])
    kernels = [leaf for path, leaf in leaves if path[-1].key == "kernel"]
    normal = jax.random.normal(key, (sum(kernel.size for kernel in kernels),))
    params, used = [], 0
    for path, leaf in leaves:
        if path[-1].key == "kernel":
            fan_in = leaf.size // leaf.shape[-1]
            draw = normal[used : used + leaf.size].reshape(leaf.shape)
            leaf, used = draw * (2 / fan_in) ** 0.5, used + leaf.size
        params.append(leaf)
    return {**variables, "params": jax.tree_util.tree_unflatten(structure, params)}


def _net_state(variables: Tree, optimizer: optax.GradientTransformation) -> NetState:
    params = variables["params"]
    return NetState(params, variables["batch_stats"], optimizer.init(params))
