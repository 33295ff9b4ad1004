"""Reads and writes the photographs users have, whatever their format; upright throughout.

Everything that decodes an image in this project goes through this room, so a network
sees a photograph in use exactly as it saw photographs in training: `read_rgb` and
`read_crop` give training its plain 8-bit RGB, turned upright after the EXIF tag. Alpha
is dropped there and the colour under it kept; grey becomes three equal channels; CMYK
and palettes become RGB; of an animation the first frame counts. Deeper images are
scaled, never clipped.

`read` gives the same pixels in their own depth, as a `Photo` with all that has to
survive completion: alpha, the kind of samples, colour profile, EXIF, text. `write`
puts a photo back into its format; what was not completed is then the same to the bit
wherever the format is lossless. Pillow knows no colour of more than 8 bits: OpenCV
decodes those, and `writing` encodes them.
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
