"""The photos and results that the server holds, within a limit of memory.

The least recently used are dropped first. The page keeps the files that it uploaded and
sends them again; a photo of the command line is read again from its file.
"""

import dataclasses
import hashlib
import os
import secrets
import threading
from dataclasses import dataclass
from pathlib import Path

from gl_jax import images
from gl_jax.images import Photo

BUDGET = 2 << 30
"""Bytes of all files and pixels that a store holds by default."""
LONGEST_NAME = 120
"""Characters to which the name of an uploaded file is cut, without its suffix."""


class UnknownError(LookupError):
    """The identifier is unknown, or its photo or result has been dropped."""


@dataclass(frozen=True)
class Picture:
    """An uploaded photo, a photo of the command line, or a result."""

    id: str
    name: str
    """Name of the file, without folders."""
    data: bytes | None = None
    """Content of the file; None for a result, and while it is not read."""
    photo: Photo | None = None
    """The decoded photo; None while it is not decoded."""
    path: Path | None = None
    """Path of a photo of the command line."""

    @property
    def size(self) -> int:
        """Memory of file and pixels, in bytes."""
        total = len(self.data or b"")
        if self.photo is not None:
            total += self.photo.pixels.nbytes
            total += 0 if self.photo.alpha is None else self.photo.alpha.nbytes
            total += 0 if self.photo.inks is None else self.photo.pixels.nbytes
        return total


class Store:
    """Pictures by identifier; safe to use from several threads."""

    def __init__(self, budget: int = BUDGET) -> None:
        """Holds up to `budget` bytes, or only the last used picture if it is larger."""
        self.budget = budget
        self._pictures: dict[str, Picture] = {}
        self._lock = threading.Lock()
        # One decoder at a time: each may need several times the memory of its photo.
        self._decoding = threading.Lock()

    def add_path(self, path: Path) -> Picture:
        """Adds a file of the command line, to be read when it is first needed."""
        identifier = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
        return self._keep(Picture(identifier, file_name(path.name), path=path))

    def add_upload(self, name: str, data: bytes) -> Picture:
        """Decodes and adds an uploaded file; the same file again is the same picture.

        Raises UsageError if it is not a readable photograph.
        """
        name = file_name(name)
        content = hashlib.sha256(name.encode() + b"/" + data)
        identifier = content.hexdigest()[:32]
        with self._lock:
            known = self._pictures.get(identifier)
        if known is not None and known.photo is not None:
            return self._keep(known)
        return self._keep(_decoded(Picture(identifier, name, data), self._decoding))

    def add_result(self, name: str, photo: Photo) -> Picture:
        """Adds a completed photo."""
        return self._keep(Picture(secrets.token_hex(16), name, photo=photo))

    def get(self, identifier: str) -> Picture:
        """Returns the picture with its photo decoded.

        Raises UnknownError if the picture is unknown or has been dropped.
        """
        with self._lock:
            picture = self._pictures.get(identifier)
        if picture is None:
            raise UnknownError(f"the server no longer has photo {identifier[:32]!r}.")
        if picture.photo is None:
            picture = _decoded(picture, self._decoding)
        return self._keep(picture)

    def held(self) -> int:
        """Returns the memory of all pictures, in bytes."""
        with self._lock:
            return sum(picture.size for picture in self._pictures.values())

    def _keep(self, picture: Picture) -> Picture:
        """Adds it as the most recently used one; drops the oldest beyond the limit."""
        with self._lock:
            self._pictures.pop(picture.id, None)
            self._pictures[picture.id] = picture
            total = sum(held.size for held in self._pictures.values())
            for old in [*self._pictures.values()][:-1]:
                if total <= self.budget:
                    break
                total -= old.size
                if old.path is None:
                    del self._pictures[old.id]
                else:
                    # Replaced in place, which keeps the order of use.
                    self._pictures[old.id] = dataclasses.replace(
                        old, data=None, photo=None
                    )
            return picture


def _decoded(picture: Picture, decoding: threading.Lock) -> Picture:
    with decoding:
        data = picture.data
        if data is None:
            assert picture.path is not None  # results keep their photo
            data = images.read_bytes(picture.path, picture.name)
        photo = images.decode(data, picture.name, Path(picture.name).suffix)
        return dataclasses.replace(picture, data=data, photo=photo)


def file_name(name: str) -> str:
    """Returns a name without folders, control characters and leading dots.

    A name that would be empty becomes "photo".
    """
    last = name.replace("\\", "/").rpartition("/")[2]
    clean = "".join(c for c in last if c.isprintable() and c not in '<>:"|?*')
    path = Path(clean.strip().lstrip("."))
    return f"{path.stem[:LONGEST_NAME]}{path.suffix[:16]}" or "photo"
