"""Measures how well a model completes photographs: the story of `gl-jax evaluate`.

The mask list is written first. Then every photograph of it is completed and measured, a
batch at a time over all devices, each host of several its own share, and every result is
kept in a journal. In the end the first host gathers all rows and writes the report.
"""

import base64
import json
import math
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gl_jax import parallel
from gl_jax.config import UsageError
from gl_jax.evaluation import fid, mask_list, results
from gl_jax.evaluation.mask_list import Entry
from gl_jax.evaluation.masks import KINDS
from gl_jax.evaluation.measures import Scorer, Scores, fingerprint, load_networks
from gl_jax.evaluation.photographs import (
    SMALLEST,
    Photograph,
    Reader,
    Selection,
    require_at_least,
    unreadable_notes,
)
from gl_jax.evaluation.protocol import IMAGE_SIZE
from gl_jax.evaluation.results import (
    EVALUATION_COLUMNS,
    LPIPS_COLUMN,
    Evaluation,
    Key,
    Row,
    seeds_of,
)
from gl_jax.evaluation.resume import Journal
from gl_jax.figures.sheets import Tile
from gl_jax.files import write_output
from gl_jax.inpainting import completer
from gl_jax.weights.native import Model

SAVE_SECONDS = 60
"""Seconds between two saves of the sums that FID needs, which are large."""
LOG_SECONDS = 5
"""Seconds between two lines on the progress."""


class NotFiniteError(RuntimeError):
    """The model's output is not a number."""


def run(
    model: str | Path | None,
    selection: Selection,
    output: Path,
    *,
    experiment: Path | None = None,
    fid_weights: Path | None = None,
    lpips_weights: tuple[Path, ...] = (),
    batch_size: int = 8,
    sheet_rows: int = 8,
    log: Callable[[str], None] = print,
) -> Evaluation:
    """Measures a model; writes masks.jsonl, per_image.csv, evaluation.md, .json, .png.

    `model` and `experiment` are those of `gl_jax.load`. `batch_size` photographs at once
    are on each device. The sheet shows the first `sheet_rows` photographs.

    The same call again goes on after an interruption. Without their weights, LPIPS and FID
    are left out with a note. A photograph that cannot be read is left out and named.

    Raises UsageError for mistakes of the caller, also if `output` holds results with other
    settings, and NotFiniteError if the model's output is not finite.
    """
    selection.check()
    require_at_least("batch_size", batch_size, 1)
    loaded = completer.load_model(model, experiment)
    source = selection.open()
    mmediting = selection.protocol == "mmediting"
    size = IMAGE_SIZE if mmediting else _trained_size(loaded)
    entries = selection.entries(source, selection.image_size or size)
    side = entries[0].height
    networks = load_networks(fid_weights, lpips_weights, side)
    settings = {
        "model": fingerprint(loaded), "photographs": source.fingerprint(),
        **_settings(selection, entries), **networks.hashes,
    }  # fmt: skip
    scorer = Scorer(loaded, networks, raw_l1=mmediting)
    reader = Reader(source, side)
    batches = _Batches(scorer, reader, batch_size, log)
    rows, sums = _measure_share(batches, entries, settings, output)
    rows, sums, unreadable = _gathered(rows, sums, reader.unreadable)
    if not rows:
        raise UsageError(
            f"no photograph can be read; {next(iter(unreadable.values()))}"
        )
    notes = [*networks.notes, *unreadable_notes(unreadable)]
    distance = _distance(sums, notes)
    result = Evaluation(
        settings | _labels(selection, output, model, loaded.name),
        tuple(entries), rows,
        EVALUATION_COLUMNS | (LPIPS_COLUMN if "lpips" in settings else {}),
        distance, tuple(notes),
    )  # fmt: skip
    if jax.process_index() == 0:
        tiles = batches.tiles(result, sheet_rows)
        titles = ["input", "completed", "truth"]
        results.write(result, output, "evaluation.png", titles, tiles)
        log(result.to_markdown())
        log(f"Written to {output}: evaluation.md, .json and .png, per_image.csv.")
    return result


def _trained_size(model: Model) -> int:
    """Returns the side of the model's training, or the paper's."""
    trained = model.training.get("image size")
    if isinstance(trained, int) and trained >= SMALLEST:
        return trained
    return IMAGE_SIZE


def _settings(selection: Selection, entries: Sequence[Entry]) -> dict[str, Any]:
    """Returns the settings that results depend on; the digest covers the rest."""
    path = Path(selection.masks).expanduser()
    files = "folder" if path.is_dir() else "list"
    return {
        "protocol": selection.protocol,
        "masks": selection.masks if selection.masks in KINDS else files,
        "seeds": seeds_of(entries),
        "count": len({entry.index for entry in entries}),
        "image_size": entries[0].height,
        "mask_list": mask_list.digest(entries),
    }


def _labels(
    selection: Selection, output: Path, model: str | Path | None, name: str
) -> dict[str, Any]:
    """Returns the settings that only explain, among them the command of a rerun."""
    label = "the shipped model" if model is None else f"model {model}"
    words = ["gl-jax", "evaluate", "--model", "MODEL", "--data", selection.data]
    words += ["--masks", str(output / "masks.jsonl"), "--output", "FOLDER"]
    words += ["--protocol", "mmediting"] if selection.protocol == "mmediting" else []
    words += ["--split", selection.split] if selection.split != "validation" else []
    return {
        "model_label": f"{label} ({name})" if name else label,
        "data": selection.data, "masks": selection.masks, "split": selection.split,
        "rerun": shlex.join(words),
    }  # fmt: skip


def _distance(sums: fid.Sums | None, notes: list[str]) -> float | None:
    """Returns the FID, or None; `notes` says if it is over too few pictures."""
    if sums is None or sums.truth.count < 2:
        return None
    if sums.truth.count < fid.FEATURES:
        notes.append(
            f"FID over {sums.truth.count} pictures, fewer than its "
            f"{fid.FEATURES} features: it cannot be compared with one over "
            "another number."
        )
    return fid.frechet_distance(*sums)


def _measure_share(
    batches: "_Batches", entries: list[Entry], settings: dict[str, Any], output: Path
) -> tuple[dict[Key, Row], fid.Sums | None]:
    """Returns this host's rows; a mistake on one of several hosts ends all of them."""
    hosts, host = jax.process_count(), jax.process_index()
    part = "" if hosts == 1 else f"-{host + 1}-of-{hosts}"
    share = [entry for entry in entries if entry.index % hosts == host]
    rows: dict[Key, Row] = {}
    sums, mistake = None, None
    try:
        with Journal(output / f"journal{part}.jsonl", settings) as journal:
            if host == 0:
                mask_list.write(entries, output / "masks.jsonl")
            rows, sums = batches.measure(share, journal, output / f"fid{part}.npz")
    except UsageError as error:
        if hosts == 1:
            raise
        mistake = str(error)
    parallel.require_same(settings, mistake)
    return rows, sums


class _Batches:
    """Completes and measures entries, a batch over all devices at a time."""

    def __init__(
        self,
        scorer: Scorer,
        reader: Reader,
        batch_size: int,
        log: Callable[[str], None],
    ) -> None:
        self._scorer = scorer
        self._reader = reader
        self._size = batch_size * scorer.devices
        self._log = log

    def measure(
        self, entries: Sequence[Entry], journal: Journal, fid_path: Path
    ) -> tuple[dict[Key, Row], fid.Sums | None]:
        """Returns the rows of all entries, measuring those that the journal lacks."""
        rows: dict[Key, Row] = {
            (r["seed"], r["index"]): r["values"] for r in journal.records
        }
        sums, done, saved, logged = None, 0, time.monotonic(), -math.inf
        if self._scorer.measures_features:
            if not journal.records:
                fid_path.unlink(missing_ok=True)
            # The sums know how many entries are in them; rows beyond are made again.
            sums, done = fid.read_sums(fid_path, fid.FEATURES)
            first = {(e.seed, e.index) for e in entries[:done]}
            rows = {key: row for key, row in rows.items() if key in first}
        missing = [
            entry
            for number, entry in enumerate(entries)
            if (entry.seed, entry.index) not in rows and number >= done
        ]
        if len(missing) < len(entries):
            self._log(f"{len(entries) - len(missing)} of {len(entries)} are done.")
        for batch, photographs in self._reader.batches(missing, self._size):
            if photographs:
                self._measure_batch(photographs, rows, journal, sums)
            done += len(batch)
            now, last = time.monotonic(), batch[-1] is missing[-1]
            if sums is not None and (now - saved > SAVE_SECONDS or last):
                write_output(fid_path, sums.packed(done))
                saved = now
            if now - logged > LOG_SECONDS or last:
                self._log(f"{len(rows)}/{len(entries)} {batch[-1].photograph}")
                logged = now
        for entry in entries:
            if (entry.seed, entry.index) not in rows:
                self._reader.unreadable.setdefault(
                    self._reader.name(entry),
                    f"{entry.photograph}, in an earlier session",
                )
        return rows, sums

    def _measure_batch(
        self,
        photographs: list[Photograph],
        rows: dict[Key, Row],
        journal: Journal,
        sums: fid.Sums | None,
    ) -> None:
        scores = self._scores(photographs)
        if sums is not None and scores.features is not None:
            for moments, features in zip(sums, scores.features, strict=True):
                moments.add(features[: len(photographs)])
        for number, (entry, _) in enumerate(photographs):
            row = {name: float(v[number]) for name, v in scores.values.items()}
            if math.isnan(row["psnr_db"]):
                raise NotFiniteError(
                    f"the model's output for {entry.photograph} is not finite."
                )
            rows[entry.seed, entry.index] = row
            journal.add({"seed": entry.seed, "index": entry.index, "values": row})

    def _scores(self, photographs: list[Photograph]) -> Scores:
        """Scores a batch, filled up to its size with the last picture."""
        full = [*photographs, *[photographs[-1]] * (self._size - len(photographs))]
        return self._scorer(
            np.stack([image for _, image in full]),
            np.stack([entry.mask() for entry, _ in full]),
        )

    def tiles(self, result: Evaluation, count: int) -> list[list[Tile]]:
        """Returns a row of the sheet for each of the first `count` photographs."""
        tiles = []
        measured = [e for e in result.entries if (e.seed, e.index) in result.rows]
        size = max(1, min(count, self._size))
        for _, photographs in self._reader.batches(measured[:count], size):
            if not photographs:
                continue
            composites = self._scores(photographs).composite[: len(photographs)]
            for photograph, composite in zip(photographs, composites, strict=True):
                key = photograph.entry.seed, photograph.entry.index
                psnr = result.rows[key]["hole_psnr_db"]
                completed = Tile(composite, f"{psnr:.1f} dB in the hole")
                tiles.append(photograph.row([completed]))
        return tiles


def _gathered(
    rows: dict[Key, Row], sums: fid.Sums | None, unreadable: dict[str, str]
) -> tuple[dict[Key, Row], fid.Sums | None, dict[str, str]]:
    """Returns the rows, sums and unreadable photographs of all hosts, on each of them."""
    if jax.process_count() == 1:
        return rows, sums, unreadable
    here = {
        "rows": [[*key, row] for key, row in rows.items()],
        "sums": base64.b64encode(sums.packed(0)).decode() if sums else None,
        "unreadable": unreadable,
    }
    rows, unreadable = {}, {}
    total = None if sums is None else fid.Sums.empty(fid.FEATURES)
    for text in parallel.from_every_host(json.dumps(here)):
        host = json.loads(text)
        rows |= {(seed, index): row for seed, index, row in host["rows"]}
        unreadable |= host["unreadable"]
        if total is not None:
            total.add(base64.b64decode(host["sums"]))
    return rows, total, unreadable
