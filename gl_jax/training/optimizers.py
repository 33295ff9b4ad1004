"""Optax optimizers and schedules from an `OptimizerConfig`."""

from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers

from gl_jax.config import OptimizerConfig

# Root mean square of a Muon update per unit of learning rate. It is about Adam's, so that
# kernels and other parameters share a learning rate (Liu et al. 2025, arXiv:2502.16982).
_MUON_RMS = 0.2


def create_optimizer(
    config: OptimizerConfig, updates: int, joint: int = 0
) -> optax.GradientTransformation:
    """Returns the optimizer of `config` for a network with `updates` updates.

    The last `joint` of them are in the joint phase.
    """
    function = _muon if config.name == "muon" else getattr(optax, config.name)
    transforms = [function(learning_rate(config, updates, joint), **config.options)]
    if config.clip_norm is not None:
        transforms.insert(0, optax.clip_by_global_norm(config.clip_norm))
    return optax.chain(*transforms)


def learning_rate(
    config: OptimizerConfig, updates: int, joint: int = 0
) -> optax.Schedule:
    """Returns the schedule over the network's own updates: linear warmup, then decay.

    With a `joint_learning_rate` this decay ends before the joint phase, which has a
    decay of its own from that rate.
    """
    warmup, joint_rate = config.warmup_steps, config.joint_learning_rate
    alone = updates if joint_rate is None else updates - joint
    pieces = [_decay(config, config.learning_rate, alone - warmup)]
    starts = []
    if warmup > 0:
        pieces.insert(0, optax.linear_schedule(0.0, config.learning_rate, warmup))
        starts.append(warmup)
    if joint_rate is not None:
        pieces.append(_decay(config, joint_rate, joint))
        starts.append(alone)
    return optax.join_schedules(pieces, starts) if starts else pieces[0]


def _decay(config: OptimizerConfig, peak: float, updates: int) -> optax.Schedule:
    updates = max(1, updates)
    return {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, updates),
        "linear": optax.linear_schedule(peak, 0.0, updates),
    }[config.decay]


def _muon(
    learning_rate: optax.Schedule, **options: float
) -> optax.GradientTransformation:
    """Returns Muon (Jordan 2024) for kernels, with Adam for the other parameters."""
    return optax.contrib.muon(
        learning_rate,
        consistent_rms=_MUON_RMS,
        muon_weight_dimension_numbers=_matrices,
        **options,
    )


def _matrices(params: Any) -> Any:
    """Returns Muon's matrix axes: all axes of a kernel but the last are joined."""

    def dimensions(param: jax.Array) -> MuonDimensionNumbers | None:
        last = param.ndim - 1
        return MuonDimensionNumbers(tuple(range(last)), (last,)) if last > 0 else None

    return jax.tree.map(dimensions, params)
