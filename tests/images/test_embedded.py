"""Nothing in a result shows what was removed; what describes the photo stays."""

import base64
import io
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, TiffImagePlugin

from gl_jax import images
from gl_jax.images import embedded

CHANCE = np.random.default_rng(0)
RGB = CHANCE.integers(0, 256, (24, 32, 3), dtype=np.uint8)
PHOTO = Image.fromarray(RGB)
HOLE = np.zeros((24, 32), bool)
HOLE[4:12, 6:19] = True
NEW = np.full((int(HOLE.sum()), 3), 0.5, np.float32)


def jpeg_of(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()


THUMBNAIL = jpeg_of(PHOTO.resize((16, 12)))
ENCODED = base64.encodebytes(THUMBNAIL).decode().strip()
NAMESPACES = {
    "x": "adobe:ns:meta/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "g": "http://ns.adobe.com/xap/1.0/g/img/",
    "note": "http://ns.adobe.com/xmp/note/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "GImage": "http://ns.google.com/photos/1.0/image/",
    "GCamera": "http://ns.google.com/photos/1.0/camera/",
    "Container": "http://ns.google.com/photos/1.0/container/",
    "Item": "http://ns.google.com/photos/1.0/container/item/",
    "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
    "own": "http://example.com/own/",
}
CAPTION = (
    "<dc:description><rdf:Alt><rdf:li xml:lang='x-default'>Ada, at the sea"
    "</rdf:li></rdf:Alt></dc:description>"
)


def xmp_of(inside: str = "", attributes: str = "") -> bytes:
    declared = " ".join(f'xmlns:{p}="{uri}"' for p, uri in NAMESPACES.items())
    return (
        f'<?xpacket begin="\ufeff"?><x:xmpmeta {declared}><rdf:RDF><rdf:Description '
        f'rdf:about="" xmp:Rating="4" {attributes}>{CAPTION}{inside}</rdf:Description>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


PICTURES_IN_XMP = {
    "Adobe's thumbnail": (
        f"<xmp:Thumbnails><rdf:Alt><rdf:li><g:image>{ENCODED}</g:image></rdf:li>"
        "</rdf:Alt></xmp:Thumbnails>", "", "XMP thumbnail"),
    "Google's original": ("", f'GImage:Data="{ENCODED}"', "picture in XMP"),
    "text layers": (
        "<photoshop:TextLayers><rdf:Bag><rdf:li photoshop:LayerText='my name'/>"
        "</rdf:Bag></photoshop:TextLayers>", "", "Photoshop's text layers"),
    "a property that nobody knows": (
        f"<own:cache>{ENCODED}</own:cache>", "", "XMP own:cache"),
    "the same within others": (
        f"<own:a><rdf:Bag><rdf:li own:b='{ENCODED}'/></rdf:Bag></own:a>", "",
        "XMP own:b"),
    "data that is no known picture": (
        "", f'own:mask="{"Zm9v" * 200}"', "XMP own:mask"),
}  # fmt: skip


def saved(path: Path, **options: Any) -> Path:
    if path.suffix == ".png" and "xmp" in options:
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", options.pop("xmp").decode())
        options["pnginfo"] = text
    if path.suffix == ".tif" and "xmp" in options:
        options["tiffinfo"] = {700: options.pop("xmp")}
    PHOTO.save(path, **options)
    return path


def completed(path: Path, suffix: str = "") -> tuple[bytes, str]:
    """The bytes of the result, its metadata unpacked, and all that was said."""
    photo = images.read(path, "photo")
    target = path.with_name(f"result{suffix or path.suffix}")
    written = images.write(photo.fill(HOLE, NEW), target)
    data = target.read_bytes()
    if target.suffix == ".png":
        data += b"".join(unpacked(data))
    return data, "\n".join([*photo.notices, *written])


def unpacked(png: bytes) -> list[bytes]:
    with Image.open(io.BytesIO(png)) as image:
        image.load()
        profile = image.info.get("Raw profile type 8bim", "")
        return [bytes.fromhex("".join(profile.split()[2:]))]


def said(*names: str) -> str:
    return f"photo: left out, as it could show what was removed: {', '.join(names)}."


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
@pytest.mark.parametrize("case", PICTURES_IN_XMP)
def test_pictures_in_xmp_go_and_the_caption_stays(case, suffix, tmp_path) -> None:
    inside, attributes, label = PICTURES_IN_XMP[case]
    xmp = xmp_of(inside, attributes)
    data, notices = completed(saved(tmp_path / f"photo{suffix}", xmp=xmp))
    for secret in (ENCODED[:60], "my name", "Zm9vZm9v"):
        assert secret.encode() not in data
    assert b"Ada, at the sea" in data and b'xmp:Rating="4"' in data
    assert notices == said(label)


def test_xmp_without_a_picture_stays_to_the_byte_and_nothing_is_said(tmp_path) -> None:
    prose = " ".join(["Long words like incomprehensibilities are no data."] * 100)
    address = f"https://example.com/{'path/' * 60}"
    xmp = xmp_of(f"<own:a>{prose}</own:a><own:b>{address}</own:b>")
    data, notices = completed(saved(tmp_path / "photo.jpg", xmp=xmp))
    assert xmp in data and notices == ""


@pytest.mark.parametrize(
    "xmp", [b"<x:xmpmeta", b"<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>", b"<x>" * 9999],
    ids=["cut off", "entities", "endless"],
)  # fmt: skip
def test_xmp_that_cannot_be_searched_goes(xmp, tmp_path) -> None:
    data, notices = completed(saved(tmp_path / "photo.jpg", xmp=xmp))
    assert xmp not in data and notices == said("damaged XMP")


def test_the_promise_of_a_gain_map_goes_with_it(tmp_path) -> None:
    length = len(THUMBNAIL)
    xmp = xmp_of(
        "<Container:Directory><rdf:Seq><rdf:li rdf:parseType='Resource'>"
        f"<Container:Item Item:Semantic='GainMap' Item:Length='{length}'/></rdf:li>"
        "</rdf:Seq></Container:Directory>",
        'hdrgm:Version="1.0" GCamera:MotionPhoto="1" note:HasExtendedXMP="0123"',
    )
    path = saved(tmp_path / "photo.jpg", xmp=xmp)
    path.write_bytes(path.read_bytes() + THUMBNAIL)
    data, notices = completed(path)
    for promise in (b"GainMap", b'hdrgm:Version="', b'MotionPhoto="', b'XMP="'):
        assert promise not in data
    assert THUMBNAIL not in data and b"Ada, at the sea" in data
    for part in ("gain map", "list of further pictures", "motion photo", "kB behind"):
        assert part in notices


def test_further_pictures_of_a_camera_go(tmp_path) -> None:
    path = tmp_path / "photo.jpg"
    PHOTO.save(path, "MPO", save_all=True, append_images=[PHOTO.resize((16, 12))])
    data, notices = completed(path)
    assert data.count(b"\xff\xd8\xff") == 1 and b"MPF\0" not in data
    assert notices == said("further pictures behind the photo")


def with_segment(jpeg: bytes, marker: int, content: bytes) -> bytes:
    head = struct.pack(">HH", 0xFF00 | marker, len(content) + 2)
    return jpeg[:2] + head + content + jpeg[2:]


@pytest.mark.parametrize(
    ("marker", "start", "label"),
    [
        (0xE1, b"http://ns.adobe.com/xmp/extension/\0", "extended XMP"),
        (0xE2, b"urn:iso:std:iso:ts:21496:-1\0", "gain map"),
        (0xEB, b"JP\0\1", "Content Credentials (C2PA)"),
        (0xE4, b"Maker", "APP4"),
    ],
)
def test_segments_with_pictures_go(marker, start, label, tmp_path) -> None:
    path = saved(tmp_path / "photo.jpg")
    path.write_bytes(with_segment(path.read_bytes(), marker, start + THUMBNAIL))
    data, notices = completed(path)
    assert THUMBNAIL not in data and notices == said(label)


def exif_of(tags: dict[int, Any], nested: dict[int, Any]) -> Image.Exif:
    exif = Image.Exif()
    exif.update(tags)
    inner = exif.get_ifd(0x8769)
    inner.update(nested)
    exif[0x8769] = inner
    return exif


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
def test_exif_loses_its_pictures_and_keeps_what_it_says(suffix, tmp_path) -> None:
    comment = b"UNICODE\0" + "Ada, am Meer".encode("utf-16le")
    exif = exif_of(
        {0x010F: "Camera", 0x8298: "by Ada", 40091: "Titel".encode("utf-16le"),
         65000: THUMBNAIL, 65001: "short", 65002: ENCODED},
        {0x829A: 0.01, 0x9286: comment, 0x927C: b"OM SYSTEM" + THUMBNAIL},
    )  # fmt: skip
    data, notices = completed(saved(tmp_path / f"photo{suffix}", exif=exif))
    assert THUMBNAIL not in data and ENCODED[:60].encode() not in data
    with Image.open(tmp_path / f"result{suffix}") as result:
        tags = result.getexif()
        assert (tags[0x010F], tags[0x8298], tags[65001]) == (
            "Camera",
            "by Ada",
            "short",
        )
        assert tags[40091] == "Titel".encode("utf-16le")
        assert tags.get_ifd(0x8769)[0x829A] == pytest.approx(0.01)
        assert tags.get_ifd(0x8769)[0x9286] == comment
    for label in ("MakerNote", "tag 65000", "tag 65002"):
        assert label in notices


def dataset(record: int, number: int, content: bytes) -> bytes:
    return struct.pack(">BBBH", 0x1C, record, number, len(content)) + content


IPTC = dataset(2, 120, b"Ada, at the sea") + dataset(2, 80, b"by Ada")
PHOTOSHOP = (
    embedded.resource(0x0404, IPTC + dataset(2, 202, THUMBNAIL) + dataset(8, 10, b"x"))
    + embedded.resource(0x040C, bytes(28) + THUMBNAIL)
    + embedded.resource(0x07D0, bytes(26))
    + embedded.resource(0x03F3, bytes(8))
)


def with_photoshop(path: Path) -> Path:
    """The photo with Photoshop's resources, as its format keeps them."""
    if path.suffix == ".jpg":
        saved(path)
        content = b"Photoshop 3.0\0" + PHOTOSHOP
        path.write_bytes(with_segment(path.read_bytes(), 0xED, content))
    elif path.suffix == ".png":
        text = PngImagePlugin.PngInfo()
        profile = f"\n8bim\n{len(PHOTOSHOP):8d}\n{PHOTOSHOP.hex()}\n"
        text.add_text("Raw profile type 8bim", profile, zip=True)
        saved(path, pnginfo=text)
    else:
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[34377], tags[37724] = PHOTOSHOP, b"Adobe Photoshop\0" + THUMBNAIL
        tags.tagtype[34377] = tags.tagtype[37724] = 1
        saved(path, tiffinfo=tags)
    return path


@pytest.mark.parametrize("result", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_iptc_stays_and_photoshops_pictures_go(suffix, result, tmp_path) -> None:
    data, notices = completed(with_photoshop(tmp_path / f"photo{suffix}"), result)
    assert THUMBNAIL not in data and THUMBNAIL.hex().encode() not in data
    assert IPTC in data and dataset(8, 10, b"x") not in data
    labels = ["preview in IPTC", "Photoshop's thumbnail", "Photoshop's paths"]
    if suffix == ".tif":
        labels.insert(0, "ImageSourceData (Photoshop's layers)")
    assert notices == said(*labels)
    again = images.read(tmp_path / f"result{result}")
    assert again.metadata.photoshop == embedded.resource(0x0404, IPTC)


@pytest.mark.parametrize("kind", ["bytes", "numbers"])
def test_iptc_of_a_tiff_stays_however_it_is_stored(kind, tmp_path) -> None:
    padded = IPTC + b"\0" * (-len(IPTC) % 4)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[33723], tags[33723] = 7, padded
    path = saved(tmp_path / "photo.tif", tiffinfo=tags)
    entry = struct.pack("<HHI", 33723, 7, len(padded))
    assert entry in path.read_bytes()
    if kind == "numbers":
        numbers = struct.pack("<HHI", 33723, 4, len(padded) // 4)
        path.write_bytes(path.read_bytes().replace(entry, numbers))
    data, _ = completed(path)
    assert IPTC in data


def test_text_of_a_png_goes_where_it_is_a_picture(tmp_path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "Ada, at the sea")
    text.add_text("parameters", "a cat, masterpiece, " * 100, zip=True)
    text.add_text("mxfile", "%3Cdiagram%3E" * 90)
    text.add_itxt("Thumb", ENCODED, zip=True)
    text.add(b"prVW", THUMBNAIL)
    path = saved(tmp_path / "photo.png", pnginfo=text)
    path.write_bytes(path.read_bytes() + THUMBNAIL)
    data, notices = completed(path)
    with Image.open(tmp_path / "result.png") as result:
        result.load()
        assert set(result.text) == {"Title", "parameters"}
    assert THUMBNAIL not in data and b"prVW" not in data
    assert notices == said("text 'mxfile'", "text 'Thumb'", "chunk prVW")


@pytest.mark.parametrize("suffix", [".jpg", ".gif"])
def test_a_comment_goes_only_if_it_is_a_picture(suffix, tmp_path) -> None:
    for comment, kept in ((b"Ada, at the sea", True), (ENCODED.encode(), False)):
        path = tmp_path / f"photo{suffix}"
        PHOTO.quantize(16).convert("RGB" if suffix == ".jpg" else "P").save(
            path, comment=comment
        )
        data, notices = completed(path)
        assert (comment[:60] in data) == kept
        assert (said("comment") in notices) != kept


def test_what_a_format_is_written_without_is_said(tmp_path) -> None:
    path = with_photoshop(tmp_path / "photo.jpg")
    _, notices = completed(path, ".webp")
    assert "WEBP is written without IPTC: photo loses its own." in notices
    exif = exif_of({0x010F: "Camera"}, {})
    _, notices = completed(saved(tmp_path / "photo.tif", exif=exif), ".bmp")
    assert "BMP is written without EXIF: photo loses its own." in notices


def test_searching_a_long_text_takes_no_time() -> None:
    start = time.perf_counter()
    for unit in (b"a" * 239 + b" ", b"a" * 511 + b" ", b"a=", b"/9j"):
        embedded.holds_picture(unit * (1_000_000 // len(unit)))
    assert time.perf_counter() - start < 10


def test_descriptions_that_are_not_read_are_named(tmp_path) -> None:
    path = tmp_path / "photo.gif"
    PHOTO.quantize(16).save(path)
    data = path.read_bytes()
    extension = b"!\xff\x0bXMP DataXMP\4<x/>\0"
    path.write_bytes(data[:-1] + extension + data[-1:])
    line = "photo: not read, so missing in a result: XMP."
    assert images.read(path, "photo").notices == (line,)


@pytest.mark.parametrize("kind", ["CMYK", "LAB"])
def test_a_photo_that_is_not_filled_has_no_pictures_either(kind, tmp_path) -> None:
    path = tmp_path / "photo.tif"
    xmp = xmp_of(f"<own:a>{ENCODED}</own:a>")
    PHOTO.convert(kind).save(path, tiffinfo={700: xmp})
    image = images.to_pillow(images.read(path))
    assert ENCODED[:60].encode() not in image.info["xmp"]
    assert b"Ada, at the sea" in image.info["xmp"]
