"""Small layers stand for large ones."""

import pytest

from gl_jax.models import convolution


@pytest.fixture(autouse=True)
def every_formulation_is_used(monkeypatch):
    """However little a layer does: small networks leave all of it to XLA otherwise."""
    monkeypatch.setattr(convolution, "LEAST_PRODUCTS", 0)
