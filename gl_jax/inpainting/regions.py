"""The smallest windows of a photograph that complete its holes exactly.

The network halves the sides twice, so its pixels form blocks of 4x4, aligned to the
image. A pixel of block b depends on the pixels from 4b - 151 to 4b + 151 (over the four
pixels of a block the reach is -151..147, -152..150, -153..149 and -150..148), and hence
on the blocks from b - 38 to b + 37. A window of whole blocks that contains all of these
gives the same pixel as the whole image: the zero padding at the window's edge does not
reach the pixel. If the window ends with the image, it has the same padding.

Sizes and positions are in pixels and multiples of 4. A window has the size of the
compiled program that computes it.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from scipy import ndimage

from gl_jax.models.completion import STRIDE, context

BEFORE, AFTER = context()
"""Pixels of context before a hole's first block, and after its last one."""
BUCKET = 64
"""Step of programs' sides in pixels, so that few sizes are compiled."""
LARGEST = 1024
"""Longest side of a program in pixels; its square needs about 1.2 GB."""
_CELL = 32

Mask = Bool[np.ndarray, "h w"]


class Window(NamedTuple):
    """A part of the image that is computed at once."""

    top: int
    left: int
    height: int
    """The program's height; it may extend beyond the image."""
    width: int
    inner: tuple[slice, slice]
    """Rows and columns of the image for which this window's result is exact."""


def windows(mask: Mask) -> list[Window]:
    """Returns windows that together compute every pixel of the mask exactly.

    Holes share a window if that computes fewer pixels. A hole too large for a program is
    computed in tiles. The `inner` of two windows overlap only if the boxes around their
    holes do; both then have the same result.
    """
    height, width = mask.shape
    boxes = _merged(_boxes(mask), height, width)
    return [
        _window(tile, height, width)
        for box in boxes.tolist()
        for tile in _tiles(box, height, width)
    ]


def whole(height: int, width: int) -> list[Window]:
    """Returns windows that together compute every pixel of an image exactly."""
    tiles = _tiles([0, 0, height, width], height, width)
    return [_window(tile, height, width) for tile in tiles]


def at_once(height: int, width: int) -> list[Window]:
    """Returns one window of the whole image, exact for any receptive field."""
    inner = (slice(0, height), slice(0, width))
    return [Window(0, 0, bucket(height), bucket(width), inner)]


def padded(side: int) -> int:
    """Rounds a side up to a multiple of 4."""
    return -(-side // STRIDE) * STRIDE


def bucket(side: int) -> int:
    """Rounds a side up to a multiple of 64."""
    return -(-side // BUCKET) * BUCKET


def _boxes(mask: Mask) -> Int[np.ndarray, "n 4"]:
    """Returns boxes (top, left, bottom, right) around the holes; close holes share one."""
    height, width = mask.shape
    cells = np.zeros((-(-height // _CELL), -(-width // _CELL)), bool)
    rows, columns = np.nonzero(mask)
    cells[rows // _CELL, columns // _CELL] = True
    labels, _ = ndimage.label(cells, np.ones((3, 3)))
    pixel_labels = labels[rows // _CELL, columns // _CELL]
    indices = np.arange(1, labels.max(initial=0) + 1)
    if not len(indices):
        return np.zeros((0, 4), int)
    extremes = [
        ndimage.minimum(rows, pixel_labels, indices),
        ndimage.minimum(columns, pixel_labels, indices),
        ndimage.maximum(rows, pixel_labels, indices) + 1,
        ndimage.maximum(columns, pixel_labels, indices) + 1,
    ]
    return np.stack(extremes, axis=1).astype(int)


def _merged(
    boxes: Int[np.ndarray, "n 4"], height: int, width: int
) -> Int[np.ndarray, "m 4"]:
    """Joins boxes as long as a common window has no more pixels than the two."""
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
            # The joined box may now be close to boxes that were done before.
            done = 0 if len(boxes) < 100 else done
        else:
            done += 1
    return boxes


def _cost(boxes: Int[np.ndarray, "n 4"], height: int, width: int) -> np.ndarray:
    """Returns the pixels computed for each box."""
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
    """Yields the parts of a box, each small enough for one program."""
    top, left, bottom, right = box
    for start, stop in _parts(top, bottom, height):
        for first, last in _parts(left, right, width):
            yield [start, first, stop, last]


def _parts(start: int, stop: int, side: int) -> Iterator[tuple[int, int]]:
    if _span(start, stop, side)[1] <= LARGEST:
        yield start, stop
        return
    # For simplicity parts at the image's edge, which need less context, are no larger.
    longest = LARGEST - BEFORE - AFTER - STRIDE
    count = -(-(stop - start) // longest)
    edges = [start + (stop - start) * part // count for part in range(count + 1)]
    yield from itertools.pairwise(edges)


def _span(start: int, stop: int, side: int) -> tuple[int, int]:
    """Returns the start and length of the window of a hole from `start` to `stop`.

    The length is a multiple of 64. If that does not fit into the image, the window
    starts at 0 and extends beyond the image.
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
