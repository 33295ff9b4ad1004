"""`gl-jax complete`: completes a photo, or every photo of a folder, into files.

A mistake in the options is refused before a model is loaded. A fault of one photo is
reported, and the other photos are completed.
"""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Bool

from gl_jax import images
from gl_jax.config import UsageError
from gl_jax.files import write_output
from gl_jax.images import Photo
from gl_jax.inpainting import inputs, masks, pairs, progress
from gl_jax.inpainting.filling import Blend, Filler
from gl_jax.inpainting.pairs import Job

if TYPE_CHECKING:
    from gl_jax.inpainting.completer import Completer

Mask = Bool[np.ndarray, "h w"]


class IncompleteError(RuntimeError):
    """Some photos could not be completed; the results of the others are written."""


@dataclass(frozen=True, kw_only=True)
class Holes:
    """The holes to complete, from exactly one source.

    The sources are `mask`, the photo's own transparency or colour, `rectangles`, and
    `seed`. Raises UsageError for none, for several, and for values out of range.
    """

    mask: Path | None = None
    """One file for all photos, or a folder with a mask for each."""
    source: Literal["white", "alpha"] = "white"
    """`alpha`: transparent = missing, in the mask, or in the photo without a mask."""
    color: str | None = None
    """Hexadecimal RGB of missing pixels, in the mask, or in the photo without a mask."""
    tolerance: int = 0
    """Largest difference from `color` in any channel, in levels of 255."""
    rectangles: tuple[str, ...] = ()
    """Missing rectangles, "x,y,width,height" in pixels."""
    seed: int | None = None
    """Seed of a random rectangle, drawn as in training."""
    invert: bool = False
    dilate: int = 0
    """Pixels by which the hole is widened."""
    strict_size: bool = False
    """Refuse a mask whose size is not the photo's, instead of resizing it."""

    def __post_init__(self) -> None:
        own = self.mask is None and (self.source == "alpha" or self.color is not None)
        sources = {
            "--mask": self.mask is not None,
            "--mask-from alpha or --mask-color": own,
            "--rect": bool(self.rectangles),
            "--random-mask": self.seed is not None,
        }
        given = [name for name, is_given in sources.items() if is_given]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} each define the hole; use one.")
        if not given:
            raise UsageError(
                "no hole is given: use --mask FILE (white = missing), or "
                "--mask-from alpha, --mask-color, --rect x,y,w,h or --random-mask SEED."
            )
        if self.source == "alpha" and self.color is not None:
            raise UsageError("--mask-from alpha and --mask-color exclude each other.")
        # Parsed here so that a wrong colour is refused once, not for every photo.
        if self.color is not None:
            masks.from_color(np.zeros((1, 1, 3)), 255.0, self.color, self.tolerance)
        for value, name in ((self.dilate, "dilate"), (self.seed or 0, "random_mask")):
            if value < 0:
                raise UsageError(f"{name} (={value}) must be at least 0.")

    @property
    def from_own_alpha(self) -> bool:
        """Returns whether the hole is the photo's own transparency."""
        return self.mask is None and self.source == "alpha"


@dataclass(frozen=True, kw_only=True)
class Look:
    """Options of completing and writing; UsageError for values out of range."""

    blend: Literal["auto", "poisson", "none"] = "auto"
    """`auto` is the method's default."""
    feather: int = 0
    """Pixels around the hole over which the completion fades into the photo."""
    resize_to: int | None = None
    """As in `Completer.complete_photo`."""
    concat: bool = False
    """Write input, hole and result side by side."""
    patch_only: bool = False
    """Write only the completed pixels, on a transparent layer."""
    format: str | None = None
    """File format, such as "png"; by default that of the result's name."""
    quality: int | None = None
    """Quality of lossy formats, 1 to 100."""

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

    def blend_after(self, default: Blend) -> Blend:
        """Returns the blending for a method with this default."""
        return default if self.blend == "auto" else self.blend

    def suffix(self, photo: Path) -> str:
        """Returns the suffix of the photo's result."""
        suffix = f".{self.format.lower().lstrip('.')}" if self.format else None
        suffix = suffix or images.output_suffix(photo)
        opaque = not images.holds_alpha(images.format_of(suffix))
        return ".png" if self.patch_only and opaque else suffix

    def require_target(self, target: Path) -> None:
        """Raises UsageError if the format of the named file cannot hold the result."""
        if self.format:
            return
        try:
            kind = images.format_of(target.suffix or target.name)
        except UsageError as error:
            raise UsageError(
                f"{error} For a folder, end the name with a slash."
            ) from error
        self._require_alpha(kind, target)

    def _require_alpha(self, kind: str, name: object) -> None:
        if self.patch_only and not images.holds_alpha(kind):
            raise UsageError(
                f"--patch-only needs transparency, which {kind} ({name}) does not have; "
                "write a .png."
            )


def run(
    image: Path,
    output: str | Path,
    holes: Holes,
    look: Look,
    *,
    model: str | None = None,
    experiment: Path | None = None,
    method: Callable[[], Filler] | None = None,
    skip_existing: bool = False,
    max_pixels: int | None = None,
    log: Callable[[str], None] = print,
) -> int:
    """Completes `image`, a file or a folder, into `output`; returns the number of results.

    Folders are read recursively and keep their sub-folders; their unreadable files are
    counted by kind, except hidden ones. An `output` that ends in a slash is a folder.
    `log` gets a line for each photo that is skipped or fails and for each notice; on a
    terminal, stderr shows a progress bar. One photo's failure does not stop the others.
    Each file is written completely or not at all. `method` loads a filler that is used
    instead of the model; it is called only if there is a photo to complete.

    Raises UsageError for wrong options, and IncompleteError at the end if photos failed.
    """
    if max_pixels is not None:
        if max_pixels < 1:
            raise UsageError(f"max_pixels (={max_pixels}) must be at least 1.")
        images.allow_pixels(max_pixels)
    into_folder = str(output).endswith(("/", os.sep))
    output = Path(output)
    jobs = pairs.find_jobs(
        image, output, holes.mask, look.suffix, log, into_folder=into_folder
    )
    for job in jobs:
        look.require_target(job.target)
    pairs.refuse_overwriting(jobs)
    remaining = []
    for job in jobs:
        if skip_existing and job.target.exists():
            log(f"{job.name}: skipped, {job.target} exists.")
        else:
            remaining.append(job)
    pairs.require_writable(remaining)
    failed: list[str] = []
    if remaining:
        completer = method() if method else _completer(model, experiment)
        with progress.shown(len(remaining), log) as display:
            notify = _once(display.line)
            for job in remaining:
                alone = len(jobs) == 1
                reason = _attempt(job, holes, look, completer, notify, alone=alone)
                if reason is not None:
                    failed.append(reason)
                    notify(f"failed: {reason}")
                display.advance(job.name)
    count, skipped = len(remaining) - len(failed), len(jobs) - len(remaining)
    parts = [f"{count} completed"]
    parts += [f"{skipped} skipped"] if skipped else []
    if failed:
        reason = failed[0] if len(jobs) == 1 else f"{len(failed)} failed"
        raise IncompleteError(f"{', '.join(parts)}; {reason}")
    log(f"{', '.join(parts)}: {output}")
    return count


def _once(line: Callable[[str], None]) -> Callable[[str], None]:
    """Returns a logger that writes a text on one line, and a repeated text only once."""
    logged = set[str]()

    def notify(text: str) -> None:
        if text not in logged:
            logged.add(text)
            line(text.replace("\n", "\\n"))

    return notify


def _completer(model: str | None, experiment: Path | None) -> "Completer":
    # Loads JAX; mistakes in the options have been refused by now.
    from gl_jax import compilation
    from gl_jax.inpainting import completer

    compilation.use_compilation_cache()
    return completer.load(model, experiment=experiment)


def _attempt(
    job: Job,
    holes: Holes,
    look: Look,
    completer: "Completer | Filler",
    notify: Callable[[str], None],
    *,
    alone: bool,
) -> str | None:
    """Completes one photo; returns a one-line reason if that fails, else None.

    An unexpected exception becomes a reason, too; with `alone` it is raised.
    """
    try:
        if job.fault is not None:
            raise UsageError(job.fault)
        _complete(job, holes, look, completer, notify)
    except UsageError as error:
        text = str(error)
        return text if job.name in text else f"{job.name}: {text}"
    except MemoryError:
        return f"{job.name}: not enough memory; make the photo or its hole smaller."
    except Exception as error:
        if alone:
            raise
        text = " ".join(str(error).split())[:200]
        return (
            f"{job.name}: {type(error).__name__}: {text} (for the traceback, complete "
            "this photo alone)"
        )
    return None


def _complete(
    job: Job,
    holes: Holes,
    look: Look,
    completer: "Completer | Filler",
    notify: Callable[[str], None],
) -> None:
    data = images.read_bytes(job.photo, job.name)
    photo = images.decode(data, job.name, job.photo.suffix)
    kind = images.format_of(look.format or job.target.suffix or job.target.name)
    height, width = photo.size
    images.require_size(kind, height, 3 * width if look.concat else width)
    hole = _hole(photo, job, holes, notify)
    same_format = kind == photo.format and look.format is None
    if not hole.any() and same_format and not (look.concat or look.patch_only):
        notify(f"{job.name}: nothing is marked as missing, so it is copied unchanged.")
        write_output(job.target, data)
        return
    for notice in photo.notices:
        notify(notice)
    result = completer.complete_photo(
        photo,
        hole,
        blend=look.blend_after(completer.default_blend),
        feather=look.feather,
        resize_to=look.resize_to,
        opaque=holes.from_own_alpha,
        notify=notify,
        progress=_windows(job.name, notify),
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


def _windows(name: str, notify: Callable[[str], None]) -> Callable[[int, int], None]:
    """Returns a callback that logs the finished windows of one photo now and then."""
    log = progress.Occasionally(notify)
    return lambda done, count: log(f"{name}: {done} of {count} windows")


def _hole(photo: Photo, job: Job, holes: Holes, notify: Callable[[str], None]) -> Mask:
    """Returns the photo's hole, True = missing."""
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
                f"{name} has no transparency, so --mask-from alpha marks nothing."
            )
        hole = masks.from_alpha(source.alpha, source.white)
    else:
        hole, notices = masks.from_picture(source, name)
        for notice in notices:
            notify(notice)
    if source is not photo:
        hole = inputs.fitted(hole, photo, name, strict=holes.strict_size, notify=notify)
    if holes.invert:
        hole = ~hole
    if job.mask and (doubt := masks.doubt(hole, name, inverted=holes.invert)):
        notify(doubt)
    return masks.dilated(hole, holes.dilate)


@functools.lru_cache(maxsize=1)
def _mask_picture(path: Path) -> Photo:
    """Reads a mask's picture; cached, so that one mask for a folder is read once."""
    return images.read(path, f"mask {path}")
