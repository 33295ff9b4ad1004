"""Sources of encoded photographs: a folder, the bundled ones, or a TFDS dataset.

A source is a list of encoded images with names. Any thread on any host can read any
record at any time, so the pipeline can permute the set and resume anywhere without a
state.
"""

import hashlib
import heapq
import importlib.util
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from gl_jax import images
from gl_jax.config import DataConfig, UsageError, did_you_mean
from gl_jax.data.records import LISTED, Source, evenly_spaced, rank
from gl_jax.data.tfds import TfdsSource
from gl_jax.files import reason

PATTERNS = ("*.jpg", "*.jpeg", "*.png", "*.webp")
"""File names of photographs in a folder, in upper or lower case."""

RUN_STATUS = "run_status.json"
"""File that marks the folder of a training run, whose pictures are not used."""

BUNDLED = {
    "train": (
        "skimage/data/astronaut.png",
        "skimage/data/brick.png",
        "skimage/data/grass.png",
        "skimage/data/hubble_deep_field.jpg",
        "skimage/data/ihc.png",
        "skimage/data/motorcycle_left.png",
        "skimage/data/retina.jpg",
        "skimage/data/rocket.jpg",
        "sklearn/datasets/images/china.jpg",
        "sklearn/datasets/images/flower.jpg",
    ),
    "validation": ("skimage/data/chelsea.png", "skimage/data/coffee.png"),
}
"""Real photographs that come with scikit-image and scikit-learn, by split."""


def open_source(
    config: DataConfig,
    *,
    validation: bool = False,
    cache_dir: Path | None = None,
    workdir: Path | None = None,
) -> Source:
    """Opens the training photographs, or with `validation` the validation photographs.

    `cache_dir` keeps the index of TFRecord files for later runs. Pictures in `workdir`,
    the run's own folder, are not used.

    Raises UsageError if the folder, dataset or split does not exist or has no
    photographs, or if a TFDS dataset cannot be prepared.
    """
    own = config.validation_source
    source = own if validation and own is not None else config.source
    split = config.validation_split if validation else config.split
    if source == "bundled":
        return _open_bundled(split)
    if source.startswith("tfds:"):
        name = source.removeprefix("tfds:")
        return TfdsSource(name, split, config.data_dir, cache_dir)
    share = config.validation_share if own is None else None
    return _open_folder(Path(source).expanduser(), validation, share, workdir)


class FileSource:
    """Image files in the given order; `locate` turns a name into a path."""

    def __init__(
        self,
        names: Sequence[str],
        locate: Callable[[str], Path],
        left_out: str | None = None,
    ) -> None:
        self._names = names
        self._locate = locate
        self.left_out = left_out
        """A line on the folder's other files, or None."""

    def __len__(self) -> int:
        return len(self._names)

    def read(self, index: int) -> bytes:
        """Returns the file's bytes."""
        return self._locate(self._names[index]).read_bytes()

    def name(self, index: int) -> str:
        """Returns the file's path."""
        return str(self._locate(self._names[index]))

    def fingerprint(self) -> str:
        """Returns a hash of all names and of up to 10,000 sizes, which can be slow to get."""
        digest = hashlib.sha256()
        for name in self._names:
            digest.update(os.fsencode(name) + b"\0")
        for index in evenly_spaced(len(self), 10_000):
            digest.update(f"{self._size(self._names[index])} ".encode())
        return digest.hexdigest()

    def sizes(self) -> dict[str, int]:
        """Returns the names of lowest rank, with the sizes of their files."""
        names = heapq.nsmallest(LISTED, self._names, key=rank)
        return {name: self._size(name) for name in names}

    def _size(self, name: str) -> int:
        try:
            return self._locate(name).stat().st_size
        except OSError:
            return -1  # a dangling link is unreadable, like a damaged file


def _open_bundled(split: str) -> Source:
    if split not in BUNDLED:
        raise UsageError(
            f"the bundled photographs have no split {split!r}."
            f"{did_you_mean(split, BUNDLED)} Known: {', '.join(BUNDLED)}."
        )
    return FileSource(BUNDLED[split], _bundled_path)


def _bundled_path(name: str) -> Path:
    package, _, inside = name.partition("/")
    spec = importlib.util.find_spec(package)  # without importing it
    if spec is None or spec.origin is None:
        raise UsageError(
            f"the bundled photographs come with {package}, which is not installed; "
            "install requirements.txt."
        )
    return Path(spec.origin).parent / inside


def _open_folder(
    root: Path, validation: bool, share: float | None, workdir: Path | None
) -> Source:
    """Opens a folder; a `share` of its files is for validation, or None of them."""
    if not root.is_dir():
        fault = "is not a folder" if root.exists() else "does not exist"
        near = [str(p) for p in root.parent.glob("*") if p.is_dir()]
        raise UsageError(
            f"data source {str(root)!r} {fault}; give `bundled`, a folder, or "
            f"tfds:NAME.{did_you_mean(str(root), near)}"
        )
    for held_back in (root / "val", root / "validation"):
        if (root / "train").is_dir() and held_back.is_dir():
            root, share = (held_back if validation else root / "train"), None
            break
    runs = {_identity(workdir)} if workdir is not None else set()
    if _identity(root) in runs or (root / RUN_STATUS).exists():
        raise UsageError(
            f"data source {str(root)!r} is the folder of a training run, whose pictures "
            "are not used: choose another folder, or another --workdir for the run."
        )
    others: Counter[str] = Counter()
    names = sorted(_image_names(root, runs, others))
    left_out = images.left_out(others, root)
    if not names:
        raise UsageError(
            f"there is no photograph in {str(root)!r} or any folder below it "
            f"(looked for {', '.join(PATTERNS)}){f'; {left_out}' if left_out else '.'}"
        )
    if share is not None:
        names = _divided(names, share)[1 if validation else 0]
    return FileSource(names, root.joinpath, left_out)


def _identity(folder: str | Path) -> tuple[int, int]:
    """Returns the device and inode of a folder, which all its names share."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _image_names(
    root: Path, runs: set[tuple[int, int]], others: Counter[str]
) -> Iterator[str]:
    """Yields names relative to `root`, with slashes; follows links, but not in circles.

    Counts other files, and skipped folders of training runs, in `others`. Those are the
    folders in `runs` and folders with a `RUN_STATUS`.
    """
    endings = tuple(pattern.removeprefix("*") for pattern in PATTERNS)
    visited = set()

    def refuse(error: OSError) -> None:
        raise UsageError(
            f"{error.filename} cannot be listed: {reason(error)}."
        ) from error

    for folder, inner, files in os.walk(root, onerror=refuse, followlinks=True):
        identity = _identity(folder)
        if identity in visited:
            inner.clear()
            continue
        visited.add(identity)
        if identity in runs or RUN_STATUS in files:
            others["training run's folder"] += 1
            inner.clear()
            continue
        # Hidden folders often hold thumbnails.
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        below = Path(folder).relative_to(root).as_posix()
        for name in files:
            if name.startswith("."):
                continue
            if name.lower().endswith(endings):
                yield name if below == "." else f"{below}/{name}"
            else:
                others[PurePosixPath(name).suffix.lower() or "without a suffix"] += 1


def _divided(names: list[str], share: float) -> tuple[list[str], list[str]]:
    """Divides names into training and validation; a single name goes into both."""
    # By the name's rank, so a photograph keeps its side if others are added.
    ranked = sorted(names, key=rank)
    count = sum(rank(name) < share for name in names)
    first = ranked[: max(1, min(count, len(names) - 1))]
    held_back = set(first)
    return [name for name in names if name not in held_back] or first, sorted(first)
