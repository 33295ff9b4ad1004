"""The Fréchet inception distance (Heusel et al. 2017) from sums that can be added up.

A set of images is described by the mean and the covariance of its features. Sums over
parts of a set add up to those of the full set, so hosts and interrupted runs share one.
"""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Float, Float64

from gl_jax.config import UsageError

Features = Float[np.ndarray, "n d"]


@dataclass
class Moments:
    """The sums over a set of features from which mean and covariance follow."""

    width: int
    count: int = 0
    total: Float64[np.ndarray, " d"] = field(init=False)
    products: Float64[np.ndarray, "d d"] = field(init=False)

    def __post_init__(self) -> None:
        """Begins with the empty set."""
        self.total = np.zeros(self.width)
        self.products = np.zeros((self.width, self.width))

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


class Sums(NamedTuple):
    """The moments of the photographs and of their completions so far."""

    truth: Moments
    completed: Moments

    @classmethod
    def empty(cls, width: int) -> Self:
        """Returns sums over no images, with features of `width` numbers."""
        return cls(Moments(width), Moments(width))

    def packed(self, done: int) -> bytes:
        """Returns the sums and the number of entries in them, as bytes for `add`."""
        arrays = {"done": np.array(done)}
        for name, moments in self._asdict().items():
            arrays[f"{name}_count"] = np.array(moments.count)
            arrays[f"{name}_total"] = moments.total
            arrays[f"{name}_products"] = moments.products
        data = io.BytesIO()
        np.savez(data, allow_pickle=False, **arrays)
        return data.getvalue()

    def add(self, data: bytes) -> int:
        """Adds the sums of `packed`, and returns the number of entries in them."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            for name, moments in self._asdict().items():
                moments.count += int(arrays[f"{name}_count"])
                moments.total += arrays[f"{name}_total"]
                moments.products += arrays[f"{name}_products"]
            return int(arrays["done"])


def read_sums(path: Path, width: int) -> tuple[Sums, int]:
    """Returns the sums of an interrupted run and the number of entries in them.

    Without a file the sums are empty. Raises UsageError for a file that is not from
    `packed`.
    """
    sums = Sums.empty(width)
    if not path.exists():
        return sums, 0
    try:
        done = sums.add(path.read_bytes())
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UsageError(
            f"{path} cannot be read ({error}); delete it to measure anew."
        ) from error
    return sums, done


def frechet_distance(one: Moments, other: Moments) -> float:
    """Returns |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), at least 0.

    Equal sets have 0. The trace of the square root is the sum of the square roots of the
    eigenvalues of C1^(1/2) C2 C1^(1/2), which is symmetric: no complex numbers arise, and
    covariances of fewer images than features need no correction.
    """
    first, second = one.covariance(), other.covariance()
    values, vectors = np.linalg.eigh(first)
    root: Any = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    shared = np.linalg.eigvalsh(root @ second @ root)
    cross = np.sqrt(np.clip(shared, 0, None)).sum()
    apart = float(np.sum((one.mean() - other.mean()) ** 2))
    return max(0.0, apart + float(np.trace(first) + np.trace(second) - 2 * cross))
