"""The command line: `python -m benchmarks --help`."""

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks import contest, report
from benchmarks.cases import Case, against, all_cases, chosen
from gl_jax.config import UsageError

# Load for each processor from which on times say little.
BUSY = 0.3

PAGE = contest.ROOT / "docs" / "performance.md"


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    try:
        if options.report:
            page = Path(options.page)
            report.write(page, report.read([Path(name) for name in options.report]))
            print(f"Written: {page} and {page.with_name(report.PLOT)}")
            return 0
        return _bench(options)
    except UsageError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2


def _bench(options: argparse.Namespace) -> int:
    if options.repeats is not None and options.repeats < 1:
        raise UsageError(f"--repeats (={options.repeats}) must be at least 1.")
    device = options.device or ("gpu" if Path("/dev/nvidia0").exists() else "cpu")
    precisions = [options.precision] if options.precision else ["float32"]
    if options.precision is None and device == "gpu":
        precisions.append("bfloat16")
    names, rivals = (
        [name for name in (text or "").split(",") if name]
        for text in (options.cases, options.against)
    )
    cases: list[Case] = []
    for precision in precisions:
        known = list(all_cases(options.size, device, precision))
        cases += chosen(against(known, rivals, options.size), names)
    if options.list:
        print("\n".join(dict.fromkeys(case.name for case in cases)))
        return 0
    common = {
        "size": options.size,
        "machine": contest.machine(),
        "revision": contest.revision(),
    }
    load = common["machine"]["load_before"]
    if load > BUSY * common["machine"]["processors"] and options.size == "full":
        print(
            f"The machine is busy (load {load}): wait until it is not. Threads that wait "
            "for each other, PyTorch's above all, then lose many times their time."
        )
    found: list[contest.Record] = []
    failures = 0
    print(report.TEXT_HEADER)
    for case in cases:
        began = time.perf_counter()
        try:
            new = contest.measure(case, options.repeats or case.repeats, print)
        except contest.ContestError as error:
            print(f"{case.name}: not measured: {error}", file=sys.stderr)
            failures += 1
            continue
        for record in new:
            print(report.text_line(record), flush=True)
        print(f"  ({time.perf_counter() - began:.0f} s)", flush=True)
        found += [record | common for record in new]
        if options.json:
            # After every case, so that what was measured outlives what fails later.
            path = Path(options.json)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Speed and memory of gl_jax beside PyTorch, measured in turn.",
    )
    add = parser.add_argument
    add("--cases", help="names, with commas between; `inference` means all of them")
    add("--against", help="baselines, with commas between; by default all")
    add("--json", metavar="FILE", help="write a list of objects, one each comparison")
    add("--size", choices=("tiny", "full"), default="full")
    add("--repeats", type=int, metavar="N", help="turns of each contestant")
    add(
        "--device", choices=("cpu", "gpu"), help="by default the GPU where there is one"
    )
    add(
        "--precision",
        choices=("float32", "bfloat16"),
        help="by default float32, on a GPU both",
    )
    add("--list", action="store_true", help="print the names of the cases and stop")
    add(
        "--report",
        nargs="+",
        metavar="FILE",
        help="measure nothing; write tables and plot of these JSON files into the page",
    )
    add("--page", default=str(PAGE), help="the page that --report writes into")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
