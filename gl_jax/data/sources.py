"""Random access to encoded photographs: a folder, a TFDS dataset, or the bundled few.

A source is a list of encoded images with names. Every record can be read at any time
by any thread and on any host, which is what lets the pipeline draw a true permutation
of the set and resume anywhere without a state. Nothing is decoded here.
"""

import contextlib
import functools
import hashlib
import heapq
import importlib.util
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Int64

from gl_jax import images
from gl_jax.config import DataConfig, UsageError, did_you_mean
from gl_jax.files import reason, write_whole

PATTERNS = ("*.jpg", "*.jpeg", "*.png", "*.webp")
"""What counts as a photograph in a folder, in upper and lower case."""

RUN_FILE = "run_status.json"
"""A folder that has it is a training run's: its pictures are no photographs."""

LISTED = 1_000
"""Names that are kept with a checkpoint, to say later what has changed."""

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


class Source(Protocol):
    """Encoded photographs in a fixed order; safe to read from many threads."""

    def __len__(self) -> int:
        """The number of records, at least 1."""
        ...

    def read(self, index: int) -> bytes:
        """The encoded image; OSError or ValueError where the record cannot be read."""
        ...

    def name(self, index: int) -> str:
        """What a person finds the record by."""
        ...

    def fingerprint(self) -> str:
        """A hash of the names and sizes in order: another set has another one."""
        ...

    def sizes(self) -> dict[str, int]:
        """Names and sizes, of at most `LISTED` records: those of lowest `_rank`."""
        ...


def open_source(
    config: DataConfig, *, validation: bool = False, cache_dir: Path | None = None
) -> Source:
    """The photographs to train on, or with `validation` those held back from training.

    `cache_dir` keeps the index of TFRecord files from one run to the next.

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
    return _open_folder(Path(source).expanduser(), validation, share)


@functools.cache
def tensorflow() -> Any:
    """TensorFlow, kept off every accelerator: their memory is for JAX."""
    # TensorFlow only reads files here: its notices on start-up are of no use.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    # A record in a bucket is small; by default far more is fetched around each one.
    os.environ.setdefault("GCS_READ_CACHE_BLOCK_SIZE_MB", "1")
    import tensorflow as tf

    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)
    return tf


class FileSource:
    """Image files, in the order given; `locate` turns a name into a path."""

    def __init__(
        self,
        names: Sequence[str],
        locate: Callable[[str], Path],
        skipped: Mapping[str, int] | None = None,
    ) -> None:
        self._names = names
        self._locate = locate
        self.skipped = skipped or {}
        """The numbers of files in the folder that are no photographs, by their endings."""

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
        names = heapq.nsmallest(LISTED, self._names, key=_rank)
        return {name: self._size(name) for name in names}

    def _size(self, name: str) -> int:
        try:
            return self._locate(name).stat().st_size
        except OSError:
            return -1  # a link that leads nowhere: unreadable, like a damaged file


def inventory(source: Source) -> dict[str, Any]:
    """What `changes` needs to know of a source later; JSON of at most some 100 kB."""
    return {"count": len(source), "sizes": source.sizes()}


def changes(then: dict[str, Any], now: dict[str, Any]) -> str:
    """How two inventories differ, in one line: numbers and a few names."""
    # Where not all names are listed, only ranks that both lists reach can be compared.
    reach = min(
        max(map(_rank, one["sizes"])) if len(one["sizes"]) >= LISTED else 1.0
        for one in (then, now)
    )
    before, after = (
        {name: size for name, size in one["sizes"].items() if _rank(name) <= reach}
        for one in (then, now)
    )
    both = before.keys() & after.keys()
    kinds = {
        "gone": sorted(before.keys() - after.keys()),
        "new": sorted(after.keys() - before.keys()),
        "of another size": sorted(n for n in both if before[n] != after[n]),
    }
    sample = "" if reach == 1 else f" of the {len(before)} that were compared"
    parts = [f"{now['count']} where there were {then['count']}"]
    for kind, names in kinds.items():
        if names:
            more = ", ..." if len(names) > 3 else ""
            listed = f"{', '.join(names[:3])}{more}"
            parts.append(f"{len(names)}{sample} {kind} ({listed})")
    return "; ".join(parts)


def evenly_spaced(length: int, count: int) -> list[int]:
    """At most `count` indices spread evenly over `length` records, ascending."""
    count = min(length, count)
    return [i * length // count for i in range(count)]


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


def _open_folder(root: Path, validation: bool, share: float | None) -> Source:
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
    skipped: Counter[str] = Counter()
    names = sorted(_image_names(root, skipped))
    if not names:
        others = images.left_out(skipped, root)
        raise UsageError(
            f"there is no photograph in {str(root)!r} nor in any folder below it "
            f"(looked for {', '.join(PATTERNS)}){f'; {others}' if others else '.'}"
        )
    if share is not None:
        names = _divided(names, share)[1 if validation else 0]
    return FileSource(names, root.joinpath, skipped)


def in_words(skipped: Mapping[str, int], before: str) -> str:
    """Numbers of files by ending, most frequent first, in words after `before`; or ""."""
    kinds = sorted(skipped.items(), key=lambda pair: (-pair[1], pair[0]))
    listed = [f"{count} {kind}" for kind, count in kinds[:5]]
    more = sum(count for _, count in kinds[5:])
    return (
        before + ", ".join(listed + [f"{more} others"] * bool(more)) if listed else ""
    )


def _image_names(root: Path, skipped: Counter[str]) -> Iterator[str]:
    """Names relative to `root`, with slashes, following links but no circle of them.

    Counts in `skipped` what is no photograph by its ending, and folders of runs.
    """
    endings = tuple(pattern.removeprefix("*") for pattern in PATTERNS)
    been = set()

    def refuse(error: OSError) -> None:
        raise UsageError(
            f"{error.filename} cannot be listed: {reason(error)}."
        ) from error

    for folder, inner, files in os.walk(root, onerror=refuse, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in been:
            inner.clear()
            continue
        been.add((status.st_dev, status.st_ino))
        if RUN_FILE in files:
            skipped["training run's folder"] += 1
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
                skipped[PurePosixPath(name).suffix.lower() or "without a suffix"] += 1


def _rank(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    digest = hashlib.sha1(os.fsencode(name), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8]) / 2**64


def _divided(names: list[str], share: float) -> tuple[list[str], list[str]]:
    """Names to train on and names held back; each has one, if need be the same one."""
    # By its own name, so a photograph keeps its side when others are added.
    ranked = sorted(names, key=_rank)
    count = sum(_rank(name) < share for name in names)
    first = ranked[: max(1, min(count, len(names) - 1))]
    held_back = set(first)
    return [name for name in names if name not in held_back] or first, sorted(first)


class _Shard(NamedTuple):
    """The part of one TFRecord file that belongs to a split."""

    path: str
    skip: int
    take: int
    records: int  # in the whole file


class TfdsSource:
    """The images of one split of a TFDS dataset, in the order in which it is stored.

    Data prepared as array_record is read by TFDS itself. In TFRecord files, which have
    no random access, the place of every record is found once by walking over their
    lengths, and kept in `cache_dir`.
    """

    def __init__(
        self, name: str, split: str, data_dir: str | None, cache_dir: Path | None
    ) -> None:
        builder = _prepared_builder(name, data_dir)
        info = builder.info
        if not info.splits:
            raise UsageError(
                f"tfds:{name} in {builder.data_dir} is prepared but empty."
            )
        try:
            part = info.splits[split]
            shards = [
                _Shard(str(i.filename), i.skip, i.take, i.examples_in_shard)
                for i in part.file_instructions
            ]
        except (ValueError, KeyError, AssertionError) as error:
            raise UsageError(
                f"tfds:{name} has no split {split!r}."
                f"{did_you_mean(split, info.splits)} Known: "
                f"{', '.join(info.splits)}; data.split and data.validation_split choose."
            ) from error
        self._length = sum(shard.take for shard in shards)
        if not self._length:
            raise UsageError(f"split {split!r} of tfds:{name} holds no record.")
        self._label = f"{info.full_name}/{split}"
        self._key = _image_key(name, info.features)
        sizes = [(PurePosixPath(s.path).name, *s[1:]) for s in shards]
        self._files = {
            f"{self._label}/{PurePosixPath(s.path).name}": s.take for s in shards
        }
        self._fingerprint = hashlib.sha256(
            repr((self._label, part.num_bytes, sizes)).encode()
        ).hexdigest()
        self._records = self._open_records(builder, split, shards, cache_dir)

    def __len__(self) -> int:
        return self._length

    def read(self, index: int) -> bytes:
        """The encoded image as the dataset holds it."""
        try:
            record = self._records[index]
            example = tensorflow().train.Example.FromString(record)
        except Exception as error:
            # array_record and protobuf report a damaged record each in their own way.
            raise OSError(f"{self.name(index)} cannot be read: {error}") from error
        values: Sequence[bytes] = example.features.feature[self._key].bytes_list.value
        if not values:
            raise ValueError(f"{self.name(index)} has no image")
        return values[0]

    def name(self, index: int) -> str:
        """Dataset, version, split and number of the record."""
        return f"{self._label}[{index}]"

    def fingerprint(self) -> str:
        """Hash of the dataset's version and of its files and their record counts."""
        return self._fingerprint

    def sizes(self) -> dict[str, int]:
        """The dataset's files, with how many of their records belong to the split."""
        names = heapq.nsmallest(LISTED, self._files, key=_rank)
        return {name: self._files[name] for name in names}

    def _open_records(
        self, builder: Any, split: str, shards: list[_Shard], cache_dir: Path | None
    ) -> Any:
        import tensorflow_datasets as tfds

        kinds = {kind.value for kind in builder.info.available_file_formats()}
        if "array_record" in kinds and "://" not in str(builder.data_dir):
            method = tfds.decode.DeserializeMethod.RAW_BYTES
            return builder.as_data_source(
                split, deserialize_method=method, file_format="array_record"
            )
        if "tfrecord" in kinds:
            safe = self._label.replace("/", "-").replace(":", "-")
            name = f"{safe}-{self._fingerprint[:12]}.npy"
            cache = cache_dir / name if cache_dir is not None else None
            return TfRecords(shards, cache)
        raise UsageError(
            f"{self._label} in {builder.data_dir} is prepared as "
            f"{', '.join(sorted(kinds))}; photographs are read "
            "from tfrecord, and from array_record on a local disk."
        )


class TfRecords:
    """The raw records of TFRecord files, by number; local files and buckets alike.

    A file is a sequence of frames: the length n (8 bytes, little-endian), 4 bytes of
    checksum, n bytes of record, 4 bytes of checksum. The checksums are not verified: a
    damaged photograph is found when it is decoded.
    """

    def __init__(self, shards: list[_Shard], cache: Path | None) -> None:
        self._paths = [shard.path for shard in shards]
        self._starts = np.cumsum([0] + [shard.take for shard in shards])
        sizes = [tensorflow().io.gfile.stat(shard.path).length for shard in shards]
        self._places = _cached_places(shards, sizes, cache)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> bytes:
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        offset, length = (int(value) for value in self._places[index])
        with _reader(self._paths[shard]) as file:
            file.seek(offset)
            record = file.read(length)
        if len(record) != length:
            raise OSError(f"{self._paths[shard]} ends within record {index}")
        return bytes(record)


_WINDOW = 1 << 20
_HEADER, _FOOTER = 12, 4


def _reader(path: str) -> Any:
    """A local file by Python's reader, which starts faster; a bucket's by TF."""
    if "://" in path:
        return _bucket_file(path)
    return open(path, "rb")


@contextlib.contextmanager
def _bucket_file(path: str) -> Iterator[Any]:
    tf = tensorflow()
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            yield file
    except tf.errors.OpError as error:
        raise OSError(f"{path}: {error.message}") from error


def _cached_places(
    shards: list[_Shard], sizes: list[int], cache: Path | None
) -> Int64[np.ndarray, "records 2"]:
    """Offset and length of every record, from the cache where it is whole and current.

    The last row holds the sum of the files' sizes: files that were written anew have
    another one.
    """
    expected = sum(shard.take for shard in shards)
    stamp = [sum(sizes), len(sizes)]
    if cache is not None and cache.is_file():
        # A cache that cannot be read is like none: it is written anew below.
        with contextlib.suppress(ValueError, OSError, EOFError):
            places: np.ndarray = np.load(cache, allow_pickle=False)
            if places.shape == (expected + 1, 2) and places[-1].tolist() == stamp:
                return places[:-1]
    with ThreadPoolExecutor(max_workers=16) as pool:
        found = list(pool.map(_places, shards, sizes))
    places = np.concatenate(found)
    if cache is not None:
        data = io.BytesIO()
        np.save(data, np.concatenate([places, [stamp]]), allow_pickle=False)
        write_whole(cache, data.getvalue())
    return places


def _places(shard: _Shard, size: int) -> Int64[np.ndarray, "records 2"]:
    """Offset and length of the shard's records, from their headers alone."""
    places = []
    position = start = 0
    window = b""
    with _reader(shard.path) as file:
        while position + _HEADER <= size:
            if position + _HEADER > start + len(window):
                file.seek(position)
                start, window = position, file.read(_WINDOW)
            at = position - start
            length = int.from_bytes(window[at : at + 8], "little")
            places.append((position + _HEADER, length))
            position += _HEADER + length + _FOOTER
    if position != size or len(places) != shard.records:
        raise UsageError(
            f"{shard.path} is damaged: it should hold {shard.records} records to its "
            "last byte and does not; prepare the dataset anew."
        )
    wanted = places[shard.skip : shard.skip + shard.take]
    return np.array(wanted, np.int64).reshape(-1, 2)


def _prepared_builder(name: str, data_dir: str | None) -> Any:
    tensorflow()  # before TFDS imports it in its own way
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        near = did_you_mean(name.split("/")[0].split(":")[0], tfds.list_builders())
        place = data_dir or "the default data_dir"
        raise UsageError(
            f"TFDS has no dataset {name!r}, nor is it prepared in {place}.{near}"
        ) from error
    except Exception as error:
        raise UsageError(f"tfds:{name} cannot be opened: {_one_line(error)}") from error
    if not builder.is_prepared():
        try:
            builder.download_and_prepare()
        except Exception as error:
            # Whatever failed in the download or the preparation has the same way out.
            where = f" --data_dir={data_dir}" if data_dir else ""
            raise UsageError(
                f"tfds:{name} is not prepared in {builder.data_dir} and preparing it "
                f"failed ({_one_line(error)}); prepare it by hand: "
                f"tfds build {name}{where}"
            ) from error
    return builder


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:200] or 'no reason given'}"


def _image_key(name: str, features: Any) -> str:
    """The feature that holds photographs: `image`, or the first one of its kind."""
    import tensorflow_datasets as tfds

    def photographs(keys: Iterable[str]) -> Iterator[str]:
        for key in keys:
            feature = features[key]
            if isinstance(feature, tfds.features.Image) and feature.np_dtype in (
                np.uint8,
                np.uint16,
            ):
                yield key

    found = sorted(photographs(features), key=lambda key: (key != "image", key))
    if not found:
        raise UsageError(
            f"tfds:{name} holds no photographs; its features are {', '.join(sorted(features))}."
        )
    return found[0]
