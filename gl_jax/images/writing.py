"""Encodes a photo in its original format or in another one."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, PngImagePlugin

from gl_jax.config import UsageError
from gl_jax.files import write_output
from gl_jax.images import encoding
from gl_jax.images.metadata import as_raw_profile
from gl_jax.images.photo import (
    FORMATS,
    GREY,
    SUFFIXES,
    Metadata,
    Photo,
    RgbImage,
)

HELD = {
    "PNG": "exif xmp icc photoshop text comment",
    "JPEG": "exif xmp icc photoshop comment",
    "WEBP": "exif xmp icc",
    "TIFF": "exif xmp icc photoshop",
    "AVIF": "exif xmp icc",
    "GIF": "comment",
    "JPEG2000": "comment",
}
"""The kinds of metadata written to each format; other formats get none."""

DEFAULT_QUALITY = {"JPEG": 95, "WEBP": 95, "AVIF": 90}
"""Quality of lossy formats, 1 to 100; a JPEG read from JPEG keeps its tables instead."""

LARGEST = {"JPEG": 65_500, "WEBP": 16_383, "GIF": 65_535, "TGA": 65_535, "AVIF": 65_536}
"""Longest side in pixels that a format or its encoder can write."""


def output_suffix(path: Path) -> str:
    """Returns the suffix for a result of the image: its own, or .png if not writable."""
    return path.suffix if path.suffix.lower() in SUFFIXES else ".png"


def format_of(name: str) -> str:
    """Returns the format of a suffix or name such as `png`, a key of `FORMATS`.

    Raises UsageError if it cannot be written.
    """
    suffix = f".{name.lower().lstrip('.')}"
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    known = ", ".join(s[0].split()[0].lstrip(".") for s in FORMATS.values())
    raise UsageError(f"{name!r} is not a writable format; choose one of {known}.")


def holds_alpha(kind: str) -> bool:
    """Returns whether a format has an alpha channel; GIF has only a transparent colour."""
    return any(mode.endswith("A") for mode in FORMATS[kind][1].split())


def require_size(kind: str, height: int, width: int) -> None:
    """Raises UsageError if an image of this size is too large for the format."""
    limit = LARGEST.get(kind)
    if limit is not None and max(height, width) > limit:
        raise UsageError(
            f"{kind} holds sides of up to {limit:,} pixels, but the result has "
            f"{width}x{height}; choose another format, such as --format png."
        )


def to_pillow(photo: Photo) -> Image.Image:
    """Returns the photo as a Pillow image of its mode, with its metadata in `info`.

    16-bit colour, which Pillow lacks, is reduced to 8 bits; a palette becomes RGB.
    """
    if photo.inks is not None:
        image = photo.inks.copy()
    elif photo.mode in GREY and photo.alpha is None and photo.deep:
        image = Image.fromarray(np.ascontiguousarray(photo.pixels[..., 0]))
    else:
        image = _eight_bit_image(photo, with_alpha=photo.alpha is not None)
    kept = photo.metadata
    entries = {"icc_profile": _profile(photo, image.mode), "exif": kept.exif,
               "xmp": kept.xmp, "dpi": kept.dpi, "comment": kept.comment}  # fmt: skip
    image.info.update({key: value for key, value in entries.items() if value})
    return image


def write(
    photo: Photo, path: Path, *, format: str | None = None, quality: int | None = None
) -> tuple[str, ...]:
    """Writes the photo atomically; returns one line for each loss in this format.

    `format` is a key of `FORMATS`, by default that of the path's suffix. `quality` is
    that of `encode`. An existing file is replaced.

    Raises UsageError if the file cannot be written.
    """
    kind = format_of(path.suffix or path.name) if format is None else format
    data, notices = encode(photo, kind, quality=quality)
    write_output(path, data)
    return notices


def encode(
    photo: Photo, kind: str, *, quality: int | None = None
) -> tuple[bytes, tuple[str, ...]]:
    """Returns the bytes of a file with the photo, and one line for each loss.

    `kind` is a key of `FORMATS`. `quality`, 1 to 100, is for lossy formats; it makes a
    WebP lossy even if the photo was lossless. Without it a JPEG keeps its original
    quantisation tables.

    Raises UsageError if the photo is too large for the format or cannot be encoded.
    """
    require_size(kind, *photo.size)
    data, notices = _encoded(photo, kind, quality)
    return data, tuple(notices)


def _encoded(photo: Photo, kind: str, quality: int | None) -> tuple[bytes, list[str]]:
    """Returns the bytes of the file, and a line for each loss."""
    notices: list[str] = []
    modes = FORMATS[kind][1].split()
    if kind == "TIFF":
        samples, mode = encoding.tiff_samples(photo)
        options = _options(photo, kind, mode, None, notices)
        return encoding.tiff(samples, mode, photo, options), notices
    deep_grey = {"I;16", "I"}.intersection(modes) and _deep_grey(photo)
    if photo.deep and not deep_grey:
        if kind == "PNG":
            samples, mode = encoding.png_samples(photo, notices)
            options = _options(photo, kind, mode, None, notices)
            return encoding.png(samples, options), notices
        notices.append(f"{kind} holds 8 bits a channel: {photo.name} loses depth.")
    alpha = photo.alpha is not None
    if alpha and kind != "GIF" and not any(mode.endswith("A") for mode in modes):
        notices.append(f"{kind} holds no transparency: {photo.name} loses its own.")
        alpha = False
    if photo.inks is not None and photo.inks.mode in modes:
        image = photo.inks
    elif kind == "GIF":
        image = _with_palette(photo, notices)
    elif deep_grey:
        image = deep_grey
    else:
        image = _eight_bit_image(photo, with_alpha=alpha)
        if image.mode not in modes:
            grey = {"1": "L", "LA": "RGBA"}.get(image.mode, "RGB")
            wider = grey if grey in modes else "RGB"
            image = image.convert(wider)
    if photo.mode in ("P", "PA") and kind != "GIF":
        notices.append(f"{photo.name} had a palette: it is written in full colour.")
    buffer = io.BytesIO()
    options = _options(photo, kind, image.mode, quality, notices)
    try:
        image.save(buffer, kind, **options)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        # Encoders raise any of these for an image their format cannot hold.
        fault = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(
            f"{photo.name} cannot be written as {kind}: {fault}."
        ) from error
    return buffer.getvalue(), notices


def _deep_grey(photo: Photo) -> Image.Image | None:
    """Returns 16-bit grey as Pillow's I;16 or I; None for other photos."""
    if photo.mode not in GREY or photo.alpha is not None or photo.white != 65535:
        return None
    if photo.pixels.dtype.kind == "f":
        return None
    return Image.fromarray(np.ascontiguousarray(photo.pixels[..., 0]))


def _eight_bit_image(photo: Photo, *, with_alpha: bool) -> Image.Image:
    """Returns the photo with 8 bits a channel, in mode 1, L, LA, RGB or RGBA."""

    def eight(values: np.ndarray) -> np.ndarray:
        if photo.white == 255 and values.dtype == np.uint8:
            return values
        return np.rint(np.clip(values / photo.white, 0, 1) * 255).astype(np.uint8)

    grey = photo.mode in GREY
    colors = eight(photo.pixels[..., :1] if grey else photo.pixels)
    if with_alpha and photo.alpha is not None:
        colors = np.concatenate([colors, eight(photo.alpha)[..., None]], axis=-1)
        return Image.fromarray(colors)
    image = Image.fromarray(np.ascontiguousarray(colors[..., 0] if grey else colors))
    # Mode 1 means that all pixels are black or white, so dithering would only add noise.
    return image.convert("1", dither=Image.Dither.NONE) if photo.mode == "1" else image


def _profile(photo: Photo, mode: str) -> bytes | None:
    """Returns the colour profile, or None if it is for pixels of another mode."""
    icc = photo.metadata.icc
    space = {"1": b"GRAY", "L": b"GRAY", "LA": b"GRAY", "CMYK": b"CMYK", "LAB": b"Lab "}
    required = space.get(mode, b"RGB ")
    if icc is None or icc[16:20] == required:
        return icc
    # Scanners write RGB profiles for grey pixels.
    return icc if required == b"GRAY" and icc[16:20] == b"RGB " else None


def _options(
    photo: Photo, kind: str, mode: str, quality: int | None, notices: list[str]
) -> dict[str, Any]:
    """Returns the options of Pillow's writer: metadata and compression."""
    kept = photo.metadata
    options: dict[str, Any] = {"exif": kept.exif, "xmp": kept.xmp, "dpi": kept.dpi,
                               "icc_profile": _profile(photo, mode)}  # fmt: skip
    held = HELD.get(kind, "").split()
    if "icc" in held and kept.icc is not None and options["icc_profile"] is None:
        notices.append(f"{photo.name} loses its colour profile: it is not for {mode}.")
    texts = [content for chunk, content in kept.png_chunks if chunk.endswith(b"Xt")]
    parts = {
        "exif": ("EXIF", kept.exif), "xmp": ("XMP", kept.xmp), "icc": ("colour profile", kept.icc),
        "photoshop": ("IPTC", kept.photoshop), "text": ("PNG text", texts),
        "comment": ("comment", kept.comment),
    }  # fmt: skip
    lost = [label for part, (label, it) in parts.items() if it and part not in held]
    if lost:
        notices.append(
            f"{kind} is written without {', '.join(lost)}: {photo.name} loses its own."
        )
    if "comment" in held:
        options["comment"] = kept.comment
    if kind == "JPEG":
        options["extra"] = _photoshop_segment(kept)
        for name, label in (("exif", "EXIF"), ("xmp", "XMP"), ("extra", "IPTC")):
            if options[name] is not None and len(options[name]) > 65_000:
                notices.append(f"{photo.name} has too much {label} for JPEG.")
                options[name] = None
    elif kind == "PNG":
        options["pnginfo"] = _png_info(kept)
    if kind == "JPEG" and quality is None and photo.format == "JPEG":
        options |= kept.encoding
    elif kind == "WEBP" and quality is None and photo.lossless:
        options |= {"lossless": True, "exact": True}
    elif kind in DEFAULT_QUALITY:
        options["quality"] = DEFAULT_QUALITY[kind] if quality is None else quality
        options |= {"subsampling": 0} if kind == "JPEG" else {}
    return {key: value for key, value in options.items() if value is not None}


def _photoshop_segment(metadata: Metadata) -> bytes | None:
    """Returns a JPEG's APP13 segment with the Photoshop resources."""
    if metadata.photoshop is None:
        return None
    content = b"Photoshop 3.0\0" + metadata.photoshop
    return b"\xff\xed" + struct.pack(">H", min(len(content) + 2, 65_535)) + content


def _png_info(metadata: Metadata) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for chunk, content in metadata.png_chunks:
        info.add(chunk, content)
    if metadata.xmp is not None:
        text = metadata.xmp.decode("utf-8", "replace").strip("\0")
        info.add_itxt("XML:com.adobe.xmp", text)
    if metadata.photoshop is not None:
        text = as_raw_profile("8bim", metadata.photoshop)
        info.add_text("Raw profile type 8bim", text, zip=True)
    if metadata.comment is not None and not metadata.png_chunks:
        info.add_text("Comment", metadata.comment.decode("latin-1"))
    return info


def _with_palette(photo: Photo, notices: list[str]) -> Image.Image:
    """Reduces the photo to a palette of 256 colours.

    The colours outside the hole are kept; the hole shares the entries that are left.
    """
    clear = None
    if photo.alpha is not None:
        clear = photo.alpha / photo.white < 0.5
    limit = 256 if clear is None else 255
    rgb = np.asarray(_eight_bit_image(photo, with_alpha=False).convert("RGB"))
    known = np.ones(photo.size, bool) if photo.filled is None else ~photo.filled
    if clear is not None:
        known &= ~clear
    colors = np.unique(rgb[known].reshape(-1, 3), axis=0)
    if len(colors) > limit or not len(colors):
        notices.append(f"GIF holds 256 colours: {photo.name} is reduced to them.")
        image = Image.fromarray(rgb).quantize(limit, dither=Image.Dither.NONE)
        palette, indices = image.getpalette() or [], np.array(image)
    else:
        new = rgb[~known]
        if len(new) and len(colors) < limit:
            free = Image.fromarray(new[None]).quantize(limit - len(colors))
            used = np.array(free.getpalette(), np.uint8).reshape(-1, 3)
            colors = np.concatenate([colors, used[: limit - len(colors)]])
        indices = _nearest(rgb, colors)
        palette = colors.ravel().tolist()
    if clear is not None:
        palette = [*palette, *[0] * (765 - len(palette)), 0, 0, 0]
        indices = np.where(clear, 255, indices)
        palette[765:768] = rgb[clear][0].tolist() if clear.any() else [0, 0, 0]
    image = Image.fromarray(indices.astype(np.uint8), "P")
    image.putpalette(palette)
    if clear is not None:
        image.info["transparency"] = 255
    return image


def _nearest(rgb: RgbImage, colors: UInt8[np.ndarray, "n 3"]) -> np.ndarray:
    """Returns the index of the nearest of `colors` for each pixel."""
    packed = rgb.astype(np.int32) @ np.array([65536, 256, 1])
    distinct, inverse = np.unique(packed, return_inverse=True)
    each = np.stack([distinct >> 16, distinct >> 8 & 255, distinct & 255], axis=1)
    nearest = np.concatenate([
        np.square(part[:, None] - colors.astype(np.int64)).sum(axis=2).argmin(axis=1)
        for part in np.array_split(each, len(each) // 4096 + 1)
    ])  # fmt: skip
    return nearest[inverse].reshape(rgb.shape[:2])
