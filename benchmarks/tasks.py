"""The timed tasks, as far as both libraries share them: inputs, clock, comparison.

`ours.TASKS` and `peer.TASKS` derive the library's side of each from these classes.
Settings are the numbers of a case (`cases.py`), as they come through JSON.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import processors
from benchmarks.photographs import large_with_hole

Settings = dict[str, Any]
Arrays = dict[str, np.ndarray]

MEAN_COLOR = (0.456, 0.447, 0.415)

FIRST = 0
"""The seed of the inputs that are compared before anything is timed."""


class Task:
    """A piece of work that a library prepares once and then repeats on the clock."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def export(self, folder: Path) -> None:
        """Writes what the baselines need to compute the same; called on ours alone."""

    def outcome(self, folder: Path) -> Arrays:
        """Computes the results to compare, from what `export` wrote."""
        raise NotImplementedError

    def inputs(self, seed: int) -> tuple[Any, ...]:
        """Returns the arguments of `work`, made before the clock starts."""
        raise NotImplementedError

    def work(self, *inputs: Any) -> Any:
        """Does the work once; the library may return before the device is done."""
        raise NotImplementedError

    def wait(self, results: Any) -> None:
        """Blocks until the results are computed."""

    def run(self, seed: int) -> float:
        """Returns the seconds of one piece of work, averaged over the steps of a turn."""
        count = self.settings["steps"]
        batches = [self.inputs(seed * count + index) for index in range(count)]
        self.wait(batches)
        start = time.perf_counter()
        for batch in batches:
            results = self.work(*batch)
        self.wait(results)
        return (time.perf_counter() - start) / count

    def peak_bytes(self, process: int) -> int:
        """Returns the peak memory of the task, given that of this process."""
        return process

    def flops(self) -> float:
        """Returns the floating-point operations of one piece of work."""
        raise NotImplementedError


class Training(Task):
    """A training step, from uint8 photographs on the host to the updated weights."""

    def inputs(self, seed: int) -> tuple[np.ndarray]:
        """Returns the photographs of a batch: uint8 [b, side, side, 3]."""
        side = self.settings["image_size"]
        return (random_images(seed, self.settings["batch"], side, side),)


class Inference(Task):
    """A photograph completed by the network alone, in one piece."""

    def inputs(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns a photograph, uint8 [1, s, s, 3], and its mask, float32 [1, s, s, 1]."""
        side = self.settings["side"]
        return random_images(seed, 1, side, side), random_mask(seed, side, side)


class LargePhoto(Task):
    """A large photograph completed without blending, from uint8 to uint8."""

    def inputs(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns a photograph, uint8 [h, w, 3], and its mask, bool [h, w]."""
        return large_with_hole(seed, *self.settings["large"])

    def outcome(self, folder: Path) -> Arrays:
        """Returns the completed hole, in grey levels."""
        photograph, mask = self.inputs(FIRST)
        return {
            "hole": np.asarray(self.work(photograph, mask))[mask].astype(np.float32)
        }


class Pipeline(Task):
    """JPEG files to uint8 batches of random crops, with all processors."""

    def crop(
        self, path: Path, shortest: int, side: int, top: float, left: float
    ) -> np.ndarray:
        """Decodes, resizes to `shortest`, crops at (top, left) in [0, 1]: uint8."""
        raise NotImplementedError

    def batches(self, seed: int) -> Iterator[Any]:
        """Yields batches without end."""
        raise NotImplementedError

    def outcome(self, folder: Path) -> Arrays:
        """Returns the same crops of the first photographs, in grey levels."""
        side = self.settings["image_size"]
        paths = sorted(Path(self.settings["folder"]).glob("*.jpg"))[:4]
        crops = [self.crop(path, side * 5 // 4, side, 0.3, 1) for path in paths]
        return {"crops": np.stack(crops).astype(np.float32)}

    def run(self, seed: int) -> float:
        """Returns the processor-seconds of one photograph, once the pipeline is filled."""
        batches, size = self.batches(seed), self.settings["batch"]
        return processor_seconds(lambda: next(batches), size, self.settings["loaded"])


def random_images(seed: int, batch: int, height: int, width: int) -> np.ndarray:
    """Returns random images: uint8 [b, h, w, 3]."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (batch, height, width, 3), np.uint8)


def random_mask(seed: int, height: int, width: int) -> np.ndarray:
    """Returns a hole of a quarter of each side at a random place: float32 [1, h, w, 1]."""
    random = np.random.default_rng((seed, 1))
    mask = np.zeros((1, height, width, 1), np.float32)
    top, left = (
        int(random.integers(0, side - side // 4 + 1)) for side in (height, width)
    )
    mask[:, top : top + height // 4, left : left + width // 4] = 1
    return mask


def processor_seconds(
    next_batch: Callable[[], Any], batch_size: int, count: int
) -> float:
    """Returns the processor-seconds of one photograph, measured over `count` of them."""
    # The buffers are full when the clock starts and as full when it stops.
    for _ in range(2 + 2 * processors()):
        next_batch()
    batches = max(1, count // batch_size)
    start = time.perf_counter()
    for _ in range(batches):
        next_batch()
    seconds = time.perf_counter() - start
    return seconds * processors() / (batches * batch_size)


def flattened(arrays: Arrays) -> np.ndarray:
    """Returns the trainable arrays as one vector, in the order of their names."""
    names = sorted(name for name in arrays if "running_" not in name)
    return np.concatenate([np.ravel(arrays[name]) for name in names])
