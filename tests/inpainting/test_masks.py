"""Whatever a user means by a mask becomes true where pixels are missing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from gl_jax.config import UsageError
from gl_jax.images import Photo
from gl_jax.inpainting import masks

HOLE = np.zeros((12, 16), bool)
HOLE[3:7, 5:11] = True


def grey(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels[..., None], 3, axis=2)


def test_white_is_missing_above_127() -> None:
    levels = np.array([[0, 127, 128, 255]], np.uint8)
    found = masks.from_white(grey(levels), 255.0)
    assert found.tolist() == [[False, False, True, True]]


def test_sixteen_bits_have_the_same_threshold() -> None:
    levels = np.array([[0, 127 * 257, 128 * 257, 65535]], np.uint16)
    found = masks.from_white(grey(levels), 65535.0)
    assert found.tolist() == [[False, False, True, True]]


def test_a_picture_of_0_and_1_is_understood() -> None:
    found = masks.from_white(grey(HOLE.astype(np.uint8)), 255.0)
    np.testing.assert_array_equal(found, HOLE)


def test_the_noise_in_a_black_jpeg_is_no_mask_of_0_and_1() -> None:
    assert not masks.from_white(grey(HOLE.astype(np.uint8)), 255.0, exact=False).any()


def test_white_that_is_transparent_is_not_missing() -> None:
    pixels = np.full((1, 2, 3), 255, np.uint8)
    alpha = np.array([[0, 255]], np.uint8)
    assert masks.from_white(pixels, 255.0, alpha).tolist() == [[False, True]]


def test_a_saturated_colour_is_not_white() -> None:
    colors = np.array([[[255, 0, 0], [0, 0, 255], [255, 255.0, 255]]], np.uint8)
    assert masks.from_white(colors, 255.0).tolist() == [[False, False, True]]


def test_transparent_is_missing_when_alpha_says_so() -> None:
    alpha = np.array([[0, 127, 128, 255]], np.uint8)
    assert masks.from_alpha(alpha, 255.0).tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("color", ["#ff0080", "FF0080"])
def test_a_colour_is_missing_within_its_tolerance(color: str) -> None:
    pixels = np.array([[[255, 0, 128], [250, 5, 128], [249, 0, 128]]], np.uint8)
    assert masks.from_color(pixels, 255.0, color).tolist() == [[True, False, False]]
    assert masks.from_color(pixels, 255.0, color, 5).tolist() == [[True, True, False]]


@pytest.mark.parametrize("color", ["red", "#f00", "#gg0000", ""])
def test_a_colour_must_be_hexadecimal(color: str) -> None:
    with pytest.raises(UsageError, match=r"mask_color \(=.*must be like '#ff0000'"):
        masks.from_color(np.zeros((1, 1, 3), np.uint8), 255.0, color)


def test_a_tolerance_is_in_levels() -> None:
    with pytest.raises(UsageError, match=r"mask_tolerance \(=256\) must be in"):
        masks.from_color(np.zeros((1, 1, 3), np.uint8), 255.0, "#000000", 256)


def test_rectangles_are_x_y_width_height_and_cut_at_the_border() -> None:
    found = masks.from_rectangles((12, 16), ["5,3,6,4"])
    np.testing.assert_array_equal(found, HOLE)
    found = masks.from_rectangles((12, 16), ["-2,-2,4,5", "14,10,99,99"])
    assert found[:3, :2].all() and found[10:, 14:].all() and found.sum() == 6 + 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3", "must be x,y,width,height"),
        ("a,b,c,d", "must be x,y,width,height"),
        ("16,0,5,5", "has no pixel inside the image of 16x12"),
        ("3,3,0,5", "has no pixel inside"),
        ("-9,0,5,5", "has no pixel inside"),
    ],
)
def test_a_wrong_rectangle_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        masks.from_rectangles((12, 16), [text])


@given(
    st.integers(1, 90), st.integers(1, 90), st.integers(0, 10**6), st.text(max_size=9)
)
def test_a_random_hole_is_one_rectangle_as_in_training(height, width, seed, name):
    mask = masks.from_seed((height, width), seed, name)
    np.testing.assert_array_equal(mask, masks.from_seed((height, width), seed, name))
    rows, columns = (mask.any(axis=axis).sum() for axis in (1, 0))
    assert mask.sum() == rows * columns
    shortest = min(height, width)
    for side in (rows, columns):
        assert max(1, shortest * 3 // 8) <= side <= max(1, shortest // 2)


def test_each_photo_has_a_random_hole_of_its_own() -> None:
    first, second = (masks.from_seed((90, 90), 7, name) for name in ("a", "b"))
    assert (first != second).any()


@pytest.mark.parametrize(
    "values",
    [
        HOLE,
        HOLE[..., None],
        HOLE.astype(np.uint8),
        HOLE.astype(np.uint8) * 255,
        HOLE.astype(np.int64),
        HOLE.astype(np.float32),
        grey(HOLE.astype(np.uint8) * 255),
        np.dstack([grey(np.full((12, 16), 255)), HOLE * 255]).astype(np.uint8),
    ],
    ids="bool bool1 01 0255 int float rgb rgba".split(),
)
def test_arrays_of_every_usual_kind_are_understood(values: np.ndarray) -> None:
    np.testing.assert_array_equal(masks.from_array(values), HOLE)


@pytest.mark.parametrize(
    "values", [np.zeros((4, 4, 2)), np.zeros(4), np.array([["a"]])]
)
def test_other_arrays_are_refused(values: np.ndarray) -> None:
    with pytest.raises(UsageError, match="the mask must be an array"):
        masks.from_array(values)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 30), st.integers(1, 30))
def test_resizing_takes_the_nearest_pixel(height, width, new_height, new_width):
    mask = np.random.default_rng(height).random((height, width)) < 0.5
    found = masks.resized(mask, (new_height, new_width))
    for row in range(new_height):
        for column in range(new_width):
            y = int((row + 0.5) * height / new_height)
            x = int((column + 0.5) * width / new_width)
            assert found[row, column] == mask[y, x]


def test_dilation_is_round_and_stays_in_the_image() -> None:
    mask = np.zeros((20, 20), bool)
    mask[10, 10] = mask[0, 0] = True
    y, x = np.mgrid[:20, :20]
    expected = ((y - 10) ** 2 + (x - 10) ** 2 <= 9) | (y**2 + x**2 <= 9)
    np.testing.assert_array_equal(masks.dilated(mask, 3), expected)
    assert masks.dilated(mask, 0) is mask


def test_a_feather_falls_outside_the_hole_to_nothing() -> None:
    weight = masks.feathered(HOLE, 3)
    assert (weight[HOLE] == 1).all()
    np.testing.assert_allclose(weight[5, 11:15], [0.75, 0.5, 0.25, 0])
    assert (masks.feathered(HOLE, 0) == HOLE).all()


@pytest.mark.parametrize("change", [masks.dilated, masks.feathered])
def test_negative_radii_are_refused(change) -> None:
    with pytest.raises(UsageError, match=r"\(=-1\) must be at least 0"):
        change(HOLE, -1)


def test_a_picture_without_white_is_explained() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    opaque = np.zeros((4, 4), np.uint8)
    opaque[0] = 255
    assert masks.why_empty(black, 255.0, opaque).endswith(
        "for drawn = missing use --mask-from alpha --invert-mask."
    )
    assert masks.why_empty(black, 255.0, 255 - opaque).endswith(
        "for transparent = missing use --mask-from alpha."
    )
    red = black.copy()
    red[1, 1] = (250, 0, 10)
    assert "--mask-color, here perhaps '#fa000a'" in masks.why_empty(red, 255.0, None)
    # Black and fully transparent pixels mark nothing: inverting would mark everything.
    assert masks.why_empty(black, 255.0, None) == ""
    assert masks.why_empty(red, 255.0, 0 * opaque) == ""


def picture(levels: np.ndarray, **about) -> Photo:
    white = 65535.0 if levels.dtype == np.uint16 else 255.0
    return Photo("mask.png", grey(levels), white, **about)


@pytest.mark.parametrize(
    ("levels", "brightest"),
    [
        (HOLE.astype(np.uint8) * 3, "3 of 255: white .* here perhaps '#030303'"),
        (HOLE.astype(np.uint8) * 120, "120 of 255: .* perhaps '#787878'"),
        (HOLE.astype(np.uint16) * 200, "200 of 65535: .* '#010101'"),
        (HOLE.astype(np.uint16) * 9, r"9 of 65535: .* use --mask-color\."),
    ],
    ids="labels faint faint16 labels16".split(),
)
def test_faint_greys_and_labels_are_refused_with_their_brightest(
    levels, brightest
) -> None:
    message = f"mask m.png has no white. Its brightest value is {brightest}"
    with pytest.raises(UsageError, match=message) as caught:
        masks.from_picture(picture(levels), "mask m.png")
    assert "--invert-mask" not in str(caught.value)


def test_a_black_mask_is_said_to_be_black() -> None:
    nothing, notices = masks.from_picture(picture(0 * HOLE.astype(np.uint8)), "mask")
    assert not nothing.any()
    assert notices == ["mask is entirely black; white marks the missing pixels."]
    noise = (HOLE * 5).astype(np.uint8)
    assert not masks.from_picture(picture(noise, lossless=False), "mask")[0].any()


def test_a_photograph_is_no_mask() -> None:
    levels = np.linspace(0, 255, 40 * 60).reshape(40, 60).astype(np.uint8)
    with pytest.raises(UsageError, match=r"looks like a photograph: 8.% of it is nei"):
        masks.from_picture(picture(levels), "mask")
    # Smooth borders, and a plain grey around the white, are those of a mask.
    soft = ndimage.gaussian_filter(np.pad(HOLE * 255.0, 9), 1).astype(np.uint8)
    assert masks.from_picture(picture(soft), "mask")[1] == []
    around = np.where(HOLE, 255, 100).astype(np.uint8)
    found, (notice,) = masks.from_picture(picture(around), "mask")
    np.testing.assert_array_equal(found, HOLE)
    assert "neither black nor white in 88% of its pixels" in notice
    assert "(12% of all)" in notice


def test_a_mask_of_most_of_the_photo_is_doubted() -> None:
    text = masks.doubt(~HOLE, "mask m.png")
    assert text is not None
    assert text.startswith(
        "mask m.png marks 88% of the photo as missing; if that is the part"
    )
    assert "--invert-mask" in text
    assert "--invert-mask" not in str(masks.doubt(~HOLE, "mask m.png", inverted=True))
    for plain in (HOLE, HOLE | True):
        assert masks.doubt(plain, "mask") is None


@pytest.mark.parametrize(
    ("dtype", "white"),
    [(np.uint8, 255), (np.uint16, 255), (np.int64, 255), (np.float32, 255),
     (np.uint16, 65535), (np.int64, 65535), (np.float64, 65535)],
)  # fmt: skip
def test_arrays_have_the_threshold_of_their_white(dtype, white) -> None:
    levels = np.array([[0, 100, 127, 128, 255]], np.int64) * (white // 255)
    found = masks.from_array(levels.astype(dtype))
    assert found.tolist() == [[False, False, False, True, True]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[-1.0, 1]]), "from 0 to 1, 255 or 65535, not from -1 to 1"),
        (np.array([[0, 70_000]]), "not from 0 to 70000"),
        (np.array([[0, np.nan]]), "not from nan to nan"),
        (np.array([[0, 1, 2]]), "no white. Its brightest value is 2 of 255"),
        (np.array([[0, 0.3]]), "no white. Its brightest value is 0.3 of 1"),
        (np.zeros((0, 0)), r"must be an array .*, not float64 \[0, 0\]"),
    ],
)
def test_arrays_that_cannot_be_meant_are_refused(values, message) -> None:
    with pytest.raises(UsageError, match=message):
        masks.from_array(values)
