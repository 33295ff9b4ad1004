"""Training: parts of a run, its state, its steps; objectives, optimizers, the loop.

In your own script:

    parts = default_parts(config)
    state = create_state(parts, image_size=64)
    step = jax.jit(make_steps(parts, mean_color)[Phase.COMPLETION])
    state, metrics = step(state, images, key)
"""

from gl_jax.config import Phase
from gl_jax.training.gradients import make_gradients
from gl_jax.training.objectives import Objective, Term
from gl_jax.training.parts import Optimizers, Parts, default_parts, whole, window
from gl_jax.training.setup import Drawn
from gl_jax.training.state import NetState, TrainState, create_state, state_shapes
from gl_jax.training.steps import make_steps

__all__ = [
    "Drawn",
    "NetState",
    "Objective",
    "Optimizers",
    "Parts",
    "Phase",
    "Term",
    "TrainState",
    "create_state",
    "default_parts",
    "make_gradients",
    "make_steps",
    "state_shapes",
    "whole",
    "window",
]
