"""Every kind of image becomes the same upright RGB, or one clear line."""

import io
import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gl_jax.config import UsageError
from gl_jax.images import crops, read_crop, read_rgb

# Four different corners, so that any turn or mirroring of it shows.
SCENE = np.zeros((24, 32, 3), np.uint8)
SCENE[:12, :16], SCENE[:12, 16:] = (200, 30, 40), (20, 180, 60)
SCENE[12:, :16], SCENE[12:, 16:] = (30, 50, 220), (240, 230, 20)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width].astype(float)
    waves = [127 + 90 * np.sin(x / 23 + c) * np.cos(y / 31 - c) for c in range(3)]
    return np.stack(waves, axis=-1).astype(np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_every_exif_orientation_is_turned_upright(kind: str) -> None:
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
    tolerance = 40 if kind == "JPEG" else 0
    stored = {
        1: SCENE,
        2: SCENE[:, ::-1],
        3: SCENE[::-1, ::-1],
        4: SCENE[::-1],
        5: SCENE.swapaxes(0, 1),
        6: np.rot90(SCENE),
        7: SCENE[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(SCENE, -1),
    }
    for orientation, pixels in stored.items():
        tags = Image.Exif()
        tags[0x0112] = orientation
        image = Image.fromarray(np.ascontiguousarray(pixels))
        data = encoded(image, kind, exif=tags, **options.get(kind, {}))
        upright = read_rgb(data, "photo")
        assert upright.shape == SCENE.shape, orientation
        assert np.abs(upright.astype(int) - SCENE).max() <= tolerance, orientation
        crop = read_crop(data, "photo", shortest=24, side=24, place=(0.0, 0.0))
        wrong = np.abs(crop.astype(int) - SCENE[:, :24])
        assert wrong.max() <= tolerance, orientation


def test_damaged_exif_does_not_cost_the_photograph() -> None:
    data = encoded(Image.fromarray(SCENE), "PNG", exif=b"Exif\0\0nonsense")
    np.testing.assert_array_equal(read_rgb(data, "photo"), SCENE)


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    values = np.array([[0, 256, 30000, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        grey = read_rgb(encoded(Image.fromarray(values), kind), "photo")
        assert grey[0].tolist() == [[0] * 3, [1] * 3, [117] * 3, [255] * 3]


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_float_tiff_is_scaled_from_its_usual_range(white: float) -> None:
    values = np.array([[0.0, 0.5, 1.0]], np.float32) * np.float32(white)
    grey = read_rgb(encoded(Image.fromarray(values), "TIFF"), "photo")
    assert grey[0, :, 0].tolist() == [0, 128, 255]


def test_float_tiff_that_is_not_finite_is_refused() -> None:
    values = np.array([[0.0, np.nan]], np.float32)
    with pytest.raises(UsageError, match=r"^deep.tif cannot be decoded: .*not finite"):
        read_rgb(encoded(Image.fromarray(values), "TIFF"), "deep.tif")


def test_grey_has_three_equal_channels() -> None:
    grey = Image.fromarray(SCENE).convert("L")
    expected = np.repeat(np.asarray(grey)[..., None], 3, axis=-1)
    np.testing.assert_array_equal(read_rgb(encoded(grey), "photo"), expected)


def test_one_bit_is_black_and_white() -> None:
    bits = Image.fromarray(SCENE).convert("1")
    assert set(np.unique(read_rgb(encoded(bits), "photo"))) == {0, 255}


def test_alpha_is_dropped_and_the_colour_under_it_kept() -> None:
    alpha = np.zeros((24, 32, 1), np.uint8)
    data = encoded(Image.fromarray(np.concatenate([SCENE, alpha], axis=-1)))
    np.testing.assert_array_equal(read_rgb(data, "photo"), SCENE)


def test_grey_with_alpha_keeps_its_grey() -> None:
    image = Image.new("LA", (4, 4), (90, 0))
    assert np.unique(read_rgb(encoded(image), "photo")).tolist() == [90]


def test_palette_becomes_its_colours_even_where_transparent() -> None:
    image = Image.fromarray(SCENE).quantize(4)
    opaque = read_rgb(encoded(image), "photo")
    np.testing.assert_array_equal(opaque, SCENE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clear = read_rgb(encoded(image, transparency=b"\0\x80\xff\0"), "photo")
    np.testing.assert_array_equal(clear, SCENE)


def test_cmyk_jpeg_keeps_its_colours() -> None:
    image = Image.fromarray(SCENE).convert("CMYK")
    rgb = read_rgb(encoded(image, "JPEG", quality=100), "photo").astype(int)
    assert np.abs(rgb - SCENE).max() <= 12


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_counts(kind: str) -> None:
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    data = encoded(
        first,
        kind,
        save_all=True,
        append_images=[second],
        **({"lossless": True} if kind == "WEBP" else {}),
    )
    assert read_rgb(data, "photo")[0, 0].tolist() == [255, 0, 0]


def test_a_file_reads_like_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "ü photo.png").write_bytes(encoded(Image.fromarray(SCENE)))
    np.testing.assert_array_equal(read_rgb(tmp_path / "ü photo.png", "photo"), SCENE)


def _truncated(kind: str) -> bytes:
    return encoded(Image.fromarray(smooth(64, 64)), kind)[:-200]


UNREADABLE = {
    "empty": (b"", "x.jpg is empty: it has no bytes."),
    "text": (b"this is no image\n" * 9, "x.jpg is not an image in a known format."),
    "truncated JPEG": (_truncated("JPEG"), "x.jpg cannot be decoded: .+"),
    "truncated PNG": (_truncated("PNG"), "x.jpg cannot be decoded: .+"),
    "truncated WebP": (_truncated("WEBP"), "x.jpg .+"),
    "header only": (_truncated("JPEG")[:30], "x.jpg .+"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_the_unreadable_is_named_in_one_line(case: str, tmp_path: Path) -> None:
    data, message = UNREADABLE[case]
    (tmp_path / "x.jpg").write_bytes(data)
    for readable in (data, tmp_path / "x.jpg"):
        with pytest.raises(UsageError, match=f"^{message}$") as raised:
            read_rgb(readable, "x.jpg")
        assert "\n" not in str(raised.value)
        for exact in (True, False):
            with pytest.raises(UsageError, match=f"^{message}$"):
                read_crop(readable, "x.jpg", shortest=16, side=16, exact=exact)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^photo\.jpg does not exist\.$"):
        read_rgb(tmp_path / "photo.jpg", "photo.jpg")


@pytest.mark.parametrize(
    "side", [40, 60, 90]
)  # refused by us, with a warning, by Pillow
def test_a_bomb_is_refused(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.new("L", (side, side)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)
    with pytest.raises(UsageError, match="more than 1,500 pixels"):
        read_rgb(data, "photo")


@pytest.mark.parametrize(("height", "width"), [(300, 200), (200, 300), (37, 61)])
def test_a_crop_is_the_crop_of_the_whole_resized_image(height: int, width: int) -> None:
    image = Image.fromarray(smooth(height, width))
    scale = 120 / min(height, width)
    size = (round(width * scale), round(height * scale))
    whole = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    free = whole.shape[0] - 96, whole.shape[1] - 96
    for place in ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (0.3, 0.9)):
        crop = read_crop(encoded(image), "photo", shortest=120, side=96, place=place)
        top, left = (min(int(p * (f + 1)), f) for p, f in zip(place, free, strict=True))
        expected = whole[top : top + 96, left : left + 96]
        assert np.abs(crop.astype(int) - expected).max() <= 1, place


@pytest.mark.parametrize("format_name", ["PNG", "JPEG"])
def test_a_crop_that_need_not_be_exact_hardly_differs(format_name: str) -> None:
    data = encoded(Image.fromarray(smooth(200, 300)), format_name)
    sizes = [
        *((shortest, 48) for shortest in (48, 60, 100, 190, 200, 230, 400)),
        *((shortest, 160) for shortest in (190, 200, 230, 260, 261, 400)),
    ]
    places = [(0.0, 0.0), (0.3, 0.9), (1.0, 1.0)]
    for (shortest, side), place in itertools.product(sizes, places):
        at = {"shortest": shortest, "side": side, "place": place}
        exact = read_crop(data, "photo", **at).astype(float)
        quick = read_crop(data, "photo", **at, exact=False).astype(float)
        # Half a pixel beside its place it would be several grey levels off.
        assert np.abs(quick - exact).mean() < 0.7, at
        assert np.abs(quick - exact).max() <= 6, at


def test_a_crop_made_smaller_has_its_side_whatever_the_sizes_and_the_place() -> None:
    chances = np.random.default_rng(0)
    for _ in range(300):
        height, width = chances.integers(9, 90, 2)
        image = Image.fromarray(np.full((height, width, 3), 77, np.uint8))
        shortest = int(chances.integers(2, min(height, width)))
        side = int(chances.integers(1, shortest + 1))
        for place in ((1.0, 1.0), tuple(chances.random(2))):
            at = {"shortest": shortest, "side": side, "place": place}
            crop = read_crop(encoded(image, "BMP"), "photo", **at, exact=False)
            assert crop.shape == (side, side, 3)
            assert (crop == 77).all()


@pytest.mark.parametrize("shortest", [50, 64, 80, 100])
def test_a_crop_that_need_not_be_exact_does_not_alias(shortest: int) -> None:
    stripes = np.zeros((200, 200, 3), np.uint8)
    stripes[:, ::2] = 255  # the finest there are: grey, where they are made smaller
    data = encoded(Image.fromarray(stripes))
    crop = read_crop(data, "photo", shortest=shortest, side=48, exact=False)
    assert np.abs(crop[4:-4, 4:-4] - 127.5).max() < 40


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_decoded_smaller_shows_the_same(orientation: int) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    image = Image.fromarray(smooth(640, 480))
    data = encoded(image, "JPEG", quality=98, exif=tags)
    exact = encoded(image, "PNG", exif=tags)
    for shortest in (58, 120, 200, 241):
        at = {"shortest": shortest, "side": 48, "place": (0.2, 0.7)}
        fast = read_crop(data, "photo", **at).astype(float)
        assert np.abs(fast - read_crop(exact, "photo", **at)).mean() < 1.5


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"subsampling": 0}, {"keep_rgb": True}],
    ids=["plain", "progressive", "4:4:4", "stored as RGB"],
)
def test_opencv_decodes_a_jpeg_as_pillow_does(
    options: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image.fromarray(smooth(301, 237))  # no whole number of blocks
    for orientation, shortest in itertools.product(
        range(1, 9), [30, 58, 120, 237, 300]
    ):
        tags = Image.Exif()
        tags[0x0112] = orientation
        data = encoded(image, "JPEG", exif=tags, **options)
        at = {"shortest": shortest, "side": 24, "place": (0.2, 0.7), "exact": False}
        with monkeypatch.context() as pillow_refuses:
            pillow_refuses.setattr(crops, "upright_rgb", None)
            quick = read_crop(data, "photo", **at)
        with monkeypatch.context() as opencv_fails:
            opencv_fails.setattr(crops, "_jpeg", lambda *_: None)
            expected = read_crop(data, "photo", **at)
        # Both bring their own build of the same library: equal here, today.
        wrong = np.abs(quick.astype(int) - expected)
        assert wrong.max() <= 1, (orientation, shortest)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_jpeg_without_rgb_is_left_to_pillow(mode: str) -> None:
    data = encoded(Image.fromarray(SCENE).convert(mode), "JPEG", quality=95)
    at = {"shortest": 24, "side": 24}
    quick = read_crop(data, "photo", **at, exact=False)
    np.testing.assert_array_equal(quick, read_crop(data, "photo", **at))


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (3, 7)])
def test_the_smallest_images_are_enlarged(shape: tuple[int, int]) -> None:
    data = encoded(Image.new("RGB", shape, (9, 8, 7)))
    for exact in (True, False):
        for side in (64, 8):
            crop = read_crop(data, "photo", shortest=64, side=side, exact=exact)
            assert crop.shape == (side, side, 3)
            assert (crop == (9, 8, 7)).all()


def test_a_crop_larger_than_the_resized_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"side \(=65\) must be at most shortest"):
        read_crop(b"", "photo", shortest=64, side=65)
