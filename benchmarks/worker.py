"""A process with one library that works on request: `python -m benchmarks.worker`.

Requests come on standard input and answers go to standard output, one line of JSON each:
{"do": "start", ...}, then "export", "outcome", "warm_up", "run" and "peak".
"""

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.tasks import FIRST

MODULES = {"jax": "benchmarks.ours", "torch": "benchmarks.peer"}


class Worker:
    """A task of one library, with one method for each request."""

    _side: Any = None

    def start(self, library: str, task: str, settings: dict[str, Any]) -> Any:
        """Imports the library, notes the memory, prepares the task; returns versions.

        Asked again, it prepares another task on the same device.
        """
        if self._side is None:
            self._side = importlib.import_module(MODULES[library])
            self._side.start(settings)
        self._task: Any = None
        machine.reset_peak()
        self._at_start = machine.resident()
        self._task = self._side.TASKS[task](settings)
        return self._side.versions()

    def export(self, folder: str) -> None:
        """Writes what the baselines need to compute the same."""
        self._task.export(Path(folder))

    def outcome(self, folder: str, name: str) -> None:
        """Computes the results to compare and writes them."""
        np.savez(Path(folder) / f"{name}.npz", **self._task.outcome(Path(folder)))

    def warm_up(self) -> None:
        """Does an uncounted run; the peak memory is measured from here on."""
        self._task.run(FIRST + 1)
        machine.reset_peak()

    def run(self, seed: int) -> float:
        """Returns the seconds of one run."""
        return float(self._task.run(seed))

    def flops(self) -> float:
        """Returns the floating-point operations of one piece of work."""
        return float(self._task.flops())

    def kernels(self, count: int) -> list[dict[str, Any]]:
        """Returns what takes the longest in one run, from a profile; JAX only."""
        from benchmarks.checks import longest

        return longest(lambda: self._task.run(FIRST + 2), count)

    def peak(self) -> float:
        """Returns the peak memory since `warm_up`, in MB."""
        process = self._side.peak_bytes(self._at_start)
        return self._task.peak_bytes(process) / machine.MB


def serve() -> None:
    """Answers requests until there are no more."""
    # Output of the libraries must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"answer": getattr(worker, request.pop("do"))(**request)}
        except Exception as error:
            traceback.print_exc()
            reason = " ".join(str(error).split()) or "no reason given"
            answer = {"error": f"{type(error).__name__}: {reason[:300]}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve()
