"""Tables of means with their standard errors, as Markdown, CSV and JSON."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A mean and its standard error; NaN if there are too few values for it."""

    mean: float
    standard_error: float


def estimate(values: Iterable[float]) -> Estimate:
    """Returns the mean and its standard error s / sqrt(n), with s over n - 1."""
    numbers = np.array(list(values), np.float64)
    count = len(numbers)
    if count == 0:
        return Estimate(math.nan, math.nan)
    # An infinite value (the PSNR of a perfect result) leaves no finite deviation.
    with np.errstate(invalid="ignore"):
        error = numbers.std(ddof=1) / math.sqrt(count) if count > 1 else math.nan
    return Estimate(float(numbers.mean()), float(error))


class Column(NamedTuple):
    """The displayed title of a column and its digits after the point."""

    title: str
    digits: int


@dataclass(frozen=True)
class Table:
    """Estimates by row and column, with notes."""

    caption: str
    columns: Mapping[str, Column]
    """Columns by their names in CSV and JSON."""
    rows: Mapping[str, Mapping[str, Estimate]]
    counts: Mapping[str, int]
    """Number of photographs by row."""
    notes: Sequence[str] = ()
    heading: str = "method"
    """The title of the first column, which holds the rows' names."""

    def to_markdown(self) -> str:
        """Returns a Markdown table of mean ± standard error, aligned in plain text too."""
        titles = [column.title for column in self.columns.values()]
        cells = {
            name: [
                *(
                    _shown(row[key], column.digits)
                    for key, column in self.columns.items()
                ),
                str(self.counts[name]),
            ]
            for name, row in self.rows.items()
        }
        table = plain_table(self.heading, [*titles, "photographs"], cells)
        notes = [f"- {_one_line(note)}" for note in self.notes]
        parts = [self.caption, table.rstrip(), "\n".join(notes)]
        return "\n\n".join(part for part in parts if part) + "\n"

    def to_csv(self) -> str:
        """Returns CSV with a line per row; its error, `NAME_error`, follows each column.

        A missing number is an empty cell.
        """
        names = [name for key in self.columns for name in (key, f"{key}_error")]
        rows = [
            [name, *(n for key in self.columns for n in row[key]), self.counts[name]]
            for name, row in self.rows.items()
        ]
        return csv_text([[self.heading, *names, "photographs"], *rows])

    def to_json(self) -> dict[str, Any]:
        """Returns the rows as JSON values: {row: {column: {mean, standard_error}}}."""
        return {
            name: {key: finite(value._asdict()) for key, value in row.items()}
            | {"photographs": self.counts[name]}
            for name, row in self.rows.items()
        }


def plain_table(
    heading: str, titles: Sequence[str], rows: Mapping[str, Sequence[str]]
) -> str:
    """Returns a Markdown table that is aligned in plain text too."""
    cells = [[heading, *titles], *([name, *row] for name, row in rows.items())]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        "| " + " | ".join(_justified(row, widths)) + " |"
        for row in (cells[0], rule, *cells[1:])
    ]
    return "\n".join(lines) + "\n"


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Returns rows as CSV, with empty cells for NaN."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        ["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in row]
        for row in rows
    )
    return text.getvalue()


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `values` with None for NaN and infinity, which JSON cannot hold."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }


def _shown(value: Estimate, digits: int) -> str:
    if math.isnan(value.mean):
        return "-"
    mean = f"{value.mean:.{digits}f}"
    if math.isnan(value.standard_error):
        return mean
    return f"{mean} ± {value.standard_error:.{digits}f}"


def _justified(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Aligns the first cell to the left and the numbers to the right."""
    first, *others = zip(row, widths, strict=True)
    return [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]


def _one_line(text: str) -> str:
    return " ".join(text.split())
