"""The accelerator part of docs/performance.md, written from the file of `benchmarks.gpu`."""

import json
from pathlib import Path
from typing import Any

from benchmarks import report
from gl_jax.config import UsageError

BEGIN, END = "<!-- accelerators: begin -->", "<!-- accelerators: end -->"
COLUMNS = [*report.COLUMNS, "of the peak"]
NAMES = {"gpu": "GPU", "tpu": "TPU", "cpu": "a processor (a rehearsal)"}

Measured = dict[str, Any]


def read(path: str | Path) -> Measured:
    """Returns what a file holds. Raises UsageError if it is none of `benchmarks.gpu`."""
    try:
        measured: Measured = json.loads(Path(path).read_text(encoding="utf-8"))
        markdown(measured)  # fails here if a field is missing
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path} is not a file of the bench: {error!r}.") from error
    return measured


def write(page: Path, measured: Measured) -> None:
    """Replaces the text between the page's two marks for accelerators."""
    report.replace(page, (BEGIN, END), markdown(measured))


def markdown(measured: Measured | None = None) -> str:
    """Returns the tables; without measurements, rows that say so."""
    if measured is None:
        return _table([_empty("GPU"), _empty("TPU")])
    name = NAMES[measured["device"]]
    peak = measured.get("matrix_peak", {})
    rows = [[name, *_cells(record, peak)] for record in measured["records"]]
    rows = rows or [_empty(name)]
    if name != "TPU":
        rows.append(_empty("TPU"))
    parts = [_machine(measured), _table(rows)]
    if peak:
        rates = ", ".join(f"{kind} {rate / 1e12:.3g}" for kind, rate in peak.items())
        parts.append(f"A large matrix product there, in TFLOP/s: {rates}.")
    if "parity" in measured:
        parts.append(
            "A step of each phase beside the host's in float32 with full products, "
            "differences as norms over norms:"
        )
        parts.append(report.table(*_parity(measured["parity"])))
    if "kernels" in measured:
        kernels = [
            [f"`{k['name'][:60]}`", f"{100 * k['share']:.1f} %", str(k["calls"])]
            for k in measured["kernels"]
        ]
        parts.append(
            f"The longest kernels of the joint step in {measured['kernels_of']}:"
        )
        parts.append(report.table(["kernel", "of all", "calls"], kernels))
    if measured["left_out"]:
        listed = "\n".join(f"- {line}" for line in measured["left_out"])
        parts.append(f"Left out, or in doubt:\n\n{listed}")
    return "\n\n".join(parts)


def _cells(record: Measured, peak: dict[str, float]) -> list[str]:
    share = ""
    if rate := peak.get(record["precision"]):
        share = f"{100 * record['flops'] / record['ours_seconds'] / rate:.0f} %"
    if record["baseline"] is None:
        ours = report.seconds(record["ours_seconds"])
        memory = f"{record['ours_peak_mb']:.0f} MB"
        blank = [record["case"], record["precision"], "not measured", ""]
        return [*blank, ours, "", memory, share]
    return [*report.cells(record), share]


def _parity(compared: list[Measured]) -> tuple[list[str], list[list[str]]]:
    header = ["phase", "precision", "differences", "agrees"]
    return header, [
        [
            step["phase"],
            step["precision"],
            ", ".join(f"{n} {d:.1g}" for n, d in step["differences"].items()),
            "yes" if step["agrees"] else "**no**",
        ]
        for step in compared
    ]


def _empty(name: str) -> list[str]:
    return [name, "not measured", *[""] * (len(COLUMNS) - 1)]


def _table(rows: list[list[str]]) -> str:
    return report.table(["device", *COLUMNS], rows)


def _machine(measured: Measured) -> str:
    versions: dict[str, str] = {}
    for record in measured["records"]:
        versions |= record["versions"]
    return report.machine_line(measured | {"versions": versions})
