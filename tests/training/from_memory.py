"""Trains on arrays in memory: no command line, no photographs on disk, no TensorFlow.

python tests/training/from_memory.py
"""

import jax
import numpy as np

from gl_jax.config import Config, DataConfig, HolesConfig, ModelConfig, OptimizerConfig
from gl_jax.training import Phase, create_state, default_parts, make_steps

config = Config(
    model=ModelConfig(width=0.125),
    data=DataConfig(image_size=32, resize=(32, 32), batch_size=8),
    holes=HolesConfig(min_size=8, max_size=12, local_size=16),
    completion_optimizer=OptimizerConfig("adam", 0.002),
    discriminator_optimizer=OptimizerConfig("adam", 0.001),
)

# Any uint8 array [photographs, height, width, 3] will do: here, waves of random colours.
chance = np.random.default_rng(0)
waves = np.sin(
    np.linspace(0, 6, 32)[:, None, None] + chance.uniform(0, 6, (64, 1, 1, 3))
)
photographs = np.broadcast_to(127.5 + 100 * waves, (64, 32, 32, 3)).astype(np.uint8)
mean_color = tuple(float(mean) for mean in photographs.mean((0, 1, 2)) / 255)

parts = default_parts(config)
state = create_state(parts, config.data.image_size)
steps = make_steps(parts, mean_color)
programs = {phase: jax.jit(step, donate_argnums=0) for phase, step in steps.items()}
key = jax.random.key(0)

phases = [Phase.COMPLETION] * 60 + [Phase.DISCRIMINATOR] * 10 + [Phase.JOINT] * 10
for phase in phases:
    images = chance.choice(photographs, config.data.batch_size, replace=False)
    state, metrics = programs[phase](state, images, key)
    print(phase, *(f"{name} {value:.5f}" for name, value in metrics.items()))
