"""How to train with losses, penalties, views, augmentations and data of one's own.

Each part is what a reader would write in a file of their own, and is then compared with
its equation.
"""

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from gl_jax.config import Config, DataConfig, HolesConfig, LossConfig, ModelConfig
from gl_jax.holes import (
    HOLES,
    REAL_PATCHES,
    composite,
    crop,
    example_keys,
    sample_holes,
)
from gl_jax.parallel import AXIS, Devices
from gl_jax.training import (
    Parts,
    Phase,
    TrainState,
    create_state,
    default_parts,
    make_gradients,
)

SIZE, LOCAL, BATCH = 32, 16, 4
MEAN = (0.5, 0.4, 0.3)
KEY = jax.random.key(7)
EXPERIMENT = Config(
    model=ModelConfig(width=0.0625),
    data=DataConfig(image_size=SIZE, resize=(SIZE, SIZE), batch_size=BATCH),
    holes=HolesConfig(min_size=8, max_size=12, local_size=LOCAL),
    loss=LossConfig(alpha=0.5),
)


# --- the hinge loss (Lim and Ye 2017) in 10 lines ----------------------------------------


def hinge_loss(real_logits, fake_logits):
    return jnp.mean(nn.relu(1 - real_logits)) + jnp.mean(nn.relu(1 + fake_logits))


def hinge(config: Config) -> Parts:
    parts = default_parts(config)
    objective = dataclasses.replace(
        parts.objective, discriminator=hinge_loss, adversarial=lambda fake: -fake.mean()
    )
    return dataclasses.replace(parts, objective=objective)


# --- the R1 penalty (Mescheder et al. 2018) in 20 lines -----------------------------------

GAMMA = 10.0


def r1_penalty(judge, real, fake, keys):
    """gamma / 2 times the squared norm of the logit's gradient at photographs."""
    gradients = jax.grad(lambda views: jnp.sum(judge(views)))(real)
    squares = [jnp.sum(jnp.square(g), (1, 2, 3)) for g in gradients.values()]
    return GAMMA / 2 * jnp.mean(sum(squares))


def r1(config: Config) -> Parts:
    parts = default_parts(config)
    objective = dataclasses.replace(parts.objective, penalty=r1_penalty)
    return dataclasses.replace(parts, objective=objective)


# --- a third discriminator, on the middle of the image, in 15 lines -----------------------


def middle_view(images, holes):
    size = images.shape[1] // 2
    start = (images.shape[1] - size) // 2
    return images[:, start : start + size, start : start + size]


def middle(config: Config) -> Parts:
    parts = default_parts(config)
    views = {**parts.views, "middle": middle_view}
    discriminator = parts.discriminator.clone(views=tuple(views))
    return dataclasses.replace(parts, views=views, discriminator=discriminator)


# --- an augmentation that turns images to another brightness -------------------------------


def brightness(keys, views, step, probability):
    """One factor for each image, within 20 %; the more steps, the closer to 1."""
    draw = jax.vmap(lambda key: jax.random.uniform(key, (), minval=0.8, maxval=1.2))
    factor = 1 + (draw(keys) - 1) / (1 + step.astype(jnp.float32))
    return jax.tree.map(lambda view: view * factor[:, None, None, None], views)


def brighter(config: Config) -> Parts:
    return dataclasses.replace(default_parts(config), augment=brightness)


# --- and what they compute ------------------------------------------------------------------


@cache
def state_of(make: Callable[[Config], Parts]) -> TrainState:
    return create_state(make(EXPERIMENT), SIZE)


@cache
def gradients_of(make: Callable[[Config], Parts], phase: Phase) -> Any:
    return jax.jit(make_gradients(make(EXPERIMENT), MEAN)[phase])


def found(make: Callable[[Config], Parts], phase: Phase) -> Any:
    return gradients_of(make, phase)(state_of(make), photographs(), KEY)


def photographs(count: int = BATCH) -> np.ndarray:
    noise = np.random.RandomState(0).randint(0, 256, (count, SIZE // 4, SIZE // 4, 3))
    return noise.repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)


def drawn(stream: int) -> Any:
    """The holes or windows that the step draws."""
    keys = example_keys(jax.random.fold_in(KEY, 0), stream, 0, BATCH)
    return sample_holes(keys, (SIZE, SIZE), min_size=8, max_size=12, local_size=LOCAL)


def completed(params: Any) -> tuple[jax.Array, jax.Array]:
    """The photographs with their completed holes, and the completion loss."""
    images, mask = jnp.asarray(photographs(), jnp.float32) / 255, drawn(HOLES).mask
    centred = (1 - mask) * (images - jnp.asarray(MEAN)[None, None, None])
    outputs, _ = default_parts(EXPERIMENT).completion.apply(
        {"params": params, "batch_stats": state_of(hinge).completion.batch_stats},
        jnp.concatenate([centred, mask], -1),
        train=True,
        mutable=["batch_stats"],
    )
    return composite(outputs, images, mask), jnp.mean((mask * (outputs - images)) ** 2)


def seen(images: Any, corner: Any) -> dict[str, Any]:
    """The three views written out."""
    inner = images[:, 8:24, 8:24]
    return {"local": crop(images, corner, LOCAL), "global": images, "middle": inner}


def judged(make: Callable[[Config], Parts], params: Any, views: Any) -> jax.Array:
    net, stats = (
        make(EXPERIMENT).discriminator,
        state_of(make).discriminator.batch_stats,
    )
    variables = {"params": params, "batch_stats": stats}
    return net.apply(variables, views, train=True, mutable=["batch_stats"])[0]


def real_and_fake() -> tuple[Any, Any]:
    images = jnp.asarray(photographs(), jnp.float32) / 255
    fakes, _ = completed(state_of(hinge).completion.params)
    return seen(images, drawn(REAL_PATCHES).corner), seen(fakes, drawn(HOLES).corner)


def assert_trees_close(actual: Any, expected: Any, rtol: float = 1e-4) -> None:
    largest = max(float(abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    assert largest > 0
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=rtol * largest),
        actual,
        expected,
    )


def test_the_hinge_loss_trains_the_discriminators():
    @jax.jit
    @jax.grad
    def expected(params):
        real, fake = (judged(hinge, params, views) for views in real_and_fake())
        zero = jnp.zeros(BATCH)
        return jnp.mean(jnp.maximum(zero, 1 - real) + jnp.maximum(zero, 1 + fake))

    params = expected(state_of(hinge).discriminator.params)
    assert_trees_close(found(hinge, Phase.DISCRIMINATOR).params, params)


def test_the_hinge_loss_trains_the_completion_network():
    @jax.jit
    @jax.grad
    def expected(params):
        fakes, error = completed(params)
        views = seen(fakes, drawn(HOLES).corner)
        logits = judged(hinge, state_of(hinge).discriminator.params, views)
        return error - 0.5 * jnp.mean(logits)

    params = expected(state_of(hinge).completion.params)
    assert_trees_close(found(hinge, Phase.JOINT).params, params)


def written_out_r1(params: Any) -> jax.Array:
    """Equation 3, and the norm of one gradient after another."""
    real, fake = real_and_fake()
    logits = judged(r1, params, real)
    loss = -jnp.mean(nn.log_sigmoid(logits))
    loss -= jnp.mean(nn.log_sigmoid(-judged(r1, params, fake)))
    _, pullback = jax.vjp(lambda views: judged(r1, params, views), real)
    (slopes,) = pullback(jnp.ones_like(logits))
    norms = [jnp.sum(slopes[name] ** 2) for name in ("local", "global")]
    return loss + GAMMA * sum(norms) / (2 * BATCH)


def test_the_r1_penalty_is_differentiated_with_the_loss():
    params = jax.jit(jax.grad(written_out_r1))(state_of(r1).discriminator.params)
    ours = found(r1, Phase.DISCRIMINATOR)
    assert_trees_close(ours.params, params)
    assert float(ours.metrics["penalty"]) > 0
    # The penalty is no small part of it.
    without = found(default_parts, Phase.DISCRIMINATOR)
    apart = optax.tree.norm(jax.tree.map(jnp.subtract, ours.params, without.params))
    assert float(apart) > 0.1 * float(optax.tree.norm(ours.params))


def test_the_r1_penalty_agrees_with_finite_differences():
    state, gradients = state_of(r1), found(r1, Phase.DISCRIMINATOR).params
    norm = float(optax.tree.norm(gradients))

    def loss_at(distance: float) -> float:
        params = jax.tree.map(
            lambda p, g: p + distance / norm * g, state.discriminator.params, gradients
        )
        moved = state.replace(discriminator=state.discriminator.replace(params=params))
        metrics = gradients_of(r1, Phase.DISCRIMINATOR)(
            moved, photographs(), KEY
        ).metrics
        return float(metrics["discriminator_loss"] + metrics["penalty"])

    slope = (loss_at(1e-4) - loss_at(-1e-4)) / 2e-4
    assert slope == pytest.approx(norm, rel=1e-2)


@pytest.mark.parametrize("way", ["pmap", "shard_map"])
def test_the_r1_penalty_is_that_of_all_devices(way):
    """Though a photograph's logit depends, by the batch's statistics, on all the others."""
    shared = make_gradients(r1(EXPERIMENT), MEAN, axis_name=AXIS)[Phase.DISCRIMINATOR]
    given = (state_of(r1), photographs(), KEY)

    def gradients(*given: Any) -> dict[str, Any]:
        return shared(*given)._asdict()

    if way == "pmap":
        devices = Devices(4)
        given = (given[0], devices.shard(given[1]), given[2])
        mapped = jax.pmap(
            gradients,
            AXIS,
            in_axes=(None, 0, None),
            out_axes=None,
            devices=devices.local,
        )
    else:
        mesh = Mesh(np.array(jax.devices()[:4]), (AXIS,))
        mapped = jax.jit(
            jax.shard_map(
                gradients, mesh=mesh, in_specs=(P(), P(AXIS), P()), out_specs=P()
            )
        )
    over, one = jax.device_get(mapped(*given)), found(r1, Phase.DISCRIMINATOR)
    assert_trees_close(over["params"], one.params)
    penalty = float(one.metrics["penalty"])
    assert float(over["metrics"]["penalty"]) == pytest.approx(penalty, rel=1e-4)


def test_a_third_discriminator_looks_at_the_middle_of_the_image():
    @jax.jit
    @jax.grad
    def expected(params):
        real, fake = (judged(middle, params, views) for views in real_and_fake())
        return -jnp.mean(nn.log_sigmoid(real)) - jnp.mean(nn.log_sigmoid(-fake))

    params = expected(state_of(middle).discriminator.params)
    assert set(params) == {"local", "global", "middle", "fusion"}
    assert_trees_close(found(middle, Phase.DISCRIMINATOR).params, params)


@pytest.mark.parametrize("step", [0, 3])
def test_an_augmentation_is_in_front_of_the_discriminators(step):
    """The same function of both, each image with its own key."""
    asked = []

    def noticed(keys, views, step, probability):
        asked.append((keys.shape, views["local"].shape, step.shape, probability.shape))
        return brightness(keys, views, step, probability)

    parts = dataclasses.replace(default_parts(EXPERIMENT), augment=noticed)
    gradients = make_gradients(parts, MEAN)
    state = state_of(default_parts).replace(step=jnp.asarray(step))
    jax.eval_shape(gradients[Phase.DISCRIMINATOR], state, photographs(), KEY)
    assert asked == [((BATCH,), (BATCH, LOCAL, LOCAL, 3), (), ())] * 2
    jax.eval_shape(gradients[Phase.JOINT], state, photographs(), KEY)
    assert len(asked) == 3
    jax.eval_shape(gradients[Phase.COMPLETION], state, photographs(), KEY)
    assert len(asked) == 3


def test_discriminators_see_what_the_augmentation_makes():
    plain = found(default_parts, Phase.DISCRIMINATOR)
    other = found(brighter, Phase.DISCRIMINATOR)
    assert plain.metrics["real_score"] != other.metrics["real_score"]
    assert plain.metrics["fake_score"] != other.metrics["fake_score"]


# --- a script without the command line -------------------------------------------------------

SCRIPT = Path(__file__).parent / "from_memory.py"
ABSENT = ("tensorflow", "orbax", "matplotlib", "PIL", "cv2")


def test_a_script_trains_on_arrays_in_memory_with_nothing_but_jax_installed():
    assert len(SCRIPT.read_text().splitlines()) <= 40
    code = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({ABSENT})); "
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert run.returncode == 0, run.stderr
    losses = re.findall(r"^completion .*completion_loss (\S+)", run.stdout, re.M)
    assert len(losses) == 30
    first, last = (np.mean([*map(float, few)]) for few in (losses[:3], losses[-10:]))
    assert last < 0.5 * first
    assert run.stdout.splitlines()[-1].startswith("joint ")
