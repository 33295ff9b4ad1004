r"""The paper's ablation at a size that two processor cores manage: flowers, 64 x 64.

    make reproduce    # all runs, their measures and figures; run again, it goes on

or one run by itself, `completion` first, as the others begin with its weights:

    gl-jax train experiments/reproduction.py --workdir runs/completion --data.source FLOWERS
    gl-jax export --workdir runs/completion --output runs/completion.safetensors
    gl-jax train experiments/reproduction.py:both --workdir runs/both \
        --data.source FLOWERS --run.initial-weights runs/completion.safetensors

Hardware: two processor cores, 2 GB of memory. Cost on quiet ones: 12 minutes for the
completion phase and about 14 for each setting with discriminators, for each seed.

Data: photographs of flowers of at least 80 pixels, a folder with train/ and val/ in it; the
documented runs had 1,336 and 157. docs/reproduction.md has what came out.

Settings: `mse` goes on without discriminators for as many steps, `global`, `local` and `both`
with them, as in the paper. `paper` has the paper's own game, Adadelta and alpha = 0.0004,
`glcic_pytorch` and `mmediting` are those projects' recipes at this size, from random weights.

Why these numbers, against the paper's (256 x 256, batch 96, 8 million photographs):
- 64 x 64 crops of photographs of 80, holes of 24 to 32 in a window of 32: the paper's
  proportions. A third of the width (0.375): 16 x 7 times less to compute.
- Muon for the completion phase: in 2,400 steps of 16 Adadelta would only begin.
- Discriminators without batch normalisation, with R1 (gamma 0.5, every fourth step) and
  DiffAugment's colour and translation. With batch normalisation and without a penalty they
  know every completion for certain after a hundred steps, whatever the loss and optimizer,
  and then ask for a grid. With gamma 0.1 a grid began after 900 steps.
- The adversarial gradient has 1.5 times the norm of the completion gradient at the completed
  image. With twice, the fills came nearer to the photographs' texture a little sooner, and
  lost 1 dB of PSNR.
- Adam with b1 0.5, at 0.0004 for the discriminators: at 0.0002 they fall behind (a score of
  0.5 for either kind). At 0.0002, falling to 0, for the completion network, and 800 steps: at
  a constant rate a grid began after 900 to 1,200.
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

COMPLETION, ALONE, JOINT = 2_400, 100, 800
"""Updates of the three phases."""

FALLING = OptimizerConfig("adam", 2e-4, {"b1": 0.5}, decay="linear")
CONSTANT = OptimizerConfig("adam", 4e-4, {"b1": 0.5})

config = Config(
    name="completion",
    model=ModelConfig(width=0.375, discriminators="none"),
    data=DataConfig(batch_size=16, image_size=64, resize=(80, 80), flip=True),
    holes=HolesConfig(min_size=24, max_size=32, local_size=32),
    completion_optimizer=OptimizerConfig(
        "muon", 2e-3, warmup_steps=100, decay="linear"
    ),
    schedule=ScheduleConfig(COMPLETION, 0, COMPLETION),
    run=RunConfig(
        ema_decay=0.995,
        log_every=20,
        save_every=100,
        eval_every=300,
        sample_every=300,
        validation_images=144,
        sample_images=16,
        keep_best=0,
    ),
)

both = replace(
    config,
    name="both",
    model=ModelConfig(width=0.375, discriminator_norm="none"),
    loss=LossConfig(r1=0.5, penalty_every=4, adversarial_ratio=1.5),
    augment=AugmentConfig(color=True, translation=0.125),
    completion_optimizer=FALLING,
    discriminator_optimizer=CONSTANT,
    schedule=ScheduleConfig(0, ALONE, ALONE + JOINT),
)

from_random = replace(
    both,
    model=replace(both.model, discriminator_norm="batch"),
    augment=AugmentConfig(),
    schedule=ScheduleConfig(COMPLETION, ALONE, COMPLETION + ALONE + JOINT),
)
ADADELTA = OptimizerConfig()
PYTORCH_ALPHA = 4e-4

configs = {
    "mse": replace(
        config,
        name="mse",
        completion_optimizer=FALLING,
        schedule=ScheduleConfig(JOINT, 0, JOINT),
    ),
    "global": replace(
        both, name="global", model=replace(both.model, discriminators="global")
    ),
    "local": replace(
        both, name="local", model=replace(both.model, discriminators="local")
    ),
    "both": both,
    "paper": replace(
        both,
        name="paper",
        model=replace(both.model, discriminator_norm="batch"),
        loss=LossConfig(),
        augment=AugmentConfig(),
        completion_optimizer=ADADELTA,
        discriminator_optimizer=ADADELTA,
    ),
    "glcic_pytorch": replace(
        from_random,
        name="glcic_pytorch",
        model=replace(from_random.model, norm_order="activation_norm"),
        data=replace(config.data, encoding="plain"),
        holes=HolesConfig(12, 32, local_size=32, shared_window=True),
        loss=LossConfig(
            alpha=PYTORCH_ALPHA / 2,
            joint_completion_weight=0.5,
            fakes="raw",
            discriminator_weight=0.5,
            joint_discriminator_weight=PYTORCH_ALPHA / 2,
        ),
        completion_optimizer=ADADELTA,
        discriminator_optimizer=ADADELTA,
    ),
    "mmediting": replace(
        from_random,
        name="mmediting",
        model=replace(from_random.model, output_activation="signed_clamp"),
        data=replace(config.data, encoding="mmediting"),
        holes=HolesConfig(24, 32, local_size=32, paired_windows=True),
        loss=LossConfig(
            alpha=1e-3, completion="absolute", completion_weight=2.0, normalizer="batch"
        ),
        completion_optimizer=OptimizerConfig("adam", 4e-4),
        discriminator_optimizer=OptimizerConfig("adam", 4e-4),
    ),
}
