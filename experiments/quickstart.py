"""All three phases on the bundled photographs: the whole method, small, in minutes.

    gl-jax train experiments/quickstart.py --workdir runs/quickstart

Hardware: two processor cores are enough. Cost: about 3 minutes, 1 GB of memory.
`make demo` runs it and then completes photographs that it was not trained on.

It goes on with the weights of the model that comes with gl_jax: ten photographs and
minutes are too few to learn completion from nothing, and a joint phase after too short a
completion phase draws a grid. Fine-tuning on photographs of your own works the same way.

Why these numbers, against the paper's (256 x 256, batch 96, 500,000 steps):
- 64 x 64 pixels and half the channels (the width of those weights): a photograph costs 60
  times less.
- Holes of 24 to 32 in a window of 32: the paper's proportions.
- Ten photographs are a handful: crops are mirrored and drawn at many scales, and their
  brightness, contrast and saturation vary. Without that the networks remember them.
- Adam instead of Adadelta. Adadelta finds its step size by itself, over thousands of
  steps; a run of several hundred ends before it has.
- Discriminators without batch normalisation, with R1 and DiffAugment, as in `reproduction`:
  else they know every completion for certain after a hundred steps.
- They learn alone for 160 steps, and the adversarial gradient is then held to half of the
  completion gradient, for 70 steps, at a falling rate. Discriminators that have learned for
  so short a time know little: what larger or longer steps draw is a grid.
- The moving average smooths the last steps, which are noisy at a batch of 8.
"""

from dataclasses import replace

from gl_jax.config import (
    AugmentConfig,
    Config,
    DataConfig,
    HolesConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
)

ADAM = OptimizerConfig("adam", 2e-4, {"b1": 0.5})

config = Config(
    name="quickstart",
    model=ModelConfig(width=0.5, discriminator_norm="none"),
    data=DataConfig(
        source="bundled",
        batch_size=8,
        image_size=64,
        resize=(64, 128),
        flip=True,
        color_jitter=0.3,
    ),
    holes=HolesConfig(min_size=24, max_size=32, local_size=32),
    loss=LossConfig(r1=0.5, penalty_every=4, adversarial_ratio=0.5),
    augment=AugmentConfig(color=True, translation=0.125),
    completion_optimizer=replace(ADAM, decay="linear"),
    discriminator_optimizer=replace(ADAM, learning_rate=4e-4),
    schedule=ScheduleConfig(
        completion_steps=40, discriminator_steps=160, total_steps=270
    ),
    run=RunConfig(
        initial_weights="demo",
        ema_decay=0.98,
        log_every=10,
        save_every=100,
        eval_every=50,
        sample_every=50,
        keep_newest=2,
    ),
)
