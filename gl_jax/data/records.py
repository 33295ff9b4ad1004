"""Photographs by number, from wherever they come, and how two sets of them differ."""

import hashlib
import os
from typing import Any, Protocol

LISTED = 1_000
"""Names that are kept with a checkpoint, to say later what has changed."""


class Source(Protocol):
    """Encoded photographs in a fixed order; safe to read from many threads."""

    def __len__(self) -> int:
        """The number of records, at least 1."""
        ...

    def read(self, index: int) -> bytes:
        """The encoded image; OSError or ValueError where the record cannot be read."""
        ...

    def name(self, index: int) -> str:
        """The name by which a person finds the record."""
        ...

    def fingerprint(self) -> str:
        """A hash of the names and sizes in order: another set has another one."""
        ...

    def sizes(self) -> dict[str, int]:
        """Names and sizes, of at most `LISTED` records: those of lowest `rank`."""
        ...


def inventory(source: Source) -> dict[str, Any]:
    """Number, names and sizes for `changes` to compare later; JSON of at most some 100 kB."""
    return {"count": len(source), "sizes": source.sizes()}


def changes(then: dict[str, Any], now: dict[str, Any]) -> str:
    """Tells how two inventories differ, in one line: numbers and a few names."""
    # Where not all names are listed, only ranks that both lists reach can be compared.
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
    sample = "" if reach == 1 else f" of the {len(before)} that were compared"
    parts = [f"{now['count']} where there were {then['count']}"]
    for kind, names in kinds.items():
        if names:
            more = ", ..." if len(names) > 3 else ""
            listed = f"{', '.join(names[:3])}{more}"
            parts.append(f"{len(names)}{sample} {kind} ({listed})")
    return "; ".join(parts)


def evenly_spaced(length: int, count: int) -> list[int]:
    """At most `count` indices spread evenly over `length` records, ascending."""
    count = min(length, count)
    return [i * length // count for i in range(count)]


def rank(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    digest = hashlib.sha1(os.fsencode(name), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8]) / 2**64
