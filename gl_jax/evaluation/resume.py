"""Files of finished results, from which an interrupted measurement goes on.

A journal has JSON lines: first the settings, then a record for each result, written at
once. Arrays are stored beside it as binary records. An incomplete last line or record is
dropped.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from gl_jax.config import UsageError
from gl_jax.files import reading, writing

Record = dict[str, Any]


class Journal:
    """A file of JSON records to append to; `records` are those of earlier calls."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Opens or creates the journal.

        `settings` are JSON values, all that the results depend on. Raises UsageError,
        which names them, if the file has other settings, and if it cannot be read or
        written.
        """
        self.path = path
        # In JSON tuples become lists.
        settings = json.loads(json.dumps(dict(settings)))
        lines, length = _lines(path)
        self.records: list[Record] = []
        if lines:
            head, *self.records = lines
            self._require_same(head.get("settings", {}), settings)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                with path.open("r+b") as file:
                    file.truncate(length)
            self._file = path.open("a", encoding="utf-8")
        if not lines:
            self.add({"settings": settings})

    def __enter__(self) -> "Journal":
        """Returns the journal itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the file."""
        self._file.close()

    def add(self, record: Mapping[str, Any]) -> None:
        """Writes and flushes a record, so that it survives a kill of the process."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def _require_same(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        changed = [
            f"{name} was {_short(before.get(name))}, is {_short(now.get(name))}"
            for name in dict.fromkeys([*before, *now])
            if before.get(name) != now.get(name)
        ]
        if changed:
            raise UsageError(
                f"{self.path.parent} holds results with other settings: "
                f"{'; '.join(changed)}. Name another folder, or delete {self.path} to "
                "begin anew."
            )


class ArrayRecords:
    """A file of records of one structured type to append to, without a header."""

    def __init__(self, path: Path, fields: np.dtype, *, anew: bool) -> None:
        """Opens or creates the file; `anew` drops its contents.

        Raises UsageError if it cannot be read or written.
        """
        self.path = path
        self.fields = fields
        with writing(path):
            self._file = path.open("w+b" if anew or not path.exists() else "r+b")
            size = self._file.seek(0, 2)
            self._file.truncate(size - size % fields.itemsize)
            self._file.seek(0, 2)

    def __enter__(self) -> "ArrayRecords":
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the file."""
        self._file.close()

    def add(self, records: np.ndarray) -> None:
        """Writes and flushes records, so that they survive a kill of the process."""
        with writing(self.path):
            self._file.write(records.tobytes())
            self._file.flush()

    def read(self) -> np.ndarray:
        """Returns all records, earlier calls' included, in the order of writing."""
        with reading(self.path):
            self._file.seek(0)
            return np.frombuffer(self._file.read(), self.fields)


def _lines(path: Path) -> tuple[list[Record], int]:
    """Returns the complete lines of the file, and their length in bytes."""
    with reading(path):
        if not path.exists():
            return [], 0
        data = path.read_bytes()
    length = data.rfind(b"\n") + 1
    try:
        records = [json.loads(line) for line in data[:length].splitlines()]
    except ValueError as error:
        raise UsageError(
            f"{path} is no journal of an evaluation, or damaged ({error}); delete it to "
            "begin anew."
        ) from error
    if not all(isinstance(record, dict) for record in records):
        raise UsageError(f"{path} is no journal of an evaluation.")
    return records, length


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 24 else f"{text[:12]}..."
