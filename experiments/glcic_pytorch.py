r"""Faces as GLCIC-PyTorch trains them (otenim/GLCIC-PyTorch), the most used other GLCIC.

    gl-jax train experiments/glcic_pytorch.py --workdir runs/glcic-pytorch \
        --data.data-dir /where/tfds/keeps/data

Hardware and cost, expected (from arithmetic, not measured): that of celeba, because image,
window, batch and steps are the same: 160 x 160 are 0.39 of the pixels of 256 x 256, so 0.39
of places2's time, about a day on one GPU that sustains 55 TFLOP/s.

Data: as for celeba. It splits the photographs itself, 80 to 20 at random; here CelebA's own
partition is used.

To go on from its weights, `gl-jax convert` the folder of model_cn, model_cd and config.json
and give the result as --run.initial-weights; the first completions are exactly its own.

The numbers are those of its train.py, and of the config.json of its released model:
- conv-ReLU-BN in all networks, a sigmoid at the end: `activation_norm`.
- Photographs in [0, 1] as they are, the hole in the training set's mean colour: `plain`.
- Shortest side to 160, crop 160, window 96, holes 48 to 96, one hole an image.
- One window for the whole batch, drawn anew in each step, and holes anywhere in it; another
  one, again for all, for the photographs: `shared_window`.
- Squared error, averaged over all pixels. Discriminators see the network's whole output, not
  the composite: `raw`. So the adversarial loss changes known pixels, which the squared error
  does not hold.
- Discriminators alone: (fake + real) / 2. Joint phase: alpha (fake + real) / 2 for them and
  (squared error + alpha adversarial) / 2 for the completion network, alpha = 0.0004. So the
  weights are 1/2; then 1/2 for the squared error, and alpha / 2 for both sides of the game.
  Adadelta does not cancel them: its eps is no small number beside these gradients.
- Adadelta as published, phases of 90,000, 10,000 and 400,000 steps. Batch 96 is the released
  model's; its train.py takes 16 if not told otherwise.

Left out, on purpose:
- Its stale gradients. In the joint phase `loss_cn.backward()` also adds the completion
  network's adversarial gradient, alpha / 2 towards "real", to the gradients of the
  discriminators, which are only cleared after their own step. So each of their steps takes
  with it the opposite pull of the step before on the same kind of images, about as strong as
  its own on fakes, and they are taught to answer 1/2 there. It is a mistake and not in the
  paper; its effect on a whole run is not known. A run of this recipe has discriminators that
  learn more from fakes than its own do.
- BatchNorm over each GPU's share of the batch (DataParallel): here over the whole batch.
- In the discriminators' phase its completion network, whose weights stand still, goes on
  moving its running statistics.
- Its `--bdivs` adds the gradients of the parts of a batch up, `run.accumulate` averages them.
- The initial weights: torch's uniform ones there, He's normal ones here.
"""

from gl_jax.config import (
    Config,
    DataConfig,
    HolesConfig,
    LossConfig,
    ModelConfig,
    RunConfig,
)

ALPHA = 4e-4

config = Config(
    name="glcic-pytorch",
    model=ModelConfig(norm_order="activation_norm"),
    data=DataConfig(
        source="tfds:celeb_a", image_size=160, resize=(160, 160), encoding="plain"
    ),
    holes=HolesConfig(min_size=48, max_size=96, local_size=96, shared_window=True),
    loss=LossConfig(
        alpha=ALPHA / 2,
        joint_completion_weight=0.5,
        fakes="raw",
        discriminator_weight=0.5,
        joint_discriminator_weight=ALPHA / 2,
    ),
    run=RunConfig(
        log_every=100,
        save_every=2_000,
        eval_every=5_000,
        sample_every=5_000,
        validation_images=256,
        keep_every=50_000,
    ),
)
