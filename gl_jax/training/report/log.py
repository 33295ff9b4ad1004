"""metrics.jsonl, the record of a run: one JSON object a line.

Each begins with `step` (completed updates) and `phase`. Lines of training carry the
newest value that each loss and other metric of their phase has had since the line before,
and `images_per_second`; lines of validation carry `val_*` and the largest singular
value of each layer. JSON has no NaN: a value that is not finite is written as null, which
every reader takes for a missing number. `order_hash` stands for all photographs shown so far.
"""

import errno
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gl_jax.config import UsageError
from gl_jax.files import write_whole

Record = dict[str, Any]
"""One line of metrics.jsonl."""


class Log:
    """Writes metrics.jsonl; a line that fails to be written goes out with the next one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unwritten: list[str] = []

    def rewind(self, step: int) -> None:
        """Drops the lines beyond `step`, at 0 all; raises OSError if it cannot write."""
        lines = _lines(self._path) if step else ()
        kept = [line for line, record in lines if record["step"] <= step]
        write_whole(self._path, "".join(kept).encode())

    def append(
        self, step: int, phase: str, values: Mapping[str, float], **marks: str
    ) -> None:
        """Adds a line; OSError if the disk refuses it, which keeps it for later."""
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        record = {"step": step, "phase": str(phase), **finite, **marks}
        self._unwritten.append(json.dumps(record, allow_nan=False) + "\n")
        append(self._path, "".join(self._unwritten).encode())
        self._unwritten.clear()


def read_metrics(path: Path) -> list[Record]:
    """Returns the lines of a metrics.jsonl, none if there is no file.

    A last line cut short by a crash is left out; any other line that is not a JSON
    object with a `step` raises UsageError. Values that were not finite are None.
    """
    return [record for _, record in _lines(path)]


def _lines(path: Path) -> Iterator[tuple[str, Record]]:
    """Yields each complete line, ending in a newline, and its record."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            record = None
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            yield line.rstrip("\n") + "\n", record
        elif number < len(lines) or line.endswith("\n"):
            raise UsageError(
                f"{path}, line {number}, is not a JSON object with a step: "
                "remove or repair this line."
            )


def append(path: Path, content: bytes) -> None:
    """Adds all of `content` or nothing: a torn line would spoil the ones after it."""
    with path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            written = file.write(content)
            if written != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except OSError:
            file.truncate(before)
            raise
