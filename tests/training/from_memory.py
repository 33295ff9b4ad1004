"""Trains on arrays in memory: no command line, no photographs on disk, no TensorFlow.

python tests/training/from_memory.py
"""

import jax
import numpy as np

from gl_jax.config import Config, DataConfig, HolesConfig, ModelConfig, OptimizerConfig
from gl_jax.training import Phase, create_state, default_parts, make_steps

config = Config(
    model=ModelConfig(width=0.0625),
    data=DataConfig(image_size=32, resize=(32, 32), batch_size=8),
    holes=HolesConfig(min_size=8, max_size=12, local_size=16),
    completion_optimizer=OptimizerConfig("adam", 0.01),
    discriminator_optimizer=OptimizerConfig("adam", 0.001),
)

# Any uint8 array [photographs, height, width, 3] will do: here, skies of random colours.
chance = np.random.default_rng(0)
colors, light = chance.uniform(0.7, 1, (64, 1, 1, 3)), np.linspace(1, 0.6, 32)
photographs = (255 * colors * light[:, None, None].repeat(32, 1)).astype(np.uint8)
mean_color = tuple(float(mean) for mean in photographs.mean((0, 1, 2)) / 255)

parts = default_parts(config)
state = create_state(parts, config.data.image_size)
steps = make_steps(parts, mean_color)
programs = {phase: jax.jit(step, donate_argnums=0) for phase, step in steps.items()}
key = jax.random.key(0)

phases = [Phase.COMPLETION] * 30 + [Phase.DISCRIMINATOR] * 3 + [Phase.JOINT] * 3
for phase in phases:
    images = chance.choice(photographs, config.data.batch_size, replace=False)
    state, metrics = programs[phase](state, images, key)
    print(phase, *(f"{name} {value:.5f}" for name, value in metrics.items()))
