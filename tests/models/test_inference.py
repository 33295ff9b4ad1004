"""Networks in use compute what they computed in training."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gl_jax.models.completion import CompletionNetwork
from gl_jax.models.discriminators import ContextDiscriminator
from gl_jax.models.inference import fold, takes_size

WIDTH = 0.05
ORDERS = pytest.mark.parametrize("norm_order", ["norm_activation", "activation_norm"])


class Theirs(nn.Module):
    """A network that is none of ours, with Flax's own batch normalisation."""

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        outputs = nn.BatchNorm(use_running_average=not train)(
            nn.Conv(3, (3, 3))(inputs)
        )
        return nn.sigmoid(outputs)


def network(norm_order: str, output_activation: str = "sigmoid") -> CompletionNetwork:
    return CompletionNetwork(
        width=WIDTH, norm_order=norm_order, output_activation=output_activation
    )


def drawn(net: nn.Module, inputs: Any) -> dict[str, Any]:
    """Variables of a network, their statistics away from (0, 1), as numpy arrays."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), inputs)
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
def variables(norm_order: str) -> dict[str, Any]:
    return drawn(network(norm_order), jnp.zeros((1, 8, 8, 4)))


@functools.cache
def in_use(norm_order: str) -> Any:
    """The folded network as a function of inputs and size."""
    net, folded = fold(network(norm_order), variables(norm_order))
    return jax.jit(lambda inputs, size: net.apply(folded, inputs, size=size))


def names(tree: Any) -> set[str]:
    return {
        jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(tree)
    }


@pytest.mark.parametrize("output_activation", ["sigmoid", "clamp", "signed_clamp"])
def test_a_folded_network_computes_the_same_without_normalising(output_activation):
    inputs = np.random.default_rng(1).normal(size=(2, 24, 32, 4)).astype(np.float32)
    module = network("norm_activation", output_activation)
    expected = jax.jit(module.apply)(variables("norm_activation"), inputs)
    folded, its_variables = fold(module, variables("norm_activation"))
    completed = jax.jit(folded.apply)(its_variables, inputs)
    np.testing.assert_allclose(completed, expected, rtol=0, atol=1e-5)
    assert np.ptp(completed) > 0.1
    assert folded.output_activation == output_activation
    shapes = jax.eval_shape(folded.init, jax.random.key(0), inputs)
    assert names(its_variables) == names(shapes)
    assert not any("norm" in name for name in names(its_variables))
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(its_variables))


def test_a_folded_discriminator_judges_the_same():
    chance = np.random.default_rng(3)
    views = {
        name: chance.uniform(size=(2, size, size, 3)).astype(np.float32)
        for name, size in (("local", 16), ("global", 32))
    }
    module = ContextDiscriminator(width=WIDTH)
    trained = drawn(module, views)
    expected = jax.jit(module.apply)(trained, views)
    folded, its_variables = fold(module, trained)
    assert set(its_variables) == {"params"}
    logits = jax.jit(folded.apply)(its_variables, views)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)


def test_the_other_order_cannot_be_folded_and_is_returned_as_it_is():
    module = network("activation_norm")
    folded, its_variables = fold(module, variables("activation_norm"))
    assert folded is module
    assert its_variables == variables("activation_norm")


def test_a_network_with_spectral_normalisation_is_returned_as_it_is():
    """It divides each kernel by its own norm, so another kernel would be another network."""
    module = ContextDiscriminator(width=WIDTH, spectral_norm=True)
    given = {"params": {}, "batch_stats": {}}
    assert fold(module, given) == (module, given)


def test_a_network_of_someone_else_is_returned_as_it_is():
    theirs, inputs = Theirs(), jnp.zeros((1, 8, 8, 4))
    trained = drawn(theirs, inputs)
    folded, its_variables = fold(theirs, trained)
    assert folded is theirs
    assert its_variables == trained
    assert takes_size(network("norm_activation"))
    assert not takes_size(theirs)


@ORDERS
@pytest.mark.parametrize("beyond", ["noise", "nan", "inf"])
def test_an_image_in_a_larger_array_is_as_if_alone(norm_order, beyond):
    chance = np.random.default_rng(2)
    inputs = chance.normal(size=(1, 64, 64, 4)).astype(np.float32)
    for height, width in [(24, 32), (64, 4)]:
        alone = jax.jit(network(norm_order).apply)(
            variables(norm_order), inputs[:, :height, :width]
        )
        # The rest of the array is anything at all, and must not be seen.
        held = inputs.copy()
        if beyond != "noise":
            held[:, height:] = held[:, :, width:] = float(beyond)
        size = np.array([height, width], np.int32)
        completed = in_use(norm_order)(held, size)[:, :height, :width]
        np.testing.assert_allclose(completed, alone, rtol=0, atol=1e-5)


@ORDERS
def test_an_image_that_fills_its_array_is_as_without_a_size(norm_order):
    inputs = np.random.default_rng(4).normal(size=(2, 24, 32, 4)).astype(np.float32)
    size = np.array([24, 32], np.int32)
    np.testing.assert_allclose(
        in_use(norm_order)(inputs, size), in_use(norm_order)(inputs, None), atol=1e-6
    )
