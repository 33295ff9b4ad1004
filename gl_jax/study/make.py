"""Makes a study's folder from completed pictures and their photographs."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from gl_jax import images
from gl_jax.config import UsageError
from gl_jax.fields import require
from gl_jax.files import write_output, writing
from gl_jax.images import RgbImage
from gl_jax.inpainting.pairs import composed, pictures
from gl_jax.study import Kind
from gl_jax.study.key import FILE, Key, make_key, read_key, write_key
from gl_jax.study.page import page
from gl_jax.study.questions import make_orders

Folder = dict[str, Path]
"""The pictures of a folder by their path in it, without the suffix."""

MOST_PARTICIPANTS = 10_000
"""Most participants of a study; the page holds the orders of all."""

BLOCK = 16
"""Squares of random colour along the shorter side of a spoiled photograph."""


def make(
    results: Sequence[Path],
    truth: Path,
    output: Path,
    kind: Kind,
    *,
    participants: int,
    checks: int,
    seconds: float | None,
    seed: int,
    resize_to: int | None,
    log: Callable[[str], None] = print,
) -> Key:
    """Writes the page into `output/page` and its key into `output`; returns the key.

    Each folder of `results` holds a method's completions of the photographs in `truth`,
    under the same names; its own name is the method's. All pictures are stored as PNG of 8
    bits; `resize_to` limits the longer side, in pixels.

    Raises UsageError if a picture is missing, superfluous, of another size than its
    photograph or equal to it, and if `output` holds another study.
    """
    most = MOST_PARTICIPANTS
    require(
        1 <= participants <= most, "participants", participants, f"from 1 to {most:,}"
    )
    require(checks >= 0, "checks", checks, "at least 0")
    require(seconds is None or seconds > 0, "seconds", seconds, "above 0")
    require(seed >= 0, "seed", seed, "at least 0")
    require(resize_to is None or resize_to >= 16, "resize_to", resize_to, "at least 16")
    photographs = _folder(truth, "truth")
    methods = _methods(results, photographs, truth)
    require(
        checks <= len(photographs), "checks", checks,
        f"at most the number of photographs, {len(photographs)}",
    )  # fmt: skip
    orders = make_orders(
        list(photographs), list(methods), kind,
        participants=participants, checks=checks, seed=seed,
    )  # fmt: skip
    digest = hashlib.sha256(repr(resize_to).encode())
    for folder in (photographs, *methods.values()):
        for path in folder.values():
            digest.update(hashlib.sha256(images.read_bytes(path, str(path))).digest())
    key = make_key(
        orders, kind, seed=seed, seconds=seconds, methods=list(methods),
        photographs=list(photographs), digest=digest.hexdigest(),
    )  # fmt: skip
    for photograph in photographs:
        _read(photograph, photographs, methods)  # refuses before anything is written
    _require_place(output, key)
    names = {picture: name for name, picture in key.pictures.items()}
    for photograph in photographs:
        shown = _shown(photograph, photographs, methods, seed, resize_to)
        for picture, name in names.items():
            if picture.photograph == photograph:
                image = shown[picture.method or picture.kind]
                target = output / "page" / "pictures" / f"{name}.png"
                images.write(images.from_array(image, name), target)
    write_key(key, output)
    # Written last, so that an existing page is complete.
    write_output(output / "page" / "index.html", page(key).encode())
    log(
        f"Study {key.study}: {len(orders[0])} questions for each of up to {len(orders)} "
        f"participants, numbered 1 to {len(orders)}. Hand out "
        f"{output / 'page'} (index.html and pictures/), keep {output / FILE}. Then: "
        f"gl-jax study --evaluate ANSWERS --output {output}"
    )
    return key


def _folder(folder: Path, what: str) -> Folder:
    if not folder.is_dir():
        raise UsageError(
            f"{what} {folder} is no folder; give one with a picture of each photograph."
        )
    paths, _ = pictures(folder)
    if not paths:
        raise UsageError(f"{what} {folder} has no pictures; give a folder with some.")
    by_name: Folder = {}
    for path in paths:
        name = composed(path.with_suffix("").as_posix())
        if name in by_name:
            raise UsageError(
                f"{what} {folder} has {by_name[name].name} and {path.name}, which differ "
                "in the suffix alone; keep one."
            )
        by_name[name] = folder / path
    return by_name


def _methods(
    results: Sequence[Path], photographs: Folder, truth: Path
) -> dict[str, Folder]:
    """Returns the folders of completed pictures by their methods, in the photographs' order."""
    if not results:
        raise UsageError(
            "gl-jax study needs RESULTS...: folders of completed pictures, one for each "
            "method; or --evaluate with the folder of answers."
        )
    methods: dict[str, Folder] = {}
    for path in results:
        folder, method = _folder(path, "results"), path.resolve().name
        if method in methods:
            raise UsageError(
                f"results: two folders are called {method}, which names their method; "
                "rename one."
            )
        for one, other, lacking in (
            (photographs, folder, f"results {path}"),
            (folder, photographs, f"truth {truth}"),
        ):
            missing = [name for name in one if name not in other]
            if missing:
                raise UsageError(
                    f"{lacking} lacks {len(missing)} of {len(one)} pictures, the first "
                    f"{one[missing[0]]}; both folders must hold the same names."
                )
        methods[method] = {name: folder[name] for name in photographs}
    return methods


def _require_place(output: Path, key: Key) -> None:
    """Raises UsageError if the folder cannot be made or holds another study."""
    with writing(f"output {output}"):
        output.mkdir(parents=True, exist_ok=True)
    if (output / FILE).exists() and read_key(output).study != key.study:
        raise UsageError(
            f"output {output} holds another study, whose answers need its {FILE}; name "
            "another folder."
        )


def _shown(
    name: str,
    photographs: Folder,
    methods: dict[str, Folder],
    seed: int,
    resize_to: int | None,
) -> dict[str, RgbImage]:
    """Returns a photograph as `truth` and `check`, and its completions by method."""
    truth, completions = _read(name, photographs, methods)
    shown = {**completions, "truth": truth, "check": _spoiled(truth, seed)}
    return {name: _fitted(image, resize_to) for name, image in shown.items()}


def _read(
    name: str, photographs: Folder, methods: dict[str, Folder]
) -> tuple[RgbImage, dict[str, RgbImage]]:
    """Returns a photograph, and its completions by method; UsageError for wrong ones."""
    path = photographs[name]
    truth = images.read_rgb(path, str(path), opaque=True)
    completions = {}
    for method, folder in methods.items():
        result = folder[name]
        image = images.read_rgb(result, str(result), opaque=True)
        if image.shape != truth.shape:
            (height, width, _), (tall, wide, _) = image.shape, truth.shape
            raise UsageError(
                f"{result} is {width}x{height} pixels and {path} {wide}x{tall}; a "
                "completed picture must have its photograph's size."
            )
        if np.array_equal(image, truth):
            raise UsageError(
                f"{result} equals {path}, so nothing in it is completed; leave out both."
            )
        completions[method] = image
    return truth, completions


def _spoiled(image: RgbImage, seed: int) -> RgbImage:
    """Returns the photograph with squares of random colours in its middle."""
    height, width, _ = image.shape
    side = max(1, min(height, width) // BLOCK)
    rows, columns = -(-height // (2 * side)), -(-width // (2 * side))
    rng = np.random.default_rng(seed)
    colors = rng.integers(0, 256, (rows, columns, 3), np.uint8)
    block = colors.repeat(side, axis=0).repeat(side, axis=1)
    top, left = height // 4, width // 4
    block = block[: height - top, : width - left]
    spoiled = image.copy()
    spoiled[top : top + block.shape[0], left : left + block.shape[1]] = block
    return spoiled


def _fitted(image: RgbImage, longer: int | None) -> RgbImage:
    """Returns the picture, shrunk to a longer side of at most `longer` pixels."""
    height, width, _ = image.shape
    if longer is None or max(height, width) <= longer:
        return image
    scale = longer / max(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    smaller = images.resized(image.astype(np.float32), *size)
    return np.rint(smaller).astype(np.uint8)
