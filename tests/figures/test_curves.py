"""Curves of one run and of several: every panel, phase and word in its place."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gl_jax.config import Config, DataConfig, ModelConfig, ScheduleConfig
from gl_jax.figures import curves
from gl_jax.figures.curves import History, draw_curves

PAPER = Config()
SMALL = Config(
    name="costs $\\frac{$",  # no formula, whatever Matplotlib takes it for
    data=DataConfig(batch_size=4),
    schedule=ScheduleConfig(30, 10, 100),
)
LONG = Config(name="W" * 60, schedule=ScheduleConfig(100, 100, 1_000_000))


def history(
    config: Config, last: int, every: int, eval_every: int, name: str = ""
) -> History:
    """A plausible run: falling losses, a spike now and then."""
    rng = np.random.default_rng(0)
    lines: list[dict[str, Any]] = []
    for step in range(every, last + 1, every):
        phase = config.phase_at(step - 1)
        noise = iter(np.exp(rng.normal(0, 0.1, 8)))
        share = step / config.schedule.total_steps
        line: dict[str, Any] = {"step": step, "phase": str(phase)}
        if phase != "discriminator":
            loss = 0.002 + 0.05 * math.exp(-9 * share)
            line["completion_loss"] = loss * next(noise)
            line["completion_gradient_norm"] = 1e-2 * math.exp(-3 * share) * next(noise)
        if phase != "completion":
            line["discriminator_loss"] = (9 if rng.random() < 0.01 else 1) * next(noise)
            line["real_score"], line["fake_score"] = 0.6 * next(noise), 0.3
            line["real_accuracy"], line["fake_accuracy"] = 0.9375, 0.90625
            line["penalty"] = 0.01 if step % (4 * every) == 0 else 0.0
            line["augment_probability"] = share / 2
        if phase == "joint":
            line["adversarial_loss"] = 1.3 * next(noise)
            line["adversarial_gradient_norm"] = 2e-5 * next(noise)
        line["images_per_second"] = 300 * next(noise)
        lines.append(line)
        if step % eval_every == 0:
            psnr = 24 - 8 * math.exp(-10 * share)
            line = {"step": step, "phase": str(phase), "val_psnr": psnr}
            line["completion_singular_value"] = 2 + share
            line["discriminator_singular_value"] = 3 + share
            if phase != "completion":
                line["val_real_accuracy"] = line["val_fake_accuracy"] = 0.84375
            lines.append(line)
    return History(name or config.name, config, lines)


RUNS: Mapping[str, list[History]] = {
    "three phases": [history(PAPER, 500_000, 1000, 5000)],
    "a sliver of joint": [history(PAPER, 101_000, 500, 5000)],
    "first phase only": [history(PAPER, 60_000, 1000, 5000)],
    "a million steps": [history(LONG, 1_000_000, 5000, 10_000)],
    "two points": [history(SMALL, 100, 50, 100)],
    "one point": [history(SMALL, 50, 50, 50)],
    "several": [
        history(PAPER, 500_000, 1000, 5000, "both"),
        history(LONG, 300_000, 5000, 10_000),
        history(SMALL, 100, 10, 50),
    ],
}


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures drawn, not turned into PNGs."""
    drawn: list[Figure] = []

    def keep(figure: Figure) -> bytes:
        figure.draw_without_rendering()
        drawn.append(figure)
        return b""

    monkeypatch.setattr(curves, "png", keep)
    return drawn


def texts(figure: Figure) -> list[Any]:
    every = figure.findobj(matplotlib.text.Text)
    return [text for text in every if text.get_visible() and text.get_text().strip()]


def titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes if axes.axison]


def panel(figure: Figure, title: str) -> Axes:
    return next(axes for axes in figure.axes if axes.get_title(loc="left") == title)


def phases_named(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("name", RUNS)
def test_no_text_overlaps_or_is_cut(name: str, figures: list[Figure]) -> None:
    draw_curves(RUNS[name])
    (figure,) = figures
    shown = []
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                tick.label1.set_visible(
                    tick.label1.get_visible() and low <= tick.get_loc() <= high
                )
    for text in texts(figure):
        box = text.get_window_extent()
        assert (box.min >= 0).all(), text
        assert (box.max <= figure.bbox.max).all(), text
        shown.append((text, box.padded(-0.5)))
    assert len(shown) > 10
    for (one, box), (other, other_box) in itertools.combinations(shown, 2):
        assert not box.overlaps(other_box), (one, other)


def test_the_name_is_no_formula(figures: list[Figure]) -> None:
    draw_curves([history(SMALL, 50, 10, 10)])
    assert SMALL.name in [text.get_text() for text in figures[0].texts]


def test_a_strip_shows_the_phases(figures: list[Figure]) -> None:
    draw_curves([history(PAPER, 200_000, 1000, 5000)])
    strip = figures[0].axes[0]
    assert phases_named(figures[0]) == ["completion", "discriminator", "joint"]
    lefts = [
        strip.transData.inverted().transform(b.get_window_extent())[0, 0]
        for b in strip.patches
    ]
    np.testing.assert_allclose(lefts, [0, 90_000, 100_000], atol=1e-6)


def test_phases_end_at_the_last_step() -> None:
    assert history(SMALL, 60, 10, 10).phases() == [
        (0, 30, "completion"),
        (30, 40, "discriminator"),
        (40, 60, "joint"),
    ]
    assert history(SMALL, 20, 10, 10).phases() == [(0, 20, "completion")]


def test_without_discriminators_there_is_one_phase(figures: list[Figure]) -> None:
    config = Config(model=ModelConfig(discriminators="none"))
    draw_curves([history(config, 200_000, 1000, 5000)])
    assert phases_named(figures[0]) == ["completion"]


def test_panels_without_numbers_are_left_out(figures: list[Figure]) -> None:
    lines: list[dict[str, Any]] = [
        {"step": 50, "phase": "joint", "completion_loss": None, "adversarial_loss": 1.0},
        {"step": 100, "phase": "joint", "completion_loss": 0.0, "val_psnr": 20.0},
    ]  # fmt: skip
    draw_curves([History("run", SMALL, lines)])
    assert titles(figures[0]) == ["Adversarial game", "Validation"]


def test_a_run_of_nothing_but_nan_can_be_drawn(figures: list[Figure]) -> None:
    lines = [{"step": 50, "phase": "joint", "completion_loss": None}]
    draw_curves([History("run", SMALL, lines)])
    assert titles(figures[0]) == []


def test_several_runs_share_a_panel_for_each_metric(figures: list[Figure]) -> None:
    runs = [history(PAPER, 200_000, 1000, 5000, name) for name in "ab"]
    draw_curves(runs)
    axes = panel(figures[0], "Adversarial game: adversarial loss")
    colors = {text.get_text(): text.get_color() for text in figures[0].texts}
    assert {line.get_color() for line in axes.lines} == {colors["a"], colors["b"]}


def test_a_curve_breaks_between_phases(figures: list[Figure]) -> None:
    draw_curves([history(SMALL, 100, 10, 10)])
    (first, second) = panel(figures[0], "Completion loss").lines
    assert (first.get_xdata()[-1], second.get_xdata()[0]) == (30, 50)
    assert len(panel(figures[0], "Validation").lines) == 1


def test_a_spike_does_not_flatten_the_curve(figures: list[Figure]) -> None:
    run = history(PAPER, 500_000, 1000, 5000)
    run.metrics[300]["discriminator_loss"] = 1e6
    draw_curves([run])
    assert panel(figures[0], "Adversarial game").get_ylim()[1] < 20


def test_a_penalty_that_is_not_due_is_not_drawn(figures: list[Figure]) -> None:
    draw_curves([history(SMALL, 100, 5, 10)])
    (alone, joint) = panel(figures[0], "Penalty").lines
    assert [*alone.get_xdata()] == [40]
    assert [*joint.get_xdata()] == [60, 80, 100]
    assert {*joint.get_ydata()} == {0.01}


def test_held_out_photographs_are_dashed_beside_those_of_training(
    figures: list[Figure],
) -> None:
    draw_curves([history(SMALL, 100, 10, 10)])
    axes = panel(figures[0], "Discriminator's accuracy")
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == [
        "photographs: 0.9375", "held out: 0.8438",
        "completions: 0.9062", "held out: 0.8438",
    ]  # fmt: skip
    styles = {
        (line.get_color(), line.get_linestyle(), len(line.get_xdata()))
        for line in axes.lines
    }
    first, second, *_ = curves.LINE_COLORS
    # Training's curves break where the joint phase begins.
    assert styles == {
        (color, style, points)
        for color in (first, second)
        for style, points in (("-", 1), ("-", 6), ("--", 7))
    }


def test_an_empty_log_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="at least one line"):
        History("run", SMALL, [])


def test_the_users_matplotlib_settings_change_nothing() -> None:
    plain = draw_curves(RUNS["two points"])
    theirs: Any = {"font.size": 30, "figure.facecolor": "black", "lines.marker": "x"}
    with matplotlib.rc_context(theirs):
        assert draw_curves(RUNS["two points"]) == plain


def test_the_running_median_ignores_spikes_and_gaps() -> None:
    values = np.ones(20)
    values[5], values[12] = 100, math.nan
    expected = np.ones(20)
    expected[12] = math.nan
    np.testing.assert_array_equal(curves._running_median(values, 5), expected)
