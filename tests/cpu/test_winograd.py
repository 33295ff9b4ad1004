"""Winograd's formulation against XLA's own convolution, in every way of cutting it up."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest
from jax import Array

from gl_jax.cpu import winograd
from gl_jax.models.ops import NATIVE

# Relative to the largest value, in float32.
TOLERANCE = 1e-5

TILES = (winograd.TILES_2X2, winograd.TILES_2X4, winograd.TILES_4X4)


def worst(actual: Array, expected: Array) -> float:
    return float(jnp.max(jnp.abs(actual - expected)) / jnp.max(jnp.abs(expected)))


@pytest.fixture
def in_blocks(monkeypatch) -> Callable[[int], None]:
    """Has blocks of so many pixels taken at a time, of 5 features to 7."""

    def cut(pixels: int) -> None:
        monkeypatch.setattr(winograd, "VALUES", pixels * 7)
        monkeypatch.setattr(winograd, "GRADIENT_VALUES", pixels * 12)

    return cut


@pytest.mark.parametrize(
    ("size", "dilation", "pixels"),
    [
        pytest.param((12, 16), 1, 4096, id="all-images-at-once"),
        pytest.param((12, 16), 1, 200, id="an-image-at-a-time"),
        pytest.param((12, 16), 1, 64, id="strips"),
        pytest.param((12, 16), 1, 1, id="a-row-of-tiles-at-a-time"),
        pytest.param((13, 9), 1, 64, id="odd-sides"),
        pytest.param((16, 24), 2, 128, id="dilated"),
        pytest.param((15, 23), 2, 128, id="dilated-odd-sides"),
        pytest.param((64, 64), 16, 4096, id="far-dilated"),
        pytest.param((16, 8), 16, 4096, id="dilated-beyond-the-image"),
    ],
)
def test_it_is_the_same_convolution(size, dilation, pixels, in_blocks):
    in_blocks(pixels)
    keys = jax.random.split(jax.random.key(0), 3)
    inputs = jax.random.normal(keys[0], (2, *size, 5))
    kernel = jax.random.normal(keys[1], (3, 3, 5, 7))
    errors = jax.random.normal(keys[2], (2, *size, 7))

    @jax.jit
    def theirs() -> tuple[Array, Array]:
        outputs, pull = jax.vjp(
            lambda kernel: NATIVE.convolve(inputs, kernel, 1, dilation), kernel
        )
        return outputs, *pull(errors)

    @jax.jit
    def ours() -> tuple[list[Array], Array]:
        return (
            [winograd.convolve(inputs, kernel, dilation, tiles) for tiles in TILES],
            winograd.weight_gradient(inputs, errors, dilation),
        )

    (outputs, gradient), (expected, expected_gradient) = ours(), theirs()
    assert max(worst(found, expected) for found in outputs) < TOLERANCE
    assert worst(gradient, expected_gradient) < TOLERANCE


@pytest.mark.parametrize(
    ("tiles", "most"),
    [
        (winograd.TILES_4X4, 3e-6),
        (winograd.TILES_2X4, 2e-6),
        (winograd.TILES_2X2, 1e-6),
    ],
)
def test_its_rounding_is_a_few_times_that_of_the_definition(tiles, most):
    keys = jax.random.split(jax.random.key(0), 2)
    inputs = jax.random.normal(keys[0], (1, 16, 16, 256))
    kernel = jax.random.normal(keys[1], (3, 3, 256, 8)) / 48
    with jax.enable_x64(True):
        doubled = (inputs.astype(jnp.float64), kernel.astype(jnp.float64))
        exact = NATIVE.convolve(*doubled).astype(jnp.float32)
    found = winograd.convolve(inputs, kernel, 1, tiles)
    assert float(jnp.std(found - exact)) < most


@pytest.mark.parametrize(
    ("sides", "dilation", "fits"),
    [((64, 64), 16, True), ((60, 64), 1, True), ((72, 72), 16, False)],
)
def test_images_much_smaller_than_their_tiles_do_not_fit(sides, dilation, fits):
    assert winograd.fits(sides, dilation) is fits
