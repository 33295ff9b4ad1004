"""The order of a step's operations: the same values, whatever came before them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gl_jax.models.ordering import after, compiler_options


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32"])
def test_an_array_after_others_is_the_array(dtype) -> None:
    array = jnp.arange(-6, 6, dtype=dtype).reshape(3, 4)
    others = (
        jnp.asarray(7.5),
        jnp.full((2, 2), -3, jnp.int32),
        jnp.ones(5, "bfloat16"),
    )
    found = jax.jit(after)(array, *others)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    np.testing.assert_array_equal(after(array), array)


def test_options_are_for_processors_only(monkeypatch) -> None:
    assert bool(compiler_options()) == (jax.default_backend() == "cpu")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiler_options.__wrapped__() == {}
