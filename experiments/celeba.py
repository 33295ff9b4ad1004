r"""Faces: CelebA at 160 x 160, with the sizes of the faces recipe.

    gl-jax train experiments/celeba.py --workdir runs/celeba \
        --data.data-dir /where/tfds/keeps/data

Hardware and cost, expected (from arithmetic, not measured): 160 x 160 are 0.39 of the
pixels of 256 x 256, so the run takes 0.39 of places2's time: about a day on one GPU
that sustains 55 TFLOP/s.

Data: `celeb_a` of TensorFlow Datasets, with CelebA's official partition (162,770
training photographs, 178 x 218). Its download from Google Drive often fails with a
checksum error, because a quota is used up: then download `img_align_celeba.zip` in a
browser, unpack it, and give the folder: --data.source /the/folder.

The numbers:
- Shortest side 160 to 178: the authors' code for faces; CelebA's own width is 178.
- Crop 160, window 96, holes 48 to 96: GLCIC-PyTorch's, which states the paper as their
  source.
- 500,000 steps with the paper's phases: 48 million crops, 295 of each photograph. The
  paper starts from its Places2 network and does not say for how long; this run starts
  from nothing, as GLCIC-PyTorch does.
"""

from gl_jax.config import Config, DataConfig, HolesConfig, RunConfig

config = Config(
    name="celeba",
    data=DataConfig(source="tfds:celeb_a", image_size=160, resize=(160, 178)),
    holes=HolesConfig(min_size=48, max_size=96, local_size=96),
    run=RunConfig(
        log_every=100,
        save_every=2_000,
        eval_every=5_000,
        sample_every=5_000,
        validation_images=256,
        keep_every=50_000,
    ),
)
