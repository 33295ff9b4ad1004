"""A tiny network with random weights, whole enough for everything but good pictures."""

import numpy as np
import pytest

from gl_jax.weights import native
from gl_jax.weights.native import Architecture, Convention, Model

WIDTH = 0.02


@pytest.fixture(scope="session")
def model() -> Model:
    chance = np.random.default_rng(0)
    arrays = {}
    for name, shape in native.completion_shapes(WIDTH).items():
        values = chance.normal(0, 1, shape)
        if name.endswith("kernel"):
            values *= np.sqrt(2 / np.prod(shape[:-1]))
        elif name.endswith(("var", "scale")):
            values = 1 + 0.2 * np.tanh(values)
        else:
            values *= 0.1
        arrays[name] = values.astype(np.float32)
    return Model(
        native.nested(arrays),
        Architecture(WIDTH),
        Convention.gl_jax((0.45, 0.4, 0.35)),
        name="tiny",
        training={"image size": 64, "holes": "8 to 24"},
    )
