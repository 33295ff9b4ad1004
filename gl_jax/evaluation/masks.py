"""The fixed holes of an evaluation: the same for every method, every time, everywhere.

A kind of mask is a function (count, height, width, seed) to bool [count, height, width],
true where pixels are missing. Mask i follows from (seed, i) and the size alone, so a
longer list begins with the shorter one.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool

from gl_jax.config import UsageError, did_you_mean

Masks = Bool[np.ndarray, "n h w"]


def center(count: int, height: int, width: int, seed: int = 0) -> Masks:
    """A hole in the middle, half as high and half as wide as the image; no randomness.

    The task of Context Encoders (a 64x64 hole in 128x128 pixels), on which the paper
    compares itself with them.
    """
    del seed
    masks = np.zeros((count, height, width), bool)
    hole_height, hole_width = height // 2, width // 2
    top, left = (height - hole_height) // 2, (width - hole_width) // 2
    masks[:, top : top + hole_height, left : left + hole_width] = True
    return masks


def box(count: int, height: int, width: int, seed: int = 0) -> Masks:
    """One rectangle in each, anywhere inside the image.

    Its height and width are drawn independently from 3/8 to 1/2 of the image's, both
    ends included: 96 to 128 of 256 pixels, the holes that the paper trains on.
    """
    masks = np.zeros((count, height, width), bool)
    for index, mask in enumerate(masks):
        chance = np.random.default_rng((seed, index))
        hole_height, hole_width = (
            chance.integers(max(1, side * 3 // 8), max(1, side // 2), endpoint=True)
            for side in (height, width)
        )
        top = chance.integers(height - hole_height, endpoint=True)
        left = chance.integers(width - hole_width, endpoint=True)
        mask[top : top + hole_height, left : left + hole_width] = True
    return masks


KINDS: dict[str, Callable[[int, int, int, int], Masks]] = {"center": center, "box": box}


def make_masks(kind: str, count: int, height: int, width: int, *, seed: int) -> Masks:
    """`count` masks of a kind named in `KINDS`; UsageError where there is none so named."""
    if kind not in KINDS:
        raise UsageError(
            f"masks {kind!r} are unknown.{did_you_mean(kind, KINDS)} "
            f"Known: {', '.join(KINDS)}."
        )
    return KINDS[kind](count, height, width, seed)
