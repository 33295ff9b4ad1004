"""Penalties of discriminators whose slopes are known, and of a step every few steps."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from gl_jax.config import Config, LossConfig, ModelConfig
from gl_jax.parallel import AXIS, Devices
from gl_jax.training import (
    Drawn,
    Phase,
    create_state,
    default_parts,
    make_gradients,
    state_shapes,
)
from gl_jax.training.penalties import gradient_penalty, r1, r2, total

# --- of discriminators whose slopes are known -----------------------------------------------

COUNT, GAMMA = 5, 3.0
SHAPES = {"local": (2, 2, 3), "global": (4, 4, 3)}
KEYS = jax.random.split(jax.random.key(0), COUNT)


def drawn(seed: int, *batch: int) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(seed)
    return {
        name: chance.normal(size=(*batch, *shape)).astype(np.float32)
        for name, shape in SHAPES.items()
    }


REAL, FAKE, WEIGHTS = drawn(1, COUNT), drawn(2, COUNT), drawn(3)


def summed(images: Any) -> Any:
    return sum(images[name].sum((1, 2, 3)) for name in SHAPES)


def linear(weights: Any) -> Callable[[Any], jax.Array]:
    """Its slope is `weights` everywhere."""
    return lambda views: summed({n: weights[n][None] * views[n] for n in SHAPES})


def quadratic(weights: Any) -> Callable[[Any], jax.Array]:
    """Its slope is `weights` times the views."""
    return lambda views: summed(
        {n: weights[n][None] * jnp.square(views[n]) / 2 for n in SHAPES}
    )


def squared_norms(slopes: dict[str, np.ndarray]) -> np.ndarray:
    """One for each image, over all its views."""
    return np.asarray(summed({name: slope**2 for name, slope in slopes.items()}))


@pytest.mark.parametrize("make", [r1, r2])
def test_of_a_linear_discriminator_the_penalty_is_its_squared_weights(make):
    def penalty(weights: Any) -> jax.Array:
        return make(GAMMA)(linear(weights), REAL, FAKE, KEYS)

    value, slopes = jax.value_and_grad(penalty)(WEIGHTS)
    expected = GAMMA / 2 * sum((weights**2).sum() for weights in WEIGHTS.values())
    assert float(value) == pytest.approx(expected, rel=1e-5)
    for name, weights in WEIGHTS.items():
        np.testing.assert_allclose(slopes[name], GAMMA * weights, rtol=1e-5)


@pytest.mark.parametrize(("make", "at"), [(r1, REAL), (r2, FAKE)])
def test_slopes_are_taken_at_photographs_by_r1_and_at_completions_by_r2(make, at):
    value = make(GAMMA)(quadratic(WEIGHTS), REAL, FAKE, KEYS)
    slopes = {name: WEIGHTS[name] * at[name] for name in SHAPES}
    expected = GAMMA / 2 * squared_norms(slopes).mean()
    assert float(value) == pytest.approx(expected, rel=1e-5)


def test_of_a_linear_discriminator_the_gradient_penalty_is_its_norm_off_1():
    def penalty(weights: Any) -> jax.Array:
        return gradient_penalty(10.0)(linear(weights), REAL, FAKE, KEYS)

    value, slopes = jax.value_and_grad(penalty)(WEIGHTS)
    norm = np.sqrt(sum((weights**2).sum() for weights in WEIGHTS.values()))
    assert float(value) == pytest.approx(10 * (norm - 1) ** 2, rel=1e-5)
    for name, weights in WEIGHTS.items():
        expected = 20 * (norm - 1) * weights / norm
        np.testing.assert_allclose(slopes[name], expected, rtol=1e-4)
    unit = {name: weights / np.float32(norm) for name, weights in WEIGHTS.items()}
    assert float(penalty(unit)) == pytest.approx(0, abs=1e-10)


def found_shares(keys: Any, shown: tuple[str, ...] = tuple(SHAPES)) -> np.ndarray:
    """The place on the line from completions of 0 to photographs of 1, for each key.

    A discriminator whose slope is 1 plus what it sees has the norm (1 + share) * sqrt(n).
    """

    def logits_of(views: Any) -> jax.Array:
        return summed(
            {
                name: float(name in shown) * (view + jnp.square(view) / 2)
                for name, view in views.items()
            }
        )

    def penalty(key: Any) -> jax.Array:
        one, zero = (
            {name: jnp.full((1, *shape), value) for name, shape in SHAPES.items()}
            for value in (1.0, 0.0)
        )
        return gradient_penalty(1.0)(logits_of, one, zero, key[None])

    count = sum(np.prod(SHAPES[name]) for name in shown)
    return (np.sqrt(jax.jit(jax.vmap(penalty))(keys)) + 1) / np.sqrt(count) - 1


def test_the_gradient_penalty_is_taken_anywhere_between_the_two():
    """At a share of its own for each image, uniform, and the same in all its views."""
    keys = jax.random.split(jax.random.key(1), 500)
    shares = found_shares(keys)
    assert shares.min() > -1e-4 and shares.max() < 1 + 1e-4
    assert shares.mean() == pytest.approx(1 / 2, abs=0.05)
    assert shares.std() == pytest.approx(1 / np.sqrt(12), abs=0.03)
    for name in SHAPES:
        np.testing.assert_allclose(found_shares(keys, (name,)), shares, atol=1e-4)


def test_of_a_quadratic_discriminator_the_gradient_penalty_is_written_out():
    share = found_shares(KEYS)[:, None, None, None]
    between = {n: share * REAL[n] + (1 - share) * FAKE[n] for n in SHAPES}
    slopes = {name: WEIGHTS[name] * between[name] for name in SHAPES}
    expected = 10 * np.mean((np.sqrt(squared_norms(slopes)) - 1) ** 2)
    value = gradient_penalty(10.0)(quadratic(WEIGHTS), REAL, FAKE, KEYS)
    assert float(value) == pytest.approx(expected, rel=1e-4)


def test_the_gradient_penalty_of_a_flat_discriminator_can_be_differentiated():
    flat = jax.tree.map(np.zeros_like, WEIGHTS)

    def penalty(weights: Any) -> jax.Array:
        return gradient_penalty(1.0)(linear(weights), REAL, FAKE, KEYS)

    value, slopes = jax.value_and_grad(penalty)(flat)
    assert float(value) == pytest.approx(1, rel=1e-5)
    assert all(np.isfinite(slope).all() for slope in slopes.values())


def bent(weights: Any, views: Any, tanh: Any) -> Any:
    """Logits [b] of one bent unit for each view, in numpy or in JAX."""
    sums = {n: (weights[n][None] * views[n]).sum((1, 2, 3)) for n in SHAPES}
    return sum(2 * tanh(0.3 * each) for each in sums.values())


def measured_r1(weights: Any) -> float:
    """R1 of `bent` by central differences of its logits in float64, pixel by pixel."""
    double = {name: view.astype(np.float64) for name, view in REAL.items()}
    squares = np.zeros(COUNT)
    for name, shape in SHAPES.items():
        for place in np.ndindex(shape):
            ends = []
            for away in (1e-5, -1e-5):
                moved = double[name].copy()
                moved[(slice(None), *place)] += away
                ends.append(bent(weights, double | {name: moved}, np.tanh))
            squares += ((ends[0] - ends[1]) / 2e-5) ** 2
    return float(GAMMA / 2 * squares.mean())


def test_r1_and_its_gradient_agree_with_finite_differences():
    def penalty(weights: Any) -> jax.Array:
        return r1(GAMMA)(partial(bent, weights, tanh=jnp.tanh), REAL, FAKE, KEYS)

    value, slopes = jax.value_and_grad(penalty)(WEIGHTS)
    assert float(value) == pytest.approx(measured_r1(WEIGHTS), rel=1e-4)
    direction = drawn(4)
    ends = [
        measured_r1({n: WEIGHTS[n] + np.float64(h) * direction[n] for n in SHAPES})
        for h in (1e-4, -1e-4)
    ]
    along = sum(float(np.vdot(slopes[name], direction[name])) for name in SHAPES)
    assert along == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-3)


def test_a_total_is_the_sum_of_its_penalties():
    both = total(r1(GAMMA), gradient_penalty(2.0))
    parts = [
        penalty(quadratic(WEIGHTS), REAL, FAKE, KEYS)
        for penalty in (r1(GAMMA), gradient_penalty(2.0))
    ]
    value = both(quadratic(WEIGHTS), REAL, FAKE, KEYS)
    assert float(value) == pytest.approx(float(sum(parts)), rel=1e-6)
    assert total() is None


def test_a_configuration_adds_up_those_that_have_a_weight():
    loss = LossConfig(r1=1.0, r2=2.0, gradient_penalty=3.0, penalty_every=16)
    objective = default_parts(Config(loss=loss)).objective
    expected = total(r1(1.0), r2(2.0), gradient_penalty(3.0))
    values = [
        float(penalty(quadratic(WEIGHTS), REAL, FAKE, KEYS))
        for penalty in (objective.penalty, expected)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-6)
    assert objective.penalty_every == 16


# --- in a step ------------------------------------------------------------------------------

EVERY = 3
MEAN, KEY = (0.5, 0.4, 0.3), jax.random.key(7)


def with_penalty(parts: Any, every: int) -> Any:
    penalty = total(r1(GAMMA), r2(GAMMA))
    objective = dataclasses.replace(
        parts.objective, penalty=penalty, penalty_every=every
    )
    return dataclasses.replace(parts, objective=objective)


@pytest.fixture(scope="module")
def given(small_parts, small_photographs) -> tuple[Any, ...]:
    """State, photographs, key and holes, the same at every step."""
    parts = small_parts()
    holes, windows = (
        parts.sample_holes(jax.random.split(jax.random.key(n), 8), (16, 16), KEY)
        for n in range(2)
    )
    return create_state(parts, 16), small_photographs, KEY, Drawn(holes, windows)


@pytest.fixture(scope="module")
def at_every_step(small_parts, given) -> Any:
    """The gradients and metrics with the penalty in each step."""
    parts = with_penalty(small_parts(), 1)
    return jax.device_get(
        jax.jit(make_gradients(parts, MEAN)[Phase.DISCRIMINATOR])(*given)
    )


WAYS = ["jit", "jit in pieces", "pmap", "shard_map", "shard_map in pieces"]


def program(way: str, parts: Any) -> Callable[..., Any]:
    """The discriminators' gradients in a way of running them: on one device, or on four."""
    accumulate = 2 if way.endswith("pieces") else 1
    axis = None if way.startswith("jit") else AXIS
    made = make_gradients(parts, MEAN, accumulate=accumulate, axis_name=axis)

    def gradients(*given: Any) -> dict[str, Any]:
        return made[Phase.DISCRIMINATOR](*given)._asdict()

    if axis is None:
        return jax.jit(gradients)
    if way == "pmap":
        devices = Devices(4)
        mapped = jax.pmap(
            gradients, AXIS, in_axes=(None, 0, None, 0), out_axes=None,
            devices=devices.local,
        )  # fmt: skip

        def run(state: Any, images: Any, key: Any, drawn: Any) -> Any:
            drawn = jax.tree.map(lambda x: x.reshape(4, -1, *x.shape[1:]), drawn)
            return mapped(state, devices.shard(images), key, drawn)

        return run
    return jax.jit(
        jax.shard_map(
            gradients,
            mesh=Mesh(np.array(jax.devices()[:4]), (AXIS,)),
            in_specs=(P(), P(AXIS), P(), P(AXIS)),
            out_specs=P(),
            check_vma=True,
        )
    )


@pytest.mark.parametrize("way", WAYS)
def test_every_few_steps_the_penalty_is_as_many_times_as_large(
    way, small_parts, given, at_every_step
):
    run = program(way, with_penalty(small_parts(), EVERY))
    found = []
    for step in range(2 * EVERY):
        state = given[0].replace(step=jnp.asarray(step))
        found.append(jax.device_get(run(state, *given[1:])))
    penalties = [float(each["metrics"]["penalty"]) for each in found]
    constant = float(at_every_step.metrics["penalty"])
    expected = [constant if (step + 1) % EVERY == 0 else 0 for step in range(6)]
    assert constant > 0.01
    np.testing.assert_allclose(penalties, expected, rtol=1e-5)
    # So the mean over the steps is that of a penalty in each of them.
    few = [each["params"] for each in found[:EVERY]]
    mean = jax.tree.map(lambda *slopes: np.mean(slopes, axis=0), *few)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(mean))
    for ours, wanted in zip(
        jax.tree.leaves(mean), jax.tree.leaves(at_every_step.params), strict=True
    ):
        np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-5 * largest)
    apart = jax.tree.map(lambda a, b: np.abs(a - b).max(), few[0], few[-1])
    assert max(jax.tree.leaves(apart)) > 0.01 * largest


def test_the_penalty_is_float32_though_the_discriminator_is_not(
    small_parts, given, at_every_step
):
    half = with_penalty(small_parts(critic={"dtype": jnp.bfloat16}), 1)
    metrics = jax.jit(make_gradients(half, MEAN)[Phase.DISCRIMINATOR])(*given).metrics
    exact = at_every_step.metrics
    assert float(metrics["penalty"]) == pytest.approx(float(exact["penalty"]), rel=1e-5)
    off = abs(float(metrics["discriminator_loss"] - exact["discriminator_loss"]))
    assert 1e-6 < off < 1e-2


def test_of_our_own_discriminators_no_layer_stays_bfloat16_for_the_penalty(
    small_config,
):
    seen = []

    def noticed(logits_of: Any, real: Any, fake: Any, keys: Any) -> jax.Array:
        seen.append(str(jax.make_jaxpr(logits_of)(real)))
        return jnp.mean(logits_of(real))

    model = ModelConfig(width=0.0625, compute_dtype="bfloat16")
    parts = default_parts(dataclasses.replace(small_config, model=model))
    objective = dataclasses.replace(parts.objective, penalty=noticed)
    parts = dataclasses.replace(parts, objective=objective)
    shapes = state_shapes(parts, 16)
    images = jax.ShapeDtypeStruct((8, 16, 16, 3), np.uint8)
    gradients = make_gradients(parts, MEAN)[Phase.DISCRIMINATOR]
    whole = str(jax.make_jaxpr(gradients)(shapes, images, KEY))
    assert "bf16" in whole
    assert len(seen) == 1 and "f32" in seen[0] and "bf16" not in seen[0]
