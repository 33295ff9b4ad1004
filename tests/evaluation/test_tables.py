"""Tables: right numbers, and the right mark for a missing one."""

import csv
import io
import math

import pytest

from gl_jax.evaluation.tables import Column, Estimate, Table, estimate, finite


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
