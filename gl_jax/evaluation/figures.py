"""What an evaluation shows: tables of means with their errors, and sheets of pictures.

matplotlib is imported where a sheet is drawn.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# --- tables ---


class Estimate(NamedTuple):
    """A mean and its standard error; NaN where there are too few values for it."""

    mean: float
    standard_error: float


def estimate(values: Iterable[float]) -> Estimate:
    """The mean of `values`, with s / sqrt(n), s the standard deviation over n - 1."""
    numbers = np.array(list(values), np.float64)
    count = len(numbers)
    if count == 0:
        return Estimate(math.nan, math.nan)
    # An infinite value (the PSNR of a perfect result) leaves no finite deviation.
    with np.errstate(invalid="ignore"):
        error = numbers.std(ddof=1) / math.sqrt(count) if count > 1 else math.nan
    return Estimate(float(numbers.mean()), float(error))


class Column(NamedTuple):
    """A column of a table: its title for people, and the digits after the point."""

    title: str
    digits: int


@dataclass(frozen=True)
class Table:
    """Estimates by row and column, and what has to be said about them."""

    caption: str
    columns: Mapping[str, Column]
    """By the name that the column has in CSV and JSON."""
    rows: Mapping[str, Mapping[str, Estimate]]
    counts: Mapping[str, int]
    """Photographs behind each row."""
    notes: Sequence[str] = ()
    heading: str = "method"
    """Of the rows' names."""

    def to_markdown(self) -> str:
        """The table as people read it: mean ± standard error, aligned in plain text too."""
        titles = [column.title for column in self.columns.values()]
        cells = [[self.heading, *titles, "photographs"]]
        for name, row in self.rows.items():
            shown = [
                _shown(row[key], column.digits) for key, column in self.columns.items()
            ]
            cells.append([name, *shown, str(self.counts[name])])
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
        lines = [
            "| " + " | ".join(_justified(row, widths)) + " |"
            for row in (cells[0], rule, *cells[1:])
        ]
        notes = [f"- {_one_line(note)}" for note in self.notes]
        parts = [self.caption, "\n".join(lines), "\n".join(notes)]
        return "\n\n".join(part for part in parts if part) + "\n"

    def to_csv(self) -> str:
        """One line a row; each column is followed by its standard error, `NAME_error`.

        What is not known is an empty cell.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        names = [name for key in self.columns for name in (key, f"{key}_error")]
        writer.writerow([self.heading, *names, "photographs"])
        for name, row in self.rows.items():
            numbers = [number for key in self.columns for number in row[key]]
            known = ["" if math.isnan(number) else number for number in numbers]
            writer.writerow([name, *known, self.counts[name]])
        return text.getvalue()

    def to_json(self) -> dict[str, Any]:
        """The rows as JSON values: {row: {column: {mean, standard_error}}}."""
        return {
            name: {key: finite(value._asdict()) for key, value in row.items()}
            | {"photographs": self.counts[name]}
            for name, row in self.rows.items()
        }


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with null for every number that JSON has not: NaN and infinity."""
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
    """The first cell to the left, the numbers to the right."""
    first, *others = zip(row, widths, strict=True)
    return [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]


def _one_line(text: str) -> str:
    return " ".join(text.split())


# --- sheets of pictures ---

TILE_SIZE = 192
"""Pixels that a picture is wide at least; smaller ones are enlarged by a whole factor."""


class Tile(NamedTuple):
    """A picture of a sheet with the words below it; None leaves its place empty."""

    image: UInt8[np.ndarray, "h w 3"] | None
    caption: str = ""


def comparison_sheet(
    path: Path, titles: Sequence[str], rows: Sequence[Sequence[Tile]]
) -> None:
    """Writes a PNG with a row of pictures for each photograph, under the columns' titles.

    Every pixel of a picture is one pixel of the sheet, or a square block of them. Words
    that are wider than their picture end in an ellipsis. The pictures are of one size,
    and each row has one for each title; ValueError otherwise.
    """
    shapes = {
        tile.image.shape for row in rows for tile in row if tile.image is not None
    }
    if len(shapes) != 1 or any(len(row) != len(titles) for row in rows):
        raise ValueError(
            f"rows must hold {len(titles)} pictures each, all of one size; "
            f"they hold {[len(row) for row in rows]}, of the sizes {sorted(shapes)}."
        )
    import matplotlib.style
    from matplotlib.figure import Figure

    ((tile_height, tile_width, _),) = shapes
    scale = math.ceil(TILE_SIZE / tile_width)
    tile_height, tile_width = tile_height * scale, tile_width * scale
    gutter, header, line, dpi = 8, 30, 22, 100
    pitch_x, pitch_y = tile_width + gutter, tile_height + line
    width = gutter + len(titles) * pitch_x
    height = header + len(rows) * pitch_y + gutter // 2
    # Light grey, so that a white hole at a picture's border has an edge.
    sheet = np.full((height, width, 3), 236, np.uint8)
    with matplotlib.style.context("default"):
        figure = Figure(figsize=(width / dpi, height / dpi), dpi=dpi)

        def write(text: str, left: int, middle: int, size: float, color: str) -> None:
            place = (left + tile_width / 2) / width, 1 - middle / height
            words = _fitted(figure, _one_line(text), tile_width, size)
            figure.text(
                *place, words, size=size, color=color, ha="center", va="center_baseline",
                parse_math=False,
            )  # fmt: skip

        for column, title in enumerate(titles):
            write(title, gutter + column * pitch_x, header // 2 + 2, 10.5, "black")
            for row, tiles in enumerate(rows):
                top, left = header + row * pitch_y, gutter + column * pitch_x
                image, caption = tiles[column]
                if image is not None:
                    blocks = image.repeat(scale, axis=0).repeat(scale, axis=1)
                    sheet[top : top + tile_height, left : left + tile_width] = blocks
                write(caption, left, top + tile_height + line // 2, 8, "0.35")
        figure.figimage(sheet)
        figure.savefig(path, format="png", dpi=dpi)


def _fitted(figure: "Figure", text: str, width: int, size: float) -> str:
    """`text`, or as much of it as fits into `width` pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.font_manager import FontProperties

    canvas: Any = FigureCanvasAgg(figure)
    renderer, font = canvas.get_renderer(), FontProperties(size=size)

    def pixels(words: str) -> float:
        extent = renderer.get_text_width_height_descent(words, font, ismath=False)
        return float(extent[0])

    if pixels(text) <= width:
        return text
    longest = next(
        n for n in range(len(text), -1, -1) if pixels(f"{text[:n]}…") <= width
    )
    return f"{text[:longest].rstrip()}…"


# --- curves of several runs ---

RUN_COLORS = ("#1c4f8a", "#c2452d", "#2f8f5f", "#8a5bb0", "#b07d1c", "#3aa0b0")
PHASE_COLORS = {"completion": "#3b76af", "discriminator": "#d08a1d", "joint": "#3f8f5f"}


class Curve(NamedTuple):
    """One metric of one run over its steps; NaN leaves a gap."""

    run: str
    metric: str
    steps: Sequence[int]
    values: Sequence[float]


def curves_figure(
    path: Path,
    panels: Mapping[str, str],
    curves: Sequence[Curve],
    phases: Mapping[str, Sequence[tuple[int, int, str]]],
    *,
    logarithmic: Sequence[str] = (),
) -> None:
    """Writes a PNG with a panel for each metric and a colour for each run.

    `panels` gives the metrics their titles; those without a curve are left out. Above
    them, each run has a strip with its phases as (from, to, name). Where a curve has
    many points, its running mean is drawn over it.
    """
    import matplotlib.style
    from matplotlib.figure import Figure

    shown = [name for name in panels if any(c.metric == name for c in curves)]
    last = max(max(curve.steps) for curve in curves)
    strip, each, gap, head, foot, width = 0.16, 1.7, 0.5, 0.5, 0.5, 9.0
    height = head + len(phases) * strip + len(shown) * (each + gap) + foot
    colors = {
        run: RUN_COLORS[i % len(RUN_COLORS)] + ("" if i < len(RUN_COLORS) else "99")
        for i, run in enumerate(phases)
    }
    with matplotlib.style.context("default"):
        figure = Figure(figsize=(width, height), dpi=110)

        def axes(top: float, tall: float) -> Any:
            place = (1.6 / width, 1 - (top + tall) / height, 1 - 1.9 / width)
            found = figure.add_axes((*place, tall / height))
            found.set_xlim(0, max(last, 1))
            return found

        for row, (run, bands) in enumerate(phases.items()):
            _draw_strip(axes(head + row * strip, 0.7 * strip), run, bands, colors[run])
        for row, metric in enumerate(shown):
            top = head + len(phases) * strip + gap + row * (each + gap)
            panel = axes(top, each)
            for curve in (c for c in curves if c.metric == metric):
                _draw_curve(panel, curve, colors[curve.run])
            panel.set_title(panels[metric], loc="left", size=9, weight="bold")
            if metric in logarithmic:
                panel.set_yscale("log")
                panel.tick_params(which="minor", labelsize=7)
            panel.grid(color="0.9", lw=0.6)
            panel.spines[["top", "right"]].set_visible(False)
            panel.tick_params(labelsize=8, labelbottom=row == len(shown) - 1)
            panel.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
        panel.set_xlabel("step", size=8)
        for place, (phase, color) in enumerate(PHASE_COLORS.items()):
            x, y = (1.6 + 1.1 * place) / width, 1 - 0.3 / height
            figure.text(x, y, phase, color=color, size=8, weight="bold")
        figure.savefig(path, format="png")


def _draw_strip(
    axes: Any, run: str, bands: Sequence[tuple[int, int, str]], color: str
) -> None:
    axes.set_axis_off()
    for start, end, phase in bands:
        axes.axvspan(start, end, color=PHASE_COLORS[phase], lw=0)
    name = run if len(run) <= 22 else f"{run[:21]}…"
    axes.text(
        -0.012, 0.5, name, transform=axes.transAxes, size=8, color=color, weight="bold",
        ha="right", va="center", parse_math=False,
    )  # fmt: skip


def _draw_curve(axes: Any, curve: Curve, color: str) -> None:
    steps, values = np.asarray(curve.steps), np.asarray(curve.values, np.float64)
    # A phase without this metric is a gap, not a straight line.
    gaps = np.flatnonzero(np.diff(steps) > 3 * np.median(np.diff(steps))) + 1
    steps = np.insert(steps, gaps, steps[gaps])
    values = np.insert(values, gaps, math.nan)
    if len(steps) < 100:
        dots: dict[str, Any] = {"marker": "o", "ms": 3} if len(steps) <= 30 else {}
        axes.plot(steps, values, color=color, lw=1.5, **dots)
        return
    axes.plot(steps, values, color=color, lw=0.5, alpha=0.25)
    window = len(steps) // 25
    known = np.isfinite(values)
    sums = np.convolve(np.where(known, values, 0), np.ones(window), "valid")
    counts = np.convolve(known, np.ones(window), "valid")
    means = np.where(counts > 0, sums / np.maximum(counts, 1), math.nan)
    middle = steps[window // 2 : window // 2 + len(means)]
    axes.plot(middle, means, color=color, lw=1.5)
