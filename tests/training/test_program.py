"""The program that accelerators run: as many operations as the paper's tables ask for."""

from functools import cache

import jax
import numpy as np

from gl_jax.config import Config, DataConfig, HolesConfig, ModelConfig
from gl_jax.models.completion import LAYERS
from gl_jax.models.discriminators import depth
from gl_jax.models.ops import NATIVE
from gl_jax.parallel import AXIS, Devices
from gl_jax.training import Phase, default_parts, make_steps, state_shapes

MEAN = (0.5, 0.4, 0.3)


def photographs(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((*sizes, 3), np.uint8)


KEY = jax.eval_shape(lambda: jax.random.key(0))


@cache
def joint_program() -> str:
    """The joint step at the paper's size as XLA is given it for a TPU."""
    config = Config()
    parts = default_parts(config, ops=NATIVE)
    size = config.data.image_size
    state = state_shapes(parts, size)
    step = jax.jit(make_steps(parts, MEAN)[Phase.JOINT])
    traced = step.trace(state, photographs(1, size, size), KEY)
    return traced.lower(lowering_platforms=("tpu",)).as_text()


def test_convolutions_are_those_of_the_papers_tables():
    """A layer costs one forward, one for its input's gradient, one for its kernel's.

    The input's is not needed at a first layer whose images are given.
    """
    config = Config()
    sizes = (config.holes.local_size, config.data.image_size)
    columns = len(sizes)
    judging = sum(map(depth, sizes))
    completing = len(LAYERS)
    # One pass of the completion network, whose fakes serve both updates.
    completion = completing + (completing - 1) + completing
    # The discriminators learn from fakes and from photographs, which are given.
    learning = 2 * (judging + (judging - columns) + judging)
    # As they are then, they judge the fakes: a gradient of these and of no kernel.
    judgement = judging + judging
    found = joint_program().count("stablehlo.convolution")
    assert found == completion + learning + judgement == 134


def test_it_has_no_loop():
    assert "stablehlo.while" not in joint_program()


def test_devices_talk_once_for_each_norm_each_way_and_once_for_each_gradient():
    config = Config(
        model=ModelConfig(width=0.0625),
        data=DataConfig(image_size=32, resize=(32, 32), batch_size=4),
        holes=HolesConfig(min_size=8, max_size=12, local_size=16),
    )
    parts = default_parts(config, ops=NATIVE)
    state = state_shapes(parts, config.data.image_size)
    step = make_steps(parts, MEAN, axis_name=AXIS)[Phase.COMPLETION]
    mapped = jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, 0, None),
        out_axes=(None, None),
        devices=Devices(2).local,
    )
    lowered = mapped.lower(state, photographs(2, 2, 32, 32), KEY)
    norms = len(state.completion.batch_stats)
    gradients = len(jax.tree.leaves(state.completion.params))
    metrics = len(("completion_loss", "completion_gradient_norm"))
    found = lowered.as_text().count("stablehlo.all_reduce")
    assert found == 2 * norms + gradients + metrics == 2 * 16 + 66 + 2
