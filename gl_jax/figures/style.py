"""Colours, Matplotlib's settings, and the PNG of a figure."""

import contextlib
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gl_jax.config import Phase

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PHASE_COLORS = {
    Phase.COMPLETION: "#3b76af",
    Phase.DISCRIMINATOR: "#d08a1d",
    Phase.JOINT: "#3f8f5f",
}
LINE_COLORS = (
    "#1c2f4a", "#c2452d", "#2f8f5f", "#8a5bb0", "#b07d1c",
    "#3aa0b0", "#d1699e", "#6b6b6b", "#7a4a2b", "#8fa11f",
)  # fmt: skip

SETTINGS: dict[str, Any] = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titlepad": 5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "0.6",
    "axes.grid": True,
    "grid.color": "0.88",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "xtick.color": "0.35",
    "ytick.color": "0.35",
    "legend.frameon": False,
    "legend.borderaxespad": 0.0,
    "legend.borderpad": 0.0,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.6,
}


@contextlib.contextmanager
def plain_style() -> Iterator[None]:
    """Uses Matplotlib's defaults and `SETTINGS` inside, instead of the user's settings."""
    import matplotlib.style

    with matplotlib.style.context(["default", SETTINGS]):
        yield


def png(figure: "Figure") -> bytes:
    """Returns the figure as a PNG at its own resolution."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi)
    return buffer.getvalue()


def fitted(figure: "Figure", text: str, width: float, size: float) -> str:
    """Returns `text` on one line, cut to `width` pixels with an ellipsis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.font_manager import FontProperties

    canvas: Any = FigureCanvasAgg(figure)
    renderer, font = canvas.get_renderer(), FontProperties(size=size)

    def pixels(words: str) -> float:
        extent = renderer.get_text_width_height_descent(words, font, ismath=False)
        return float(extent[0])

    # A file's name may be invalid UTF-8.
    text = " ".join(text.split()).encode(errors="backslashreplace").decode()
    if pixels(text) <= width:
        return text
    heads = (text[:count].rstrip() for count in range(len(text), -1, -1))
    return next(f"{head}…" for head in heads if pixels(f"{head}…") <= width)
