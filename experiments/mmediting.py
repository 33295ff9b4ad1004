r"""Places2 as mmediting trains it (OpenMMLab's MMEditing, later MMagic: "Global & Local").

    gl-jax train experiments/mmediting.py --workdir runs/mmediting \
        --data.data-dir /where/tfds/keeps/data

Hardware and cost, expected (from arithmetic, not measured): image, window, batch and steps
are those of places2, and so is the cost: 1.2e19 FLOP, two and a half days on one GPU that
sustains 55 TFLOP/s.

Data: `places365_small` of TensorFlow Datasets, 256 x 256. mmediting cuts 384 x 384 pixels out
of each photograph at random and makes them 256 x 256, or takes all of one that is smaller,
as these are. For Places2's larger photographs, whose shorter side is 512, the same is
--data.resize 341 341 (256 / 384 of 512) and --data.source /the/folder.

To go on from its weights, `gl-jax convert` its .pth file and give the result as
--run.initial-weights; the first completions are exactly its own.

The numbers are those of its gl_places configuration (v0.15) and of its GLInpaintor:
- BGR in [-1, 1], the hole grey, the output clamped to [-1, 1]; discriminators see the same
  range and order: `mmediting`, `signed_clamp`.
- Absolute error in [-1, 1], which is twice that of colours in [0, 1]: weight 2. It is averaged
  over the missing pixels of the whole batch: `batch`. Adversarial weight 0.001, composites
  for the discriminators, whose loss has the weight 1 in all phases.
- Photographs are looked at in the windows of their own holes: `paired_windows`.
- Holes of 108 to 128 pixels, 20 or more away from the border: `parts` below draws them as it
  does. A box of 128 is put anywhere inside that margin, and rows and columns at its top and
  left are given up: so the right lower corner has the same places for all sizes.
- Adam with a learning rate of 4e-4 for both.
- Batch 96: its configuration has 12 for each GPU and does not say how many GPUs; eight, as
  the paper's 96 and MMagic's name for the run (8xb12, from memory) suggest. Phases of 90,000
  and 10,000 steps, 500,000 in all.

Left out, on purpose:
- start_iter=350000: what is left of a run that was resumed. From nothing it would skip the
  first two phases.
- With several GPUs it averages the error over each one's own missing pixels and then over
  GPUs; here it is over all of them.
- Convolutions in front of a BatchNorm have no bias there. Here they have one, which the
  batch's mean takes away again and which is never trained.
- The initial weights: mmcv's there (from memory, not checked), He's normal ones here.
"""

from dataclasses import replace
from typing import Any

from gl_jax.config import (
    Config,
    DataConfig,
    HolesConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    UsageError,
)

ADAM = OptimizerConfig("adam", 4e-4)

config = Config(
    name="mmediting",
    model=ModelConfig(output_activation="signed_clamp"),
    data=DataConfig(
        source="tfds:places365_small", resize=(256, 256), encoding="mmediting"
    ),
    holes=HolesConfig(min_size=108, max_size=128, local_size=128, paired_windows=True),
    loss=LossConfig(
        alpha=1e-3, completion="absolute", completion_weight=2.0, normalizer="batch"
    ),
    completion_optimizer=ADAM,
    discriminator_optimizer=ADAM,
    run=RunConfig(
        log_every=100,
        save_every=2_000,
        eval_every=5_000,
        sample_every=5_000,
        validation_images=256,
        keep_every=50_000,
    ),
)


def parts(config: Config) -> Any:
    """The parts of the configuration, but with mmediting's boxes as holes."""
    import jax
    import jax.numpy as jnp

    from gl_jax.holes import Holes, rectangle
    from gl_jax.training import default_parts

    side, holes = config.data.image_size, config.holes
    margin = side * 20 // 256
    last = side - margin - holes.max_size
    if last <= margin:
        raise UsageError(
            f"holes.max_size (={holes.max_size}) must be below {side - 2 * margin}: "
            f"mmediting's boxes stay {margin} pixels away from the border."
        )
    if holes.max_count > 1 or holes.shared_window or holes.strokes > 0:
        raise UsageError(
            "holes.max_count, holes.shared_window and holes.strokes must be left out: an "
            "image has one box here, in a window of its own."
        )

    def box(key: Any) -> Any:
        place, given_up = jax.random.split(key)
        top_left = jax.random.randint(place, (2,), margin, last)
        most = holes.max_size - holes.min_size
        less = jax.random.randint(given_up, (2,), 0, most + 1)
        top_left, size = top_left + less, holes.max_size - less
        corner = jnp.maximum(top_left - (holes.local_size - size) // 2, 0)
        return Holes(rectangle((side, side), top_left, size), corner)

    def sample_holes(keys: Any, image_shape: Any, batch_key: Any) -> Any:
        return jax.vmap(box)(keys)

    return replace(default_parts(config), sample_holes=sample_holes)
