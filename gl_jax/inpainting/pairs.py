"""Finds the photos of a call, the mask of each by its name, and a place for each result."""

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gl_jax import images
from gl_jax.config import UsageError
from gl_jax.files import reading
from gl_jax.inpainting.progress import Occasionally


@dataclass(frozen=True)
class Job:
    """One photo to complete, or the reason why not."""

    photo: Path
    name: str
    target: Path
    mask: Path | None = None
    fault: str | None = None


class MasksByName:
    """The masks of a folder, found by the names of their photos.

    A mask is named as its photo, with any suffix, or NAME_mask*. Names that look the same
    are the same, however their accents are stored.
    """

    def __init__(self, paths: Iterable[Path], *, only_marked: bool = False) -> None:
        """Takes paths relative to the folder; `only_marked` are the NAME_mask* alone."""
        self._named: dict[tuple[str, str], list[Path]] = defaultdict(list)
        self._marked: dict[tuple[str, str], list[Path]] = defaultdict(list)
        for path in paths:
            if not only_marked:
                self._named[_key(path, path.stem)].append(path)
            if (stem := marked_stem(path)) is not None:
                self._marked[_key(path, stem)].append(path)

    def of(self, photo: Path) -> list[Path]:
        """Returns the masks of a photo, a path relative to the folder of its like.

        A mask of the photo's full name goes before others of its stem, and these before
        NAME_mask*.
        """
        key = _key(photo, photo.stem)
        named = self._named.get(key, [])
        exact = [mask for mask in named if composed(mask.name) == composed(photo.name)]
        return exact or named or self._marked.get(key, [])


def composed(text: str) -> str:
    """The text with its accents in one form (Unicode's NFC)."""
    return unicodedata.normalize("NFC", text)


def marked_stem(mask: Path) -> str | None:
    """The stem of the photo that NAME_mask* belongs to; None for other names."""
    stem, separator, _ = mask.stem.rpartition("_mask")
    return stem if separator else None


def _key(path: Path, stem: str) -> tuple[str, str]:
    return composed(str(path.parent)), composed(stem)


def find_jobs(
    image: Path,
    output: Path,
    mask: Path | None,
    suffix: Callable[[Path], str],
    log: Callable[[str], None] = print,
    *,
    into_folder: bool = False,
) -> list[Job]:
    """The photos at `image` with their masks, and where each result goes.

    `suffix` is that of a photo's result. A single photo's `output` names the file if it
    has a suffix and no folder is there, but not with `into_folder`. A photo without a
    mask of its own in a folder of masks is a job with a fault. Of several masks
    NAME_mask*.png each makes a result of its own, named after the mask.

    Raises UsageError for what is not there or cannot be a result's place.
    """
    for path, what in ((image, "image"), (mask, "mask")):
        if path is not None and not path.exists():
            raise UsageError(f"{what} {path} does not exist.")
    if str(output) == "-":
        raise UsageError("output - is no file: results are not written to stdout.")
    if output.exists() and not output.is_dir():
        if image.is_dir() or into_folder:
            raise UsageError(
                f"output {output} is a file; for {image} it must be a folder."
            )
        if not output.is_file() or not output.suffix:
            raise UsageError(
                f"output {output} is there and no folder, nor a file with the suffix of "
                "a format; name another one."
            )
    if image.is_dir():
        return _of_folder(image, output, mask, suffix, log)
    return [_of_file(image, output, mask, suffix, log, into_folder)]


def _of_folder(
    image: Path,
    output: Path,
    mask: Path | None,
    suffix: Callable[[Path], str],
    log: Callable[[str], None],
) -> list[Job]:
    in_folder = mask is not None and mask.is_dir()
    same = mask is not None and _identity(mask) == _identity(image)
    without = [output] if mask is None or same else [output, mask]
    photos, left_out = pictures(image, without, log)
    masks: MasksByName | None = None
    if mask and in_folder:
        candidates, others = (photos, None) if same else pictures(mask, [output], log)
        masks = MasksByName(candidates, only_marked=same)
        if others is not None:
            log(others)
        if same:
            known = {_key(photo, photo.stem) for photo in photos}
            photos = [photo for photo in photos if not _is_mask_of(photo, known)]
    if not photos:
        raise UsageError(
            f"folder {image} has no photographs: no files .png, .jpg, .webp, .tif, or of "
            f"another kind that is read{f'; {left_out}' if left_out else '.'}"
        )
    if left_out is not None:
        log(left_out)
    found: list[tuple[Path, Path | None, str | None]] = []
    for photo in photos:
        if mask is None or masks is None:
            found.append((photo, mask, None))
            continue
        own = masks.of(photo)
        if len({composed(one.stem) for one in own}) != len(own) or not own:
            found.append((photo, None, _unclear(photo, mask, own)))
            continue
        several = len(own) > 1
        found += [(photo, mask / one, one.stem if several else None) for one in own]
    return _jobs(found, image, output, suffix)


def _is_mask_of(path: Path, known: set[tuple[str, str]]) -> bool:
    stem = marked_stem(path)
    return stem is not None and _key(path, stem) in known


def _unclear(photo: Path, folder: Path, own: Sequence[Path]) -> str:
    if own:
        names = ", ".join(mask.name for mask in own)
        return f"{len(own)} masks for it in {folder / photo.parent}: {names}; keep one."
    looked = f"{photo.stem}.* and {photo.stem}_mask*"
    return f"no mask for it in {folder / photo.parent} (looked for {looked})."


def _of_file(
    image: Path,
    output: Path,
    mask: Path | None,
    suffix: Callable[[Path], str],
    log: Callable[[str], None],
    into_folder: bool,
) -> Job:
    if mask is not None and mask.is_dir():
        candidates, left_out = pictures(mask, [], log)
        own = MasksByName(candidates).of(Path(image.name))
        if len(own) != 1:
            if left_out is not None:
                log(left_out)
            raise UsageError(
                f"mask {mask} is a folder with {len(own)} masks for {image.name}; name "
                "the file."
            )
        mask = mask / own[0]
    if output.is_dir() or into_folder or not output.suffix:
        output = output / f"{image.stem}{suffix(image)}"
    return Job(image, str(image), output, mask)


def _jobs(
    found: Sequence[tuple[Path, Path | None, str | None]],
    image: Path,
    output: Path,
    suffix: Callable[[Path], str],
) -> list[Job]:
    """Jobs with targets of their own, also where only the suffix told photos apart."""
    stems = [
        photo.stem if mask is None or name is None else name
        for photo, mask, name in found
    ]
    targets = [
        photo.with_name(f"{stem}{suffix(photo)}")
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


def pictures(
    folder: Path, without: Iterable[Path] = (), log: Callable[[str], None] = print
) -> tuple[list[Path], str | None]:
    """Files with the suffix of an image, relative to the folder, in order.

    And a line on what is left out: other files, and folders that are not entered. Hidden
    ones are not counted, nor what is in the folders `without`. A large folder gives a
    sign of life to `log`.
    """
    known = images.readable_suffixes()
    excluded = {_identity(path) for path in without} - {None}
    found: list[Path] = []
    unread: list[Path] = []
    others = Counter[str]()
    say, waiting = Occasionally(log), [""]
    while waiting:
        inside = waiting.pop()
        for entry in _entries(folder, inside, others):
            path = Path(inside, entry.name)
            hidden, linked = entry.name.startswith("."), entry.is_symlink()
            if os.path.isdir(entry.path) if linked else entry.is_dir():
                if excluded and _identity(Path(entry.path)) in excluded:
                    continue
                if not linked:
                    waiting.append(str(path))
                elif not hidden:
                    others["link to a folder"] += 1
            elif hidden:
                continue
            elif path.suffix.lower() not in known:
                unread.append(path)
            elif not linked and not entry.is_file():
                # Reading a pipe would wait for ever.
                others["pipe or device"] += 1
            else:
                found.append(path)
                say(f"looking through {folder}: {len(found):,} pictures so far.")
    found.sort(key=lambda path: path.parts)  # faster than the paths' own order
    return found, images.left_out(+others + images.counted(unread), folder)


def _entries(
    folder: Path, inside: str, others: Counter[str]
) -> list["os.DirEntry[str]"]:
    """The entries of a folder in the folder; one that cannot be read is counted."""
    path = folder / inside
    if inside and not os.access(path, os.R_OK | os.X_OK):
        others["folder without permission"] += not path.name.startswith(".")
        return []
    with reading(path), os.scandir(path) as entries:
        return list(entries)


def _identity(path: Path) -> tuple[int, int] | None:
    """The same for all names of a file or folder; None if nothing is there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def refuse_overwriting(jobs: Sequence[Job]) -> None:
    """Raises UsageError if a result would go where an input is."""
    paths = {path for job in jobs for path in (job.photo, job.mask) if path}
    inputs = {_identity(path) for path in paths} - {None}
    for job in jobs:
        if job.target in paths or _identity(job.target) in inputs:
            raise UsageError(
                f"{job.target} is one of the inputs, which are never overwritten; give "
                "another --output."
            )


def require_writable(jobs: Sequence[Job]) -> None:
    """Raises UsageError if the folder of a result can be neither made nor written to."""
    for folder in {job.target.parent for job in jobs}:
        there = next(p for p in (folder, *folder.parents) if os.path.lexists(p))
        if not there.is_dir():
            why = f"{there} is no folder"
        elif not os.access(there, os.W_OK | os.X_OK):
            why = f"folder {there} is read-only, or not yours"
        else:
            continue
        raise UsageError(f"output {folder} cannot be written: {why}.")
