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


def test_every_pixel_of_a_picture_is_in_the_sheet_as_it_is() -> None:
    images = pictures(4, (200, 210))
    tiles = [Tile(image, "caption") for image in images]
    sheet = draw(["a", "b"], [tiles[:2], tiles[2:]])
    for index, image in enumerate(images):
        top, left = 30 + index // 2 * 222, 8 + index % 2 * 218
        np.testing.assert_array_equal(sheet[top : top + 200, left : left + 210], image)


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
