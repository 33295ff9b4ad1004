"""Checkpoint folders on a disk or in a bucket: paths, steps, free space, errors."""

import contextlib
import errno
import importlib.util
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import orbax.checkpoint as ocp
from etils import epath

from gl_jax.config import UsageError, is_bucket
from gl_jax.files import require_utf8

UNFINISHED = ".orbax-checkpoint-tmp"
"""Part of a folder's name until orbax has finished writing it."""
DAMAGE = (
    *"NOT_FOUND OUT_OF_RANGE DATA_LOSS FAILED_PRECONDITION".split(),
    "Error decoding",
)
"""Parts of tensorstore's messages for a missing, truncated or malformed object."""


class StorageUnreachableError(RuntimeError):
    """A bucket does not answer, or answers with an error; its checkpoints may be intact."""


def absolute(directory: str | Path | epath.Path) -> epath.Path:
    """Returns the absolute path of a local folder or of a bucket (`gs://...`).

    Raises UsageError if it is not UTF-8, which tensorstore cannot read, or if the
    library for buckets is not installed.
    """
    text = os.fspath(directory)
    require_utf8(text)
    if not is_bucket(text):
        return epath.Path(os.path.abspath(text))  # tensorstore requires it
    if importlib.util.find_spec("gcsfs") is None:
        raise UsageError(
            f"{text} is a bucket, which needs gcsfs: pip install 'gcsfs>=2026.9'."
        )
    # epath's default, TensorFlow's client, reports a step as missing if the bucket does
    # not answer.
    os.environ["EPATH_USE_TF"] = "false"
    return epath.Path(text)


def is_local(path: epath.Path) -> bool:
    """Returns whether a path lies on a disk, not in a bucket."""
    return not is_bucket(os.fspath(path))


@contextlib.contextmanager
def _answering(path: epath.Path) -> Iterator[None]:
    """Raises errors inside the block as StorageUnreachableError if `path` is a bucket."""
    try:
        yield
    except Exception as error:
        if is_local(path):
            raise
        raise unreachable(path, error) from error


def names(directory: epath.Path) -> set[str]:
    """Returns the names in a folder; the empty set if it does not exist."""
    with (
        _answering(directory),
        contextlib.suppress(FileNotFoundError, NotADirectoryError),
    ):
        # By listing, because gcsfs's `exists` is False if the bucket does not answer.
        return {path.name for path in directory.iterdir()}
    return set()


def steps(directory: epath.Path) -> list[int]:
    """Returns the complete steps in ascending order, without those set aside."""
    present = names(directory)
    with _answering(directory):
        complete = set(ocp.utils.checkpoint_steps(directory)) if present else set()
    # Orbax also takes names such as backup_5 for steps.
    return sorted(step for step in complete if str(step) in present)


def set_aside(directory: epath.Path) -> set[str]:
    """Returns the names of damaged checkpoints that a restore has renamed."""
    return {name for name in names(directory) if ".corrupt" in name}


def remove_unfinished(directory: epath.Path) -> None:
    """Deletes the folders of killed and failed saves; no save may be running."""
    for name in names(directory):
        if UNFINISHED in name:
            (directory / name).rmtree(missing_ok=True)


def require_writable(directory: str | Path | epath.Path) -> None:
    """Makes the folder and writes a file in it.

    Raises UsageError if that fails on a disk or if the path has `*`, `?`, `[` or a
    backslash in it, StorageUnreachableError if it fails in a bucket.
    """
    directory = absolute(directory)
    # Orbax uses the path as a glob pattern at the end of a save, matches nothing, and
    # silently leaves a checkpoint without arrays.
    if set("*?[\\") & set(os.fspath(directory)):
        raise UsageError(
            f"checkpoints cannot be written to {directory}: orbax reads a path with *, ?, [ "
            "or a backslash as a pattern. Choose another place (--workdir, "
            "--run.checkpoints)."
        )
    probe = directory / f".probe-{uuid.uuid4().hex}"
    try:
        with _answering(directory):
            directory.mkdir(parents=True, exist_ok=True)
            probe.write_text("writable")
            probe.unlink()
    except OSError as error:
        raise UsageError(
            f"checkpoints cannot be written to {directory}: {one_line(error)}. "
            "Choose another place (--workdir, --run.checkpoints) or make this one "
            "writable."
        ) from error


def require_room(directory: epath.Path, size: int) -> None:
    """Raises OSError if a state of `size` bytes does not fit on a local disk.

    Called before a save, because tensorstore prints a traceback for each array if the
    disk becomes full.
    """
    if not is_local(directory) or not directory.exists():
        return
    if shutil.disk_usage(directory).free < _room(size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))


def _room(size: int) -> float:
    """Returns the bytes that a state of `size` bytes takes on disk, with its metadata."""
    return 1.05 * size + 2**20


def save_reason(error: Exception, size: int, directory: epath.Path) -> str:
    """Returns the reason of a failed save; for a full disk, the space needed and free."""
    text = str(error)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or "No space left" in text or "RESOURCE_EXHAUSTED" in text:
        free = ""
        if is_local(directory) and directory.exists():
            free = f", {shutil.disk_usage(directory).free / 1e6:.1f} MB are free"
        needed = _room(size) / 1e6
        return f"the disk is full: it needs {needed:.1f} MB{free} in {directory}"
    return one_line(error)


def is_damage(path: epath.Path, error: Exception) -> bool:
    """Returns whether a read error means that the checkpoint is damaged.

    On a disk every error does. In a bucket only a missing or malformed object does:
    intact checkpoints must not be set aside because the network is down.
    """
    if is_local(path):
        return True
    kinds = (FileNotFoundError, KeyError, UnicodeDecodeError, json.JSONDecodeError)
    return isinstance(error, kinds) or any(sign in str(error) for sign in DAMAGE)


def unreachable(path: epath.Path, error: Exception) -> StorageUnreachableError:
    """Returns the error to raise if a bucket fails to answer."""
    return StorageUnreachableError(
        f"{path} cannot be reached: {one_line(error)}. Check the address, the network "
        "and the permissions, then run the same command again."
    )


def one_line(error: Exception) -> str:
    """Returns an error's message in one line of at most about 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."
