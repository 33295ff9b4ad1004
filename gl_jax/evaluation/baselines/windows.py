"""Networks of one size on photographs of any: a square window around each hole.

The window is resized to the network's side, completed, and resized back.
"""

from collections.abc import Callable

import cv2
import numpy as np
from scipy import ndimage

from gl_jax.evaluation.baselines import Baseline, Hole, Image
from gl_jax.inpainting import blending

CONTEXT = 2
"""Sides of a window to those of its hole: a hole fills half of it, as in training."""


def in_windows(side: int, complete: Baseline, *, blend: bool) -> Baseline:
    """Returns the method that `complete` is for images of `side` x `side` pixels.

    An image of another size is completed in one window for each hole: a square of `side`
    pixels, or twice the hole's longer side if that is more, as far as the image reaches.
    With `blend` each hole is blended into the image by Poisson's equation. Raises
    ValueError if a hole is longer than the image's shorter side.
    """

    def fill(image: Image, mask: Hole) -> Image:
        filled = image.copy()
        labels, count = ndimage.label(mask)
        if image.shape[:2] == (side, side):
            labels, count = mask.astype(int), 1
        for number in range(1, count + 1):
            hole = labels == number
            box = _window(hole, side)
            colors, part = image[box], hole[box]
            completed = _resized_back(complete, side, colors, mask[box])
            if blend:
                known = colors.astype(np.float32) / 255
                others = mask[box] & ~part
                completed = blending.blend(completed, known, part, others)
            levels = np.rint(255 * np.clip(completed, 0, 1)).astype(np.uint8)
            filled[box][part] = levels[part]
        return filled

    return fill


def _window(hole: Hole, side: int) -> tuple[slice, slice]:
    """The square around a hole, moved to where it lies in the image."""
    spans = [np.flatnonzero(hole.any(axis=axis)) for axis in (1, 0)]
    lengths = [int(span[-1] - span[0]) + 1 for span in spans]
    width = min(max(side, CONTEXT * max(lengths)), *hole.shape)
    if max(lengths) > width:
        raise ValueError(
            f"a hole of {lengths[1]}x{lengths[0]} pixels does not fit into the square "
            f"windows of this method, which here are at most {width}x{width}."
        )
    starts = [
        int(np.clip((span[0] + span[-1] + 1 - width) // 2, 0, limit - width))
        for span, limit in zip(spans, hole.shape, strict=True)
    ]
    return slice(starts[0], starts[0] + width), slice(starts[1], starts[1] + width)


def _resized_back(
    complete: Callable[[Image, Hole], Image], side: int, colors: Image, mask: Hole
) -> np.ndarray:
    """The completed window, float32 in [0, 1] at its own size."""
    width = len(colors)
    if width == side:
        return complete(colors, mask).astype(np.float32) / 255
    shrinks = cv2.INTER_AREA if width > side else cv2.INTER_CUBIC
    small = cv2.resize(colors, (side, side), interpolation=shrinks)
    share = cv2.resize(mask.astype(np.float32), (side, side), interpolation=shrinks)
    # A pixel of which any part is missing is missing.
    completed = complete(small, share > 1e-3).astype(np.float32) / 255
    return np.asarray(
        cv2.resize(completed, (width, width), interpolation=cv2.INTER_CUBIC)
    )
