"""Crops of readable photographs, with a limit on the unreadable ones."""

import threading
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from gl_jax.config import UsageError
from gl_jax.data.records import Source
from gl_jax.images import read_crop

Crop = UInt8[np.ndarray, "side side 3"]

SUFFICIENT = 1000
"""Tried records after which the share of unreadable ones is a good estimate."""


class CorruptDataError(RuntimeError):
    """More photographs are unreadable than `data.max_corrupt_share` allows."""


class ReadableCrops:
    """Crops of a source's photographs; the next photograph replaces an unreadable one.

    An unreadable record r is replaced by the first readable one of r+1, r+2, ..., so
    that every crop depends only on its position. Each is logged once. CorruptDataError is
    raised if more than `max_corrupt_share` of the distinct records tried so far are
    unreadable. At least 1,000 records, or all of a smaller set, count as tried, so that
    an early one does not stop a run. A single one is always tolerated unless the share
    is 0.
    """

    def __init__(
        self, source: Source, max_corrupt_share: float, log: Callable[[str], None]
    ) -> None:
        self.source = source
        self._share = max_corrupt_share
        self._log = log
        self._tried = np.zeros(len(source), bool)
        self._tried_count = 0
        self._corrupt: dict[int, str] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.source)

    def read(
        self,
        index: int,
        *,
        shortest: int,
        side: int,
        place: tuple[float, float] = (0.5, 0.5),
    ) -> Crop:
        """Reads a crop of record `index`, or of the next readable one.

        The arguments are those of `images.read_crop`; the errors are those of
        `read_numbered`.
        """
        return self.read_numbered(index, shortest=shortest, side=side, place=place)[0]

    def read_numbered(
        self,
        index: int,
        *,
        shortest: int,
        side: int,
        place: tuple[float, float] = (0.5, 0.5),
        exact: bool = True,
    ) -> tuple[Crop, int]:
        """Reads a crop like `read`; returns it with the number of its record.

        Raises CorruptDataError, or UsageError if 1,000 consecutive records, or all of a
        smaller set, are unreadable.
        """
        attempts = min(len(self.source), SUFFICIENT)
        for candidate in range(index, index + attempts):
            candidate %= len(self.source)
            if candidate in self._corrupt:
                continue
            name = self.source.name(candidate)
            try:
                data = self.source.read(candidate)
                crop = read_crop(
                    data,
                    name,
                    shortest=shortest,
                    side=side,
                    place=place,
                    exact=exact,
                )
            except (OSError, ValueError) as error:
                self._mark(candidate, reason=f"{error}")
            else:
                self._mark(candidate)
                if candidate != index:
                    self._check_share()
                return crop, candidate
        raise UsageError(
            f"{attempts} of {attempts} photographs cannot be read: "
            f"{self._corrupt[index]}"
        )

    def _mark(self, index: int, *, reason: str | None = None) -> None:
        """Marks a record as tried and, with a `reason`, as unreadable."""
        if reason is None and self._tried[index]:
            return
        with self._lock:
            self._tried_count += int(not self._tried[index])
            self._tried[index] = True
            if reason is None or index in self._corrupt:
                return
            self._corrupt[index] = reason
        self._log(f"unreadable photograph, replaced by the next one: {reason}")

    def _check_share(self) -> None:
        count, tried = len(self._corrupt), self._tried_count
        allowed = self._share * max(tried, min(len(self.source), SUFFICIENT))
        if count > max(allowed, 1 if self._share else 0):
            *_, last = self._corrupt.values()
            raise CorruptDataError(
                f"{count} of {tried} photographs cannot be read, more than "
                f"data.max_corrupt_share (={self._share}) allows; the last: {last}"
            )
