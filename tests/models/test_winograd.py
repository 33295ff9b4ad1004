"""Winograd's formulation against XLA's own convolution, in every way of cutting it up."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gl_jax.models.grids import Layer
from jax import Array
from jax.extend.core import jaxprs_in_params

from gl_jax.models import winograd

# Relative to the largest value, in float32.
TOLERANCE = 1e-5

TILES = (winograd.TILES_2X2, winograd.TILES_2X4, winograd.TILES_4X4)


def reference(inputs: Array, kernel: Array, layer: Layer) -> Array:
    padding = (layer.padding, layer.padding)
    return jax.lax.conv_general_dilated(
        inputs,
        layer.fine_first(kernel),
        (layer.stride, layer.stride),
        (padding, padding),
        rhs_dilation=(layer.dilation, layer.dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def worst(actual: Array, expected: Array) -> float:
    return float(jnp.max(jnp.abs(actual - expected)) / jnp.max(jnp.abs(expected)))


def assert_same(layer: Layer, coarse_size: tuple[int, int]) -> None:
    """All operations of a layer between grids of these sides."""
    keys = jax.random.split(jax.random.key(0), 3)
    height, width = (layer.stride * side for side in coarse_size)
    fine = jax.random.normal(keys[0], (2, height, width, 5))
    shape = (layer.size, layer.size, 5, 7)
    kernel = layer.fine_first(jax.random.normal(keys[1], shape))
    coarse = jax.random.normal(keys[2], (2, *coarse_size, 7))

    @jax.jit
    def theirs() -> tuple[Array, Array, Array]:
        outputs, pull = jax.vjp(lambda x, k: reference(x, k, layer), fine, kernel)
        return outputs, *pull(coarse)

    @jax.jit
    def ours() -> list[list[Array]]:
        return [
            [winograd.to_coarse(fine, kernel, layer, tiles) for tiles in TILES],
            [winograd.to_fine(coarse, kernel, layer, tiles) for tiles in TILES],
            [winograd.weight_gradient(fine, coarse, layer)],
        ]

    for ways, expected in zip(ours(), theirs(), strict=True):
        for actual in ways:
            assert worst(actual, expected) < TOLERANCE


@pytest.fixture
def in_blocks(monkeypatch) -> Callable[[int, int], None]:
    """Has blocks of so many pixels taken at a time, of a layer of 5 fine, 7 coarse features."""

    def cut(pixels: int, phases: int) -> None:
        monkeypatch.setattr(winograd, "VALUES", pixels * max(5 * phases, 7))
        monkeypatch.setattr(winograd, "GRADIENT_VALUES", pixels * (5 * phases + 7))
        monkeypatch.setattr(winograd, "PRODUCTS", 0)

    return cut


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
def test_it_is_the_same_convolution(size, dilation, pixels, in_blocks):
    in_blocks(pixels, phases=1)
    assert_same(Layer(3, dilation=dilation), size)


@pytest.mark.parametrize(
    ("tiles", "blocks"),
    [(8, 6), (16, 3), pytest.param(48, 3, id="but-not-more-than-twice-as-large")],
)
def test_blocks_of_small_products_are_larger(tiles, blocks, in_blocks, monkeypatch):
    """Of 12x32 pixels, 6 rows of 8 tiles: blocks of 64 pixels, and of more."""
    in_blocks(64, phases=1)
    monkeypatch.setattr(winograd, "PRODUCTS", tiles * 5 * 7)
    program = partial(winograd.to_coarse, layer=Layer(3), tiles=winograd.TILES_2X4)
    shapes = [(1, 12, 32, 5), (3, 3, 5, 7)]
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    loops = jax.make_jaxpr(program)(*arrays).eqns
    assert [e.params["length"] for e in loops if "length" in e.params] == [blocks]
    assert_same(Layer(3), (12, 32))


@pytest.mark.parametrize(
    ("layer", "coarse", "pixels"),
    [
        (Layer(3, 2), (13, 9), 64),
        (Layer(4, 2), (13, 9), 64),
        (Layer(4, 2, upsampling=True), (13, 9), 64),
        (Layer(5, 2), (13, 9), 64),
        pytest.param(Layer(5, 2), (12, 16), 4096, id="all-images-at-once"),
        pytest.param(Layer(5, 2), (12, 32), 64, id="pieces"),
    ],
)
def test_stride_2_is_the_same_convolution(layer, coarse, pixels, in_blocks):
    in_blocks(pixels, phases=4)
    assert_same(layer, coarse)


@pytest.mark.parametrize(
    ("size", "stride", "counts"),
    [
        (3, 1, (4, 3, 2.25)),
        (5, 2, (14, 10.5, 8.25)),
        (4, 2, (9, 7.5, 6.25)),
        (3, 2, (6.25, 5.625, 81 / 16)),
    ],
)
def test_what_is_0_is_not_multiplied(size, stride, counts):
    """Products of each coarse pixel, as the module's text promises."""
    layer = Layer(size, stride)
    fine = jax.ShapeDtypeStruct((1, 64 * stride, 64 * stride, 64), jnp.float32)
    coarse = jax.ShapeDtypeStruct((1, 64, 64, 64), jnp.float32)
    kernel = jax.ShapeDtypeStruct((size, size, 64, 64), jnp.float32)

    def counted(program: Callable[..., Array], *arguments: Any) -> float:
        return products(jax.make_jaxpr(program)(*arguments)) / 64**4

    for tiles, expected in zip(TILES, counts, strict=True):
        to_coarse = partial(winograd.to_coarse, layer=layer, tiles=tiles)
        to_fine = partial(winograd.to_fine, layer=layer, tiles=tiles)
        assert counted(to_coarse, fine, kernel) == pytest.approx(expected)
        assert counted(to_fine, coarse, kernel) == pytest.approx(expected)
    gradient = partial(winograd.weight_gradient, layer=layer)
    assert counted(gradient, fine, coarse) == pytest.approx(counts[2])


def products(jaxpr) -> int:
    """Multiplications of all matrix products, those in a loop as often as it runs."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (summed, _), _ = equation.params["dimension_numbers"]
            terms = [equation.invars[0].aval.shape[axis] for axis in summed]
            total += int(np.prod(equation.outvars[0].aval.shape) * np.prod(terms))
        times = equation.params.get("length", 1)
        for inner in jaxprs_in_params(equation.params):
            total += times * products(inner)
    return total


@pytest.mark.parametrize(
    ("layer", "tiles", "most"),
    [
        (Layer(3), winograd.TILES_4X4, 3e-6),
        (Layer(3), winograd.TILES_2X4, 2e-6),
        (Layer(4, 2), winograd.TILES_2X4, 2e-6),
        (Layer(5, 2), winograd.TILES_2X4, 2e-6),
        (Layer(3), winograd.TILES_2X2, 1e-6),
        (Layer(5, 2), winograd.TILES_2X2, 1e-6),
    ],
)
def test_its_rounding_is_a_few_times_that_of_the_definition(layer, tiles, most):
    keys = jax.random.split(jax.random.key(0), 2)
    side = 16 * layer.stride
    inputs = jax.random.normal(keys[0], (1, side, side, 256))
    kernel = jax.random.normal(keys[1], (layer.size, layer.size, 256, 8))
    kernel /= 16 * layer.size
    with jax.enable_x64(True):
        doubled = (inputs.astype(jnp.float64), kernel.astype(jnp.float64))
        exact = reference(*doubled, layer)
    found = winograd.to_coarse(inputs, kernel, layer, tiles)
    assert float(jnp.std(found - exact.astype(jnp.float32))) < most


@pytest.mark.parametrize(
    ("size", "dilation", "fits"),
    [((64, 64), 16, True), ((60, 64), 1, True), ((72, 72), 16, False)],
)
def test_images_much_smaller_than_their_tiles_do_not_fit(size, dilation, fits):
    assert winograd.fits((1, *size, 8), dilation) is fits
