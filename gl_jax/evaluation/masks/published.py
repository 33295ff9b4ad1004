"""Masks of other projects, to measure beside their published figures.

They follow the projects' programs with other random numbers: the same kinds and mean
sizes, but not the masks of a published table.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from gl_jax.evaluation.masks.lines import line
from gl_jax.evaluation.masks.own import Masks

Mask = Bool[np.ndarray, "h w"]

# --- Yeh et al., "Semantic Image Inpainting with Deep Generative Models" (CVPR 2017)

SHARE = 0.8
"""Missing share of the pixels in the random masks of their table."""
PATTERN_AREA = (0.2, 0.3)
"""Least and largest missing share of a pattern."""
PATTERN_CELLS = 0.06
"""Cells of the pattern's noise per pixel and axis, as in the Context Encoder's training."""


def random(
    count: int, height: int, width: int, seed: int = 0, share: float = SHARE
) -> Masks:
    """Returns masks of scattered pixels, `share` of all.

    Raises ValueError unless that is at least one pixel and not all.
    """
    masks = np.zeros((count, height, width), bool)
    missing = round(share * height * width) if math.isfinite(share) else 0
    if not 0 < missing < height * width:
        raise ValueError(
            f"random:{share:g} is {missing} of {height * width} pixels; give a share "
            "between 0 and 1, like random:0.8."
        )
    for index, mask in enumerate(masks):
        generator = np.random.default_rng((seed, index))
        mask.reshape(-1)[generator.permutation(mask.size)[:missing]] = True
    return masks


def pattern(count: int, height: int, width: int, seed: int = 0) -> Masks:
    """Returns masks of the lowest 20 to 30 % of smooth noise: blobs of any shape.

    The random regions of the Context Encoder (Pathak et al. 2016) are thresholded noise
    of 0.06 cells per pixel, kept if 20 to 30 % are missing.
    """
    masks = np.zeros((count, height, width), bool)
    least, most = PATTERN_AREA
    for index, mask in enumerate(masks):
        generator = np.random.default_rng((seed, index))
        order = np.argsort(
            _smooth_noise(generator, mask.shape), axis=None, kind="stable"
        )
        missing = round(generator.uniform(least, most) * mask.size)
        mask.reshape(-1)[order[:missing]] = True
    return masks


def half(count: int, height: int, width: int, seed: int = 0) -> Masks:
    """Returns masks of the upper, lower, left or right half."""
    masks = np.zeros((count, height, width), bool)
    for index, mask in enumerate(masks):
        generator = np.random.default_rng((seed, index))
        view = mask if generator.integers(2) else mask.T
        view = view if generator.integers(2) else view[::-1]
        view[: len(view) // 2] = True
    return masks


def _smooth_noise(
    generator: np.random.Generator, shape: tuple[int, ...]
) -> Float[np.ndarray, "h w"]:
    """Returns uniform noise, enlarged by cubic interpolation (Catmull and Rom)."""
    cells = [math.ceil(length * PATTERN_CELLS) + 4 for length in shape]
    noise, shift = generator.random(cells), generator.random(2)
    for axis, length in enumerate(shape):
        places = (np.arange(length) + 0.5) * PATTERN_CELLS + shift[axis]
        first, t = np.floor(places).astype(int), places % 1
        weights = (
            -t / 2 + t**2 - t**3 / 2,
            1 - 5 * t**2 / 2 + 3 * t**3 / 2,
            t / 2 + 2 * t**2 - 3 * t**3 / 2,
            -(t**2) / 2 + t**3 / 2,
        )
        # Sums of arrays, as matrix products may round differently on another machine.
        column = (-1, 1) if axis == 0 else (1, -1)
        noise = sum(
            weight.reshape(column) * np.take(noise, first + tap, axis)
            for tap, weight in enumerate(weights)
        )
    return noise


# --- LaMa (Suvorov et al., WACV 2022): configs/data_gen and training/data/masks.py


class Boxes(NamedTuple):
    """Most rectangles, their least and greatest side, and the known border, in pixels."""

    most: int
    sides: tuple[int, int]
    margin: int


class Strokes(NamedTuple):
    """Numbers of a file configs/data_gen/random_*.yaml; lengths in pixels."""

    times: tuple[int, int]
    width: int
    length: int
    boxes: Boxes | None


LAMA = {
    ("thin", 256): Strokes((4, 50), 10, 40, None),
    ("medium", 256): Strokes((4, 5), 50, 100, Boxes(5, (10, 50), 0)),
    ("thick", 256): Strokes((1, 5), 100, 200, Boxes(3, (30, 150), 10)),
    ("thin", 512): Strokes((4, 70), 20, 100, None),
    ("medium", 512): Strokes((4, 10), 100, 200, Boxes(5, (30, 150), 0)),
    ("thick", 512): Strokes((1, 5), 250, 450, Boxes(4, (30, 300), 10)),
}
BOX_WEIGHT = 0.3
"""Weight of rectangles against 1 of strokes, so 0.3 of 1.3 masks have rectangles."""
MOST_AREA = 0.5
"""Largest missing share; a mask above it is drawn again."""
LEAST_LENGTH, LEAST_WIDTH = 10, 5
"""Pixels added to the random length and the random width of a piece."""
MOST_PIECES = 5
"""Most pieces of a stroke."""


def lama(name: str, count: int, height: int, width: int, seed: int = 0) -> Masks:
    """Returns LaMa's masks, `thin`, `medium` or `thick`, of 256 or 512 pixels.

    A mask has strokes of straight pieces or, unless thin, rectangles, and at most half of
    the area. Raises ValueError for another size.
    """
    numbers = LAMA[name, _side(f"lama-{name}", height, width)]
    masks = np.zeros((count, height, width), bool)
    for index, mask in enumerate(masks):
        generator = np.random.default_rng((seed, index))
        while not mask.any() or mask.mean() > MOST_AREA:
            mask[:] = False
            boxes = numbers.boxes
            if boxes and generator.random() < BOX_WEIGHT / (1 + BOX_WEIGHT):
                _lama_boxes(generator, mask, boxes)
            else:
                _lama_strokes(generator, mask, numbers)
    return masks


def _lama_strokes(generator: np.random.Generator, mask: Mask, numbers: Strokes) -> None:
    # LaMa's program adds one to the number of the file.
    fewest, most = numbers.times[0], numbers.times[1] + 1
    for number in range(generator.integers(fewest, most, endpoint=True)):
        position = generator.integers(mask.shape).astype(float)
        for _ in range(generator.integers(1, MOST_PIECES, endpoint=True)):
            # One of four directions: 0.01, 1.01, 2.01 or 3.01 radians.
            angle = 0.01 + generator.integers(4)
            angle = angle if number % 2 else -angle
            length = LEAST_LENGTH + generator.integers(numbers.length)
            width = LEAST_WIDTH + int(generator.integers(numbers.width))
            step = length * np.array([math.cos(angle), math.sin(angle)])
            end = np.clip(position + step, 0, mask.shape)
            # OpenCV's lines cover a pixel more than their width.
            mask |= line(mask.shape, position, end, width + 1)
            position = end


def _lama_boxes(generator: np.random.Generator, mask: Mask, boxes: Boxes) -> None:
    for _ in range(generator.integers(1, boxes.most, endpoint=True)):
        sides = generator.integers(*boxes.sides, size=2, endpoint=True)
        room = np.array(mask.shape) - 2 * boxes.margin - sides
        top, left = boxes.margin + generator.integers(room + 1)
        mask[top : top + sides[0], left : left + sides[1]] = True


# --- MAT (Li et al., CVPR 2022), after CoModGAN: datasets/mask_generator_*.py


class Tries(NamedTuple):
    """Excluded upper bounds of the numbers of rectangles and strokes."""

    small: int
    """Rectangles of up to half the image's side."""
    large: int
    """Rectangles of up to the image's side."""
    strokes: int


MAT = {
    ("small", 256): Tries(2, 2, 3),
    ("large", 256): Tries(4, 2, 8),
    ("small", 512): Tries(3, 2, 4),
    ("large", 512): Tries(5, 3, 9),
}
MAT_CORNERS = (4, 18)
"""Corners of a stroke, the second number excluded."""
MAT_WIDTH = (12, 48)
"""Least and greatest width of a stroke, in pixels."""
MAT_ANGLE, MAT_SPREAD = 2 * math.pi / 5, 2 * math.pi / 15
"""Mean angle of a piece, and the most by which a stroke's bounds differ; in radians."""


def mat(name: str, count: int, height: int, width: int, seed: int = 0) -> Masks:
    """Returns MAT's masks, `small` or `large`, of 256 or 512 pixels.

    A mask has rectangles, which may cross the border, and zigzag strokes. Raises
    ValueError for another size.
    """
    tries = MAT[name, _side(f"mat-{name}", height, width)]
    masks = np.zeros((count, height, width), bool)
    for index, mask in enumerate(masks):
        generator = np.random.default_rng((seed, index))
        while not mask.any() or mask.all():
            mask[:] = False
            for most, limit in ((tries.small, height // 2), (tries.large, height)):
                for _ in range(generator.integers(most)):
                    sides = generator.integers(limit, size=2)
                    corner = generator.integers(
                        -(sides // 2), height - sides + sides // 2
                    )
                    top, left = np.maximum(corner, 0)
                    bottom, right = np.maximum(corner + sides, 0)
                    mask[top:bottom, left:right] = True
            strokes = np.zeros_like(mask)
            for _ in range(generator.integers(tries.strokes)):
                _mat_stroke(generator, strokes)
            flips = [(-1) ** generator.integers(2) for _ in range(2)]
            mask |= strokes[:: flips[0], :: flips[1]]
    return masks


def _mat_stroke(generator: np.random.Generator, mask: Mask) -> None:
    mean = math.hypot(*mask.shape) / 8
    corners = generator.integers(*MAT_CORNERS)
    low, high = MAT_ANGLE + np.array([-1, 1]) * generator.uniform(0, MAT_SPREAD, 2)
    position = generator.integers(mask.shape).astype(float)
    width = int(generator.uniform(*MAT_WIDTH))
    for number in range(corners):
        angle = generator.uniform(low, high) * (-1 if number % 2 == 0 else 1)
        length = np.clip(generator.normal(mean, mean // 2), 0, 2 * mean)
        step = length * np.array([math.sin(angle), math.cos(angle)])
        end = np.clip(position + step, 0, mask.shape)
        mask |= line(mask.shape, position, end, width)
        position = end


def _side(name: str, height: int, width: int) -> int:
    if height != width or height not in (256, 512):
        raise ValueError(
            f"{name} exists for 256x256 and 512x512 pixels, not for "
            f"{width}x{height}; give --image-size 256 or 512."
        )
    return height
