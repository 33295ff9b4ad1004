"""PNGs of photos for a browser, in the colours in which it shows the files."""

import dataclasses
import io

import numpy as np
from PIL import Image, PngImagePlugin

from gl_jax.images.metadata import orientation_of
from gl_jax.images.photo import EVERYWHERE, Box, Photo
from gl_jax.images.writing import to_pillow

_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
_COLORS = (b"cHRM", b"cICP", b"gAMA", b"sRGB")


def browser_type(data: bytes) -> str | None:
    """Returns the media type of a file that browsers show like `decode`, else None.

    Browsers cannot show inks or TIFF, play animations, and differ in applying the EXIF
    orientation of formats other than JPEG. `data` are bytes that `decode` can read.
    """
    with Image.open(io.BytesIO(data)) as image:
        kind = {"MPO": "JPEG"}.get(image.format or "", image.format or "")
        still = kind == "JPEG" or getattr(image, "n_frames", 1) == 1
        if kind not in _TYPES or image.mode not in _MODES or not still:
            return None
        # A PNG's tags may follow its pixels, which Pillow has not read yet.
        tagged = b"eXIf" in data if kind == "PNG" else orientation_of(image) != 1
        return _TYPES[kind] if kind == "JPEG" or not tagged else None


def to_png(photo: Photo, box: Box = EVERYWHERE, *, longest: int | None = None) -> bytes:
    """Returns the part of the photo in `box` as an 8-bit PNG with its colour profile.

    Other metadata is left out. `longest` is the longest side, in pixels, of a smaller
    copy.
    """
    pixels, alpha = photo.pixels[box], photo.alpha
    if photo.deep:
        pixels = np.rint(photo.unit(box) * 255).astype(np.uint8)
    if alpha is not None:
        alpha = alpha[box]
        if photo.deep:
            alpha = np.rint(np.clip(alpha / photo.white, 0, 1) * 255).astype(np.uint8)
    if longest is not None:
        # Keeps enough pixels that averaging them hides the skipped ones.
        step = max(1, max(photo.size) // (4 * longest))
        pixels = pixels[::step, ::step]
        alpha = None if alpha is None else alpha[::step, ::step]
    image = to_pillow(
        dataclasses.replace(
            photo, pixels=pixels, alpha=alpha, white=255.0, inks=None,
            mode="RGB" if photo.inks is not None else photo.mode,
        )
    )  # fmt: skip
    if longest is not None:
        image = image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGBA")
        image.thumbnail((longest, longest), Image.Resampling.BOX)
    colors = PngImagePlugin.PngInfo()
    for chunk, content in photo.metadata.png_chunks:
        if chunk in _COLORS:
            colors.add(chunk, content)
    file = io.BytesIO()
    profile = image.info.get("icc_profile")
    image.info.clear()
    image.save(file, "PNG", compress_level=1, icc_profile=profile, pnginfo=colors)
    return file.getvalue()
