"""The key of a study: the identities of its pictures, kept apart from the page."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gl_jax.config import UsageError
from gl_jax.fields import build
from gl_jax.files import reading, write_output
from gl_jax.study import Kind
from gl_jax.study.questions import Picture, Question

FILE = "key.json"


@dataclass(frozen=True)
class Key:
    """The contents of a study: its pictures by their names in the page, and its orders."""

    study: str
    """Twelve hexadecimal digits, a hash of pictures, questions and settings."""
    kind: Kind
    seed: int
    seconds: float | None
    """Seconds for which a picture is shown; None for no limit."""
    methods: tuple[str, ...]
    photographs: tuple[str, ...]
    pictures: dict[str, Picture]
    orders: tuple[tuple[tuple[str, ...], ...], ...]
    """Each participant's questions: the names of the pictures shown at once."""


def make_key(
    orders: Sequence[Sequence[Question]],
    kind: Kind,
    *,
    seed: int,
    seconds: float | None,
    methods: Sequence[str],
    photographs: Sequence[str],
    digest: str,
) -> Key:
    """Returns the key of these questions, with random numbers as the pictures' names.

    `digest` is a hash of the pictures' contents.
    """
    everything = {picture for order in orders for shown in order for picture in shown}
    pictures = sorted(everything, key=lambda p: (p.photograph, p.kind, p.method or ""))
    numbers = np.random.default_rng(seed).permutation(len(pictures)) + 1
    names = {p: f"{n:05d}" for p, n in zip(pictures, numbers, strict=True)}
    named = tuple(
        tuple(tuple(names[picture] for picture in shown) for shown in order)
        for order in orders
    )
    by_name = {name: picture for picture, name in names.items()}
    key = Key(
        "", kind, seed, seconds, tuple(methods), tuple(photographs), by_name, named
    )
    text = json.dumps([asdict(key), digest])
    identity = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Key(**(vars(key) | {"study": identity}))


def write_key(key: Key, folder: Path) -> None:
    """Writes key.json into the study's folder."""
    text = json.dumps(asdict(key), indent=1, ensure_ascii=False)
    write_output(folder / FILE, text.encode())


def read_key(folder: Path) -> Key:
    """Returns the key in a study's folder; raises UsageError if there is none."""
    path = folder / FILE
    if not path.is_file():
        raise UsageError(
            f"output {folder} is no folder of a study: it has no {FILE}; name the folder "
            "that `gl-jax study RESULTS... --output FOLDER` made."
        )
    with reading(path):
        data = path.read_bytes()
    try:
        key: Key = build(Key, json.loads(data), "")
    except (ValueError, RecursionError, TypeError) as error:
        raise UsageError(
            f"{path} is no key of a study ({' '.join(str(error).split())}); make the "
            "study again with the same command."
        ) from error
    return key
