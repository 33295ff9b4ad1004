"""A page about training runs: their curves, film strips and ablation side by side.

Everything is read from the runs' folders: config.json, metrics.jsonl, run_status.json
and the arrays in samples/. Nothing is trained or completed, so a run can be shown while it
goes on, even on another machine.
"""

import html
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from gl_jax.config import UsageError
from gl_jax.experiment import read_config
from gl_jax.fields import values_by_name
from gl_jax.figures.curves import EVALUATION, TRAINING, VALIDATION, History, draw_curves
from gl_jax.figures.sheets import Tile, draw_sheet
from gl_jax.files import write_output
from gl_jax.training.report.log import read_history
from gl_jax.training.workdir import read_status

FRAMES = 8
"""Most completions in a film strip, spread evenly from the first to the last."""

ROWS = 4
"""Most photographs in the ablation figure."""

# Labels of the discriminators, in the order of the paper's ablation.
ABLATION = {
    "none": "MSE",
    "global": "MSE + global",
    "local": "MSE + local",
    "both": "MSE + both",
}


class Samples(NamedTuple):
    """The completed photographs of a run at one step."""

    photo: UInt8[np.ndarray, "n s s 3"]
    hole: UInt8[np.ndarray, "n s s 3"]
    """The photograph with a white hole."""
    composite: UInt8[np.ndarray, "n s s 3"]


@dataclass(frozen=True)
class Run(History):
    """A training run, read from its folder."""

    folder: Path
    status: dict[str, Any]

    def sampled(self) -> dict[int, Path]:
        """Returns the sample files by step, in order."""
        paths = sorted((self.folder / "samples").glob("step_*.npz"))
        return {int(path.stem.removeprefix("step_")): path for path in paths}

    def samples(self, step: int) -> Samples:
        """Returns the samples of a step; raises UsageError if they cannot be read."""
        path = self.sampled()[step]
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                photo, mask = arrays["photo"], arrays["mask"]
                completed = arrays["completed"]
        # numpy, zipfile and zlib raise eight unrelated errors for a damaged file.
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UsageError(f"{path} cannot be read: {reason}") from error
        return Samples(
            photo,
            np.where(mask, np.uint8(255), photo),
            np.where(mask, completed, photo),
        )


def report(
    folders: Sequence[Path], output: Path, *, log: Callable[[str], None] = print
) -> Path:
    """Writes report.html and its pictures into `output`; returns the page's path.

    curves.png, validation.png and evaluation.png show all runs, film_NAME.png one
    photograph over a run's training. If the discriminators of the runs differ,
    ablation.png shows the same photographs after each run. The page embeds the pictures,
    so it can be sent as one file.

    Raises UsageError if a folder is no run, or has logged nothing yet.
    """
    if not folders:
        raise UsageError("report needs at least one folder of a training run.")
    runs = read_runs(folders)
    notes: list[str] = []
    pictures = _curves(runs) + _films(runs, notes)
    if len({run.config.model.discriminators for run in runs}) > 1:
        pictures += _ablation(runs, notes)
    files = {picture.name: picture.png for picture in pictures}
    files["report.html"] = _page(runs, pictures, notes).encode()
    for name, content in files.items():
        write_output(output / name, content)
    for note in notes:
        log(note)
    log(f"Written to {output}: {', '.join(reversed(files))}.")
    return output / "report.html"


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Returns the runs in these folders, each with a unique name."""
    runs = []
    for folder in dict.fromkeys(path.resolve() for path in folders):
        config_file = folder / "config.json"
        if not config_file.is_file():
            raise UsageError(
                f"{folder} is no folder of a training run: it has no config.json."
            )
        config = read_config(config_file)
        metrics = read_history(folder)
        if not metrics:
            raise UsageError(
                f"{folder} has no line in metrics.jsonl yet; wait for "
                f"run.log_every (={config.run.log_every}) steps."
            )
        runs.append(Run(config.name, config, metrics, folder, read_status(folder)))
    names = [run.name for run in runs]
    return [
        run
        if names.count(run.name) == 1
        else replace(run, name=f"{run.name} ({run.folder.name})")
        for run in runs
    ]


class Picture(NamedTuple):
    """A picture of the page: file name, caption and PNG bytes."""

    name: str
    caption: str
    png: bytes


def _curves(runs: Sequence[Run]) -> list[Picture]:
    """Draws a figure each of training, validation and evaluation, if any run logged it."""
    pictures = []
    for name, panels, words in (
        ("curves.png", TRAINING, "Training"),
        ("validation.png", VALIDATION, "Validation"),
        ("evaluation.png", EVALUATION, "Evaluation of the checkpoints"),
    ):
        metrics = [metric for panel in panels for metric in panel.series]
        if any(np.isfinite(run.values(m)[1]).any() for run in runs for m in metrics):
            caption = f"{words}: all runs over the steps, their phases above."
            pictures.append(Picture(name, caption, draw_curves(runs, panels)))
    return pictures


def _films(runs: Sequence[Run], notes: list[str]) -> list[Picture]:
    """Draws a strip for each run: the first sampled photograph at several steps."""
    pictures = []
    for run in runs:
        steps = list(run.sampled())
        if not steps:
            notes.append(
                f"no film strip of {run.name}: it has no arrays in samples/ (step_*.npz)."
            )
            continue
        places = np.linspace(0, len(steps) - 1, min(FRAMES, len(steps)))
        shown = [steps[round(place)] for place in places]
        frames = [run.samples(step) for step in shown]
        row = [Tile(frames[0].hole[0])]
        row += [Tile(frame.composite[0]) for frame in frames]
        titles = ["hole", *(f"step {step:,}" for step in shown), "photo"]
        sheet = draw_sheet(titles, [[*row, Tile(frames[0].photo[0])]])
        caption = f"{run.name}: one photograph over the training."
        pictures.append(Picture(f"film_{_plain(run.name)}.png", caption, sheet))
    return pictures


def _ablation(runs: Sequence[Run], notes: list[str]) -> list[Picture]:
    """Draws the paper's ablation: the same holes, completed with other discriminators."""
    order = list(ABLATION)
    ordered = sorted(runs, key=lambda run: order.index(run.config.model.discriminators))
    newest = [(run, max(run.sampled())) for run in ordered if run.sampled()]
    if len(newest) < 2:
        notes.append("no ablation figure: fewer than two runs have arrays in samples/.")
        return []
    samples = [run.samples(step) for run, step in newest]
    if any(not np.array_equal(s.hole, samples[0].hole) for s in samples):
        notes.append(
            "no ablation figure: the runs show different photographs or holes (data.*, "
            "holes.*, run.seed or run.sample_images differ)."
        )
        return []
    kinds = [run.config.model.discriminators for run, _ in newest]
    names = (
        [ABLATION[kind] for kind in kinds]
        if len(set(kinds)) == len(kinds)
        else [run.name for run, _ in newest]
    )
    rows = [
        [
            Tile(samples[0].hole[index]),
            *(
                Tile(completed.composite[index], f"step {step:,}")
                for completed, (_, step) in zip(samples, newest, strict=True)
            ),
            Tile(samples[0].photo[index]),
        ]
        for index in range(min(ROWS, len(samples[0].photo)))
    ]
    sheet = draw_sheet(["input", *names, "photo"], rows)
    return [
        Picture("ablation.png", "Ablation: the effect of each discriminator.", sheet)
    ]


def _plain(name: str) -> str:
    """Replaces all but letters, digits, - and _ by _, for the name of a file."""
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


def _page(
    runs: Sequence[Run], pictures: Sequence[Picture], notes: Sequence[str]
) -> str:
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
        parts += ["<h2>Differences</h2>", _differences(runs)]
    for picture in pictures:
        data, caption = b64encode(picture.png).decode(), html.escape(picture.caption)
        parts.append(
            f'<figure><img src="data:image/png;base64,{data}" alt="{caption}">'
            f"<figcaption>{caption}</figcaption></figure>"
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
    _, speed = run.values("images_per_second")
    measured = np.isfinite(psnr).any()
    best = int(np.nanargmax(psnr)) if measured else 0
    return [
        run.name,
        run.config.model.discriminators,
        f"{run.last_step:,}",
        f"{run.config.schedule.total_steps:,}",
        str(run.status.get("status", "unknown")),
        f"{psnr[best]:.2f}" if measured else "-",
        f"{steps[best]:,}" if measured else "-",
        f"{psnr[-1]:.2f}" if measured else "-",
        f"{np.nanmedian(speed):.3g}" if np.isfinite(speed).any() else "-",
    ]


def _differences(runs: Sequence[Run]) -> str:
    """Returns a table of the fields in which any run differs from the first."""
    values = [values_by_name(run.config) for run in runs]
    rows = [
        [name, *(str(fields.get(name)) for fields in values)]
        for name in dict.fromkeys(name for fields in values for name in fields)
        if any(fields.get(name) != values[0].get(name) for fields in values)
    ]
    if not rows:
        return "<p>None: the configurations are the same.</p>"
    return _table(["field", *(run.name for run in runs)], rows)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(title)}" for title in titles)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in row) for row in rows
    )
    return f"<table><tr>{head}{body}</table>"
