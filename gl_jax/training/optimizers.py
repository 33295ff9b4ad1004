"""OptimizerConfig to optax."""

from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers

from gl_jax.config import OptimizerConfig

# The root mean square of a Muon update as a share of the learning rate: about Adam's, so
# that one learning rate serves kernels and all else (Liu et al. 2025, arXiv:2502.16982).
_MUON_RMS = 0.2


def create_optimizer(
    config: OptimizerConfig, updates: int, joint: int = 0
) -> optax.GradientTransformation:
    """The optax optimizer that `config` names, for a network updated `updates` times.

    The last `joint` of these updates make the joint phase.
    """
    function = _muon if config.name == "muon" else getattr(optax, config.name)
    transforms = [function(learning_rate(config, updates, joint), **config.options)]
    if config.clip_norm is not None:
        transforms.insert(0, optax.clip_by_global_norm(config.clip_norm))
    return optax.chain(*transforms)


def learning_rate(
    config: OptimizerConfig, updates: int, joint: int = 0
) -> optax.Schedule:
    """The learning rate over the network's own updates: a linear rise, then the decay.

    With a `joint_learning_rate` the decay ends with the first phases, and another one
    takes the joint phase down from there.
    """
    warmup, again = config.warmup_steps, config.joint_learning_rate
    alone = updates if again is None else updates - joint
    pieces = [_decay(config, config.learning_rate, alone - warmup)]
    starts = []
    if warmup > 0:
        pieces.insert(0, optax.linear_schedule(0.0, config.learning_rate, warmup))
        starts.append(warmup)
    if again is not None:
        pieces.append(_decay(config, again, joint))
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
    """Muon (Jordan 2024) for kernels, as matrices of taps by features; Adam for the rest."""
    return optax.contrib.muon(
        learning_rate,
        consistent_rms=_MUON_RMS,
        muon_weight_dimension_numbers=_matrices,
        **options,
    )


def _matrices(params: Any) -> Any:
    """How Muon sees each parameter: all axes of a kernel but the last are one."""

    def dimensions(param: jax.Array) -> MuonDimensionNumbers | None:
        last = param.ndim - 1
        return MuonDimensionNumbers(tuple(range(last)), (last,)) if last > 0 else None

    return jax.tree.map(dimensions, params)
