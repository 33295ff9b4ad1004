"""Evaluation protocols: the squares, masks, metrics and resizing of each project.

`own` takes the middle square of each photograph and masks of any kind. `mmediting` is the
protocol of the project whose table is usually cited for GLCIC (open-mmlab/mmediting
v0.5.0: configs/inpainting/global_local, mmedit/core/mask.py and evaluation/metrics.py; the
table came with commit 0fe99814). Its test pipeline is its training pipeline: a random crop
of 384 pixels, resized to 256, and a random box. Both are unseeded there; here they depend
on (seed, index) alone. `lama` follows Suvorov et al. 2022 (advimman/lama), `mat` Li et al.
2022 (fenglinglwb/MAT, evaluatoin/*.py), `yeh` Yeh et al. 2017. No protocol applies the
paper's post-processing.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from gl_jax.config import UsageError
from gl_jax.evaluation import Protocol
from gl_jax.evaluation.measures.inception import Resize
from gl_jax.evaluation.measures.lpips import ALEXNET, VGG16
from gl_jax.images import RgbImage, read_crop, read_rgb

IMAGE_SIZE = 256
"""Default side of the squares in pixels, as in the paper and in mmediting."""

COMPOSITE = "the 8-bit picture with the known pixels put back"


class Rules(NamedTuple):
    """The choices that a protocol fixes; empty ones are free."""

    sizes: tuple[int, ...] = ()
    """Allowed sides of the squares in pixels, the default first."""
    masks: tuple[str, ...] = ()
    """Allowed kinds of masks, the default first."""
    takes_folder: bool = True
    """Allows a folder of masks too, for projects that publish theirs."""
    metrics: tuple[str, ...] | None = None
    """Default metrics; None selects all whose weights are given."""
    lpips: str | None = None
    """Name of the network of LPIPS."""
    resize: Resize = "pytorch-fid"
    """Resizing of images to Inception's input."""
    raw_l1: bool = False
    """Measures L1 in the hole on the network's output before rounding."""
    notes: tuple[str, ...] = (
        f"All measures are of {COMPOSITE}, not of the raw output.",
    )


RULES: Mapping[Protocol, Rules] = {
    "own": Rules(),
    "mmediting": Rules(
        (IMAGE_SIZE,), ("box",), takes_folder=False, raw_l1=True,
        notes=(
            f"L1 in the hole is of the raw output, all other measures of {COMPOSITE}.",
            "The photographs are not mmediting's lists, and its crops and boxes are "
            "unseeded: compare figures of the same photographs only, and not to the last "
            "digit.",
        ),
    ),
    "lama": Rules(
        (256, 512), ("lama-thick", "lama-medium", "lama-thin"),
        metrics=("ssim", "lpips", "fid"), lpips=VGG16.name,
        notes=(
            f"All measures are of {COMPOSITE}, not of the raw output.",
            "LaMa crops a random square of each photograph, here it is the middle one. "
            "LaMa's SSIM pads borders with zeros, here windows lie inside the picture.",
        ),
    ),
    "mat": Rules(
        (512, 256), ("mat-large", "mat-small"),
        metrics=("l1", "psnr", "ssim", "fid", "ids"), lpips=ALEXNET.name,
        resize="tensorflow",
    ),
    "yeh": Rules(
        (64,), ("center", "pattern", "random", "half"), takes_folder=False,
        metrics=("psnr",),
        notes=(
            f"All measures are of {COMPOSITE}, not of the raw output. The PSNR beside "
            "published figures covers the whole picture, as in the authors' imgsnr.py.",
        ),
    ),
}  # fmt: skip
"""The protocols by name."""


def default_masks(protocol: Protocol) -> str:
    """Returns the protocol's default kind of masks."""
    return RULES[protocol].masks[0] if RULES[protocol].masks else "box"


CROP = 384
"""Side of the crop in pixels: `Crop(crop_size=(384, 384), random_crop=True)`."""
BOX_FIRST, BOX_LAST = 20, 108
"""Range of a box's top and left, [20, 108): margin 20, max_bbox_shape 128 of 256."""
BOX_SIDE = 128
"""Side of a box in pixels before it shrinks."""
BOX_SHRINK = 21
"""The top and the left lose fewer pixels than this: `randint(max_bbox_delta // 2 + 1)`."""


class Box(NamedTuple):
    """A rectangle of a mask, in pixels."""

    top: int
    left: int
    height: int
    width: int


class Place(NamedTuple):
    """The position of a crop, each in [0, 1): 0 is the top or left end of its range."""

    down: float
    across: float


def mmediting_hole(seed: int, index: int) -> tuple[Place, Box]:
    """Returns mmediting's crop and box, which depend on (seed, index) alone.

    The top left corner of a box of 128x128 pixels moves inwards by up to 20 pixels each
    way. Its sides are therefore 108 to 128 pixels, and at least 20 pixels around it stay
    known.
    """
    rng = np.random.default_rng((seed, index))
    place = Place(*map(float, rng.random(2)))
    top, left = (int(x) for x in rng.integers(BOX_FIRST, BOX_LAST, 2))
    down, across = (int(x) for x in rng.integers(BOX_SHRINK, size=2))
    return place, Box(top + down, left + across, BOX_SIDE - down, BOX_SIDE - across)


def photograph(data: bytes, name: str, side: int, place: Place | None) -> RgbImage:
    """Returns the square to measure: the middle one, or mmediting's crop at `place`.

    Raises UsageError, one line, if the photograph cannot be decoded or is transparent in
    parts, and TooSmall if it is smaller than mmediting's square.
    """
    if place is None:
        return read_crop(data, name, shortest=side, side=side, opaque=True)
    return mmediting_square(read_rgb(data, name, opaque=True), name, place)


def mmediting_square(image: RgbImage, name: str, place: Place) -> RgbImage:
    """Crops 384x384 pixels and resizes them to 256x256, like mmediting.

    The resizing is OpenCV's bilinear one without averaging, as in mmcv. A side below 384
    pixels is not cropped, which stretches the picture, as in mmediting. Raises TooSmall
    for photographs below 256 pixels, which would be enlarged.
    """
    import cv2

    height, width = image.shape[:2]
    if min(height, width) < IMAGE_SIZE:
        raise TooSmall(
            f"{name} is {width}x{height} pixels, and mmediting's protocol needs at "
            f"least {IMAGE_SIZE}x{IMAGE_SIZE} (it crops {CROP} and never enlarges); "
            "leave it out, or use --protocol own."
        )
    tall, wide = min(height, CROP), min(width, CROP)
    top = int(place.down * (height - tall + 1))
    left = int(place.across * (width - wide + 1))
    crop = np.ascontiguousarray(image[top : top + tall, left : left + wide])
    square = cv2.resize(crop, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_LINEAR)
    return np.asarray(square, np.uint8)


class TooSmall(UsageError):
    """A photograph is smaller than its protocol allows."""
