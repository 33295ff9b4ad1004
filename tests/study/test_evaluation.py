"""Simulated people: the shares they answer with come back, and bad files are refused."""

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gl_jax import cli
from gl_jax.study import Kind
from gl_jax.study.answers import Answer, Answers
from gl_jax.study.evaluation import evaluate
from gl_jax.study.key import Key

Studies = dict[Kind, tuple[Key, Path]]
REAL: dict[str | None, float] = {None: 0.9, "gl": 0.7, "mean": 0.1}
"""Probability that a simulated person takes a method's picture for real."""


def simulated(
    key: Key, participant: int, real: Mapping[str | None, float] = REAL
) -> Answers:
    """The answers of an attentive person who takes pictures for real so often."""
    generator = np.random.default_rng(participant)
    answers = []
    for question in key.orders[participant - 1]:
        shown = [key.pictures[name] for name in question]
        check = not shown or any(picture.kind == "check" for picture in shown)
        method = next((p.method for p in shown if p.method is not None), None)
        believes = generator.random() < real[method]
        if key.kind == "single":
            believes = not shown if check else believes
            answers.append(Answer(question, "real" if believes else "completed", 900))
        else:
            believes = believes and not check
            first = (shown[0].kind == "truth") != believes
            answers.append(Answer(question, "first" if first else "second", 900))
    return signed(Answers(key.study, participant, tuple(answers), 0))


def signed(answers: Answers) -> Answers:
    return replace(answers, checksum=answers.expected_checksum())


def answering(answers: Answers, word: str) -> Answers:
    """The same questions, all answered with one word."""
    same = tuple(replace(a, answer=word) for a in answers.answers)
    return signed(replace(answers, answers=same))


def write(folder: Path, *files: Answers) -> None:
    folder.mkdir(exist_ok=True)
    for number, answers in enumerate(files):
        path = folder / f"answers-{number}.json"
        path.write_text(json.dumps(asdict(answers)), encoding="utf-8")


def test_the_shares_of_simulated_people_come_back(
    studies: Studies, tmp_path: Path
) -> None:
    key, folder = studies["single"]
    people = [simulated(key, number) for number in range(1, 401)]
    careless = [answering(people[7], "completed"), answering(people[8], "real")]
    write(tmp_path, *people[:7], *careless, *people[9:])
    result = evaluate(tmp_path, folder, log=lambda _: None)
    assert (result.kept, result.excluded) == (398, [8, 9])
    # Six questions each, half of them photographs: 398 * 3 / 2 of each method.
    record = json.loads((folder / "results.json").read_text())
    for method, values in {**record["methods"], None: record["truth"]}.items():
        assert values["judged"] == pytest.approx(1194 if not method else 597, abs=2)
        assert values["share"] == pytest.approx(REAL[method], abs=0.05)
        assert values["low"] < REAL[method] < values["high"]
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 * 3
    assert sum(int(row["judged"]) for row in rows) == 398 * 6
    for name, values in record["photographs"].items():
        of_it = [r for r in rows if r["photograph"] == name and r["method"]]
        assert values["real"] == sum(int(row["real"]) for row in of_it)
    # Two answers to one picture agree with p² + (1 - p)²; the pictures with p = 0.9, 0.7
    # and 0.1 have weights 2, 1, 1, so answers are real with 0.65: alpha is
    # 1 - 2 (2 * 0.09 + 0.21 + 0.09) / 4 / (2 * 0.65 * 0.35).
    assert result.alpha == pytest.approx(0.473, abs=0.04)
    table = (folder / "results.md").read_text()
    assert "398 counted, 2 left out for failed attention checks (numbers 8, 9)" in table
    with Image.open(folder / "results.png") as figure:
        assert figure.width > figure.height


def test_of_two_pictures_the_one_taken_for_the_photograph_is_real(
    studies: Studies, tmp_path: Path
) -> None:
    key, folder = studies["pair"]
    people = [simulated(key, number, REAL | {"gl": 1.0}) for number in range(1, 41)]
    write(tmp_path, *people, answering(simulated(key, 41), "first"))
    result = evaluate(tmp_path, folder, log=lambda _: None)
    assert (result.kept, result.excluded) == (40, [41])
    rows = result.by_method()
    assert [*rows] == ["gl", "mean"]
    assert rows["gl"] == (120, 120)
    assert rows["mean"].judged == 120 and rows["mean"].real < 30
    more = evaluate(tmp_path, folder, may_fail=3, log=lambda _: None)
    assert (more.kept, more.excluded) == (41, [])


def spoil(case: str, key: Key, folder: Path) -> None:
    """Puts one unusable file, or two, among the answers."""
    good = simulated(key, 1)
    shorter = replace(good, answers=good.answers[:-1])
    files = {
        "another study": [signed(replace(good, study="0123456789ab"))],
        "changed": [replace(good, answers=good.answers[::-1])],
        "unfinished": [signed(shorter)],
        "of another": [signed(replace(good, participant=2))],
        "out of range": [signed(replace(good, participant=1000))],
        "twice": [good, answering(good, "real")],
        "other words": [answering(good, "first")],
        "unknown word": [answering(good, "maybe")],
        "nobody left": [answering(good, "real")],
    }
    write(folder, *files.get(case, []))
    if case == "no JSON":
        (folder / "a.json").write_bytes(b"\xff\x00{")
    elif case == "other JSON":
        (folder / "a.json").write_text('{"study": 3}')
    elif case == "a list":
        (folder / "a.json").write_text("[" * 100_000)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("another study", "answers study 0123456789ab, not"),
        ("changed", "was changed after the page saved it"),
        ("unfinished", "does not answer the questions of participant 1"),
        ("of another", "does not answer the questions of participant 2"),
        ("out of range", "participant (=1000) must be from 1 to 400"),
        ("twice", "are both of participant 1; keep one"),
        ("other words", "does not answer the questions of participant 1"),
        ("unknown word", "answers.answer (='maybe') must be one of real, completed"),
        ("nobody left", "all 1 participants failed more than 0 attention checks"),
        ("no JSON", "is no file of answers"),
        ("other JSON", "study (=3) must be text"),
        ("a list", "is no file of answers"),
        ("none", "has no .json files"),
    ],
)
def test_answers_that_cannot_be_used_are_refused_in_one_line(
    case: str,
    words: str,
    studies: Studies,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    key, folder = studies["single"]
    spoil(case, key, tmp_path)
    assert (
        cli.main(["study", "--evaluate", str(tmp_path), "--output", str(folder)]) == 2
    )
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
