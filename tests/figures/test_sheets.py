"""Sheets of photographs: every pixel is where it belongs, and so are the words."""

import io

import numpy as np
import pytest
from PIL import Image

from gl_jax.figures.sheets import GREY, Tile, draw_sheet


def draw(titles: list[str], rows: list[list[Tile]], note: str = "") -> np.ndarray:
    with Image.open(io.BytesIO(draw_sheet(titles, rows, note=note))) as sheet:
        return np.asarray(sheet.convert("RGB"))


def pictures(count: int, size: tuple[int, int]) -> list[np.ndarray]:
    generator = np.random.default_rng(1)
    return list(generator.integers(0, 256, (count, *size, 3), dtype=np.uint8))


@pytest.mark.parametrize("side", [192, 193, 200])
@pytest.mark.parametrize("note", ["", "note"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_pixel_of_a_picture_is_in_the_sheet_as_it_is(
    side: int, note: str, count: int
) -> None:
    images = pictures(2 * count, (side, side + 7))
    tiles = [Tile(image, "" if note else "caption") for image in images]
    rows = [tiles[2 * row : 2 * row + 2] for row in range(count)]
    sheet = draw(["a", "b"], rows, note)
    pitch = side + (8 if note else 22)
    for index, image in enumerate(images):
        top, left = 30 + index // 2 * pitch, 8 + index % 2 * (side + 15)
        inside = sheet[top : top + side, left : left + side + 7]
        np.testing.assert_array_equal(inside, image)
    for border in (sheet[0], sheet[-1], sheet[:, 0], sheet[:, -1]):
        assert (border == GREY).all()


def test_small_pictures_are_enlarged_by_a_whole_factor() -> None:
    (image,) = pictures(1, (64, 64))
    sheet = draw(["a"], [[Tile(image)]])
    np.testing.assert_array_equal(sheet[30 : 30 + 192 : 3, 8 : 8 + 192 : 3], image)
    np.testing.assert_array_equal(sheet[32 : 30 + 192 : 3, 10 : 8 + 192 : 3], image)


def test_words_of_any_length_stay_below_their_own_picture() -> None:
    tile = Tile(np.zeros((192, 192, 3), np.uint8), "a_very_long_file_name_" * 5)
    sheet = draw(["title " * 40, "title " * 40], [[tile, tile], [tile, tile]])
    for gutter in (sheet[:, :8], sheet[:, 200:208], sheet[:, 400:]):
        assert (gutter == GREY).all()
    assert (sheet[222:244, 8:200] != GREY).any()


def test_dollar_signs_are_no_formulas() -> None:
    tile = Tile(np.zeros((192, 192, 3), np.uint8), r"$\frac$_{.png")
    assert draw(["$"], [[tile]]).shape == (248, 208, 3)


def test_a_missing_picture_leaves_its_place_empty() -> None:
    (image,) = pictures(1, (192, 192))
    sheet = draw(["a", "b"], [[Tile(image), Tile(None)]])
    assert (sheet[30:222, 208:400] == GREY).all()


def test_a_note_stands_at_the_foot_within_the_sheet() -> None:
    (image,) = pictures(1, (192, 192))
    sheet = draw(["a"], [[Tile(image)]], note="a name too long for one picture " * 3)
    foot = sheet[230:]
    assert (foot != GREY).any()
    assert (foot[:, :8] == GREY).all()
    assert (foot[:, 200:] == GREY).all()


def test_pictures_of_different_sizes_are_refused() -> None:
    small, large = (Tile(np.zeros((side, side, 3), np.uint8)) for side in (16, 20))
    with pytest.raises(ValueError, match="all of one size"):
        draw_sheet(["a", "b"], [[small, large]])
