"""Winograd's formulation against XLA's own convolution, in every way of cutting it up."""

import jax
import jax.numpy as jnp
import pytest
from jax import Array

from gl_jax.models import winograd

# Relative to the largest value, in float32.
TOLERANCE = 1e-5


def reference(inputs: Array, kernel: Array, dilation: int) -> Array:
    return jax.lax.conv_general_dilated(
        inputs,
        kernel,
        (1, 1),
        ((dilation, dilation), (dilation, dilation)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def worst(actual: Array, expected: Array) -> float:
    return float(jnp.max(jnp.abs(actual - expected)) / jnp.max(jnp.abs(expected)))


@pytest.mark.parametrize(
    ("size", "dilation", "pixels"),
    [
        pytest.param((12, 16), 1, 4096, id="all-images-at-once"),
        pytest.param((12, 16), 1, 200, id="an-image-at-a-time"),
        pytest.param((12, 16), 1, 64, id="strips"),
        pytest.param((12, 32), 1, 64, id="pieces"),
        pytest.param((12, 16), 1, 1, id="a-tile-at-a-time"),
        pytest.param((13, 9), 1, 64, id="odd-sides"),
        pytest.param((16, 24), 2, 128, id="dilated"),
        pytest.param((15, 23), 2, 128, id="dilated-odd-sides"),
        pytest.param((64, 64), 16, 4096, id="far-dilated"),
        pytest.param((16, 8), 16, 4096, id="dilated-beyond-the-image"),
    ],
)
def test_it_is_the_same_convolution(size, dilation, pixels, monkeypatch):
    monkeypatch.setattr(winograd, "PIXELS", pixels)
    keys = jax.random.split(jax.random.key(0), 3)
    inputs = jax.random.normal(keys[0], (2, *size, 5))
    kernel = jax.random.normal(keys[1], (3, 3, 5, 7))
    errors = jax.random.normal(keys[2], (2, *size, 7))
    expected, pull = jax.vjp(lambda k: reference(inputs, k, dilation), kernel)
    completed = winograd.convolve(inputs, kernel, dilation)
    assert worst(completed, expected) < TOLERANCE
    gradient = winograd.weight_gradient(inputs, errors, dilation)
    assert worst(gradient, pull(errors)[0]) < TOLERANCE


def test_its_rounding_is_a_few_times_that_of_the_definition():
    keys = jax.random.split(jax.random.key(0), 2)
    inputs = jax.random.normal(keys[0], (1, 16, 16, 256))
    kernel = jax.random.normal(keys[1], (3, 3, 256, 8)) / 48
    with jax.enable_x64(True):
        exact = reference(inputs.astype(jnp.float64), kernel.astype(jnp.float64), 1)
    error = jnp.std(winograd.convolve(inputs, kernel, 1) - exact.astype(jnp.float32))
    assert float(error) < 2e-6


@pytest.mark.parametrize(
    ("size", "dilation", "fits"),
    [((64, 64), 16, True), ((60, 64), 1, True), ((72, 72), 16, False)],
)
def test_images_much_smaller_than_their_tiles_do_not_fit(size, dilation, fits):
    assert winograd.fits((1, *size, 8), dilation) is fits
