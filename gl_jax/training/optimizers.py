"""OptimizerConfig to optax."""

import optax

from gl_jax.config import OptimizerConfig


def create_optimizer(
    config: OptimizerConfig, updates: int
) -> optax.GradientTransformation:
    """The optax optimizer that `config` names, for a network updated `updates` times."""
    function = getattr(optax, config.name)
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
