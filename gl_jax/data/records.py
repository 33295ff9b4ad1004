"""The interface of a photograph source, and the comparison of two sets."""

import hashlib
import os
from typing import Any, Protocol

LISTED = 1_000
"""Most names stored in a checkpoint, for the comparison with a later set."""


class Source(Protocol):
    """Encoded photographs in a fixed order; safe to read from many threads."""

    def __len__(self) -> int:
        """Returns the number of records, at least 1."""
        ...

    def read(self, index: int) -> bytes:
        """Returns the encoded image; raises OSError or ValueError if unreadable."""
        ...

    def name(self, index: int) -> str:
        """Returns the record's name for messages."""
        ...

    def fingerprint(self) -> str:
        """Returns a hash of the names and sizes in order, which identifies the set."""
        ...

    def sizes(self) -> dict[str, int]:
        """Returns names and sizes of the `LISTED` records of lowest `rank`."""
        ...


def inventory(source: Source) -> dict[str, Any]:
    """Returns number, names and sizes for `changes`, as JSON of at most about 100 kB."""
    return {"count": len(source), "sizes": source.sizes()}


def changes(then: dict[str, Any], now: dict[str, Any]) -> str:
    """Describes the differences of two inventories in one line."""
    # If not all names are listed, only ranks that both lists reach can be compared.
    reach = min(
        max(map(rank, one["sizes"])) if len(one["sizes"]) >= LISTED else 1.0
        for one in (then, now)
    )
    before, after = (
        {name: size for name, size in one["sizes"].items() if rank(name) <= reach}
        for one in (then, now)
    )
    both = before.keys() & after.keys()
    kinds = {
        "gone": sorted(before.keys() - after.keys()),
        "new": sorted(after.keys() - before.keys()),
        "of another size": sorted(n for n in both if before[n] != after[n]),
    }
    sample = "" if reach == 1 else f" of the {len(before)} compared ones"
    parts = [f"{now['count']} instead of {then['count']}"]
    for kind, names in kinds.items():
        if names:
            more = ", ..." if len(names) > 3 else ""
            listed = f"{', '.join(names[:3])}{more}"
            parts.append(f"{len(names)}{sample} {kind} ({listed})")
    return "; ".join(parts)


def evenly_spaced(length: int, count: int) -> list[int]:
    """Returns up to `count` ascending indices, evenly spread over `length` records."""
    count = min(length, count)
    return [i * length // count for i in range(count)]


def rank(name: str) -> float:
    """Returns a pseudo-random number in [0, 1) that depends only on the name."""
    digest = hashlib.sha1(os.fsencode(name), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8]) / 2**64
