"""Intervals and agreement against values worked by hand or published."""

import math

import numpy as np
import pytest

from gl_jax.study.statistics import krippendorff_alpha, wilson


@pytest.mark.parametrize(
    ("successes", "count", "interval"),
    [
        # z² = 3.8415: the middle is (0.8 + z²/20) / (1 + z²/10) = 0.7167, half the width
        # z sqrt(0.8 * 0.2 / 10 + z²/400) / (1 + z²/10) = 0.2266.
        (8, 10, (0.4902, 0.9433)),
        # Without a success it ends at z² / (n + z²).
        (0, 10, (0.0, 0.2775)),
        (10, 10, (0.7225, 1.0)),
        (0, 0, (0.0, 1.0)),
    ],
)
def test_wilsons_interval(
    successes: int, count: int, interval: tuple[float, float]
) -> None:
    assert wilson(successes, count) == pytest.approx(interval, abs=5e-5)


def counted(rows: str) -> np.ndarray:
    """Counts each value in each unit, a column; a dot is no answer."""
    columns = zip(*(row.split() for row in rows.split("\n")), strict=True)
    return np.array([[column.count(v) for v in "012345"] for column in columns])


# Krippendorff (2011), "Computing Krippendorff's alpha-reliability", sections A and C.
TWO_PEOPLE = "0 1 0 0 0 0 0 0 1 0\n1 1 1 0 0 1 0 0 0 0"
FOUR_PEOPLE_WITH_GAPS = """\
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 ."""


@pytest.mark.parametrize(
    ("rows", "alpha"),
    [
        # By hand: 14 zeros, 6 ones, 4 of 10 units unequal: 1 - 19 * 8 / (2 * 14 * 6).
        (TWO_PEOPLE, 1 - 19 * 8 / 168),
        (FOUR_PEOPLE_WITH_GAPS, 0.743),
        ("0 1 1 0\n0 1 1 0", 1.0),
    ],
)
def test_krippendorffs_alpha(rows: str, alpha: float) -> None:
    assert krippendorff_alpha(counted(rows)) == pytest.approx(alpha, abs=5e-4)


@pytest.mark.parametrize("rows", ["0 0\n0 0", "0 1\n. .", ". .\n. ."])
def test_agreement_without_two_values_or_pairs_is_no_number(rows: str) -> None:
    assert math.isnan(krippendorff_alpha(counted(rows)))
