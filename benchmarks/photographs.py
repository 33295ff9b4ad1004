"""Photographs to measure with, cut from those that come with the project's requirements.

What reads them is imported when they are read: steps of a network do not need it.
"""

import functools
from pathlib import Path

import numpy as np

from gl_jax.config import DataConfig

QUALITY = 90


def bundled() -> list[np.ndarray]:
    """Returns the bundled training photographs, uint8 [h, w, 3] each."""
    from gl_jax.data.sources import open_source
    from gl_jax.images import read_rgb

    source = open_source(DataConfig(source="bundled"))
    return [read_rgb(source.read(i), source.name(i)) for i in range(len(source))]


def write_jpegs(folder: Path, count: int, height: int, width: int) -> None:
    """Writes `count` different JPEGs of that size: windows of the bundled photographs."""
    from PIL import Image

    random = np.random.default_rng(2017)
    originals = [Image.fromarray(photograph) for photograph in bundled()]
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        image = originals[index % len(originals)]
        # Between two thirds of the largest window of this shape and all of it.
        scale = min(image.width / width, image.height / height)
        scale *= random.uniform(2 / 3, 1)
        left = random.uniform(0, image.width - scale * width)
        top = random.uniform(0, image.height - scale * height)
        box = (left, top, left + scale * width, top + scale * height)
        window = image.resize((width, height), Image.Resampling.BICUBIC, box=box)
        window.save(folder / f"{index:05}.jpg", quality=QUALITY)


@functools.cache
def large(width: int, height: int) -> np.ndarray:
    """Returns a bundled photograph enlarged to uint8 [height, width, 3]."""
    from PIL import Image

    image = Image.fromarray(bundled()[0])
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def large_with_hole(
    seed: int, width: int, height: int, hole: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the large photograph, shifted, and a random square hole: bool [h, w].

    The hole stays away from the edges, which need windows of other sizes and so another
    compilation.
    """
    random = np.random.default_rng(seed)
    photograph = np.roll(large(width, height), random.integers(width), axis=1)
    mask = np.zeros((height, width), bool)
    free = [(side - hole) // 4 for side in (height, width)]
    top, left = (int(random.integers(room, 3 * room + 1)) for room in free)
    mask[top : top + hole, left : left + hole] = True
    return photograph, mask
