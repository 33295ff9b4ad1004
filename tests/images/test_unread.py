"""Files that are not read are told by their kind, with what to do."""

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image, TiffImagePlugin

from gl_jax import images
from gl_jax.config import UsageError

STARTS = {
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "heif-dec"),
    "camera RAW": (b"\0\0\0\x18ftypcrx \0\0\0\1", "develop it to TIFF"),
    "JPEG XL": (b"\xff\x0a\xfa\x1f", "convert it to PNG"),
    "SVG": (b"<?xml version='1.0'?>\n<!-- by Ada -->\n<svg width='9'/>", "convert it"),
    "PDF": (b"%PDF-1.7\n", "convert it"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "convert it"),
    "video": (b"\0\0\0\x14ftypqt  \0\0\0\0", "save one of its pictures"),
}


@pytest.mark.parametrize("kind", STARTS)
@pytest.mark.parametrize("name", ["x.jpg", "x"])
def test_the_content_tells_the_kind_and_what_to_do(kind, name, tmp_path) -> None:
    start, advice = STARTS[kind]
    (tmp_path / name).write_bytes(start + bytes(99))
    message = rf"^{name} is {kind}, which is not read; .*{advice}.*\.$"
    for read in (images.read, images.read_rgb):
        with pytest.raises(UsageError, match=message):
            read(tmp_path / name, name)


@pytest.mark.parametrize("name", ["x.HEIC", "x.jxl", "x.cr2", "x.svg", "x.mp4"])
def test_else_the_suffix_does(name, tmp_path) -> None:
    (tmp_path / name).write_bytes(b"no picture at all")
    with pytest.raises(UsageError, match=r"which is not read; .* first"):
        images.read(tmp_path / name, name)


@pytest.mark.parametrize("how", ["a DNG", "a preview with sub-images", "by its name"])
def test_of_a_camera_raw_the_preview_is_not_taken_for_the_photo(how, tmp_path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    if how == "a DNG":
        tags[50706] = b"\1\4\0\0"
    elif how == "a preview with sub-images":
        tags[254], tags[330] = 1, 8
    path = tmp_path / ("x.nef" if how == "by its name" else "x.tif")
    Image.new("RGB", (16, 12), "red").save(path, "TIFF", tiffinfo=tags)
    for read in (images.read, images.read_rgb):
        with pytest.raises(
            UsageError, match=rf"^{path.name} is camera RAW.*develop it"
        ):
            read(path, path.name)


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ("a.HEIC b.heif c.txt d", "2 HEIC, 1 .txt, 1 without a suffix; convert them to "
         "PNG or JPEG first, with `heif-dec`"),
        ("a.dng b.NEF c.jxl", "1 JPEG XL, 2 camera RAW; convert them to PNG, TIFF or "
         "JPEG first."),
        ("a.txt b.json", "1 .json, 1 .txt."),
    ],
)  # fmt: skip
def test_what_is_left_out_is_counted_by_kind(names, line) -> None:
    suffixes = images.counted(map(Path, names.split()))
    told = images.left_out(suffixes, Path("in"))
    assert told is not None and told.startswith(f"left out of in: {line}")


def test_nothing_left_out_is_nothing_to_say() -> None:
    assert images.left_out(Counter(), Path("in")) is None


def test_every_suffix_that_is_read_is_of_a_kind_that_is_opened() -> None:
    assert not images.readable_suffixes() & {".eps", ".pdf", ".mpg", ".heic", ".dng"}
    assert {".jpg", ".png", ".tif", ".webp", ".avif"} <= images.readable_suffixes()
