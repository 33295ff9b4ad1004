"""Requests to stop: SIGTERM, Ctrl-C, and a pod's notice of preemption.

Nothing is saved inside a signal handler (a handler can interrupt the very save that it
would start). A request only sets a flag; the loop asks for it between two steps.
"""

import os
import signal
import types
from collections.abc import Callable
from typing import Self

import jax
from jax.experimental import multihost_utils

# What a shell reports for a process ended by SIGTERM; schedulers restart on it.
EXIT_CODE = 128 + signal.SIGTERM


class Interrupted(SystemExit):
    """The run stopped on request, its state saved; carries exit code 143."""

    def __init__(self, step: int) -> None:
        super().__init__(EXIT_CODE)
        self.step = step


class Interruption:
    """Within the `with` block, SIGTERM and the first Ctrl-C are noted instead of obeyed.

    A second Ctrl-C leaves at once, after a call of `leaving`. In a run over several hosts
    JAX's own preemption service listens for SIGTERM, and all hosts agree on the step to
    stop after.
    """

    def __init__(self, leaving: Callable[[], None] = lambda: None) -> None:
        self._leaving = leaving
        self._requested = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Self:
        # With several hosts a Python handler for SIGTERM would disable JAX's.
        single = jax.process_count() == 1
        signals = (signal.SIGINT, signal.SIGTERM) if single else (signal.SIGINT,)
        for number in signals:
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def requested(self, step: int) -> bool:
        """Whether to stop after `step`; the same answer on every host."""
        if jax.process_count() == 1:
            return self._requested
        if self._requested:
            # Ctrl-C on one host reaches the others as a preemption of this one.
            self._requested = False
            os.kill(os.getpid(), signal.SIGTERM)
        return bool(multihost_utils.reached_preemption_sync_point(step))

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        if self._requested and number == signal.SIGINT:
            try:
                self._leaving()
            finally:
                os._exit(128 + signal.SIGINT)
        self._requested = True
