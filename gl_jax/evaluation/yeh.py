"""The table of Yeh et al. (CVPR 2017) with measured figures beside the published ones.

It shows the PSNR at 64x64 pixels for four kinds of masks. `evaluate` or `compare` runs once
for each kind, into a subfolder of its name.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import jax

from gl_jax.evaluation.photographs import Selection
from gl_jax.evaluation.protocol import RULES
from gl_jax.evaluation.published import YEH
from gl_jax.evaluation.results import Comparison, Evaluation
from gl_jax.evaluation.tables import csv_text, plain_table
from gl_jax.files import write_output

KINDS = RULES["yeh"].masks
PSNR = "psnr_db"
"""Column of the PSNR over the whole picture."""

Rows = dict[str, dict[str, float]]
"""PSNR in dB by row and kind of masks, unless the method failed on all photographs."""


def run(
    measure: Callable[[Selection, Path], Evaluation | Comparison],
    selection: Selection,
    output: Path,
    *,
    log: Callable[[str], None] = print,
) -> Rows:
    """Measures with each kind of masks; writes yeh.md, .csv and .json into `output`.

    `measure` takes the selection with one kind of masks and the folder for its results.
    Returns the measured rows.
    """
    measured: Rows = {}
    notes: dict[str, None] = {}
    for kind in KINDS:
        # The middle square is the same for every seed.
        seeds = None if kind == "center" else selection.seeds
        result = measure(replace(selection, masks=kind, seeds=seeds), output / kind)
        notes |= dict.fromkeys(result.notes)
        for name, psnr in _psnr(result).items():
            measured.setdefault(name, {})[kind] = psnr
    title = (
        f"PSNR in dB on {selection.data} at 64x64 pixels by kind of masks, beside that of "
        "Yeh et al. 2017 on other photographs and holes."
    )
    published = {f"published: {name}": dict(row) for name, row in YEH.items()}
    columns = list(KINDS)
    rows = measured | published
    text = [title, plain_table("method", columns, _cells(rows, columns)).rstrip()]
    text.append("\n".join(f"- {note}" for note in notes))
    files = {
        "yeh.md": "\n\n".join(text) + "\n",
        "yeh.csv": csv_text(
            [["method", *columns]]
            + [[n, *(row.get(k, "") for k in columns)] for n, row in rows.items()]
        ),
        "yeh.json": json.dumps({"measured": measured, "published": YEH}, indent=2)
        + "\n",
    }
    if jax.process_index() == 0:
        for name, content in files.items():
            write_output(output / name, content.encode(errors="backslashreplace"))
        log(f"{files['yeh.md']}\nWritten to {output}: {', '.join(files)}.")
    return measured


def _psnr(result: Evaluation | Comparison) -> Mapping[str, float]:
    if isinstance(result, Evaluation):
        return {result.settings["model_label"]: result.means()[PSNR]}
    means = {}
    for name in result.methods:
        values = [s.values[PSNR] for s in result.scores if s.method == name]
        if values:
            means[name] = sum(values) / len(values)
    return means


def _cells(rows: Rows, columns: list[str]) -> dict[str, list[str]]:
    return {
        name: [f"{row[kind]:.1f}" if kind in row else "-" for kind in columns]
        for name, row in rows.items()
    }
