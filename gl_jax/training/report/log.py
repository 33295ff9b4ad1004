"""metrics.jsonl, the record of a run: one JSON object a line.

Each begins with `step` (completed updates) and `phase` and has its `time` (Unix seconds).
Lines of training carry the newest value that each loss and other metric of their phase has
had since the line before; lines of validation carry `val_*` and the largest singular
value of each layer. JSON has no NaN: a value that is not finite is written as null, which
every reader takes for a missing number. `order_hash` stands for all photographs shown so far.

Of the steps since the line before, but for those that were compiled: `images_per_second`,
and the seconds of a step in which the host waits for photographs (`data_seconds`), hands a
step to the devices and waits for them (`device_seconds`), and works itself
(`host_seconds`); `mfu`, model FLOP utilisation, if the devices' peak is known. `goodput` is
the share of the time since the run's first start that was spent on steps which count:
neither compiling, validating and saving, nor between two lives of the run, nor on steps
that an interruption or a rollback lost. `peak_memory_bytes` is the most that a device of
this host has held at once, as far as the platform tells.
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

METRICS = "metrics.jsonl"
EVALUATIONS = "evaluations.jsonl"
"""In a run's folder: what `gl-jax evaluate --follow` measured, a line for a checkpoint."""

Record = dict[str, Any]
"""One line of metrics.jsonl."""

MEASURED = frozenset(
    "time images_per_second data_seconds device_seconds host_seconds mfu goodput "
    "peak_memory_bytes".split()
)
"""Values of the machine, in which the logs of equal runs differ."""


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
        self, step: int, phase: str, values: Mapping[str, float], **marks: str | float
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


def read_history(workdir: Path) -> list[Record]:
    """Returns the lines of a run and of its evaluations, in the order of their steps.

    Raises UsageError as `read_metrics` does.
    """
    both = [*read_metrics(workdir / METRICS), *read_metrics(workdir / EVALUATIONS)]
    return sorted(both, key=lambda record: record["step"])


def evaluations_by_step(workdir: Path) -> dict[int, Record]:
    """Returns the newest evaluation of each checkpoint that was evaluated."""
    return {record["step"]: record for record in read_metrics(workdir / EVALUATIONS)}


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
