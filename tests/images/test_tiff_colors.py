"""Whatever a TIFF says its samples are, its result has the same colours."""

import io
import struct
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from gl_jax import images
from gl_jax.config import UsageError

CHANCE = np.random.default_rng(0)
HEIGHT, WIDTH = 12, 16
SMALL = CHANCE.integers(60, 200, (3, 4, 3), dtype=np.uint8)
RGB = np.asarray(Image.fromarray(SMALL).resize((WIDTH, HEIGHT)))
GREY = RGB[..., 0]
DEEP = CHANCE.integers(0, 65536, (HEIGHT, WIDTH, 4)).astype(np.uint16)
HOLE = np.zeros((HEIGHT, WIDTH), bool)
HOLE[2:5, 6:9] = True
NEW = np.tile(np.float32([0.9, 0.4, 0.2]), (int(HOLE.sum()), 1))
SIZES = {"H": 3, "I": 4}


def tiff(samples: bytes, photometric: int, bits: list[int], **tags: list[int]) -> bytes:
    """A little-endian TIFF of one strip; a tag is given by its number, as `t338`."""
    entries: dict[int, tuple[str, list[int]]] = {
        256: ("H", [WIDTH]), 257: ("H", [HEIGHT]), 258: ("H", bits), 259: ("H", [1]),
        262: ("H", [photometric]), 273: ("I", [0]), 277: ("H", [len(bits)]),
        278: ("H", [HEIGHT]), 279: ("I", [len(samples)]),
        **{int(name[1:]): ("H", value) for name, value in tags.items()},
    }  # fmt: skip
    directory, beyond = b"", b""
    end = 8 + 2 + 12 * len(entries) + 4
    for tag, (kind, values) in sorted(entries.items()):
        packed = struct.pack(f"<{len(values)}{kind}", *values)
        if tag == 273:
            packed = b"STRP"
        elif len(packed) > 4:
            place = end + len(beyond)
            beyond += packed + b"\0" * (len(packed) % 2)
            packed = struct.pack("<I", place)
        head = struct.pack("<HHI", tag, SIZES[kind], len(values))
        directory += head + packed.ljust(4, b"\0")
    directory = directory.replace(b"STRP", struct.pack("<I", end + len(beyond)))
    count = struct.pack("<H", len(entries))
    return b"II*\0\x08\0\0\0" + count + directory + bytes(4) + beyond + samples


def completed(data: bytes, path: Any) -> tuple[images.Photo, bytes]:
    path.write_bytes(data)
    photo = images.read(path, "photo")
    images.write(photo.fill(HOLE, NEW), path.with_name("result.tif"))
    return photo, path.with_name("result.tif").read_bytes()


@pytest.mark.parametrize("mode", ["LAB", "YCbCr", "CMYK"])
def test_samples_that_are_no_rgb_stay_what_they_are(mode, tmp_path) -> None:
    stored = io.BytesIO()
    Image.fromarray(RGB).convert(mode).save(stored, "TIFF")
    photo, data = completed(stored.getvalue(), tmp_path / "photo.tif")
    assert np.abs(photo.pixels.astype(int) - RGB).mean() < 1.5
    with Image.open(io.BytesIO(data)) as result:
        assert result.mode == mode
        shown = np.asarray(result.convert("RGB")).astype(int)
    assert np.abs(shown - RGB)[~HOLE].mean() < 1.5
    assert np.abs(shown[HOLE] - NEW * 255).max() < 4
    before, after = (tifffile.imread(io.BytesIO(d)) for d in (stored.getvalue(), data))
    np.testing.assert_array_equal(after[~HOLE], before[~HOLE])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_lab_becomes_rgb_in_a_format_without_it(suffix, tmp_path) -> None:
    Image.fromarray(RGB).convert("LAB").save(tmp_path / "photo.tif")
    images.write(images.read(tmp_path / "photo.tif"), tmp_path / f"x{suffix}")
    with Image.open(tmp_path / f"x{suffix}") as result:
        shown = np.asarray(result.convert("RGB")).astype(int)
    assert np.abs(shown - RGB).mean() < 6


@pytest.mark.parametrize("kind", ["16 bits", "floating point"])
def test_grey_in_which_zero_is_white_is_no_negative(kind, tmp_path) -> None:
    values = DEEP[..., 0] if kind == "16 bits" else DEEP[..., 0] / np.float32(65535)
    white = 65535 if kind == "16 bits" else 1
    form = {} if kind == "16 bits" else {"t339": [3]}
    bits = [8 * values.dtype.itemsize]
    stored = tiff(np.asarray(white - values, values.dtype).tobytes(), 0, bits, **form)
    photo, data = completed(stored, tmp_path / "photo.tif")
    np.testing.assert_allclose(photo.pixels[..., 0], values, atol=1e-6)
    trained = images.read_rgb(stored, "photo")
    assert np.abs(trained - photo.unit() * 255).max() <= 1
    result = tifffile.imread(io.BytesIO(data))
    np.testing.assert_allclose(result[~HOLE], values[~HOLE], atol=1e-6)


def test_grey_of_twelve_bits_is_not_dark(tmp_path) -> None:
    values = DEEP[..., 0] >> 4
    first, second = values.reshape(-1, 2).astype(int).T
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1)
    stored = tiff(packed.astype(np.uint8).tobytes(), 1, [12])
    photo, _ = completed(stored, tmp_path / "photo.tif")
    np.testing.assert_allclose(photo.unit()[..., 0], values / 4095, atol=1e-4)
    trained = images.read_rgb(stored, "photo")
    assert np.abs(trained[..., 0] - values / 4095 * 255).max() <= 1


def test_colours_multiplied_by_their_alpha_are_divided_by_it(tmp_path) -> None:
    alpha = np.maximum(DEEP[..., 3], 20_000)
    colors = DEEP[..., :3].astype(float)
    stored = np.dstack([np.rint(colors * alpha[..., None] / 65535), alpha])
    data = tiff(stored.astype("<u2").tobytes(), 2, [16] * 4, t338=[1])
    photo, _ = completed(data, tmp_path / "photo.tif")
    assert np.abs(photo.pixels - colors).max() <= 2
    np.testing.assert_array_equal(photo.alpha, alpha)


def test_grey_multiplied_by_its_alpha_is_divided_by_it(tmp_path) -> None:
    alpha = np.maximum(DEEP[..., 3] >> 8, 80)
    stored = np.dstack([np.rint(GREY * (alpha / 255)), alpha]).astype(np.uint8)
    data = tiff(stored.tobytes(), 1, [8, 8], t338=[1])
    photo, _ = completed(data, tmp_path / "photo.tif")
    assert np.abs(photo.pixels[..., 0] - GREY.astype(int)).max() <= 3
    assert np.abs(images.read_rgb(data, "photo")[..., 0] - GREY.astype(int)).max() <= 3


def test_a_sample_that_is_no_alpha_is_none(tmp_path) -> None:
    data = tiff(DEEP.astype("<u2").tobytes(), 2, [16] * 4, t338=[0])
    photo, _ = completed(data, tmp_path / "photo.tif")
    assert photo.alpha is None
    np.testing.assert_array_equal(photo.pixels, DEEP[..., :3])


def test_sixteen_bits_of_ink_are_said_to_become_eight(tmp_path) -> None:
    data = tiff(DEEP.astype("<u2").tobytes(), 5, [16] * 4)
    photo, _ = completed(data, tmp_path / "photo.tif")
    assert photo.notices == ("photo has inks of 16 bits: 8 of them are kept.",)


REFUSED = {
    "signed": (tiff(GREY.tobytes(), 1, [8], t339=[2]), "values are signed"),
    "YCbCr with levels of its own": (
        tiff(RGB.tobytes(), 6, [8] * 3, t530=[1, 1], t532=[16, 235, 128, 240, 128, 240]),
        "other reference levels"),
    "subsampled YCbCr": (
        tiff(RGB.tobytes(), 6, [8] * 3, t530=[2, 2]), "is subsampled"),
    "Lab of 16 bits": (
        tiff(DEEP[..., :3].astype("<u2").tobytes(), 8, [16] * 3), "whose samples are not"),
    "a plane of 16 bits for each colour": (
        tiff(DEEP[..., :3].tobytes(), 2, [16] * 3, t284=[2]), "separate planes of more than 8"),
    "Lab of a scanner": (tiff(RGB.tobytes(), 9, [8] * 3), "whose samples are not"),
    "linear RAW": (
        tiff(DEEP[..., :3].astype("<u2").tobytes(), 34892, [16] * 3), "whose samples are not"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_have_other_colours_is_refused(case, tmp_path) -> None:
    data, message = REFUSED[case]
    (tmp_path / "x.tif").write_bytes(data)
    with pytest.raises(UsageError, match=rf"^x\.tif .*{message}.*\.$"):
        images.read(tmp_path / "x.tif", "x.tif")
    with pytest.raises(UsageError, match=message):
        images.read_rgb(data, "x.tif")
