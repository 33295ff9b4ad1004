"""The photographs and holes of an evaluation, and the reading of their squares."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gl_jax.config import DataConfig, UsageError, did_you_mean
from gl_jax.data.records import Source, evenly_spaced
from gl_jax.data.sources import open_source
from gl_jax.evaluation import Protocol, mask_list
from gl_jax.evaluation.mask_list import Entry
from gl_jax.evaluation.masks import kind
from gl_jax.evaluation.protocol import RULES, Rules, TooSmall, photograph
from gl_jax.figures.sheets import Tile
from gl_jax.images import RgbImage
from gl_jax.inpainting.pairs import composed

SEEDS = (0, 1, 2)
"""Default seeds of random holes."""
SMALLEST = 16
"""Smallest side of a square, in pixels."""
READERS = 8
"""Threads that read and decode photographs."""
AHEAD = 2
"""Batches decoded ahead of the one that is completed."""


@dataclass(frozen=True)
class Selection:
    """The photographs and holes to measure, by the names of the options."""

    data: str
    """`bundled`, a folder or `tfds:NAME`; of a folder without validation photographs
    all are used."""
    masks: str
    """A kind of `masks.kind`, a folder of masks (`mask_list.from_folder`), or the mask
    list of another evaluation, which repeats its photographs and holes."""
    protocol: Protocol
    seeds: tuple[int, ...] | None
    """Seeds of the random holes; by default SEEDS."""
    count: int | None
    """Number of photographs, spread evenly over the source; by default all."""
    image_size: int | None
    """Side of the squares in pixels; by default that of the model's training."""
    split: str
    data_dir: str | None

    def check(self) -> None:
        """Raises UsageError for a value that is impossible by itself."""
        if self.protocol not in RULES:
            raise UsageError(
                f"protocol {self.protocol!r} is unknown."
                f"{did_you_mean(self.protocol, RULES)} "
                f"Known: {', '.join(RULES)}."
            )
        require_at_least("count", self.count, 1)
        require_at_least("image_size", self.image_size, SMALLEST)
        seeds = self.seeds
        if seeds is not None and (
            not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds)
        ):
            raise UsageError(
                f"seeds (={_commas(seeds)}) must be different whole numbers from 0, "
                "like 0,1,2."
            )
        sizes = self.rules.sizes
        if sizes and self.image_size not in (None, *sizes):
            raise UsageError(
                f"image_size (={self.image_size}) must be "
                f"{' or '.join(map(str, sizes))} with --protocol {self.protocol}; leave it "
                f"out for {sizes[0]}."
            )

    @property
    def rules(self) -> Rules:
        """Returns the choices that the protocol fixes."""
        return RULES[self.protocol]

    def side(self, otherwise: int) -> int:
        """Returns the side of the squares: the user's, the protocol's, or `otherwise`."""
        return self.image_size or (*self.rules.sizes, otherwise)[0]

    def open(self) -> Source:
        """Returns the source of the photographs; raises UsageError if there are none."""
        config = DataConfig(
            source=self.data, validation_source=self.data,
            validation_split=self.split, data_dir=self.data_dir,
        )  # fmt: skip
        return open_source(config, validation=True)

    def left_out(self, source: Source) -> list[str]:
        """Returns a note on the files of a folder that are left out, if any."""
        line = getattr(source, "left_out", None)
        return [] if line is None else [line]

    def entries(self, source: Source, side: int) -> list[Entry]:
        """Returns each photograph with its hole; raises UsageError if they do not fit."""
        path = Path(self.masks).expanduser()
        if kind(self.masks) is None and path.is_file():
            return self._listed(mask_list.read(path), source)
        return self.drawn(source, side)

    def drawn(self, source: Source, side: int) -> list[Entry]:
        """Returns entries with random holes or masks from a folder."""
        positions = evenly_spaced(len(source), self.count or len(source))
        if self.count is not None and len(positions) < self.count:
            raise UsageError(
                f"count (={self.count}) is more than the {len(source)} photographs of "
                f"{self.data}."
            )
        names = [source.name(position) for position in positions]
        self._require_masks_of_protocol()
        if self.protocol == "mmediting":
            return mask_list.mmediting(names, positions, self.seeds or SEEDS)
        fixed = kind(self.masks) is None or self.masks == "center"
        if fixed and self.seeds is not None and len(self.seeds) > 1:
            raise UsageError(
                f"seeds (={_commas(self.seeds)}) make no difference to masks "
                f"{self.masks}; leave them out."
            )
        seeds = self.seeds or (SEEDS[:1] if fixed else SEEDS)
        return mask_list.make_entries(self.masks, names, positions, seeds, side)

    def _require_masks_of_protocol(self) -> None:
        rules = self.rules
        in_folder = rules.takes_folder and Path(self.masks).expanduser().is_dir()
        if not rules.masks or self.masks in rules.masks or in_folder:
            return
        others = "a folder of masks, " if rules.takes_folder else ""
        raise UsageError(
            f"masks (={self.masks!r}) must be {', '.join(rules.masks)}, {others}or the "
            f"mask list of such an evaluation with --protocol {self.protocol}."
        )

    def _listed(self, entries: list[Entry], source: Source) -> list[Entry]:
        """Returns the entries of a mask list if photographs and options fit them."""
        for name in ("seeds", "count"):
            if getattr(self, name) is not None:
                raise UsageError(
                    f"mask list {self.masks} has its own {name}; leave out --{name}."
                )
        first = entries[0]
        placed = first.place is not None
        if placed != (self.protocol == "mmediting"):
            raise UsageError(
                f"mask list {self.masks} is of --protocol "
                f"{'mmediting' if placed else 'own'}, not {self.protocol}."
            )
        if self.rules.sizes and first.height not in self.rules.sizes:
            raise UsageError(
                f"mask list {self.masks} is for {first.width}x{first.height} pixels; "
                f"--protocol {self.protocol} measures at "
                f"{' or '.join(map(str, self.rules.sizes))}."
            )
        if first.height != first.width or self.image_size not in (None, first.height):
            raise UsageError(
                f"mask list {self.masks} is for {first.width}x{first.height} pixels, which "
                f"must be square and image_size (={self.image_size}), if that is given."
            )
        last = max(entry.position for entry in entries)
        if last >= len(source):
            raise UsageError(
                f"mask list {self.masks} has masks for at least {last + 1} "
                f"photographs, {self.data} has {len(source)}."
            )
        for entry in entries:
            name = Path(source.name(entry.position)).name
            if composed(name) != composed(entry.photograph):
                raise UsageError(
                    f"mask list {self.masks} says that photograph {entry.position} is "
                    f"{entry.photograph}; in {self.data} it is {name}. Give the "
                    "photographs that it was made for."
                )
        return entries


class Photograph(NamedTuple):
    """The square of a photograph and its entry."""

    entry: Entry
    image: RgbImage

    def row(self, completed: Sequence[Tile]) -> list[Tile]:
        """Returns a row of a sheet: input with a white hole, completions, photograph."""
        hole = np.where(self.entry.mask()[..., None], np.uint8(255), self.image)
        return [Tile(hole, self.entry.photograph), *completed, Tile(self.image)]


class Reader:
    """Reads the squares of photographs, and keeps the reasons for failures."""

    def __init__(self, source: Source, side: int) -> None:
        self._source = source
        self._side = side
        self.unreadable: dict[str, str] = {}
        """Reasons, one line each, by the photographs' names in their source."""

    def name(self, entry: Entry) -> str:
        """Returns the photograph's name in its source, which may contain folders."""
        return self._source.name(entry.position)

    def _read(self, entry: Entry) -> Photograph | None:
        name = self.name(entry)
        try:
            data = self._source.read(entry.position)
            image = photograph(data, name, self._side, entry.place)
        except TooSmall:
            raise
        except (OSError, ValueError) as error:
            self.unreadable[name] = one_line(error)
            return None
        return Photograph(entry, image)

    def batches(
        self, entries: Sequence[Entry], size: int
    ) -> Iterator[tuple[Sequence[Entry], list[Photograph]]]:
        """Yields batches of `size` entries, each with its readable photographs."""
        batches = [entries[i : i + size] for i in range(0, len(entries), size)]
        waiting: deque[Any] = deque()
        with ThreadPoolExecutor(READERS) as pool:
            for number, batch in enumerate(batches):
                for later in batches[number + len(waiting) : number + AHEAD + 1]:
                    waiting.append([pool.submit(self._read, entry) for entry in later])
                results = [future.result() for future in waiting.popleft()]
                yield batch, [result for result in results if result is not None]


def hole_notes(selection: Selection, entries: Sequence[Entry]) -> list[str]:
    """Returns a note if the masks of a folder mark so much that they may be inverted."""
    if not Path(selection.masks).expanduser().is_dir() or kind(selection.masks):
        return []
    doubtful = sum(entry.mask().mean() > 1 / 2 for entry in entries)
    if 2 * doubtful <= len(entries):
        return []
    return [
        f"{doubtful} of {len(entries)} masks in {selection.masks} mark more than half of "
        "their photographs as missing; if black marks the holes, invert them."
    ]


def unreadable_notes(unreadable: Mapping[str, str]) -> list[str]:
    """Returns a line for each photograph of `Reader.unreadable`, sorted by name."""
    return [f"left out: {reason}" for _, reason in sorted(unreadable.items())]


def require_at_least(name: str, value: int | None, least: int) -> None:
    """Raises UsageError if `value` is below `least`; None is allowed."""
    if value is not None and value < least:
        raise UsageError(f"{name} (={value}) must be at least {least}.")


def one_line(error: Exception) -> str:
    """Returns the error's message on one line, or its type if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def _commas(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
