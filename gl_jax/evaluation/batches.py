"""Completes and measures the photographs of an evaluation, a batch at a time."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gl_jax import texture
from gl_jax.config import UsageError
from gl_jax.evaluation.baselines import Baseline, Image
from gl_jax.evaluation.mask_list import Entry
from gl_jax.evaluation.measures import inception
from gl_jax.evaluation.measures.scorer import Scorer, Scores
from gl_jax.evaluation.photographs import Photograph, Reader, one_line
from gl_jax.evaluation.results import Evaluation, Key, Row
from gl_jax.evaluation.resume import ArrayRecords, Journal
from gl_jax.figures.sheets import Tile
from gl_jax.texture import LEVELS, PATCH, Places

LOG_SECONDS = 5
"""Seconds between two lines of progress."""


class Batches:
    """Completes and measures entries, a batch over all devices at a time."""

    def __init__(
        self,
        scorer: Scorer,
        reader: Reader,
        fill: Baseline | None,
        batch_size: int,
        patches: int,
        log: Callable[[str], None],
    ) -> None:
        self._scorer = scorer
        self._reader = reader
        self._fill = fill
        self._size = batch_size * scorer.devices
        self._patches = patches
        self._log = log
        texture_shape = (2, LEVELS, patches, 3 * PATCH**2)
        fields: list[Any] = [("seed", "<i8"), ("index", "<i8")]
        if scorer.measures_texture:
            fields.append(("texture", "<f2", texture_shape))
        if scorer.measures_features:
            fields.append(("features", "<f4", (2, inception.FEATURES)))
        self.fields = np.dtype(fields)
        """Type of a record: the arrays of an entry for measures over all photographs."""

    def measure(
        self, entries: Sequence[Entry], journal: Journal, records: ArrayRecords
    ) -> dict[Key, Row]:
        """Returns the rows of all entries; measures the entries missing from the files."""
        kept = {(int(r["seed"]), int(r["index"])) for r in records.read()}
        rows: dict[Key, Row] = {
            key: record["values"]
            for record in journal.records
            if (key := (record["seed"], record["index"])) in kept
        }
        missing = [e for e in entries if (e.seed, e.index) not in rows]
        if len(missing) < len(entries):
            self._log(f"{len(entries) - len(missing)} of {len(entries)} are done.")
        logged = -math.inf
        for batch, photographs in self._reader.batches(missing, self._size):
            if photographs:
                self._measure_batch(photographs, rows, journal, records)
            now = time.monotonic()
            if now - logged > LOG_SECONDS or batch[-1] is missing[-1]:
                self._log(f"{len(rows)}/{len(entries)} {batch[-1].photograph}")
                logged = now
        return rows

    def _measure_batch(
        self,
        photographs: list[Photograph],
        rows: dict[Key, Row],
        journal: Journal,
        records: ArrayRecords,
    ) -> None:
        photographs, completed = self._completed(photographs)
        if not photographs:
            return
        scores, count = self._scores(photographs, completed), len(photographs)
        measured = {
            (entry.seed, entry.index): {
                name: float(values[number]) for name, values in scores.values.items()
            }
            for number, (entry, _) in enumerate(photographs)
        }
        for (entry, _), row in zip(photographs, measured.values(), strict=True):
            if math.isnan(row["psnr_db"]):
                raise UsageError(
                    f"the model's output for {entry.photograph} is not finite."
                )
        arrays = np.zeros(count, self.fields)
        arrays["seed"], arrays["index"] = zip(*measured, strict=True)
        if scores.textures is not None:
            arrays["texture"] = scores.textures[:count]
        if scores.features is not None:
            arrays["features"] = scores.features[:count]
        # The arrays first: an entry of the journal promises that they are there.
        records.add(arrays)
        for (seed, index), row in measured.items():
            journal.add({"seed": seed, "index": index, "values": row})
        rows |= measured

    def _completed(
        self, photographs: list[Photograph]
    ) -> tuple[list[Photograph], list[Image] | None]:
        """Completes photographs by a baseline; leaves out photographs it fails on."""
        if self._fill is None:
            return photographs, None
        done, completed = [], []
        for photograph in photographs:
            entry = photograph.entry
            try:
                completed.append(self._fill(photograph.image, entry.mask()))
            except ImportError as error:
                raise UsageError(
                    f"the method misses a library: {one_line(error)}"
                ) from error
            except Exception as error:
                name = f"{self._reader.name(entry)} of seed {entry.seed}"
                self._reader.unreadable[name] = f"{name}: {one_line(error)}"
                continue
            done.append(photograph)
        return done, completed

    def _scores(
        self, photographs: list[Photograph], completed: list[Image] | None
    ) -> Scores:
        """Scores a batch, padded to its size with the last photograph."""
        missing = self._size - len(photographs)
        full = [*photographs, *[photographs[-1]] * missing]
        padded = None
        if completed is not None:
            padded = np.stack([*completed, *[completed[-1]] * missing])
        masks = [entry.mask() for entry, _ in full]
        where = [
            texture.places(mask, entry.index, patches=self._patches)
            for mask, (entry, _) in zip(masks, full, strict=True)
        ]
        return self._scorer(
            np.stack([image for _, image in full]),
            np.stack(masks),
            Places.stacked(where),
            padded,
        )

    def tiles(self, result: Evaluation, count: int) -> list[list[Tile]]:
        """Returns a row of the sheet for each of the first `count` photographs."""
        tiles = []
        measured = [e for e in result.entries if (e.seed, e.index) in result.rows]
        size = max(1, min(count, self._size))
        for _, photographs in self._reader.batches(measured[:count], size):
            if not photographs:
                continue
            composites = self._scores(*self._completed(photographs)).composite
            composites = composites[: len(photographs)]
            for photograph, composite in zip(photographs, composites, strict=True):
                key = photograph.entry.seed, photograph.entry.index
                psnr = result.rows[key]["hole_psnr_db"]
                completed = Tile(composite, f"{psnr:.1f} dB in the hole")
                tiles.append(photograph.row([completed]))
        return tiles
