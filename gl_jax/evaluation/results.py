"""The result of an evaluation: its table, every value, and the figures to set beside it."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gl_jax.evaluation.mask_list import Entry
from gl_jax.evaluation.protocol import PUBLISHED
from gl_jax.evaluation.tables import Column, Table, estimate

Key = tuple[int, int]
"""Seed and index of an entry."""
Row = dict[str, float]


def seeds_of(entries: Sequence[Entry]) -> list[int]:
    """The seeds of the holes, each once, in order."""
    return list(dict.fromkeys(entry.seed for entry in entries))


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate.run` finds, as it also stands in evaluation.json."""

    settings: dict[str, Any]
    entries: tuple[Entry, ...]
    rows: Mapping[Key, Row]
    """The metrics of every entry that could be measured."""
    columns: Mapping[str, Column]
    fid: float | None
    notes: tuple[str, ...]

    def table(self) -> Table:
        """A row for each seed and, of several, two for all: over photographs, over seeds.

        Mean ± standard error. Over photographs, each one's mean over the seeds counts
        once. Over seeds, the mean of the seeds' means: how much chance the holes bring.
        """
        seeds = seeds_of(self.entries)
        rows: dict[str, dict[str, Any]] = {}
        counts = {}
        by_seed = {
            seed: {i: row for (s, i), row in self.rows.items() if s == seed}
            for seed in seeds
        }
        for seed, found in by_seed.items():
            rows[f"seed {seed}"] = self._estimates(list(found.values()))
            counts[f"seed {seed}"] = len(found)
        if len(seeds) > 1:
            means = [
                {name: row[name].mean for name in self.columns} for row in rows.values()
            ]
            indices = sorted({index for _, index in self.rows})
            each = [
                self._means([by_seed[s][i] for s in seeds if i in by_seed[s]])
                for i in indices
            ]
            for name, values in (
                ("all seeds, over photographs", each),
                ("all seeds, over seeds", means),
            ):
                rows[name] = self._estimates(values)
                counts[name] = len(indices)
        of = self.settings
        caption = (
            f"{of['model_label']} on {of['data']}, {of['image_size']}x"
            f"{of['image_size']} pixels, {of['masks']} masks, protocol {of['protocol']}: "
            "mean ± standard error."
        )
        return Table(caption, self.columns, rows, counts, self.notes, heading="holes")

    def _estimates(self, rows: Sequence[Row]) -> dict[str, Any]:
        # A hole at the border has no MS-SSIM; the mean is over the others.
        return {
            name: estimate(row[name] for row in rows if not math.isnan(row[name]))
            for name in self.columns
        }

    def _means(self, rows: Sequence[Row]) -> Row:
        return {name: value.mean for name, value in self._estimates(rows).items()}

    def to_markdown(self) -> str:
        """The table, the published figures where they belong, and how to rerun it."""
        of = self.settings
        parts = [self.table().to_markdown()]
        if self.fid is not None:
            parts.append(
                f"FID {self.fid:.3f} of all results against the photographs.\n"
            )
        if of["protocol"] == "mmediting":
            parts.append(published(self.table()))
        parts.append(
            "Every value by itself is in per_image.csv. To measure another model on the "
            f"same photographs with the same holes:\n\n    {of['rerun']}\n"
        )
        return "\n".join(parts)

    def to_json(self) -> str:
        """Settings, the table and FID; null stands for what is not finite or not known."""
        record = {
            "settings": self.settings,
            "holes": self.table().to_json(),
            "fid": self.fid,
            "published": [row._asdict() for row in PUBLISHED]
            if self.settings["protocol"] == "mmediting"
            else [],
            "notes": self.notes,
        }
        return json.dumps(record, indent=2, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """A line for each photograph and seed with every metric; unknown is empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["photograph", "seed", "index", *self.columns])
        for entry in self.entries:
            row = self.rows.get((entry.seed, entry.index))
            if row is None:
                continue
            values = [row[name] for name in self.columns]
            known = ["" if math.isnan(value) else value for value in values]
            writer.writerow([entry.photograph, entry.seed, entry.index, *known])
        return text.getvalue()


def published(table: Table) -> str:
    """The figures of mmediting and ours as text, in the same units."""
    row = list(table.rows.values())[-1]
    ours = [row[name].mean for name in ("hole_l1_percent", "psnr_db", "ssim")]
    lines = [
        "| GLCIC | L1 in the hole, % | PSNR, dB | SSIM |",
        "| ----- | ----------------: | -------: | ---: |",
        f"| this evaluation | {ours[0]:.3f} | {ours[1]:.3f} | {ours[2]:.3f} |",
        *(
            f"| mmediting, {r.data} | {r.l1:.3f} | {r.psnr:.3f} | {r.ssim:.3f} |"
            for r in PUBLISHED
        ),
    ]
    return (
        "\n".join(lines)
        + "\n\nThe images differ: the published figures are of mmediting's own lists of "
        "photographs with unseeded crops and boxes, so only the same photographs can be "
        "compared, and those not to the last digit.\n"
    )
