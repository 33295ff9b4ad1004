r"""The paper's ablation: what each discriminator adds to the masked MSE.

    gl-jax train experiments/ablation.py:mse    --workdir runs/ablation-mse
    gl-jax train experiments/ablation.py:global --workdir runs/ablation-global
    gl-jax train experiments/ablation.py:local  --workdir runs/ablation-local
    gl-jax train experiments/ablation.py:both   --workdir runs/ablation-both

Hardware and cost: each of the four costs what places2 costs (`mse` a quarter less), on
the same data; give all four the same --data.* and --schedule.* options. For the trend
alone, 100,000 steps in the same proportions will do:

    --schedule.completion-steps 18000 --schedule.discriminator-steps 2000 \
    --schedule.total-steps 100000

Nothing differs but the discriminators, the seed included: the same initial completion
network sees the same crops and holes in the same order. `mse` has one phase, so its
completion network is updated in all 500,000 steps, the others' in 490,000.
"""

from gl_jax.config import Config, DataConfig, ModelConfig, RunConfig

data = DataConfig(source="tfds:places365_small")
run = RunConfig(
    log_every=100,
    save_every=2_000,
    eval_every=5_000,
    sample_every=5_000,
    validation_images=256,
)
models = {
    "mse": ModelConfig(discriminators="none"),
    "global": ModelConfig(discriminators="global"),
    "local": ModelConfig(discriminators="local"),
    "both": ModelConfig(discriminators="both"),
}
configs = {
    name: Config(name=f"ablation-{name}", model=model, data=data, run=run)
    for name, model in models.items()
}
