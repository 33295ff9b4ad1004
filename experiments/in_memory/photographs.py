"""Photographs in one file of arrays, small enough to be carried to another machine.

The file is an .npz with either `train` and `validation`, uint8 [n, side, side, 3], or the
JPEGs of these photographs one behind the other, `train_jpeg` uint8 [bytes], and the bytes
of each, `train_jpeg_bytes` int64 [n]. JPEGs are decoded once, when the file is read.
"""

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from gl_jax.config import UsageError
from gl_jax.files import reading, write_output

PARTS = ("train", "validation")


class Photographs(NamedTuple):
    """Square photographs, uint8 [n, side, side, 3], to train on and to measure on."""

    train: np.ndarray
    validation: np.ndarray

    @property
    def mean_color(self) -> tuple[float, float, float]:
        """RGB in [0, 1], the mean of the photographs to train on."""
        red, green, blue = self.train.mean((0, 1, 2), dtype=np.float64) / 255
        return float(red), float(green), float(blue)


def pack(
    train: list[str], validation: list[str], path: Path, side: int, quality: int
) -> dict[str, int]:
    """Writes the middle square of each photograph as a JPEG; returns how many of each part.

    A folder is read recursively. Of `FOLDER:COUNT` so many photographs are taken, chosen
    by the hash of their names. A `quality` of 0 writes pixels instead of JPEGs.
    """
    from PIL import Image

    from gl_jax.images import read_crop

    arrays: dict[str, np.ndarray] = {}
    counts = {}
    for part, folders in zip(PARTS, (train, validation), strict=True):
        files = [file for folder in folders for file in _files(folder)]
        squares = [read_crop(f, f.name, shortest=side, side=side) for f in files]
        counts[part] = len(files)
        if quality == 0:
            arrays[part] = np.stack(squares)
            continue
        jpegs = []
        for square in squares:
            buffer = io.BytesIO()
            Image.fromarray(square).save(buffer, "JPEG", quality=quality, optimize=True)
            jpegs.append(buffer.getvalue())
        arrays[f"{part}_jpeg"] = np.frombuffer(b"".join(jpegs), np.uint8)
        arrays[f"{part}_jpeg_bytes"] = np.array([len(jpeg) for jpeg in jpegs])
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_output(path, buffer.getvalue())
    return counts


def load(path: Path) -> Photographs:
    """Reads a file that `pack` wrote. Raises UsageError if it is none."""
    try:
        with reading(path), path.open("rb") as data, np.load(data) as file:
            return Photographs(*(_part(file, part) for part in PARTS))
    except (ValueError, TypeError, KeyError, EOFError, BadZipFile) as error:
        raise UsageError(
            f"{path} is no file of photographs, which `pack` writes: {error}"
        ) from error


def _files(folder: str) -> list[Path]:
    name, _, count = folder.rpartition(":")
    place, most = (Path(name), int(count)) if count.isdigit() else (Path(folder), None)
    files = [
        f for f in place.rglob("*") if f.suffix.lower() in {".jpg", ".jpeg", ".png"}
    ]
    if not files:
        raise UsageError(f"folder (={str(place)!r}) must hold JPEG or PNG photographs.")
    files.sort(key=lambda file: hashlib.sha256(file.name.encode()).digest())
    return files[:most]


def _part(file: Any, part: str) -> np.ndarray:
    if part in file:
        photographs = file[part]
    else:
        data, ends = file[f"{part}_jpeg"], np.cumsum(file[f"{part}_jpeg_bytes"])
        jpegs = [piece.tobytes() for piece in np.split(data, ends[:-1])]
        with ThreadPoolExecutor() as threads:
            photographs = np.stack(list(threads.map(_decoded, jpegs)))
    _, height, width, channels = photographs.shape
    if photographs.dtype != np.uint8 or height != width or channels != 3:
        raise ValueError(f"{part} is {photographs.dtype} {photographs.shape}")
    return photographs


def _decoded(jpeg: bytes) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(jpeg)) as image:
        return np.array(image.convert("RGB"))
