r"""The paper's run on Places2, exactly: the defaults of the configuration tree.

    gl-jax train experiments/places2.py --workdir runs/places2 \
        --data.data-dir /where/tfds/keeps/data

Hardware: the paper used one machine with four K80 for about two months. Expected here
(`gl-jax plan`, not measured): 0.24 TFLOP for one photograph in the joint phase, 0.18 in
the first, so 1.1e19 for 500,000 steps of 96. A GPU that sustains 55 TFLOP/s needs two
and a third days, eight of them seven hours. Activations take about 0.3 GB a photograph:
28 GB for 96; where that is too much, --run.accumulate 2 halves it, and
--model.rematerialize or --model.compute-dtype bfloat16 reduce it further.

Data: `places365_small` of TensorFlow Datasets, 1.8 million photographs of 256 x 256,
which TFDS downloads and prepares at the first run (tens of GB). The paper trained on
the 8,097,967 larger ones of Places2. A small one is enlarged where the drawn size is
above 256. With the larger photographs in a folder: --data.source /the/folder.

Every value is the paper's, so nothing is set but the data and how often to look:
500,000 steps of 96 are 48 million crops, 6 of each of the paper's photographs and 27 of
each here.
"""

from gl_jax.config import Config, DataConfig, RunConfig

config = Config(
    name="places2",
    data=DataConfig(source="tfds:places365_small"),
    run=RunConfig(
        log_every=100,
        save_every=2_000,
        eval_every=5_000,
        sample_every=5_000,
        validation_images=256,
        keep_every=50_000,
    ),
)
