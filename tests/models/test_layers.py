"""The blocks: batch statistics and their gradients of both orders, kernels, biases."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from gl_jax.models.layers import BatchNorm, ConvBlock, UpBlock, batch_statistics

SHAPE = (4, 6, 5, 3)


def images(count: int = 4) -> jax.Array:
    """Images whose channels are far from 0 and differ in their spread."""
    noise = np.random.default_rng(0).standard_normal((count, *SHAPE[1:]))
    return jnp.asarray(noise * [0.1, 1.0, 3.0] + [2.0, -1.0, 0.5], jnp.float32)


def written_out(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.mean(values, (0, 1, 2)), jnp.var(values, (0, 1, 2))


def loss(statistics: Any, values: jax.Array) -> jax.Array:
    """The sum over images of a function of normalised and other values."""
    mean, var = (found[None, None, None] for found in statistics(values))
    normalised = (values - mean) * jax.lax.rsqrt(var + 1e-5)
    return jnp.sum(jnp.sin(normalised) * jnp.cos(3 * values))


NEAR = jnp.array([1.5, 0.0, -0.5])
ours = partial(batch_statistics, near=NEAR, axis_name=None)


def over(count: int, near: jax.Array = NEAR) -> Any:
    """The statistics of images that are spread over so many devices."""
    shared = partial(batch_statistics, near=near, axis_name="devices")
    mapped = jax.pmap(shared, axis_name="devices", devices=jax.devices()[:count])

    def statistics(values: jax.Array) -> list[jax.Array]:
        return jax.device_get(mapped(values.reshape(count, -1, *values.shape[1:])))

    return statistics


def test_they_are_mean_and_variance():
    for found, expected in zip(ours(images()), written_out(images()), strict=True):
        assert found.shape == (3,)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("count", [2, 4])
def test_they_are_those_of_all_devices(count):
    """Of images that differ from device to device more than on one of them."""
    apart = images() + jnp.arange(4.0)[:, None, None, None]
    for found, expected in zip(over(count)(apart), written_out(apart), strict=True):
        np.testing.assert_array_equal(found, np.broadcast_to(found[0], found.shape))
        np.testing.assert_allclose(found[0], expected, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 4])
def test_a_large_mean_leaves_the_variance_its_digits(count):
    """In float32 the squares of such values have the variance in their last digits."""
    noise = np.random.default_rng(1).standard_normal((8, 32, 32, 3))
    values = jnp.asarray(1000 + noise, jnp.float32)
    # Running means that follow the batch's, as they do after the first steps.
    near = jnp.array([998.0, 1000.0, 1003.0])
    mean, var = (
        batch_statistics(values, jnp.zeros(3), None)
        if count == 1
        else (found[0] for found in over(count, near)(values))
    )
    exact = np.asarray(values, np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(var, exact.var((0, 1, 2)), rtol=1e-3)


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
    check_grads(
        partial(loss, ours), (images(2),), 1, ["fwd", "rev"], atol=2e-2, rtol=2e-2
    )


@pytest.mark.parametrize("order", [1, 2])
def test_gradients_are_those_of_all_devices(order):
    """A device's gradient is that of the sum of all devices' losses."""

    def derived(statistics):
        derivative = jax.grad(partial(loss, statistics))
        if order == 1:
            return derivative
        return jax.grad(lambda values: jnp.sum(derivative(values) ** 2))

    whole = derived(ours)(images())
    shared = partial(batch_statistics, near=NEAR, axis_name="devices")
    gradients = jax.pmap(
        derived(shared), axis_name="devices", devices=jax.devices()[:2]
    )
    found = jax.device_get(gradients(images().reshape(2, 2, *SHAPE[1:])))
    np.testing.assert_allclose(
        found.reshape(SHAPE), whole, rtol=1e-3, atol=1e-4 * abs(whole).max()
    )


def test_devices_talk_once_each_way():
    norm = BatchNorm(axis_name="devices")
    variables = BatchNorm().init(jax.random.key(0), images(), True)
    halves = images().reshape(2, 2, *SHAPE[1:])

    def forward(values: jax.Array) -> jax.Array:
        return norm.apply(variables, values, True, mutable=["batch_stats"])[0]

    def collectives(function: Any) -> int:
        mapped = jax.pmap(function, axis_name="devices", devices=jax.devices()[:2])
        return mapped.lower(halves).as_text().count("stablehlo.all_reduce")

    assert collectives(forward) == 1
    assert collectives(jax.grad(lambda values: jnp.sum(forward(values) ** 2))) == 2


# --- parameters -------------------------------------------------------------------------


@pytest.mark.parametrize("block", [ConvBlock(64, 5), UpBlock(64)])
def test_kernels_are_he_normal_and_biases_0(block):
    params = block.init(jax.random.key(0), jnp.zeros((1, 8, 8, 64)), False)["params"]
    size = block.kernel_size
    kernel = np.asarray(params["kernel"])
    assert kernel.shape == (size, size, 64, 64)
    deviation = np.sqrt(2 / (size**2 * 64))
    assert kernel.std() == pytest.approx(deviation, rel=0.02)
    assert abs(kernel.mean()) < 0.02 * deviation
    # A normal distribution that is cut off ends at two deviations.
    assert abs(kernel).max() > 3 * deviation
    assert not params["bias"].any()


@pytest.mark.parametrize("order", ["norm_activation", "activation_norm", "none"])
@pytest.mark.parametrize("block", [ConvBlock, UpBlock])
def test_a_bias_learns_unless_normalisation_takes_it_away(block, order):
    net, inputs = block(4, norm_order=order), images()
    variables = net.init(jax.random.key(0), inputs, True)

    def energy(params: Any) -> jax.Array:
        outputs, _ = net.apply(
            variables | {"params": params}, inputs, True, mutable=["batch_stats"]
        )
        return jnp.sum(jnp.cos(3 * outputs))

    gradients = jax.jit(jax.grad(energy))(variables["params"])
    assert gradients["kernel"].any()
    assert bool(gradients["bias"].any()) == (order != "norm_activation")
