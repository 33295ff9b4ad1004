"""Weights files that version 0.1.0 wrote; see tests/golden/README.md."""

from pathlib import Path

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file

import gl_jax
from gl_jax.weights import native

GOLDEN = Path(__file__).parents[1] / "golden" / "0.1.0"
NAMES = ("run", "activation_norm")
KEEP = 3


@pytest.mark.parametrize("name", NAMES)
def test_its_arrays_are_loaded(name):
    model = native.load(GOLDEN / f"{name}.safetensors")
    tree = dict(model.variables)
    if model.discriminator is not None:
        tree["discriminator"] = model.discriminator.variables
    found = flatten_dict(tree, sep="/")
    expected = load_file(GOLDEN / f"{name}.safetensors")
    assert found.keys() == expected.keys()
    for place, array in expected.items():
        np.testing.assert_array_equal(found[place], array.astype(np.float32))


@pytest.mark.parametrize("name", NAMES)
def test_it_makes_the_same_picture(name):
    completer = gl_jax.load(GOLDEN / f"{name}.safetensors")
    with np.load(GOLDEN / "pictures.npz") as stored:
        raw = completer.raw(stored["small.image"], stored["small.mask"])
        expected = stored[f"{name}.small.raw"]
    np.testing.assert_allclose(raw[::KEEP, ::KEEP], expected, rtol=0, atol=1e-5)
