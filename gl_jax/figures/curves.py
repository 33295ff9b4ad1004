"""Curves of the metrics over the steps of one or several training runs."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gl_jax.config import Config, Phase
from gl_jax.figures.style import LINE_COLORS, PHASE_COLORS, fitted, plain_style, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Panel:
    """A part of the figure with its own y axis."""

    title: str
    series: Mapping[str, str]
    """Metric -> its name in the legend."""
    held_out: Mapping[str, str] = field(default_factory=dict)
    """Training metric -> the same metric on held-out photographs, drawn dashed."""
    log: bool = False
    """If set, the axis is logarithmic and values of 0 are left out."""
    from_zero: bool = False
    """If set, the axis starts at 0."""
    unbroken: bool = False
    """If set, the line continues from phase to phase."""


TRAINING = (
    Panel("Completion loss", {"completion_loss": "masked MSE"}, log=True),
    Panel("Structure", {"structure_loss": "1 - SSIM"}, log=True),
    Panel(
        "Adversarial game",
        {
            "discriminator_loss": "discriminator loss",
            "adversarial_loss": "adversarial loss",
        },
    ),
    Panel(
        "Discriminator's mean score",
        {"real_score": "of photographs", "fake_score": "of completions"},
    ),
    Panel(
        "Discriminator's accuracy",
        {"real_accuracy": "photographs", "fake_accuracy": "completions"},
        {"real_accuracy": "val_real_accuracy", "fake_accuracy": "val_fake_accuracy"},
    ),
    Panel("Penalty", {"penalty": "on the discriminator's gradient"}, log=True),
    Panel(
        "Augmentation's probability",
        {"augment_probability": "of each change"},
        from_zero=True,
    ),
    Panel("Feature matching", {"feature_loss": "mean absolute difference"}, log=True),
    Panel(
        "Gradient norm at the completed image",
        {
            "completion_gradient_norm": "completion loss",
            "adversarial_gradient_norm": "alpha times adversarial loss",
        },
        log=True,
    ),
    Panel("Speed", {"images_per_second": "images per second"}, from_zero=True),
    Panel(
        "Seconds of a step",
        {
            "data_seconds": "waiting for photographs",
            "device_seconds": "devices",
            "host_seconds": "host",
        },
        from_zero=True,
    ),
    Panel(
        "Use of the time and of the devices",
        {"goodput": "goodput", "mfu": "model FLOP utilisation"},
        from_zero=True,
        unbroken=True,
    ),
)
VALIDATION = (
    Panel("Validation", {"val_psnr": "PSNR of the hole, dB"}, unbroken=True),
    Panel("Validation", {"val_l1": "L1 of the hole"}, unbroken=True),
    Panel(
        "Sliced Wasserstein distance in the hole",
        {"val_swd_fine": "fine", "val_swd_coarse": "coarse"},
        from_zero=True,
        unbroken=True,
    ),
    Panel(
        "Grid energy in the hole",
        {"val_grid": "completions", "val_grid_photographs": "photographs"},
        from_zero=True,
        unbroken=True,
    ),
    Panel(
        "Largest singular value",
        {
            "completion_singular_value": "completion network",
            "discriminator_singular_value": "discriminators",
        },
        log=True,
        unbroken=True,
    ),
)
EVALUATION = tuple(
    Panel(f"Evaluation: {title}", {metric: title}, unbroken=True)
    for metric, title in (
        ("hole_psnr_db", "PSNR in the hole, dB"),
        ("hole_ssim", "SSIM in the hole"),
        ("lpips", "LPIPS"),
        ("fid", "FID"),
        ("kid", "KID"),
    )
)
"""Measures of `gl-jax evaluate --follow`."""

HELD_OUT = "held out"
"""Legend of metrics on photographs outside the training set."""
MANY = 200
"""Fewest points of a curve with a running median."""
FEW = 30
"""Most points of a curve with a dot for each."""
TICK_STEPS = 1, 2, 2.5, 5, 10
"""Distances between ticks, times a power of 10."""

DPI = 120
WIDTH, LEFT, RIGHT = 9.0, 0.75, 0.4
"""The figure's width and its margins, in inches."""
TOP, RUN, STRIP, LEGEND, PANEL, GAP, FOOT = 0.15, 0.4, 0.09, 0.2, 1.2, 0.42, 0.55
"""Heights from top to bottom, in inches; `RUN` is a name and its `STRIP` of phases."""


@dataclass(frozen=True)
class History:
    """A training run to draw: its configuration and the lines of its log."""

    name: str
    config: Config
    metrics: Sequence[Mapping[str, Any]]
    """Lines from `read_metrics`, at least one."""

    def __post_init__(self) -> None:
        if not self.metrics:
            raise ValueError("metrics must hold at least one line: nothing to draw.")

    @property
    def last_step(self) -> int:
        """The last logged step."""
        return max(int(record["step"]) for record in self.metrics)

    def values(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the steps and values of a metric; NaN if a value was not finite."""
        records = [record for record in self.metrics if metric in record]
        steps = np.array([record["step"] for record in records], int)
        return steps, np.array([record[metric] for record in records], float)

    def phases(self) -> list[tuple[int, int, Phase]]:
        """Returns the phases up to the last step as (from, to, phase)."""
        schedule, last = self.config.schedule, self.last_step
        middle = schedule.completion_steps
        ends = middle, middle + schedule.discriminator_steps, last
        spans = itertools.pairwise(sorted({0, *(min(end, last) for end in ends)}))
        phases = []
        for phase, same in itertools.groupby(
            spans, lambda span: self.config.phase_at(span[0])
        ):
            starts, stops = zip(*same, strict=True)
            phases.append((starts[0], stops[-1], phase))
        return phases


class _Line(NamedTuple):
    """One metric of one run; the line is interrupted between `pieces`."""

    label: str
    color: str
    steps: np.ndarray
    values: np.ndarray
    pieces: list[slice]
    style: str = "-"

    @property
    def finite(self) -> np.ndarray:
        finite: np.ndarray = self.values[np.isfinite(self.values)]
        return finite

    @property
    def window(self) -> int:
        """Points of the running median's window; 0 if there are too few for one."""
        points = len(self.finite)
        return points // 25 | 1 if points >= MANY else 0


def draw_curves(
    runs: Sequence[History],
    panels: Sequence[Panel] = (*TRAINING, *VALIDATION, *EVALUATION),
) -> bytes:
    """Draws a PNG of the metrics over the steps, with a strip of phases for each run.

    For one run, legends show the last values and phases are tinted. For several runs,
    each panel has one metric and each run one colour. Panels without a finite value are
    left out.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    single = len(runs) == 1
    if not single:
        panels = [
            replace(
                panel,
                title=f"{panel.title}: {label}"
                + (f" (dashed: {HELD_OUT})" if metric in panel.held_out else ""),
                series={metric: label},
            )
            for panel in panels
            for metric, label in panel.series.items()
        ]
    charts = [(panel, lines) for panel in panels if (lines := _lines(panel, runs))]
    head = TOP + len(runs) * RUN + LEGEND
    height = head + len(charts) * (GAP + PANEL) + FOOT
    last = max(run.last_step for run in runs)
    with plain_style():
        figure = Figure(figsize=(WIDTH, height), dpi=DPI)

        def add_axes(top: float, tall: float) -> "Axes":
            bottom = 1 - (top + tall) / height
            size = 1 - (LEFT + RIGHT) / WIDTH, tall / height
            axes = figure.add_axes((LEFT / WIDTH, bottom, *size))
            axes.set_xlim(0, max(last, 1))
            return axes

        _write_head(figure, runs, height)
        for row, run in enumerate(runs):
            strip = add_axes(TOP + (row + 1) * RUN - STRIP, STRIP)
            strip.set_axis_off()
            for start, end, phase in run.phases():
                strip.axvspan(start, end, color=PHASE_COLORS[phase], lw=0)
        for row, (panel, lines) in enumerate(charts):
            axes = add_axes(head + GAP + row * (PANEL + GAP), PANEL)
            for start, end, phase in runs[0].phases() if single else ():
                axes.axvspan(start, end, color=PHASE_COLORS[phase], alpha=0.09, lw=0)
            _draw_panel(axes, panel, lines)
            if single:
                axes.legend(loc="lower right", bbox_to_anchor=(1, 1.03), ncols=4)
            axes.xaxis.set_major_locator(MaxNLocator(8, steps=TICK_STEPS, integer=True))
            axes.xaxis.set_major_formatter(
                FuncFormatter(lambda step, _: f"{step:,.0f}")
            )
            axes.tick_params(labelbottom=row == len(charts) - 1)
        if charts:
            axes.set_xlabel("step")
        if any(line.window for _, lines in charts for line in lines):
            figure.text(
                1 - RIGHT / WIDTH, 0.12 / height,
                "thin: as logged, thick: running median", color="0.45", ha="right",
            )  # fmt: skip
        return png(figure)


def _lines(panel: Panel, runs: Sequence[History]) -> list[_Line]:
    lines = []
    series = itertools.product(panel.series.items(), runs)
    for ((metric, label), run), color in zip(
        series, itertools.cycle(LINE_COLORS), strict=False
    ):
        lines.append(_line(panel, run, metric, label, color))
        if metric in panel.held_out:
            unbroken = replace(panel, unbroken=True)
            line = _line(unbroken, run, panel.held_out[metric], HELD_OUT, color)
            lines.append(line._replace(style="--"))
    return [line for line in lines if len(line.finite)]


def _line(panel: Panel, run: History, metric: str, label: str, color: str) -> _Line:
    steps, values = run.values(metric)
    phases = np.array([record["phase"] for record in run.metrics if metric in record])
    if panel.log:
        # A lazy penalty is 0 in the steps between; the line skips them.
        shown = ~(values <= 0)
        steps, values, phases = steps[shown], values[shown], phases[shown]
    changes = [i for i in range(1, len(phases)) if phases[i] != phases[i - 1]]
    edges = [0, *(() if panel.unbroken else changes), len(phases)]
    pieces = [slice(*piece) for piece in itertools.pairwise(edges)]
    return _Line(label, color, steps, values, pieces)


def _write_head(figure: "Figure", runs: Sequence[History], height: float) -> None:
    """Writes the runs' names and steps above their strips, the phases' names below."""
    from matplotlib.patches import Patch

    left, right, inner = LEFT / WIDTH, 1 - RIGHT / WIDTH, WIDTH - LEFT - RIGHT
    for row, (run, color) in enumerate(
        zip(runs, itertools.cycle(LINE_COLORS), strict=False)
    ):
        y = 1 - (TOP + (row + 1) * RUN - STRIP - 0.06) / height
        name = fitted(figure, run.name, 0.6 * inner * DPI, 10)
        figure.text(
            left, y, name, size=10, color=color, weight="bold", parse_math=False
        )
        reached = f"step {run.last_step:,} of {run.config.schedule.total_steps:,}"
        figure.text(right, y, reached, color="0.45", ha="right")
    shown = {phase for run in runs for _, _, phase in run.phases()}
    patches = [
        Patch(color=color, label=phase)
        for phase, color in PHASE_COLORS.items()
        if phase in shown
    ]
    below = 1 - (TOP + len(runs) * RUN + 0.06) / height
    figure.legend(
        handles=patches, loc="upper left", bbox_to_anchor=(left, below), ncols=3,
        labelcolor="linecolor", handlelength=0.8,
    )  # fmt: skip


def _draw_panel(axes: "Axes", panel: Panel, lines: Sequence[_Line]) -> None:
    shown = []
    for line in lines:
        finite = line.finite
        label = f"{line.label}: {finite[-1]:.4g}"
        for piece in line.pieces:
            steps, values = line.steps[piece], line.values[piece]
            if line.window:
                axes.plot(steps, values, color=line.color, lw=0.5, alpha=0.3)
                values = _running_median(values, line.window)
            dots: dict[str, Any] = (
                {"marker": "o", "ms": 3, "clip_on": False} if len(finite) <= FEW else {}
            )
            axes.plot(
                steps, values, line.style, color=line.color, lw=1.5, label=label, **dots
            )
            label = "_"  # only the first piece is in the legend
            shown.append(values[np.isfinite(values)])
        # Outliers may exceed the axis, so that a spike does not flatten the rest.
        shown.append(np.percentile(finite, [1, 99] if line.window else [0, 100]))
    limits = np.concatenate(shown)
    low, high = _padded(np.log10(limits) if panel.log else limits, panel.from_zero)
    if panel.log:
        axes.set_yscale("log")
        axes.set_ylim(10.0**low, 10.0**high)
    else:
        axes.set_ylim(low, high)
    _set_ticks(axes, high - low if panel.log else None)
    axes.set_title(panel.title, loc="left", weight="bold")


def _padded(values: np.ndarray, from_zero: bool) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if from_zero:
        return 0.0, 1.1 * high or 1.0
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 0.5
    return low - margin, high + margin


def _set_ticks(axes: "Axes", decades: float | None) -> None:
    """Sets three to five plain numbers on the y axis, for any range."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    if decades is None or decades < 0.9:
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=TICK_STEPS))
    else:
        subs = (1,) if decades > 2.2 else (1, 2, 5)
        axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=6))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def _running_median(values: np.ndarray, window: int) -> np.ndarray:
    """Returns the centred median, which ignores spikes; NaN stays NaN."""
    known = np.isfinite(values)
    points = values[known]
    if not len(points):
        return values
    half = min(window, len(points)) // 2
    padded = np.pad(points, half, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    medians = np.full(len(values), math.nan)
    medians[known] = np.median(windows, axis=1)
    return medians
