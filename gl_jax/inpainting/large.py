"""Holes far larger than the trained ones, which are completed in a small copy."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from gl_jax import images

Mask = Bool[np.ndarray, "h w"]

FAR_LARGER = 2
"""Multiple of the largest trained hole above which a hole is completed in a small copy."""


class Large(NamedTuple):
    """A hole to complete in a small copy of its surroundings."""

    box: images.Box
    """The hole and its surroundings in the image."""
    part: Mask
    """The hole inside the box."""
    height: int
    """Height of the small copy, in pixels."""
    width: int
    hole: str
    """Width x height of the hole, for the notice."""


def far_larger(region: Mask, limit: int, resize_to: int) -> list[Large]:
    """Returns the holes that contain a square of more than `limit` pixels a side."""
    large = []
    labels, _ = ndimage.label(region)
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        tall, wide = rows.stop - rows.start, columns.stop - columns.start
        if min(tall, wide) <= limit:
            continue
        # The image's edge is not a border of the hole, so the depth does not count from it.
        around = (_wider(rows, 1), _wider(columns, 1))
        depth = ndimage.distance_transform_cdt(labels[around] == number)
        if 2 * int(depth.max()) <= limit:
            continue
        # A margin of half the hole's side, so that the hole fills 1/4, as in training.
        margin = max(tall, wide) // 2
        height, width = region.shape
        box = (_wider(rows, margin, height), _wider(columns, margin, width))
        sides = [side.stop - side.start for side in box]
        scale = resize_to / max(sides)
        if scale < 1:
            height, width = (max(1, round(side * scale)) for side in sides)
            inside = labels[box] == number
            large.append(Large(box, inside, height, width, f"{wide}x{tall}"))
    return large


def _wider(span: slice, margin: int, limit: int | None = None) -> slice:
    stop = span.stop + margin
    return slice(
        max(0, span.start - margin), stop if limit is None else min(stop, limit)
    )
