"""Distances of a set of completed pictures from the photographs, by their features.

All measures use the features of one network, a row of numbers per picture: the Fréchet
distance (Heusel et al. 2017; FID if the network is Inception), the
kernel distance (Bińkowski et al. 2018; KID), precision and recall (Kynkäänniemi et al.
2019, whose own features are VGG-16's).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float64

Features = Float[np.ndarray, "n d"]
Others = Float[np.ndarray, "m d"]
"""Features of another set, perhaps of another number of pictures."""
Pairs = Float[np.ndarray, "n 2 d"]
"""Features of photographs and, second, of their completions."""

SUBSETS = 100
"""Subsets over which KID is averaged, as in the authors' code."""
SUBSET = 1000
"""Pictures in a subset, as in the authors' code; half of the set if it is smaller."""
NEIGHBOURS = 3
"""The paper's k: a picture covers the distance to its k-th nearest neighbour."""
FEWEST = NEIGHBOURS + 1
"""Fewest pictures with NEIGHBOURS neighbours each; KID then has subsets of two."""
AT_ONCE = 1024
"""Rows of features converted to float64 at once; bounds the memory."""


@dataclass
class Moments:
    """Sums over a set of features, for their mean and covariance."""

    width: int
    count: int = 0
    total: Float64[np.ndarray, " d"] = field(init=False)
    products: Float64[np.ndarray, "d d"] = field(init=False)

    def __post_init__(self) -> None:
        """Begins with the empty set."""
        self.total = np.zeros(self.width)
        self.products = np.zeros((self.width, self.width))

    @classmethod
    def of(cls, features: Features) -> "Moments":
        """Returns the sums over rows of features, converted to float64 in parts."""
        moments = cls(features.shape[1])
        for start in range(0, len(features), AT_ONCE):
            moments.add(features[start : start + AT_ONCE])
        return moments

    def add(self, features: Features) -> None:
        """Adds the features of more images."""
        values = np.asarray(features, np.float64)
        self.count += len(values)
        self.total += values.sum(axis=0)
        self.products += values.T @ values

    def mean(self) -> Float64[np.ndarray, " d"]:
        """Returns the mean; raises ValueError for an empty set."""
        if not self.count:
            raise ValueError("an empty set has no mean.")
        return self.total / self.count

    def covariance(self) -> Float64[np.ndarray, "d d"]:
        """Returns the covariance over n - 1; raises ValueError below two images."""
        if self.count < 2:
            raise ValueError("fewer than two images have no covariance.")
        mean = self.mean()
        return (self.products - self.count * np.outer(mean, mean)) / (self.count - 1)


def frechet_distance(one: Moments, other: Moments) -> float:
    """Returns |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), at least 0.

    Equal sets have 0. The trace of the root is computed from the eigenvalues of the
    symmetric C1^(1/2) C2 C1^(1/2): no complex numbers arise, and covariances of fewer
    images than features need no correction.
    """
    first, second = one.covariance(), other.covariance()
    values, vectors = np.linalg.eigh(first)
    root: Any = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    shared = np.linalg.eigvalsh(root @ second @ root)
    cross = np.sqrt(np.clip(shared, 0, None)).sum()
    apart = float(np.sum((one.mean() - other.mean()) ** 2))
    return max(0.0, apart + float(np.trace(first) + np.trace(second) - 2 * cross))


def kernel_of_set(features: Pairs) -> dict[str, float]:
    """Returns KID and its deviation by name, NaN for fewer than FEWEST pictures."""
    if len(features) < FEWEST:
        return {"kid": math.nan, "kid_deviation": math.nan}
    kid = kernel_distance(features[:, 0], features[:, 1])
    return {"kid": kid.mean, "kid_deviation": kid.deviation}


def precision_of_set(features: Pairs) -> dict[str, float]:
    """Returns precision and recall by name, NaN for fewer than FEWEST pictures."""
    if len(features) < FEWEST:
        return {"precision": math.nan, "recall": math.nan}
    return precision_recall(features[:, 0], features[:, 1])._asdict()


class KernelDistance(NamedTuple):
    """Mean over subsets of pictures, and standard deviation over n - 1."""

    mean: float
    deviation: float


def kernel_distance(
    photographs: Features,
    completed: Others,
    *,
    subsets: int = SUBSETS,
    size: int = SUBSET,
    seed: int = 0,
) -> KernelDistance:
    """Returns the squared maximum mean discrepancy with the kernel (x.y / d + 1)^3.

    The estimate is unbiased (Gretton et al. 2012, equation 3): around 0 for two sets of one
    distribution, perhaps negative. It is averaged over subsets of `size` pictures drawn
    from each set without replacement, or of half of the smaller set if that has fewer.
    Raises ValueError for fewer than FEWEST pictures.
    """
    _require_pictures("KID", photographs, completed)
    fewer = min(len(photographs), len(completed))
    size = size if fewer >= size else fewer // 2
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(subsets):
        x, y = (
            rows[rng.choice(len(rows), size, replace=False)].astype(np.float64)
            for rows in (photographs, completed)
        )
        # A picture's similarity to itself is not counted.
        same = sum(_kernel(z, z).sum() - np.trace(_kernel(z, z)) for z in (x, y))
        values.append(same / (size * (size - 1)) - 2 * _kernel(x, y).mean())
    return KernelDistance(float(np.mean(values)), float(np.std(values, ddof=1)))


class PrecisionRecall(NamedTuple):
    """Shares of pictures in [0, 1]."""

    precision: float
    """Share of the completed pictures among the photographs."""
    recall: float
    """Share of the photographs among the completed pictures."""


def precision_recall(photographs: Features, completed: Others) -> PrecisionRecall:
    """Returns the share of each set among the other (equations 1 and 2).

    A picture is among a set if its distance from one of the set's pictures is at most that
    of this one's third nearest neighbour in the set. Raises ValueError for fewer than
    FEWEST pictures.
    """
    _require_pictures("precision and recall", photographs, completed)
    return PrecisionRecall(
        _share_among(photographs, completed), _share_among(completed, photographs)
    )


def _kernel(x: Features, y: Others) -> Float64[np.ndarray, "n m"]:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _share_among(features: Features, others: Others) -> float:
    """Returns the share of `others` among `features`."""
    among = np.zeros(len(others), bool)
    own, across = _distances(features, features), _distances(features, others)
    for (start, near), (_, far) in zip(own, across, strict=True):
        rows = np.arange(len(near))
        near[rows, start + rows] = np.inf
        radius = np.partition(near, NEIGHBOURS - 1, axis=1)[:, NEIGHBOURS - 1]
        among |= (far <= radius[:, None]).any(axis=0)
    return float(among.mean())


def _distances(
    x: Features, y: Others
) -> Iterator[tuple[int, Float64[np.ndarray, "rows m"]]]:
    """Yields the first row and the squared distances of rows of `x` from all of `y`."""
    y = y.astype(np.float64)
    lengths = np.square(y).sum(axis=1)
    for start in range(0, len(x), AT_ONCE):
        rows = x[start : start + AT_ONCE].astype(np.float64)
        yield start, np.square(rows).sum(axis=1)[:, None] + lengths - 2 * rows @ y.T


def _require_pictures(name: str, *sets: Float[np.ndarray, "_ d"]) -> None:
    fewest = min(map(len, sets))
    if fewest < FEWEST:
        raise ValueError(
            f"for {name} each set needs at least {FEWEST} pictures, {NEIGHBOURS} "
            f"neighbours for each; there are {fewest}."
        )
