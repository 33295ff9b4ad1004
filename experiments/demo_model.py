"""The model that ships with gl_jax: openly licensed photographs, 128 x 128 pixels.

    gl-jax train experiments/demo_model.py --workdir runs/demo_model \
        --data.source FOLDER    # a folder with train/ and val/ in it

Hardware: two processor cores. Cost: 12 GFLOP a photograph and update, 0.1 TFLOP a step of
8: 0.9 s on two cores of an AVX-512 server, 1.3 s in the joint phase; a GPU does it in
milliseconds. The run resumes where it was stopped, so it is trained in as many sittings as
it takes, and a model can be taken from it at any step.

Why these numbers, against the paper's (256 x 256, batch 96, 8 million photographs):
- 128 x 128 pixels and half the channels: 4 times fewer pixels and 4 times fewer products
  for each. 1.5 million parameters are 3 MB in float16.
- Holes of 48 to 64 in a window of 64: the paper's proportions.
- 8 photographs a step: while a model learns fast, twice the steps do more than steps of
  twice the photographs.
- 1,928 photographs are few: crops are mirrored, drawn at scales from 128 to 160 pixels,
  and their colours vary by a tenth.
- Adam at 0.001, as Adadelta needs more steps than two cores can give; the moving average
  over 1,000 updates takes the place of a falling learning rate.
- The joint phase goes on with the squared error, so it takes the larger part of the run.
  The adversarial gradient gets a fifth of the completion gradient's norm, which is the
  paper's balance ("the same order of magnitude") on the side of the photograph.
"""

from gl_jax.config import (
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
    name="demo_model",
    model=ModelConfig(width=0.5),
    data=DataConfig(
        source="../shared/data/train256",
        batch_size=8,
        image_size=128,
        resize=(128, 160),
        flip=True,
        color_jitter=0.1,
    ),
    holes=HolesConfig(min_size=48, max_size=64, local_size=64),
    loss=LossConfig(adversarial_ratio=0.2),
    completion_optimizer=OptimizerConfig("adam", 1e-3, warmup_steps=100),
    discriminator_optimizer=OptimizerConfig("adam", 2e-4, {"b1": 0.5}),
    schedule=ScheduleConfig(
        completion_steps=2_500, discriminator_steps=150, total_steps=30_000
    ),
    run=RunConfig(
        ema_decay=0.999,
        log_every=20,
        save_every=100,
        eval_every=500,
        sample_every=500,
        validation_images=216,
        keep_every=2_500,
    ),
)
