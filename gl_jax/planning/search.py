"""Searches the largest batch that fits, and options that save memory."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from gl_jax.config import Config

SAVING: dict[str, Any] = {"compute_dtype": "bfloat16", "rematerialize": True}
"""Fields of `model` with the values that save memory."""


class Attempt(NamedTuple):
    """A changed run, tried because the original does not fit."""

    options: str
    memory: float
    """Bytes of the phase that needs the most."""
    fits: bool


def largest(
    memory_of: Callable[[int], float], available: float, start: int, most: int | None
) -> int:
    """Returns the largest count, up to `most`, whose memory is `available` or less, else 0.

    A straight line through two measured counts only chooses the next one to measure, so
    the result is exact.
    """
    known: dict[int, float] = {}
    fitting, over = 0, None if most is None else most + 1
    count = start
    while over is None or fitting + 1 < over:
        known[count] = memory_of(count)
        if known[count] <= available:
            fitting = max(fitting, count)
        else:
            over = count if over is None else min(over, count)
        count = _next(known, available, fitting, over)
    return fitting


def _next(
    known: dict[int, float], available: float, fitting: int, over: int | None
) -> int:
    low, high = fitting + 1, 2 * fitting if over is None else over - 1
    pair = sorted(known, key=lambda count: abs(known[count] - available))[:2]
    if len(pair) < 2 or len(known) % 3 == 0:
        return high if over is None else (low + high) // 2
    one, two = pair
    slope = (known[one] - known[two]) / (one - two)
    guess = one + int((available - known[one]) // slope) if slope > 0 else high
    return max(low, min(high, guess))


Changed = tuple[str, Config]
"""Command-line options, and the configuration with them."""


def alone(config: Config, per_chip: int) -> list[Changed]:
    """Returns each memory-saving option separately."""
    pieces = _more_pieces(config, per_chip)
    changes: list[tuple[dict[str, Any], int]] = [({}, n) for n in pieces[:1]]
    changes += [
        ({name: value}, config.run.accumulate) for name, value in SAVING.items()
    ]
    return _changed(config, changes)


def together(config: Config, per_chip: int) -> list[Changed]:
    """Returns all options together, with more and more pieces, down to one photograph."""
    pieces = [config.run.accumulate, *_more_pieces(config, per_chip)]
    before = alone(config, per_chip)
    return [
        change
        for change in _changed(config, [(SAVING, n) for n in pieces])
        if change not in before
    ]


def _more_pieces(config: Config, per_chip: int) -> list[int]:
    """Returns divisors of a chip's share, each at least twice the one before."""
    counts = [config.run.accumulate]
    for n in range(counts[0] + 1, per_chip + 1):
        if per_chip % n == 0 and (n >= 2 * counts[-1] or n == per_chip):
            counts.append(n)
    return counts[1:]


def _changed(
    config: Config, changes: list[tuple[dict[str, Any], int]]
) -> list[Changed]:
    made = []
    for model, accumulate in changes:
        changed = dataclasses.replace(
            config,
            model=dataclasses.replace(config.model, **model),
            run=dataclasses.replace(config.run, accumulate=accumulate),
        )
        if changed != config:
            made.append((_options(config, changed), changed))
    return made


def _options(before: Config, after: Config) -> str:
    words = []
    for name, value in SAVING.items():
        if getattr(before.model, name) != getattr(after.model, name):
            flag = f"--model.{name.replace('_', '-')}"
            words.append(flag if value is True else f"{flag} {value}")
    if before.run.accumulate != after.run.accumulate:
        words.append(f"--run.accumulate {after.run.accumulate}")
    return " ".join(words)
