"""Reads and writes photographs in the formats that users have, turned upright.

The whole project decodes images here, so a network gets the same pixels in use as in
training. `read_rgb` and `read_crop` return 8-bit RGB for training, turned upright by the
EXIF tag. They drop alpha but keep the colours under it; grey becomes three equal
channels; CMYK and palettes become RGB; only the first frame of an animation is read.
Deeper images are scaled, never clipped.

`read` returns the same pixels in their original depth, as a `Photo` with alpha, colour
profile, EXIF and text. `write` encodes a photo in its format; in a lossless one, pixels
outside the hole stay bit for bit. Pillow has no colour of more than 8 bits, so OpenCV
decodes it and `writing` encodes it.
"""

from gl_jax.images.augmentation import jittered, mirrored
from gl_jax.images.crops import read_crop
from gl_jax.images.display import browser_type, to_png
from gl_jax.images.photo import (
    EVERYWHERE,
    Box,
    Metadata,
    Photo,
    PillowImage,
    RgbImage,
    from_array,
    resized,
    side_by_side,
)
from gl_jax.images.reading import (
    allow_pixels,
    decode,
    from_pillow,
    is_pillow,
    read,
    read_bytes,
    read_rgb,
    readable_suffixes,
)
from gl_jax.images.unread import counted, left_out
from gl_jax.images.writing import (
    encode,
    format_of,
    holds_alpha,
    output_suffix,
    require_size,
    to_pillow,
    write,
)

__all__ = [
    "EVERYWHERE",
    "Box",
    "Metadata",
    "Photo",
    "PillowImage",
    "RgbImage",
    "allow_pixels",
    "browser_type",
    "counted",
    "decode",
    "encode",
    "format_of",
    "from_array",
    "from_pillow",
    "holds_alpha",
    "is_pillow",
    "jittered",
    "left_out",
    "mirrored",
    "output_suffix",
    "read",
    "read_bytes",
    "read_crop",
    "read_rgb",
    "readable_suffixes",
    "require_size",
    "resized",
    "side_by_side",
    "to_pillow",
    "to_png",
    "write",
]
