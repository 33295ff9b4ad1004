"""Random photographs, holes and a clock, the same for every contestant."""

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

MEAN_COLOR = (0.456, 0.447, 0.415)

# The seed of the inputs that are compared before anything is timed.
FIRST = 0


def random_images(seed: int, batch: int, height: int, width: int) -> np.ndarray:
    """The photographs of one turn: uint8 [b, h, w, 3]."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (batch, height, width, 3), np.uint8)


def random_mask(seed: int, height: int, width: int) -> np.ndarray:
    """A hole of a quarter of each side at a random place: float32 [1, h, w, 1]."""
    random = np.random.default_rng((seed, 1))
    mask = np.zeros((1, height, width, 1), np.float32)
    top, left = (
        int(random.integers(0, side - side // 4 + 1)) for side in (height, width)
    )
    mask[:, top : top + height // 4, left : left + width // 4] = 1
    return mask


def processors() -> int:
    """The processors that both libraries may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor_seconds(
    next_batch: Callable[[], Any], batch_size: int, count: int
) -> float:
    """Processor-seconds for one photograph, over `count` of them after some to warm up."""
    # What waits in buffers when the clock starts is replaced by as much when it stops.
    for _ in range(2 + 2 * processors()):
        next_batch()
    batches = max(1, count // batch_size)
    began = time.perf_counter()
    for _ in range(batches):
        next_batch()
    seconds = time.perf_counter() - began
    return seconds * processors() / (batches * batch_size)
