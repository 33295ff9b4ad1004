"""Mask lists: files of an evaluation's photographs and holes, to repeat it.

One JSON object per line, one line per photograph and seed:
  {"photograph": "kodim01.png", "position": 0, "seed": 0, "index": 0,
   "height": 256, "width": 256, "box": [70, 41, 128, 98], "sha256": "..."}
`position` is the photograph's index in the source, `index` that in the seed's list.
`box` is [top, left, height, width]. A hole of another shape has `runs` instead: the lengths
of alternating runs of known and missing pixels, row by row, known first (perhaps 0).
`place` is the position of mmediting's crop. `sha256` is of the mask, a byte 0 or 1 a pixel.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gl_jax import images
from gl_jax.config import UsageError, did_you_mean
from gl_jax.evaluation import protocol
from gl_jax.evaluation.masks import KINDS, kind
from gl_jax.evaluation.protocol import Box, Place
from gl_jax.files import reason, write_output
from gl_jax.inpainting import masks, pairs
from gl_jax.inpainting.masks import Mask
from gl_jax.inpainting.pairs import MasksByName


@dataclass(frozen=True)
class Entry:
    """A photograph of the evaluation and its hole."""

    photograph: str
    """The file's name without its folder."""
    position: int
    seed: int
    index: int
    height: int
    width: int
    sha256: str
    box: Box | None = None
    runs: tuple[int, ...] = ()
    place: Place | None = None

    def mask(self) -> Mask:
        """Returns the mask, bool [height, width], true for missing pixels."""
        if self.box is not None:
            return _rectangle((self.height, self.width), self.box)
        flags = np.arange(len(self.runs)) % 2 == 1
        return np.repeat(flags, self.runs).reshape(self.height, self.width)

    def to_json(self) -> str:
        """Returns the entry as a line of the file, without the line break."""
        record: dict[str, Any] = {
            "photograph": self.photograph, "position": self.position,
            "seed": self.seed, "index": self.index,
            "height": self.height, "width": self.width,
        }  # fmt: skip
        if self.place is not None:
            record["place"] = self.place
        shape = {"runs": self.runs} if self.box is None else {"box": self.box}
        return json.dumps(record | shape | {"sha256": self.sha256})


def make_entries(
    masks: str,
    names: Sequence[str],
    positions: Sequence[int],
    seeds: Iterable[int],
    side: int,
) -> list[Entry]:
    """Returns an entry for each seed and photograph, with its mask.

    `masks` is a kind (`masks.kind`) or a folder (`from_folder`), which has seed 0 alone.
    Raises UsageError if it is neither, or a kind without masks of this size.
    """
    draw = kind(masks)
    if draw is not None:
        try:
            drawn = {seed: draw(len(names), side, side, seed) for seed in seeds}
        except ValueError as error:
            raise UsageError(f"masks {masks}: {error}") from error
        return [
            _entry(names[i], positions[i], seed, i, hole)
            for seed, holes in drawn.items()
            for i, hole in enumerate(holes)
        ]
    folder = Path(masks).expanduser()
    if folder.is_dir():
        return from_folder(folder, names, positions, side)
    raise UsageError(
        f"masks {masks!r} are unknown.{did_you_mean(masks, KINDS)} Known: "
        f"{', '.join(KINDS)}, random:SHARE, and a folder of masks."
    )


def mmediting(
    names: Sequence[str], positions: Sequence[int], seeds: Iterable[int]
) -> list[Entry]:
    """Returns an entry for each seed and photograph, with mmediting's crop and box."""
    entries = []
    for seed in seeds:
        for index, (name, position) in enumerate(zip(names, positions, strict=True)):
            place, box = protocol.mmediting_hole(seed, index)
            mask = _rectangle((protocol.IMAGE_SIZE, protocol.IMAGE_SIZE), box)
            entries.append(_entry(name, position, seed, index, mask, place))
    return entries


def from_folder(
    folder: Path, names: Sequence[str], positions: Sequence[int], side: int
) -> list[Entry]:
    """Returns an entry of seed 0 for each photograph, with its mask from a folder.

    White marks missing pixels. A mask is named like its photograph, STEM.* or STEM_mask*,
    and lies in the folder or in subfolders named like the photograph's (`MasksByName`).
    Its middle square is resized to `side`, like the photograph's. Raises
    UsageError unless each photograph has exactly one mask and each mask one photograph,
    and for a mask that is unreadable, empty or full.
    """
    paths, left_out = pairs.pictures(folder, log=lambda text: None)
    by_name = MasksByName(paths)
    photographs: dict[Path, str] = {}
    without = []
    for name in names:
        matching = _masks_of(Path(name), by_name)
        if not matching:
            without.append(name)
            continue
        listed = ", ".join(map(str, matching))
        if len(matching) > 1:
            raise UsageError(
                f"photograph {name} has {len(matching)} masks in {folder}: {listed}; "
                "keep one."
            )
        mask = matching[0]
        if mask in photographs:
            raise UsageError(
                f"mask {folder / mask} fits {photographs[mask]} and {name}; put the masks "
                "into folders named like those of the photographs."
            )
        photographs[mask] = name
    if without:
        first = Path(without[0])
        raise UsageError(
            f"{len(without)} of {len(names)} photographs have no mask of their name among "
            f"the {len(paths)} in {folder}, the first {first.name} (looked for "
            f"{first.stem}.* and {first.stem}_mask*); name each mask after its photograph."
            f"{f' ({left_out})' if left_out else ''}"
        )
    return [
        _entry(name, position, 0, index, _read_mask(folder / path, side))
        for index, (name, position, path) in enumerate(
            zip(names, positions, photographs, strict=True)
        )
    ]


def _masks_of(photograph: Path, by_name: MasksByName) -> list[Path]:
    """Returns the masks whose folders have most in common with the photograph's."""
    parts = photograph.parts
    tails = (Path(*parts[start:]) for start in range(len(parts)))
    return next((masks for tail in tails if (masks := by_name.of(tail))), [])


def write(entries: Iterable[Entry], path: Path) -> str:
    """Writes the file, completely or not at all; returns its SHA-256."""
    text = _text(entries)
    write_output(path, text)
    return hashlib.sha256(text).hexdigest()


def digest(entries: Iterable[Entry]) -> str:
    """Returns the SHA-256 that `write` returns for these entries."""
    return hashlib.sha256(_text(entries)).hexdigest()


def read(path: Path) -> list[Entry]:
    """Returns the entries of a file that `write` wrote.

    Raises UsageError if the file cannot be read, or the entries do not fit together, and
    with its number for a line that is no entry or whose mask has another SHA-256.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UsageError(
            f"mask list {path} cannot be read: {reason(error)}."
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is no mask list, which is text (masks.jsonl); to give pictures of "
            "masks, name a folder with one for each photograph."
        ) from error
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            entry = _parsed(json.loads(line))
            intact = entry.sha256 == _digest(entry.mask())
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise UsageError(
                f"line {number} of mask list {path} is no entry "
                f"({type(error).__name__}: {' '.join(str(error).split())[:100]})."
            ) from error
        if not intact:
            raise UsageError(
                f"line {number} of mask list {path} does not fit its sha256: it was "
                "damaged or edited."
            )
        entries.append(entry)
    if not entries:
        raise UsageError(f"mask list {path} is empty.")
    if len({(e.height, e.width, e.place is None) for e in entries}) > 1:
        raise UsageError(f"mask list {path} mixes sizes or protocols.")
    if len({(e.seed, e.index) for e in entries}) < len(entries):
        raise UsageError(f"mask list {path} has the same seed and index twice.")
    return entries


def _text(entries: Iterable[Entry]) -> bytes:
    return "".join(entry.to_json() + "\n" for entry in entries).encode()


def _parsed(record: dict[str, Any]) -> Entry:
    integers = ("position", "seed", "index", "height", "width")
    numbers = {key: record[key] for key in integers}
    sides = (numbers["height"], numbers["width"])
    if not all(type(value) is int and value >= 0 for value in numbers.values()):
        raise ValueError(f"{', '.join(integers)} must be whole numbers")
    if not all(1 <= side <= 2**14 for side in sides):
        raise ValueError("height and width must be in [1, 16384]")
    box = Box(*record["box"]) if "box" in record else None
    runs = tuple(record["runs"]) if box is None else ()
    if not all(type(value) is int and value >= 0 for value in (*runs, *(box or ()))):
        raise ValueError("box and runs must be whole numbers")
    place = Place(*map(float, record["place"])) if "place" in record else None
    if place is not None and not all(0 <= share < 1 for share in place):
        raise ValueError("place must be in [0, 1)")
    return Entry(
        str(record["photograph"]), **numbers, sha256=str(record["sha256"]),
        box=box, runs=runs, place=place,
    )  # fmt: skip


def _entry(
    name: str, position: int, seed: int, index: int, mask: Mask,
    place: Place | None = None,
) -> Entry:  # fmt: skip
    box = _box(mask)
    runs = () if box is not None else _runs(mask)
    return Entry(
        Path(name).name, position, seed, index, mask.shape[0], mask.shape[1],
        sha256=_digest(mask), box=box, runs=runs, place=place,
    )  # fmt: skip


def _rectangle(size: tuple[int, int], box: Box) -> Mask:
    mask = np.zeros(size, bool)
    mask[box.top : box.top + box.height, box.left : box.left + box.width] = True
    return mask


def _box(mask: Mask) -> Box | None:
    """Returns the mask's rectangle, or None if it has another shape."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    top, left = int(rows[0]), int(columns[0])
    height, width = int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left
    filled = bool(mask[top : top + height, left : left + width].all())
    return Box(top, left, height, width) if filled else None


def _runs(mask: Mask) -> tuple[int, ...]:
    flags = np.concatenate([[False], mask.reshape(-1)])
    changes = np.flatnonzero(flags[1:] != flags[:-1])
    return tuple(int(n) for n in np.diff([0, *changes, mask.size]))


def _digest(mask: Mask) -> str:
    return hashlib.sha256(mask.astype(np.uint8).tobytes()).hexdigest()


def _read_mask(path: Path, side: int) -> Mask:
    photo = images.read(path)
    mask, _ = masks.from_picture(photo, f"mask {path}")
    shortest = min(mask.shape)
    top, left = ((length - shortest) // 2 for length in mask.shape)
    square = mask[top : top + shortest, left : left + shortest]
    mask = masks.resized(square, (side, side))
    if not mask.any() or mask.all():
        extent = "everything" if mask.all() else "nothing"
        raise UsageError(
            f"mask {path} marks {extent} as missing in its middle square; it needs white "
            "for missing and black for known pixels there."
        )
    return mask
