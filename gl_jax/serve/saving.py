"""Writes results to files, byte for byte as `gl-jax complete` does; replaces no others."""

import json
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO
from urllib.parse import quote

from starlette.responses import StreamingResponse

from gl_jax import images
from gl_jax.config import UsageError
from gl_jax.files import write_output, writing
from gl_jax.inpainting.batch import Look
from gl_jax.serve.store import Picture, Store


def encoded(picture: Picture, look: Look) -> tuple[bytes, str, tuple[str, ...]]:
    """Returns the file of a photo or result, its name, and notices of losses.

    The losses are those of the file format. An uncompleted photo keeps its own file,
    unless `look` has another format.
    """
    assert picture.photo is not None  # the store decodes
    suffix = look.suffix(Path(picture.name))
    name = f"{Path(picture.name).stem}{suffix}"
    kind = images.format_of(suffix)
    same_format = kind == picture.photo.format and look.format is None
    if picture.data is not None and same_format:
        return picture.data, name, ()
    data, notices = images.encode(picture.photo, kind, quality=look.quality)
    return data, name, notices


class Folder:
    """The folder for results; files that it did not write are never replaced."""

    def __init__(self, path: Path) -> None:
        """Makes the folder; raises UsageError if that is impossible."""
        self.path = path
        if path.is_file():
            raise UsageError(f"output {path} is a file; name a folder for the results.")
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
        self._origins: dict[Path, str] = {}
        self._lock = threading.Lock()

    def save(
        self, picture: Picture, look: Look, origin: str
    ) -> tuple[str, tuple[str, ...]]:
        """Writes the file; returns its name and the notices of `encoded`.

        `origin` identifies the photo that the result was made from: a later result of it
        replaces an earlier one. If another file has the name, a number is appended.
        """
        data, name, notices = encoded(picture, look)
        with self._lock:
            target, number = self.path / name, 1
            while target.exists() and self._origins.get(target) != origin:
                number += 1
                target = self.path / f"{Path(name).stem}-{number}{Path(name).suffix}"
            write_output(target, data)
            self._origins[target] = origin
        return target.name, notices


def archive(store: Store, ids: Sequence[str], look: Look) -> StreamingResponse:
    """Returns a ZIP of the pictures' files, sent from an unnamed temporary file."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed once it is sent
    try:
        _pack(file, store, ids, look)
    except BaseException:
        file.close()
        raise
    size = file.tell()
    file.seek(0)

    def pieces() -> Iterator[bytes]:
        with file:
            while piece := file.read(1 << 20):
                yield piece

    headers = {
        "Content-Disposition": disposition("completed.zip"),
        "Content-Length": str(size),
    }
    return StreamingResponse(pieces(), headers=headers, media_type="application/zip")


def _pack(file: IO[bytes], store: Store, ids: Sequence[str], look: Look) -> None:
    # Stored, because picture files are compressed already.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as packed:
        names = set[str]()
        for identifier in ids:
            data, name, _ = encoded(store.get(identifier), look)
            unique, number = name, 1
            while unique in names:
                number += 1
                unique = f"{Path(name).stem}-{number}{Path(name).suffix}"
            names.add(unique)
            packed.writestr(unique, data)


def disposition(name: str) -> str:
    """Returns the Content-Disposition header that saves a response under `name`."""
    return f"attachment; filename*=UTF-8''{quote(name, safe='')}"


def as_header(lines: Sequence[str]) -> str:
    """Returns lines as JSON in ASCII, as headers require."""
    return json.dumps(list(lines))
