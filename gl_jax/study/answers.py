"""Reads the answers that participants sent back, and counts them."""

import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from gl_jax.config import UsageError
from gl_jax.fields import build
from gl_jax.files import reading
from gl_jax.study.key import Key

AnswerWord = Literal["real", "completed", "first", "second"]


@dataclass(frozen=True)
class Answer:
    """The answer to one question."""

    question: tuple[str, ...]
    """The names of the pictures shown, in their order."""
    answer: AnswerWord
    milliseconds: int


@dataclass(frozen=True)
class Answers:
    """The file of one participant."""

    study: str
    participant: int
    answers: tuple[Answer, ...]
    checksum: int

    def expected_checksum(self) -> int:
        """Returns the CRC-32 of the contents as the page writes them."""
        contents = [self.study, self.participant, [asdict(a) for a in self.answers]]
        text = json.dumps(contents, separators=(",", ":"), ensure_ascii=False)
        return zlib.crc32(text.encode())


class Judged(NamedTuple):
    """A picture that was judged: a photograph, or its completion by a method."""

    photograph: str
    method: str | None


class Counts(NamedTuple):
    """Number of times a picture was judged real, and number of judgements."""

    real: int
    judged: int


def read_answers(folder: Path, key: Key) -> list[Answers]:
    """Returns the answers in the .json files of a folder, sorted by participant.

    Raises UsageError for a file that is unfinished, changed or not of this study, and for
    two files of one participant.
    """
    if not folder.is_dir():
        raise UsageError(f"evaluate {folder} is no folder; give the folder of answers.")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() == ".json")
    if not paths:
        raise UsageError(
            f"evaluate {folder} has no .json files; put the files there that participants "
            "sent back."
        )
    by_participant: dict[int, tuple[Path, Answers]] = {}
    for path in paths:
        answers = _read(path, key)
        if answers.participant in by_participant:
            other, _ = by_participant[answers.participant]
            raise UsageError(
                f"{other} and {path.name} are both of participant "
                f"{answers.participant}; keep one."
            )
        by_participant[answers.participant] = path, answers
    return [answers for _, (_, answers) in sorted(by_participant.items())]


def _read(path: Path, key: Key) -> Answers:
    with reading(path):
        data = path.read_bytes()
    try:
        answers: Answers = build(Answers, json.loads(data), "")
    except (ValueError, RecursionError, TypeError) as error:
        fault = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{path} is no file of answers ({fault}); ask for the file as the page saved "
            "it, or move this one away."
        ) from error
    if answers.study != key.study:
        raise UsageError(
            f"{path} answers study {answers.study[:20]}, not {key.study}; name the folder "
            "of its study as --output, or move the file away."
        )
    if answers.checksum != answers.expected_checksum():
        raise UsageError(
            f"{path} was changed after the page saved it: its checksum "
            f"(={answers.checksum}) must be {answers.expected_checksum()}; ask for the "
            "original."
        )
    last = len(key.orders)
    if not 1 <= answers.participant <= last:
        raise UsageError(
            f"{path}: participant (={answers.participant}) must be from 1 to {last}."
        )
    words = {"real", "completed"} if key.kind == "single" else {"first", "second"}
    given = [a.question for a in answers.answers if a.answer in words]
    if tuple(given) != key.orders[answers.participant - 1]:
        raise UsageError(
            f"{path} does not answer the questions of participant "
            f"{answers.participant}; ask for the file as the page saved it."
        )
    return answers


def failed_checks(answers: Answers, key: Key) -> int:
    """Returns the number of attention checks that a participant answered wrongly."""
    failed = 0
    for answer in answers.answers:
        kinds = [key.pictures[name].kind for name in answer.question]
        if not kinds:
            failed += answer.answer != "real"
        elif kinds == ["check"]:
            failed += answer.answer != "completed"
        elif "check" in kinds:
            failed += kinds[_chosen(answer)] == "check"
    return failed


def count_judgements(kept: Sequence[Answers], key: Key) -> dict[Judged, Counts]:
    """Returns the counts of every picture of the study, without attention checks.

    In a pair a completion is judged real if it is taken for the photograph, which then has
    no counts.
    """
    judgements = [pair for answers in kept for pair in _judgements(answers, key)]
    judged = Counter(picture for picture, _ in judgements)
    real = Counter(picture for picture, is_real in judgements if is_real)
    pictures = [
        Judged(photograph, method)
        for method in (*key.methods, *([None] if key.kind == "single" else []))
        for photograph in key.photographs
    ]
    return {picture: Counts(real[picture], judged[picture]) for picture in pictures}


def _judgements(answers: Answers, key: Key) -> Iterator[tuple[Judged, bool]]:
    """Yields each picture that was judged, with True if it was judged real."""
    for answer in answers.answers:
        shown = [key.pictures[name] for name in answer.question]
        if not shown or any(picture.kind == "check" for picture in shown):
            continue
        if key.kind == "single":
            (picture,) = shown
            yield Judged(picture.photograph, picture.method), answer.answer == "real"
            continue
        (completed,) = (p for p in shown if p.kind == "completed")
        chosen = shown[_chosen(answer)]
        yield Judged(completed.photograph, completed.method), chosen == completed


def _chosen(answer: Answer) -> int:
    """Returns the place of the picture that was taken for the photograph."""
    return ["first", "second"].index(answer.answer)


def total(
    counts: Mapping[Judged, Counts],
    *,
    methods: Sequence[str | None],
    photograph: str | None = None,
) -> Counts:
    """Returns the sum over these methods, and over all photographs or one."""
    chosen = [
        count
        for picture, count in counts.items()
        if picture.method in methods and photograph in (None, picture.photograph)
    ]
    return Counts(sum(c.real for c in chosen), sum(c.judged for c in chosen))
