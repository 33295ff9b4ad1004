"""Measures how well a model completes photographs: `gl-jax evaluate`.

The mask list is written first. Then all photographs are completed and measured in batches
over all devices, each host its own share, and every result is kept in a journal. In the
end the first host gathers all rows and writes the report.
"""

import json
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gl_jax import parallel, texture
from gl_jax.config import UsageError
from gl_jax.evaluation import mask_list, methods, results
from gl_jax.evaluation.batches import Batches
from gl_jax.evaluation.mask_list import Entry
from gl_jax.evaluation.masks import kind
from gl_jax.evaluation.measures import catalogue, distances
from gl_jax.evaluation.measures.scorer import (
    Networks,
    Scorer,
    load_networks,
)
from gl_jax.evaluation.measures.sets import measure_sets
from gl_jax.evaluation.methods import Method
from gl_jax.evaluation.photographs import (
    SMALLEST,
    Reader,
    Selection,
    hole_notes,
    require_at_least,
    unreadable_notes,
)
from gl_jax.evaluation.protocol import IMAGE_SIZE, Rules
from gl_jax.evaluation.results import Cost, Evaluation, Key, Row, seeds_of
from gl_jax.evaluation.resume import ArrayRecords, Journal
from gl_jax.weights.native import Model


def run(
    model: str | Path | None,
    selection: Selection,
    output: Path,
    *,
    experiment: Path | None = None,
    method: str = methods.OURS,
    metrics: Sequence[str] | None = None,
    fid_weights: Path | None = None,
    lpips_weights: tuple[Path, ...] = (),
    batch_size: int = 8,
    sheet_rows: int = 8,
    loaded: Model | None = None,
    log: Callable[[str], None] = print,
) -> Evaluation:
    """Measures a model; writes masks.jsonl, per_image.csv, evaluation.md, .json, .png.

    `model` and `experiment` are as in `gl_jax.load`; `loaded` is the model, if it is loaded
    already. `method` is `gl`, ours, or as in `methods.parse`. Each device takes
    `batch_size` photographs at once. The sheet shows the first `sheet_rows` photographs.

    `metrics` are names of `catalogue.METRICS`; by default those of the protocol, or all
    whose weights are given. PSNR is always among them.

    Repeated, the call continues after an interruption. A photograph that cannot be read or
    completed is left out and named, as are holes too small for SWD and grid energy.

    Raises UsageError for mistakes of the caller, if `output` holds results with other
    settings, and if the model's output is not finite.
    """
    selection.check()
    require_at_least("batch_size", batch_size, 1)
    rules = selection.rules
    chosen = _chosen(selection, metrics, fid_weights, lpips_weights)
    loaded, other = methods.measured(method, model, experiment, loaded)
    source = selection.open()
    entries = selection.entries(source, selection.side(_trained_size(loaded)))
    side, count = entries[0].height, len({entry.index for entry in entries})
    networks = _networks(chosen, fid_weights, lpips_weights, side, count, rules)
    settings = {
        "model": methods.fingerprint_of(loaded, other),
        "photographs": source.fingerprint(),
        **_settings(selection, entries), "metrics": list(chosen), **networks.hashes,
    }  # fmt: skip
    scorer = Scorer(
        None if other else loaded, networks, metrics=chosen, raw_l1=rules.raw_l1
    )
    reader = Reader(source, side)
    fill, patches = other.fill if other else None, texture.patches_each(count)
    batches = Batches(scorer, reader, fill, batch_size, patches, log)
    rows, arrays = _measure_share(batches, entries, settings, output)
    rows, arrays, unreadable = _gathered(rows, arrays, reader.unreadable)
    if not rows:
        raise UsageError(
            f"no photograph can be read and completed; {next(iter(unreadable.values()))}"
        )
    notes = [
        *rules.notes,
        *networks.notes,
        *(catalogue.skipped(chosen) if (metrics or rules.metrics) is None else []),
        *selection.left_out(source),
        *hole_notes(selection, entries),
        *(methods.notes(other, side) if other else []),
        *unreadable_notes(unreadable),
    ]
    sets, frechet, seconds = measure_sets(rows, arrays, chosen, notes)
    result = Evaluation(
        settings | _labels(selection, output, model, loaded, other, metrics),
        tuple(entries), rows,
        catalogue.columns(chosen), sets, catalogue.set_columns(chosen), frechet,
        _costs(scorer.costs(side), seconds), tuple(notes),
    )  # fmt: skip
    if jax.process_index() == 0:
        tiles = batches.tiles(result, sheet_rows)
        titles = ["input", "completed", "truth"]
        results.write(result, output, "evaluation.png", titles, tiles)
        log(result.to_markdown())
        log(f"Written to {output}: evaluation.md, .json and .png, per_image.csv.")
    return result


def _costs(
    operations: Mapping[str, float], seconds: Mapping[str, float]
) -> dict[str, Cost]:
    nothing = math.nan
    return {
        name: Cost(operations.get(name, nothing), seconds.get(name, nothing))
        for name in [*operations, *(n for n in seconds if n not in operations)]
    }


def _chosen(
    selection: Selection,
    metrics: Sequence[str] | None,
    fid_weights: Path | None,
    lpips_weights: tuple[Path, ...],
) -> tuple[str, ...]:
    """Returns the metrics of the user, else of the protocol, else of the weights."""
    weights = [catalogue.INCEPTION] if fid_weights is not None else []
    weights += [catalogue.LPIPS] if lpips_weights else []
    if metrics is None and selection.rules.metrics is not None:
        return catalogue.choose(
            selection.rules.metrics, weights, protocol=selection.protocol
        )
    return catalogue.choose(metrics, weights)


def _networks(
    metrics: tuple[str, ...],
    fid_weights: Path | None,
    lpips_weights: tuple[Path, ...],
    side: int,
    count: int,
    rules: Rules,
) -> Networks:
    """Loads the networks of the metrics; raises UsageError if they do not fit."""
    if set(metrics) & set(catalogue.OF_FEATURES) and count < distances.FEWEST:
        raise UsageError(
            f"{catalogue.FEATURE_METRICS} need at least {distances.FEWEST} "
            f"photographs, there are {count}; leave out --fid-weights."
        )
    networks = load_networks(fid_weights, lpips_weights, side, rules.resize)
    distance = networks.lpips
    if distance is not None and rules.lpips not in (None, distance.name):
        raise UsageError(
            f"--lpips-weights are of {distance.name}, and LPIPS of this protocol is by "
            f"{rules.lpips}."
        )
    return networks


def _trained_size(model: Model | None) -> int:
    """Returns the side in pixels of the model's training, or the paper's 256."""
    trained = model.training.get("image size") if model else None
    if isinstance(trained, int) and trained >= SMALLEST:
        return trained
    return IMAGE_SIZE


def _settings(selection: Selection, entries: Sequence[Entry]) -> dict[str, Any]:
    """Returns the settings on which the results depend; a digest stands for the masks."""
    path = Path(selection.masks).expanduser()
    files = "folder" if path.is_dir() else "list"
    return {
        "protocol": selection.protocol,
        "masks": selection.masks if kind(selection.masks) else files,
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
    metrics: Sequence[str] | None,
) -> dict[str, Any]:
    """Returns the settings for the reader, with the command that repeats the run."""
    label = "the shipped model" if model is None else f"model {model}"
    label = f"method {method.name}" if method and model is None else label
    name = loaded.name if loaded else ""
    words = ["gl-jax", "evaluate", "--model", "MODEL", "--data", selection.data]
    words += ["--masks", str(output / "masks.jsonl"), "--output", "FOLDER"]
    words += ["--protocol", selection.protocol] if selection.protocol != "own" else []
    words += ["--metrics", ",".join(metrics)] if metrics is not None else []
    words += ["--split", selection.split] if selection.split != "validation" else []
    return {
        "model_label": f"{label} ({name})" if name else label,
        "data": selection.data, "masks": selection.masks, "split": selection.split,
        "rerun": shlex.join(words),
    }  # fmt: skip


def _measure_share(
    batches: Batches, entries: list[Entry], settings: dict[str, Any], output: Path
) -> tuple[dict[Key, Row], np.ndarray]:
    """Returns this host's rows; a mistake on one host ends all hosts."""
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


def _gathered(
    rows: dict[Key, Row], arrays: np.ndarray, unreadable: dict[str, str]
) -> tuple[dict[Key, Row], np.ndarray, dict[str, str]]:
    """Returns the rows, arrays and unreadable photographs of all hosts, on every host."""
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
