"""The tables of docs/performance.md, written from the JSON of a bench."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gl_jax.config import UsageError

Record = dict[str, Any]

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

COLUMNS = "case | precision | against | ratio | ours | theirs | memory".split(" | ")
ACCELERATORS = {"gpu": "GPU", "tpu": "TPU"}

WIDTHS = (22, 9, 26, 12, 8, 8, 0)
"""Characters of each column in the terminal."""


def text_line(cells: list[str]) -> str:
    """Returns the cells of a row for the terminal."""
    return " ".join(
        cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)
    ).rstrip()


def read(paths: Iterable[Path]) -> list[Record]:
    """Returns the records of all files, of two of the same comparison the later one.

    Raises UsageError if a file is missing or is not one of the bench's.
    """
    latest: dict[tuple[Any, ...], Record] = {}
    for path in paths:
        try:
            for record in json.loads(path.read_text(encoding="utf-8")):
                names = ("device", "precision", "case", "baseline")
                latest[tuple(record[name] for name in names)] = record
                markdown([record])  # fails here if a field is missing
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(
                f"{path} is not a file of the bench: {error!r}."
            ) from error
    if not latest:
        raise UsageError("there is not a single measurement in these files.")
    return list(latest.values())


def write(page: Path, records: list[Record]) -> None:
    """Replaces the text between the page's two marks.

    Raises UsageError if the page cannot be read or has no marks.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{page} cannot be read: {error.strerror}.") from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UsageError(f"{page} needs the lines {BEGIN} and {END} around its tables.")
    body = markdown(records)
    page.write_text(f"{before}{begin}\n\n{body}\n\n{end}{after}", encoding="utf-8")


def markdown(records: list[Record]) -> str:
    """Returns the machines, a table for processors, and one for accelerators."""
    by_device = {
        device: [record for record in records if record["device"] == device]
        for device in ("cpu", *ACCELERATORS)
    }
    accelerators = [
        row
        for device, name in ACCELERATORS.items()
        for row in (
            [[name, *cells(record)] for record in by_device[device]]
            or [[name, "not measured", *[""] * (len(COLUMNS) - 1)]]
        )
    ]
    processors = [cells(record) for record in by_device["cpu"]]
    parts = [
        "\n".join(dict.fromkeys(_machine(record) for record in records)),
        "### Processors",
        _table(COLUMNS, processors) if processors else "Not measured.",
        "### Accelerators",
        _table(["device", *COLUMNS], accelerators),
    ]
    return "\n\n".join(parts)


def seconds(value: float) -> str:
    """Returns a time with three digits in seconds or milliseconds."""
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"


def cells(record: Record) -> list[str]:
    """Returns a row of the table; the fastest baseline is bold.

    In brackets behind the ratio is that of the uncounted runs.
    """
    name, start = record["baseline"], record["ratio_of_uncounted"]
    ours, theirs = record["ours_peak_mb"], record["baseline_peak_mb"]
    return [
        record["case"],
        record["precision"],
        f"**{name}**" if record["best"] else name,
        f"{record['ratio']:.2f}" + (f" ({start:.2f})" if start else ""),
        seconds(record["ours_seconds"]),
        seconds(record["baseline_seconds"]),
        f"{ours:.0f} / {theirs:.0f} MB = {ours / max(1e-9, theirs):.2f}",
    ]


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _machine(record: Record) -> str:
    machine = record["machine"]
    parts = [
        machine["processor"],
        f"{machine['processors']} processors",
        f"{machine['memory_gb']} GB",
        machine["gpu"],
        machine["system"],
        f"Python {machine['python']}",
        *(f"{name} {version}" for name, version in record["versions"].items()),
    ]
    place = ", ".join(part for part in parts if part)
    return f"- {place}; revision {record['revision']}, size {record['size']}."
