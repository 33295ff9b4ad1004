"""Bar charts of fractions with their intervals and published references."""

from collections.abc import Sequence
from typing import NamedTuple

from gl_jax.figures.style import LINE_COLORS, fitted, plain_style, png

WIDTH, ROW, HEAD, FOOT = 6.4, 0.34, 0.4, 0.5
"""Inches of the figure's width, of a bar with its gap, above and below the axes."""
LABELS = 2.0
"""Inches for the names."""
VALUES = 1.3
"""Inches for the numbers after the bars."""
DPI = 160


class Bar(NamedTuple):
    """A fraction in [0, 1] with its name, its interval if known, and a note behind it."""

    name: str
    share: float
    interval: tuple[float, float] | None = None
    note: str = ""


def draw_bars(
    title: str,
    bars: Sequence[Bar],
    references: Sequence[Bar] = (),
    *,
    chance: float | None = None,
) -> bytes:
    """Draws a PNG of horizontal bars from 0 to 100 %, `references` below them in grey.

    `chance` is a fraction marked by a dashed line.
    """
    from matplotlib.figure import Figure

    rows = [*bars, *references]
    height = HEAD + FOOT + ROW * len(rows)
    with plain_style():
        figure = Figure(figsize=(WIDTH, height), dpi=DPI)
        left, right = LABELS / WIDTH, 1 - VALUES / WIDTH
        axes = figure.add_axes(
            (left, FOOT / height, right - left, ROW * len(rows) / height)
        )
        for place, bar in enumerate(rows):
            own = place < len(bars)
            axes.barh(
                place, 100 * bar.share, height=0.62,
                color=LINE_COLORS[0] if own else "0.72",
            )  # fmt: skip
            if bar.interval is not None:
                low, high = (100 * end for end in bar.interval)
                axes.errorbar(
                    100 * bar.share, place,
                    xerr=[[100 * bar.share - low], [high - 100 * bar.share]],
                    color=LINE_COLORS[1], lw=1.6, capsize=3, capthick=1.6,
                )  # fmt: skip
            note = "  ".join(filter(None, [f"{100 * bar.share:.1f} %", bar.note]))
            axes.text(103, place, note, va="center_baseline")
            name = fitted(figure, bar.name, (LABELS - 0.15) * DPI, 8)
            axes.text(
                -2, place, name, ha="right", va="center_baseline", parse_math=False
            )
        if chance is not None:
            axes.axvline(100 * chance, color="0.35", lw=1, ls="--")
        axes.set(xlim=(0, 100), ylim=(len(rows) - 0.5, -0.5), yticks=[])
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("%")
        axes.set_title(title, loc="left", weight="bold")
        return png(figure)
