"""Random access to encoded photographs: a folder, the bundled few, or a TFDS dataset.

A source is a list of encoded images with names. Every record can be read at any time
by any thread and on any host, which is what lets the pipeline draw a true permutation
of the set and resume anywhere without a state. Nothing is decoded here.
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
"""What counts as a photograph in a folder, in upper and lower case."""

RUN_STATUS = "run_status.json"
"""A folder that has it is a training run's: its pictures are no photographs."""

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
    """The photographs to train on, or with `validation` those held back from training.

    `cache_dir` keeps the index of TFRecord files from one run to the next. Nothing in
    the `workdir`, the folder of the run that asks, is a photograph.

    Raises UsageError where there is no such folder, dataset or split, or no photograph
    in it, and where a TFDS dataset can neither be found prepared nor be prepared.
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
    """Image files, in the order given; `locate` turns a name into a path."""

    def __init__(
        self,
        names: Sequence[str],
        locate: Callable[[str], Path],
        left_out: str | None = None,
    ) -> None:
        self._names = names
        self._locate = locate
        self.left_out = left_out
        """One line on the files of the folder that are no photographs, if there are any."""

    def __len__(self) -> int:
        return len(self._names)

    def read(self, index: int) -> bytes:
        """The file's bytes."""
        return self._locate(self._names[index]).read_bytes()

    def name(self, index: int) -> str:
        """The file's path."""
        return str(self._locate(self._names[index]))

    def fingerprint(self) -> str:
        """Hash of all names and of at most 10,000 sizes: asking for one can be slow."""
        digest = hashlib.sha256()
        for name in self._names:
            digest.update(os.fsencode(name) + b"\0")
        for index in evenly_spaced(len(self), 10_000):
            digest.update(f"{self._size(self._names[index])} ".encode())
        return digest.hexdigest()

    def sizes(self) -> dict[str, int]:
        """The names of lowest rank, with the sizes of their files."""
        names = heapq.nsmallest(LISTED, self._names, key=rank)
        return {name: self._size(name) for name in names}

    def _size(self, name: str) -> int:
        try:
            return self._locate(name).stat().st_size
        except OSError:
            return -1  # a link that leads nowhere: unreadable, like a damaged file


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
    """The folder, of which a `share` is for validation; None: it is read whole."""
    if not root.is_dir():
        there = "is not a folder" if root.exists() else "does not exist"
        near = [str(p) for p in root.parent.glob("*") if p.is_dir()]
        raise UsageError(
            f"data source {str(root)!r} {there}; give `bundled`, a folder, or "
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
            "are no photographs: give another folder, or the run another --workdir."
        )
    others: Counter[str] = Counter()
    names = sorted(_image_names(root, runs, others))
    left_out = images.left_out(others, root)
    if not names:
        raise UsageError(
            f"there is no photograph in {str(root)!r} nor in any folder below it "
            f"(looked for {', '.join(PATTERNS)}){f'; {left_out}' if left_out else '.'}"
        )
    if share is not None:
        names = _divided(names, share)[1 if validation else 0]
    return FileSource(names, root.joinpath, left_out)


def _identity(folder: str | Path) -> tuple[int, int]:
    """Numbers that a folder has under each of its names."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _image_names(
    root: Path, runs: set[tuple[int, int]], others: Counter[str]
) -> Iterator[str]:
    """Names relative to `root`, with slashes, following links but no circle of them.

    Counts in `others` what is no photograph by its ending, and folders of runs: those
    in `runs`, and those that say so.
    """
    endings = tuple(pattern.removeprefix("*") for pattern in PATTERNS)
    been = set()

    def refuse(error: OSError) -> None:
        raise UsageError(
            f"{error.filename} cannot be listed: {reason(error)}."
        ) from error

    for folder, inner, files in os.walk(root, onerror=refuse, followlinks=True):
        identity = _identity(folder)
        if identity in been:
            inner.clear()
            continue
        been.add(identity)
        if identity in runs or RUN_STATUS in files:
            others["training run's folder"] += 1
            inner.clear()
            continue
        # What starts with a dot is a file system's own, a thumbnail for example.
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
    """Names to train on and names held back; each has one, if need be the same one."""
    # By its own name, so a photograph keeps its side when others are added.
    ranked = sorted(names, key=rank)
    count = sum(rank(name) < share for name in names)
    first = ranked[: max(1, min(count, len(names) - 1))]
    held_back = set(first)
    return [name for name in names if name not in held_back] or first, sorted(first)
