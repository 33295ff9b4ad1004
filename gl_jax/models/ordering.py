"""When a processor does what: the order in which XLA schedules a step is memory.

Left to itself, XLA's scheduler on CPU goes all the way back through a network and does the
weight gradients then, when every layer's inputs and errors are in memory; and it updates
weights while others still read them, for which it copies all of them. It drops
`optimization_barrier` before it schedules, but not a sum with 0 times x, which is 0 only
where x is finite.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array


def after(array: Array, *others: Array) -> Array:
    """The array, as if it came from the others: what uses it is done later (on CPU)."""
    if not others:
        return array

    def tied(array: Array, *others: Array) -> Array:
        elements = [other[(0,) * other.ndim].astype(array.dtype) for other in others]
        return array + 0 * sum(elements[1:], elements[0])

    def free(array: Array, *others: Array) -> Array:
        del others
        return array

    return jax.lax.platform_dependent(array, *others, cpu=tied, default=free)


def blank(shape: tuple[int, ...], array: Array) -> Array:
    """An array of the type of `array` for a loop that writes every element of it.

    What it holds before means nothing. Zeros would be one array for all such loops of a
    step (on CPU), kept from the first of them to the last and copied for each.
    """
    return jnp.broadcast_to(0 * array[(0,) * array.ndim], shape)
