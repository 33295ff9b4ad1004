"""The Context Encoder and DCGAN: their tables, and where they differ from ours."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gl_jax import cpu
from gl_jax.models.context_encoder import ContextEncoder
from gl_jax.models.dcgan import Discriminator, Generator, channels
from gl_jax.models.ops import NATIVE


def parameters(network, inputs) -> int:
    """Parameters without biases of kernels, which the released code keeps at 0."""
    variables = jax.eval_shape(network.init, jax.random.key(0), inputs)
    paths = jax.tree_util.tree_leaves_with_path(variables["params"])
    named = {jax.tree_util.keystr(path): array for path, array in paths}
    return sum(
        array.size
        for name, array in named.items()
        if "norm" in name or not re.search("bias", name)
    )


@pytest.mark.parametrize(
    ("predicted", "expected"), [(64, (71_124_544, 2_765_568)), (128, (71_190_208, 2_831_232))]
)  # fmt: skip
def test_the_context_encoder_has_the_parameters_of_the_released_code(
    predicted, expected
):
    encoder = ContextEncoder(predicted=predicted)
    views = {"predicted": jnp.zeros((1, predicted, predicted, 3))}
    assert parameters(encoder, jnp.zeros((1, 128, 128, 4))) == expected[0]
    assert parameters(Discriminator(size=predicted), views) == expected[1]


def test_the_generator_has_dcgans_parameters():
    assert parameters(Generator(), jnp.zeros((1, 100))) == 3_576_704


def test_the_depth_follows_from_the_size():
    assert channels(64) == (64, 128, 256, 512)
    assert channels(128) == (64, 64, 128, 256, 512)
    for size in (4, 96):
        with pytest.raises(ValueError, match=rf"\(={size}\) must be a power of two"):
            channels(size)


@pytest.fixture(scope="module")
def middle():
    """A small context encoder of the middle, and its variables."""
    network = ContextEncoder(32, 16, bottleneck=8, width=0.02)
    inputs = jnp.zeros((1, 32, 32, 4))
    return network, jax.jit(network.init)(jax.random.key(1), inputs)


def test_around_the_middle_is_the_input_and_the_mask_is_not_looked_at(middle):
    network, variables = middle
    colors = jax.random.uniform(jax.random.key(0), (2, 32, 32, 3), minval=-1.0)
    masks = jnp.stack([jnp.zeros((2, 32, 32, 1)), jnp.ones((2, 32, 32, 1))])
    outputs = [
        np.asarray(network.apply(variables, jnp.concatenate([colors, mask], axis=-1)))
        for mask in masks
    ]
    np.testing.assert_array_equal(*outputs)
    around = np.ones((32, 32), bool)
    around[8:24, 8:24] = False
    known = np.asarray(colors + 1) / 2
    np.testing.assert_allclose(outputs[0][:, around], known[:, around], atol=1e-6)
    assert (outputs[0][:, ~around] != known[:, ~around]).mean() > 0.9
    assert outputs[0].min() >= 0 and outputs[0].max() <= 1


def test_another_size_is_refused(middle):
    network, variables = middle
    with pytest.raises(ValueError, match="32x32 pixels only, these are 64x32"):
        network.apply(variables, jnp.zeros((1, 64, 32, 4)))


@pytest.mark.parametrize("features", [(3, 4), (64, 128)])
def test_processors_halve_with_kernels_of_four_as_xla_does(features):
    """With its gradients; the wide one is done by patches."""
    fine = jax.random.normal(jax.random.key(0), (2, 16, 16, features[0]))
    kernel = jax.random.normal(jax.random.key(1), (4, 4, *features)) / 16

    def outputs(ops):
        def sum_of(fine, kernel):
            coarse = ops.convolve(fine, kernel, 2)
            return jnp.sum(coarse**2), coarse

        return jax.grad(sum_of, (0, 1), has_aux=True)(fine, kernel)

    ours, theirs = outputs(cpu.ops()), outputs(NATIVE)
    assert ours[1].shape == (2, 8, 8, features[1])
    for one, other in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4 * float(jnp.abs(other).max()))
