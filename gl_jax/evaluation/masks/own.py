"""The project's own kinds of masks: middle, random rectangle, brush strokes."""

import math
from itertools import pairwise

import numpy as np
from jaxtyping import Bool

from gl_jax.evaluation.masks.lines import line
from gl_jax.inpainting.masks import random_rectangle

Masks = Bool[np.ndarray, "n h w"]

AREA_CLASSES = tuple(pairwise((0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)))
"""Ranges (low, high] of the missing share of the image: the six classes of the irregular
masks of Liu et al. (PConv, ECCV 2018)."""


def center(count: int, height: int, width: int, seed: int = 0) -> Masks:
    """Returns masks of the middle rectangle, half as high and wide as the image.

    This is the task of Context Encoders, a 64x64 hole in 128x128 pixels, on which the
    paper compares with them.
    """
    del seed
    masks = np.zeros((count, height, width), bool)
    hole_height, hole_width = height // 2, width // 2
    top, left = (height - hole_height) // 2, (width - hole_width) // 2
    masks[:, top : top + hole_height, left : left + hole_width] = True
    return masks


def box(count: int, height: int, width: int, seed: int = 0) -> Masks:
    """Returns masks of one rectangle each, from 3/8 to 1/2 of the image's sides.

    See `inpainting.masks.random_rectangle`.
    """
    masks = np.zeros((count, height, width), bool)
    for index, mask in enumerate(masks):
        generator = np.random.default_rng((seed, index))
        mask[:] = random_rectangle(generator, mask.shape, mask.shape)
    return masks


def freeform(count: int, height: int, width: int, seed: int = 0) -> Masks:
    """Returns masks of brush strokes; mask i has class i mod 6 of `AREA_CLASSES`.

    A least area is drawn uniformly within the class, and strokes are added until it is
    reached. A stroke is straight between corners and turns by a random angle at each.
    Raises ValueError if a class has no whole number of pixels (fewer than 12 in the image).
    """
    masks = np.zeros((count, height, width), bool)
    for index, mask in enumerate(masks):
        low, high = AREA_CLASSES[index % len(AREA_CLASSES)]
        # The smallest and the largest number of pixels inside the class.
        fewest, most = math.floor(low * mask.size) + 1, math.floor(high * mask.size)
        if fewest > most:
            raise ValueError(
                f"an image of {width}x{height} pixels is too small for a mask of "
                f"{low:.0%} to {high:.0%} of it."
            )
        generator = np.random.default_rng((seed, index))
        enough = int(generator.integers(fewest, most, endpoint=True))
        while np.count_nonzero(mask) < enough:
            _stroke(mask, generator, enough, most)
    return masks


PIECES = (2, 8)
"""Fewest and most straight pieces of a stroke; it also ends outside the image."""
LENGTH = (0.05, 0.25)
"""Least and greatest length of a piece, as a share of the root of the image's area."""
WIDTH = (0.03, 0.13)
"""Least and greatest width of a stroke in the same unit: 8 to 33 of 256 pixels."""
TURN = 0.9
"""Standard deviation of the angle at a corner, in radians."""


def _stroke(
    mask: Bool[np.ndarray, "h w"],
    generator: np.random.Generator,
    enough: int,
    most: int,
) -> None:
    """Paints one stroke until `enough` pixels are missing, and never more than `most`."""
    side = math.sqrt(mask.size)
    position = generator.uniform((0, 0), mask.shape)
    angle = generator.uniform(0, 2 * math.pi)
    width = generator.uniform(*WIDTH) * side
    for _ in range(generator.integers(*PIECES, endpoint=True)):
        length = generator.uniform(*LENGTH) * side
        angle += generator.normal(0, TURN)
        end = position + length * np.array([math.sin(angle), math.cos(angle)])
        painted = mask | line(mask.shape, position, end, width)
        while np.count_nonzero(painted) > most:
            # Too much for the class: halve the piece, down to one pixel.
            end, width = (position + end) / 2, width / 2
            painted = mask | line(mask.shape, position, end, width)
        mask[:] = painted
        outside = (end < 0).any() or (end > mask.shape).any()
        if outside or np.count_nonzero(mask) >= enough:
            return
        position = end
