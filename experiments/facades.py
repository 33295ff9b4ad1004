r"""Building fronts: the CMP facades, a small set with much structure.

    gl-jax train experiments/facades.py --workdir runs/facades \
        --data.data-dir /where/tfds/keeps/data

Hardware and cost, expected (from arithmetic, not measured): 20,000 steps of 32 at 0.26
TFLOP a photograph are 1.7e17 FLOP: an hour on one GPU that sustains 55 TFLOP/s.

Data: `cycle_gan/facades` of TensorFlow Datasets: 256 x 256, about 400 photographs and,
apart from them, as many drawings of labels. The photographs are taken to be the A
splits; TFDS does not say so. Look at the first sheet in samples/: where it shows flat
coloured rectangles, use --data.split trainB --data.validation-split testB. The paper
used the 606 photographs of the CMP base set, which TFDS does not have; unpacked into a
folder they are --data.source /the/folder.

What the paper did here is not known beyond the set: not the size, the holes, or the
number of steps. So sizes and phases are those of Places2 in proportion, and:
- 20,000 steps of 32: each of 400 photographs is seen 1,600 times; after that a network
  of this size can only learn them by heart.
- Mirrored crops: a mirrored building front is a building front, and the set is small.
"""

from gl_jax.config import Config, DataConfig, RunConfig, ScheduleConfig

config = Config(
    name="facades",
    data=DataConfig(
        source="tfds:cycle_gan/facades",
        split="trainA",
        validation_split="testA",
        batch_size=32,
        flip=True,
    ),
    schedule=ScheduleConfig(
        completion_steps=3_600, discriminator_steps=400, total_steps=20_000
    ),
    run=RunConfig(eval_every=500, sample_every=500, validation_images=96),
)
