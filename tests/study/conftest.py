"""A small study of each kind."""

from pathlib import Path

import numpy as np
import pytest

from gl_jax import images
from gl_jax.study import Kind
from gl_jax.study.key import Key
from gl_jax.study.make import make

PHOTOGRAPHS, SIDE = 6, 24


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `truth`, `gl` and `mean` with pictures of the same names."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for number in range(PHOTOGRAPHS):
        photo = generator.integers(40, 256, (SIDE, SIDE + number, 3), np.uint8)
        for divisor, name in enumerate(("truth", "gl", "mean"), 1):
            image = photo.copy()
            image[8:14, 8:14] //= divisor
            path = folder / name / "album" / f"{number}.png"
            images.write(images.from_array(image), path)
    return folder


@pytest.fixture(scope="session")
def studies(
    pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[Kind, tuple[Key, Path]]:
    """A study of each kind for 400 participants, with its folder."""
    made: dict[Kind, tuple[Key, Path]] = {}
    kinds: tuple[Kind, ...] = ("single", "pair")
    for kind in kinds:
        folder = tmp_path_factory.mktemp(kind)
        key = make(
            [pictures / "gl", pictures / "mean"], pictures / "truth", folder, kind,
            participants=400, checks=3, seconds=0.5, seed=0, resize_to=None,
        )  # fmt: skip
        made[kind] = key, folder
    return made
