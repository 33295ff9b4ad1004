"""The largest singular values, beside those of an SVD in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gl_jax.training.singular_values import largest_singular_value, singular_values

compiled = jax.jit(largest_singular_value)


def exact(kernel: np.ndarray) -> float:
    matrix = kernel.reshape(-1, kernel.shape[-1]).astype(np.float64)
    return float(np.linalg.svd(matrix, compute_uv=False)[0])


@pytest.mark.parametrize(
    "shape", [(5, 5, 3, 8), (4, 4, 64, 32), (2048, 1), (6, 300), (1024, 256)]
)
def test_it_is_that_of_the_kernel_as_taps_by_features(shape):
    kernel = np.random.default_rng(0).normal(0, 0.02, shape).astype(np.float32)
    assert float(compiled(kernel)) == pytest.approx(exact(kernel), rel=1e-6)


def test_equal_singular_values_are_no_obstacle():
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(64, 64)))
    assert float(compiled(np.float32(3 * turn))) == pytest.approx(3, rel=1e-6)


def test_a_kernel_of_zeros_stretches_nothing():
    assert float(compiled(np.zeros((3, 3, 4, 4), np.float32))) == 0


def test_a_kernel_that_is_not_finite_is_said_to_be():
    assert np.isnan(compiled(np.full((3, 4), np.nan, np.float32)))


def test_every_layer_has_a_name_and_every_network_its_largest():
    networks = {
        "completion": {"conv1": {"kernel": jnp.eye(4), "bias": jnp.ones(4)}},
        "discriminator": {
            "local": {"conv1": {"kernel": 2 * jnp.eye(3)}},
            "Attention_0": {"query": 5 * jnp.ones((1, 1)), "scale": jnp.ones(9)},
        },
    }
    values = {name: float(v) for name, v in singular_values(networks).items()}
    assert values == pytest.approx(
        {
            "singular_value/completion/conv1": 1,
            "completion_singular_value": 1,
            "singular_value/discriminator/local/conv1": 2,
            "singular_value/discriminator/Attention_0/query": 5,
            "discriminator_singular_value": 5,
        }
    )


def test_a_network_without_kernels_has_none():
    assert singular_values({"completion": {"color": jnp.ones(3)}}) == {}
