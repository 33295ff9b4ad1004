"""Measures of the set of a seed's pictures, from the features of each picture."""

import math
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from gl_jax import texture
from gl_jax.evaluation.measures import distances, separability

Row = dict[str, float]

OF_SETS: Mapping[str, Callable[[np.ndarray], Row]] = {
    "kid": distances.kernel_of_set,
    "precision": distances.precision_of_set,
    "ids": separability.of_set,
}
"""Measures of the features of a set, by the names of their metrics."""


def measure_sets(
    rows: Mapping[tuple[int, int], Row],
    arrays: np.ndarray,
    metrics: Sequence[str],
    notes: list[str],
) -> tuple[dict[int, Row], float | None, dict[str, float]]:
    """Returns each seed's measures, the FID over all seeds, and seconds by metric.

    `rows` are by seed and index. `arrays` are records of `seed`, `index` and, for the
    metrics that need them, `texture` and `features`; the newest of an entry counts.
    `notes` gets a line for each value that is left out or means little.
    """
    newest = {
        (int(record["seed"]), int(record["index"])): number
        for number, record in enumerate(arrays)
    }
    keys = sorted(rows)
    arrays = arrays[[newest[key] for key in keys]]
    sets: dict[int, Row] = {seed: {} for seed in sorted({seed for seed, _ in keys})}
    seconds: dict[str, float] = {}
    grids = np.array(
        [[rows[key].get(n, math.nan) for n in texture.GRIDS] for key in keys]
    )
    if "texture" in metrics:
        notes += texture.left_out(arrays["texture"], grids)
    for name in metrics:
        if name != "texture" and name not in OF_SETS:
            continue
        start = time.perf_counter()
        for seed in sets:
            selected = arrays["seed"] == seed
            chosen = arrays[selected]
            sets[seed] |= (
                texture.of_set(chosen["texture"], grids[selected])
                if name == "texture"
                else OF_SETS[name](chosen["features"])
            )
        seconds[name] = time.perf_counter() - start
    if "ids" in metrics:
        scores = {
            seed: {name: row[name] for name in row if "_ids_" in name}
            for seed, row in sets.items()
        }
        least = min(int(np.sum(arrays["seed"] == seed)) for seed in sets)
        notes += separability.notes(scores, least, arrays["features"].shape[-1])
    if "fid" not in metrics or len(arrays) < distances.FEWEST:
        return sets, None, seconds
    features = arrays["features"]
    count, _, width = features.shape
    if count < width:
        notes.append(
            f"FID over {count} pictures, fewer than its {width} features, is comparable "
            "only over as many pictures."
        )
    start = time.perf_counter()
    pair = (distances.Moments.of(features[:, side]) for side in (0, 1))
    frechet = distances.frechet_distance(*pair)
    seconds["fid"] = time.perf_counter() - start
    return sets, frechet, seconds
