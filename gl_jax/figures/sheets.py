"""Sheets of photographs: rows and columns of pictures with titles and captions."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from gl_jax.figures.style import fitted, plain_style, png

TILE_SIZE = 192
"""Smallest width of a picture in pixels; smaller ones are enlarged by a whole factor."""

GUTTER, HEADER, CAPTION = 8, 30, 22
"""Pixels between pictures, above the first row, and below a row with captions."""

TITLE_SIZE, CAPTION_SIZE = 16.5, 12.5
"""Font sizes in points."""

DPI = 64
"""Dots per inch; a power of two, so that pixels to inches and back has no rounding."""

GREY = 236
"""Level of the background, of 255: a white hole at a picture's border stays visible."""


class Tile(NamedTuple):
    """A picture of a sheet and its caption; None leaves the place empty."""

    image: UInt8[np.ndarray, "h w 3"] | None
    caption: str = ""


def draw_sheet(
    titles: Sequence[str], rows: Sequence[Sequence[Tile]], *, note: str = ""
) -> bytes:
    """Draws a PNG of rows of pictures under column titles, with `note` at the bottom.

    A pixel of a picture is one pixel of the sheet, or a square block of them. Text wider
    than its picture is cut with an ellipsis. Raises ValueError unless all pictures have
    the same size and each row has one for each title.
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

        def write(
            text: str, x: float, y: int, room: int, size: float, **style: Any
        ) -> None:
            figure.text(
                x / width, 1 - y / height, fitted(figure, text, room, size),
                size=size, va="center_baseline", parse_math=False, **style,
            )  # fmt: skip

        grey: Any = {"color": "0.35", "ha": "center"}
        for column, title in enumerate(titles):
            left = GUTTER + column * pitch_x
            middle = left + tile_width / 2
            write(title, middle, HEADER // 2 + 2, tile_width, TITLE_SIZE, ha="center")
            for row, tiles in enumerate(rows):
                top = HEADER + row * pitch_y
                foot = top + tile_height
                image, caption = tiles[column]
                if image is not None:
                    blocks = image.repeat(scale, axis=0).repeat(scale, axis=1)
                    sheet[top:foot, left : left + tile_width] = blocks
                y = foot + CAPTION // 2
                write(caption, middle, y, tile_width, CAPTION_SIZE, **grey)
        right, room = width - GUTTER, width - 2 * GUTTER
        y = bottom + CAPTION // 2 - 2
        write(note, right, y, room, CAPTION_SIZE, color="0.45", ha="right")
        figure.figimage(sheet)
        return png(figure)
