"""P-IDS and U-IDS against the machine's own problem, solved another way."""

import numpy as np
import pytest
from scipy.optimize import minimize

from gl_jax.evaluation.measures import separability
from gl_jax.evaluation.measures.separability import discriminative_scores


def sets(count: int = 60, width: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Photographs and completions, overlapping and in pairs of the same mean."""
    rng = np.random.default_rng(3)
    photographs = rng.normal(0, 1, (count, width))
    return photographs, photographs + rng.normal(0.3, 0.8, (count, width))


def scores(real: np.ndarray, fake: np.ndarray) -> tuple[float, float]:
    """The shares from the values of the cut, one picture at a time."""
    paired = [f > r for r, f in zip(real, fake, strict=True)]
    wrong = [r <= 0 for r in real] + [f > 0 for f in fake]
    return sum(paired) / len(paired), sum(wrong) / len(wrong)


def test_scores_are_those_of_the_squared_hinges_minimum() -> None:
    photographs, completed = sets()
    rows = np.concatenate([photographs, completed])
    rows = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    labels = np.repeat([1, -1], len(photographs))

    # liblinear's problem: |w, b|^2 / 2 + sum of max(0, 1 - y f)^2, C = 1.
    def objective(weights: np.ndarray) -> float:
        slack = np.maximum(0, 1 - labels * (rows @ weights))
        return float(weights @ weights / 2 + slack @ slack)

    weights = minimize(objective, np.zeros(4), tol=1e-12).x
    values = rows @ weights
    expected = scores(values[:60], values[60:])
    assert discriminative_scores(photographs, completed) == pytest.approx(expected)
    assert 0.1 < expected[1] < 0.5


def test_the_plain_hinges_scores_are_those_of_its_minimum() -> None:
    photographs, completed = sets(12, 2)
    rows = np.concatenate([photographs, completed])
    rows = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    labels = np.repeat([1, -1], len(photographs))
    # |w, b|^2 / 2 + sum of slacks, which are at least 0 and at least 1 - y f.
    solution = minimize(
        lambda x: x[:3] @ x[:3] / 2 + x[3:].sum(),
        np.concatenate([np.zeros(3), np.ones(24)]),
        jac=lambda x: np.concatenate([x[:3], np.ones(24)]),
        bounds=[(None, None)] * 3 + [(0, None)] * 24,
        constraints={
            "type": "ineq",
            "fun": lambda x: labels * (rows @ x[:3]) - 1 + x[3:],
            "jac": lambda x: np.hstack([labels[:, None] * rows, np.eye(24)]),
        },
        method="SLSQP",
    )
    assert solution.success
    values = rows @ solution.x[:3]
    expected = scores(values[:12], values[12:])
    assert discriminative_scores(photographs, completed, "hinge") == pytest.approx(
        expected
    )


def test_sets_that_a_cut_tells_apart_have_0_and_equal_ones_a_half() -> None:
    photographs, _ = sets()
    assert discriminative_scores(photographs, photographs - 20) == (0, 0)
    equal = separability.of_set(np.stack([photographs, photographs], axis=1))
    assert equal["p_ids_percent"] == 0, "none is more real than itself"
    assert equal["u_ids_percent"] == equal["u_ids_hinge_percent"] == 50


def test_an_unsolved_machine_has_no_value_and_a_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(separability, "PASSES", 1)
    values = separability.of_set(np.stack(sets(), axis=1))
    assert np.isnan(values["p_ids_hinge_percent"])
    (line,) = separability.notes({0: values}, 60, 3)
    assert "did not converge in 1 iterations" in line
    assert "fewer than their 61 features" in separability.notes({}, 60, 61)[0]
