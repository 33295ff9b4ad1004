"""Atomic writes, and system errors as one line."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from gl_jax.fields import UsageError


def write_whole(path: str | Path, data: bytes) -> None:
    """Writes a file atomically and creates its parent folders.

    An OSError leaves an existing file unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Only the start of the name, because file systems limit the bytes of a name. A
    # character cut in the middle is dropped.
    start = os.fsencode(path.name)[:100].decode(errors="ignore")
    beside = path.with_name(f".{start}.{os.getpid()}.partial")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def write_output(path: str | Path, data: bytes) -> None:
    """Writes a file as `write_whole` does, but raises UsageError if it cannot."""
    with writing(path):
        write_whole(path, data)


def require_utf8(path: str | Path) -> None:
    """Raises UsageError for a path that is not UTF-8, which many libraries cannot write."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        text = os.fsencode(path).decode(errors="backslashreplace")
        raise UsageError(
            f"{text} is not UTF-8: rename it, or choose another place."
        ) from error


def reason(error: OSError) -> str:
    """Returns the reason of a system error in a few words, without the file's name."""
    return error.strerror or str(error)


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Raises an OSError inside the block as a UsageError: "PATH cannot be read"."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {reason(error)}.") from error


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Raises an OSError inside the block as a UsageError: "PATH cannot be written"."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {reason(error)}.") from error


def read_start(path: Path, count: int) -> bytes:
    """Returns the first bytes of a file, or raises UsageError if it cannot be read."""
    with reading(path), path.open("rb") as file:
        return file.read(count)
