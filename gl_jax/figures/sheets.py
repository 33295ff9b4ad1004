"""Sheets of photographs: rows and columns of pictures with words around them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from gl_jax.figures.style import fitted, plain_style, png

TILE_SIZE = 192
"""Smallest width of a picture in pixels; smaller ones are enlarged by a whole factor."""

GUTTER, HEADER, CAPTION, DPI = 8, 30, 22, 100
"""Pixels between pictures, above the first row, and below a row with captions."""

GREY = 236
"""The background: a white hole at a picture's border keeps its edge."""


class Tile(NamedTuple):
    """A picture of a sheet and the words below it; None leaves its place empty."""

    image: UInt8[np.ndarray, "h w 3"] | None
    caption: str = ""


def draw_sheet(
    titles: Sequence[str], rows: Sequence[Sequence[Tile]], *, note: str = ""
) -> bytes:
    """Draws a PNG of rows of pictures under the columns' titles; `note` stands at the foot.

    Each pixel of a picture is one pixel of the sheet, or a square block of them. Words
    wider than their picture end in an ellipsis. Raises ValueError unless all pictures
    have one size and each row has one for each title.
    """
    images = [tile.image for row in rows for tile in row if tile.image is not None]
    shapes = {image.shape for image in images}
    if len(shapes) != 1 or any(len(row) != len(titles) for row in rows):
        raise ValueError(
            f"rows must hold {len(titles)} pictures each, all of one size; "
            f"they hold {[len(row) for row in rows]}, of the sizes {sorted(shapes)}."
        )
    from matplotlib.figure import Figure

    ((tile_height, tile_width, _),) = shapes
    scale = math.ceil(TILE_SIZE / tile_width)
    tile_height, tile_width = tile_height * scale, tile_width * scale
    captions = any(tile.caption for row in rows for tile in row)
    pitch_x, pitch_y = (
        tile_width + GUTTER,
        tile_height + (CAPTION if captions else GUTTER),
    )
    width = GUTTER + len(titles) * pitch_x
    bottom = HEADER + len(rows) * pitch_y
    height = bottom + (CAPTION if note else GUTTER // 2)
    sheet = np.full((height, width, 3), GREY, np.uint8)
    with plain_style():
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)

        def write(text: str, left: int, middle: int, size: float, color: str) -> None:
            figure.text(
                (left + tile_width / 2) / width, 1 - middle / height,
                fitted(figure, text, tile_width, size), size=size, color=color,
                ha="center", va="center_baseline", parse_math=False,
            )  # fmt: skip

        for column, title in enumerate(titles):
            left = GUTTER + column * pitch_x
            write(title, left, HEADER // 2 + 2, 10.5, "black")
            for row, tiles in enumerate(rows):
                top = HEADER + row * pitch_y
                image, caption = tiles[column]
                if image is not None:
                    blocks = image.repeat(scale, axis=0).repeat(scale, axis=1)
                    sheet[top : top + tile_height, left : left + tile_width] = blocks
                write(caption, left, top + tile_height + CAPTION // 2, 8, "0.35")
        figure.text(
            1 - GUTTER / width, 1 - (bottom + CAPTION // 2 - 2) / height,
            fitted(figure, note, width - 2 * GUTTER, 8), size=8, color="0.45",
            ha="right", va="center_baseline", parse_math=False,
        )  # fmt: skip
        figure.figimage(sheet)
        return png(figure)
