"""Several methods on the same photographs with the same holes: one table, one sheet.

A method is a function (image, mask) to image: ours, under the name `gl` (the network's
own output, without post-processing, at the photograph's size), and the baselines. All
are measured on the 8-bit picture with the known pixels put back, which is what a user
gets. What is done stands in a journal: the same call goes on where it was interrupted,
and one with more methods runs only those.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from gl_jax import metrics
from gl_jax.config import DataConfig, UsageError, did_you_mean
from gl_jax.data.sources import Source, evenly_spaced, open_source
from gl_jax.evaluation import mask_list
from gl_jax.evaluation.baselines import BASELINES, Baseline, Hole, Image, fair
from gl_jax.evaluation.measures import fingerprint
from gl_jax.evaluation.memory import peak_above
from gl_jax.evaluation.resume import Journal
from gl_jax.evaluation.tables import Column, Table, estimate, finite
from gl_jax.figures.sheets import Tile, draw_sheet
from gl_jax.files import write_output, writing
from gl_jax.inpainting import images
from gl_jax.inpainting.completer import Completer, load_model

OURS = "gl"
IMAGE_SIZE = 256
"""The paper's, where no model says otherwise."""
SMALLEST = 16

COLUMNS = {
    "hole_l1_percent": Column("L1 in the hole, %", 2),
    "hole_psnr_db": Column("PSNR in the hole, dB", 2),
    "ssim": Column("SSIM", 4),
    "ms_ssim": Column("MS-SSIM", 4),
    "sharpness": Column("sharpness in the hole, share of the truth's", 2),
    "seconds": Column("seconds per image", 4),
    "peak_memory_mib": Column("peak memory, MiB", 1),
}


class Photograph(NamedTuple):
    """A photograph of the evaluation and its hole."""

    name: str
    image: Image
    mask: Hole


@dataclass(frozen=True)
class Score:
    """How one method did on one photograph; the fields are those of `COLUMNS`."""

    method: str
    photograph: str
    hole_l1_percent: float
    hole_psnr_db: float
    ssim: float
    """Over the whole picture, as is MS-SSIM, which needs 176 pixels (else NaN)."""
    ms_ssim: float
    sharpness: float
    """In the hole; see `metrics.sharpness`."""
    seconds: float
    peak_memory_mib: float
    """What the call added to the process at most; see `memory.peak_above`."""


@dataclass(frozen=True)
class Failure:
    """What kept one method from completing one photograph."""

    method: str
    photograph: str
    reason: str


@dataclass(frozen=True)
class Comparison:
    """The result of `run`, as it also stands in comparison.json."""

    settings: dict[str, Any]
    methods: tuple[str, ...]
    """Those that were run, in the order asked for."""
    scores: tuple[Score, ...]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    """Methods left out and photographs that could not be read, each with its reason."""

    def table(self) -> Table:
        """The mean of each method's scores, with the standard error over photographs."""
        scores = {m: [s for s in self.scores if s.method == m] for m in self.methods}
        failed = {m: [f for f in self.failures if f.method == m] for m in self.methods}
        notes = [
            f"{name} failed and its mean is over the other photographs: "
            + "; ".join(f"{f.photograph} ({f.reason})" for f in failures)
            for name, failures in failed.items()
            if failures
        ]
        size, of = self.settings["image_size"], self.settings
        model = f", model {of['model']} at step {of['step']}" if of["model"] else ""
        return Table(
            f"Mean ± standard error over photographs of {of['data']}, {size}x{size} "
            f"pixels, {of['masks']} masks of seed {of['seed']}{model}.",
            COLUMNS,
            {
                name: {
                    column: estimate(
                        value
                        for score in row
                        if not math.isnan(value := getattr(score, column))
                    )
                    for column in COLUMNS
                }
                for name, row in scores.items()
            },
            {name: len(row) for name, row in scores.items()},
            (*self.notes, *notes),
        )

    def to_json(self) -> str:
        """Settings, the table and every single score; null stands for what is not finite."""
        record = {
            "settings": self.settings,
            "methods": self.table().to_json(),
            "scores": [finite(asdict(score)) for score in self.scores],
            "failures": [asdict(failure) for failure in self.failures],
            "notes": self.notes,
        }
        return json.dumps(record, indent=2, allow_nan=False) + "\n"


def run(
    model: str | Path | None,
    data: str,
    masks: str,
    methods: tuple[str, ...],
    output: Path,
    *,
    count: int = 8,
    image_size: int | None = None,
    seed: int = 0,
    split: str = "validation",
    data_dir: str | None = None,
    experiment: Path | None = None,
    sheet_rows: int = 8,
    log: Callable[[str], None] = print,
) -> Comparison:
    """Compares `methods` and writes comparison.md, .csv, .json and .png into `output`.

    `model` and `experiment` are what `gl_jax.load` takes; they count where `gl` is among
    the methods. A further model is a method by its path, and goes by the path's stem.
    `data` is `bundled`, a folder or `tfds:NAME`; of its validation photographs
    (a folder without any is taken whole) `count` are used, spread evenly, their middle
    squares resized to `image_size`: by default what the model was trained on, or 256.
    `masks` is a kind of `masks.KINDS` or a folder (`mask_list.from_folder`). The sheet
    shows the first `sheet_rows` photographs; their pictures are kept in `pictures/`.

    A method fails on a photograph for itself: the failure is named below the table and
    the rest goes on. A method whose library is missing, and a photograph that cannot be
    read, are left out and named. Each method completes a photograph once before the
    clock starts, so no time holds a compilation or an import.

    Raises UsageError for what the caller can mend, an unknown name with the nearest
    one, and where `output` holds a comparison of other photographs or holes.
    """
    methods = tuple(dict.fromkeys(methods))
    _check(methods, output, count, image_size)
    asked: dict[str, Baseline] = {}
    identities, step = dict[str, str](), None
    for name in methods:
        if name in BASELINES:
            asked[name] = BASELINES[name]
            continue
        loaded = load_model(model if name == OURS else name, experiment)
        completer = Completer(loaded)
        image_size = image_size or completer.trained.image
        step = loaded.training.get("steps") if name == OURS else step
        title = OURS if name == OURS else Path(name).stem
        identities[title] = fingerprint(loaded)
        asked[title] = _ours(completer)
    side, notes = image_size or IMAGE_SIZE, list[str]()
    source = open_source(
        DataConfig(
            source=data,
            validation_source=data,
            validation_split=split,
            data_dir=data_dir,
        ),
        validation=True,
    )
    photographs, facts = _photographs(source, masks, count, side, seed, notes)
    with Journal(output / "journal.jsonl", facts) as journal:
        bench = _Bench(journal, photographs, output, identities, sheet_rows)
        result = bench.compare(asked, notes, log)
    settings = {
        "data": data, "split": split, "masks": masks, "seed": seed,
        "photographs": [photograph.name for photograph in photographs],
        "image_size": side, "model": _label(model, methods), "step": step,
    }  # fmt: skip
    comparison = Comparison(settings, *result)
    _write(comparison, bench.rows(comparison.methods), output)
    log(comparison.table().to_markdown())
    log(f"Written to {output}: comparison.md, .csv, .json and .png.")
    return comparison


def _label(model: str | Path | None, methods: Sequence[str]) -> str | None:
    if OURS not in methods:
        return None
    return "shipped" if model is None else str(model)


def _check(
    methods: Sequence[str], output: Path, count: int, image_size: int | None
) -> None:
    known = (OURS, *BASELINES)
    for name in methods:
        if name not in known and not Path(name).exists():
            raise UsageError(
                f"method {name!r} is unknown.{did_you_mean(name, known)} "
                f"Known: {', '.join(known)}, or the path of a model."
            )
    titles = [name if name in known else Path(name).stem for name in methods]
    twice = {title for title in titles if titles.count(title) > 1}
    if twice:
        raise UsageError(
            f"methods: more than one would stand under {', '.join(sorted(twice))} in the "
            "table; give the file of one another name."
        )
    if not methods:
        raise UsageError(f"methods must name at least one of {', '.join(known)}.")
    if count < 1:
        raise UsageError(f"count (={count}) must be at least 1.")
    if image_size is not None and image_size < SMALLEST:
        raise UsageError(f"image_size (={image_size}) must be at least {SMALLEST}.")
    with writing(f"output {output}"):
        output.mkdir(parents=True, exist_ok=True)


def _ours(completer: Completer) -> Baseline:
    """The network's own output in 8 bits, at the photograph's size."""

    def complete(image: Image, mask: Hole) -> Image:
        return np.rint(completer.raw(image, mask) * 255).astype(np.uint8)

    return fair(complete)


def _photographs(
    source: Source, masks: str, count: int, side: int, seed: int, notes: list[str]
) -> tuple[list[Photograph], dict[str, Any]]:
    """The photographs that can be read, at least one, and what they follow from.

    `notes` names the others.
    """
    indices = evenly_spaced(len(source), count)
    if len(indices) < count:
        notes.append(f"{count} photographs were asked for, there are {len(indices)}.")
    names = [source.name(index) for index in indices]
    entries = mask_list.made(masks, names, indices, (seed,), side)
    photographs = []
    for name, entry in zip(names, entries, strict=True):
        try:
            data = source.read(entry.position)
            image = images.read_crop(data, name, shortest=side, side=side)
        except (OSError, ValueError) as error:
            notes.append(f"left out, it cannot be read: {_reason(error)}")
            continue
        photographs.append(Photograph(entry.photograph, image, entry.mask()))
    if not photographs:
        raise UsageError(f"no photograph can be read; {notes[-1]}")
    facts = {
        "photographs": source.fingerprint(), "count": len(photographs),
        "masks": mask_list.digest(entries), "seed": seed, "image_size": side,
    }  # fmt: skip
    return photographs, facts


class _Bench:
    """Photographs on which methods are run, and what is known of them so far."""

    def __init__(
        self,
        journal: Journal,
        photographs: list[Photograph],
        output: Path,
        models: Mapping[str, str],
        sheet_rows: int,
    ) -> None:
        """Takes the finished scores from the journal; `models` identifies ours."""
        self._journal = journal
        self._photographs = photographs
        self._shown = photographs[:sheet_rows]
        self._folder = output / "pictures"
        self._models = models
        self._outcomes: dict[tuple[str, int], Score | Failure] = {}
        for record in journal.records:
            name, number = record["score"]["method"], record["number"]
            shown = number < len(self._shown)
            current = record["model"] == self._identity(name)
            if current and (not shown or self._picture(name, number).exists()):
                self._outcomes[name, number] = Score(**record["score"])

    def compare(
        self,
        methods: Mapping[str, Baseline],
        notes: list[str],
        log: Callable[[str], None],
    ) -> tuple[Any, ...]:
        """Methods, scores, failures and notes of a `Comparison`."""
        missing = {
            name: complete
            for name, complete in methods.items()
            if any(
                (name, i) not in self._outcomes for i in range(len(self._photographs))
            )
        }
        absent = set(missing) - set(_available(missing, self._photographs[0], notes))
        run = tuple(name for name in methods if name not in absent)
        if not run:
            raise UsageError(f"no method is left to compare; {notes[-1]}")
        reused = sum((m, i) in self._outcomes for m in run for i in self._numbers())
        if reused:
            log(f"{reused} results of an earlier session are kept.")
        for number, photograph in enumerate(self._photographs):
            for name in run:
                if (name, number) not in self._outcomes:
                    self._attempt(name, methods[name], number)
            log(f"{number + 1}/{len(self._photographs)} {photograph.name}")
        outcomes = [self._outcomes[m, i] for i in self._numbers() for m in run]
        scores = tuple(o for o in outcomes if isinstance(o, Score))
        failures = tuple(o for o in outcomes if isinstance(o, Failure))
        return run, scores, failures, tuple(notes)

    def rows(self, methods: Sequence[str]) -> list[list[Tile]]:
        """The sheet: a photograph's hole, what each method made of it, the truth."""
        rows = []
        for number, photograph in enumerate(self._shown):
            row = [Tile(_with_hole(photograph), photograph.name)]
            for name in methods:
                outcome = self._outcomes[name, number]
                if isinstance(outcome, Failure):
                    row.append(Tile(None, "failed"))
                    continue
                picture = self._picture(name, number)
                image = images.read_rgb(picture, str(picture))
                row.append(Tile(image, f"{outcome.hole_psnr_db:.1f} dB"))
            rows.append([*row, Tile(photograph.image)])
        return rows

    def _numbers(self) -> range:
        return range(len(self._photographs))

    def _identity(self, method: str) -> str | None:
        return self._models.get(method)

    def _picture(self, method: str, number: int) -> Path:
        return self._folder / f"{number:04d}-{method}.png"

    def _attempt(self, name: str, complete: Baseline, number: int) -> None:
        """What one method makes of one photograph; a failure is tried again next time."""
        photograph = self._photographs[number]

        def timed() -> tuple[Image, float]:
            start = time.perf_counter()
            return complete(photograph.image, photograph.mask), (
                time.perf_counter() - start
            )

        try:
            (result, seconds), memory = peak_above(timed)
        except Exception as error:
            failure = Failure(name, photograph.name, _reason(error))
            self._outcomes[name, number] = failure
            return
        batch = result[None], photograph.image[None], photograph.mask[None, ..., None]
        hole_l1, hole_psnr, ssim, ms_ssim, sharpness = (
            float(value[0]) for value in _measure(*batch)
        )
        score = Score(
            name, photograph.name, 100 * hole_l1, hole_psnr, ssim, ms_ssim, sharpness,
            seconds, memory,
        )  # fmt: skip
        if number < len(self._shown):
            picture = images.from_array(result, name)
            images.write(picture, self._picture(name, number))
        self._outcomes[name, number] = score
        self._journal.add(
            {"number": number, "model": self._identity(name), "score": asdict(score)}
        )


def _available(
    methods: Mapping[str, Baseline], photograph: Photograph, notes: list[str]
) -> dict[str, Baseline]:
    """The methods whose libraries are installed; each has been called once."""
    available = {}
    for name, complete in methods.items():
        try:
            complete(photograph.image, photograph.mask)
        except ImportError as error:
            notes.append(f"{name} left out, a library is missing: {_reason(error)}")
            continue
        except Exception:
            # It fails again, and is reported, where it is measured.
            pass
        available[name] = complete
    return available


@jax.jit
def _measure(
    images: UInt8[Array, "b h w 3"],
    targets: UInt8[Array, "b h w 3"],
    mask: Bool[Array, "b h w 1"],
) -> tuple[Float[Array, " b"], ...]:
    """L1 and PSNR in the hole, SSIM and MS-SSIM of the picture, sharpness in the hole."""
    ms_ssim = jnp.full(len(images), jnp.nan, jnp.float32)
    if min(images.shape[1:3]) >= metrics.MS_SSIM_MIN_SIZE:
        ms_ssim = metrics.ms_ssim(images, targets, max_value=255)
    return (
        metrics.l1(images, targets, mask, max_value=255),
        metrics.psnr(images, targets, mask, max_value=255),
        metrics.ssim(images, targets, max_value=255),
        ms_ssim,
        metrics.sharpness(images, targets, mask, max_value=255),
    )


def _with_hole(photograph: Photograph) -> Image:
    """The photograph as the paper shows its inputs: with a white hole."""
    return np.where(photograph.mask[..., None], np.uint8(255), photograph.image)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _write(result: Comparison, rows: Sequence[Sequence[Tile]], output: Path) -> None:
    table = result.table()
    texts = {
        "md": table.to_markdown(), "csv": table.to_csv(), "json": result.to_json()
    }  # fmt: skip
    for ending, text in texts.items():
        write_output(output / f"comparison.{ending}", text.encode())
    if rows:
        titles = ["input", *result.methods, "truth"]
        write_output(output / "comparison.png", draw_sheet(titles, rows))
