"""`gl-jax complete`: a photo or a folder of them, each completed into a file of its own.

What is wrong with the call as a whole is refused before a model is loaded. What is
wrong with one photo is said, and the others go on.
"""

import contextlib
import functools
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from jaxtyping import Bool

from gl_jax import images
from gl_jax.config import UsageError
from gl_jax.files import write_output
from gl_jax.images import Photo
from gl_jax.inpainting import masks

if TYPE_CHECKING:
    from gl_jax.inpainting.completer import Completer

Mask = Bool[np.ndarray, "h w"]


class IncompleteError(RuntimeError):
    """Some photos could not be completed; the others are there."""


@dataclass(frozen=True, kw_only=True)
class Holes:
    """What is missing in the photos; exactly one source."""

    mask: Path | None = None
    """A file for all photos, or a folder with one for each."""
    source: Literal["white", "alpha"] = "white"
    """Of the mask, or without one of the photo itself (alpha)."""
    color: str | None = None
    """Hexadecimal RGB that marks the hole, in the mask or in the photo itself."""
    tolerance: int = 0
    rectangles: tuple[str, ...] = ()
    seed: int | None = None
    invert: bool = False
    dilate: int = 0
    strict_size: bool = False

    def __post_init__(self) -> None:
        own = self.mask is None and (self.source == "alpha" or self.color is not None)
        sources = {
            "--mask": self.mask is not None,
            "--mask-from alpha or --mask-color": own,
            "--rect": bool(self.rectangles),
            "--random-mask": self.seed is not None,
        }
        given = [name for name, there in sources.items() if there]
        if len(given) > 1:
            raise UsageError(
                f"{' and '.join(given)} each say what is missing; use one."
            )
        if not given:
            raise UsageError(
                "nothing says what is missing: give --mask FILE (white = missing), or "
                "--mask-from alpha, --mask-color, --rect x,y,w,h or --random-mask SEED."
            )
        if self.source == "alpha" and self.color is not None:
            raise UsageError("--mask-from alpha and --mask-color exclude each other.")
        # Refused now rather than for each photo.
        if self.color is not None:
            masks.from_color(np.zeros((1, 1, 3)), 255.0, self.color, self.tolerance)
        for number, name in ((self.dilate, "dilate"), (self.seed or 0, "random_mask")):
            if number < 0:
                raise UsageError(f"{name} (={number}) must be at least 0.")

    @property
    def from_own_alpha(self) -> bool:
        """Whether the photo's own transparency is what is missing."""
        return self.mask is None and self.source == "alpha"


@dataclass(frozen=True, kw_only=True)
class Look:
    """How the holes are completed, and what is written."""

    blend: Literal["poisson", "none"] = "poisson"
    feather: int = 0
    resize_to: int | None = None
    concat: bool = False
    patch_only: bool = False
    format: str | None = None
    quality: int | None = None

    def __post_init__(self) -> None:
        if self.concat and self.patch_only:
            raise UsageError("--concat and --patch-only exclude each other.")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UsageError(f"quality (={self.quality}) must be from 1 to 100.")
        if self.feather < 0:
            raise UsageError(f"feather (={self.feather}) must be at least 0.")
        if self.resize_to is not None and self.resize_to != 0 and self.resize_to < 16:
            raise UsageError(f"resize_to (={self.resize_to}) must be 0 or at least 16.")
        if self.format is not None:
            self._require_alpha(images.format_of(self.format), self.format)

    def suffix(self, photo: Path) -> str:
        """The suffix of what becomes of the photo."""
        suffix = f".{self.format.lower().lstrip('.')}" if self.format else None
        suffix = suffix or images.output_suffix(photo)
        opaque = not images.holds_alpha(images.format_of(suffix))
        return ".png" if self.patch_only and opaque else suffix

    def require_target(self, target: Path) -> None:
        """UsageError where the named file's format cannot hold what is asked for."""
        if not self.format:
            self._require_alpha(images.format_of(target.suffix or target.name), target)

    def _require_alpha(self, kind: str, name: object) -> None:
        if self.patch_only and not images.holds_alpha(kind):
            raise UsageError(
                f"--patch-only needs transparency, which {kind} ({name}) does not have; "
                "write a .png."
            )


@dataclass(frozen=True)
class Job:
    """One photo to complete, or the reason why not."""

    photo: Path
    name: str
    target: Path
    mask: Path | None = None
    fault: str | None = None


def run(
    image: Path,
    output: Path,
    holes: Holes,
    look: Look,
    *,
    model: str | None = None,
    experiment: Path | None = None,
    skip_existing: bool = False,
    max_pixels: int | None = None,
    log: Callable[[str], None] = print,
) -> int:
    """Completes `image`, a file or a folder, into `output`; returns how many were.

    Folders are read recursively and keep their sub-folders. Their files that are not
    read are counted by kind, but hidden ones. A line is logged for each
    photo that is skipped or failed, or about which there is something to know, and a
    bar shows the progress where stderr is a terminal. Files appear whole.

    Raises UsageError for a wrong call, IncompleteError at the end where photos failed.
    """
    if max_pixels is not None:
        if max_pixels < 1:
            raise UsageError(f"max_pixels (={max_pixels}) must be at least 1.")
        images.allow_pixels(max_pixels)
    jobs = find_jobs(image, output, holes.mask, look, log)
    _refuse_overwriting(jobs)
    skipped = [job for job in jobs if skip_existing and job.target.exists()]
    left = [job for job in jobs if job not in skipped]
    for job in skipped:
        log(f"{job.name}: skipped, {job.target} exists.")
    failed: list[str] = []
    if left:
        completer = _completer(model, experiment)
        with _progress(len(left), log) as progress:
            for job in left:
                reason = _attempt(job, holes, look, completer, progress.line)
                if reason is not None:
                    failed.append(reason)
                    progress.line(f"failed: {reason}")
                progress.advance(job.name)
    count = len(left) - len(failed)
    parts = [f"{count} completed"]
    parts += [f"{len(skipped)} skipped"] if skipped else []
    if failed:
        about = failed[0] if len(jobs) == 1 else f"{len(failed)} failed"
        raise IncompleteError(f"{', '.join(parts)}; {about}")
    log(f"{', '.join(parts)}: {output}")
    return count


def find_jobs(
    image: Path,
    output: Path,
    mask: Path | None,
    look: Look,
    log: Callable[[str], None] = print,
) -> list[Job]:
    """The photos at `image` with their masks, and where each result goes.

    A photo without a mask of its own in a folder of masks is a job with a fault. Of
    several masks NAME_mask*.png each makes a result of its own, named after the mask.
    """
    for path, what in ((image, "image"), (mask, "mask")):
        if path is not None and not path.exists():
            raise UsageError(f"{what} {path} does not exist.")
    if not image.is_dir():
        return _single(image, output, mask, look, log)
    if output.exists() and not output.is_dir():
        raise UsageError(f"output {output} is a file, and image {image} a folder.")
    in_folder = mask is not None and mask.is_dir()
    photos, left_out = _pictures(image, without=output)
    candidates: list[Path] = []
    same = mask is not None and _real(mask) == _real(image)
    if mask and in_folder:
        candidates, others = (photos, None) if same else _pictures(mask, without=output)
        if others is not None:
            log(others)
    taken = set()
    if mask and in_folder and same:
        stems = {(photo.parent, photo.stem) for photo in photos}
        taken = {photo for photo in photos if _base(photo) in stems}
    elif mask and in_folder:
        inside = _real(mask)
        taken = {p for p in photos if inside in _real(image / p).parents}
    photos = [photo for photo in photos if photo not in taken]
    if not photos:
        raise UsageError(
            f"folder {image} has no photographs: no files .png, .jpg, .webp, .tif, or of "
            f"another kind that is read{f'; {left_out}' if left_out else '.'}"
        )
    if left_out is not None:
        log(left_out)
    found: list[tuple[Path, Path | None, str | None]] = []
    for photo in photos:
        if mask is None or not in_folder:
            found.append((photo, mask, None))
            continue
        own = _own_masks(photo, candidates, same=same)
        if not own:
            looked = f"{photo.stem}.* and {photo.stem}_mask*"
            fault = f"no mask for it in {mask / photo.parent} (looked for {looked})."
            found.append((photo, None, fault))
        several = len(own) > 1
        found += [(photo, mask / one, one.stem if several else None) for one in own]
    return _jobs(found, image, output, look)


def _single(
    image: Path,
    output: Path,
    mask: Path | None,
    look: Look,
    log: Callable[[str], None],
) -> list[Job]:
    if mask is not None and mask.is_dir():
        candidates, left_out = _pictures(mask, without=None)
        own = _own_masks(Path(image.name), candidates, same=False)
        if len(own) != 1:
            if left_out is not None:
                log(left_out)
            raise UsageError(
                f"mask {mask} is a folder with {len(own)} masks for {image.name}; name "
                "the file."
            )
        mask = mask / own[0]
    if output.is_dir() or not output.suffix:
        output = output / f"{image.stem}{look.suffix(image)}"
    look.require_target(output)
    return [Job(image, str(image), output, mask)]


def _jobs(
    found: Sequence[tuple[Path, Path | None, str | None]],
    image: Path,
    output: Path,
    look: Look,
) -> list[Job]:
    """Jobs with targets of their own, also where only the suffix told photos apart."""
    stems = [
        photo.stem if mask is None or name is None else name
        for photo, mask, name in found
    ]
    targets = [
        photo.with_name(f"{stem}{look.suffix(photo)}")
        for (photo, *_), stem in zip(found, stems, strict=True)
    ]
    count = Counter(targets)
    return [
        Job(
            image / photo,
            str(photo),
            output
            / (
                target
                if count[target] == 1
                else target.with_name(f"{stem}{photo.suffix}{target.suffix}")
            ),
            mask,
            fault=name if mask is None else None,
        )
        for (photo, mask, name), target, stem in zip(found, targets, stems, strict=True)
    ]


def _pictures(folder: Path, without: Path | None) -> tuple[list[Path], str | None]:
    """Files with the suffix of an image, relative to the folder, in order.

    And a line on what is left out: other files, and folders that are not entered. Hidden
    ones are not counted.
    """
    known = images.readable_suffixes()
    excluded = None if without is None else _real(without)
    inside_of = {_real(folder), *_real(folder).parents}
    if excluded in inside_of:
        excluded = None
    pictures, others = [], Counter[str]()
    for path in folder.rglob("*"):
        inside = excluded is not None and excluded in _real(path).parents
        if path.name.startswith(".") or inside:
            continue
        if path.is_dir():
            others["link to a folder"] += path.is_symlink()
            others["folder without permission"] += not os.access(
                path, os.R_OK | os.X_OK
            )
        elif path.suffix.lower() in known:
            pictures.append(path.relative_to(folder))
        else:
            others += images.counted([path])
    return sorted(pictures), images.left_out(+others, folder)


def _real(path: Path) -> Path:
    """The path without its links; one that leads in a circle is left as it is."""
    return Path(os.path.realpath(path))


def _base(mask: Path) -> tuple[Path, str] | None:
    """The folder and the stem of the photo that NAME_mask* belongs to."""
    stem, separator, _ = mask.stem.rpartition("_mask")
    return (mask.parent, stem) if separator else None


def _own_masks(photo: Path, candidates: Sequence[Path], *, same: bool) -> list[Path]:
    beside = [mask for mask in candidates if mask.parent == photo.parent]
    named = [mask for mask in beside if mask.stem == photo.stem and not same]
    exact = [mask for mask in named if mask.name == photo.name]
    marked = [mask for mask in beside if _base(mask) == (photo.parent, photo.stem)]
    return exact or named[:1] or marked


def _refuse_overwriting(jobs: Sequence[Job]) -> None:
    inputs = {_real(path) for job in jobs for path in (job.photo, job.mask) if path}
    for job in jobs:
        if _real(job.target) in inputs:
            raise UsageError(
                f"{job.target} is one of the inputs, which are never overwritten; give "
                "another --output."
            )


def _completer(model: str | None, experiment: Path | None) -> "Completer":
    # JAX is loaded here: everything that the caller can mend is refused before.
    from gl_jax import compilation
    from gl_jax.inpainting import completer

    compilation.use_compilation_cache()
    return completer.load(model, experiment=experiment)


def _attempt(
    job: Job,
    holes: Holes,
    look: Look,
    completer: "Completer",
    notify: Callable[[str], None],
) -> str | None:
    """Does the job; the reason where it cannot be done."""
    try:
        if job.fault is not None:
            raise UsageError(job.fault)
        _complete(job, holes, look, completer, notify)
    except UsageError as error:
        text = str(error)
        return text if job.name in text else f"{job.name}: {text}"
    except MemoryError:
        return f"{job.name}: not enough memory; make the photo or its hole smaller."
    return None


def _complete(
    job: Job,
    holes: Holes,
    look: Look,
    completer: "Completer",
    notify: Callable[[str], None],
) -> None:
    photo = images.read(job.photo, job.name)
    hole = _hole(photo, job, holes, notify)
    kind = images.format_of(look.format or job.target.suffix or job.target.name)
    as_it_is = kind == photo.format and look.format is None
    if not hole.any() and as_it_is and not (look.concat or look.patch_only):
        notify(f"{job.name}: nothing is marked as missing, so it is copied unchanged.")
        write_output(job.target, job.photo.read_bytes())
        return
    for notice in photo.notices:
        notify(notice)
    result = completer.complete_photo(
        photo,
        hole,
        blend=look.blend,
        feather=look.feather,
        resize_to=look.resize_to,
        opaque=holes.from_own_alpha,
        notify=notify,
    )
    if look.concat:
        result = images.side_by_side(photo, hole, result)
    elif look.patch_only:
        result = result.layer(masks.feathered(hole, look.feather))
    notices = images.write(
        result,
        job.target,
        format=kind,
        quality=look.quality,
    )
    for notice in notices:
        notify(notice)


def _hole(photo: Photo, job: Job, holes: Holes, notify: Callable[[str], None]) -> Mask:
    """What is missing in the photo."""
    from gl_jax.inpainting.completer import fitted

    name = f"mask {job.mask}" if job.mask else job.name
    source = _mask_picture(job.mask) if job.mask else photo
    if holes.rectangles:
        hole = masks.from_rectangles(photo.size, holes.rectangles)
    elif holes.seed is not None:
        hole = masks.from_seed(photo.size, holes.seed, job.name)
    elif holes.color is not None:
        hole = masks.from_color(
            source.pixels, source.white, holes.color, holes.tolerance
        )
    elif holes.source == "alpha":
        if source.alpha is None:
            raise UsageError(
                f"{name} has no transparency, so --mask-from alpha finds nothing."
            )
        hole = masks.from_alpha(source.alpha, source.white)
    else:
        hole = masks.from_white(
            source.pixels, source.white, source.alpha, exact=source.lossless
        )
        if not hole.any() and not holes.invert:
            reason = masks.why_empty(source.pixels, source.white, source.alpha)
            notify(f"{name} has no white. {reason}")
    if source is not photo:
        hole = fitted(hole, photo, name, strict=holes.strict_size, notify=notify)
    if holes.invert:
        hole = ~hole
    return masks.dilated(hole, holes.dilate)


@functools.lru_cache(maxsize=1)
def _mask_picture(path: Path) -> Photo:
    """The picture of a mask; one mask for a whole folder is read once."""
    return images.read(path, f"mask {path}")


class _Progress(Protocol):
    def line(self, text: str) -> None: ...

    def advance(self, name: str) -> None: ...


@contextlib.contextmanager
def _progress(total: int, log: Callable[[str], None]) -> Iterator[_Progress]:
    """A bar where stderr is a terminal and there is more than one photo, else lines."""
    if total > 1 and sys.stderr.isatty():
        with _Bar(total) as bar:
            yield bar
    else:
        yield _Lines(total, log)


class _Lines:
    def __init__(self, total: int, log: Callable[[str], None]) -> None:
        self._total, self._log, self._done = total, log, 0

    def line(self, text: str) -> None:
        self._log(text)

    def advance(self, name: str) -> None:
        self._done += 1
        if self._total > 1:
            self._log(f"{self._done}/{self._total} {name}")


class _Bar:
    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("", total=total)

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def line(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)

    def advance(self, name: str) -> None:
        self._progress.update(self._task, advance=1, description=name)
