"""The network in use computes what the trained module computes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gl_jax.models import inference
from gl_jax.models.completion import CompletionNetwork

WIDTH = 0.05


def network(norm_order: str, output_activation: str) -> CompletionNetwork:
    return CompletionNetwork(
        width=WIDTH, norm_order=norm_order, output_activation=output_activation
    )


@functools.cache
def variables(norm_order: str) -> dict:
    shapes = jax.eval_shape(
        network(norm_order, "sigmoid").init, jax.random.key(0), jnp.zeros((1, 8, 8, 4))
    )
    chance = np.random.default_rng(0)

    def draw(path: tuple, shape: jax.ShapeDtypeStruct) -> np.ndarray:
        values = chance.normal(size=shape.shape)
        if path[-1].key == "kernel":
            values *= np.sqrt(2 / np.prod(shape.shape[:-1]))
        elif path[-1].key in ("var", "scale"):
            values = np.exp(0.3 * values)
        return values.astype(np.float32)

    return jax.tree.map_with_path(draw, shapes)


@functools.cache
def compiled(output_activation: str) -> functools.partial:
    return jax.jit(
        functools.partial(inference.complete, output_activation=output_activation)
    )


@pytest.mark.parametrize("norm_order", ["norm_activation", "activation_norm"])
@pytest.mark.parametrize("output_activation", ["sigmoid", "clamp"])
def test_it_is_the_module(norm_order: str, output_activation: str) -> None:
    inputs = np.random.default_rng(1).normal(size=(2, 24, 32, 4)).astype(np.float32)
    module = network(norm_order, output_activation)
    expected = jax.jit(module.apply)(variables(norm_order), inputs)
    blocks = inference.prepare(variables(norm_order), norm_order)
    size = np.array([24, 32], np.int32)
    completed = compiled(output_activation)(blocks, inputs, size)
    np.testing.assert_allclose(completed, expected, atol=1e-5)
    assert np.ptp(completed) > 0.1


@pytest.mark.parametrize("norm_order", ["norm_activation", "activation_norm"])
def test_an_image_in_a_larger_array_is_as_if_alone(norm_order: str) -> None:
    chance = np.random.default_rng(2)
    inputs = chance.normal(size=(1, 64, 64, 4)).astype(np.float32)
    blocks = inference.prepare(variables(norm_order), norm_order)
    for height, width in [(24, 32), (64, 4)]:
        alone = jax.jit(network(norm_order, "sigmoid").apply)(
            variables(norm_order), inputs[:, :height, :width]
        )
        # The rest of the array is anything at all, and must not be seen.
        size = np.array([height, width], np.int32)
        held = compiled("sigmoid")(blocks, inputs, size)[:, :height, :width]
        np.testing.assert_allclose(held, alone, atol=1e-5)
