"""Measures how well a model completes photographs: the story of `gl-jax evaluate`.

The mask list is written first. Then every photograph of it is completed and measured, a
batch at a time over all devices, each host of several its own share, and every result is
kept in a journal. In the end the first host gathers all rows and writes the report.
"""

import json
import math
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gl_jax import parallel, texture
from gl_jax.config import UsageError
from gl_jax.evaluation import distances, inception, mask_list, results
from gl_jax.evaluation.baselines import Baseline, Image
from gl_jax.evaluation.mask_list import Entry
from gl_jax.evaluation.masks import KINDS
from gl_jax.evaluation.measures import Scorer, Scores, fingerprint, load_networks
from gl_jax.evaluation.methods import OURS, Method, load, of_model, parse
from gl_jax.evaluation.methods import notes as notes_on
from gl_jax.evaluation.photographs import (
    SMALLEST,
    Photograph,
    Reader,
    Selection,
    hole_notes,
    one_line,
    require_at_least,
    unreadable_notes,
)
from gl_jax.evaluation.protocol import IMAGE_SIZE
from gl_jax.evaluation.results import (
    EVALUATION_COLUMNS,
    FEATURE_COLUMNS,
    LPIPS_COLUMN,
    SET_COLUMNS,
    Evaluation,
    Key,
    Row,
    seeds_of,
)
from gl_jax.evaluation.resume import ArrayRecords, Journal
from gl_jax.figures.sheets import Tile
from gl_jax.inpainting import completer
from gl_jax.texture import LEVELS, PATCH, Places
from gl_jax.weights.native import Model

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
    method: str = OURS,
    fid_weights: Path | None = None,
    lpips_weights: tuple[Path, ...] = (),
    batch_size: int = 8,
    sheet_rows: int = 8,
    log: Callable[[str], None] = print,
) -> Evaluation:
    """Measures a model; writes masks.jsonl, per_image.csv, evaluation.md, .json, .png.

    `model` and `experiment` are those of `gl_jax.load`. A `method` other than ours, as
    `methods.parse` has it, is measured instead; if it fails on a photograph, that is left
    out and named. `batch_size` photographs at once
    are on each device. The sheet shows the first `sheet_rows` photographs.

    The same call again goes on after an interruption. Without their weights LPIPS, and
    FID, KID, precision and recall are left out with a note, as are holes that are too
    small for SWD and grid energy. A photograph that cannot be read is left out and named.

    Raises UsageError for mistakes of the caller, also if `output` holds results with other
    settings, and NotFiniteError if the model's output is not finite.
    """
    selection.check()
    require_at_least("batch_size", batch_size, 1)
    loaded, other = _measured(method, model, experiment)
    source = selection.open()
    mmediting = selection.protocol == "mmediting"
    size = IMAGE_SIZE if mmediting else _trained_size(loaded)
    entries = selection.entries(source, selection.image_size or size)
    side, count = entries[0].height, len({entry.index for entry in entries})
    if fid_weights is not None and count < distances.FEWEST:
        raise UsageError(
            f"FID, KID, precision and recall need at least {distances.FEWEST} "
            f"photographs, there are {count}; leave out --fid-weights."
        )
    networks = load_networks(fid_weights, lpips_weights, side)
    settings = {
        "model": _fingerprint(loaded, other), "photographs": source.fingerprint(),
        **_settings(selection, entries), **networks.hashes,
    }  # fmt: skip
    scorer = Scorer(None if other else loaded, networks, raw_l1=mmediting)
    reader = Reader(source, side)
    batches = _Batches(
        scorer, reader, other.fill if other else None, batch_size,
        texture.patches_each(count), log,
    )  # fmt: skip
    rows, arrays = _measure_share(batches, entries, settings, output)
    rows, arrays, unreadable = _gathered(rows, arrays, reader.unreadable)
    if not rows:
        raise UsageError(
            f"no photograph can be read and completed; {next(iter(unreadable.values()))}"
        )
    notes = [
        *networks.notes,
        *selection.left_out(source),
        *hole_notes(selection, entries),
        *(notes_on(other, side) if other else []),
        *unreadable_notes(unreadable),
    ]
    sets, distance = _of_sets(rows, arrays, notes)
    result = Evaluation(
        settings | _labels(selection, output, model, loaded, other),
        tuple(entries), rows,
        EVALUATION_COLUMNS | (LPIPS_COLUMN if "lpips" in settings else {}),
        sets, SET_COLUMNS | (FEATURE_COLUMNS if "fid" in settings else {}),
        distance, tuple(notes),
    )  # fmt: skip
    if jax.process_index() == 0:
        tiles = batches.tiles(result, sheet_rows)
        titles = ["input", "completed", "truth"]
        results.write(result, output, "evaluation.png", titles, tiles)
        log(result.to_markdown())
        log(f"Written to {output}: evaluation.md, .json and .png, per_image.csv.")
    return result


def _measured(
    method: str, model: str | Path | None, experiment: Path | None
) -> tuple[Model | None, Method | None]:
    """Returns the model that is measured, and the method if it is not ours; one at least."""
    if method == OURS:
        loaded = completer.load_model(model, experiment)
        return loaded, of_model(loaded)
    parse(method)
    if model is not None or experiment is not None:
        raise UsageError(
            f"--model and --experiment are of the method gl, not of {method}; leave them "
            "out."
        )
    other = load(method)
    return other.model, other


def _fingerprint(model: Model | None, method: Method | None) -> str:
    name = f"{method.name} " if method else ""
    return name + (fingerprint(model) if model else "")


def _trained_size(model: Model | None) -> int:
    """Returns the side of the model's training, or the paper's."""
    trained = model.training.get("image size") if model else None
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
    selection: Selection,
    output: Path,
    model: str | Path | None,
    loaded: Model | None,
    method: Method | None,
) -> dict[str, Any]:
    """Returns the settings that only explain, among them the command of a rerun."""
    label = "the shipped model" if model is None else f"model {model}"
    label = f"method {method.name}" if method and model is None else label
    name = loaded.name if loaded else ""
    words = ["gl-jax", "evaluate", "--model", "MODEL", "--data", selection.data]
    words += ["--masks", str(output / "masks.jsonl"), "--output", "FOLDER"]
    words += ["--protocol", "mmediting"] if selection.protocol == "mmediting" else []
    words += ["--split", selection.split] if selection.split != "validation" else []
    return {
        "model_label": f"{label} ({name})" if name else label,
        "data": selection.data, "masks": selection.masks, "split": selection.split,
        "rerun": shlex.join(words),
    }  # fmt: skip


def _of_sets(
    rows: Mapping[Key, Row], arrays: np.ndarray, notes: list[str]
) -> tuple[dict[int, Row], float | None]:
    """Returns the measures of each seed's set by name, and the FID of all together.

    `arrays` are records of `_Batches.fields`; `notes` says what is left out.
    """
    newest = {
        (int(record["seed"]), int(record["index"])): number
        for number, record in enumerate(arrays)
    }
    keys = sorted(rows)
    arrays = arrays[[newest[key] for key in keys]]
    grids = np.array([[rows[key][name] for name in texture.GRIDS] for key in keys])
    notes += texture.left_out(arrays["texture"], grids)
    sets, has_features = {}, "features" in (arrays.dtype.names or ())
    for seed in sorted({seed for seed, _ in keys}):
        of_seed = arrays["seed"] == seed
        chosen = arrays[of_seed]
        sets[seed] = texture.of_set(chosen["texture"], grids[of_seed])
        if has_features:
            sets[seed] |= distances.of_set(chosen["features"])
    if not has_features or len(arrays) < distances.FEWEST:
        return sets, None
    features = arrays["features"]
    count, _, width = features.shape
    if count < width:
        notes.append(
            f"FID over {count} pictures, fewer than its {width} features: it cannot be "
            "compared with one over another number."
        )
    pair = (distances.Moments.of(features[:, side]) for side in (0, 1))
    return sets, distances.frechet_distance(*pair)


def _measure_share(
    batches: "_Batches", entries: list[Entry], settings: dict[str, Any], output: Path
) -> tuple[dict[Key, Row], np.ndarray]:
    """Returns this host's rows; a mistake on one of several hosts ends all of them."""
    hosts, host = jax.process_count(), jax.process_index()
    part = "" if hosts == 1 else f"-{host + 1}-of-{hosts}"
    share = [entry for entry in entries if entry.index % hosts == host]
    rows: dict[Key, Row] = {}
    arrays, mistake = np.zeros(0, batches.fields), None
    try:
        with Journal(output / f"journal{part}.jsonl", settings) as journal:
            if host == 0:
                mask_list.write(entries, output / "masks.jsonl")
            path, anew = output / f"arrays{part}.bin", not journal.records
            with ArrayRecords(path, batches.fields, anew=anew) as records:
                rows = batches.measure(share, journal, records)
                arrays = records.read()
    except UsageError as error:
        if hosts == 1:
            raise
        mistake = str(error)
    parallel.require_same(settings, mistake)
    return rows, arrays


class _Batches:
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
        fields: list[Any] = [
            ("seed", "<i8"), ("index", "<i8"), ("texture", "<f2", texture_shape),
        ]  # fmt: skip
        if scorer.measures_features:
            fields.append(("features", "<f4", (2, inception.FEATURES)))
        self.fields = np.dtype(fields)
        """The type of a record: what the measures of a set need of an entry."""

    def measure(
        self, entries: Sequence[Entry], journal: Journal, records: ArrayRecords
    ) -> dict[Key, Row]:
        """Returns the rows of all entries, measuring those that a file lacks."""
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
                raise NotFiniteError(
                    f"the model's output for {entry.photograph} is not finite."
                )
        arrays = np.zeros(count, self.fields)
        arrays["seed"], arrays["index"] = zip(*measured, strict=True)
        arrays["texture"] = scores.textures[:count]
        if scores.features is not None:
            arrays["features"] = scores.features[:count]
        # First what an entry of the journal promises.
        records.add(arrays)
        for (seed, index), row in measured.items():
            journal.add({"seed": seed, "index": index, "values": row})
        rows |= measured

    def _completed(
        self, photographs: list[Photograph]
    ) -> tuple[list[Photograph], list[Image] | None]:
        """Completes photographs by a method other than ours, without those it fails on."""
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
        """Scores a batch, filled up to its size with the last picture."""
        missing = self._size - len(photographs)
        full = [*photographs, *[photographs[-1]] * missing]
        given = None
        if completed is not None:
            given = np.stack([*completed, *[completed[-1]] * missing])
        masks = [entry.mask() for entry, _ in full]
        where = [
            texture.places(mask, entry.index, patches=self._patches)
            for mask, (entry, _) in zip(masks, full, strict=True)
        ]
        return self._scorer(
            np.stack([image for _, image in full]),
            np.stack(masks),
            Places.stacked(where),
            given,
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


def _gathered(
    rows: dict[Key, Row], arrays: np.ndarray, unreadable: dict[str, str]
) -> tuple[dict[Key, Row], np.ndarray, dict[str, str]]:
    """Returns the rows, arrays and unreadable photographs of all hosts, on each of them."""
    if jax.process_count() == 1:
        return rows, arrays, unreadable
    here = {
        "rows": [[*key, row] for key, row in rows.items()],
        "unreadable": unreadable,
    }
    rows, unreadable = {}, {}
    for text in parallel.from_every_host(json.dumps(here)):
        host = json.loads(text)
        rows |= {(seed, index): row for seed, index, row in host["rows"]}
        unreadable |= host["unreadable"]
    everything = b"".join(parallel.bytes_from_every_host(arrays.tobytes()))
    return rows, np.frombuffer(everything, arrays.dtype), unreadable
