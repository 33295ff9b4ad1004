"""Bars of shares: every word in its place, lengths and intervals as given."""

import itertools

import matplotlib
import pytest
from matplotlib.figure import Figure

from gl_jax.figures import bars
from gl_jax.figures.bars import Bar, draw_bars


def test_bars_have_their_shares_and_words(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(bars, "png", lambda figure: drawn.append(figure) or b"")
    rows = [
        Bar("a $method$ with a name that is far too long for its place", 1.0, (0.9, 1.0),
            "n = 12,345"),
        Bar("b", 0.0, (0.0, 0.25), "n = 11"),
    ]  # fmt: skip
    draw_bars("judged real", rows, [Bar("paper", 0.77)], chance=0.5)
    (figure,) = drawn
    (axes,) = figure.axes
    assert [patch.get_width() for patch in axes.patches] == [100, 0, 77]
    figure.draw_without_rendering()
    texts = figure.findobj(matplotlib.text.Text)
    shown = [text for text in texts if text.get_visible() and text.get_text().strip()]
    boxes = [text.get_window_extent().padded(-0.5) for text in shown]
    assert len(boxes) >= 2 * 3 + 2
    for box in boxes:
        assert (box.min >= 0).all() and (box.max <= figure.bbox.max).all()
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
