"""Every formulation of a convolution against XLA's own, forward and both gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from gl_jax.models.convolution import convolve, multiply, upsample
from jax import Array

from gl_jax.models import convolution

# Relative to the largest value; sums of up to 10^4 products in float32.
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def little_is_much(monkeypatch):
    """Small grids are done as large ones, which they stand for."""
    monkeypatch.setattr(convolution, "WINOGRAD_PRODUCTS", 0)
    monkeypatch.setattr(convolution, "WINOGRAD_GRADIENT_PRODUCTS", 0)
    monkeypatch.setattr(convolution, "STRIDED_PRODUCTS", 0)


def reference(inputs: Array, kernel: Array, stride: int, dilation: int) -> Array:
    padding = dilation * (kernel.shape[0] - 1) // 2
    return jax.lax.conv_general_dilated(
        inputs,
        kernel,
        (stride, stride),
        ((padding, padding), (padding, padding)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def assert_same(ours, theirs, *arguments) -> None:
    actual, pull = jax.vjp(ours, *arguments)
    expected, pull_reference = jax.vjp(theirs, *arguments)
    errors = jax.random.normal(jax.random.key(2), expected.shape)
    pairs = [
        (actual, expected),
        *zip(pull(errors), pull_reference(errors), strict=True),
    ]
    for ours_value, value in pairs:
        assert_same_values(ours_value, value)


def assert_same_values(actual: Array, expected: Array) -> None:
    worst = jnp.max(jnp.abs(actual - expected)) / jnp.max(jnp.abs(expected))
    assert float(worst) < TOLERANCE


# Each line is another formulation: see _to_coarse, _to_fine and _cpu_weight_gradient.
@pytest.mark.parametrize(
    ("size", "features_in", "features_out", "kernel", "stride", "dilation"),
    [
        pytest.param((12, 16), 16, 12, 3, 1, 1, id="narrow"),
        pytest.param((16, 12), 4, 64, 5, 1, 1, id="first-layer"),
        pytest.param((24, 32), 3, 64, 5, 2, 1, id="first-layer-of-a-discriminator"),
        pytest.param((96, 64), 32, 3, 3, 1, 1, id="last-layer-in-strips"),
        pytest.param((12, 15), 32, 8, 3, 1, 1, id="odd-columns"),
        pytest.param((16, 12), 32, 64, 3, 1, 1, id="winograd-gradients"),
        pytest.param((16, 12), 64, 32, 3, 1, 1, id="winograd-thin-errors"),
        pytest.param((8, 12), 64, 32, 3, 1, 2, id="winograd-thin-errors-dilated"),
        pytest.param((16, 12), 64, 64, 3, 1, 1, id="winograd-narrow"),
        pytest.param((8, 12), 136, 160, 3, 1, 1, id="winograd-middle"),
        pytest.param((8, 12), 192, 200, 3, 1, 1, id="winograd"),
        pytest.param((8, 4), 192, 192, 3, 1, 2, id="winograd-dilated"),
        pytest.param((12, 20), 64, 64, 3, 1, 4, id="dilated-taps"),
        pytest.param((13, 9), 64, 64, 3, 1, 1, id="odd-sides"),
        pytest.param((24, 16), 64, 64, 3, 2, 1, id="stride-2"),
        pytest.param((24, 16), 64, 64, 5, 2, 1, id="stride-2-kernel-5"),
        pytest.param((24, 16), 72, 64, 3, 2, 1, id="stride-2-taps"),
        pytest.param((24, 32), 128, 136, 3, 2, 1, id="stride-2-winograd"),
        pytest.param((24, 32), 64, 128, 5, 2, 1, id="stride-2-kernel-5-winograd"),
        pytest.param((24, 32), 64, 128, 3, 2, 1, id="stride-2-winograd-gradients"),
        pytest.param((24, 32), 256, 256, 5, 2, 1, id="stride-2-kernel-5-wide"),
        pytest.param((24, 32), 256, 656, 5, 2, 1, id="stride-2-many-weights"),
        pytest.param((24, 31), 64, 128, 5, 2, 1, id="stride-2-wide-odd-side"),
        pytest.param((192, 96), 8, 8, 5, 2, 1, id="stride-2-in-strips"),
        pytest.param((23, 17), 8, 8, 5, 2, 1, id="stride-2-odd-sides"),
        pytest.param((16, 12), 64, 64, 3, 2, 1, id="small-map"),
        pytest.param((8, 8), 64, 64, 5, 2, 1, id="small-map-kernel-5"),
        pytest.param((5, 4), 8, 8, 5, 2, 1, id="small-map-odd-side"),
    ],
)
def test_a_convolution_is_that_of_xla(
    size, features_in, features_out, kernel, stride, dilation
):
    inputs = jax.random.normal(jax.random.key(0), (2, *size, features_in))
    weights = jax.random.normal(
        jax.random.key(1), (kernel, kernel, features_in, features_out)
    )
    assert_same(
        jax.jit(lambda x, k: convolve(x, k, stride, dilation)),
        jax.jit(lambda x, k: reference(x, k, stride, dilation)),
        inputs,
        weights,
    )


def test_onto_small_maps_bfloat16_is_left_to_xla():
    """Overlapping patches would be added in 8 bits."""
    inputs = jax.random.normal(jax.random.key(0), (2, 8, 8, 64), jnp.bfloat16)
    weights = jax.random.normal(jax.random.key(1), (5, 5, 64, 64), jnp.bfloat16)
    ours = jax.jit(lambda x, k: convolve(x, k, 2, 1))(inputs, weights)
    assert jnp.array_equal(
        ours, jax.jit(lambda x, k: reference(x, k, 2, 1))(inputs, weights)
    )


@pytest.mark.parametrize(
    ("size", "features", "made"),
    [
        ((6, 8), 8, 32),
        ((6, 8), 64, 256),
        ((9, 8), 8, 32),
        ((10, 8), 64, 256),
        ((96, 48), 4, 16),
        pytest.param((10, 8), 32, 8, id="onto-few-features"),
        pytest.param((12, 8), 128, 128, id="winograd"),
        pytest.param((12, 8), 136, 64, id="winograd-onto-few-features"),
    ],
)
def test_upsampling_is_a_transposed_convolution_by_the_unflipped_kernel(
    size, features, made
):
    inputs = jax.random.normal(jax.random.key(0), (2, *size, features))
    kernel = jax.random.normal(jax.random.key(1), (4, 4, features, made))

    def transposed(inputs: Array, kernel: Array) -> Array:
        return jax.lax.conv_transpose(inputs, kernel[::-1, ::-1], (2, 2), "SAME")

    assert_same(jax.jit(upsample), jax.jit(transposed), inputs, kernel)


def test_a_product_is_the_matrix_product():
    inputs = jax.random.normal(jax.random.key(0), (3, 40))
    kernel = jax.random.normal(jax.random.key(1), (40, 7))
    assert_same(jax.jit(multiply), jax.jit(jnp.matmul), inputs, kernel)


@pytest.mark.parametrize(
    ("function", "stride", "size"),
    [(convolve, 1, 3), (convolve, 2, 5), (upsample, 2, 4)],
)
def test_a_layer_that_does_little_is_left_to_xla(monkeypatch, function, stride, size):
    grid = 8  # of the products: the coarser of both
    side = grid if function is upsample else grid * stride
    inputs = jnp.ones((2, side, side, 16))
    kernel = jnp.ones((size, size, 16, 16))
    options = () if function is upsample else (stride, 1)

    def matrix_products() -> int:
        def total(inputs: Array, kernel: Array) -> Array:
            return function(inputs, kernel, *options).sum()

        text = jax.jit(jax.grad(total, argnums=(0, 1))).lower(inputs, kernel).as_text()
        return text.count("dot_general")

    products = grid * grid * 16 * 16
    monkeypatch.setattr(convolution, "LEAST_PRODUCTS", products)
    assert matrix_products() > 0
    monkeypatch.setattr(convolution, "LEAST_PRODUCTS", products + 1)
    assert matrix_products() == 0


@pytest.mark.parametrize(("features", "compiled_longer"), [(64, False), (128, True)])
def test_without_gradients_narrow_layers_are_left_to_xla(features, compiled_longer):
    """As in inference, where a short compilation is worth more."""
    inputs = jnp.ones((1, 16, 16, features))
    kernel = jnp.ones((3, 3, features, features))
    text = jax.jit(convolve).lower(inputs, kernel).as_text()
    assert ("dot_general" in text) == compiled_longer


@pytest.mark.parametrize("moved", [0, 1])
def test_one_side_of_a_product_may_be_fixed(moved):
    sides = [
        jax.random.normal(jax.random.key(0), (3, 40)),
        jax.random.normal(jax.random.key(1), (40, 7)),
    ]

    def gradient(product):
        def loss(side):
            return jnp.sum(jnp.sin(product(*sides[:moved], side, *sides[moved + 1 :])))

        return jax.grad(loss)(sides[moved])

    assert_same_values(gradient(multiply), gradient(jnp.matmul))


@pytest.mark.parametrize("layer", ["convolution", "upsampling"])
def test_a_frozen_kernel_costs_no_weight_gradient(layer):
    """As when a completion is judged. Forward and both gradients have the same products."""
    side = 4 if layer == "upsampling" else 5
    inputs = jax.random.normal(jax.random.key(0), (1, 32, 32, 64))
    kernel = jax.random.normal(jax.random.key(1), (side, side, 64, 64))

    def loss(inputs: Array, kernel: Array) -> Array:
        run = upsample if layer == "upsampling" else partial(convolve, stride=2)
        return jnp.sum(jnp.square(run(inputs, kernel)))

    alone, both = (
        jax.jit(jax.grad(loss, argnums=wanted)).lower(inputs, kernel).compile()
        for wanted in (0, (0, 1))
    )
    flops = [step.cost_analysis()["flops"] for step in (alone, both)]
    assert flops[0] == pytest.approx(flops[1] * 2 / 3, rel=0.1)
    assert_same_values(alone(inputs, kernel), both(inputs, kernel)[0])


def test_the_fast_formulations_work_in_bfloat16():
    inputs = jax.random.normal(jax.random.key(0), (1, 8, 8, 192), jnp.bfloat16)
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 192, 192), jnp.bfloat16) / 40

    def total(inputs: Array, kernel: Array) -> Array:
        return jnp.sum(jnp.square(convolve(inputs, kernel)).astype(jnp.float32))

    gradients = jax.jit(jax.grad(total, argnums=(0, 1)))(inputs, kernel)
    assert [gradient.dtype for gradient in gradients] == [jnp.bfloat16] * 2
    assert all(bool(jnp.all(jnp.isfinite(gradient))) for gradient in gradients)
