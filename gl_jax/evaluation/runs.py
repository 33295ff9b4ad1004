"""Several training runs side by side: their curves, how one photograph changed, one page.

Everything is read from the runs' folders: config.json, metrics.jsonl, run_status.json
and the sheets in samples/. Nothing is trained or completed here, so a run that is still
going on, on another machine even, can be looked at.
"""

import html
import itertools
import json
import math
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from gl_jax.config import Config, Phase, UsageError, differences
from gl_jax.evaluation.figures import Curve, Tile, comparison_sheet, curves_figure
from gl_jax.files import writing
from gl_jax.inpainting import images
from gl_jax.training.report import Record, cut_sheet, read_metrics

FRAMES = 8
"""Pictures in a film strip, at most: the first, the last, and some between."""

ROWS = 4
"""Photographs of the ablation figure, at most."""

# The order of the paper's ablation: what each discriminator adds.
ABLATION = {
    "none": "MSE",
    "global": "MSE + global",
    "local": "MSE + local",
    "both": "MSE + both",
}

PANELS = {
    "completion_loss": "Completion loss (masked MSE)",
    "structure_loss": "Structure (1 - SSIM)",
    "adversarial_loss": "Adversarial loss",
    "discriminator_loss": "Discriminator loss",
    "real_score": "Discriminator's mean score of photographs",
    "fake_score": "Discriminator's mean score of completions",
    "images_per_second": "Images per second",
}
VALIDATION = {
    "val_psnr": "Validation: PSNR of the hole, dB",
    "val_l1": "Validation: L1 of the hole",
}
LOGARITHMIC = ("completion_loss",)

Pictures = dict[str, UInt8[np.ndarray, "n s s 3"]]


@dataclass(frozen=True)
class Run:
    """What the folder of a training run says."""

    name: str
    """The experiment's name, with the folder's where two runs have the same."""
    folder: Path
    config: Config
    metrics: list[Record]
    status: dict[str, Any]

    @property
    def last_step(self) -> int:
        """The newest step that was logged."""
        return max(int(record["step"]) for record in self.metrics)

    def values(self, metric: str) -> tuple[list[int], list[float]]:
        """Steps and values of a metric; NaN where it was not finite."""
        found = [record for record in self.metrics if metric in record]
        steps = [int(record["step"]) for record in found]
        return steps, [
            math.nan if record[metric] is None else float(record[metric])
            for record in found
        ]

    def phases(self) -> list[tuple[int, int, Phase]]:
        """The phases so far, as (from, to, phase)."""
        schedule = self.config.schedule
        middle = schedule.completion_steps
        edges = [0, middle, middle + schedule.discriminator_steps, schedule.total_steps]
        steps = sorted({min(edge, self.last_step) for edge in edges})
        found: list[tuple[int, int, Phase]] = []
        for start, end in itertools.pairwise(steps):
            phase = self.config.phase_at(start)
            if found and found[-1][2] == phase:
                found[-1] = (found[-1][0], end, phase)
            else:
                found.append((start, end, phase))
        return found

    def sheets(self) -> dict[int, Path]:
        """The sheets of samples by step, in order."""
        paths = sorted((self.folder / "samples").glob("step_*.png"))
        return {int(path.stem.removeprefix("step_")): path for path in paths}

    def pictures(self, step: int) -> Pictures:
        """The pictures of a sheet by column; UsageError where it cannot be read."""
        path = self.sheets()[step]
        try:
            return cut_sheet(
                images.read_rgb(path.read_bytes(), path.name),
                self.config.data.image_size,
            )
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} cannot be read: {error}") from error


def report(
    folders: Sequence[Path], output: Path, *, log: Callable[[str], None] = print
) -> Path:
    """Writes report.html and the pictures in it into `output`; returns the page's path.

    curves.png and validation.png hold all runs, film_NAME.png one photograph of a run
    over its training, ablation.png the same photographs after each of the runs, where
    these differ in their discriminators. The page holds the pictures itself: one file,
    to be opened from disk or sent.

    Raises UsageError where a folder is no run, or has logged nothing yet.
    """
    if not folders:
        raise UsageError("report needs at least one folder of a training run.")
    runs = read_runs(folders)
    with writing(f"output {output}"):
        output.mkdir(parents=True, exist_ok=True)
    notes: list[str] = []
    figures = _curves(runs, output) | _films(runs, output, notes)
    if len({run.config.model.discriminators for run in runs}) > 1:
        figures |= _ablation(runs, output, notes)
    page = output / "report.html"
    page.write_text(_page(runs, figures, notes), encoding="utf-8")
    for note in notes:
        log(note)
    log(f"Written to {output}: report.html, {', '.join(p.name for p in figures)}.")
    return page


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs in these folders, each under a name of its own."""
    runs = []
    for folder in dict.fromkeys(path.resolve() for path in folders):
        config_file, metrics_file = folder / "config.json", folder / "metrics.jsonl"
        if not config_file.is_file():
            raise UsageError(
                f"{folder} is no folder of a training run: it has no config.json."
            )
        config = Config.from_json(config_file.read_text(encoding="utf-8"))
        metrics = read_metrics(metrics_file) if metrics_file.is_file() else []
        if not metrics:
            raise UsageError(
                f"{folder} has no line in metrics.jsonl yet; wait for "
                f"run.log_every (={config.run.log_every}) steps."
            )
        status_file = folder / "run_status.json"
        status = json.loads(status_file.read_text()) if status_file.is_file() else {}
        runs.append(Run(config.name, folder, config, metrics, status))
    names = [run.name for run in runs]
    return [
        run
        if names.count(run.name) == 1
        else Run(
            f"{run.name} ({run.folder.name})",
            run.folder, run.config, run.metrics, run.status,
        )
        for run in runs
    ]  # fmt: skip


def _curves(runs: Sequence[Run], output: Path) -> dict[Path, str]:
    """Each panel with all runs in it; what no run has logged is left out."""
    found = {}
    for name, panels, words in (
        ("curves.png", PANELS, "Training"),
        ("validation.png", VALIDATION, "Validation"),
    ):
        curves = [
            Curve(run.name, metric, *run.values(metric))
            for run in runs
            for metric in panels
            if np.isfinite(run.values(metric)[1]).any()
        ]
        if curves:
            path = output / name
            bands = {
                run.name: [(a, b, phase.value) for a, b, phase in run.phases()]
                for run in runs
            }
            curves_figure(path, panels, curves, bands, logarithmic=LOGARITHMIC)
            found[path] = f"{words}: all runs over the steps, their phases above."
    return found


def _films(runs: Sequence[Run], output: Path, notes: list[str]) -> dict[Path, str]:
    """A strip for each run: the first sampled photograph at several steps."""
    found = {}
    for run in runs:
        steps = list(run.sheets())
        if not steps:
            notes.append(f"{run.name} has no sheet of samples yet: no film strip.")
            continue
        places = np.linspace(0, len(steps) - 1, min(FRAMES, len(steps)))
        shown = [steps[round(place)] for place in places]
        frames = [run.pictures(step) for step in shown]
        first = frames[0]
        row = [Tile(first["hole"][0])]
        row += [Tile(frame["composite"][0]) for frame in frames]
        titles = ["hole", *(f"step {step:,}" for step in shown), "photo"]
        path = output / f"film_{_plain(run.name)}.png"
        comparison_sheet(path, titles, [[*row, Tile(first["photo"][0])]])
        found[path] = f"{run.name}: one photograph over the training."
    return found


def _ablation(runs: Sequence[Run], output: Path, notes: list[str]) -> dict[Path, str]:
    """The paper's ablation figure: the same holes after runs that differ in their judges."""
    order = list(ABLATION)
    ordered = sorted(runs, key=lambda run: order.index(run.config.model.discriminators))
    sampled = [run for run in ordered if run.sheets()]
    if len(sampled) < 2:
        notes.append("fewer than two runs have sheets of samples: no ablation figure.")
        return {}
    latest = [run.pictures(max(run.sheets())) for run in sampled]
    if any(not np.array_equal(p["hole"], latest[0]["hole"]) for p in latest):
        notes.append(
            "the runs show other photographs or holes (data.*, holes.*, run.seed or "
            "run.sample_images differ): no ablation figure."
        )
        return {}
    titles = [
        ABLATION[run.config.model.discriminators]
        if len({r.config.model.discriminators for r in sampled}) == len(sampled)
        else run.name
        for run in sampled
    ]
    rows = []
    for index in range(min(ROWS, len(latest[0]["hole"]))):
        completed = [
            Tile(pictures["composite"][index], f"step {max(run.sheets()):,}")
            for run, pictures in zip(sampled, latest, strict=True)
        ]
        ends = [Tile(latest[0][name][index]) for name in ("hole", "photo")]
        rows.append([ends[0], *completed, ends[1]])
    path = output / "ablation.png"
    comparison_sheet(path, ["input", *titles, "photo"], rows)
    return {path: "Ablation: what each discriminator adds."}


def _plain(name: str) -> str:
    """A name of a file: letters, digits, - and _."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)


# --- the page ---

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 68rem;
       padding: 0 1rem; color: #222; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2.2rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child { text-align: left }
figure { margin: 1rem 0; overflow-x: auto } img { max-width: 100%; height: auto }
figcaption { color: #666; font-size: .9rem }
""".strip()


def _page(runs: Sequence[Run], figures: dict[Path, str], notes: Sequence[str]) -> str:
    heading = ", ".join(run.name for run in runs)
    parts = [
        "<!doctype html>",
        '<html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{html.escape(heading)}</title><style>{STYLE}</style>",
        f"<h1>{html.escape(heading)}</h1>",
        _table(SUMMARY, [_summary(run) for run in runs]),
    ]
    if len(runs) > 1:
        parts += ["<h2>What differs</h2>", _differences(runs)]
    for path, words in figures.items():
        data = b64encode(path.read_bytes()).decode()
        parts.append(
            f'<figure><img src="data:image/png;base64,{data}" alt="{html.escape(words)}">'
            f"<figcaption>{html.escape(words)}</figcaption></figure>"
        )
    if notes:
        items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
        parts.append(f"<h2>Left out</h2><ul>{items}</ul>")
    return "\n".join([*parts, "</html>\n"])


SUMMARY = (
    "run", "discriminators", "step", "of", "status", "best PSNR, dB", "at step",
    "newest PSNR, dB", "images per second",
)  # fmt: skip


def _summary(run: Run) -> list[str]:
    steps, psnr = run.values("val_psnr")
    best = int(np.nanargmax(psnr)) if np.isfinite(psnr).any() else None
    speed = [value for value in run.values("images_per_second")[1] if value == value]
    return [
        run.name,
        run.config.model.discriminators,
        f"{run.last_step:,}",
        f"{run.config.schedule.total_steps:,}",
        str(run.status.get("status", "unknown")),
        "-" if best is None else f"{psnr[best]:.2f}",
        "-" if best is None else f"{steps[best]:,}",
        "-" if best is None else f"{psnr[-1]:.2f}",
        f"{np.median(speed):.3g}" if speed else "-",
    ]


def _differences(runs: Sequence[Run]) -> str:
    """The fields of the configuration in which any run differs from the first."""
    first, *others = [run.config for run in runs]
    names = dict.fromkeys(
        name for other in others for name, _, _ in differences(first, other)
    )
    rows = []
    for name in names:
        changed = [
            {field: theirs for field, _, theirs in differences(first, other)}
            for other in others
        ]
        ours = next(
            mine
            for other in others
            for field, mine, _ in differences(first, other)
            if field == name
        )
        rows.append([name, str(ours), *(str(c.get(name, ours)) for c in changed)])
    if not rows:
        return "<p>Nothing: the configurations are the same.</p>"
    return _table(["field", *(run.name for run in runs)], rows)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(title)}" for title in titles)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in row) for row in rows
    )
    return f"<table><tr>{head}{body}</table>"
