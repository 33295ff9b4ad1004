"""A photo survives its completion: pixels, depth, alpha, metadata, format."""

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from gl_jax import images
from gl_jax.config import UsageError

CHANCE = np.random.default_rng(0)
HEIGHT, WIDTH = 20, 30
RGB = CHANCE.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
ALPHA = CHANCE.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
DEEP = CHANCE.integers(0, 65536, (HEIGHT, WIDTH, 4)).astype(np.uint16)
FLOAT = CHANCE.random((HEIGHT, WIDTH, 3)).astype(np.float32)
HOLE = np.zeros((HEIGHT, WIDTH), bool)
HOLE[4:12, 6:19] = True
NEW = CHANCE.random((int(HOLE.sum()), 3)).astype(np.float32)

MODES = {
    "RGB": Image.fromarray(RGB),
    "RGBA": Image.fromarray(np.dstack([RGB, ALPHA])),
    "L": Image.fromarray(RGB[..., 0]),
    "LA": Image.fromarray(np.dstack([RGB[..., 0], ALPHA])),
    "1": Image.fromarray(RGB[..., 0] > 99),
    "P": Image.fromarray(RGB).quantize(16),
    "CMYK": Image.fromarray(RGB).convert("CMYK"),
    "I": Image.fromarray(DEEP[..., 0].astype(np.int32)),
    "I;16": Image.fromarray(DEEP[..., 0]),
    "F": Image.fromarray(FLOAT[..., 0]),
}
LOSSLESS = {
    ".png": "RGB RGBA L LA 1 P I;16",
    ".tif": " ".join(MODES),
    ".webp": "RGB RGBA",
    ".bmp": "RGB L 1 P",
    ".ppm": "RGB L 1 I",
    ".tga": "RGB RGBA L LA",
    ".jp2": "RGB RGBA L LA I;16",
    ".gif": "P 1",
}


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    if path.suffix == ".webp":
        options = {"lossless": True, "exact": True} | options
    image.save(path, **options)
    return path


def rewritten(path: Path, **options: Any) -> tuple[images.Photo, images.Photo]:
    """The photo, and what is read of it after its hole was filled and it was written."""
    photo = images.read(path)
    target = path.with_name(f"result{path.suffix}")
    images.write(photo.fill(HOLE, NEW), target, **options)
    return photo, images.read(target)


def assert_only_the_hole_changed(photo: images.Photo, result: images.Photo) -> None:
    assert result.pixels.dtype == photo.pixels.dtype
    np.testing.assert_array_equal(result.pixels[~HOLE], photo.pixels[~HOLE])
    assert (result.pixels[HOLE] != photo.pixels[HOLE]).mean() > 0.3
    assert (result.alpha is None) == (photo.alpha is None)
    if photo.alpha is not None:
        np.testing.assert_array_equal(result.alpha, photo.alpha)


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_known_pixels_are_the_same_to_the_bit(suffix, tmp_path) -> None:
    for mode in LOSSLESS[suffix].split():
        path = saved(MODES[mode], tmp_path / f"photo{suffix}")
        photo, result = rewritten(path)
        assert photo.lossless, mode
        assert_only_the_hole_changed(photo, result)
        kept = {"P": "P" if suffix == ".gif" else "RGB"}
        if (suffix, mode) != (".gif", "1"):
            assert result.mode == kept.get(mode, mode)


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_the_hole_gets_the_new_colours(suffix, tmp_path) -> None:
    # A palette has 256 colours for everything.
    tolerance = 0.25 if suffix == ".gif" else 0.002
    for mode in LOSSLESS[suffix].split():
        path = saved(MODES[mode], tmp_path / f"photo{suffix}")
        photo, result = rewritten(path)
        wanted = NEW
        if photo.mode in ("1", "L", "LA", "I", "I;16", "F"):
            wanted = np.repeat((NEW @ [0.299, 0.587, 0.114])[:, None], 3, axis=1)
        if photo.mode == "1":
            wanted = np.rint(wanted)
        assert np.abs(result.unit()[HOLE] - wanted).max() <= tolerance, mode


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_training_sees_the_same_photo(suffix, tmp_path) -> None:
    for mode in LOSSLESS[suffix].split():
        path = saved(MODES[mode], tmp_path / f"photo{suffix}")
        photo, trained = images.read(path), images.read_rgb(path, "photo")
        # Of 16 bits training keeps the upper eight.
        assert np.abs(photo.unit() * 255 - trained).max() < 1, mode


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bit_colour_stays_so(suffix, channels, tmp_path) -> None:
    order = [2, 1, 0, 3][:channels]
    path = tmp_path / f"deep{suffix}"
    path.write_bytes(cv2.imencode(suffix, DEEP[..., :channels][..., order])[1])
    photo, result = rewritten(path)
    np.testing.assert_array_equal(photo.pixels, DEEP[..., :3])
    if channels == 4:
        np.testing.assert_array_equal(photo.alpha, DEEP[..., 3])
    assert_only_the_hole_changed(photo, result)
    levels = result.pixels[HOLE].astype(float)
    np.testing.assert_allclose(levels, NEW * 65535, atol=0.51)
    trained = images.read_rgb(path, "photo")
    assert np.abs(photo.unit() * 255 - trained).max() <= 1


def test_sixteen_bit_grey_with_alpha_stays_so(tmp_path) -> None:
    grey = images.Photo(
        "grey", DEEP[..., :1].repeat(3, axis=2), 65535.0, DEEP[..., 3], "LA", "PNG"
    )
    images.write(grey, tmp_path / "grey.png")
    photo, result = rewritten(tmp_path / "grey.png")
    np.testing.assert_array_equal(photo.pixels, grey.pixels)
    np.testing.assert_array_equal(photo.alpha, grey.alpha)
    assert_only_the_hole_changed(photo, result)


@pytest.mark.parametrize("white", [1, 255, 65535])
def test_floating_point_colour_stays_so(white, tmp_path) -> None:
    values = FLOAT * np.float32(white)
    values[0, 0, 0] = white
    (tmp_path / "f.tif").write_bytes(cv2.imencode(".tif", values[..., ::-1])[1])
    photo, result = rewritten(tmp_path / "f.tif")
    np.testing.assert_array_equal(photo.pixels, values)
    assert_only_the_hole_changed(photo, result)
    trained = images.read_rgb(tmp_path / "f.tif", "photo")
    assert np.abs(photo.unit() * 255 - trained).max() <= 0.5 + 1e-4


def test_one_transparent_value_of_deep_grey_becomes_alpha(tmp_path) -> None:
    path = tmp_path / "photo.png"
    MODES["I;16"].save(path, transparency=int(DEEP[3, 4, 0]))
    photo = images.read(path)
    np.testing.assert_array_equal(photo.alpha == 0, DEEP[..., 0] == DEEP[3, 4, 0])


def test_transparency_of_a_palette_is_kept(tmp_path) -> None:
    path = tmp_path / "photo.png"
    MODES["P"].save(path, transparency=b"\0\x80\xff\0")
    photo, result = rewritten(path)
    assert set(np.unique(photo.alpha)) == {0, 128, 255}
    assert_only_the_hole_changed(photo, result)
    assert result.mode == "RGBA"


def test_transparency_of_a_gif_is_kept(tmp_path) -> None:
    path = tmp_path / "photo.gif"
    MODES["P"].save(path, transparency=3)
    photo, result = rewritten(path)
    assert set(np.unique(photo.alpha)) == {0, 255}
    assert_only_the_hole_changed(photo, result)


def stored_for(orientation: int, upright: np.ndarray) -> np.ndarray:
    """The pixels of a file that shows `upright` once it is turned."""
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    return np.ascontiguousarray(stored)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg"])
def test_every_orientation_is_applied_and_its_tag_removed(suffix, tmp_path) -> None:
    smooth = np.asarray(Image.fromarray(RGB).resize((4, 3)).resize((WIDTH, HEIGHT)))
    tolerance = 40 if suffix == ".jpg" else 0
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112], exif[0x010F] = orientation, "Camera"
        size = exif.get_ifd(0x8769)
        size.update({0xA002: 7, 0xA003: 5})
        exif[0x8769] = size  # or Pillow leaves it out of a TIFF
        image = Image.fromarray(stored_for(orientation, smooth))
        path = saved(image, tmp_path / f"photo{suffix}", exif=exif)
        photo, result = rewritten(path)
        wrong = np.abs(photo.pixels.astype(int) - smooth)
        assert wrong.max() <= tolerance, orientation
        assert result.size == (HEIGHT, WIDTH), orientation
        with Image.open(tmp_path / f"result{suffix}") as written:
            tags = written.getexif()
            assert tags.get(0x0112, 1) == 1
            assert tags[0x010F] == "Camera"
            size = [tags.get_ifd(0x8769)[tag] for tag in (0xA002, 0xA003)]
            assert size == ([5, 7] if orientation >= 5 else [7, 5])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_every_orientation_of_deep_colour_is_applied(suffix, tmp_path) -> None:
    path = tmp_path / f"deep{suffix}"
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = stored_for(orientation, DEEP[..., :3])
        images.write(images.Photo("deep", stored, 65535.0, format="TIFF"), path)
        data = path.read_bytes()
        if suffix == ".png":
            path.write_bytes(with_chunk(data, b"eXIf", exif.tobytes()[6:]))
        else:
            path.write_bytes(with_orientation_tag(data, orientation))
        upright = images.read(path).pixels
        np.testing.assert_array_equal(upright, DEEP[..., :3], f"{orientation}")


def with_chunk(png: bytes, name: bytes, content: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(name + content))
    chunk = struct.pack(">I", len(content)) + name + content + crc
    return png[:33] + chunk + png[33:]


def with_orientation_tag(tiff: bytes, orientation: int) -> bytes:
    """A TIFF of ours whose planar configuration, which is 1 anyway, gives way to the tag."""
    entry = struct.pack("<HHI", 284, 3, 1)
    at = tiff.index(entry)
    # The entries stay in order: 279 < 284; 274 is smaller, but decoders do not mind.
    return (
        tiff[:at] + struct.pack("<HHIHH", 274, 3, 1, orientation, 0) + tiff[at + 12 :]
    )


def test_profile_exif_text_and_resolution_are_kept(tmp_path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "Ada")
    text.add_itxt("Titel", "Grüße", zip=True)
    text.add(b"gAMA", struct.pack(">I", 45455))
    exif = Image.Exif()
    exif[0x8298] = "her licence"
    exif.get_ifd(0x8825).update({1: "N", 2: (10.0, 20.0, 30.0)})
    path = tmp_path / "photo.png"
    MODES["RGB"].save(path, pnginfo=text, icc_profile=profile, exif=exif, dpi=(300, 72))
    rewritten(path)
    with Image.open(tmp_path / "result.png") as written:
        written.load()
        assert written.text == {"Author": "Ada", "Titel": "Grüße"}
        assert written.info["icc_profile"] == profile
        assert written.info["gamma"] == pytest.approx(0.45455)
        assert [round(value) for value in written.info["dpi"]] == [300, 72]
        assert written.getexif()[0x8298] == "her licence"
        assert written.getexif().get_ifd(0x8825)[2] == (10.0, 20.0, 30.0)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".tif", ".avif", ".png"])
def test_profile_and_exif_survive_in_every_format(suffix, tmp_path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010F] = "Camera"
    path = saved(
        MODES["RGB"], tmp_path / f"photo{suffix}", exif=exif, icc_profile=profile
    )
    rewritten(path)
    with Image.open(tmp_path / f"result{suffix}") as written:
        assert written.getexif()[0x010F] == "Camera"
        assert written.info["icc_profile"] == profile


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_metadata_of_deep_colour_are_kept(suffix, tmp_path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010F] = "Camera"
    exif.get_ifd(0x8769)[0x829A] = 0.02
    about = images.Metadata(
        icc=profile, exif=exif.tobytes(), dpi=(300.0, 300.0), xmp=b"<x:xmpmeta/>"
    )
    deep = images.Photo("deep", DEEP[..., :3], 65535.0, metadata=about)
    images.write(deep, tmp_path / f"deep{suffix}")
    photo = images.read(tmp_path / f"deep{suffix}")
    np.testing.assert_array_equal(photo.pixels, deep.pixels)
    assert photo.metadata.icc == profile
    assert photo.metadata.xmp == b"<x:xmpmeta/>"
    assert photo.metadata.dpi == pytest.approx((300, 300), abs=0.1)
    with Image.open(tmp_path / f"deep{suffix}") as written:
        assert written.getexif()[0x010F] == "Camera"
        assert written.getexif().get_ifd(0x8769)[0x829A] == pytest.approx(0.02)


def test_a_thumbnail_goes_because_it_shows_what_was_removed(tmp_path) -> None:
    small = io.BytesIO()
    MODES["RGB"].resize((16, 16)).save(small, "JPEG")
    # IFD0 with one tag, then IFD1 with the thumbnail's place and length.
    ifd1 = 8 + 2 + 12 + 4
    at = ifd1 + 2 + 24 + 4
    tiff = b"II*\0" + struct.pack("<I", 8)
    tiff += struct.pack("<HHHI4sI", 1, 0x010F, 2, 4, b"Cam\0", ifd1)
    tiff += struct.pack("<HHHIIHHIII", 2, 0x0201, 4, 1, at, 0x0202, 4, 1,
                        len(small.getvalue()), 0)  # fmt: skip
    exif = b"Exif\0\0" + tiff + small.getvalue()
    path = saved(MODES["RGB"], tmp_path / "photo.jpg", exif=exif)
    rewritten(path)
    written = (tmp_path / "result.jpg").read_bytes()
    assert small.getvalue()[-64:] in path.read_bytes()
    assert small.getvalue()[-64:] not in written
    assert b"Cam\0" in written


def test_xmp_is_kept_without_its_orientation(tmp_path) -> None:
    xmp = b'<x:xmpmeta tiff:Orientation="1" dc:creator="Ada"/>'
    for suffix in (".jpg", ".png", ".webp"):
        path = tmp_path / f"photo{suffix}"
        if suffix == ".png":
            text = PngImagePlugin.PngInfo()
            text.add_itxt("XML:com.adobe.xmp", xmp.decode())
            MODES["RGB"].save(path, pnginfo=text)
        else:
            saved(MODES["RGB"], path, xmp=xmp)
        _, result = rewritten(path)
        assert result.metadata.xmp is not None
        assert b"Ada" in result.metadata.xmp and b"Orient" not in result.metadata.xmp


def test_damaged_tags_are_left_out_with_a_notice(tmp_path) -> None:
    path = saved(MODES["RGB"], tmp_path / "photo.png", exif=b"Exif\0\0nonsense")
    photo = images.read(path, "photo.png")
    assert photo.notices == ("photo.png has damaged EXIF tags: they are left out.",)


def test_a_jpeg_keeps_its_tables_and_with_a_quality_it_does_not(tmp_path) -> None:
    path = tmp_path / "photo.jpg"
    MODES["RGB"].save(path, quality=63, subsampling="4:2:0", comment="by Ada")
    rewritten(path)
    with Image.open(path) as image, Image.open(tmp_path / "result.jpg") as written:
        assert written.quantization == image.quantization
        assert written.info["comment"] == b"by Ada"
    rewritten(path, quality=90)
    with Image.open(path) as image, Image.open(tmp_path / "result.jpg") as written:
        assert max(written.quantization[0]) < max(image.quantization[0])


def test_a_lossy_webp_stays_lossy_and_a_lossless_one_lossless(tmp_path) -> None:
    path = tmp_path / "photo.webp"
    for lossless in (True, False):
        MODES["RGB"].save(path, lossless=lossless)
        photo, result = rewritten(path)
        assert photo.lossless == result.lossless == lossless
    MODES["RGB"].save(path, lossless=True)
    assert not rewritten(path, quality=80)[1].lossless


def test_cmyk_keeps_its_inks_and_reads_like_in_training(tmp_path) -> None:
    path = saved(MODES["CMYK"], tmp_path / "photo.tif")
    rewritten(path)
    with Image.open(tmp_path / "result.tif") as written:
        inks = np.asarray(written)
    np.testing.assert_array_equal(inks[~HOLE], np.asarray(MODES["CMYK"])[~HOLE])


@pytest.mark.parametrize(
    ("mode", "suffix", "notice"),
    [
        ("RGBA", ".jpg", "JPEG holds no transparency"),
        ("I;16", ".webp", "WEBP holds 8 bits a channel"),
        ("F", ".png", "PNG holds 16 bits"),
        ("P", ".png", "had a palette: it is written in full colour"),
        ("RGB", ".gif", "GIF holds 256 colours"),
    ],
)
def test_what_a_format_cannot_hold_is_said(mode, suffix, notice, tmp_path) -> None:
    photo = images.read(saved(MODES[mode], tmp_path / "photo.tif"))
    notices = images.write(photo, tmp_path / f"result{suffix}")
    assert any(notice in line for line in notices)
    result = images.read(tmp_path / f"result{suffix}")
    tolerance = 0.5 if suffix in (".jpg", ".webp", ".gif") else 0.003
    assert np.abs(result.unit() - photo.unit()).mean() <= tolerance


def test_a_profile_for_other_pixels_is_dropped_with_a_notice(tmp_path) -> None:
    profile = b"\0" * 16 + b"CMYK" + b"\0" * 108
    about = images.Metadata(icc=profile)
    photo = images.Photo("photo", RGB, 255.0, metadata=about)
    notices = images.write(photo, tmp_path / "photo.png")
    assert notices == ("photo loses its colour profile: it is not for RGB.",)
    assert images.read(tmp_path / "photo.png").metadata.icc is None


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken_with_a_notice(kind, tmp_path) -> None:
    path = tmp_path / f"photo.{kind.lower()}"
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    first.save(path, save_all=True, append_images=[second])
    photo = images.read(path, "photo")
    assert photo.notices == ("photo has 2 frames: the first one is taken.",)
    assert photo.pixels[0, 0, 0] > 240 and photo.pixels[0, 0, 2] < 15


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.2, 0.6])
def test_a_truncated_file_is_one_line(kind, share, tmp_path) -> None:
    path = tmp_path / "x.img"
    Image.fromarray(np.tile(RGB, (9, 9, 1))).save(path, kind)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UsageError, match=r"^x\.img .+\.$") as raised:
        images.read(path, "x.img")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x is empty: it has no bytes."),
        (b"no image\n" * 9, "x is not an image in a known format."),
        (None, "x cannot be read: Is a directory."),
    ],
)
def test_what_is_no_image_is_named(content, message, tmp_path) -> None:
    path = tmp_path / "x"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(UsageError, match=f"^{message}$"):
        images.read(path, "x")
    with pytest.raises(UsageError, match="does not exist"):
        images.read(tmp_path / "y")


def test_a_bomb_is_refused_naming_limit_and_flag(tmp_path, monkeypatch) -> None:
    path = saved(MODES["RGB"], tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(UsageError, match=r"more than 500 pixels.*--max-pixels"):
        images.read(path)
    images.allow_pixels(600)
    assert images.read(path).size == (HEIGHT, WIDTH)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 7)])
def test_the_smallest_photos_are_read_and_written(size, tmp_path) -> None:
    photo = images.from_array(np.full((*size, 3), 9, np.uint8))
    images.write(photo, tmp_path / "x.png")
    assert images.read(tmp_path / "x.png").size == size


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path) -> None:
    (tmp_path / "x.png").mkdir()
    photo = images.from_array(RGB)
    with pytest.raises(UsageError, match=r"x\.png cannot be written: Is a directory"):
        images.write(photo, tmp_path / "x.png")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"y\.png cannot be written: "):
        images.write(photo, tmp_path / "file" / "y.png")
    assert sorted(os.listdir(tmp_path)) == ["file", "x.png"]


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch) -> None:
    old = b"what was there"
    (tmp_path / "x.png").write_bytes(old)

    def full_disk(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(UsageError, match="No space left on device"):
        images.write(images.from_array(RGB), tmp_path / "x.png")
    assert os.listdir(tmp_path) == ["x.png"]
    assert (tmp_path / "x.png").read_bytes() == old


@pytest.mark.parametrize("name", ["x.xyz", "x", "png.doc"])
def test_an_unknown_format_is_refused_with_the_known_ones(name, tmp_path) -> None:
    with pytest.raises(UsageError, match="not a writable format; choose one of png"):
        images.write(images.from_array(RGB), tmp_path / name)


def test_the_output_follows_the_input_where_its_format_is_written() -> None:
    assert images.output_suffix(Path("a/b.JPG")) == ".JPG"
    assert images.output_suffix(Path("b.psd")) == ".png"


@pytest.mark.parametrize("mode", MODES)
def test_pillow_images_go_there_and_back(mode) -> None:
    photo = images.from_pillow(MODES[mode])
    back = images.to_pillow(photo.fill(HOLE, NEW))
    assert back.mode == {"P": "RGB"}.get(mode, mode)
    again = images.from_pillow(back)
    np.testing.assert_array_equal(again.pixels[~HOLE], photo.pixels[~HOLE])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_an_opened_pillow_image_is_turned_and_stays_as_it_was(suffix, tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(stored_for(6, RGB))
    stored.save(tmp_path / f"x{suffix}", exif=exif, dpi=(300, 300))
    with Image.open(tmp_path / f"x{suffix}") as image:
        photo = images.from_pillow(image)
    np.testing.assert_array_equal(photo.pixels, RGB)
    assert images.to_pillow(photo).info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_the_transparency_of_a_pillow_image_stays_in_it() -> None:
    image = MODES["P"].copy()
    image.info["transparency"] = 3
    assert images.from_pillow(image).alpha is not None
    assert image.info["transparency"] == 3


@pytest.mark.parametrize(
    "array",
    [RGB.astype(float), RGB[..., :2], RGB[None], np.zeros((0, 3, 3), np.uint8), DEEP],
)
def test_arrays_that_are_no_image_are_refused(array) -> None:
    with pytest.raises(UsageError, match="must be a uint8 array"):
        images.from_array(array)


def test_what_was_transparent_can_become_opaque() -> None:
    photo = images.from_array(np.dstack([RGB, np.where(HOLE, 0, 200)]).astype(np.uint8))
    assert (photo.fill(HOLE, NEW).alpha[HOLE] == 0).all()
    filled = photo.fill(HOLE, NEW, opaque=True)
    assert (filled.alpha[HOLE] == 255).all() and (filled.alpha[~HOLE] == 200).all()


def test_a_layer_holds_the_filled_pixels_only(tmp_path) -> None:
    weight = HOLE.astype(np.float32)
    weight[12, 6:19] = 0.5
    layer = images.from_array(RGB).fill(HOLE, NEW).layer(weight)
    images.write(layer, tmp_path / "layer.png")
    with Image.open(tmp_path / "layer.png") as image:
        assert image.mode == "RGBA"
        pixels = np.asarray(image)
    assert (pixels[HOLE][:, 3] == 255).all() and (pixels[12, 6:19, 3] == 128).all()
    assert (pixels[weight == 0] == 0).all()


@pytest.mark.parametrize("mode", MODES)
def test_side_by_side_are_input_hole_and_result(mode, tmp_path) -> None:
    photo = images.from_pillow(MODES[mode])
    result = photo.fill(HOLE, NEW)
    images.write(images.side_by_side(photo, HOLE, result), tmp_path / "x.tif")
    triple = images.read(tmp_path / "x.tif")
    assert triple.size == (HEIGHT, 3 * WIDTH)
    parts = np.split(triple.unit(), 3, axis=1)
    np.testing.assert_allclose(parts[0], photo.unit(), atol=1e-6)
    assert (parts[1][HOLE] == 1).all()
    np.testing.assert_allclose(parts[2], result.unit(), atol=1e-6)
