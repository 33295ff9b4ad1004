"""The result of a study: shares judged real, confidence intervals and agreement."""

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gl_jax.config import UsageError
from gl_jax.fields import require
from gl_jax.figures.bars import Bar, draw_bars
from gl_jax.files import write_output
from gl_jax.study.answers import (
    Counts,
    Judged,
    count_judgements,
    failed_checks,
    read_answers,
    total,
)
from gl_jax.study.key import Key, read_key
from gl_jax.study.statistics import krippendorff_alpha, wilson

PAPER = {
    "paper, completed faces": 0.770,
    "paper, photographs of faces": 0.965,
}
"""Shares judged real in the paper's study of faces: ten people, one picture at a time."""
TRUTH = "photographs themselves"
"""Row of the photographs in the table of methods."""


@dataclass(frozen=True)
class StudyResult:
    """The counts of a study and their statistics."""

    key: Key
    counts: Mapping[Judged, Counts]
    kept: int
    """Participants whose answers count."""
    excluded: Sequence[int]
    """Numbers of the participants who failed attention checks."""
    alpha: float
    """Krippendorff's alpha over the pictures; NaN if all answers are the same."""

    def by_method(self) -> dict[str, Counts]:
        """Returns the counts of each method and, if they were judged, the photographs."""
        rows = {m: total(self.counts, methods=[m]) for m in self.key.methods}
        if self.key.kind == "single":
            rows[TRUTH] = total(self.counts, methods=[None])
        return rows

    def by_photograph(self) -> dict[str, Counts]:
        """Returns the counts of each photograph's completions, all methods together."""
        return {
            name: total(self.counts, methods=self.key.methods, photograph=name)
            for name in self.key.photographs
        }

    def notes(self) -> list[str]:
        """Returns the notes below the tables, one line each."""
        pairs = (
            " In a pair the picture taken for the photograph is judged real: 50 % means "
            "that nobody can tell."
            if self.key.kind == "pair"
            else ""
        )
        excluded = ", ".join(map(str, self.excluded))
        alpha = "-" if math.isnan(self.alpha) else f"{self.alpha:.3f}"
        return [
            f"Participants: {self.kept} counted, {len(self.excluded)} left out for failed "
            f"attention checks{f' (numbers {excluded})' if excluded else ''}.",
            f"Intervals are Wilson's of 95 %, which assume independent answers.{pairs}",
            f"Agreement between people on the same picture: Krippendorff's alpha {alpha} "
            "(1 complete, 0 chance level, also if nobody can tell).",
        ]


def evaluate(
    folder: Path,
    study: Path,
    *,
    may_fail: int = 0,
    log: Callable[[str], None] = print,
) -> StudyResult:
    """Writes results.md, .csv, .json and .png into the folder `study`; returns the result.

    `folder` holds the files of answers. A participant who failed more than `may_fail`
    attention checks does not count. Raises UsageError for answers that cannot be used,
    and if no participant counts.
    """
    require(may_fail >= 0, "may_fail", may_fail, "at least 0")
    key = read_key(study)
    answers = read_answers(folder, key)
    kept = [a for a in answers if failed_checks(a, key) <= may_fail]
    excluded = [a.participant for a in answers if a not in kept]
    if not kept:
        raise UsageError(
            f"evaluate {folder}: all {len(answers)} participants failed more than "
            f"{may_fail} attention checks, so nothing is left to count; raise --may-fail, "
            "or wait for more answers."
        )
    counts = count_judgements(kept, key)
    pairs = np.array([[c.real, c.judged - c.real] for c in counts.values()])
    alpha = krippendorff_alpha(pairs)
    result = StudyResult(key, counts, len(kept), excluded, alpha)
    text = markdown(result)
    for name, content in {
        "results.md": text.encode(),
        "results.csv": _csv(result).encode(),
        "results.json": json.dumps(_json(result), indent=1, allow_nan=False).encode(),
        "results.png": _figure(result),
    }.items():
        write_output(study / name, content)
    log(text)
    log(f"Written to {study}: results.md, .csv, .json and .png.")
    return result


def markdown(result: StudyResult) -> str:
    """Returns the tables and notes as Markdown, aligned in plain text too."""
    question = (
        "one picture, real or completed?"
        if result.key.kind == "single"
        else "two pictures, which is the photograph?"
    )
    parts = [
        f"Study {result.key.study}: {question}",
        _table("method", result.by_method()),
        _table("completions of", result.by_photograph()),
        "\n".join(f"- {note}" for note in result.notes()),
    ]
    return "\n\n".join(parts) + "\n"


def _table(heading: str, rows: Mapping[str, Counts]) -> str:
    cells = [[heading, "judged real, %", "95 % interval", "answers"]]
    for name, counts in rows.items():
        low, high = wilson(*counts)
        share = f"{100 * counts.real / counts.judged:.1f}" if counts.judged else "-"
        interval = f"{100 * low:.1f} to {100 * high:.1f}"
        cells.append([name.replace("|", "\\|"), share, interval, str(counts.judged)])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(
        "| " + " | ".join([
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]) + " |"
        for row in (cells[0], rule, *cells[1:])
    )  # fmt: skip


def _values(counts: Counts) -> dict[str, Any]:
    low, high = wilson(*counts)
    share = counts.real / counts.judged if counts.judged else None
    return counts._asdict() | {"share": share, "low": low, "high": high}


def _csv(result: StudyResult) -> str:
    """Returns a line for each picture, without a method for a photograph itself."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "photograph", "real", "judged", "share", "low", "high"])
    for picture, counts in result.counts.items():
        writer.writerow([picture.method, picture.photograph, *_values(counts).values()])
    return text.getvalue()


def _json(result: StudyResult) -> dict[str, Any]:
    alpha = None if math.isnan(result.alpha) else result.alpha
    methods, photographs = result.by_method(), result.by_photograph()
    truth = methods.pop(TRUTH, None)
    return {
        "study": result.key.study, "kind": result.key.kind,
        "participants": result.kept, "excluded": list(result.excluded),
        "krippendorff_alpha": alpha,
        "methods": {name: _values(counts) for name, counts in methods.items()},
        "truth": None if truth is None else _values(truth),
        "photographs": {name: _values(c) for name, c in photographs.items()},
    }  # fmt: skip


def _figure(result: StudyResult) -> bytes:
    single = result.key.kind == "single"
    bars = [
        Bar(name, counts.real / counts.judged, wilson(*counts), f"n = {counts.judged}")
        for name, counts in result.by_method().items()
        if counts.judged
    ]
    # The paper's shares are of single pictures and do not apply to pairs.
    references = [Bar(name, share) for name, share in PAPER.items()] if single else []
    title = "judged real" if single else "taken for the photograph, of two"
    return draw_bars(title, bars, references, chance=None if single else 0.5)
