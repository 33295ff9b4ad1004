"""One contestant: a process with one library, told what to do by lines of JSON.

Requests come on standard input and answers go to standard output, one line each:
{"do": "start", ...} and then "export", "outcome", "warm_up", "run", "peak".
"""

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import memory
from benchmarks.inputs import FIRST

MODULES = {"jax": "benchmarks.ours", "torch": "benchmarks.peer"}


class Worker:
    """A task of one library, driven by the requests: one method for each."""

    def start(self, library: str, task: str, settings: dict[str, Any]) -> Any:
        """Imports the library, notes the memory, and prepares the task."""
        self._side = importlib.import_module(MODULES[library])
        self._side.start(settings)
        memory.reset_peak()
        self._at_start = memory.resident()
        self._task = self._side.TASKS[task](settings)
        facts = {"versions": self._side.versions()}
        for name in ("flop", "note"):
            value = getattr(self._task, name, None)
            facts[name] = value() if value is not None else None
        return facts

    def export(self, folder: str) -> None:
        """Writes what the others need to compute the same."""
        self._task.export(Path(folder))

    def outcome(self, folder: str, name: str) -> None:
        """Computes what is compared, and writes it."""
        np.savez(Path(folder) / f"{name}.npz", **self._task.outcome(Path(folder)))

    def warm_up(self) -> None:
        """One turn that does not count; the memory is watched from here on."""
        self._task.run(FIRST + 1)
        memory.reset_peak()

    def run(self, seed: int) -> float:
        """Seconds of one turn."""
        return float(self._task.run(seed))

    def peak(self) -> float:
        """The most memory used since `warm_up`, in MB."""
        own = getattr(self._task, "peak_bytes", None)
        if own is not None:
            return own() / memory.MB
        extra = getattr(self._task, "extra_bytes", lambda: 0)()
        return (self._side.peak_bytes(self._at_start) + extra) / memory.MB


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
