"""Requests to stop: SIGTERM, Ctrl-C, and a pod's notice of preemption.

A signal handler could interrupt a save that is already running, so it saves nothing. It
only sets a flag, which the loop reads between two steps.
"""

import os
import signal
import types
from collections.abc import Callable
from typing import Self

import jax
from jax.experimental import multihost_utils

# A shell's exit code for a process ended by SIGTERM; schedulers restart on it.
EXIT_CODE = 128 + signal.SIGTERM


class Interrupted(SystemExit):
    """The run has saved its state and stopped on request; exits with code 143."""

    def __init__(self, step: int) -> None:
        super().__init__(EXIT_CODE)
        self.step = step


class Interruption:
    """Records SIGTERM and the first Ctrl-C inside the `with` block instead of stopping.

    A second Ctrl-C calls `leaving` and exits at once. In a run over several hosts JAX's
    preemption service handles SIGTERM, and all hosts agree on the last step.
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
        """Returns whether to stop after `step`; all hosts get the same answer."""
        if jax.process_count() == 1:
            return self._requested
        if self._requested:
            # JAX's service passes a SIGTERM of this host on to the others.
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
