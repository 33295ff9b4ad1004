"""Draws the figures of docs/reproduction.md and writes its table, from the runs' logs.

    python docs/reproduction/report.py RUNS

RUNS holds seed*/SETTING/, as run.sh makes them; settings that have not ended are left out.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from gl_jax.figures.sheets import Tile, draw_sheet
from gl_jax.figures.style import LINE_COLORS, plain_style, png
from gl_jax.texture import SQUARE, places
from gl_jax.training.report import read_metrics

HERE = Path(__file__).parent
PAGE = HERE.parent / "reproduction.md"
SETTINGS = {
    "completion": "completion phase",
    "mse": "squared error",
    "global": "+ global",
    "local": "+ local",
    "both": "+ both",
    "paper": "the paper's own game",
    "glcic_pytorch": "GLCIC-PyTorch",
    "mmediting": "mmediting",
}
ABLATION = ("mse", "global", "local", "both")
COLUMNS = {
    "PSNR, dB": ("val_psnr", 2),
    "L1": ("val_l1", 3),
    "SWD fine": ("val_swd_fine", 1),
    "SWD coarse": ("val_swd_coarse", 1),
    "grid": ("val_grid", 3),
    "right about photographs": ("real_accuracy", 2),
    "right about completions": ("fake_accuracy", 2),
}
CURVES = {
    "PSNR of the hole, dB": ("val_psnr",),
    "Sliced Wasserstein distance, fine": ("val_swd_fine",),
    "Sliced Wasserstein distance, coarse": ("val_swd_coarse",),
    "Grid energy": ("val_grid",),
    "Discriminator's accuracy": ("real_accuracy", "fake_accuracy"),
}
ROWS = 12
"""Photographs of the picture figure."""

Lines = list[dict[str, Any]]


def finished(runs: Path) -> dict[str, list[Path]]:
    """The folders of each setting's finished runs, one for each seed."""
    folders: dict[str, list[Path]] = {}
    for status in sorted(runs.glob("seed*/*/run_status.json")):
        if json.loads(status.read_text())["status"] == "finished":
            folders.setdefault(status.parent.name, []).append(status.parent)
    return {name: folders[name] for name in SETTINGS if name in folders}


def curve(lines: Lines, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a metric of one run; accuracies as means over 200 steps."""
    points = [(line["step"], line[metric]) for line in lines if metric in line]
    steps, values = (np.array(column, float) for column in zip(*points, strict=True))
    if metric.endswith("accuracy"):
        blocks = np.ceil(steps / 200)
        members = [blocks == number for number in np.unique(blocks)]
        values = np.array([values[block].mean() for block in members])
        steps = np.array([steps[block].max() for block in members])
    return steps, values


def last(lines: Lines, metric: str) -> float:
    """The metric at the end of a run; accuracies over the joint phase."""
    values = [line[metric] for line in lines if metric in line]
    if not values:
        return float("nan")
    if metric.endswith("accuracy"):
        return float(np.mean([line[metric] for line in lines if metric in line]))
    return float(values[-1])


def table(logs: dict[str, list[Lines]]) -> str:
    """A row for each setting: the mean and the standard error over its seeds."""
    rows = [
        "| setting | seeds | " + " | ".join(COLUMNS) + " |",
        "| --- |" + " ---: |" * (len(COLUMNS) + 1),
    ]
    for name, runs in logs.items():
        cells = []
        for metric, digits in COLUMNS.values():
            values = np.array([last(lines, metric) for lines in runs])
            if np.isnan(values).any():
                cells.append("-")
                continue
            cell = f"{values.mean():.{digits}f}"
            if len(values) > 1:
                error = values.std(ddof=1) / len(values) ** 0.5
                cell += f" ± {error:.{digits}f}"
            cells.append(cell)
        rows.append(f"| {SETTINGS[name]} | {len(runs)} | " + " | ".join(cells) + " |")
    # The first setting's, because a recipe may draw other holes.
    grids = [last(lines, "val_grid_photographs") for lines in next(iter(logs.values()))]
    rows.append(f"\nThe photographs' own grid energy is {np.mean(grids):.3f}.")
    return "\n".join(rows)


def draw_curves(logs: dict[str, list[Lines]], names: tuple[str, ...]) -> bytes:
    """A panel for each metric: the mean over seeds, and a band from least to largest."""
    with plain_style():
        figure = Figure(figsize=(9, 1.9 * len(CURVES)), dpi=100, layout="constrained")
        axes = figure.subplots(len(CURVES), 1, sharex=True)
        for axis, (title, metrics) in zip(axes, CURVES.items(), strict=True):
            for name, color in zip(names, LINE_COLORS, strict=False):
                for metric, style in zip(metrics, ("-", "--"), strict=False):
                    runs = [
                        curve(lines, metric)
                        for lines in logs.get(name, [])
                        if any(metric in line for line in lines)
                    ]
                    if not runs:
                        continue
                    steps, values = runs[0][0], np.array([each[1] for each in runs])
                    label = SETTINGS[name] if style == "-" else None
                    axis.plot(steps, values.mean(0), style, color=color, label=label)
                    axis.fill_between(
                        steps,
                        values.min(0),
                        values.max(0),
                        color=color,
                        alpha=0.2,
                        lw=0,
                    )
            if title == "Grid energy":
                own = [last(lines, "val_grid_photographs") for lines in logs[names[0]]]
                axis.axhline(np.mean(own), color="0.5", ls=":", label="photographs")
            axis.set_title(title, loc="left", weight="bold")
            axis.legend(
                loc="lower right", bbox_to_anchor=(1, 1), ncols=5, borderaxespad=0.2
            )
        axes[-1].set_xlabel("step of the joint phase; dashed: about completions")
        return png(figure)


def draw_pictures(folders: dict[str, list[Path]]) -> bytes:
    """The same photographs with the same holes, a column for each setting's first seed."""
    columns, titles = [], ["photo", "hole"]
    for name in folders:
        newest = max((folders[name][0] / "samples").glob("*.npz"))
        with np.load(newest) as arrays:
            photo, mask, completed = (
                arrays[key][:ROWS] for key in ("photo", "mask", "completed")
            )
        if not columns:
            columns += [photo, np.where(mask, np.uint8(236), photo)]
        columns.append(np.where(mask, completed, photo))
        titles.append(SETTINGS[name])
    rows = [[Tile(column[row]) for column in columns] for row in range(len(columns[0]))]
    return draw_sheet(titles, rows)


def power(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Mean power of the waves along the axes (row 0) and of all others, by wave number.

    In the grey square of SQUARE pixels inside each hole that is closest to its centre, under
    a Hann window; column k is of k + 2 waves in the square's side. NaN where there are none.
    """
    window = np.hanning(SQUARE + 2)[1:-1]
    total = np.zeros((SQUARE, SQUARE))
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        y, x = places(mask[..., 0] > 0, number).square
        grey = image[y : y + SQUARE, x : x + SQUARE].mean(axis=2) / 255
        total += (
            np.abs(np.fft.fft2((grey - grey.mean()) * np.outer(window, window))) ** 2
        )
    total /= len(images)
    waves = np.abs(np.fft.fftfreq(SQUARE, 1 / SQUARE))
    rows, columns = np.meshgrid(waves, waves, indexing="ij")
    lengths, along = np.rint(np.hypot(rows, columns)), np.minimum(rows, columns) == 0
    # The window spreads the axes' waves over their neighbours.
    away = np.minimum(rows, columns) >= 2
    spectra = np.full((2, SQUARE // 2 - 1), np.nan)
    for row, part in enumerate((along, away)):
        for k in range(2 + row, SQUARE // 2 + 1):
            spectra[row, k - 2] = total[part & (lengths == k)].mean()
    return spectra


def draw_spectra(folders: dict[str, list[Path]]) -> bytes:
    """The spectra inside the holes of the photographs and of each setting's seeds."""
    spectra: dict[str, list[np.ndarray]] = {"photographs": []}
    for name, paths in folders.items():
        for path in paths:
            with np.load(max((path / "samples").glob("*.npz"))) as arrays:
                for label in ("photographs", name):
                    key = "photo" if label == "photographs" else "completed"
                    spectra.setdefault(label, []).append(
                        power(arrays[key], arrays["mask"])
                    )
    periods = SQUARE / np.arange(2, SQUARE // 2 + 1)
    with plain_style():
        figure = Figure(figsize=(9, 3), dpi=100, layout="constrained")
        axes = figure.subplots(1, 2, sharex=True, sharey=True)
        for side, (axis, title) in enumerate(
            zip(axes, ("Waves along the axes", "All other waves"), strict=True)
        ):
            for (name, each), color in zip(
                spectra.items(), ("0.5", *LINE_COLORS), strict=False
            ):
                axis.loglog(
                    periods,
                    np.mean(each, axis=0)[side],
                    color=color,
                    label=SETTINGS.get(name, name),
                    ls=":" if name == "photographs" else "-",
                )
            axis.set_title(title, loc="left", weight="bold")
            axis.set_xlabel("period, pixels")
            axis.set_xticks([2, 3, 4, 5, 8], ["2", "3", "4", "5", "8"], minor=False)
            axis.set_xticks([], minor=True)
        axes[0].set_ylabel("power")
        axes[1].legend(loc="upper right")
        return png(figure)


def main(runs: Path) -> None:
    """Writes the figures beside this file and the table into the page."""
    folders = finished(runs)
    if not folders:
        sys.exit(f"{runs} holds no finished run: make reproduce trains them.")
    logs = {
        name: [read_metrics(each / "metrics.jsonl") for each in paths]
        for name, paths in folders.items()
    }
    drawn = tuple(name for name in SETTINGS if name in logs and name != "completion")
    ablation = tuple(name for name in ABLATION if name in logs)
    if ablation:
        (HERE / "curves.png").write_bytes(draw_curves(logs, ablation))
        (HERE / "spectra.png").write_bytes(
            draw_spectra({name: folders[name] for name in ablation})
        )
    (HERE / "pictures.png").write_bytes(
        draw_pictures({name: folders[name] for name in ("completion", *drawn)})
    )
    text = PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- table -->\n", "<!-- end of table -->"
    head, rest = text.split(begin, 1)
    tail = rest.split(end, 1)[1]
    PAGE.write_text(f"{head}{begin}\n{table(logs)}\n\n{end}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
