"""The questions of a study, in a balanced order for each participant.

Each participant sees every photograph once, attention checks aside, because a second look
would give the completion away. With M methods there are 2 x M ways to show a photograph,
which rotate over the participants as in a Latin square. For single pictures the ways are
each method once and the photograph itself M times, so that half of all pictures are real;
for pairs, each method once on either side.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gl_jax.study import Kind

# Independent streams of random numbers.
CHECKS, BLOCKS, ORDERS = range(3)


@dataclass(frozen=True)
class Picture:
    """A picture of the page: a photograph, its completion, or its spoiled copy."""

    photograph: str
    kind: Literal["truth", "completed", "check"]
    method: str | None = None
    """The method that completed it."""


Question = tuple[Picture, ...]
"""The pictures shown at once; empty for the check that asks to answer "real"."""


def make_orders(
    photographs: Sequence[str],
    methods: Sequence[str],
    kind: Kind,
    *,
    participants: int,
    checks: int,
    seed: int,
) -> list[list[Question]]:
    """Returns each participant's questions, for at least `participants` of them.

    The number of participants is rounded up to complete blocks of 2 x M. A block shows
    every photograph once in each way; a participant sees each way equally often, within
    one. Participant k's order depends on the seed and k alone.

    A check shows a plainly spoiled photograph, after the question on the same photograph.
    For single pictures every second check asks to answer "real", because the others are
    passed by answering "completed" always.
    """
    ways = 2 * len(methods)
    count = math.ceil(participants / ways) * ways
    checked = _shuffled(photographs, seed, CHECKS, 0)[:checks]
    return [_order(photographs, methods, kind, checked, seed, i) for i in range(count)]


def _order(
    photographs: Sequence[str],
    methods: Sequence[str],
    kind: Kind,
    checked: Sequence[str],
    seed: int,
    participant: int,
) -> list[Question]:
    ways = 2 * len(methods)
    block, shift = divmod(participant, ways)
    ranked = _shuffled(photographs, seed, BLOCKS, block)
    questions = [
        _question(photograph, methods, kind, (rank + shift) % ways)
        for rank, photograph in enumerate(ranked)
    ]
    rng = np.random.default_rng([seed, ORDERS, participant])
    order = [questions[i] for i in rng.permutation(len(questions))]
    for number, photograph in enumerate(checked):
        spoiled, truth = Picture(photograph, "check"), Picture(photograph, "truth")
        check: Question = (spoiled,)
        shown = [bool(q) and q[0].photograph == photograph for q in order]
        first = shown.index(True) + 1
        if kind == "pair":
            odd = (participant + number) % 2
            check = (spoiled, truth) if odd else (truth, spoiled)
        elif number % 2:
            check, first = (), 1
        order.insert(int(rng.integers(first, len(order) + 1)), check)
    return order


def _question(
    photograph: str, methods: Sequence[str], kind: Kind, way: int
) -> Question:
    truth = Picture(photograph, "truth")
    completed = Picture(photograph, "completed", methods[way // 2])
    if kind == "single":
        return (completed,) if way % 2 else (truth,)
    return (completed, truth) if way % 2 else (truth, completed)


def _shuffled(names: Sequence[str], seed: int, stream: int, number: int) -> list[str]:
    rng = np.random.default_rng([seed, stream, number])
    return [names[i] for i in rng.permutation(len(names))]
