"""Lets the contestants of a case compute the same, and then take turns at it."""

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import memory
from benchmarks.cases import Case, Contestant
from benchmarks.inputs import processors
from benchmarks.photographs import write_jpegs

ROOT = Path(__file__).parents[1]

# The largest distance of results, by the beginning of their names: the norm of the difference
# over the norm, that of images after subtraction of their mean.
TOLERANCE = {
    # Where rounding moves a value across 0, a ReLU opens or closes and gradients differ by
    # a step. At full size the updates of eager PyTorch and ours were 0.2 % from those of
    # PyTorch in float64, channels_last's 3 %. The adversary judges with weights updated by
    # them, and a logit of 13.8 that is 0.04 too small makes its loss 4 % larger. A wrong
    # layer or a forgotten term makes all of these differ by their own size.
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
# Of 8-bit pixels the average difference, in grey levels: crops are resized by other code,
# completed holes are rounded.
GREY_LEVELS = {"crops": 3.0, "hole": 0.5}

# A turn starts when the threads of the one before have gone to sleep.
PAUSE = 0.1

Record = dict[str, Any]
Log = Callable[[str], None]


class ContestError(RuntimeError):
    """A case that cannot be measured: a contestant failed, or results disagree."""


class Runner:
    """A contestant in a process of its own."""

    def __init__(self, contestant: Contestant) -> None:
        self.name = contestant.name
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(
                filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
            ),
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
        """The answer to a request; ContestError if there is none."""
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
            raise ContestError(f"{self.name}: its process ended with code {code}")
        reply = json.loads(answer)
        if "error" in reply:
            raise ContestError(f"{self.name}, at {request}: {reply['error']}")
        return reply["answer"]

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


def measure(case: Case, repeats: int, log: Log) -> list[Record]:
    """One record for each baseline of the case.

    A baseline that fails is named in the log and left out. Raises ContestError where
    ours fails, where results disagree, and where no baseline is left.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as name, _closing() as runners:
        folder = Path(name)
        settings = case.settings | _photographs(case, folder)
        ours = Runner(case.ours)
        runners.append(ours)
        facts = _prepared(ours, case.ours, case.task, settings)
        ours.ask("export", folder=str(folder))
        ours.ask("outcome", folder=str(folder), name="ours")
        agreement = {}
        for contestant in case.baselines:
            runner = Runner(contestant)
            try:
                known = _prepared(runner, contestant, case.task, settings)
                facts["versions"] |= known["versions"]
                facts["note"] = known["note"] or facts["note"]
                runner.ask("outcome", folder=str(folder), name="baseline")
            except ContestError as error:
                log(f"{case.name}: left out: {error}")
                runner.close()
                continue
            runners.append(runner)
            agreement[contestant.name] = agreed(
                _arrays(folder / "ours.npz"),
                _arrays(folder / "baseline.npz"),
                settings["precision"],
                f"{case.name}, {contestant.name}",
            )
        if not agreement:
            raise ContestError("no baseline is left to compare with")
        times, leads = _turns(runners, repeats, case.lead)
        peaks = {runner.name: runner.ask("peak") for runner in runners}
    facts |= {"repeats": repeats, "settings": case.settings}
    facts |= {"agreement": agreement, "leads": leads}
    return records(case, times, peaks, facts)


def records(
    case: Case,
    times: dict[str, list[float]],
    peaks: dict[str, float],
    facts: dict[str, Any],
) -> list[Record]:
    """The measurements, one object for each baseline; `best` marks the fastest one."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    ours = case.ours.name
    baselines = [name for name in times if name != ours]
    fastest = min(baselines, key=lambda name: medians[name])
    flop = facts.pop("flop", None)
    agreement = facts.pop("agreement", {})
    leads = {
        name: statistics.median(values)
        for name, values in facts.pop("leads", {}).items()
        if values
    }
    return [
        {
            "case": case.name,
            "baseline": name,
            "ratio": medians[name] / medians[ours],
            "ours_seconds": medians[ours],
            "baseline_seconds": medians[name],
            "ours_peak_mb": peaks[ours],
            "baseline_peak_mb": peaks[name],
            "best": name == fastest,
            "precision": case.settings["precision"],
            "device": case.settings["device"],
            "ours_times": times[ours],
            "baseline_times": times[name],
            # Of the runs that each turn began with and that do not count.
            "lead_ratio": leads[name] / leads[ours] if leads else None,
            "flop": flop,
            "largest_differences": agreement.get(name, {}),
        }
        | facts
        for name in baselines
    ]


def agreed(
    ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], precision: str, who: str
) -> dict[str, float]:
    """The distance of each result from ours; ContestError if one is too large."""
    if ours.keys() != theirs.keys():
        raise ContestError(f"{who}: {sorted(ours)} beside {sorted(theirs)}")
    differences = {}
    for name, mine in ours.items():
        other = theirs[name]
        if mine.shape != other.shape:
            raise ContestError(f"{who}: {name} is {mine.shape} beside {other.shape}")
        if name in GREY_LEVELS:
            difference, limit = float(np.abs(mine - other).mean()), GREY_LEVELS[name]
        else:
            limit = TOLERANCE[precision][name.partition(".")[0]]
            middle = other.mean() if other.ndim == 4 else 0.0
            scale = float(np.linalg.norm(other - middle)) or 1.0
            difference = float(np.linalg.norm(mine - other)) / scale
        differences[name] = difference
        if not difference <= limit:
            raise ContestError(
                f"{who}: {name} differs by {difference:.2g}, at most {limit:.2g} allowed"
            )
    return differences


def machine() -> dict[str, Any]:
    """Where it was measured: processor, memory, GPU, and the revision of the code."""
    facts: dict[str, Any] = {
        "processor": _processor(),
        "processors": processors(),
        "memory_gb": round(
            os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1
        ),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
        "peak_mb": memory.DEFINITION,
    }
    gpu = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    if gpu:
        facts["gpu"] = gpu.splitlines()[0]
    return facts


def revision() -> str:
    """The commit, with "+" where the tree has changes that are not in it."""
    commit = _output("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    changed = _output("git", "-C", str(ROOT), "status", "--porcelain")
    return (commit or "unknown") + ("+" if changed else "")


@contextlib.contextmanager
def _closing() -> Iterator[list[Runner]]:
    runners: list[Runner] = []
    try:
        yield runners
    finally:
        for runner in runners:
            runner.close()


def _prepared(
    runner: Runner, contestant: Contestant, task: str, settings: dict[str, Any]
) -> dict[str, Any]:
    everything = settings | contestant.settings
    return runner.ask(
        "start", library=contestant.library, task=task, settings=everything
    )


def _turns(
    runners: list[Runner], repeats: int, lead: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of every turn, A B C, A B C, ..., and of the `lead` runs before each."""
    for runner in runners:
        runner.ask("warm_up")
    times: dict[str, list[float]] = {runner.name: [] for runner in runners}
    leads: dict[str, list[float]] = {runner.name: [] for runner in runners}
    for repeat in range(repeats):
        seeds = [10 + repeat * (1 + lead) + run for run in range(1 + lead)]
        for runner in runners:
            time.sleep(PAUSE)
            *before, counted = (runner.ask("run", seed=seed) for seed in seeds)
            times[runner.name].append(counted)
            leads[runner.name] += before
    return times, leads


def _photographs(case: Case, folder: Path) -> dict[str, str]:
    """The folder of JPEGs of a case that wants one."""
    if case.task != "pipeline":
        return {}
    height, width = case.settings["photograph"]
    write_jpegs(folder / "photographs", 96, height, width)
    return {"folder": str(folder / "photographs")}


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.is_file():
        lines = path.read_text().splitlines()
        names = [line.partition(":")[2] for line in lines if "model name" in line]
        flags = [line.split() for line in lines if line.startswith("flags")]
        if names:
            wide = [w for w in ("avx2", "avx512f", "avx512_bf16") if w in flags[0]]
            return f"{names[0].strip()} ({', '.join(wide)})"
    return platform.processor() or platform.machine()


def _output(*command: str) -> str:
    """The output of a command, or nothing if it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
