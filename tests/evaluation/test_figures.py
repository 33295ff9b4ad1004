"""Tables and sheets: the numbers are right, and every pixel is where it belongs."""

import csv
import io
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gl_jax.evaluation.figures import (
    Column,
    Estimate,
    Table,
    Tile,
    comparison_sheet,
    estimate,
    finite,
)

GREY = 236


@pytest.fixture
def table() -> Table:
    columns = {"error": Column("error, %", 1), "psnr": Column("PSNR", 2)}
    rows = {
        "ours": {"error": Estimate(1.25, 0.5), "psnr": Estimate(20.0, math.nan)},
        "telea": {"error": Estimate(11.0, 2.0), "psnr": Estimate(math.inf, math.nan)},
        "none": {"error": estimate([]), "psnr": estimate([])},
    }
    counts = {"ours": 3, "telea": 12, "none": 0}
    return Table("The caption.", columns, rows, counts, ("a note\nof two lines",))


def test_estimate_is_the_mean_with_its_standard_error() -> None:
    mean, error = estimate([1.0, 2.0, 3.0, 6.0])
    assert mean == 3.0
    assert error == pytest.approx(math.sqrt((4 + 1 + 0 + 9) / 3) / 2)


def test_one_value_has_no_standard_error() -> None:
    mean, error = estimate([4.0])
    assert (mean, math.isnan(error)) == (4.0, True)


def test_a_perfect_value_makes_the_mean_infinite() -> None:
    mean, error = estimate([20.0, math.inf])
    assert (mean, math.isnan(error)) == (math.inf, True)


def test_markdown_is_aligned_and_shows_what_is_known(table: Table) -> None:
    assert table.to_markdown() == (
        "The caption.\n\n"
        "| method |   error, % |  PSNR | photographs |\n"
        "| ------ | ---------: | ----: | ----------: |\n"
        "| ours   |  1.2 ± 0.5 | 20.00 |           3 |\n"
        "| telea  | 11.0 ± 2.0 |   inf |          12 |\n"
        "| none   |          - |     - |           0 |\n\n"
        "- a note of two lines\n"
    )


def test_csv_has_every_number_and_leaves_the_unknown_empty(table: Table) -> None:
    ours, telea, none = csv.DictReader(io.StringIO(table.to_csv()))
    assert ours == {
        "method": "ours", "error": "1.25", "error_error": "0.5", "psnr": "20.0",
        "psnr_error": "", "photographs": "3",
    }  # fmt: skip
    assert telea["psnr"] == "inf"
    assert (none["error"], none["photographs"]) == ("", "0")


def test_json_has_null_for_what_json_has_not(table: Table) -> None:
    rows = table.to_json()
    assert rows["ours"]["error"] == {"mean": 1.25, "standard_error": 0.5}
    assert rows["telea"]["psnr"] == {"mean": None, "standard_error": None}
    assert finite({"a": math.nan, "b": "nan", "c": 1}) == {
        "a": None,
        "b": "nan",
        "c": 1,
    }


def draw(path: Path, titles: list[str], rows: list[list[Tile]]) -> np.ndarray:
    comparison_sheet(path / "sheet.png", titles, rows)
    with Image.open(path / "sheet.png") as sheet:
        return np.asarray(sheet.convert("RGB"))


def pictures(count: int, size: tuple[int, int]) -> list[np.ndarray]:
    generator = np.random.default_rng(1)
    return list(generator.integers(0, 256, (count, *size, 3), dtype=np.uint8))


def test_every_pixel_of_a_picture_is_in_the_sheet_as_it_is(tmp_path: Path) -> None:
    images = pictures(4, (200, 210))
    tiles = [Tile(image, "caption") for image in images]
    sheet = draw(tmp_path, ["a", "b"], [tiles[:2], tiles[2:]])
    for index, image in enumerate(images):
        top, left = 30 + index // 2 * 222, 8 + index % 2 * 218
        np.testing.assert_array_equal(sheet[top : top + 200, left : left + 210], image)


def test_small_pictures_are_enlarged_by_a_whole_factor(tmp_path: Path) -> None:
    (image,) = pictures(1, (64, 64))
    sheet = draw(tmp_path, ["a"], [[Tile(image)]])
    np.testing.assert_array_equal(sheet[30 : 30 + 192 : 3, 8 : 8 + 192 : 3], image)
    np.testing.assert_array_equal(sheet[32 : 30 + 192 : 3, 10 : 8 + 192 : 3], image)


def test_words_of_any_length_stay_below_their_own_picture(tmp_path: Path) -> None:
    tile = Tile(np.zeros((192, 192, 3), np.uint8), "a_very_long_file_name_" * 5)
    sheet = draw(tmp_path, ["title " * 40, "title " * 40], [[tile, tile], [tile, tile]])
    for gutter in (sheet[:, :8], sheet[:, 200:208], sheet[:, 400:]):
        assert (gutter == GREY).all()
    assert (sheet[222:244, 8:200] != GREY).any()


def test_dollar_signs_are_no_formulas(tmp_path: Path) -> None:
    tile = Tile(np.zeros((192, 192, 3), np.uint8), r"$\frac$_{.png")
    assert draw(tmp_path, ["$"], [[tile]]).shape == (248, 208, 3)


def test_a_missing_picture_leaves_its_place_empty(tmp_path: Path) -> None:
    (image,) = pictures(1, (192, 192))
    sheet = draw(tmp_path, ["a", "b"], [[Tile(image), Tile(None)]])
    assert (sheet[30:222, 208:400] == GREY).all()


def test_pictures_of_different_sizes_are_refused(tmp_path: Path) -> None:
    small, large = (Tile(np.zeros((side, side, 3), np.uint8)) for side in (16, 20))
    with pytest.raises(ValueError, match="all of one size"):
        comparison_sheet(tmp_path / "sheet.png", ["a", "b"], [[small, large]])
