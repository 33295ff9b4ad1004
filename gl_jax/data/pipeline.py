"""Batches of training crops from a source of photographs, without a state to save.

Position i of a run (i = step * batch_size + j for the j-th crop of a batch) uses record
`index_shuffle(i mod n, seed, epoch)` with epoch = i div n: every photograph once per
epoch, in a new order each time. The record, its size, the place of the crop, the
mirroring and the colours depend only on (seed, i). A run therefore resumes at any step
at no cost, and uses the same photographs on any number of hosts.
"""

import contextlib
import functools
import json
import os
import threading
import weakref
from collections.abc import Callable, Iterator, MutableSequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from jaxtyping import Float, Int64, UInt8

from gl_jax.config import DataConfig, UsageError
from gl_jax.data.readable import Crop, ReadableCrops
from gl_jax.data.records import evenly_spaced, inventory
from gl_jax.data.sources import open_source
from gl_jax.data.tfds import tensorflow
from gl_jax.files import write_whole
from gl_jax.images import jittered, mirrored

Crops = UInt8[np.ndarray, "b side side 3"]

_PREFETCH = 1  # finished batches that wait
_AT_ONCE = 2  # batches read at the same time: one begins while another ends
_ALIGNMENT = 64  # bytes, of TensorFlow's arrays

# Indices of the random numbers of a crop.
_SIZE, _TOP, _LEFT, _FLIP, _BRIGHTNESS, _CONTRAST, _SATURATION = range(7)


class Photographs:
    """Photographs of a run: training batches, validation images, the mean colour.

    Opens both sets at once, so that mistakes in either appear before training starts.
    `cache_dir` keeps slow results; `log` gets a line for each unreadable photograph;
    pictures in `workdir` are not used. Raises UsageError like `open_source`.
    """

    def __init__(
        self,
        config: DataConfig,
        *,
        seed: int,
        cache_dir: Path | None = None,
        workdir: Path | None = None,
        log: Callable[[str], None] = print,
    ) -> None:
        self._config = config
        self._seed = seed
        self._cache_dir = cache_dir
        self._workers = config.workers or _processors()
        share = config.max_corrupt_share
        self.training, self.validation = (
            ReadableCrops(
                open_source(
                    config, validation=validation, cache_dir=cache_dir, workdir=workdir
                ),
                share,
                log,
            )
            for validation in (False, True)
        )

    def summary(self) -> str:
        """Describes the numbers of photographs to train and validate on."""
        sources = self.training.source, self.validation.source
        others = dict.fromkeys(getattr(source, "left_out", None) for source in sources)
        numbers = (
            f"photographs: {len(self.training):,} to train on, "
            f"{len(self.validation):,} to validate on"
        )
        return "; ".join([numbers, *filter(None, others)]).removesuffix(".") + "."

    def fingerprint(self) -> str:
        """Returns a hash of the training set's names and sizes, which identifies it."""
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        # Cached, because photographs may be deleted during the run.
        return self.training.source.fingerprint()

    @functools.cached_property
    def validation_fingerprint(self) -> str:
        """Hash of the validation set's names and sizes."""
        return self.validation.source.fingerprint()

    @functools.cached_property
    def inventory(self) -> dict[str, Any]:
        """The training set's number, names and sizes, for `records.changes`."""
        return inventory(self.training.source)

    def train_batches(
        self,
        start_step: int = 0,
        *,
        host_index: int = 0,
        host_count: int = 1,
        shown: MutableSequence[Int64[np.ndarray, " b"]] | None = None,
    ) -> Iterator[Crops]:
        """Yields this host's share of each batch, starting at `start_step`.

        Host h of H yields crops h*B/H to (h+1)*B/H of the global batch of B. The arrays
        may be read-only. The record numbers of each batch are appended to `shown`, if
        given.

        Raises UsageError if the hosts cannot share a batch evenly, and CorruptDataError
        while iterating.
        """
        share, rest = divmod(self._config.batch_size, host_count)
        if rest:
            raise UsageError(
                f"data.batch_size (={self._config.batch_size}) must be a multiple of "
                f"the number of hosts (={host_count}): each loads an equal share."
            )
        opened = _Opened()
        batches = self._batches(opened, start_step, host_index * share, share, shown)
        # TensorFlow's threads call Python. If they still do so when Python exits, the
        # process hangs or aborts, so the iterator is closed before.
        weakref.finalize(batches, opened.close)
        return batches

    def validation_images(self, count: int) -> Crops:
        """Returns up to `count` centre crops, always the same.

        They are spread evenly over the validation set. The photographs are resized to a
        shortest side of `resize[0]`, the smallest training size.
        """
        size, side = self._config.resize[0], self._config.image_size

        def crop(index: int) -> Crop:
            return self.validation.read(index, shortest=size, side=side)

        indices = evenly_spaced(len(self.validation), count)
        with ThreadPoolExecutor(self._workers) as pool:
            return np.stack(list(pool.map(crop, indices)))

    def mean_color(self) -> tuple[float, float, float]:
        """Returns the RGB in [0, 1] that fills the hole: as configured, or the mean.

        The mean is measured over the centre squares of up to 2,048 photographs spread
        evenly over the training set (an error of about 0.003), and kept in `cache_dir`
        until the set changes.
        """
        if self._config.mean_color is not None:
            return self._config.mean_color
        cache = None
        if self._cache_dir is not None:
            fingerprint = self.fingerprint()
            cache = self._cache_dir / f"mean-color-{fingerprint[:16]}.json"
            # An unreadable file is replaced below.
            with contextlib.suppress(OSError, ValueError, KeyError):
                red, green, blue = json.loads(cache.read_text())["mean_color"]
                return red, green, blue
        mean = self._measured_mean()
        if cache is not None:
            text = json.dumps({"mean_color": mean}) + "\n"
            write_whole(cache, text.encode())
        return mean

    def _measured_mean(self) -> tuple[float, float, float]:
        side = 64

        def total(index: int) -> Int64[np.ndarray, "3"]:
            crop = self.training.read(index, shortest=side, side=side)
            return np.asarray(crop.sum(axis=(0, 1), dtype=np.int64))

        indices = evenly_spaced(len(self.training), 2048)
        with ThreadPoolExecutor(self._workers) as pool:
            # Sums of integers are exact in any order.
            totals = np.sum(list(pool.map(total, indices)), axis=0)
        red, green, blue = (totals / (255 * side * side * len(indices))).tolist()
        return red, green, blue

    def _batches(
        self,
        opened: "_Opened",
        start_step: int,
        first: int,
        share: int,
        shown: MutableSequence[Int64[np.ndarray, " b"]] | None,
    ) -> Iterator[Crops]:
        tf = tensorflow()
        batch, side = self._config.batch_size, self._config.image_size
        length = len(self.training)
        failures: list[BaseException] = []
        readers = _Readers(self._workers)

        def load(
            indices: Int64[np.ndarray, " b"], uniforms: Float[np.ndarray, "b 7"]
        ) -> tuple[Crops, Int64[np.ndarray, " b"]]:
            try:
                return self._training_crops(opened, readers, indices, uniforms)
            except BaseException as error:
                # TensorFlow passes on only the error's text.
                failures.append(error)
                raise

        def draw(count: Any) -> Any:
            position = (
                start_step * batch + (count // share) * batch + first + count % share
            )
            seed, epoch = tf.constant(self._seed, tf.int64), position // length
            index = tf.random.experimental.index_shuffle(
                position % length, seed=tf.stack([seed, epoch]), max_index=length - 1
            )
            uniforms = tf.random.stateless_uniform([7], tf.stack([seed, position]))
            return index, uniforms

        def loaded(indices: Any, uniforms: Any) -> Any:
            crops, records = tf.numpy_function(
                load, [indices, uniforms], [tf.uint8, tf.int64]
            )
            shape = [share, side, side, 3]
            return tf.ensure_shape(crops, shape), tf.ensure_shape(records, [share])

        options = tf.data.Options()
        options.deterministic = True
        options.autotune.enabled = False
        # These threads wait for the readers, except the one that draws.
        options.threading.private_threadpool_size = _AT_ONCE + 1
        batches = tf.data.Dataset.range(tf.int64.max).with_options(options)
        batches = batches.map(draw).batch(share, drop_remainder=True)
        batches = batches.map(loaded, num_parallel_calls=_AT_ONCE).prefetch(_PREFETCH)
        opened.iterator = batches.as_numpy_iterator()
        try:
            for crops, records in opened:
                if shown is not None:
                    shown.append(records)
                yield crops
        except Exception:
            if opened.closed:
                return
            if failures:
                raise failures[0] from None
            raise
        finally:
            opened.close()
            readers.dismiss()

    def _training_crops(
        self,
        opened: "_Opened",
        readers: "_Readers",
        indices: Int64[np.ndarray, " b"],
        uniforms: Float[np.ndarray, "b 7"],
    ) -> tuple[Crops, Int64[np.ndarray, " b"]]:
        """Returns a batch, read by all readers at once, and its record numbers."""
        side = self._config.image_size
        crops = _aligned((len(indices), side, side, 3))
        records = np.empty(len(indices), np.int64)
        places = iter(range(len(indices)))

        def read() -> None:
            for place in places:  # shared by all readers: each takes the next one
                if opened.closed:
                    return
                crops[place], records[place] = self._training_crop(
                    int(indices[place]), uniforms[place]
                )

        readers.all_do(read)
        return crops, records

    def _training_crop(
        self, index: int, uniforms: Float[np.ndarray, "7"]
    ) -> tuple[Crop, int]:
        config = self._config
        low, high = config.resize
        crop, record = self.training.read_numbered(
            index,
            shortest=low + int(float(uniforms[_SIZE]) * (high - low + 1)),
            side=config.image_size,
            place=(float(uniforms[_TOP]), float(uniforms[_LEFT])),
            exact=False,
        )
        if config.flip and uniforms[_FLIP] < 0.5:
            crop = mirrored(crop)
        if config.color_jitter:
            factors = 1 + config.color_jitter * (2 * uniforms[_BRIGHTNESS:] - 1)
            crop = jittered(crop, *factors.tolist())
        return crop, record


def _aligned(shape: tuple[int, ...]) -> UInt8[np.ndarray, "*shape"]:
    """Returns an empty array aligned so that TensorFlow does not copy it."""
    room = np.empty(prod(shape) + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    return room[start : start + prod(shape)].reshape(shape)


class _Opened:
    """An iterator that can be closed while another thread is waiting for an item."""

    def __init__(self) -> None:
        self.iterator: Iterator[Any] = iter(())
        self.closed = False
        self._taking = threading.Lock()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        with self._taking:
            item = next(self.iterator)
            if self.closed:  # the item may be incomplete
                raise StopIteration
            return item

    def close(self) -> None:
        """Closes the iterator; returns when no item is being read."""
        self.closed = True
        with self._taking:
            self.iterator = iter(())


class _Readers:
    """Threads that run the same function together.

    An executor is unsuitable, as Python closes it at exit while TensorFlow still reads.
    """

    def __init__(self, count: int) -> None:
        self._work: SimpleQueue[tuple[Callable[[], None], Future[None]] | None]
        self._work = SimpleQueue()
        self._count = count
        for _ in range(count):
            threading.Thread(target=self._serve, name="reader", daemon=True).start()

    def all_do(self, work: Callable[[], None]) -> None:
        """Runs `work` in every thread and waits; raises the first thread's error."""
        results = [Future[None]() for _ in range(self._count)]
        for result in results:
            self._work.put((work, result))
        for result in results:
            result.result()

    def dismiss(self) -> None:
        """Ends the threads after the work they already have."""
        for _ in range(self._count):
            self._work.put(None)

    def _serve(self) -> None:
        while (item := self._work.get()) is not None:
            work, result = item
            try:
                work()
            except BaseException as error:
                result.set_exception(error)
            else:
                result.set_result(None)


def _processors() -> int:
    """Returns the number of processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
