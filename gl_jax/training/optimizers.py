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
    config: OptimizerConfig, updates: int
) -> optax.GradientTransformation:
    """The optax optimizer that `config` names, for a network updated `updates` times."""
    function = _muon if config.name == "muon" else getattr(optax, config.name)
    transforms = [function(learning_rate(config, updates), **config.options)]
    if config.clip_norm is not None:
        transforms.insert(0, optax.clip_by_global_norm(config.clip_norm))
    return optax.chain(*transforms)


def learning_rate(config: OptimizerConfig, updates: int) -> optax.Schedule:
    """The learning rate over the network's own updates: a linear rise, then the decay."""
    peak, warmup = config.learning_rate, config.warmup_steps
    remaining = max(1, updates - warmup)
    after = {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, remaining),
        "linear": optax.linear_schedule(peak, 0.0, remaining),
    }[config.decay]
    if warmup == 0:
        return after
    rise = optax.linear_schedule(0.0, peak, warmup)
    return optax.join_schedules([rise, after], [warmup])


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
