"""Random access to the photographs of a prepared TFDS dataset.

TensorFlow and TFDS are imported when a dataset is opened.
"""

import contextlib
import functools
import hashlib
import heapq
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from gl_jax.config import UsageError, did_you_mean
from gl_jax.data.records import LISTED, rank
from gl_jax.files import write_whole


@functools.cache
def tensorflow() -> Any:
    """Imports TensorFlow without accelerators, whose memory is for JAX."""
    # TensorFlow only reads files here, so its notices about processors are noise.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    # Records in a bucket are small; the default fetches far more around each one.
    os.environ.setdefault("GCS_READ_CACHE_BLOCK_SIZE_MB", "1")
    import tensorflow as tf

    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)
    return tf


class _Shard(NamedTuple):
    """The part of one TFRecord file that belongs to a split."""

    path: str
    skip: int
    take: int
    records: int  # in the whole file


class TfdsSource:
    """The images of one split of a TFDS dataset, in stored order.

    TFDS itself reads data prepared as array_record. TFRecord files have no random
    access, so they are indexed once by reading the length of every record; `cache_dir`
    keeps the index.
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
        """Returns the encoded image as stored in the dataset."""
        try:
            record = self._records[index]
            example = tensorflow().train.Example.FromString(record)
        except Exception as error:
            # array_record and protobuf raise different errors for a damaged record.
            raise OSError(f"{self.name(index)} cannot be read: {error}") from error
        values: Sequence[bytes] = example.features.feature[self._key].bytes_list.value
        if not values:
            raise ValueError(f"{self.name(index)} has no image")
        return values[0]

    def name(self, index: int) -> str:
        """Returns dataset, version, split and number of the record."""
        return f"{self._label}[{index}]"

    def fingerprint(self) -> str:
        """Returns a hash of the dataset's version, its files and their record counts."""
        return self._fingerprint

    def sizes(self) -> dict[str, int]:
        """Returns the dataset's files, with the number of their records in the split."""
        names = heapq.nsmallest(LISTED, self._files, key=rank)
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
    """The raw records of TFRecord files, on a disk or in a bucket, by number.

    A file is a sequence of frames: the length n (8 bytes, little-endian), 4 bytes of
    checksum, n bytes of record, 4 bytes of checksum. The checksums are not verified,
    because decoding detects a damaged photograph.
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
    """Opens a local file by Python, which starts faster, or a bucket's by TensorFlow."""
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
    """Returns offset and length of every record, from the cache if it is valid.

    The cache's last row holds the sum and number of the files' sizes; it is invalid if
    they have changed.
    """
    expected = sum(shard.take for shard in shards)
    stamp = [sum(sizes), len(sizes)]
    if cache is not None and cache.is_file():
        # An unreadable cache is replaced below.
        with contextlib.suppress(ValueError, OSError, EOFError):
            places: np.ndarray = np.load(cache, allow_pickle=False)
            if places.shape == (expected + 1, 2) and places[-1].tolist() == stamp:
                return places[:-1]
    with ThreadPoolExecutor(max_workers=16) as pool:
        parts = list(pool.map(_places, shards, sizes))
    places = np.concatenate(parts)
    if cache is not None:
        data = io.BytesIO()
        np.save(data, np.concatenate([places, [stamp]]), allow_pickle=False)
        write_whole(cache, data.getvalue())
    return places


def _places(shard: _Shard, size: int) -> Int64[np.ndarray, "records 2"]:
    """Returns offset and length of the shard's records, read from their headers."""
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
            f"{shard.path} is damaged: it does not consist of {shard.records} records; "
            "prepare the dataset anew."
        )
    taken = places[shard.skip : shard.skip + shard.take]
    return np.array(taken, np.int64).reshape(-1, 2)


def _prepared_builder(name: str, data_dir: str | None) -> Any:
    tensorflow()  # before TFDS imports it with accelerators
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
            # Any error of the download or preparation has the same remedy.
            option = f" --data_dir={data_dir}" if data_dir else ""
            raise UsageError(
                f"tfds:{name} is not prepared in {builder.data_dir} and preparing it "
                f"failed ({_one_line(error)}); prepare it by hand: "
                f"tfds build {name}{option}"
            ) from error
    return builder


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:200] or 'no reason given'}"


def _image_key(name: str, features: Any) -> str:
    """Returns the feature with photographs: `image`, or the first image feature."""
    import tensorflow_datasets as tfds

    def photographs(keys: Iterable[str]) -> Iterator[str]:
        for key in keys:
            feature = features[key]
            if isinstance(feature, tfds.features.Image) and feature.np_dtype in (
                np.uint8,
                np.uint16,
            ):
                yield key

    keys = sorted(photographs(features), key=lambda key: (key != "image", key))
    if not keys:
        raise UsageError(
            f"tfds:{name} holds no photographs; its features are {', '.join(sorted(features))}."
        )
    return keys[0]
