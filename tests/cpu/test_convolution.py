"""Every formulation of a convolution against XLA's own, with two orders of gradients."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.sharding import AxisType, PartitionSpec

import gl_jax.cpu
from gl_jax.cpu import convolution
from gl_jax.models.ops import NATIVE, Ops

OURS = gl_jax.cpu.ops()

# Relative to the largest value; sums of up to 10^4 products in float32.
TOLERANCE = 1e-5

Operation = Callable[[Array, Array], Array]


def assert_same(actual: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for ours, theirs in zip(
        jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
    ):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        ours, theirs = np.float64(ours), np.float64(theirs)
        assert np.max(np.abs(ours - theirs)) < tolerance * np.max(np.abs(theirs))


def random_like(*arrays: jax.ShapeDtypeStruct) -> list[Array]:
    keys = jax.random.split(jax.random.key(0), len(arrays))
    return [
        jax.random.normal(key, array.shape, array.dtype)
        for key, array in zip(keys, arrays, strict=True)
    ]


def layer(
    run: Callable[[Ops], Operation], size, kernel, dtype="float32"
) -> tuple[Operation, Operation, list[Array]]:
    """Ours and XLA's, and random inputs, kernel and errors of the outputs."""
    shapes = [jax.ShapeDtypeStruct(shape, dtype) for shape in ((2, *size), kernel)]
    outputs = jax.eval_shape(run(NATIVE), *shapes)
    return run(OURS), run(NATIVE), random_like(*shapes, outputs)


def first_order(operation: Operation) -> Callable[..., Any]:
    """The outputs and both gradients."""

    def run(inputs: Array, kernel: Array, errors: Array) -> Any:
        outputs, pull = jax.vjp(operation, inputs, kernel)
        return outputs, pull(errors)

    return jax.jit(run)


def second_order(operation: Operation) -> Callable[..., Any]:
    """The same, and the gradients of both gradients, as a penalty on them takes them."""

    def gradients(inputs: Array, kernel: Array, errors: Array) -> Any:
        outputs, pull = jax.vjp(operation, inputs, kernel)
        return pull(errors), outputs

    def run(inputs: Array, kernel: Array, errors: Array, of: Any) -> Any:
        found, pull, outputs = jax.vjp(gradients, inputs, kernel, errors, has_aux=True)
        return outputs, found, pull(of)

    return jax.jit(run)


def convolution_of(stride: int, dilation: int) -> Callable[[Ops], Operation]:
    return lambda ops: lambda x, k: ops.convolve(x, k, stride, dilation)


def upsampling(ops: Ops) -> Operation:
    return ops.upsample


# Each line is another formulation of outputs or of a gradient.
CONVOLUTIONS = pytest.mark.parametrize(
    ("size", "features", "made", "kernel", "stride", "dilation"),
    [
        pytest.param((12, 16), 16, 12, 3, 1, 1, id="narrow"),
        pytest.param((12, 16), 16, 12, 1, 1, 1, id="one-tap"),
        pytest.param((16, 12), 4, 64, 5, 1, 1, id="first-layer"),
        pytest.param((24, 32), 3, 64, 5, 2, 1, id="first-layer-of-a-discriminator"),
        pytest.param((96, 64), 32, 3, 3, 1, 1, id="last-layer-in-strips"),
        pytest.param((16, 12), 32, 64, 3, 1, 1, id="winograd"),
        pytest.param((16, 12), 64, 32, 3, 1, 1, id="winograd-thin-errors"),
        pytest.param((8, 12), 64, 32, 3, 1, 2, id="winograd-dilated"),
        pytest.param((8, 12), 136, 160, 3, 1, 1, id="winograd-smallest-tiles"),
        pytest.param((8, 12), 192, 200, 3, 1, 1, id="winograd-largest-tiles"),
        pytest.param((8, 16), 192, 192, 3, 1, 2, id="winograd-largest-tiles-dilated"),
        pytest.param((12, 20), 64, 64, 3, 1, 4, id="dilated-beyond-tiles"),
        pytest.param((13, 9), 64, 64, 3, 1, 1, id="odd-sides"),
        pytest.param((24, 16), 64, 64, 3, 2, 1, id="stride-2"),
        pytest.param((24, 16), 64, 64, 5, 2, 1, id="stride-2-kernel-5"),
        pytest.param((24, 16), 64, 128, 5, 2, 1, id="stride-2-winograd"),
        pytest.param((24, 15), 32, 128, 5, 2, 1, id="stride-2-wide-odd-side"),
        pytest.param((192, 96), 8, 8, 5, 2, 1, id="stride-2-in-strips"),
        pytest.param((23, 17), 8, 8, 5, 2, 1, id="stride-2-odd-sides"),
        pytest.param((24, 20), 8, 8, 1, 2, 1, id="stride-2-one-tap"),
        pytest.param((23, 16), 8, 8, 7, 2, 1, id="stride-2-kernel-7"),
        pytest.param((23, 16), 8, 8, 3, 2, 2, id="stride-2-dilated"),
        pytest.param((23, 16), 8, 8, 3, 3, 1, id="stride-3"),
        pytest.param((16, 12), 64, 64, 3, 2, 1, id="small-map"),
        pytest.param((8, 8), 64, 64, 5, 2, 1, id="small-map-kernel-5"),
        pytest.param((5, 4), 8, 8, 5, 2, 1, id="small-map-odd-side"),
        pytest.param((5, 4), 8, 8, 1, 2, 1, id="small-map-one-tap"),
    ],
)
UPSAMPLINGS = pytest.mark.parametrize(
    ("size", "features", "made"),
    [
        pytest.param((6, 8), 8, 32, id="small-map"),
        pytest.param((9, 8), 8, 32, id="odd-side"),
        pytest.param((10, 8), 64, 256, id="wide"),
        pytest.param((96, 48), 4, 16, id="in-strips"),
        pytest.param((10, 8), 32, 3, id="onto-few-features"),
    ],
)


@CONVOLUTIONS
def test_a_convolution_is_that_of_xla(size, features, made, kernel, stride, dilation):
    ours, theirs, arrays = layer(
        convolution_of(stride, dilation),
        (*size, features),
        (kernel, kernel, features, made),
    )
    of = tuple(random_like(*arrays[:2]))
    assert_same(second_order(ours)(*arrays, of), second_order(theirs)(*arrays, of))


@UPSAMPLINGS
def test_upsampling_is_that_of_xla(size, features, made):
    ours, theirs, arrays = layer(upsampling, (*size, features), (4, 4, features, made))
    of = tuple(random_like(*arrays[:2]))
    assert_same(second_order(ours)(*arrays, of), second_order(theirs)(*arrays, of))


# One for each formulation, with outputs beyond the reach of the first pixel.
EXAMPLES = pytest.mark.parametrize(
    ("run", "size", "kernel"),
    [
        pytest.param(convolution_of(1, 1), (48, 48, 4), (5, 5, 4, 64), id="patches"),
        pytest.param(convolution_of(1, 2), (48, 48, 32), (3, 3, 32, 32), id="winograd"),
        pytest.param(convolution_of(2, 1), (48, 48, 8), (5, 5, 8, 16), id="parity"),
        pytest.param(
            convolution_of(2, 1), (32, 32, 32), (5, 5, 32, 128), id="winograd-squares"
        ),
        pytest.param(convolution_of(2, 1), (16, 16, 8), (3, 3, 8, 8), id="small-map"),
        pytest.param(upsampling, (24, 24, 8), (4, 4, 8, 4), id="upsampling"),
    ],
)


@EXAMPLES
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_what_is_not_finite_stays_where_it_is(run, size, kernel, value):
    ours, _, (inputs, weights, errors) = layer(run, size, kernel)
    program = first_order(ours)
    outputs, (input_errors, gradient) = program(inputs, weights, errors)
    first = (0, 0, 0, 0)
    broken, (_, broken_gradient) = program(inputs.at[first].set(value), weights, errors)
    _, (broken_errors, _) = program(inputs, weights, errors.at[first].set(value))
    for found, whole in ((broken, outputs), (broken_errors, input_errors)):
        assert not bool(jnp.isfinite(found[0, 0, 0]).all())
        far = whole.shape[1] // 2
        np.testing.assert_array_equal(found[1:], whole[1:])
        np.testing.assert_array_equal(found[0, far:], whole[0, far:])
        np.testing.assert_array_equal(found[0, :, far:], whole[0, :, far:])
    # Feature 0 of the inputs meets its own taps only.
    np.testing.assert_array_equal(broken_gradient[:, :, 1:], gradient[:, :, 1:])


@EXAMPLES
def test_bfloat16_is_as_near_to_float32_as_that_of_xla(run, size, kernel):
    ours, theirs, arrays = layer(run, size, kernel, "bfloat16")
    exact = first_order(theirs)(*(array.astype(jnp.float32) for array in arrays))
    found = first_order(ours)(*arrays)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("bfloat16")}
    # Eight bits of each value, and sums in more.
    found = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), found)
    assert_same(found, exact, 2**-7)


@EXAMPLES
def test_devices_share_a_kernel_and_its_gradient(run, size, kernel):
    """In a `shard_map` that checks over which devices every array varies."""
    mesh = jax.make_mesh((2,), ("devices",), axis_types=(AxisType.Auto,))
    spread, shared = PartitionSpec("devices"), PartitionSpec()
    ours, theirs, (inputs, weights, errors) = layer(run, size, kernel)
    of = tuple(random_like(inputs, weights))

    mapped = jax.shard_map(
        second_order(ours),
        mesh=mesh,
        in_specs=(spread, shared, spread, (spread, shared)),
        out_specs=(spread, (spread, shared), (spread, shared, spread)),
        check_vma=True,
    )
    arrays = (inputs, weights, errors, of)
    assert_same(jax.jit(mapped)(*arrays), second_order(theirs)(*arrays))


@EXAMPLES
def test_a_gradient_that_nobody_uses_costs_nothing(run, size, kernel):
    """Such as the kernel's, if only the completed image is judged."""
    ours, _, (inputs, weights, _) = layer(run, size, kernel)

    def loss(inputs: Array, weights: Array) -> Array:
        return jnp.sum(jnp.sin(ours(inputs, weights)))

    def flops(wanted: int | tuple[int, ...]) -> float:
        program = jax.jit(jax.grad(loss, argnums=wanted)).lower(inputs, weights)
        return program.compile().cost_analysis()["flops"]

    assert max(flops(0), flops(1)) < 0.85 * flops((0, 1))


@pytest.mark.parametrize(
    ("run", "size", "kernel"),
    [
        (convolution_of(1, 1), (8, 8, 16), (3, 3, 16, 16)),
        (convolution_of(2, 1), (16, 16, 16), (5, 5, 16, 16)),
        (upsampling, (8, 8, 16), (4, 4, 16, 16)),
    ],
)
def test_a_layer_that_does_little_is_left_to_xla(monkeypatch, run, size, kernel):
    ours, _, arrays = layer(run, size, kernel)

    def matrix_products() -> int:
        # A program anew: JAX would remember the last one's.
        return first_order(partial(ours)).lower(*arrays).as_text().count("dot_general")

    products = 8 * 8 * 16 * 16
    monkeypatch.setattr(convolution, "LEAST_PRODUCTS", products)
    assert matrix_products() > 0
    jax.clear_caches()
    monkeypatch.setattr(convolution, "LEAST_PRODUCTS", products + 1)
    assert matrix_products() == 0


def test_two_functions_are_public():
    public = {
        name
        for name, value in vars(gl_jax.cpu).items()
        if not name.startswith("_") and callable(value)
    }
    assert public == set(gl_jax.cpu.__all__) == {"ops", "compiler_options"}
