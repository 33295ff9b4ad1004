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


def test_it_comes_after_all_of_them() -> None:
    """One element of another array does not do: the whole of it has to be made."""

    def program(array: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
        made = jnp.sqrt(other)
        return after(array, made), made

    arrays = [jax.ShapeDtypeStruct((256, 256), jnp.float32)] * 2
    text = jax.jit(program).lower(*arrays).compile().as_text()
    roots = [line for line in text.splitlines() if " sqrt(" in line]
    assert len(roots) == 1
    assert "f32[256,256]" in roots[0]


def test_options_are_for_processors_only(monkeypatch) -> None:
    assert list(compiler_options()) == ["xla_cpu_scheduler_type"]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiler_options.__wrapped__() == {}
