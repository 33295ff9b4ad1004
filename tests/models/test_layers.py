"""The blocks' batch statistics, and their gradients of both orders."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from gl_jax.models.layers import batch_statistics


def images(count: int = 4) -> jax.Array:
    """Two batches of images, whose channels are far from 0 and differ in their spread."""
    noise = np.random.default_rng(0).standard_normal((2, count, 6, 5, 3))
    return jnp.asarray(noise * [0.1, 1.0, 3.0] + [2.0, -1.0, 0.5], jnp.float32)


def written_out(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.mean(values, (1, 2, 3)), jnp.var(values, (1, 2, 3))


def loss(statistics, values: jax.Array) -> jax.Array:
    """What batch normalisation makes of them, weighted by something."""
    mean, var = (found[:, None, None, None] for found in statistics(values))
    normalised = (values - mean) * jax.lax.rsqrt(var + 1e-5)
    return jnp.sum(jnp.sin(normalised) * jnp.cos(3 * values))


ours = partial(batch_statistics, axis_name=None)


def test_they_are_mean_and_variance():
    for found, expected in zip(ours(images()), written_out(images()), strict=True):
        assert found.shape == (2, 3)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("order", [1, 2])
def test_gradients_are_those_of_the_definition(order):
    def derived(statistics):
        derivative = jax.grad(partial(loss, statistics))
        if order == 1:
            return derivative(images())
        # As a penalty on gradients is differentiated.
        return jax.grad(lambda values: jnp.sum(derivative(values) ** 2))(images())

    found, expected = derived(ours), derived(written_out)
    np.testing.assert_allclose(
        found, expected, rtol=1e-3, atol=1e-4 * abs(expected).max()
    )


def test_gradients_are_those_of_finite_differences():
    check_grads(partial(loss, ours), (images(1),), 1, ["rev"], atol=2e-2, rtol=2e-2)


def test_gradients_are_those_of_all_devices():
    """A device's gradient is that of the sum of all devices' losses."""
    whole = jax.grad(partial(loss, ours))(images())
    shared = partial(loss, partial(batch_statistics, axis_name="devices"))
    gradients = jax.pmap(
        jax.grad(shared), axis_name="devices", devices=jax.devices()[:2]
    )
    halves = images().reshape(2, 2, 2, 6, 5, 3).swapaxes(0, 1)
    found = jnp.concatenate(list(jax.device_get(gradients(halves))), 1)
    np.testing.assert_allclose(found, whole, rtol=1e-3, atol=1e-4 * abs(whole).max())
