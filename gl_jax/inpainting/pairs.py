"""Finds the photos of a call, the mask of each by its name, and the path of each result."""

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
    """A photo to complete, or the reason why it cannot be (`fault`)."""

    photo: Path
    name: str
    target: Path
    mask: Path | None = None
    fault: str | None = None


class MasksByName:
    """The masks of a folder, found by the names of their photos.

    A mask has its photo's name with any suffix, or is called NAME_mask*. Different Unicode
    forms of an accent are the same name.
    """

    def __init__(self, paths: Iterable[Path], *, only_marked: bool = False) -> None:
        """Takes paths relative to the folder; `only_marked` uses only NAME_mask*."""
        self._named: dict[tuple[str, str], list[Path]] = defaultdict(list)
        self._marked: dict[tuple[str, str], list[Path]] = defaultdict(list)
        for path in paths:
            if not only_marked:
                self._named[_key(path, path.stem)].append(path)
            if (stem := marked_stem(path)) is not None:
                self._marked[_key(path, stem)].append(path)

    def of(self, photo: Path) -> list[Path]:
        """Returns the masks of a photo, whose path is relative to the photos' folder.

        A mask with the photo's full name has precedence over others with its stem, and
        these over NAME_mask*.
        """
        key = _key(photo, photo.stem)
        named = self._named.get(key, [])
        exact = [mask for mask in named if composed(mask.name) == composed(photo.name)]
        return exact or named or self._marked.get(key, [])


def composed(text: str) -> str:
    """Returns the text in Unicode's form NFC."""
    return unicodedata.normalize("NFC", text)


def marked_stem(mask: Path) -> str | None:
    """Returns NAME of a mask called NAME_mask*; None for other names."""
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
    """Returns the photos at `image` with their masks and the paths of their results.

    `suffix` returns the suffix of a photo's result. For a single photo, `output` is a
    file if it has a suffix and is not a folder, unless `into_folder`. A photo without a
    mask in a folder of masks becomes a job with a fault. A photo with several masks
    NAME_mask*.png has a result for each, named after the mask.

    Raises UsageError if a path does not exist or `output` cannot be written to.
    """
    for path, role in ((image, "image"), (mask, "mask")):
        if path is not None and not path.exists():
            raise UsageError(f"{role} {path} does not exist.")
    if str(output) == "-":
        raise UsageError("output - is not a file: results are not written to stdout.")
    if output.exists() and not output.is_dir():
        if image.is_dir() or into_folder:
            raise UsageError(
                f"output {output} is a file; for {image} it must be a folder."
            )
        if not output.is_file() or not output.suffix:
            raise UsageError(
                f"output {output} exists, but is neither a folder nor a file with the "
                "suffix of a format; choose another one."
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
            f"folder {image} has no photographs: no .png, .jpg, .webp, .tif or other "
            f"readable files{f'; {left_out}' if left_out else '.'}"
        )
    if left_out is not None:
        log(left_out)
    matches: list[tuple[Path, Path | None, str | None]] = []
    for photo in photos:
        if mask is None or masks is None:
            matches.append((photo, mask, None))
            continue
        own = masks.of(photo)
        if len({composed(one.stem) for one in own}) != len(own) or not own:
            matches.append((photo, None, _unclear(photo, mask, own)))
            continue
        several = len(own) > 1
        matches += [(photo, mask / one, one.stem if several else None) for one in own]
    return _jobs(matches, image, output, suffix)


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
    matches: Sequence[tuple[Path, Path | None, str | None]],
    image: Path,
    output: Path,
    suffix: Callable[[Path], str],
) -> list[Job]:
    """Returns jobs with distinct targets, even for photos that differ only in suffix."""
    stems = [
        photo.stem if mask is None or name is None else name
        for photo, mask, name in matches
    ]
    targets = [
        photo.with_name(f"{stem}{suffix(photo)}")
        for (photo, *_), stem in zip(matches, stems, strict=True)
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
        for (photo, mask, name), target, stem in zip(
            matches, targets, stems, strict=True
        )
    ]


def pictures(
    folder: Path, without: Iterable[Path] = (), log: Callable[[str], None] = print
) -> tuple[list[Path], str | None]:
    """Returns the sorted image files of a folder, and a line on the other files.

    Paths are relative to the folder; images are recognised by their suffix. The line
    counts other files and folders that are not entered; it is None without any. Hidden
    files and the folders `without` are skipped. `log` gets a progress line now and then.
    """
    known = images.readable_suffixes()
    excluded = {_identity(path) for path in without} - {None}
    matches: list[Path] = []
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
                # Reading a pipe may never end.
                others["pipe or device"] += 1
            else:
                matches.append(path)
                say(f"looking through {folder}: {len(matches):,} pictures so far.")
    matches.sort(key=lambda path: path.parts)  # faster than comparing paths
    return matches, images.left_out(+others + images.counted(unread), folder)


def _entries(
    folder: Path, inside: str, others: Counter[str]
) -> list["os.DirEntry[str]"]:
    """Returns the entries of a subfolder; counts it in `others` if it is unreadable."""
    path = folder / inside
    if inside and not os.access(path, os.R_OK | os.X_OK):
        others["folder without permission"] += not path.name.startswith(".")
        return []
    with reading(path), os.scandir(path) as entries:
        return list(entries)


def _identity(path: Path) -> tuple[int, int] | None:
    """Returns the device and inode of a file or folder; None if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def refuse_overwriting(jobs: Sequence[Job]) -> None:
    """Raises UsageError if a result would overwrite an input."""
    paths = {path for job in jobs for path in (job.photo, job.mask) if path}
    inputs = {_identity(path) for path in paths} - {None}
    for job in jobs:
        if job.target in paths or _identity(job.target) in inputs:
            raise UsageError(
                f"{job.target} is one of the inputs, which are never overwritten; give "
                "another --output."
            )


def require_writable(jobs: Sequence[Job]) -> None:
    """Raises UsageError if the folder of a result cannot be created or written to."""
    for folder in {job.target.parent for job in jobs}:
        nearest = next(p for p in (folder, *folder.parents) if os.path.lexists(p))
        if not nearest.is_dir():
            reason = f"{nearest} is not a folder"
        elif not os.access(nearest, os.W_OK | os.X_OK):
            reason = f"folder {nearest} is read-only, or not yours"
        else:
            continue
        raise UsageError(f"output {folder} cannot be written: {reason}.")
