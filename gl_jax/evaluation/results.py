"""The results of `evaluate` and `compare`: their tables, every value, and their files."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gl_jax.evaluation import published
from gl_jax.evaluation.mask_list import Entry
from gl_jax.evaluation.measures import catalogue
from gl_jax.evaluation.published import Published
from gl_jax.evaluation.tables import (
    Column,
    Estimate,
    Table,
    csv_text,
    estimate,
    finite,
    plain_table,
)
from gl_jax.figures.sheets import Tile, draw_sheet
from gl_jax.files import write_output
from gl_jax.texture import GRIDS

COMPARISON_COLUMNS = {
    "hole_l1_percent": Column("L1 in the hole, %", 2),
    "hole_psnr_db": Column("PSNR in the hole, dB", 2),
    "ssim": Column("SSIM", 4),
    "ms_ssim": Column("MS-SSIM", 4),
    "vif": Column("VIF", 4),
    "sharpness": Column("relative sharpness in the hole", 2),
    "seconds": Column("seconds per image", 4),
    "peak_memory_mib": Column("peak memory, MiB", 1),
}
"""Columns of a comparison's table by the names of their values."""
ABOUT_SETS = (
    "SWD is 1000 x the sliced Wasserstein distance between the completions' and the "
    "photographs' 7x7 patches in the holes: 0 is the same texture. A grid pattern lowers "
    "it too, so read it with grid: the power at periods of 2 and 4 pixels over the mean "
    "power at others, in the middle of the hole, the median over photographs."
)

Key = tuple[int, int]
"""Seed and index of an entry."""
Row = dict[str, float]
"""Metrics by name; NaN if one has no value."""


class Cost(NamedTuple):
    """The cost of a metric or network; NaN if it has none of a kind."""

    operations: float
    """Floating-point operations per photograph and hole."""
    seconds: float
    """Seconds at the end of the evaluation, for all photographs."""


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate.run`."""

    settings: dict[str, Any]
    entries: tuple[Entry, ...]
    rows: Mapping[Key, Row]
    """The metrics of every entry that could be measured."""
    columns: Mapping[str, Column]
    sets: Mapping[int, Row]
    """Measures of the set of a seed's pictures, by seed."""
    set_columns: Mapping[str, Column]
    fid: float | None
    costs: Mapping[str, Cost]
    """Costs by the name of a metric or network."""
    notes: tuple[str, ...]

    def table(self) -> Table:
        """Returns means and standard errors: a row per seed and two over several seeds.

        "Over photographs" averages each photograph's mean over the seeds. "Over seeds"
        averages the means of the seeds, so its error shows the effect of the random
        holes.
        """
        seeds = seeds_of(self.entries)
        by_seed = {
            seed: {i: row for (s, i), row in self.rows.items() if s == seed}
            for seed in seeds
        }
        rows = {
            f"seed {seed}": _estimates(by_index.values(), self.columns)
            for seed, by_index in by_seed.items()
        }
        counts = {f"seed {seed}": len(by_index) for seed, by_index in by_seed.items()}
        if len(seeds) > 1:
            indices = sorted({index for _, index in self.rows})
            by_photograph = [
                [by_seed[s][i] for s in seeds if i in by_seed[s]] for i in indices
            ]
            over_photographs = [self._means(rows) for rows in by_photograph]
            over_seeds = [
                self._means(by_index.values()) for by_index in by_seed.values()
            ]
            for name, values in (
                ("all seeds, over photographs", over_photographs),
                ("all seeds, over seeds", over_seeds),
            ):
                rows[name] = _estimates(values, self.columns)
                counts[name] = len(indices)
        side, settings = self.settings["image_size"], self.settings
        caption = (
            f"{settings['model_label']} on {settings['data']}, {side}x{side} pixels, "
            f"{settings['masks']} masks, protocol {settings['protocol']}: "
            "mean ± standard error."
        )
        return Table(caption, self.columns, rows, counts, self.notes, heading="holes")

    def sets_table(self) -> Table:
        """Returns the measures of sets: a row per seed and one over several seeds."""
        rows = {
            f"seed {seed}": _estimates([values], self.set_columns)
            for seed, values in self.sets.items()
        }
        seeds = [seed for seed, _ in self.rows]
        counts = {f"seed {seed}": seeds.count(seed) for seed in self.sets}
        if len(rows) > 1:
            name = "all seeds, over seeds"
            rows[name] = _estimates(self.sets.values(), self.set_columns)
            counts[name] = len({index for _, index in self.rows})
        about = f" {ABOUT_SETS}" if "grid" in self.set_columns else ""
        caption = f"All photographs of a seed together.{about}"
        return Table(caption, self.set_columns, rows, counts, heading="holes")

    def _means(self, rows: Iterable[Row]) -> Row:
        return {name: e.mean for name, e in _estimates(rows, self.columns).items()}

    def files(self) -> dict[str, str]:
        """Returns the text of every file but the sheet, by name."""
        return {
            "per_image.csv": self.to_csv(),
            "evaluation.md": self.to_markdown(),
            "evaluation.json": self.to_json(),
        }

    def to_markdown(self) -> str:
        """Returns tables, FID, published figures, costs and the command to repeat it."""
        parts = [self.table().to_markdown()]
        if self.set_columns:
            parts.append(self.sets_table().to_markdown())
        if self.fid is not None:
            parts.append(
                f"FID {self.fid:.3f} of all results against the photographs.\n"
            )
        if self._published():
            parts.append(self._beside_published())
        parts.append(self._cost_table())
        parts.append(
            "per_image.csv has the values of each photograph. To measure another model on "
            f"the same photographs and holes:\n\n    {self.settings['rerun']}\n"
        )
        return "\n".join(parts)

    def to_json(self) -> str:
        """Returns settings, tables, FID and costs as JSON; null is unknown or not finite."""
        return _json({
            "settings": self.settings,
            "holes": self.table().to_json(),
            "sets": self.sets_table().to_json(),
            "fid": self.fid,
            "published": [row._asdict() for row in self._published()],
            "costs": {name: finite(c._asdict()) for name, c in self.costs.items()},
            "notes": self.notes,
        })  # fmt: skip

    def means(self) -> dict[str, float]:
        """Returns the mean of each column over all seeds, and FID as `fid`."""
        values: dict[str, float] = {}
        for table in (self.table(), self.sets_table()):
            last = list(table.rows.values())[-1] if table.rows else {}
            values |= {name: value.mean for name, value in last.items()}
        return values | ({} if self.fid is None else {"fid": self.fid})

    def to_csv(self) -> str:
        """Returns CSV with a line per photograph and seed; missing values are empty."""
        grids = GRIDS if "grid" in self.set_columns else ()
        names = (*self.columns, *grids)
        rows = [
            [e.photograph, *key, *(self.rows[key][name] for name in names)]
            for e in self.entries
            if (key := (e.seed, e.index)) in self.rows
        ]
        return csv_text([["photograph", "seed", "index", *names], *rows])

    def _published(self) -> tuple[Published, ...]:
        return published.of(self.settings["protocol"], self.settings["masks"])

    def _beside_published(self) -> str:
        """Returns a table of the measured and the published figures, in the same units."""
        measured, rows = self.means(), self._published()
        titles = {"fid": Column("FID", 2), **self.columns, **self.set_columns}
        names = [name for name in rows[0].values if name in measured]
        table = {"this evaluation": measured} | {r.label: r.values for r in rows}
        return plain_table(
            "",
            [titles[name].title for name in names],
            {
                label: [f"{values[n]:.{titles[n].digits}f}" for n in names]
                for label, values in table.items()
            },
        )

    def _cost_table(self) -> str:
        cells = {
            name: [
                "-" if math.isnan(cost.operations) else f"{cost.operations / 1e9:.3g}",
                "-" if math.isnan(cost.seconds) else f"{cost.seconds:.1f}",
            ]
            for name, cost in self.costs.items()
        }
        return plain_table(
            "cost", ["GFLOP per photograph and hole", "seconds at the end"], cells
        )


def seeds_of(entries: Sequence[Entry]) -> list[int]:
    """Returns the different seeds of the entries, in order."""
    return list(dict.fromkeys(entry.seed for entry in entries))


@dataclass(frozen=True)
class Score:
    """The metrics of one method on one photograph."""

    method: str
    photograph: str
    values: Row
    """Columns of `catalogue.METRICS`, grid energies of `texture.measure`, `seconds` and
    `peak_memory_mib` (see `memory.peak_above`)."""

    def to_json(self) -> dict[str, Any]:
        """Returns method, photograph and all values as one JSON object."""
        about = {"method": self.method, "photograph": self.photograph}
        return about | finite(self.values)


@dataclass(frozen=True)
class Failure:
    """The reason for which a method did not complete a photograph."""

    method: str
    photograph: str
    reason: str


@dataclass(frozen=True)
class Comparison:
    """The result of `compare.run`."""

    settings: dict[str, Any]
    methods: tuple[str, ...]
    """The methods that ran, in the order of the call."""
    scores: tuple[Score, ...]
    failures: tuple[Failure, ...]
    sets: Mapping[str, Row]
    """Measures of the set of a method's pictures, by method.

    A method that failed on every photograph is missing.
    """
    notes: tuple[str, ...]
    """Methods left out and photographs that could not be read, each with its reason."""

    def table(self) -> Table:
        """Returns each method's mean scores and their standard errors over photographs."""
        scores = {
            name: [score.values for score in self.scores if score.method == name]
            for name in self.methods
        }
        metrics = self.settings["metrics"]
        measured = {*catalogue.columns(metrics), "seconds", "peak_memory_mib"}
        columns = {n: c for n, c in COMPARISON_COLUMNS.items() if n in measured}
        sets = catalogue.set_columns(metrics)
        failed = [
            f"{name} failed on photographs that its mean leaves out: "
            + "; ".join(f"{f.photograph} ({f.reason})" for f in failures)
            for name in self.methods
            if (failures := [f for f in self.failures if f.method == name])
        ]
        side, settings = self.settings["image_size"], self.settings
        model = settings["model"]
        label = f", model {model} at step {settings['step']}" if model else ""
        return Table(
            f"Mean ± standard error over photographs of {settings['data']}, "
            f"{side}x{side} pixels, {settings['masks']} masks of seed "
            f"{settings['seed']}{label}.",
            {**columns, **sets},
            {
                name: _estimates(rows, columns)
                | _estimates([self.sets[name]] if name in self.sets else [], sets)
                for name, rows in scores.items()
            },
            {name: len(rows) for name, rows in scores.items()},
            (*([ABOUT_SETS] if sets else []), *self.notes, *failed),
        )

    def files(self) -> dict[str, str]:
        """Returns the text of every file but the sheet, by name."""
        table = self.table()
        return {
            "comparison.md": table.to_markdown(),
            "comparison.csv": table.to_csv(),
            "comparison.json": self.to_json(),
        }

    def to_json(self) -> str:
        """Returns settings, table and every score; null if a number is not finite."""
        return _json({
            "settings": self.settings,
            "methods": self.table().to_json(),
            "scores": [score.to_json() for score in self.scores],
            "failures": [asdict(failure) for failure in self.failures],
            "notes": self.notes,
        })  # fmt: skip


def write(
    result: Evaluation | Comparison,
    output: Path,
    sheet: str,
    titles: Sequence[str],
    tiles: Sequence[Sequence[Tile]],
) -> None:
    """Writes a result's files into `output`, and a sheet if there are rows of tiles."""
    for name, text in result.files().items():
        write_output(output / name, text.encode(errors="backslashreplace"))
    if tiles:
        write_output(output / sheet, draw_sheet(titles, tiles))


def _estimates(
    rows: Iterable[Mapping[str, float]], columns: Iterable[str]
) -> dict[str, Estimate]:
    """Returns each column's mean over the rows that have a value for it."""
    # A hole at the border, for example, has no MS-SSIM.
    rows = list(rows)
    return {
        name: estimate(row[name] for row in rows if not math.isnan(row[name]))
        for name in columns
    }


def _json(record: dict[str, Any]) -> str:
    return json.dumps(record, indent=2, allow_nan=False) + "\n"
