"""The arithmetic of a step, for the share of a device's peak that a run uses."""

from dataclasses import replace

import jax
import numpy as np
from jax.extend.core import Jaxpr

from gl_jax import arithmetic, compilation
from gl_jax.chips import peak_of
from gl_jax.config import GREY, Config, Phase
from gl_jax.experiment import Experiment
from gl_jax.training.own_parts import parts_of
from gl_jax.training.parts import Parts
from gl_jax.training.state import state_shapes
from gl_jax.training.steps import make_steps


def operations_of(parts: Parts, config: Config, update: Phase, count: int) -> Jaxpr:
    """Returns the operations of an update on one device, of `count` photographs."""
    size, run = config.data.image_size, config.run
    steps = make_steps(
        parts,
        config.data.hole_color or GREY,
        accumulate=run.accumulate,
        ema_decay=run.ema_decay,
        ema_ramp=run.ema_ramp,
    )
    state = state_shapes(parts, size, ema=run.ema_decay is not None)
    images = jax.ShapeDtypeStruct((count, size, size, 3), np.uint8)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return arithmetic.traced(steps[update], state, images, key)


def seconds_at_peak(
    config: Config,
    experiment: Experiment | None,
    update: Phase,
    device: jax.Device,
    count: int,
) -> float:
    """Returns the seconds that an update of `count` photographs takes at a device's peak.

    Of the products of matrices alone; what `model.rematerialize` computes a second time
    does not count. 0 if the device's peak is not known, as that of processors.
    """
    peak = peak_of(device.device_kind, config.model.compute_dtype)
    if peak is None:
        return 0.0
    model = replace(config.model, rematerialize=False)
    # With the operations of accelerators, whatever a platform has in their place.
    with compilation.building_for("gpu"):
        parts = parts_of(replace(config, model=model), experiment)
        return (
            arithmetic.work_of(operations_of(parts, config, update, count)).flops / peak
        )
