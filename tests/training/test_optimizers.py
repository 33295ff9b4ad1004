"""OptimizerConfig to optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gl_jax.config import OPTIMIZERS, OptimizerConfig
from gl_jax.training.optimizers import create_optimizer, learning_rate


def test_the_default_is_adadelta_as_zeiler_published_it():
    """Two updates of one number, by the formulas of the paper: rho 0.9, eps 1e-6, no rate."""
    optimizer = create_optimizer(OptimizerConfig(), updates=10)
    value = jnp.array(1.0)
    state = optimizer.init(value)
    squares = deltas = 0.0
    for gradient in (0.5, -0.2):
        update, state = optimizer.update(jnp.array(gradient), state, value)
        squares = 0.9 * squares + 0.1 * gradient**2
        delta = -np.sqrt(deltas + 1e-6) / np.sqrt(squares + 1e-6) * gradient
        deltas = 0.9 * deltas + 0.1 * delta**2
        assert float(update) == pytest.approx(delta, rel=1e-5)
        value = optax.apply_updates(value, update)


def test_every_listed_optimizer_of_optax_makes_an_update():
    params = {"kernel": jnp.ones((2, 2))}
    for name in OPTIMIZERS:
        optimizer = create_optimizer(OptimizerConfig(name, 1e-3, {}), updates=10)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            state = optimizer.init(params)
            updates, _ = optimizer.update({"kernel": jnp.ones((2, 2))}, state, params)
        assert np.all(np.isfinite(updates["kernel"])), name


def test_muon_turns_a_kernels_gradient_into_all_its_directions():
    """A convolution's kernel is a matrix of 18 taps by 4 features, its biases are Adam's."""
    optimizer = create_optimizer(OptimizerConfig("muon", 1e-2, {}), updates=10)
    chance = np.random.default_rng(0)
    values = chance.normal(size=(3, 3, 2, 4)) * [1.0, 0.5, 0.2, 0.1]
    gradient = {"kernel": jnp.asarray(values), "bias": jnp.array([4.0, -3.0])}
    params = jax.tree.map(jnp.zeros_like, gradient)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        updates, _ = optimizer.update(gradient, optimizer.init(params), params)
        adam = optax.adamw(1e-2, weight_decay=0.0, nesterov=True)
        expected, _ = adam.update(gradient, adam.init(params), params)
    matrix = -np.asarray(updates["kernel"]).reshape(18, 4)
    strengths = np.linalg.svd(matrix, compute_uv=False)
    assert strengths[0] / strengths[-1] < 2 < np.linalg.cond(values.reshape(18, 4))
    rms = np.sqrt(np.mean(matrix**2))
    assert rms == pytest.approx(0.2 * 1e-2, rel=0.3)
    np.testing.assert_allclose(updates["bias"], expected["bias"], rtol=1e-6)


def test_warm_up_rises_to_the_peak_and_the_decay_ends_at_zero():
    config = OptimizerConfig("adam", 0.1, {}, warmup_steps=4, decay="cosine")
    schedule = learning_rate(config, updates=12)
    rates = [float(schedule(step)) for step in range(13)]
    assert rates[0] == 0.0
    assert rates[2] == pytest.approx(0.05)
    assert max(rates) == rates[4] == pytest.approx(0.1)
    assert rates[12] == pytest.approx(0.0, abs=1e-8)


def test_a_joint_learning_rate_begins_anew_after_the_first_decay():
    config = OptimizerConfig(
        "adam", 0.1, {}, warmup_steps=2, decay="linear", joint_learning_rate=0.04
    )
    schedule = learning_rate(config, updates=10, joint=4)
    rates = [float(schedule(step)) for step in range(11)]
    expected = [0, 0.05, 0.1, 0.075, 0.05, 0.025, 0.04, 0.03, 0.02, 0.01, 0]
    assert rates == pytest.approx(expected, abs=1e-8)


def test_clip_norm_bounds_the_gradient():
    optimizer = create_optimizer(
        OptimizerConfig("sgd", 1.0, {}, clip_norm=0.5), updates=10
    )
    gradient = jnp.array([3.0, 4.0])
    update, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
    assert float(jnp.linalg.norm(update)) == pytest.approx(0.5)
