"""Reads a file's metadata: colour profile, EXIF, text, compression.

Descriptions of the photograph are kept: camera, time, place, copyright, caption,
colours. Pictures that may show it before completion are removed, with a notice.
"""

import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from PIL import ExifTags, Image, JpegImagePlugin

from gl_jax.images import embedded
from gl_jax.images.photo import Metadata

_ORIENTATION, _MAKER_NOTE = 0x0112, 0x927C
# TIFF tags that describe the storage of the pixels, or that have a field in Metadata.
_STRUCTURE = frozenset(
    [*range(254, 260), 262, 263, 266, 273, 274, 277, 278, 279, 280, 281, 284, 290, 291,
     292, 293, 297, 317, 320, 321, *range(322, 326), 330, 332, 333, 334, 338, 339, 340,
     341, 342, 347, *range(512, 522), 529, 530, 531, 532, 700, 33723, 34377, 34675]
)  # fmt: skip
_IPTC_TAG, _PHOTOSHOP_TAG, _SUB_IFDS = 33723, 34377, 330
# Tags that may be long without holding a picture: the transfer function, the camera's
# measured response, the place on the earth, comments of Windows, printing.
_LONG = frozenset(
    [301, 0x828E, 0x8828, 0xA20C, 0xA302, 0xA40B, 0x9286, *range(40091, 40096),
     33550, 33922, 34264, *range(34735, 34738), 0xC4A5]
)  # fmt: skip
_FEW, _SHORT = 64, 256
"""Most numbers and most bytes that are too few for a picture."""
_EXIF_IFD, _GPS_IFD, _INTEROP_IFD = 0x8769, 0x8825, 0xA005
_PIXEL_SIZE = (0xA003, 0xA002)
# PNG chunks of colour, time and physical scale, which are kept.
_COLOR_CHUNKS = (b"cHRM", b"cICP", b"gAMA", b"sRGB", b"tIME", b"mDCV", b"cLLI",
                 b"oFFs", b"pCAL", b"sCAL")  # fmt: skip
# PNG chunks that the result gets anew, or that concern only the stored pixels.
_OWN_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"bKGD", b"hIST", b"sBIT",
               b"sPLT", b"pHYs", b"iCCP", b"eXIf", b"iDOT", b"acTL", b"fcTL",
               b"fdAT")  # fmt: skip
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
_LONGEST_TEXT = 1 << 20
_RAW_PROFILE = b"Raw profile type "


def read_metadata(
    image: Image.Image, data: bytes, name: str, notices: list[str], *, sideways: bool
) -> Metadata:
    """Returns the metadata of an opened file.

    Adds notices of damaged parts, and of parts left out because they could show the
    original photograph. `sideways`: the image was already turned by 90 degrees.
    """
    left_out: list[str] = []
    info = image.info
    chunks, profiles = _png_chunks(data if image.format == "PNG" else b"", left_out)
    exif = None
    try:
        exif = _plain_exif(image, profiles, sideways, left_out)
    except Exception:
        notices.append(f"{name} has damaged EXIF tags: they are left out.")
    xmp = info.get("xmp", info.get("XML:com.adobe.xmp", profiles.get(b"xmp")))
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    if isinstance(xmp, bytes):
        xmp = embedded.clean_xmp(_without_orientation(xmp), left_out)
    dpi, comment = info.get("dpi"), info.get("comment")
    if isinstance(comment, bytes) and embedded.holds_picture(comment):
        left_out.append("comment")
        comment = None
    icc = info.get("icc_profile")
    photoshop = embedded.clean_photoshop(_photoshop(image, profiles), left_out)
    _further_pictures(image, data, left_out)
    if left_out:
        names = ", ".join(dict.fromkeys(left_out))
        notices.append(f"{name}: left out, as it could show what was removed: {names}.")
    lost = _not_read(image, data)
    if lost:
        notices.append(f"{name}: not read, so missing in a result: {', '.join(lost)}.")
    return Metadata(
        icc=icc if isinstance(icc, bytes) and icc else None,
        exif=exif,
        xmp=xmp if isinstance(xmp, bytes) else None,
        photoshop=photoshop,
        comment=comment if isinstance(comment, bytes) else None,
        dpi=_plausible_dpi(dpi),
        png_chunks=chunks,
        encoding=_encoding(image),
    )


def orientation_of(image: Image.Image) -> int:
    """Returns the EXIF orientation, from 1 (upright) to 8; 1 if the tags are damaged."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        # Damaged tags must not prevent reading intact pixels.
        return 1


def tags_of(image: Image.Image) -> Mapping[int, Any]:
    """Returns the tags of a TIFF; {} for other formats."""
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    return tags


def _plain_exif(
    image: Image.Image,
    profiles: dict[bytes, bytes],
    sideways: bool,
    left_out: list[str],
) -> bytes | None:
    """Returns the EXIF tags without orientation and pictures; None if none are left."""
    exif = Image.Exif()
    exif.endian = "<"
    stored = image.getexif()
    if not len(stored) and profiles.get(b"APP1", b"").startswith(b"Exif\0\0"):
        stored.load(profiles[b"APP1"])
    if image.format != "TIFF" and stored.get_ifd(ExifTags.IFD.IFD1):
        left_out.append("EXIF thumbnail")
    nested = stored.get_ifd(_EXIF_IFD)
    sideways = sideways or orientation_of(image) >= 5
    if sideways and all(tag in nested for tag in _PIXEL_SIZE):
        height, width = (nested[tag] for tag in _PIXEL_SIZE)
        nested[_PIXEL_SIZE[0]], nested[_PIXEL_SIZE[1]] = width, height
    for tag in list(stored):
        if tag in (_EXIF_IFD, _GPS_IFD):
            inner = nested if tag == _EXIF_IFD else stored.get_ifd(tag)
            kept = {
                key: value
                for key, value in inner.items()
                if key != _INTEROP_IFD and _describes(key, value, left_out)
            }
            if kept:
                exif[tag] = kept
        elif tag not in _STRUCTURE and _describes(tag, stored[tag], left_out):
            exif[tag] = stored[tag]
    if nested.get(_INTEROP_IFD) is not None and isinstance(exif.get(_EXIF_IFD), dict):
        exif[_EXIF_IFD][_INTEROP_IFD] = dict(stored.get_ifd(_INTEROP_IFD))
    return exif.tobytes() if len(exif) else None


def _describes(tag: int, value: Any, left_out: list[str]) -> bool:
    """Returns whether a tag holds words or few numbers; else adds it to `left_out`."""
    if isinstance(value, str):
        harmless = not embedded.holds_picture(value.encode(errors="replace"))
    elif isinstance(value, bytes):
        short = len(value) <= _SHORT or tag in _LONG or value.strip(b"\0").isascii()
        harmless = short and not embedded.holds_picture(value)
    else:
        harmless = not isinstance(value, tuple) or len(value) <= _FEW or tag in _LONG
    if tag == _MAKER_NOTE or not harmless:
        left_out.append(ExifTags.TAGS.get(tag, _TIFF_NAMES.get(tag, f"tag {tag}")))
        return False
    return True


_TIFF_NAMES = {37724: "ImageSourceData (Photoshop's layers)"}


def _without_orientation(xmp: bytes) -> bytes:
    pattern = rb'tiff:Orientation="\d+"|<tiff:Orientation>\d+</tiff:Orientation>'
    return re.sub(pattern, b"", xmp)


def _plausible_dpi(dpi: Any) -> tuple[float, float] | None:
    try:
        across, down = (float(value) for value in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 0 < across < 1e6 and 0 < down < 1e6 else None


def _photoshop(image: Image.Image, profiles: dict[bytes, bytes]) -> bytes:
    """Returns the Photoshop resources, including IPTC, from anywhere in the file."""
    start = b"Photoshop 3.0\0"
    segments = [
        content.removeprefix(start)
        for _, content in getattr(image, "applist", ())
        if content.startswith(start)
    ]
    tags = tags_of(image)
    stored = tags.get(_PHOTOSHOP_TAG, b"")
    # The raw bytes, because many programs label them as 32-bit numbers.
    iptc: bytes = getattr(tags, "_tagdata", {}).get(_IPTC_TAG, b"")
    blocks = b"".join(segments)
    blocks += stored if isinstance(stored, bytes) else b""
    for kind in (b"8bim", b"iptc"):
        profile = profiles.get(kind, b"")
        if profile.startswith(b"\x1c"):
            iptc = iptc or profile
        elif kind == b"8bim" or b"8bim" not in profiles:
            blocks += profile
    if iptc and embedded.iptc_of(blocks) is None:
        blocks = embedded.iptc_resource(iptc) + blocks
    return blocks


def _further_pictures(image: Image.Image, data: bytes, left_out: list[str]) -> None:
    """Adds the file's other pictures, and data behind the photograph, to `left_out`."""
    if image.format in ("JPEG", "MPO"):
        embedded.further_parts(getattr(image, "applist", []), left_out)
        behind = embedded.behind_jpeg(data)
        if len(behind) > _SHORT and image.format != "MPO":
            left_out.append(f"{len(behind) / 1000:.0f} kB behind the photo")
    if _SUB_IFDS in tags_of(image):
        left_out.append("further pictures in the TIFF")
    if image.format == "AVIF" and b"tmap" in data[: data.find(b"mdat")]:
        left_out.append("gain map")


def _not_read(image: Image.Image, data: bytes) -> list[str]:
    """Returns the kinds of metadata that Pillow does not read, so a result loses them."""
    lost = []
    if image.format == "GIF" and b"XMP DataXMP" in data:
        lost.append("XMP")
    if image.format == "JPEG2000" and re.search(rb"uuid|xml ", data[:_BOXES]):
        lost.append("metadata of JPEG 2000")
    if image.format == "PSD":
        resources = {code for code, *_ in getattr(image, "resources", ())}
        lost += [label for code, label in _PSD_METADATA.items() if code in resources]
    return lost


_BOXES = 1 << 16
"""Bytes at the start of a JPEG 2000 searched for boxes of metadata."""
_PSD_METADATA = {0x0404: "IPTC", 0x0422: "EXIF", 0x0424: "XMP"}


def _png_chunks(
    data: bytes, left_out: list[str]
) -> tuple[tuple[tuple[bytes, bytes], ...], dict[bytes, bytes]]:
    """Returns the text and colour chunks of a PNG, and profiles stored as text."""
    kept, profiles = [], {}
    for chunk, content in _all_chunks(data):
        if chunk in _COLOR_CHUNKS:
            kept.append((chunk, content))
        elif chunk in _TEXT_CHUNKS:
            keyword, text = content.split(b"\0", 1)[0], _text(chunk, content)
            if keyword.startswith(_RAW_PROFILE) and text is not None:
                kind = keyword.removeprefix(_RAW_PROFILE)
                profiles[kind] = _raw_profile(text)
            elif keyword == b"XML:com.adobe.xmp":
                continue
            elif text is None or embedded.holds_picture(text):
                left_out.append(f"text {keyword.decode('latin-1')!r}")
            else:
                kept.append((chunk, content))
        elif chunk == b"caBX":
            left_out.append("Content Credentials (C2PA)")
        elif chunk not in _OWN_CHUNKS and len(content) > _SHORT:
            left_out.append(f"chunk {chunk.decode('latin-1')}")
    known = (b"exif", b"APP1", b"xmp", b"8bim", b"iptc", b"icc", b"icm")
    left_out += [
        f"profile {kind.decode('latin-1')!r}" for kind in profiles if kind not in known
    ]
    return tuple(kept), profiles


def _all_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunk = data[at + 4 : at + 8]
        yield chunk, data[at + 8 : at + 8 + length]
        if chunk == b"IEND":
            return
        at += 12 + length


def _text(chunk: bytes, content: bytes) -> bytes | None:
    """Returns the unpacked text of a PNG chunk; None if damaged or above 1 MB."""
    _, _, rest = content.partition(b"\0")
    if chunk == b"tEXt":
        return rest
    packed, text = chunk == b"zTXt", rest[1:]
    if chunk == b"iTXt":
        packed = rest[:1] == b"\1"
        text = b"\0".join(rest[2:].split(b"\0", 2)[2:])
    if not packed:
        return text
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(text, _LONGEST_TEXT)
    except zlib.error:
        return None
    return None if unpacker.unconsumed_tail else text


def _raw_profile(text: bytes) -> bytes:
    """Decodes ImageMagick's profile text: name, length, bytes in hexadecimal."""
    try:
        return bytes.fromhex("".join(text.decode("latin-1").split()[2:]))
    except ValueError:
        return b""


def as_raw_profile(kind: str, profile: bytes) -> str:
    """Encodes a profile without a PNG chunk of its own as ImageMagick's text."""
    digits = profile.hex()
    lines = [digits[at : at + 72] for at in range(0, len(digits), 72)]
    return f"\n{kind}\n{len(profile):8d}\n" + "\n".join(lines) + "\n"


def _encoding(image: Image.Image) -> dict[str, Any]:
    """Returns the file's compression, as options for writing it the same way."""
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
