"""Prints every thread's stack if a step hangs."""

import sys
import threading
import traceback
from types import TracebackType
from typing import Self


class Watchdog:
    """Writes every thread's stack to stderr, once, after `limit` seconds without a beat.

    The process continues. Stacks are taken by Python code that holds the interpreter's
    lock, so code that hangs while holding the lock is not shown. `faulthandler` needs no
    lock, but can crash the process if a thread is running.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._beats = 0
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(
            target=self._watch, name="watchdog", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        place: TracebackType | None,
    ) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()

    def beat(self) -> None:
        """Restarts the time limit."""
        with self._changed:
            self._beats += 1
            self._changed.notify()

    def _watch(self) -> None:
        reported = 0
        with self._changed:
            while not self._ended:
                beats = self._beats
                # Before the first beat, and after a report, there is no limit.
                limit = self._limit if beats > reported else None
                moved = self._changed.wait(
                    min(limit, threading.TIMEOUT_MAX) if limit else None
                )
                if not moved and beats == self._beats:
                    reported = beats
                    self._show()

    def _show(self) -> None:
        lines = [f"Nothing has happened for {self._limit:g} s. The threads are here:\n"]
        frames = sys._current_frames()
        main = threading.main_thread()
        for thread in sorted(threading.enumerate(), key=lambda t: t is not main):
            frame = frames.get(thread.ident or 0)
            if frame is not None and thread is not threading.current_thread():
                lines += [f"Thread {thread.name}:\n", *traceback.format_stack(frame)]
        sys.stderr.write("".join(lines))
        sys.stderr.flush()
