"""Removes pictures from metadata, such as thumbnails, previews and gain maps.

They may show the photograph before completion. Descriptions of it are kept. `left_out`
collects the names of the removed parts, for the user.
"""

import re
import struct
from collections.abc import Iterator
from xml.dom import expatbuilder
from xml.dom.minidom import Element, Node
from xml.parsers.expat import ExpatError

# First bytes of JPEG, PNG, WebP, GIF, PSD, HEIF and AVIF; the first four in Base64 too.
_SIGNATURES = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|RIFF....WEBP|GIF8[79]a.{0,3}\0|8BPS\0"
    rb"|ftyp(hei|avi|mif)|/9j/[24]|iVBORw0KGgo|UklGR.{6}XRUJQ|R0lGODlh", re.DOTALL,
)  # fmt: skip
# A word too long for text, or lines of Base64. Possessive repeats avoid backtracking,
# which would be slow in texts of a megabyte.
_DATA = re.compile(
    rb"(?<![!#-+\--~])[!#-+\--~]{512}"
    rb"|(?<![A-Za-z0-9+/])(?:[A-Za-z0-9+/]{60,}+={0,2}+(?:&#x[AaDd];|\s)*+){4}"
)

# XMP properties that hold or refer to pictures: namespace, pattern of the property's
# name, and label for the user.
_XMP_PICTURES = (
    ("http://ns.adobe.com/xap/1.0/g/img/", "", "XMP thumbnail"),
    ("http://ns.adobe.com/xap/1.0/", "Thumbnails", "XMP thumbnail"),
    ("http://ns.adobe.com/photoshop/1.0/", "TextLayers", "Photoshop's text layers"),
    ("http://ns.adobe.com/hdr-gain-map/", "", "gain map"),
    ("http://ns.apple.com/HDRGainMap/", "", "gain map"),
    ("http://ns.apple.com/pixeldatainfo/", "", "gain map"),
    ("http://ns.google.com/photos/1.0/container/", "", "list of further pictures"),
    ("http://ns.google.com/photos/dd/", "", "list of further pictures"),
    ("http://ns.google.com/photos/1.0/image/", "", "picture in XMP"),
    ("http://ns.google.com/photos/1.0/depthmap/", "", "depth map"),
    ("http://ns.google.com/photos/1.0/camera/", "MotionPhoto|MicroVideo",
     "motion photo"),
    ("http://ns.adobe.com/xmp/note/", "HasExtendedXMP", "extended XMP"),
)  # fmt: skip

_IPTC, _COPYRIGHTED, _URL, _CAPTION = 0x0404, 0x040A, 0x040B, 0x03F0
_THUMBNAILS, _PATHS = (0x0409, 0x040C), range(2000, 2999)


def holds_picture(value: bytes) -> bool:
    """Returns whether a value holds an image file, or binary data instead of text."""
    plain = value.replace(b"\0", b"")  # the zeros of UTF-16
    return bool(_SIGNATURES.search(value) or _DATA.search(plain))


def clean_xmp(packet: bytes, left_out: list[str]) -> bytes | None:
    """Returns the XMP without its pictures, or unchanged if it has none.

    Returns None if it is not valid XML, because it cannot be searched then.
    """
    text = packet.strip(b"\0")
    try:
        root = expatbuilder.parseString(text, namespaces=False).documentElement
        if root is None or b"<!DOCTYPE" in text:
            raise ValueError
        names = _namespaces(root)
    except (ExpatError, ValueError, LookupError, RecursionError):
        left_out.append("damaged XMP")
        return None
    removed = [
        label
        for element in root.getElementsByTagName("*")
        if _is_description(element, names)
        for label in _remove_pictures(element, names)
    ]
    left_out += removed
    if not removed:
        return packet
    begin = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    return f'{begin}{root.toxml()}<?xpacket end="w"?>'.encode()


def _namespaces(root: Element) -> dict[str, str]:
    """Returns the namespace of each prefix, which is unique within an XMP packet."""
    return {
        name.partition(":")[2]: value
        for element in [root, *root.getElementsByTagName("*")]
        for name, value in element.attributes.items()
        if name.startswith("xmlns:")
    }


def _is_description(element: Element, names: dict[str, str]) -> bool:
    """Returns whether an element is an outermost rdf:Description, with properties."""
    parent = element.parentNode
    return (
        _split(element.tagName, names)[1] == "Description"
        and isinstance(parent, Element)
        and _split(parent.tagName, names)[1] == "RDF"
    )


def _remove_pictures(description: Element, names: dict[str, str]) -> Iterator[str]:
    """Removes the properties that contain a picture; yields a label for each."""
    for name, value in description.attributes.items():
        label = _picture(name, value, names)
        if label is not None:
            description.removeAttribute(name)
            yield label
    for child in list(description.childNodes):
        if not isinstance(child, Element):
            continue
        parts = [
            (name, value)
            for element in [child, *child.getElementsByTagName("*")]
            for name, value in [
                (element.tagName, _text(element)),
                *element.attributes.items(),
            ]
        ]
        labels = [_picture(name, value, names) for name, value in parts]
        label = next((label for label in labels if label is not None), None)
        if label is not None:
            description.removeChild(child)
            yield label


def _picture(name: str, value: str, names: dict[str, str]) -> str | None:
    namespace, local = _split(name, names)
    for start, pattern, label in _XMP_PICTURES:
        exact = namespace == start or pattern == ""
        if namespace.startswith(start) and exact and re.match(pattern, local):
            return label
    is_address = name.startswith("xmlns")
    return f"XMP {name}" if not is_address and holds_picture(value.encode()) else None


def _split(name: str, names: dict[str, str]) -> tuple[str, str]:
    prefix, _, local = name.rpartition(":")
    return names.get(prefix, ""), local


def _text(element: Element) -> str:
    return "".join(
        child.data
        for child in element.childNodes
        if child.nodeType in (Node.TEXT_NODE, Node.CDATA_SECTION_NODE)
    )


def clean_photoshop(blocks: bytes, left_out: list[str]) -> bytes | None:
    """Returns the Photoshop resources that describe a photo: IPTC, copyright, caption.

    Resources about layout and printing are removed without a notice.
    """
    kept = b""
    for code, content in _resources(blocks):
        if code == _IPTC:
            content = clean_iptc(content, left_out)
        if code in (_IPTC, _COPYRIGHTED, _URL, _CAPTION) and content:
            kept += resource(code, content)
        elif code in _THUMBNAILS:
            left_out.append("Photoshop's thumbnail")
        elif code in _PATHS:
            left_out.append("Photoshop's paths")
    return kept or None


def iptc_of(blocks: bytes) -> bytes | None:
    """Returns the IPTC data among the Photoshop resources, or None."""
    return dict(_resources(blocks)).get(_IPTC)


def iptc_resource(iptc: bytes) -> bytes:
    """Encodes IPTC data as a Photoshop resource."""
    return resource(_IPTC, iptc)


def resource(code: int, content: bytes) -> bytes:
    """Encodes an unnamed Photoshop resource."""
    padding = b"\0" * (len(content) % 2)
    return struct.pack(">4sHHI", b"8BIM", code, 0, len(content)) + content + padding


def _resources(blocks: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the code and content of each resource, up to a damaged one."""
    at = 0
    while blocks[at : at + 4] == b"8BIM" and at + 12 <= len(blocks):
        (code,) = struct.unpack_from(">H", blocks, at + 4)
        # The name is a length byte and text, padded to an even number of bytes.
        at += 6 + (blocks[at + 6] | 1) + 1
        if at + 4 > len(blocks):
            return
        (length,) = struct.unpack_from(">I", blocks, at)
        yield code, blocks[at + 4 : at + 4 + length]
        at += 4 + length + length % 2


def clean_iptc(iptc: bytes, left_out: list[str]) -> bytes:
    """Returns IPTC data sets without previews (2:200 to 2:202) and embedded objects."""
    kept, at = b"", 0
    while iptc[at : at + 1] == b"\x1c" and at + 5 <= len(iptc):
        record, number, length = struct.unpack_from(">BBH", iptc, at + 1)
        end = at + 5 + length
        if length & 0x8000:
            # An extended data set: these are the bytes of its length field.
            end = at + 5 + (length & 0x7FFF)
            end += int.from_bytes(iptc[at + 5 : end])
        if record >= 7 or (record == 2 and number in (200, 201, 202)):
            left_out.append("preview in IPTC")
        elif end <= len(iptc):
            kept += iptc[at:end]
        at = end
    return kept


def further_parts(segments: list[tuple[str, bytes]], left_out: list[str]) -> None:
    """Adds a JPEG's segments that are not kept to `left_out`, except pure structure."""
    for segment, content in segments:
        known = (name for start, name in _SEGMENTS.items() if content.startswith(start))
        large = len(content) > 256 and segment != "COM"
        label = next(known, segment if large else "")
        if content.startswith(b"JFIF\0") and content[12:14] not in (b"", b"\0\0"):
            label = "JFIF thumbnail"
        if label:
            left_out.append(label)


_SEGMENTS = {
    b"JFIF\0": "", b"JFXX\0": "JFIF thumbnail", b"Exif\0": "",
    b"http://ns.adobe.com/xap/1.0/\0": "", b"XMP\0://ns.adobe.com/xap/1.0/": "damaged XMP",
    b"http://ns.adobe.com/xmp/extension/\0": "extended XMP",
    b"ICC_PROFILE\0": "", b"MPF\0": "further pictures behind the photo",
    b"urn:iso:std:iso:ts:21496": "gain map", b"FPXR\0": "FlashPix preview",
    b"JP": "Content Credentials (C2PA)", b"Photoshop 3.0\0": "", b"Adobe": "",
    b"Ducky": "",
}  # fmt: skip
"""A segment's first bytes and its label; empty if it is kept or pure structure."""


def behind_jpeg(data: bytes) -> bytes:
    """Returns the bytes behind a JPEG's picture, such as a motion photo's video."""
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    # Within the pixel data 0xff is never followed by 0xd9.
    end = data.find(b"\xff\xd9", at)
    return b"" if end < 0 else data[end + 2 :].strip(b"\0\xff\r\n ")
