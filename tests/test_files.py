"""Files are written whole or not at all, and a refusal is one line."""

import errno
import os
from pathlib import Path

import pytest

from gl_jax import files
from gl_jax.config import UsageError


def test_a_file_replaces_the_one_before_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "folder" / "file"
    files.write_whole(path, b"first")
    files.write_whole(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("fails", ["replace", "fsync"])
def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path, monkeypatch, fails):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "file"
    path.write_bytes(b"before")
    monkeypatch.setattr(os, fails, full)
    with pytest.raises(OSError, match="No space"):
        files.write_whole(path, b"after")
    with pytest.raises(UsageError) as refusal:
        files.write_output(path, b"after")
    assert str(refusal.value) == f"{path} cannot be written: No space left on device."
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_the_longest_name_that_a_disk_takes_is_written(tmp_path):
    for name in ("n" * 255, "漢" * 85, "a" + "漢" * 84):
        files.write_whole(tmp_path / name, b"")
        assert (tmp_path / name).exists()


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    path = Path(tmp_path, "missing")
    with pytest.raises(UsageError) as refusal, files.reading(path):
        path.read_bytes()
    assert str(refusal.value) == f"{path} cannot be read: No such file or directory."
