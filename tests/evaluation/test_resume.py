"""Journals: records survive any end of the program, and belong to their settings."""

from pathlib import Path

import numpy as np
import pytest

from gl_jax.config import UsageError
from gl_jax.evaluation.resume import ArrayRecords, Journal

SETTINGS = {"seed": 1, "sizes": (2, 3)}


def test_records_are_there_again(tmp_path: Path) -> None:
    with Journal(tmp_path / "a" / "journal.jsonl", SETTINGS) as journal:
        assert journal.records == []
        journal.add({"value": 1.5})
        journal.add({"value": float("inf")})
    with Journal(tmp_path / "a" / "journal.jsonl", SETTINGS) as journal:
        assert journal.records == [{"value": 1.5}, {"value": float("inf")}]


def test_a_record_is_on_disk_at_once(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl", SETTINGS) as journal:
        journal.add({"value": 1})
        assert '{"value": 1}\n' in (tmp_path / "journal.jsonl").read_text()


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_line_that_was_cut_off_is_dropped(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, SETTINGS) as journal:
        journal.add({"value": 1})
        journal.add({"value": 2})
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(path, SETTINGS) as journal:
        assert journal.records == [{"value": 1}]
        journal.add({"value": 3})
    with Journal(path, SETTINGS) as journal:
        assert journal.records == [{"value": 1}, {"value": 3}]


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    Journal(tmp_path / "journal.jsonl", SETTINGS).__exit__(None, None, None)
    with pytest.raises(UsageError, match=r"other settings: seed was 1, is 2. Name"):
        Journal(tmp_path / "journal.jsonl", SETTINGS | {"seed": 2})


@pytest.mark.parametrize("text", ["no JSON\n", "[1]\n"])
def test_another_file_is_refused_and_left_alone(text: str, tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text(text)
    with pytest.raises(UsageError, match="no journal"):
        Journal(tmp_path / "journal.jsonl", SETTINGS)
    assert (tmp_path / "journal.jsonl").read_text() == text


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(UsageError, match="taken"):
        Journal(tmp_path / "taken" / "journal.jsonl", SETTINGS)


FIELDS = np.dtype([("index", "<i8"), ("values", "<f4", (3,))])


def records(*indices: int) -> np.ndarray:
    return np.array([(i, (i, i / 2, i / 3)) for i in indices], FIELDS)


def test_arrays_are_there_again(tmp_path: Path) -> None:
    with ArrayRecords(tmp_path / "arrays.bin", FIELDS, anew=False) as file:
        assert len(file.read()) == 0
        file.add(records(1, 2))
    with ArrayRecords(tmp_path / "arrays.bin", FIELDS, anew=False) as file:
        file.add(records(3))
        np.testing.assert_array_equal(file.read(), records(1, 2, 3))
        file.add(records(4))
        np.testing.assert_array_equal(file.read(), records(1, 2, 3, 4))
    with ArrayRecords(tmp_path / "arrays.bin", FIELDS, anew=True) as file:
        assert len(file.read()) == 0


@pytest.mark.parametrize("cut", [1, 19])
def test_a_record_that_was_cut_off_is_dropped(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "arrays.bin"
    with ArrayRecords(path, FIELDS, anew=False) as file:
        file.add(records(1, 2))
    path.write_bytes(path.read_bytes()[:-cut])
    with ArrayRecords(path, FIELDS, anew=False) as file:
        file.add(records(3))
        np.testing.assert_array_equal(file.read(), records(1, 3))


def test_arrays_that_cannot_be_written_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "arrays.bin").mkdir()
    with pytest.raises(UsageError, match=r"arrays.bin cannot be written"):
        ArrayRecords(tmp_path / "arrays.bin", FIELDS, anew=False)
