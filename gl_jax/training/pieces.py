"""Averages gradients over accumulation pieces and over devices."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gl_jax.parallel import axis_size, local, pmean
from gl_jax.training.setup import Examples, Setup

Tree = Any
Scalars = dict[str, Float[Array, ""]]


class Gradients(NamedTuple):
    """The gradients of one network over the whole batch, with statistics and metrics."""

    params: Tree
    batch_stats: Tree
    """The network's new running statistics."""
    metrics: Scalars


class Measured(NamedTuple):
    """Gradients and metrics of one piece on one device."""

    params: Tree
    metrics: Scalars
    squares: Scalars
    """Squared norms of gradients at the completed images, by name."""


def over_pieces(
    setup: Setup,
    gradients: Callable[[Tree, Examples], tuple[Tree, Measured]],
    batch_stats: Tree,
    examples: Examples,
) -> Gradients:
    """Returns gradients and metrics averaged over accumulation pieces and devices.

    Pieces run one after another, and each passes its running statistics to the next. A
    photograph's holes and keys do not depend on its piece.
    """
    pieces, axis_name = setup.accumulate, setup.axis_name
    if pieces == 1:
        batch_stats, measured = gradients(batch_stats, examples)
    else:
        split = jax.tree.map(
            lambda leaf: leaf.reshape(pieces, -1, *leaf.shape[1:]), examples
        )

        def add(carry: tuple[Tree, Any], piece: Examples) -> tuple[Any, None]:
            batch_stats, sums = carry
            batch_stats, measured = gradients(batch_stats, piece)
            return (batch_stats, jax.tree.map(jnp.add, sums, measured)), None

        first = jax.tree.map(lambda leaf: leaf[0], split)
        shapes = jax.eval_shape(gradients, batch_stats, first)[1]
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        carry = (batch_stats, local(zeros, axis_name))
        (batch_stats, sums), _ = jax.lax.scan(add, carry, split)
        measured = jax.tree.map(lambda leaf: leaf / pieces, sums)
    measured = pmean(measured, axis_name)
    # Each part's gradient is that of its own mean, so the whole batch's is n times
    # smaller: its squared norm is sum / n^2, and the mean over parts is already sum / n.
    parts = pieces * axis_size(axis_name)
    norms = {name: jnp.sqrt(value / parts) for name, value in measured.squares.items()}
    return Gradients(measured.params, batch_stats, measured.metrics | norms)
