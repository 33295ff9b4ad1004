"""TIFF tags about the samples that Pillow and OpenCV ignore."""

import numpy as np
from PIL import Image

from gl_jax.config import UsageError
from gl_jax.images import unread
from gl_jax.images.metadata import tags_of
from gl_jax.images.photo import white_of

STARTS = (b"II*\0", b"MM\0*")
# Tags and their values.
_SUBFILE_TYPE, BITS, PHOTOMETRIC, _SUB_IFDS = 254, 258, 262, 330
PLANES, SEPARATE = 284, 2
EXTRA_SAMPLES, _SAMPLE_FORMAT, _SUBSAMPLING, _REFERENCE = 338, 339, 530, 532
_DNG_VERSION = 50706
_WHITE_IS_ZERO, RGB = 0, 2


def require_no_raw(image: Image.Image, name: str) -> None:
    """Raises UsageError for camera RAW, whose preview Pillow would decode instead."""
    tags = tags_of(image)
    preview = bool(tags.get(_SUBFILE_TYPE, 0) & 1) and _SUB_IFDS in tags
    raw = unread.kind_of(name, b"") is unread.RAW
    if tags and (preview or raw or _DNG_VERSION in tags):
        raise UsageError(
            f"{name} is camera RAW, and only its preview could be read; "
            f"{unread.RAW.advice}."
        )


def require_known_colors(image: Image.Image) -> None:
    """Raises ValueError for a TIFF whose samples Pillow or OpenCV misinterprets."""
    tags = tags_of(image)
    if tags.get(PLANES) == SEPARATE and max(tags.get(BITS, (1,))) > 8:
        raise ValueError(
            "its colours are separate planes of more than 8 bits; store pixel by pixel"
        )
    if image.mode == "L" and 2 in tags.get(_SAMPLE_FORMAT, ()):
        raise ValueError("its 8-bit values are signed; store them unsigned")
    if image.mode == "YCbCr" and tags:
        full = (0, 255, 128, 255, 128, 255)
        levels = tuple(float(level) for level in tags.get(_REFERENCE, full))
        if tags.get(_SUBSAMPLING, (2, 2)) != (1, 1) or levels != full:
            raise ValueError(
                "its YCbCr is subsampled or has other reference levels; store RGB"
            )


def deep_grey(image: Image.Image) -> np.ndarray:
    """Returns grey of more than 8 bits, scaled so that white is the largest value."""
    values, tags = np.asarray(image), tags_of(image)
    if image.mode.startswith("I;16"):
        values = values.astype(np.uint16)
    if tags.get(BITS) == (12,):
        values = values << 4 | values >> 8
    if tags.get(PHOTOMETRIC) == _WHITE_IS_ZERO:
        values = np.asarray(white_of(values) - values, values.dtype)
    return values


def divided_by_alpha(samples: np.ndarray) -> np.ndarray:
    """Returns RGBA samples with premultiplied colours divided by their alpha."""
    alpha = samples[..., 3:].astype(np.float64)
    colors = samples[..., :3] * (white_of(samples) / np.maximum(alpha, 1))
    colors = np.minimum(np.rint(colors), white_of(samples))
    return np.concatenate([colors.astype(samples.dtype), samples[..., 3:]], axis=2)
