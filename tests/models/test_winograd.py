"""Winograd's formulation against XLA's own convolution, in every way of cutting it up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.extend.core import jaxprs_in_params

from gl_jax.models import winograd
from gl_jax.models.grids import Layer

# Relative to the largest value, in float32.
TOLERANCE = 1e-5


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
    def theirs() -> tuple[Array, Array, Array, Array]:
        outputs, pull = jax.vjp(lambda x, k: reference(x, k, layer), fine, kernel)
        return outputs, outputs, *pull(coarse)

    @jax.jit
    def ours() -> tuple[Array, Array, Array, Array]:
        outputs = winograd.to_coarse(fine, kernel, layer)
        accurate = winograd.to_coarse(fine, kernel, layer, accurate=True)
        errors = winograd.to_fine(coarse, kernel, layer)
        gradient = winograd.weight_gradient(fine, coarse, layer)
        return outputs, accurate, errors, gradient

    for actual, expected in zip(ours(), theirs(), strict=True):
        assert worst(actual, expected) < TOLERANCE


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
    monkeypatch.setattr(winograd, "VALUES", pixels * 7)
    assert_same(Layer(3, dilation=dilation), size)


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
def test_stride_2_is_the_same_convolution(layer, coarse, pixels, monkeypatch):
    monkeypatch.setattr(winograd, "VALUES", pixels * 20)
    assert_same(layer, coarse)


@pytest.mark.parametrize(
    ("size", "stride", "counts"),
    [
        (3, 1, (3, 4, 3, 2.25)),
        (5, 2, (10.5, 14, 10.5, 8.25)),
        (4, 2, (7.5, 9, 7.5, 6.25)),
        (3, 2, (5.625, 6.25, 5.625, 81 / 16)),
    ],
)
def test_what_is_0_is_not_multiplied(size, stride, counts):
    """Products of each coarse pixel, as the module's text promises."""
    layer = Layer(size, stride)
    fine = jax.ShapeDtypeStruct((1, 64 * stride, 64 * stride, 64), jnp.float32)
    coarse = jax.ShapeDtypeStruct((1, 64, 64, 64), jnp.float32)
    kernel = jax.ShapeDtypeStruct((size, size, 64, 64), jnp.float32)
    programs = [
        (lambda x, k: winograd.to_coarse(x, k, layer), (fine, kernel)),
        (lambda x, k: winograd.to_coarse(x, k, layer, accurate=True), (fine, kernel)),
        (lambda e, k: winograd.to_fine(e, k, layer), (coarse, kernel)),
        (lambda x, e: winograd.weight_gradient(x, e, layer), (fine, coarse)),
    ]
    for (program, arguments), expected in zip(programs, counts, strict=True):
        count = products(jax.make_jaxpr(program)(*arguments))
        assert count / (64 * 64 * 64 * 64) == pytest.approx(expected)


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
    ("layer", "accurate", "most"),
    [
        (Layer(3), False, 2e-6),
        (Layer(4, 2), False, 2e-6),
        (Layer(5, 2), False, 2e-6),
        (Layer(3), True, 1e-6),
        (Layer(5, 2), True, 1e-6),
    ],
)
def test_its_rounding_is_a_few_times_that_of_the_definition(layer, accurate, most):
    keys = jax.random.split(jax.random.key(0), 2)
    side = 16 * layer.stride
    inputs = jax.random.normal(keys[0], (1, side, side, 256))
    kernel = jax.random.normal(keys[1], (layer.size, layer.size, 256, 8))
    kernel /= 16 * layer.size
    with jax.enable_x64(True):
        doubled = (inputs.astype(jnp.float64), kernel.astype(jnp.float64))
        exact = reference(*doubled, layer)
    found = winograd.to_coarse(inputs, kernel, layer, accurate=accurate)
    assert float(jnp.std(found - exact.astype(jnp.float32))) < most


@pytest.mark.parametrize(
    ("size", "dilation", "fits"),
    [((64, 64), 16, True), ((60, 64), 1, True), ((72, 72), 16, False)],
)
def test_images_much_smaller_than_their_tiles_do_not_fit(size, dilation, fits):
    assert winograd.fits((1, *size, 8), dilation) is fits
