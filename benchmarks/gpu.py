"""Measures one GPU in minutes: `python -m benchmarks.gpu`, or `make bench-gpu`.

    python -m benchmarks.gpu --minutes 6 --json runs/bench-gpu.json
    python -m benchmarks.gpu --size tiny --device cpu --json runs/rehearsal.json
    python -m benchmarks.gpu --report runs/bench-gpu.json

It needs JAX with CUDA, Flax, Optax, jaxtyping and PyTorch. First, side by side and not
timed: a step of each phase is compared with the host's, and our programs are compiled into
a cache. Then one process at a time, so that each has the card's memory to itself: a large
matrix product, training steps and photographs of both libraries, a profile. Each has a time
limit, and the file is written after each, so that a run that is cut off keeps what it has.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import accelerators, cases, driver, machine
from benchmarks.cases import Candidate, Case
from gl_jax.config import UsageError
from gl_jax.files import write_output

PAGE = machine.ROOT / "docs" / "performance.md"
PREPARATION = 1 / 3
"""Share of the time that comparing and compiling may take together."""
LIMIT = 1 / 4
"""Share of the time that one library may take for one group of cases."""
LEAST = 10.0
"""Seconds below which nothing more is begun."""
KERNELS = 10
TURNS = {"full": 5, "tiny": 1}


@dataclass(frozen=True)
class Group:
    """Cases that one process does one after the other, the largest memory last."""

    name: str
    precision: cases.Precision
    cases: list[Case]


@dataclass
class Book:
    """The results so far, and the file that holds them."""

    path: Path
    content: dict[str, Any] = field(default_factory=dict)

    def write(self, **values: Any) -> None:
        """Adds the values and writes the file."""
        self.content |= values
        text = json.dumps(self.content, indent=1) + "\n"
        write_output(self.path, text.encode())

    def leave_out(self, name: str, reason: object) -> None:
        """Records a figure that is missing or in doubt, and why."""
        print(f"{name}: left out or in doubt: {reason}", flush=True)
        self.write(left_out=[*self.content["left_out"], f"{name}: {reason}"])


def main(arguments: list[str]) -> int:
    """Measures, or writes the page; a user's mistake is one line and exit code 2."""
    options = _parser().parse_args(arguments)
    try:
        if options.report:
            accelerators.write(Path(options.page), accelerators.read(options.report))
            print(f"Written: {options.page}")
            return 0
        if not options.minutes > 0:
            raise UsageError(f"--minutes (={options.minutes}) must be above 0.")
        return _bench(options)
    except UsageError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2


def groups(size: cases.Size, device: cases.Device) -> list[Group]:
    """Returns the cases, the most important first."""
    made = []
    for precision in ("bfloat16", "float32"):
        known = cases.all_cases(size, device, precision)
        on_card = [c for c in known if c.task in ("training", "inference")]
        steps = cases.select(on_card, ["completion_step", "joint_step"])
        photographs = cases.select(on_card, ["inference"])
        if size == "full" and precision == "float32":
            steps = [
                cases.replace(case, settings=case.settings | {"batch": 32})
                for case in steps
            ]
        made += [Group("steps", precision, steps)]
        made += [Group("inference", precision, photographs)]
    return made


def _bench(options: argparse.Namespace) -> int:
    seconds = 60 * options.minutes
    end = time.monotonic() + seconds
    facts = {
        "machine": machine.facts(),
        "revision": options.revision or machine.revision(),
        "size": options.size,
        "device": options.device,
    }
    book = Book(Path(options.json), facts | {"records": [], "left_out": []})
    book.write()
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as name:
        folder = Path(name)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "cache"))
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
        os.environ["JAX_PLATFORMS"] = "cpu" if options.device == "cpu" else "cuda,cpu"
        todo = groups(options.size, options.device)
        _prepare(book, options, todo, PREPARATION * seconds)
        _note(book, options, "matrix_peak", LIMIT * seconds)
        for group in todo:
            where = folder / f"{group.name}-{group.precision}"
            _measure(book, group, where, options.size, end, LIMIT * seconds)
    left = end - time.monotonic()
    print(f"Written: {options.json}, {left:.0f} seconds before the end.")
    return 1 if book.content["left_out"] else 0


def _prepare(
    book: Book, options: argparse.Namespace, todo: list[Group], limit: float
) -> None:
    """Compares steps with the host's, and compiles our programs, side by side."""
    with ThreadPoolExecutor() as threads:
        compiling = [
            threads.submit(_warmed, alike, limit)
            for group in todo
            for alike in _apart(group)
        ]
        _note(book, options, "parity", limit)
        failures = [future.result() for future in compiling]
    # No harm is done: it is compiled again where it is measured, and says why there.
    print("; ".join(filter(None, failures)) or "compiled", flush=True)


def _apart(group: Group) -> list[list[Case]]:
    """Returns the cases of a group by process: steps take long to compile."""
    if group.name == "inference":
        return [group.cases]
    return [[case] for case in group.cases]


def _warmed(alike: list[Case], limit: float) -> str | None:
    """Runs ours once, for its programs; returns what failed."""
    try:
        with _process(alike[0].ours, limit) as process:
            for case in alike:
                _start(process, case, case.ours)
                process.ask("warm_up")
    except driver.MeasurementError as error:
        precision = alike[0].settings["precision"]
        return f"{alike[0].name}, {precision}, not compiled ahead: {error}"
    return None


def _note(book: Book, options: argparse.Namespace, check: str, limit: float) -> None:
    """Writes what a check of `benchmarks.checks` prints."""
    words = ["-m", "benchmarks.checks", check, "--size", options.size]
    try:
        done = subprocess.run(
            [sys.executable, *words],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=max(1.0, limit),
            cwd=machine.ROOT,
        )
    except (subprocess.SubprocessError, OSError) as error:
        book.leave_out(check, str(error).partition("\n")[0])
        return
    book.write(**{check: json.loads(done.stdout)})
    print(f"{check}: {done.stdout[:2000]}", flush=True)


def _measure(
    book: Book,
    group: Group,
    folder: Path,
    size: cases.Size,
    end: float,
    limit: float,
) -> None:
    """Measures a group by ours and then by each baseline, one process at a time."""
    turns = TURNS[size]
    ours = group.cases[0].ours
    measured: dict[str, dict[str, Any]] = {case.name: {} for case in group.cases}
    for candidate in (ours, *group.cases[0].baselines):
        name = f"{group.name}, {group.precision}, {candidate.name}"
        limit = min(limit, end - time.monotonic())
        if limit < LEAST:
            book.leave_out(name, "no time was left")
            continue
        if candidate is not ours and not any(measured.values()):
            book.leave_out(name, "there is nothing of ours to compare with")
            continue
        if size == "tiny" and "compile" in candidate.name:
            continue  # a minute of compiling says nothing at that size
        print(name, flush=True)
        try:
            with _process(candidate, limit) as process:
                for case in group.cases:
                    if candidate is not ours and not measured[case.name]:
                        continue
                    place = folder / case.name
                    place.mkdir(parents=True, exist_ok=True)
                    values = _timed(process, case, candidate, place, turns)
                    measured[case.name][candidate.name] = values
                    _write(book, case, measured[case.name])
                    if "doubt" in values:
                        book.leave_out(name, f"timed, but {values['doubt']}")
                    if candidate is ours:
                        _profile(book, process, case)
        except driver.MeasurementError as error:
            book.leave_out(name, error)


def _timed(
    process: driver.Process, case: Case, candidate: Candidate, folder: Path, turns: int
) -> dict[str, Any]:
    """Returns a candidate's times and memory; of ours also how much it computes."""
    versions = _start(process, case, candidate)
    values: dict[str, Any] = {"versions": versions, "differences": {}}
    if candidate is case.ours:
        process.ask("export", folder=str(folder))
        process.ask("outcome", folder=str(folder), name="ours")
        values["flops"] = process.ask("flops")
    else:
        process.ask("outcome", folder=str(folder), name="baseline")
        both = [_arrays(folder / f"{name}.npz") for name in ("ours", "baseline")]
        precision, name = case.settings["precision"], f"{case.name}, {candidate.name}"
        try:
            values["differences"] = driver.compare(*both, precision, name)
        except driver.MeasurementError as error:
            # The machine may not come back: it is timed, and the page says this.
            values["doubt"] = str(error)
    process.ask("warm_up")
    values["times"] = [process.ask("run", seed=10 + turn) for turn in range(turns)]
    values["peak"] = process.ask("peak")
    return values


def _write(book: Book, case: Case, measured: dict[str, dict[str, Any]]) -> None:
    """Writes the records of a case, those of an earlier candidate again."""
    ours = measured[case.ours.name]
    records = []
    if len(measured) > 1:
        records = driver.records(
            case,
            {name: values["times"] for name, values in measured.items()},
            {name: [] for name in measured},
            {name: values["peak"] for name, values in measured.items()},
        )
    else:
        records = [_alone(case, ours)]
    for record in records:
        theirs = measured.get(record["baseline"], ours)
        record["flops"] = ours["flops"]
        record["versions"] = ours["versions"] | theirs["versions"]
        record["largest_differences"] = theirs["differences"]
    key = (case.name, case.settings["precision"])
    others = [r for r in book.content["records"] if (r["case"], r["precision"]) != key]
    book.write(records=others + records)


def _alone(case: Case, ours: dict[str, Any]) -> driver.Record:
    """Returns the record of a case that no baseline has been measured in."""
    return {
        "case": case.name,
        "baseline": None,
        "precision": case.settings["precision"],
        "device": case.settings["device"],
        "ours_seconds": float(np.median(ours["times"])),
        "ours_times": ours["times"],
        "ours_peak_mb": ours["peak"],
        "settings": case.settings,
    }


def _profile(book: Book, process: driver.Process, case: Case) -> None:
    """Notes the longest kernels of the joint step, of the first precision measured."""
    if case.name != "joint_step" or "kernels" in book.content:
        return
    kernels = process.ask("kernels", count=KERNELS)
    book.write(kernels=kernels, kernels_of=case.settings["precision"])


def _start(process: driver.Process, case: Case, candidate: Candidate) -> Any:
    return process.ask(
        "start",
        library=candidate.library,
        task=case.task,
        settings=case.settings | candidate.settings,
    )


@contextmanager
def _process(candidate: Candidate, limit: float) -> Iterator[driver.Process]:
    """A worker that is ended after `limit` seconds, whatever it does."""
    process = driver.Process(candidate)
    timer = threading.Timer(limit, process.kill)
    timer.start()
    try:
        yield process
    finally:
        timer.cancel()
        with suppress(BrokenPipeError):
            process.close()


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description="Measures one GPU in minutes."
    )
    add = parser.add_argument
    add("--minutes", type=float, default=6.0, help="all of it (6)")
    add("--json", metavar="FILE", default="runs/bench-gpu.json")
    add("--size", choices=("tiny", "full"), default="full")
    add("--device", choices=("gpu", "cpu"), default="gpu")
    add("--revision", help="of a copy without its history (default: Git's)")
    add("--report", metavar="FILE", help="measure nothing; write this file's tables")
    add("--page", default=str(PAGE), help="the page that --report writes into")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
