"""Pictures of a photo for a screen, in the colours in which a browser shows its file."""

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
    """The media type of a file that browsers show as `decode` reads it, else None.

    They know neither inks nor TIFF, play an animation, and do not agree on whether to
    turn other pictures than JPEG after their tag. `data` is what `decode` has read.
    """
    with Image.open(io.BytesIO(data)) as image:
        kind = {"MPO": "JPEG"}.get(image.format or "", image.format or "")
        still = kind == "JPEG" or getattr(image, "n_frames", 1) == 1
        if kind not in _TYPES or image.mode not in _MODES or not still:
            return None
        # A PNG's tags may stand behind its pixels, where Pillow does not look yet.
        tagged = b"eXIf" in data if kind == "PNG" else orientation_of(image) != 1
        return _TYPES[kind] if kind == "JPEG" or not tagged else None


def to_png(photo: Photo, box: Box = EVERYWHERE, *, longest: int | None = None) -> bytes:
    """The part of the photo in `box` as a PNG of 8 bits with the photo's colour profile.

    Nothing else of its metadata is in it. `longest` is the longest side in pixels of a
    smaller copy.
    """
    pixels, alpha = photo.pixels[box], photo.alpha
    if photo.deep:
        pixels = np.rint(photo.unit(box) * 255).astype(np.uint8)
    if alpha is not None:
        alpha = alpha[box]
        if photo.deep:
            alpha = np.rint(np.clip(alpha / photo.white, 0, 1) * 255).astype(np.uint8)
    if longest is not None:
        # Leaves so many pixels that averaging them hides which ones were left out.
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
