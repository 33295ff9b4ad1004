"""Encodes files that Pillow cannot write: 16-bit colour as PNG, TIFF with all its tags."""

import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from gl_jax.images.embedded import iptc_of
from gl_jax.images.photo import GREY, Photo

PHOTOMETRIC = {"CMYK": 5, "YCbCr": 6, "LAB": 8}
"""TIFF's code of samples that are neither grey nor RGB."""


def _samples(photo: Photo) -> np.ndarray:
    """Returns the samples to store, [h, w, channels]: grey, RGB or inks, and alpha."""
    if photo.inks is not None and photo.inks.mode in PHOTOMETRIC:
        return np.asarray(photo.inks)
    parts = [photo.pixels[..., :1] if photo.mode in GREY else photo.pixels]
    if photo.alpha is not None:
        parts.append(photo.alpha[..., None])
    return np.concatenate(parts, axis=-1)


def png_samples(photo: Photo, notices: list[str]) -> tuple[np.ndarray, str]:
    """Returns the 16-bit samples of a PNG, [h, w, channels], and Pillow's mode for them.

    `notices` gets a line if they are rounded.
    """
    samples = _samples(photo)
    if samples.dtype != np.uint16:
        if samples.dtype.kind == "f" or photo.white != 65535:
            notices.append(f"PNG holds 16 bits: {photo.name} is rounded to them.")
        scaled = np.clip(samples / photo.white, 0, 1) * 65535
        samples = np.rint(scaled).astype(np.uint16)
    return samples, "L" if samples.shape[2] < 3 else "RGB"


def png(samples: np.ndarray, options: dict[str, Any]) -> bytes:
    """Encodes a 16-bit PNG with the metadata that Pillow writes for these options."""
    height, width, channels = samples.shape
    rows = samples.astype(">u2").view(np.uint8).reshape(height, -1)
    # PNG's filter 2 stores each row's difference to the one above: smaller files.
    differences = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))
    filtered = np.insert(differences, 0, 2, axis=1)
    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    dummy = Image.new("L" if channels < 3 else "RGB", (1, 1))
    metadata = [
        (chunk, content)
        for chunk, content, _ in PngImagePlugin.getchunks(dummy, **options)
        if chunk not in (b"IHDR", b"IDAT", b"IEND")
    ]
    pixels = zlib.compress(filtered.tobytes(), 6)
    chunks = [(b"IHDR", header), *metadata, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + chunk
        + content
        + struct.pack(">I", zlib.crc32(chunk + content))
        for chunk, content in chunks
    )


def tiff_samples(photo: Photo) -> tuple[np.ndarray, str]:
    """Returns the samples of a TIFF, [h, w, channels], and Pillow's mode for them."""
    samples = _samples(photo)
    if samples.shape[2] == 2 and photo.deep:
        # Few programs read 16-bit grey with alpha.
        samples = samples[..., [0, 0, 0, 1]]
    if photo.inks is not None and photo.inks.mode in PHOTOMETRIC:
        return samples, photo.inks.mode
    return samples, "L" if samples.shape[2] < 3 else "RGB"


def tiff(
    samples: np.ndarray, mode: str, photo: Photo, options: dict[str, Any]
) -> bytes:
    """Encodes a TIFF of one strip, with its tags beside the photo's EXIF tags.

    Pillow's writer has no 16-bit colour, and no EXIF in compressed files.
    """
    height, width, channels = samples.shape
    bits = 8 * samples.dtype.itemsize
    stored = samples.astype(samples.dtype.newbyteorder("<")).tobytes()
    if photo.mode == "1" and channels == 1:
        bits, stored = 1, np.packbits(samples[..., 0] > 127, axis=1).tobytes()
    raw = photo.metadata.encoding.get("compression") == "raw"
    stored = stored if raw else zlib.compress(stored, 6)
    exif = Image.Exif()
    if photo.metadata.exif is not None:
        exif.load(photo.metadata.exif)
    exif.endian = "<"
    sample_format = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    tags: dict[int, Any] = {
        256: width, 257: height, 258: (bits,) * channels, 259: 1 if raw else 8,
        262: {"L": 1, "RGB": 2, **PHOTOMETRIC}[mode], 273: 0, 277: channels,
        278: height, 279: len(stored), 284: 1, 339: (sample_format,) * channels,
        338: 2 if channels in (2, 4) and mode != "CMYK" else None,
        530: (1, 1) if mode == "YCbCr" else None,
        700: options.get("xmp"), 34675: options.get("icc_profile"),
        34377: photo.metadata.photoshop, 33723: iptc_of(photo.metadata.photoshop or b""),
    }  # fmt: skip
    if photo.metadata.dpi is not None:
        tags |= {282: photo.metadata.dpi[0], 283: photo.metadata.dpi[1], 296: 2}
    for tag, value in tags.items():
        if value is not None:
            exif[tag] = value
    # Pillow adds the directory's end to the strip's offset, which is therefore 0.
    return exif.tobytes()[6:] + stored
