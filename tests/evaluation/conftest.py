"""A small model with random weights, as an object and as a file."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from gl_jax.weights import native
from gl_jax.weights.native import Model

WIDTH, SIDE = 0.02, 32
Arrays = dict[str, np.ndarray]


def random_arrays(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> Arrays:
    """Arrays that keep a network's activations at about their size, by PyTorch's names."""
    generator = np.random.default_rng(seed)
    arrays = {}
    for name, shape in shapes.items():
        if name.endswith(("running_var", "bn.weight")) or name.startswith("lin"):
            values = generator.uniform(0.5, 1.5, shape)
        elif len(shape) == 4:
            values = generator.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        else:
            values = generator.normal(0, 0.1, shape)
        arrays[name] = values.astype(np.float32)
    return arrays


@pytest.fixture(scope="session")
def randomly() -> Callable[..., Arrays]:
    return random_arrays


@pytest.fixture(scope="session")
def model(random_model: Callable[..., Model]) -> Model:
    return random_model(WIDTH, name="small", training={"image size": SIDE, "steps": 7})


@pytest.fixture(scope="session")
def weights_file(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    native.save(model, path)
    return path
