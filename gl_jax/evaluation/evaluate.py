"""How good a model is on a set of photographs: the story of `gl-jax evaluate`.

The mask list is written first. Then every photograph of it is completed and measured, a
batch at a time over all devices, each host of several its own share, and what is done is
kept in a journal. In the end the first host gathers all rows and writes the report.
"""

import base64
import json
import math
import shlex
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gl_jax import parallel
from gl_jax.config import DataConfig, UsageError, did_you_mean
from gl_jax.data.sources import Source, evenly_spaced, open_source
from gl_jax.evaluation import fid, inception, lpips, mask_list
from gl_jax.evaluation.mask_list import Entry
from gl_jax.evaluation.masks import KINDS
from gl_jax.evaluation.measures import (
    COLUMNS,
    LPIPS_COLUMN,
    Scorer,
    Scores,
    fingerprint,
)
from gl_jax.evaluation.protocol import (
    IMAGE_SIZE,
    PROTOCOLS,
    Protocol,
    TooSmall,
    photograph,
)
from gl_jax.evaluation.results import Evaluation, Key, Row, seeds_of
from gl_jax.evaluation.resume import Journal
from gl_jax.figures.sheets import Tile, draw_sheet
from gl_jax.files import write_output
from gl_jax.inpainting import completer
from gl_jax.inpainting.images import RgbImage
from gl_jax.weights import tensors
from gl_jax.weights.native import Model

SEEDS = (0, 1, 2)
"""Where the holes are random and no seeds are given."""
SMALLEST = 16
SAVE_SECONDS = 60
"""Between two saves of the sums that FID needs, which are large."""
SAY_SECONDS = 5
"""Between two lines on how far it is."""
AHEAD = 2
"""Batches of photographs that are decoded while one is completed."""
READERS = 8


class NotFiniteError(RuntimeError):
    """The model's output is not a number."""


@dataclass(frozen=True)
class Request:
    """What is asked for; see `run`."""

    model: str | Path | None
    data: str
    masks: str
    protocol: Protocol
    seeds: tuple[int, ...] | None
    count: int | None
    image_size: int | None
    split: str
    data_dir: str | None


class _Measures(NamedTuple):
    """The networks that measure, and lines about the files they come from."""

    lpips: lpips.Lpips | None
    inception: inception.Weights | None
    hashes: dict[str, Any]
    notes: list[str]


def run(
    model: str | Path | None,
    data: str,
    output: Path,
    *,
    experiment: Path | None = None,
    masks: str = "box",
    protocol: Protocol = "own",
    seeds: tuple[int, ...] | None = None,
    count: int | None = None,
    image_size: int | None = None,
    fid_weights: Path | None = None,
    lpips_weights: tuple[Path, ...] = (),
    split: str = "validation",
    data_dir: str | None = None,
    batch_size: int = 8,
    sheet_rows: int = 8,
    log: Callable[[str], None] = print,
) -> Evaluation:
    """Measures a model; writes masks.jsonl, per_image.csv, evaluation.md, .json, .png.

    `model` and `experiment` are what `gl_jax.load` takes. `masks` is a kind of
    `masks.KINDS`, a folder of masks (`mask_list.from_folder`), or the mask list of another
    evaluation, which repeats its photographs and holes. Random holes are drawn for each of
    `seeds`. Of the photographs in `data`, `count` are used, spread evenly, by default all.
    For `protocol` see the module of that name. `batch_size` photographs at once are on each
    device.

    The same call again goes on where an earlier one was interrupted. Without their
    weights, LPIPS and FID are left out with a note. A photograph that cannot be read is
    left out and named.

    Raises UsageError for what the caller can mend, also where `output` holds results
    with other settings, and NotFiniteError where the model's output is not finite.
    """
    asked = Request(
        model, data, masks, protocol, seeds, count, image_size, split, data_dir
    )
    _check(asked, batch_size)
    loaded = completer.load_model(model, experiment)
    source = _open(asked)
    entries = _entries(asked, source, image_size or _trained_size(loaded, protocol))
    side = entries[0].height
    measures = _measures(fid_weights, lpips_weights, side)
    settings = {
        "model": fingerprint(loaded), "photographs": source.fingerprint(),
        **_facts(asked, entries), **measures.hashes,
    }  # fmt: skip
    scorer = Scorer(
        loaded,
        raw_l1=protocol == "mmediting",
        lpips=measures.lpips,
        features=measures.inception.arrays if measures.inception else None,
    )
    reader = _Reader(source, side)
    work = _Work(scorer, reader, batch_size, log)
    rows, sums = _share_done(work, entries, settings, output)
    rows, sums, lost = _gathered(rows, sums, reader.lost)
    if not rows:
        raise UsageError(f"no photograph can be read; {next(iter(lost.values()))}")
    notes = [
        *measures.notes,
        *(f"left out, it cannot be read: {why}" for _, why in sorted(lost.items())),
    ]
    result = _result(asked, settings, entries, rows, sums, notes, output, loaded.name)
    if jax.process_index() == 0:
        _write(result, output, work.tiles(result, sheet_rows))
        log(result.to_markdown())
        log(f"Written to {output}: evaluation.md, .json and .png, per_image.csv.")
    return result


def _share_done(
    work: "_Work", entries: list[Entry], settings: dict[str, Any], output: Path
) -> tuple[dict[Key, Row], fid.Sums | None]:
    """This host's rows; a mistake that one of several hosts finds ends all of them."""
    hosts, host = jax.process_count(), jax.process_index()
    part = "" if hosts == 1 else f"-{host + 1}-of-{hosts}"
    share = [entry for entry in entries if entry.index % hosts == host]
    rows: dict[Key, Row] = {}
    sums, fault = None, None
    try:
        with Journal(output / f"journal{part}.jsonl", settings) as journal:
            if host == 0:
                mask_list.write(entries, output / "masks.jsonl")
            rows, sums = work.finish(share, journal, output / f"fid{part}.npz")
    except UsageError as error:
        if hosts == 1:
            raise
        fault = str(error)
    parallel.require_same(settings, fault)
    return rows, sums


def _facts(asked: Request, entries: Sequence[Entry]) -> dict[str, Any]:
    """What results depend on, in the words of the options; the digest covers the rest."""
    path = Path(asked.masks).expanduser()
    files = "folder" if path.is_dir() else "list"
    return {
        "protocol": asked.protocol,
        "masks": asked.masks if asked.masks in KINDS else files,
        "seeds": seeds_of(entries),
        "count": len({entry.index for entry in entries}),
        "image_size": entries[0].height,
        "mask_list": mask_list.digest(entries),
    }


def _trained_size(model: Model, protocol: Protocol) -> int:
    """The side to measure at where none is asked for."""
    trained = model.training.get("image size")
    if protocol == "own" and isinstance(trained, int) and trained >= SMALLEST:
        return trained
    return IMAGE_SIZE


def _check(asked: Request, batch_size: int) -> None:
    if asked.protocol not in PROTOCOLS:
        raise UsageError(
            f"protocol {asked.protocol!r} is unknown."
            f"{did_you_mean(asked.protocol, PROTOCOLS)} Known: {', '.join(PROTOCOLS)}."
        )
    for name, value, least in (
        ("count", asked.count, 1),
        ("image_size", asked.image_size, SMALLEST),
        ("batch_size", batch_size, 1),
    ):
        if value is not None and value < least:
            raise UsageError(f"{name} (={value}) must be at least {least}.")
    seeds = asked.seeds
    if seeds is not None and (
        not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds)
    ):
        raise UsageError(
            f"seeds (={','.join(map(str, seeds))}) must be different whole numbers "
            "from 0, like 0,1,2."
        )
    if asked.protocol == "mmediting" and asked.image_size not in (None, IMAGE_SIZE):
        raise UsageError(
            f"image_size (={asked.image_size}) must be {IMAGE_SIZE} with --protocol "
            "mmediting; leave it out."
        )


def _open(asked: Request) -> Source:
    config = DataConfig(
        source=asked.data, validation_source=asked.data,
        validation_split=asked.split, data_dir=asked.data_dir,
    )  # fmt: skip
    return open_source(config, validation=True)


def _entries(asked: Request, source: Source, side: int) -> list[Entry]:
    """The photographs and holes that are asked for."""
    path = Path(asked.masks).expanduser()
    kind = asked.masks if asked.masks in KINDS else None
    if kind is None and path.is_file():
        return _listed(asked, mask_list.read(path), source)
    positions = evenly_spaced(len(source), asked.count or len(source))
    if asked.count is not None and len(positions) < asked.count:
        raise UsageError(
            f"count (={asked.count}) is more than the {len(source)} photographs of "
            f"{asked.data}."
        )
    names = [source.name(position) for position in positions]
    if asked.protocol == "mmediting":
        if kind != "box":
            raise UsageError(
                f"masks (={asked.masks!r}) must be box with --protocol mmediting, which "
                "draws its own boxes, or the mask list of such an evaluation."
            )
        return mask_list.mmediting(names, positions, asked.seeds or SEEDS)
    fixed = kind in (None, "center")
    if fixed and asked.seeds is not None and len(asked.seeds) > 1:
        raise UsageError(
            f"seeds (={','.join(map(str, asked.seeds))}) make no difference to masks "
            f"{asked.masks}; leave them out."
        )
    seeds = asked.seeds or (SEEDS[:1] if fixed else SEEDS)
    return mask_list.made(asked.masks, names, positions, seeds, side)


def _listed(asked: Request, entries: list[Entry], source: Source) -> list[Entry]:
    """The entries of a mask list, checked against the photographs and the options."""
    for name in ("seeds", "count"):
        if getattr(asked, name) is not None:
            raise UsageError(
                f"{name} stand in mask list {asked.masks}; leave them out."
            )
    first = entries[0]
    made_by = "own" if first.place is None else "mmediting"
    if made_by != asked.protocol:
        raise UsageError(
            f"mask list {asked.masks} is of --protocol {made_by}, not {asked.protocol}."
        )
    if first.height != first.width or asked.image_size not in (None, first.height):
        raise UsageError(
            f"mask list {asked.masks} is for {first.width}x{first.height} pixels; "
            f"image_size (={asked.image_size}) must be that or left out, and square."
        )
    last = max(entry.position for entry in entries)
    if last >= len(source):
        raise UsageError(
            f"mask list {asked.masks} has masks for at least {last + 1} photographs, "
            f"{asked.data} has {len(source)}."
        )
    for entry in entries:
        found = Path(source.name(entry.position)).name
        if found != entry.photograph:
            raise UsageError(
                f"mask list {asked.masks} says that photograph {entry.position} is "
                f"{entry.photograph}; in {asked.data} it is {found}. Give the "
                "photographs that it was made for."
            )
    return entries


def _measures(
    fid_file: Path | None, lpips_files: tuple[Path, ...], side: int
) -> _Measures:
    hashes: dict[str, Any] = {}
    notes = []
    distance, network = None, None
    if lpips_files:
        distance = lpips.load(lpips_files)
        if side < distance.smallest:
            raise UsageError(
                f"LPIPS by {distance.name} needs images of at least {distance.smallest} "
                f"pixels, these have {side}; leave out --lpips-weights."
            )
        hashes["lpips"] = [tensors.sha256(path) for path in lpips_files]
        notes.append(
            f"LPIPS by {distance.name}: "
            + ", ".join(
                f"{path.name} (SHA-256 {digest})"
                for path, digest in zip(lpips_files, hashes["lpips"], strict=True)
            )
        )
    else:
        notes.append("LPIPS skipped: give --lpips-weights FILE.")
    if fid_file is not None:
        network = inception.load(fid_file)
        hashes["fid"] = tensors.sha256(fid_file)
        notes.append(f"FID by {fid_file.name} (SHA-256 {hashes['fid']})")
        if not network.published:
            notes.append(
                f"{fid_file.name} is not pytorch-fid's file (its fc has not 1008 "
                "outputs), so this FID cannot be compared with published ones."
            )
    else:
        notes.append("FID skipped: give --fid-weights FILE.")
    return _Measures(distance, network, hashes, notes)


class _Reader:
    """Photographs of a source as the protocol shows them; keeps what could not be read."""

    def __init__(self, source: Source, side: int) -> None:
        self._source = source
        self._side = side
        self.lost: dict[str, str] = {}
        """Why, by photograph."""

    def read(self, entry: Entry) -> RgbImage | None:
        """The square to measure on; None where the photograph is damaged."""
        name = self._source.name(entry.position)
        try:
            data = self._source.read(entry.position)
            return photograph(data, name, self._side, entry.place)
        except TooSmall:
            raise
        except (OSError, ValueError) as error:
            self.lost[entry.photograph] = " ".join(str(error).split())
            return None

    def batches(
        self, entries: Sequence[Entry], size: int
    ) -> Iterator[tuple[Sequence[Entry], list[RgbImage | None]]]:
        """`entries` in pieces of `size`, with their pictures, a few pieces ahead."""
        pieces = [entries[i : i + size] for i in range(0, len(entries), size)]
        waiting: deque[Any] = deque()
        with ThreadPoolExecutor(READERS) as pool:
            for number, piece in enumerate(pieces):
                for later in pieces[number + len(waiting) : number + AHEAD + 1]:
                    waiting.append([pool.submit(self.read, entry) for entry in later])
                yield piece, [future.result() for future in waiting.popleft()]


class _Work:
    """Completes and measures entries, with everything that this takes."""

    def __init__(
        self,
        scorer: Scorer,
        reader: _Reader,
        batch_size: int,
        log: Callable[[str], None],
    ) -> None:
        self._scorer = scorer
        self._reader = reader
        self._batch = batch_size * scorer.devices
        self._log = log

    def finish(
        self, entries: Sequence[Entry], journal: Journal, fid_path: Path
    ) -> tuple[dict[Key, Row], fid.Sums | None]:
        """The rows of all entries: those of the journal, and the others measured now."""
        rows: dict[Key, Row] = {
            (r["seed"], r["index"]): r["values"] for r in journal.records
        }
        sums, done, saved, said = None, 0, time.monotonic(), -math.inf
        if self._scorer.measures_features:
            if not journal.records:
                fid_path.unlink(missing_ok=True)
            # The sums know how many entries are in them; rows beyond are made again.
            sums, done = fid.read_sums(fid_path, inception.FEATURES)
            first = {(e.seed, e.index) for e in entries[:done]}
            rows = {key: row for key, row in rows.items() if key in first}
        missing = [
            entry
            for number, entry in enumerate(entries)
            if (entry.seed, entry.index) not in rows and number >= done
        ]
        if len(missing) < len(entries):
            self._log(f"{len(entries) - len(missing)} of {len(entries)} are done.")
        for piece, pictures in self._reader.batches(missing, self._batch):
            whole = [
                (e, p) for e, p in zip(piece, pictures, strict=True) if p is not None
            ]
            if whole:
                self._measure(whole, rows, journal, sums)
            done += len(piece)
            now, last = time.monotonic(), piece[-1] is missing[-1]
            if sums is not None and (now - saved > SAVE_SECONDS or last):
                write_output(fid_path, sums.packed(done))
                saved = now
            if now - said > SAY_SECONDS or last:
                self._log(f"{len(rows)}/{len(entries)} {piece[-1].photograph}")
                said = now
        for entry in entries:
            if (entry.seed, entry.index) not in rows:
                name = entry.photograph
                self._reader.lost.setdefault(name, f"{name}, in an earlier session")
        return rows, sums

    def _measure(
        self,
        whole: list[tuple[Entry, RgbImage]],
        rows: dict[Key, Row],
        journal: Journal,
        sums: fid.Sums | None,
    ) -> None:
        scores = self.scores(whole)
        if sums is not None and scores.features is not None:
            for moments, features in zip(sums, scores.features, strict=True):
                moments.add(features[: len(whole)])
        for number, (entry, _) in enumerate(whole):
            row = {name: float(v[number]) for name, v in scores.values.items()}
            if math.isnan(row["psnr_db"]):
                raise NotFiniteError(
                    f"the model's output for {entry.photograph} is not finite."
                )
            rows[entry.seed, entry.index] = row
            journal.add({"seed": entry.seed, "index": entry.index, "values": row})

    def scores(self, whole: list[tuple[Entry, RgbImage]]) -> Scores:
        """Those of a batch, filled up to its size with the last picture."""
        full = [*whole, *[whole[-1]] * (self._batch - len(whole))]
        return self._scorer(
            np.stack([picture for _, picture in full]),
            np.stack([entry.mask() for entry, _ in full]),
        )

    def tiles(self, result: Evaluation, count: int) -> list[list[Tile]]:
        """Rows of the sheet for the first photographs: input, completed, truth."""
        tiles = []
        measured = [e for e in result.entries if (e.seed, e.index) in result.rows]
        first = min(count, self._batch)
        for piece, pictures in self._reader.batches(measured[:count], first or 1):
            whole = [
                (e, p) for e, p in zip(piece, pictures, strict=True) if p is not None
            ]
            if not whole:
                continue
            composites = self.scores(whole).composite[: len(whole)]
            for (entry, picture), composite in zip(whole, composites, strict=True):
                hole = entry.mask()[..., None]
                psnr = result.rows[entry.seed, entry.index]["hole_psnr_db"]
                tiles.append([
                    Tile(np.where(hole, np.uint8(255), picture), entry.photograph),
                    Tile(composite, f"{psnr:.1f} dB in the hole"),
                    Tile(picture),
                ])  # fmt: skip
        return tiles


def _gathered(
    rows: dict[Key, Row], sums: fid.Sums | None, lost: dict[str, str]
) -> tuple[dict[Key, Row], fid.Sums | None, dict[str, str]]:
    """What all hosts have, on each of them."""
    if jax.process_count() == 1:
        return rows, sums, lost
    here = {
        "rows": [[*key, row] for key, row in rows.items()],
        "sums": base64.b64encode(sums.packed(0)).decode() if sums else None,
        "lost": lost,
    }
    rows, lost = {}, {}
    total = None
    if sums is not None:
        total = fid.Sums.empty(inception.FEATURES)
    for text in parallel.from_every_host(json.dumps(here)):
        there = json.loads(text)
        rows |= {(seed, index): row for seed, index, row in there["rows"]}
        lost |= there["lost"]
        if total is not None:
            total.add(base64.b64decode(there["sums"]))
    return rows, total, lost


def _result(
    asked: Request, settings: dict[str, Any], entries: Sequence[Entry],
    rows: dict[Key, Row], sums: fid.Sums | None, notes: list[str], output: Path,
    name: str,
) -> Evaluation:  # fmt: skip
    label = "the shipped model" if asked.model is None else f"model {asked.model}"
    words = ["gl-jax", "evaluate", "--model", "MODEL", "--data", asked.data]
    words += ["--masks", str(output / "masks.jsonl"), "--output", "FOLDER"]
    words += ["--protocol", "mmediting"] if asked.protocol == "mmediting" else []
    words += ["--split", asked.split] if asked.split != "validation" else []
    distance = None
    if sums is not None and sums.truth.count > 1:
        distance = fid.frechet_distance(*sums)
        if sums.truth.count < inception.FEATURES:
            notes.append(
                f"FID over {sums.truth.count} pictures, fewer than its "
                f"{inception.FEATURES} features: it cannot be compared with one over "
                "another number."
            )
    return Evaluation(
        settings
        | {
            "model_label": f"{label} ({name})" if name else label,
            "data": asked.data, "masks": asked.masks, "split": asked.split,
            "rerun": shlex.join(words),
        },
        tuple(entries), rows,
        COLUMNS | (LPIPS_COLUMN if "lpips" in settings else {}), distance, tuple(notes),
    )  # fmt: skip


def _write(result: Evaluation, output: Path, tiles: list[list[Tile]]) -> None:
    texts = {
        "per_image.csv": result.to_csv(),
        "evaluation.md": result.to_markdown(),
        "evaluation.json": result.to_json(),
    }
    for name, text in texts.items():
        write_output(output / name, text.encode())
    if tiles:
        sheet = draw_sheet(["input", "completed", "truth"], tiles)
        write_output(output / "evaluation.png", sheet)
