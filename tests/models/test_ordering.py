"""The order of a step's operations: the same values, whatever came before them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gl_jax.models.ordering import after, blank

from gl_jax.compilation import compiler_options


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


def test_loops_that_write_to_blanks_need_one_array_at_a_time() -> None:
    """Of zeros there would be one more, for all of them."""

    def filled(begin, row):
        return jax.lax.fori_loop(
            0,
            64,
            lambda index, rows: rows.at[index].set(row * index),
            begin((64, 4096), row),
        )

    def three(begin, row):
        for _ in range(3):
            row = jnp.sin(filled(begin, row).mean(axis=0))
        return row

    row = jnp.linspace(0, 1, 4096)
    programs = [
        jax.jit(three, static_argnums=0)
        .lower(begin, row)
        .compile(compiler_options=compiler_options())
        for begin in (blank, lambda shape, _: jnp.zeros(shape))
    ]
    ours, zeros = (program.memory_analysis().temp_size_in_bytes for program in programs)
    assert ours < 0.6 * zeros
    np.testing.assert_array_equal(*(program(row) for program in programs))
