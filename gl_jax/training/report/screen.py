"""The screen: a progress bar in a terminal, plain lines elsewhere; uses rich."""

import errno
import os
import sys

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a full disk."""


def say(text: str) -> None:
    """Prints a line; the line is lost if stdout is a file on a full disk."""
    try:
        print(text, flush=True)
    except OSError as error:
        if error.errno not in FULL:
            raise
        # What is still in the buffer would fail again, at last when Python ends.
        stdout, nowhere = sys.stdout.fileno(), os.open(os.devnull, os.O_WRONLY)
        kept = os.dup(stdout)
        os.dup2(nowhere, stdout)
        sys.stdout.flush()
        os.dup2(kept, stdout)
        os.close(kept)
        os.close(nowhere)


class _PlainLines:
    """For files and pipes: a line at each log step."""

    def __init__(self, total: int) -> None:
        self._total = total

    def message(self, text: str) -> None:
        say(text)

    def progress(self, step: int, phase: str) -> None:
        pass

    def training(self, step: int, phase: str, facts: list[str]) -> None:
        total = f"{self._total:,}"
        head = f"{step:>{len(total)},}/{total}  {phase:<13}"
        self.message("  ".join([head, *facts]).rstrip())

    def validation(self, step: int, facts: list[str]) -> None:
        self.training(step, "validation", facts)

    def close(self) -> None:
        pass


class _Bar:
    """For terminals: a bar, and below it the latest losses, speed and validation."""

    def __init__(self, total: int, start_step: int) -> None:
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress = Progress(
            TextColumn("{task.description:<13}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:,}/{task.total:,}"),
            expand=True,
        )
        self._task = self._progress.add_task(
            "starting", total=total, completed=start_step
        )
        self._trained: list[str] = []
        self._validated: list[str] = []
        self._live = Live(self._progress, refresh_per_second=4)
        self._live.start()

    def message(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def progress(self, step: int, phase: str) -> None:
        self._progress.update(self._task, completed=step, description=str(phase))

    def training(self, step: int, phase: str, facts: list[str]) -> None:
        self._trained = facts
        self.progress(step, phase)
        self._show()

    def validation(self, step: int, facts: list[str]) -> None:
        self._validated = facts
        self._show()

    def _show(self) -> None:
        from rich.columns import Columns
        from rich.console import Group
        from rich.text import Text

        facts = [Text(fact, "dim") for fact in self._trained + self._validated]
        self._live.update(Group(self._progress, Columns(facts, padding=(0, 2))))

    def close(self) -> None:
        self._live.stop()


Screen = _PlainLines | _Bar


def open_screen(total: int, start_step: int) -> Screen:
    """Returns a bar for a terminal, plain lines for everything else."""
    redraws = sys.stdout.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    return _Bar(total, start_step) if redraws else _PlainLines(total)


def duration(seconds: float) -> str:
    """Returns `42 s`, `12 min`, `3 h 5 min` or `4 d 7 h`."""
    seconds = round(seconds)
    minutes, hours = seconds // 60, seconds // 3600
    if minutes < 1:
        return f"{seconds} s"
    if hours < 1:
        return f"{minutes} min"
    if hours < 48:
        return f"{hours} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"
