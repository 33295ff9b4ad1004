"""Networks of one size on photographs of any, in a square window around each hole.

The window is resized to the network's side, completed, and resized back.
"""

from collections.abc import Callable

import cv2
import numpy as np
from scipy import ndimage

from gl_jax.evaluation.baselines import Baseline, Hole, Image
from gl_jax.inpainting import blending

CONTEXT = 2
"""Ratio of a window's side to its hole's longer side, as in training."""


def in_windows(side: int, complete: Baseline, *, blend: bool) -> Baseline:
    """Extends `complete`, a method for `side` x `side` pixels, to images of any size.

    In an image of another size each hole has a window: a square of `side` pixels, or of
    twice the hole's longer side if that is more, limited by the image. `blend` blends each
    hole into the image by Poisson's equation. The method raises ValueError if a hole is
    longer than the image's shorter side.
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
    """Returns the square around a hole, moved into the image."""
    spans = [np.flatnonzero(hole.any(axis=axis)) for axis in (1, 0)]
    lengths = [int(span[-1] - span[0]) + 1 for span in spans]
    width = min(max(side, CONTEXT * max(lengths)), *hole.shape)
    if max(lengths) > width:
        raise ValueError(
            f"a hole of {lengths[1]}x{lengths[0]} pixels does not fit into the square "
            f"windows of this method, at most {width}x{width} pixels of this image."
        )
    starts = [
        int(np.clip((span[0] + span[-1] + 1 - width) // 2, 0, limit - width))
        for span, limit in zip(spans, hole.shape, strict=True)
    ]
    return slice(starts[0], starts[0] + width), slice(starts[1], starts[1] + width)


def _resized_back(
    complete: Callable[[Image, Hole], Image], side: int, colors: Image, mask: Hole
) -> np.ndarray:
    """Returns the completed window, float32 in [0, 1] at its own size."""
    width = len(colors)
    if width == side:
        return complete(colors, mask).astype(np.float32) / 255
    interpolation = cv2.INTER_AREA if width > side else cv2.INTER_CUBIC
    small = cv2.resize(colors, (side, side), interpolation=interpolation)
    share = cv2.resize(
        mask.astype(np.float32), (side, side), interpolation=interpolation
    )
    # A partly missing pixel counts as missing.
    completed = complete(small, share > 1e-3).astype(np.float32) / 255
    return np.asarray(
        cv2.resize(completed, (width, width), interpolation=cv2.INTER_CUBIC)
    )
