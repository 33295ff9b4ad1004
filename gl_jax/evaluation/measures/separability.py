"""P-IDS and U-IDS: linear separability of completed pictures and photographs.

These are the inception discriminative scores of Zhao et al. 2021 (CoModGAN), as in MAT's
program: a linear support vector machine is fitted to the features of both sets. P-IDS is
the share of pictures with a more real score than their photograph, U-IDS the misclassified
share of pictures and photographs: 0 if all are separated, at best about a half. Fewer
pictures than features can always be separated.
"""

import math
import warnings
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

Loss = Literal["squared_hinge", "hinge"]
PASSES = 1000
"""Most iterations of the solver, the library's default."""


class Discriminative(NamedTuple):
    """Shares in [0, 1]; NaN if the solver did not converge."""

    paired: float
    """P-IDS."""
    unpaired: float
    """U-IDS."""


def discriminative_scores(
    photographs: Float[np.ndarray, "n d"],
    completed: Float[np.ndarray, "n d"],
    loss: Loss = "squared_hinge",
) -> Discriminative:
    """Returns P-IDS and U-IDS; row i of both sets belongs to one photograph.

    Published scores use the squared hinge, the default of scikit-learn's LinearSVC (C = 1,
    `dual=False`); `hinge` is the usual loss of a support vector machine.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    machine = LinearSVC(
        loss=loss, dual=loss == "hinge", max_iter=PASSES, random_state=0
    )
    labels = np.repeat([1, 0], [len(photographs), len(completed)])
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            machine.fit(np.concatenate([photographs, completed]), labels)
        except ConvergenceWarning:
            return Discriminative(math.nan, math.nan)
    real, fake = (machine.decision_function(x) for x in (photographs, completed))
    # A value of 0 counts as completed, as in `predict`.
    mistaken = np.mean(np.concatenate([real <= 0, fake > 0]))
    return Discriminative(float(np.mean(fake > real)), float(mistaken))


def notes(
    scores: Mapping[int, Mapping[str, float]], count: int, width: int
) -> list[str]:
    """Returns notes on sets of `count` pictures if their scores, by seed, mean little."""
    lines = []
    if count < width:
        lines.append(
            f"P-IDS and U-IDS of {count} pictures, fewer than their {width} features, are "
            "0 or near it: a linear machine can always separate such sets."
        )
    if any(math.isnan(value) for row in scores.values() for value in row.values()):
        lines.append(
            "P-IDS and U-IDS without a value: the solver did not converge in "
            f"{PASSES} iterations."
        )
    return lines


def of_set(features: Float[np.ndarray, "n 2 d"]) -> dict[str, float]:
    """Returns the scores in percent by name, for both losses.

    `features` are of photographs and, second, of their completions.
    """
    values: dict[str, float] = {}
    losses: tuple[tuple[str, Loss], ...] = (("", "squared_hinge"), ("hinge_", "hinge"))
    for name, loss in losses:
        scores = discriminative_scores(features[:, 0], features[:, 1], loss)
        for kind, score in zip("pu", scores, strict=True):
            values[f"{kind}_ids_{name}percent"] = 100 * score
    return values
