"""Crops of the photographs that can be read, and a count of those that cannot."""

import threading
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from gl_jax.config import UsageError
from gl_jax.data.records import Source
from gl_jax.images import read_crop

Crop = UInt8[np.ndarray, "side side 3"]

SUFFICIENT = 1000
"""Records after which the share of unreadable ones is known well enough."""


class CorruptDataError(RuntimeError):
    """More photographs than `data.max_corrupt_share` allows cannot be read."""


class ReadableCrops:
    """Crops of a source's photographs; the next one replaces an unreadable one.

    Record r that cannot be read is replaced by the first readable one of r+1, r+2, ...,
    which keeps every crop a function of its position. Each is named once in the log.
    CorruptDataError is raised once they are more than `max_corrupt_share` of the
    distinct records tried so far. At least 1,000 records, or all of a smaller set,
    count as tried, so that an early one does not stop a run; a single one is tolerated
    in a set of any size, unless the share is 0.
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
        """Reads a crop of record `index`, or of the next one that can be read.

        The arguments are those of `images.read_crop`.

        Raises as `read_numbered` does.
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
        """Reads a crop as `read` does; returns it with the number of its record.

        Raises CorruptDataError, or UsageError if 1,000 records in a row, or all of
        fewer, cannot be read.
        """
        row = min(len(self.source), SUFFICIENT)
        for candidate in range(index, index + row):
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
            f"{row} of {row} photographs cannot be read: {self._corrupt[index]}"
        )

    def _mark(self, index: int, *, reason: str | None = None) -> None:
        """Counts a record as tried, and with a `reason` as unreadable."""
        if reason is None and self._tried[index]:
            return
        with self._lock:
            self._tried_count += int(not self._tried[index])
            self._tried[index] = True
            if reason is None or index in self._corrupt:
                return
            self._corrupt[index] = reason
        self._log(f"unreadable photograph, the next takes its place: {reason}")

    def _check_share(self) -> None:
        count, tried = len(self._corrupt), self._tried_count
        allowed = self._share * max(tried, min(len(self.source), SUFFICIENT))
        if count > max(allowed, 1 if self._share else 0):
            *_, last = self._corrupt.values()
            raise CorruptDataError(
                f"{count} of {tried} photographs cannot be read, more than "
                f"data.max_corrupt_share (={self._share}) allows; the last: {last}"
            )
