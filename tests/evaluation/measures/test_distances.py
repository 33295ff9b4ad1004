"""Distances of sets of features against closed forms, brute force and hand-worked cases."""

import numpy as np
import pytest

from gl_jax.evaluation.measures import distances
from gl_jax.evaluation.measures.distances import (
    Moments,
    frechet_distance,
    kernel_distance,
    precision_recall,
)


def moments(features: np.ndarray) -> Moments:
    found = Moments(features.shape[1])
    found.add(features)
    return found


def gaussian(mean: np.ndarray, covariance: np.ndarray) -> Moments:
    """A set that has exactly this mean and covariance."""
    found = Moments(len(mean), count=11)
    found.total = 11 * mean
    found.products = 10 * covariance + 11 * np.outer(mean, mean)
    return found


def test_mean_and_covariance_are_numpys_in_any_number_of_parts() -> None:
    features = np.random.default_rng(0).normal(3, 1, (20, 4))
    parts = Moments(4)
    for part in (features[:3], features[3:4], features[4:]):
        parts.add(part)
    np.testing.assert_allclose(parts.mean(), features.mean(axis=0))
    np.testing.assert_allclose(parts.covariance(), np.cov(features.T), atol=1e-12)


def test_gaussians_with_commuting_covariances_have_a_closed_form() -> None:
    # |m1 - m2|^2 + sum (s1 - s2)^2 of the deviations along the common axes.
    first, second = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 0.5])
    means = np.array([0.0, 1.0, 2.0]), np.array([1.0, -1.0, 2.0])
    axes, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    one, other = (
        gaussian(mean, axes @ np.diag(deviation**2) @ axes.T)
        for mean, deviation in zip(means, (first, second), strict=True)
    )
    expected = 5 + np.sum((first - second) ** 2)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-9)


def test_two_by_two_covariances_have_a_closed_form() -> None:
    # tr(M^(1/2)) = sqrt(tr M + 2 sqrt(det M)) for M = C1 C2, which is not symmetric here.
    one, other = (
        np.array([[2.0, 0.5], [0.5, 1.0]]),
        np.array([[1.0, -0.7], [-0.7, 3.0]]),
    )
    product = one @ other
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    expected = np.trace(one) + np.trace(other) - 2 * root
    zero = np.zeros(2)
    found = frechet_distance(gaussian(zero, one), gaussian(zero, other))
    assert found == pytest.approx(expected, rel=1e-9)


def test_a_set_is_at_distance_0_from_itself_also_with_fewer_images_than_features() -> (
    None
):
    found = moments(np.random.default_rng(2).normal(size=(5, 40)))
    assert frechet_distance(found, found) == pytest.approx(0, abs=1e-5)


def test_a_shift_of_the_mean_is_its_square() -> None:
    features = np.random.default_rng(3).normal(size=(50, 6))
    found = frechet_distance(moments(features), moments(features + 2))
    assert found == pytest.approx(24, rel=1e-6)


def test_fewer_than_two_images_are_refused() -> None:
    with pytest.raises(ValueError, match="fewer than two"):
        frechet_distance(moments(np.ones((1, 3))), moments(np.ones((2, 3))))


def test_moments_of_nothing_have_no_mean() -> None:
    with pytest.raises(ValueError, match="empty"):
        Moments(3).mean()


# --- KID


def squared_discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimate over all pairs, one at a time."""
    x, y = x.astype(np.float64), y.astype(np.float64)

    def similarity(one: np.ndarray, other: np.ndarray) -> float:
        return (sum(a * b for a, b in zip(one, other, strict=True)) / len(one) + 1) ** 3

    def within(rows: np.ndarray) -> float:
        pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if i != j]
        return sum(similarity(rows[i], rows[j]) for i, j in pairs) / len(pairs)

    across = np.mean([[similarity(a, b) for b in y] for a in x])
    return float(within(x) + within(y) - 2 * across)


def sets(count: int = 12, width: int = 3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(4)
    x, y = generator.normal(size=(2, count, width))
    return x.astype(np.float32), (0.7 * y + 0.4).astype(np.float32)


def test_kid_of_whole_sets_is_that_of_all_pairs() -> None:
    x, y = sets()
    found = kernel_distance(x, y, subsets=3, size=12)
    assert found.mean == pytest.approx(squared_discrepancy(x, y), rel=1e-9)
    assert found.deviation == pytest.approx(0, abs=1e-12)


def test_kid_over_many_subsets_comes_near_that_of_all_pairs() -> None:
    x, y = sets()
    found = kernel_distance(x, y, subsets=4000, size=4)
    error = found.deviation / 4000**0.5
    assert found.deviation > 0
    assert found.mean == pytest.approx(squared_discrepancy(x, y), abs=4 * error)


def test_kid_by_hand() -> None:
    # k(0, 0) = k(0, 1) = 1 and k(1, 1) = 8. Of the 12 pairs within the photographs ten
    # have 1 and two have 8; all pairs of the others have 8; across, half have 8.
    photographs = np.array([[0.0], [0.0], [1.0], [1.0]])
    found = kernel_distance(photographs, np.ones((4, 1)), subsets=2, size=4)
    assert found.mean == pytest.approx(26 / 12 + 8 - 9)


def test_kid_takes_halves_of_a_set_that_is_smaller_than_a_subset() -> None:
    x, y = sets()
    assert kernel_distance(x, y) == kernel_distance(x, y, size=6)
    assert kernel_distance(x, y, seed=1) != kernel_distance(x, y)


# --- precision and recall


def test_precision_and_recall_by_hand() -> None:
    # The third neighbours of 0, 1, 2, 3 are 3, 2, 2 and 3 away: they reach from -3 to 6.
    # Those of -3, 2.5, 6.5, 70 are 73, 67.5, 63.5 and 73 away: they reach everything.
    photographs = np.array([[0.0], [1.0], [2.0], [3.0]])
    completed = np.array([[-3.0], [2.5], [6.5], [70.0]])
    assert precision_recall(photographs, completed) == (0.5, 1.0)
    assert precision_recall(completed, photographs) == (1.0, 0.5)


def test_precision_and_recall_are_those_of_every_pair_in_any_number_of_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(distances, "AT_ONCE", 5)
    generator = np.random.default_rng(6)
    x = generator.normal(size=(17, 2))
    y = generator.normal(1.5, 1.2, size=(13, 2))

    def share(others: np.ndarray, rows: np.ndarray) -> float:
        def reaches(row: np.ndarray, other: np.ndarray) -> bool:
            # The first is the row itself.
            radius = sorted(np.linalg.norm(rows - row, axis=1))[3]
            return float(np.linalg.norm(row - other)) <= radius

        return float(
            np.mean([any(reaches(row, other) for row in rows) for other in others])
        )

    found = precision_recall(x, y)
    assert found == pytest.approx((share(y, x), share(x, y)))
    assert 0 < found.recall < 1 and 0 < found.precision < 1


def test_sets_far_apart_share_nothing_and_a_set_shares_all_with_itself() -> None:
    x, y = sets()
    assert precision_recall(x, x) == (1, 1)
    assert precision_recall(x, y + 100) == (0, 0)


def test_fewer_pictures_than_neighbours_are_refused_by_the_name_of_the_measure() -> (
    None
):
    x, y = sets(3)
    with pytest.raises(ValueError, match=r"KID .* at least 4 pictures.* are 3\."):
        kernel_distance(x, sets(5)[1])
    with pytest.raises(ValueError, match=r"precision and recall .* at least 4"):
        precision_recall(x, y)
    pairs = np.stack([x, y], axis=1)
    of_set = distances.kernel_of_set(pairs) | distances.precision_of_set(pairs)
    assert np.isnan(list(of_set.values())).all()
