"""Confidence intervals of shares, and agreement between people."""

import math

import numpy as np
from jaxtyping import Int

Z = 1.959963984540054
"""The normal distribution's quantile of 97.5 %."""


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Returns Wilson's 95 % interval of a share, `successes` of `count`.

    Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    It is never empty and within [0, 1], also for shares of 0 and 1 and for few answers
    (Brown, Cai and DasGupta, 2001). Without answers it is [0, 1].
    """
    if not count:
        return 0.0, 1.0
    share, square = successes / count, Z * Z / count
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    # The ends at shares of 0 and 1 are exact; rounding would leave 1e-17.
    low = middle - half if successes else 0.0
    high = middle + half if successes < count else 1.0
    return low, high


def krippendorff_alpha(counts: Int[np.ndarray, "units values"]) -> float:
    """Returns Krippendorff's alpha for nominal values; NaN if all answers are the same.

    `counts` are the answers of each value to each unit. 1 is complete agreement, 0 chance
    level. Unlike Fleiss' kappa, alpha takes any number of answers per unit; it leaves out
    units with fewer than two. Krippendorff (2011), "Computing
    Krippendorff's alpha-reliability", section C: alpha = 1 - observed / expected
    disagreement.
    """
    paired = counts[counts.sum(axis=1) >= 2].astype(np.float64)
    totals = paired.sum(axis=0)
    count = totals.sum()
    expected = count**2 - (totals**2).sum()
    if expected == 0:
        return math.nan
    of_units = paired.sum(axis=1)
    unequal = of_units**2 - (paired**2).sum(axis=1)
    observed = (unequal / (of_units - 1)).sum()
    return float(1 - (count - 1) * observed / expected)
