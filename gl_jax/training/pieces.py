"""Gradients of a batch from those of its pieces, one after another, and of all devices."""

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
    """The gradients of one network over the whole batch, and what came of the way there."""

    params: Tree
    batch_stats: Tree
    """The network's new running statistics."""
    metrics: Scalars


class Measured(NamedTuple):
    """A part of the batch's gradients with its metrics, before they are averaged."""

    params: Tree
    metrics: Scalars
    squares: Scalars
    """Squared norms of gradients at the completed images, by the norms' names."""


def over_pieces(
    setup: Setup,
    gradients: Callable[[Tree, Examples], tuple[Tree, Measured]],
    batch_stats: Tree,
    examples: Examples,
) -> Gradients:
    """Gradients and metrics averaged over accumulation pieces and over devices.

    Pieces follow one another, handing the running statistics on. What was drawn for a
    photograph does not depend on the piece it is in.
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
    # Each part's gradient is that of its own mean, so the whole's is smaller by the number
    # of parts n: its squared norm is sum / n^2, and the average over parts is sum / n.
    parts = pieces * axis_size(axis_name)
    norms = {name: jnp.sqrt(value / parts) for name, value in measured.squares.items()}
    return Gradients(measured.params, batch_stats, measured.metrics | norms)
