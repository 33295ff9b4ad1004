"""The command line: `python -m benchmarks --help`."""

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks import driver, machine, report
from benchmarks.cases import Case, all_cases, select, select_baselines
from gl_jax.config import UsageError

BUSY = 0.3
"""Load for each processor from which on times say little."""

PAGE = machine.ROOT / "docs" / "performance.md"


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    try:
        if options.report:
            records = report.read([Path(name) for name in options.report])
            report.write(Path(options.page), records)
            print(f"Written: {options.page}")
            return 0
        return _bench(options)
    except UsageError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2


def _bench(options: argparse.Namespace) -> int:
    if options.repeats is not None and options.repeats < 1:
        raise UsageError(f"--repeats (={options.repeats}) must be at least 1.")
    cases = _selected(options)
    if options.list:
        print("\n".join(dict.fromkeys(case.name for case in cases)))
        return 0
    common = {
        "size": options.size,
        "machine": machine.facts(),
        "revision": machine.revision(),
    }
    load, processors = (common["machine"][key] for key in ("load_before", "processors"))
    if load > BUSY * processors and options.size == "full":
        print(
            f"The machine is busy (load {load}): wait until it is not. Threads that wait "
            "for each other, PyTorch's above all, then lose many times their time."
        )
    measured: list[driver.Record] = []
    failures = 0
    print(report.text_line(report.COLUMNS))
    for case in cases:
        start = time.perf_counter()
        try:
            records = driver.measure(case, print, options.repeats)
        except driver.MeasurementError as error:
            print(f"{case.name}: not measured: {error}", file=sys.stderr)
            failures += 1
            continue
        for record in records:
            print(report.text_line(report.cells(record)), flush=True)
        print(f"  ({time.perf_counter() - start:.0f} s)", flush=True)
        measured += [record | common for record in records]
        if options.json:
            # Written after every case, so that a later failure loses nothing.
            path = Path(options.json)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    return 1 if failures else 0


def _selected(options: argparse.Namespace) -> list[Case]:
    device = options.device or ("gpu" if Path("/dev/nvidia0").exists() else "cpu")
    precisions = [options.precision] if options.precision else ["float32"]
    if options.precision is None and device == "gpu":
        precisions.append("bfloat16")
    names, baselines = (
        [name for name in (text or "").split(",") if name]
        for text in (options.cases, options.against)
    )
    cases: list[Case] = []
    for precision in precisions:
        known = list(all_cases(options.size, device, precision))
        cases += select(select_baselines(known, baselines, options.size), names)
    return cases


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures the speed and memory of gl_jax beside PyTorch, in turn.",
    )
    add = parser.add_argument
    add("--cases", help="comma-separated names; `inference` means every inference_...")
    add("--against", help="comma-separated baselines (default: all)")
    add("--json", metavar="FILE", help="write one object for each comparison")
    add("--size", choices=("tiny", "full"), default="full")
    add("--repeats", type=int, metavar="N", help="turns of each library")
    add("--device", choices=("cpu", "gpu"), help="default: the GPU if there is one")
    add(
        "--precision",
        choices=("float32", "bfloat16"),
        help="default: float32; on a GPU both",
    )
    add("--list", action="store_true", help="print the names of the cases and exit")
    add(
        "--report",
        nargs="+",
        metavar="FILE",
        help="measure nothing; write the tables of these JSON files into the page",
    )
    add("--page", default=str(PAGE), help="the page that --report writes into")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
