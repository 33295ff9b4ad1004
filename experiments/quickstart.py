"""All three phases on the bundled photographs: the whole method, small, in minutes.

    gl-jax train experiments/quickstart.py --workdir runs/quickstart

Hardware: two processor cores are enough. Cost: about 4 minutes, 1 GB of memory.
`make demo` runs it and then completes photographs that it was not trained on.

Why these numbers, against the paper's (256 x 256, batch 96, 500,000 steps):
- 96 x 96 pixels and a quarter of the channels: 7 times fewer pixels and 16 times fewer
  products for each, so a photograph costs 110 times less: 0.3 instead of 32.6 billion
  multiplications to complete.
- Holes of 24 to 48 in a window of 48, half the image's side as in the paper. The paper's
  proportions would be 36 to 48; smaller ones can be learned sooner. But as large as any
  that is completed later: in the middle of larger ones the output means nothing.
- Ten photographs are a handful: crops are mirrored and drawn at many scales, and their
  brightness, contrast and saturation vary by half. Without that the network remembers
  their colours instead of looking around the hole.
- Adam instead of Adadelta. Adadelta finds its step size by itself, over thousands of
  steps; a run of several hundred ends before it has.
- Discriminators without batch normalisation, with R1 and DiffAugment, as in `reproduction`:
  else they know every completion for certain after a hundred steps.
- The adversarial gradient is held to a tenth of the completion gradient: with the fixed weight
  of the paper it would be the larger one in so short a run, and what a hundred steps of a
  larger one draw is a grid.
- The moving average smooths the last steps, which are noisy at a batch of 8.
- The phases take 70, 8 and 22 in a hundred steps (paper: 18, 2 and 80): most of what
  can be learned in minutes is the completion loss.
"""

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

config = Config(
    name="quickstart",
    model=ModelConfig(width=0.25, discriminator_norm="none"),
    data=DataConfig(
        source="bundled",
        batch_size=8,
        image_size=96,
        resize=(96, 192),
        flip=True,
        color_jitter=0.5,
    ),
    holes=HolesConfig(min_size=24, max_size=48, local_size=48),
    loss=LossConfig(r1=0.5, penalty_every=4, adversarial_ratio=0.1),
    augment=AugmentConfig(color=True, translation=0.125),
    completion_optimizer=OptimizerConfig("adam", 1e-3, decay="cosine"),
    discriminator_optimizer=OptimizerConfig("adam", 2e-4, {"b1": 0.5}),
    schedule=ScheduleConfig(
        completion_steps=560, discriminator_steps=60, total_steps=800
    ),
    run=RunConfig(
        ema_decay=0.98,
        log_every=10,
        save_every=400,
        eval_every=100,
        sample_every=100,
        keep_newest=2,
    ),
)
