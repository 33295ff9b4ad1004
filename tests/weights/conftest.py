"""What the tests of weights share: foreign networks, and writers of foreign files."""

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gl_jax.models.completion import CompletionNetwork
from gl_jax.weights.architectures import Architecture
from gl_jax.weights.convention import Convention
from gl_jax.weights.native import Model

HERE = Path(__file__).parent
MEAN = (0.42, 0.44, 0.4)


@pytest.fixture(scope="session")
def foreign() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(HERE / "foreign.py")))


@pytest.fixture(scope="session")
def archives() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(HERE / "archives.py")))


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    with np.load(HERE / "foreign.npz") as file:
        return dict(file)


def random_like(shape: Any, seed: int) -> np.ndarray:
    stream = np.random.default_rng(seed)
    return stream.uniform(0.2, 1.2, shape).astype(np.float32) * 0.1


@pytest.fixture(scope="session")
def tiny() -> Model:
    """A narrow network with random weights and statistics, in our own convention."""
    network = CompletionNetwork(width=1 / 16)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 8, 8, 4)))
    leaves, structure = jax.tree.flatten(shapes)
    filled = [random_like(leaf.shape, seed) for seed, leaf in enumerate(leaves)]
    return Model(
        jax.tree.unflatten(structure, filled),
        Architecture(width=1 / 16),
        Convention.gl_jax(MEAN),
        name="tiny",
        licence="CC0",
        training={"steps": 7, "data": "noise"},
    )
