"""Which parts of a photograph decide its holes: the smallest windows that suffice.

The network halves the sides twice, so its pixels come in blocks of 4x4, aligned to the
image. A pixel of block b depends on the pixels from 4b - 151 to 4b + 151 (over the four
pixels of a block the reach is -151..147, -152..150, -153..149 and -150..148), and hence
on the blocks from b - 38 to b + 37. A window that starts and ends on a block's edge and
holds all of these gives the pixel that the whole image gives: the zeros that a
convolution sees beyond the window's edge lie where no path to the pixel leads. Where the
window ends with the image, they are the zeros beyond the image.

Here sizes and places are in pixels and multiples of 4; `Window.top` and `left` are the
place of the window in the image, its sides those of the program that computes it.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from scipy import ndimage

STRIDE = 4
BEFORE, AFTER = 152, 148
"""Context above or left of a hole's first block, and below or right of its last one."""
BUCKET = 64
"""Sides of programs are multiples of this many pixels, so that few are compiled."""
LARGEST = 1024
"""Longest side of a program, in pixels: it needs about 1.2 GB."""
_CELL = 32

Mask = Bool[np.ndarray, "h w"]


class Window(NamedTuple):
    """A part of the image that is computed at once, and the part of it that is wanted."""

    top: int
    left: int
    height: int
    """Of the program; beyond the image, where it is larger, there is nothing."""
    width: int
    inner: tuple[slice, slice]
    """Rows and columns of the image that this window decides."""


def windows(mask: Mask) -> list[Window]:
    """Windows that together decide every pixel of the mask exactly.

    Holes share a window where that costs less than one for each. A hole too large for
    a program is computed in tiles. No pixel of the mask is in two windows' `inner`
    unless the boxes around two holes overlap, and then both have the same result.
    """
    height, width = mask.shape
    boxes = _merged(_boxes(mask), height, width)
    return [
        _window(tile, height, width)
        for box in boxes.tolist()
        for tile in _tiles(box, height, width)
    ]


def whole(height: int, width: int) -> list[Window]:
    """Windows that decide every pixel of an image."""
    tiles = _tiles([0, 0, height, width], height, width)
    return [_window(tile, height, width) for tile in tiles]


def at_once(height: int, width: int) -> list[Window]:
    """One window with all of an image: exact whatever the network's receptive field."""
    inner = (slice(0, height), slice(0, width))
    return [Window(0, 0, bucket(height), bucket(width), inner)]


def padded(side: int) -> int:
    """The next multiple of 4."""
    return -(-side // STRIDE) * STRIDE


def bucket(side: int) -> int:
    """The next multiple of 64."""
    return -(-side // BUCKET) * BUCKET


def _boxes(mask: Mask) -> Int[np.ndarray, "n 4"]:
    """Boxes (top, left, bottom, right) around the holes; near ones already share one."""
    height, width = mask.shape
    cells = np.zeros((-(-height // _CELL), -(-width // _CELL)), bool)
    rows, columns = np.nonzero(mask)
    cells[rows // _CELL, columns // _CELL] = True
    labels, _ = ndimage.label(cells, np.ones((3, 3)))
    of_pixel = labels[rows // _CELL, columns // _CELL]
    indices = np.arange(1, labels.max(initial=0) + 1)
    if not len(indices):
        return np.zeros((0, 4), int)
    extremes = [
        ndimage.minimum(rows, of_pixel, indices),
        ndimage.minimum(columns, of_pixel, indices),
        ndimage.maximum(rows, of_pixel, indices) + 1,
        ndimage.maximum(columns, of_pixel, indices) + 1,
    ]
    return np.stack(extremes, axis=1).astype(int)


def _merged(
    boxes: Int[np.ndarray, "n 4"], height: int, width: int
) -> Int[np.ndarray, "m 4"]:
    """Boxes joined as long as a common window is no larger than the two."""
    done = 0
    while done < len(boxes):
        box, others = boxes[done], np.delete(boxes, done, axis=0)
        joined = np.concatenate(
            [np.minimum(box[:2], others[:, :2]), np.maximum(box[2:], others[:, 2:])],
            axis=1,
        )
        saved = _cost(others, height, width) - _cost(joined, height, width)
        if len(others) and saved.max() + _cost(box[None], height, width)[0] >= 0:
            best = int(saved.argmax())
            boxes = np.concatenate(
                [np.delete(others, best, axis=0), joined[best, None]]
            )
            # The joined box may reach others that were passed before.
            done = 0 if len(boxes) < 100 else done
        else:
            done += 1
    return boxes


def _cost(boxes: Int[np.ndarray, "n 4"], height: int, width: int) -> np.ndarray:
    """Pixels that are computed for each box."""
    sides = [
        np.minimum(
            -(-(boxes[:, axis + 2] - boxes[:, axis] + BEFORE + AFTER) // BUCKET)
            * BUCKET,
            bucket(side),
        )
        for axis, side in enumerate((height, width))
    ]
    return np.asarray(sides[0] * sides[1])


def _tiles(box: list[int], height: int, width: int) -> Iterator[list[int]]:
    """The box in parts, each small enough for one program."""
    top, left, bottom, right = box
    for start, stop in _parts(top, bottom, height):
        for first, last in _parts(left, right, width):
            yield [start, first, stop, last]


def _parts(start: int, stop: int, side: int) -> Iterator[tuple[int, int]]:
    if _span(start, stop, side)[1] <= LARGEST:
        yield start, stop
        return
    # A part that touches the image's edge needs no context there, but one size is
    # enough for all of them.
    longest = LARGEST - BEFORE - AFTER - STRIDE
    count = -(-(stop - start) // longest)
    edges = [start + (stop - start) * part // count for part in range(count + 1)]
    yield from itertools.pairwise(edges)


def _span(start: int, stop: int, side: int) -> tuple[int, int]:
    """Where the window of a hole from `start` to `stop` begins, and its length.

    In an image that has room it is a bucket long; else it is the image's own bucket
    from its beginning, of which a part may lie beyond the image.
    """
    limit = padded(side)
    first = max(0, start // STRIDE * STRIDE - BEFORE)
    last = min(limit, (stop - 1) // STRIDE * STRIDE + STRIDE + AFTER)
    length = bucket(last - first)
    if length >= limit:
        return 0, bucket(limit)
    return min(first, limit - length), length


def _window(box: list[int], height: int, width: int) -> Window:
    top, left, bottom, right = box
    first_row, rows = _span(top, bottom, height)
    first_column, columns = _span(left, right, width)
    inner = (slice(top, bottom), slice(left, right))
    return Window(first_row, first_column, rows, columns, inner)
