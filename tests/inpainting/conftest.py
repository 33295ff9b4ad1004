"""A tiny network with random weights."""

from collections.abc import Callable

import pytest

from gl_jax.weights.native import Model


@pytest.fixture(scope="session")
def model(random_model: Callable[..., Model]) -> Model:
    return random_model(
        0.02, name="tiny", training={"image size": 64, "holes": "8 to 24"}
    )
