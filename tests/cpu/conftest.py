"""Small layers stand for large ones."""

import pytest

from gl_jax.cpu import convolution


@pytest.fixture(autouse=True)
def every_formulation_is_used(monkeypatch):
    """However little a layer does: small networks leave all of it to XLA otherwise."""
    for name in ("LEAST_PRODUCTS", "WINOGRAD_PRODUCTS"):
        monkeypatch.setattr(convolution, name, 0)
    monkeypatch.setattr(convolution, "LEAST_STRIP", 96)
