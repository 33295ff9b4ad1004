"""What a file says about its pixels: colour profile, EXIF, text, compression."""

import re
import struct
from collections.abc import Iterator
from typing import Any

from PIL import Image, JpegImagePlugin

from gl_jax.images.photo import Metadata

_ORIENTATION = 0x0112
# Tags of TIFF that describe how its pixels are stored, not the photograph; among them
# the ones that Metadata carries for itself.
_STRUCTURE = frozenset(
    [*range(254, 260), 262, 263, 266, 273, 274, 277, 278, 279, 280, 281, 284, 290, 291,
     292, 293, 297, 317, 320, 321, *range(322, 326), 330, 332, 333, 334, 338, 339, 340,
     341, 342, 347, *range(512, 522), 529, 530, 531, 532, 700, 34675]
)  # fmt: skip
_EXIF_IFD, _PIXEL_SIZE = 0x8769, (0xA003, 0xA002)
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
_COLOR_CHUNKS = (b"cHRM", b"cICP", b"gAMA", b"sRGB", b"tIME")
# Text in which programs hide tags; the tags themselves come from `getexif` and `xmp`.
_TAGS_AS_TEXT = (b"Raw profile type exif", b"Raw profile type APP1",
                 b"Raw profile type xmp", b"XML:com.adobe.xmp")  # fmt: skip


def read_metadata(
    image: Image.Image, data: bytes, name: str, notices: list[str], *, sideways: bool
) -> Metadata:
    """What the opened file says about its pixels; adds a line for what is damaged.

    `sideways` says that the image was turned by a quarter already.
    """
    info = image.info
    exif = None
    try:
        exif = _plain_exif(image, sideways)
    except Exception:
        notices.append(f"{name} has damaged EXIF tags: they are left out.")
    xmp = info.get("xmp", info.get("XML:com.adobe.xmp"))
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    dpi, comment = info.get("dpi"), info.get("comment")
    chunks = _png_chunks(data) if image.format == "PNG" else ()
    icc = info.get("icc_profile")
    return Metadata(
        icc=icc if isinstance(icc, bytes) and icc else None,
        exif=exif,
        xmp=_without_orientation(xmp) if isinstance(xmp, bytes) else None,
        comment=comment if isinstance(comment, bytes) else None,
        dpi=_plausible_dpi(dpi),
        png_chunks=tuple(chunks),
        encoding=_encoding(image),
    )


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, from 1 (upright) to 8; 1 where the tags are damaged."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        # Damaged tags of a photograph whose pixels are whole: taken as having none.
        return 1


def _plain_exif(image: Image.Image, sideways: bool) -> bytes | None:
    """The tags without orientation and thumbnail, or None where there are none."""
    exif = Image.Exif()
    exif.endian = "<"
    stored = image.getexif()
    nested = stored.get_ifd(_EXIF_IFD)
    sideways = sideways or orientation_of(image) >= 5
    if sideways and all(tag in nested for tag in _PIXEL_SIZE):
        height, width = (nested[tag] for tag in _PIXEL_SIZE)
        nested[_PIXEL_SIZE[0]], nested[_PIXEL_SIZE[1]] = width, height
    for tag in list(stored):
        if tag not in _STRUCTURE:
            value = stored.get_ifd(tag) if tag in (_EXIF_IFD, 0x8825) else stored[tag]
            exif[tag] = dict(value) if isinstance(value, dict) else value
    if nested.get(0xA005) is not None and isinstance(exif.get(_EXIF_IFD), dict):
        exif[_EXIF_IFD][0xA005] = dict(stored.get_ifd(0xA005))
    return exif.tobytes() if len(exif) else None


def _without_orientation(xmp: bytes) -> bytes:
    pattern = rb'tiff:Orientation="\d+"|<tiff:Orientation>\d+</tiff:Orientation>'
    return re.sub(pattern, b"", xmp)


def _plausible_dpi(dpi: Any) -> tuple[float, float] | None:
    try:
        across, down = (float(value) for value in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 0 < across < 1e6 and 0 < down < 1e6 else None


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Text and colour chunks of a PNG, without the text that holds tags."""
    at = 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunk, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        hidden = content.split(b"\0", 1)[0] in _TAGS_AS_TEXT
        if chunk in _COLOR_CHUNKS or (chunk in _TEXT_CHUNKS and not hidden):
            yield chunk, content
        at += 12 + length


def _encoding(image: Image.Image) -> dict[str, Any]:
    """How the file was compressed, for writing it the same way."""
    if image.format in ("JPEG", "MPO"):
        options: dict[str, Any] = {"qtables": image.quantization}  # type: ignore[attr-defined]
        sampling = JpegImagePlugin.get_sampling(image)
        if sampling >= 0:
            options["subsampling"] = sampling
        if image.info.get("progressive"):
            options["progressive"] = True
        return options
    if image.format == "TIFF" and image.info.get("compression") == "raw":
        return {"compression": "raw"}
    return {}
