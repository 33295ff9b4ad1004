"""The tables of docs/performance.md, written from the JSON of a bench."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gl_jax.config import UsageError

Record = dict[str, Any]

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

COLUMNS = "case | precision | against | ratio | ours | theirs | memory".split(" | ")
DEVICES = {"cpu": "Processors", "gpu": "GPUs"}

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
    replace(page, (BEGIN, END), markdown(records))


def replace(page: Path, marks: tuple[str, str], body: str) -> None:
    """Replaces the text between two marks of a page.

    Raises UsageError if the page cannot be read or has no marks.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{page} cannot be read: {error.strerror}.") from error
    before, begin, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise UsageError(
            f"{page} needs the lines {marks[0]} and {marks[1]} around its tables."
        )
    page.write_text(f"{before}{begin}\n\n{body}\n\n{end}{after}", encoding="utf-8")


def markdown(records: list[Record]) -> str:
    """Returns the machines, and a table for each kind of device."""
    parts = ["\n".join(dict.fromkeys(machine_line(record) for record in records))]
    for device, title in DEVICES.items():
        rows = [cells(record) for record in records if record["device"] == device]
        if rows:
            parts += [f"### {title}", table(COLUMNS, rows)]
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


def table(header: list[str], rows: list[list[str]]) -> str:
    """Returns a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine_line(record: Record) -> str:
    """Returns the machine, the versions and the revision of a measurement."""
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
