"""Shows the progress of a batch: lines, or a bar on a terminal."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Protocol

SECONDS = 5.0
"""Seconds between two progress lines of long work."""


class Occasionally:
    """Passes on at most one line every `SECONDS`, and drops the others."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._due = time.monotonic() + SECONDS

    def __call__(self, text: str) -> None:
        """Passes the line on, or drops it."""
        now = time.monotonic()
        if now >= self._due:
            self._log(text)
            self._due = now + SECONDS


class Progress(Protocol):
    """A display of lines and of the number of finished photos."""

    def line(self, text: str) -> None:
        """Shows a line."""
        ...

    def advance(self, name: str) -> None:
        """Counts a photo as finished."""
        ...


@contextlib.contextmanager
def shown(total: int, log: Callable[[str], None]) -> Iterator[Progress]:
    """Yields a bar if stderr is a terminal and there are several photos, else lines."""
    if total > 1 and sys.stderr.isatty():
        with _Bar(total) as bar:
            yield bar
    else:
        yield _Lines(total, log)


class _Lines:
    def __init__(self, total: int, log: Callable[[str], None]) -> None:
        self._total, self._log, self._done = total, log, 0

    def line(self, text: str) -> None:
        self._log(text)

    def advance(self, name: str) -> None:
        self._done += 1
        if self._total > 1:
            self._log(f"{self._done}/{self._total} {name}")


class _Bar:
    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("", total=total)

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def line(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)

    def advance(self, name: str) -> None:
        self._progress.update(self._task, advance=1, description=name)
