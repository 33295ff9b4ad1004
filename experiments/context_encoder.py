r"""The Context Encoder (Pathak et al., CVPR 2016), the learned comparator of the paper.

    gl-jax train experiments/context_encoder.py --workdir runs/ce --data.source FOLDER
    gl-jax export --workdir runs/ce --output ce.safetensors
    gl-jax complete --method context_encoder=ce.safetensors --image photo.jpg --mask mask.png

Four runs, as the fixed hole in the middle is not what the paper compares itself with:
- `arbitrary`, the default: holes as for our own networks, anywhere, 128 in and 128 out.
- `center`: the middle 64x64 of 128x128 is predicted. 56x56 of it are missing: 4 pixels on each
  side are known and predicted too, with ten times the weight.
- `random`: the authors' random regions, thresholded noise of 20 to 30 % of the photograph.
- `small`: `arbitrary` with a quarter of the channels, for processors.
`--holes.min-size 64 --holes.max-size 64` trains `center` on holes of the whole middle, as
in `gl-jax compare --masks center`.

Hardware and cost, from arithmetic: 2.3 GFLOP a photograph and update, 1.5e11 a step of 64; a
twentieth of GLCIC's at that size. 71 million parameters with Adam take 1.1 GB. `small`: a
sixteenth of both; about half a second a step on two processor cores.

The numbers are those of its train.lua and train_random.lua:
- 0.999 times the squared error of colours in [-1, 1] over all that is predicted, and 0.001
  times the adversarial loss, from the first step on.
- Adam with b1 0.5, 0.0002 for the discriminator and ten times that for the network.
- 64 photographs a step, their shortest side at 350 pixels, crops of 128.
- The discriminator sees the prediction itself, and photographs at the same place.

Different here: biases of kernels, which that code sets to 0 before each step, are trained in
the layers without batch normalisation; the network is updated against the updated
discriminator; normalisation begins with factors of 1, not N(1, 0.02).
"""

from dataclasses import replace

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

OVERLAP_WEIGHT = 10.0

arbitrary = Config(
    name="context-encoder",
    model=ModelConfig(discriminators="global"),
    data=DataConfig(batch_size=64, image_size=128, resize=(350, 350), flip=True),
    holes=HolesConfig(min_size=48, max_size=64, local_size=64),
    loss=LossConfig(completion_weight=0.999, alpha=0.001, fakes="raw"),
    completion_optimizer=OptimizerConfig("adam", 2e-3, {"b1": 0.5}),
    discriminator_optimizer=OptimizerConfig("adam", 2e-4, {"b1": 0.5}),
    schedule=ScheduleConfig(
        completion_steps=0, discriminator_steps=0, total_steps=100_000
    ),
    run=RunConfig(log_every=20, save_every=200, eval_every=400, sample_every=400),
)

configs = {
    "arbitrary": arbitrary,
    "center": replace(
        arbitrary,
        name="context-encoder-center",
        model=ModelConfig(discriminators="local"),
        holes=HolesConfig(min_size=56, max_size=56, local_size=64, paired_windows=True),
    ),
    "random": replace(
        arbitrary,
        name="context-encoder-random",
        holes=replace(arbitrary.holes, shared_window=True),
    ),
    "small": replace(
        arbitrary,
        name="context-encoder-small",
        model=replace(arbitrary.model, width=0.25),
        data=replace(arbitrary.data, resize=(128, 160)),
        schedule=replace(arbitrary.schedule, total_steps=6_000),
    ),
}
config = arbitrary


def parts(config):
    """The networks, holes and losses; `model.discriminators` and `holes` say which of them.

    "local": the middle of `holes.local_size` pixels is predicted, a square of
    `holes.min_size` of it missing. "global": the whole photograph is; holes are drawn as
    ever, or are the authors' random regions if they share a window.
    """
    from functools import partial

    import jax.numpy as jnp

    from gl_jax import compilation
    from gl_jax.config import GREY, UsageError
    from gl_jax.holes import sample_centered, sample_regions
    from gl_jax.models.context_encoder import FILL, ContextEncoder, middle_of
    from gl_jax.models.dcgan import Discriminator
    from gl_jax.training import Term, default_parts, whole
    from gl_jax.weights.convention import Convention, Encoding

    if config.model.discriminators not in ("local", "global"):
        raise UsageError(
            f"model.discriminators (={config.model.discriminators}) must be local or "
            "global: it sees the prediction."
        )
    size, window = config.data.image_size, config.holes.local_size
    center = config.model.discriminators == "local"
    predicted = window if center else size
    middle = middle_of(size, predicted)

    def prediction_loss(completed, images, mask):
        """The squared error of the prediction, in [-1, 1]."""
        errors = jnp.square(2 * (completed - images))
        if center:
            errors = errors * (mask + OVERLAP_WEIGHT * (1 - mask))
        return jnp.mean(errors[:, middle, middle])

    def predicted_part(images, holes):
        """The middle of the images."""
        return images[:, middle, middle]

    paper = default_parts(config)
    sample_holes = paper.sample_holes
    if center:
        hole = config.holes.min_size
        sample_holes = partial(sample_centered, size=hole, local_size=window)
    elif config.holes.shared_window:
        sample_holes = partial(sample_regions, local_size=window)
    shared = {
        "width": config.model.width,
        "dtype": jnp.dtype(config.model.compute_dtype),
        "momentum": config.model.batch_norm_momentum,
        "ops": compilation.ops(),
    }
    signed = Convention(scale=2.0, offset=GREY, fill=FILL)
    return replace(
        paper,
        completion=ContextEncoder(size=size, predicted=predicted, **shared),
        discriminator=Discriminator(size=predicted, **shared),
        views={"predicted": predicted_part} if center else {"global": whole},
        objective=replace(
            paper.objective,
            completion={
                "completion_loss": Term(prediction_loss, config.loss.completion_weight)
            },
        ),
        sample_holes=sample_holes,
        encoding=Encoding(lambda mean_color: signed, signed),
    )
