"""The largest batch that fits, and options by which a run fits that did not."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from gl_jax.config import Config

SAVING: dict[str, Any] = {"compute_dtype": "bfloat16", "rematerialize": True}
"""Fields of `model` that save memory, with the values that do."""


class Attempt(NamedTuple):
    """A changed run that was tried in place of one that does not fit."""

    options: str
    memory: float
    """Bytes of the phase that needs most."""
    fits: bool


def largest(
    memory_of: Callable[[int], float], available: float, start: int, most: int | None
) -> int:
    """Returns the largest count whose memory is within `available`, at most `most`; 0 if none.

    Every count that decides is measured; a straight line through two measured ones only
    says which to measure next.
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
"""Options of the command line, and the run with them."""


def alone(config: Config, per_chip: int) -> list[Changed]:
    """Returns each option that saves memory by itself."""
    pieces = _more_pieces(config, per_chip)
    changes: list[tuple[dict[str, Any], int]] = [({}, n) for n in pieces[:1]]
    changes += [
        ({name: value}, config.run.accumulate) for name, value in SAVING.items()
    ]
    return _changed(config, changes)


def together(config: Config, per_chip: int) -> list[Changed]:
    """Returns all options at once, in more and more pieces: at last of one photograph."""
    pieces = [config.run.accumulate, *_more_pieces(config, per_chip)]
    before = alone(config, per_chip)
    return [
        change
        for change in _changed(config, [(SAVING, n) for n in pieces])
        if change not in before
    ]


def _more_pieces(config: Config, per_chip: int) -> list[int]:
    """Counts that divide a chip's share, each at least twice the one before."""
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
