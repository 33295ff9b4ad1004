"""Measures a case: its libraries compute the same first, and then take turns on the clock."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import Candidate, Case
from benchmarks.machine import ROOT
from benchmarks.photographs import write_jpegs

# The largest difference of results, by the beginning of their names: the norm of the
# difference over the norm, that of images after subtraction of their mean.
TOLERANCE = {
    # Where rounding moves a value across 0, a ReLU opens or closes and gradients differ by
    # a step. At full size the updates of eager PyTorch and ours were 0.2 % from those of
    # PyTorch in float64, channels_last's 3 %. The adversarial loss is that of discriminators
    # updated by them, and a logit of 13.8 that is 0.04 too small makes it 4 % larger. A
    # wrong layer or a forgotten term makes all of these differ by their own size.
    "float32": {
        "loss": 1e-3,
        "adversarial": 0.15,
        "update": 0.1,
        "completed": 1e-3,
        "composite": 1e-3,
    },
    # Eight bits of precision through 17 layers: enough to tell a right network from a
    # wrong one, and no more.
    "bfloat16": {
        "loss": 0.05,
        "adversarial": 1.0,
        "update": 0.5,
        "completed": 5e-2,
        "composite": 5e-2,
    },
}
# The largest average difference of 8-bit pixels, in grey levels: the libraries resize crops
# by different code, and round completed holes.
GREY_LEVELS = {"crops": 3.0, "hole": 0.5}

PAUSE = 0.1
"""Seconds before each turn, in which the threads of the one before go to sleep."""

JPEGS = 96
"""Photographs in the folder that the input pipelines read."""

Record = dict[str, Any]
Times = dict[str, list[float]]


class MeasurementError(RuntimeError):
    """A case that cannot be measured: a library failed, or results disagree."""


class Process:
    """A candidate in a process of its own, a `benchmarks.worker`."""

    def __init__(self, candidate: Candidate) -> None:
        self.name = candidate.name
        paths = (str(ROOT), os.environ.get("PYTHONPATH", ""))
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            # Two libraries share the GPU: neither may take it whole.
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, request: str, **arguments: Any) -> Any:
        """Returns the answer to a request; raises MeasurementError if there is none."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            line = json.dumps({"do": request} | arguments)
            print(line, file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            code = self._process.wait()
            raise MeasurementError(f"{self.name}: its process ended with code {code}")
        reply = json.loads(answer)
        if "error" in reply:
            raise MeasurementError(f"{self.name}, at {request}: {reply['error']}")
        return reply["answer"]

    def kill(self) -> None:
        """Ends the process in the middle of its work."""
        self._process.kill()

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def measure(
    case: Case, log: Callable[[str], None], repeats: int | None = None
) -> list[Record]:
    """Returns a record for each baseline, by default with the repeats of the case.

    A baseline that fails is named in the log and left out. Raises MeasurementError if
    ours fails, if results disagree, or if no baseline is left.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as name, _closing() as processes:
        folder, settings = Path(name), case.settings
        if case.task == "pipeline":
            write_jpegs(folder / "photographs", JPEGS, *settings["photograph"])
            settings = settings | {"folder": str(folder / "photographs")}
        repeats = repeats or settings["repeats"]

        def start(candidate: Candidate) -> Process:
            process = Process(candidate)
            processes.append(process)
            versions.update(
                process.ask(
                    "start",
                    library=candidate.library,
                    task=case.task,
                    settings=settings | candidate.settings,
                )
            )
            return process

        versions: dict[str, str] = {}
        differences = {}
        ours = start(case.ours)
        ours.ask("export", folder=name)
        ours.ask("outcome", folder=name, name="ours")
        for candidate in case.baselines:
            try:
                start(candidate).ask("outcome", folder=name, name="baseline")
            except MeasurementError as error:
                log(f"{case.name}: left out: {error}")
                processes.pop().close()
                continue
            differences[candidate.name] = compare(
                _arrays(folder / "ours.npz"),
                _arrays(folder / "baseline.npz"),
                settings["precision"],
                f"{case.name}, {candidate.name}",
            )
        if not differences:
            raise MeasurementError("no baseline is left to compare with")
        times, first = take_turns(processes, repeats, settings["uncounted"])
        peaks = {process.name: process.ask("peak") for process in processes}
    measured = records(case, times, first, peaks)
    for record in measured:
        record["versions"] = versions
        record["largest_differences"] = differences[record["baseline"]]
    return measured


def compare(
    ours: dict[str, np.ndarray],
    theirs: dict[str, np.ndarray],
    precision: str,
    name: str,
) -> dict[str, float]:
    """Returns the difference of each result; raises MeasurementError if one is too large."""
    if ours.keys() != theirs.keys():
        raise MeasurementError(f"{name}: {sorted(ours)} beside {sorted(theirs)}")
    differences = {}
    for key, mine in ours.items():
        other = theirs[key]
        if mine.shape != other.shape:
            raise MeasurementError(
                f"{name}: {key} is {mine.shape} beside {other.shape}"
            )
        if key in GREY_LEVELS:
            difference, limit = float(np.abs(mine - other).mean()), GREY_LEVELS[key]
        else:
            limit = TOLERANCE[precision][key.partition(".")[0]]
            middle = other.mean() if other.ndim == 4 else 0.0
            scale = float(np.linalg.norm(other - middle)) or 1.0
            difference = float(np.linalg.norm(mine - other)) / scale
        differences[key] = difference
        if not difference <= limit:
            raise MeasurementError(
                f"{name}: {key} differs by {difference:.2g}, at most {limit:.2g} allowed"
            )
    return differences


def take_turns(
    processes: list[Process], repeats: int, uncounted: int
) -> tuple[Times, Times]:
    """Returns each one's counted seconds, A B C, A B C, ..., and its uncounted ones."""
    for process in processes:
        process.ask("warm_up")
    times: Times = {process.name: [] for process in processes}
    first: Times = {process.name: [] for process in processes}
    runs = uncounted + 1
    for turn in range(repeats):
        for process in processes:
            time.sleep(PAUSE)
            seeds = range(10 + turn * runs, 10 + (turn + 1) * runs)
            *before, counted = (process.ask("run", seed=seed) for seed in seeds)
            times[process.name].append(counted)
            first[process.name] += before
    return times, first


def records(
    case: Case, times: Times, first: Times, peaks: dict[str, float]
) -> list[Record]:
    """Returns the measurements beside each baseline; `best` marks the fastest baseline."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    starts = {name: statistics.median(v) for name, v in first.items() if v}
    ours = case.ours.name
    baselines = [name for name in times if name != ours]
    fastest = min(baselines, key=lambda name: medians[name])
    return [
        {
            "case": case.name,
            "baseline": name,
            "ratio": medians[name] / medians[ours],
            "ratio_of_uncounted": starts[name] / starts[ours] if starts else None,
            "ours_seconds": medians[ours],
            "baseline_seconds": medians[name],
            "ours_peak_mb": peaks[ours],
            "baseline_peak_mb": peaks[name],
            "best": name == fastest,
            "precision": case.settings["precision"],
            "device": case.settings["device"],
            "ours_times": times[ours],
            "baseline_times": times[name],
            "settings": case.settings,
        }
        for name in baselines
    ]


@contextlib.contextmanager
def _closing() -> Iterator[list[Process]]:
    processes: list[Process] = []
    try:
        yield processes
    finally:
        for process in processes:
            process.close()


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)
