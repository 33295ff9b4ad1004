"""The protocols of an evaluation: what each project fixes by which its tables were made.

`own` takes the middle square of each photograph and holes of any kind. `mmediting` is the
protocol of the project in whose table GLCIC is usually compared (open-mmlab/mmediting
v0.5.0: configs/inpainting/global_local, mmedit/core/mask.py and evaluation/metrics.py; the
table came with commit 0fe99814). Its test pipeline is its training pipeline: a random crop
of 384 pixels, resized to 256, and a random box. There it is unseeded; here both follow
from (seed, index). `lama` and `mat` are those of Suvorov et al. 2022 (advimman/lama) and
Li et al. 2022 (fenglinglwb/MAT, evaluatoin/*.py), `yeh` that of Yeh et al. 2017.
Whatever the protocol, a network's output is taken as it is, without the paper's
post-processing.
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
"""Side of the squares in pixels, the paper's and mmediting's, if nothing else sets it."""

COMPOSITE = "the 8-bit picture with the known pixels put back"


class Rules(NamedTuple):
    """The choices that a protocol fixes; those left empty are free."""

    sizes: tuple[int, ...] = ()
    """Sides of squares in pixels, the default first."""
    masks: tuple[str, ...] = ()
    """Kinds of masks, the default first."""
    takes_folder: bool = True
    """If set, the masks may be a folder instead, as of a project that publishes them."""
    metrics: tuple[str, ...] | None = None
    """The metrics unless others are named; None are all that there are weights for."""
    lpips: str | None = None
    """The network of LPIPS."""
    resize: Resize = "pytorch-fid"
    """The way to Inception's size."""
    raw_l1: bool = False
    """If set, L1 in the hole is of the network's output before it is rounded."""
    notes: tuple[str, ...] = (f"All measures are of {COMPOSITE}, no raw output.",)


RULES: Mapping[Protocol, Rules] = {
    "own": Rules(),
    "mmediting": Rules(
        (IMAGE_SIZE,), ("box",), takes_folder=False, raw_l1=True,
        notes=(
            f"L1 in the hole is of the raw output, all other measures of {COMPOSITE}.",
            "The photographs differ from mmediting's own lists, and its crops and boxes "
            "are unseeded: figures of the same photographs can be compared, and those not "
            "to the last digit.",
        ),
    ),
    "lama": Rules(
        (256, 512), ("lama-thick", "lama-medium", "lama-thin"),
        metrics=("ssim", "lpips", "fid"), lpips=VGG16.name,
        notes=(
            f"All measures are of {COMPOSITE}, no raw output.",
            "LaMa takes a random square of each photograph, here it is the middle one; its "
            "SSIM counts borders padded with zeros, here windows lie inside the picture.",
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
            f"All measures are of {COMPOSITE}, no raw output. The PSNR that stands beside "
            "published figures is over the whole picture, as in the authors' imgsnr.py.",
        ),
    ),
}  # fmt: skip
"""The protocols by name."""


def default_masks(protocol: Protocol) -> str:
    """Returns the kind of masks if none is named."""
    return RULES[protocol].masks[0] if RULES[protocol].masks else "box"


CROP = 384
"""Pixels: `Crop(crop_size=(384, 384), random_crop=True)`."""
BOX_FIRST, BOX_LAST = 20, 108
"""Top and left are in [20, 108): margin 20 and max_bbox_shape 128 of 256 pixels."""
BOX_SIDE = 128
BOX_SHRINK = 21
"""`max_bbox_delta` 40: `randint(40 // 2 + 1)` is taken off at the top and at the left."""


class Box(NamedTuple):
    """A rectangle of a mask, in pixels."""

    top: int
    left: int
    height: int
    width: int


class Place(NamedTuple):
    """The position of a crop among all possible ones: 0 is the first, towards 1 the last."""

    down: float
    across: float


def mmediting_hole(seed: int, index: int) -> tuple[Place, Box]:
    """Returns mmediting's crop and box for photograph `index`, from the seed alone.

    A box of 128 pixels is drawn, and its top left corner then moves in by up to 20
    pixels each way. So its sides are from 108 to 128 pixels and at least 20 pixels stay
    known around it.
    """
    generator = np.random.default_rng((seed, index))
    place = Place(*map(float, generator.random(2)))
    top, left = (int(x) for x in generator.integers(BOX_FIRST, BOX_LAST, 2))
    down, across = (int(x) for x in generator.integers(BOX_SHRINK, size=2))
    return place, Box(top + down, left + across, BOX_SIDE - down, BOX_SIDE - across)


def photograph(data: bytes, name: str, side: int, place: Place | None) -> RgbImage:
    """Returns the square to measure on: the middle one, or mmediting's crop at `place`.

    Raises UsageError, one line, if the photograph cannot be decoded or is transparent in
    parts, and TooSmall if it is smaller than mmediting's square.
    """
    if place is None:
        return read_crop(data, name, shortest=side, side=side, opaque=True)
    return mmediting_square(read_rgb(data, name, opaque=True), name, place)


def mmediting_square(image: RgbImage, name: str, place: Place) -> RgbImage:
    """Crops 384 pixels and resizes them to 256, as `Crop` and `Resize` of mmediting.

    The resizing is OpenCV's bilinear one, as mmcv's, which samples without averaging. A
    side with fewer than 384 pixels is taken whole, which stretches the picture, as
    mmediting does. Raises TooSmall for photographs below 256 pixels, which would be
    enlarged.
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
    """A photograph is smaller than its protocol can take."""
