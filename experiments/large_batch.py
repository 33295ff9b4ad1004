r"""Places2 on a TPU pod: 16 times the batch, a 16th of the steps.

On every host at once (on Cloud TPU: `gcloud compute tpus tpu-vm ssh NAME --worker=all
--command='...'`), the workdir and the data in a bucket or on a shared disk:

    gl-jax train experiments/large_batch.py --workdir /shared/runs/large-batch \
        --data.data-dir gs://BUCKET/tensorflow_datasets --distributed

Hardware: 32 to 256 chips. 1,536 photographs are 48 for each of 32 chips and 6 for each
of 256; the batch statistics are over all 1,536. Cost, expected (`gl-jax plan
experiments/large_batch.py --topology gpu:h100x32`, not measured): 0.18, 0.10 and 0.24
TFLOP for a photograph in the three phases, as in places2, so 1.1e19 FLOP in all. 32 H100
need at least 6 minutes, and 14 at 40 % of their speed; a card needs at least 7.3 GB.
Compiled for 256 chips of TPU v5e (`--topology v5e:16x16`): 3.2 GB a chip, at least 17
minutes, 43 at 40 %. The memory is the limit there, not the matrix units (36 ms a joint step
beside 7 ms), as each chip has only 6 photographs. If the data arrives: 48 million crops in
43 minutes are 19,000 a second over all hosts.

The arithmetic, from batch 96 to 1,536 (factor 16):
- Steps: 500,000 / 16 = 31,250; the phases 90,000 / 16 = 5,625 and 10,000 / 16 = 625.
- Optimizer: LAMB, Adam's direction with every layer's step in proportion to its
  weights, which keeps large batches from diverging early.
- Learning rate: 4e-4, which mmediting uses with Adam at batch 96, times sqrt(16):
  1.6e-3. The square root keeps the variance of a step: the noise of the gradient's mean falls
  with the root of the batch.
- Warm-up: a tenth of the first phase (562 updates) for the completion network; the
  discriminators have only 625 updates before the completion network listens to them,
  and warm up over half of those (312).
- Linear decay to 0 after it, as in the paper that introduced LAMB.
- bfloat16 for activations and products; parameters, statistics and losses stay float32.
"""

from gl_jax.config import (
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
)

FACTOR = 16

config = Config(
    name="large-batch",
    model=ModelConfig(compute_dtype="bfloat16"),
    data=DataConfig(source="tfds:places365_small", batch_size=FACTOR * 96),
    completion_optimizer=OptimizerConfig(
        "lamb", FACTOR**0.5 * 4e-4, warmup_steps=562, decay="linear"
    ),
    discriminator_optimizer=OptimizerConfig(
        "lamb", FACTOR**0.5 * 4e-4, warmup_steps=312, decay="linear"
    ),
    schedule=ScheduleConfig(
        completion_steps=90_000 // FACTOR,
        discriminator_steps=10_000 // FACTOR,
        total_steps=500_000 // FACTOR,
    ),
    run=RunConfig(
        log_every=25,
        save_every=500,
        eval_every=500,
        sample_every=500,
        validation_images=256,
        keep_every=5_000,
    ),
)
