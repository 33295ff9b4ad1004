"""Minutes to steps: how many steps each phase takes, and the learning rate in each."""

from collections.abc import Mapping

from gl_jax.config import Phase

SHARES = {Phase.COMPLETION: 0.5, Phase.DISCRIMINATOR: 0.03, Phase.JOINT: 0.47}
"""Shares of the time that each phase gets."""
TUNED_FROM = 0.75
"""Share of the completion phase that has the squared error alone."""


def ends(
    start: float, end: float, shares: Mapping[Phase, float] = SHARES
) -> dict[Phase, float]:
    """The clock at which each phase ends, of the time from `start` to `end`.

    Phases that are left out of `shares` leave their time to the others.
    """
    total, passed = sum(shares.values()), 0.0
    clocks = {}
    for phase, share in shares.items():
        passed += share
        clocks[phase] = start + (end - start) * passed / total
    return clocks


def planned(done: int, left: float, seconds: float) -> int:
    """All steps of a phase, `done` ones included, if each of the others takes `seconds`.

    At least one more than those done while there is time left; none more without.
    """
    return done + max(1 if left > 0 else 0, int(left / seconds))


def rate(done: int, total: int, warmup: int) -> float:
    """The factor of the learning rate in the step that follows `done` ones.

    It rises over `warmup` steps and falls in a line to the end: the last step has 1/total.
    """
    return min(1.0, (done + 1) / max(1, warmup)) * max(0, total - done) / total


def tuned(done: int, total: int) -> bool:
    """True in the end of the completion phase, when its structural term counts."""
    return done >= TUNED_FROM * total
