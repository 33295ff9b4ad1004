"""Several methods on the same photographs with the same holes: one table, one sheet.

A method is a function (image, mask) to image: ours, loaded from a training run under
the name `gl`, and the baselines. All are measured on the 8-bit picture with the known
pixels put back, which is what a user gets.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from gl_jax.config import Config, DataConfig, UsageError, did_you_mean
from gl_jax.data.sources import Source, evenly_spaced, open_source
from gl_jax.evaluation import metrics
from gl_jax.evaluation.baselines import BASELINES, Baseline, Hole, Image, fair
from gl_jax.evaluation.figures import (
    Column,
    Table,
    Tile,
    comparison_sheet,
    estimate,
    finite,
)
from gl_jax.evaluation.masks import make_masks
from gl_jax.holes import network_input
from gl_jax.inpainting.images import read_crop
from gl_jax.models.completion import STRIDE

OURS = "gl"
IMAGE_SIZE = 256
"""The paper's, where no model says otherwise."""
SMALLEST = 16

COLUMNS = {
    "hole_l1_percent": Column("L1 in the hole, %", 2),
    "hole_psnr_db": Column("PSNR in the hole, dB", 2),
    "ssim": Column("SSIM", 4),
    "seconds": Column("seconds per image", 4),
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
    """Over the whole picture."""
    seconds: float


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
                    column: estimate(getattr(score, column) for score in row)
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
    sheet_rows: int = 8,
    log: Callable[[str], None] = print,
) -> Comparison:
    """Compares `methods` and writes comparison.md, .csv, .json and .png into `output`.

    `model` is the folder of a training run and may be None where `gl` is not among the
    methods. `data` is `bundled`, a folder or `tfds:NAME`; of its validation photographs
    (a folder without any is taken whole) `count` are used, spread evenly, their middle
    squares resized to `image_size`: by default what the model was trained on, or 256.
    The sheet shows the first `sheet_rows` of them.

    A method fails on a photograph for itself: the failure is named below the table and
    the rest goes on. A method whose library is missing, and a photograph that cannot be
    read, are left out and named. Each method completes the first photograph once before
    the clock starts, so no time holds a compilation or an import.

    Raises UsageError for what the caller can mend, an unknown name with the nearest one.
    """
    methods = tuple(dict.fromkeys(methods))
    _check(model, methods, output, count, image_size)
    asked: dict[str, Baseline] = {}
    step = None
    for name in methods:
        if name == OURS and model is not None:
            config, asked[OURS], step = _load(model)
            image_size = image_size or config.data.image_size
        else:
            asked[name] = BASELINES[name]
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
    photographs = _photographs(source, masks, count, side, seed, notes)
    completers = _available(asked, photographs[0], notes)
    scores: list[Score] = []
    failures: list[Failure] = []
    rows: list[list[Tile]] = []
    for number, photograph in enumerate(photographs, 1):
        row = [Tile(_with_hole(photograph), photograph.name)]
        for name, complete in completers.items():
            outcome, tile = _attempt(name, complete, photograph)
            if isinstance(outcome, Score):
                scores.append(outcome)
            else:
                failures.append(outcome)
            row.append(tile)
        row.append(Tile(photograph.image))
        if number <= sheet_rows:
            rows.append(row)
        log(f"{number}/{len(photographs)} {photograph.name}")
    settings = {
        "data": data, "split": split, "masks": masks, "seed": seed,
        "photographs": [photograph.name for photograph in photographs],
        "image_size": side, "model": None if step is None else str(model), "step": step,
    }  # fmt: skip
    result = Comparison(
        settings, tuple(completers), tuple(scores), tuple(failures), tuple(notes)
    )
    _write(result, rows, output)
    log(result.table().to_markdown())
    log(f"Written to {output}: comparison.md, .csv, .json and .png.")
    return result


def _check(
    model: str | Path | None,
    methods: Sequence[str],
    output: Path,
    count: int,
    image_size: int | None,
) -> None:
    known = (OURS, *BASELINES)
    for name in methods:
        if name not in known:
            raise UsageError(
                f"method {name!r} is unknown.{did_you_mean(name, known)} "
                f"Known: {', '.join(known)}."
            )
    if not methods:
        raise UsageError(f"methods must name at least one of {', '.join(known)}.")
    if OURS in methods and model is None:
        raise UsageError(
            f"method {OURS!r} needs a model: the folder of a training run."
        )
    if count < 1:
        raise UsageError(f"count (={count}) must be at least 1.")
    if image_size is not None and image_size < SMALLEST:
        raise UsageError(f"image_size (={image_size}) must be at least {SMALLEST}.")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"output {output} cannot be written: {reason}.") from error


def _load(workdir: str | Path) -> tuple[Config, Baseline, int]:
    """Our network from a run's newest checkpoint, with the run's configuration and step."""
    from gl_jax.training.checkpoint import restore_subtree
    from gl_jax.training.state import build_networks

    directory = f"{str(workdir).rstrip('/')}/checkpoints"
    if "://" not in directory and not Path(directory).is_dir():
        raise UsageError(
            f"model {str(workdir)!r} is no folder of a training run: "
            "it has no folder `checkpoints`."
        )
    restored = restore_subtree(directory)
    config = Config.from_json(restored.config_json)
    if config.data.mean_color is None:
        raise UsageError(
            f"the checkpoint in {directory} does not say which colour fills the hole "
            "(data.mean_color); train it with this version of gl_jax."
        )
    mean_color = jnp.asarray(config.data.mean_color, jnp.float32)
    network = build_networks(config).completion
    trained = {
        "params": restored.state["completion/params"],
        "batch_stats": restored.state["completion/batch_stats"],
    }
    variables = jax.device_put(restored.state.get("ema", trained))

    @jax.jit
    def completed(
        variables: Any, images: Float[Array, "1 h w 3"], mask: Float[Array, "1 h w 1"]
    ) -> Float[Array, "1 h w 3"]:
        inputs = network_input(images, mask, mean_color)
        output = network.apply(variables, inputs, train=False)
        return jnp.rint(jnp.asarray(output, jnp.float32) * 255)

    def complete(image: Image, mask: Hole) -> Image:
        height, width = mask.shape
        # The network halves the sides twice; what is added is known and cut off again.
        below = ((0, -height % STRIDE), (0, -width % STRIDE))
        images = np.pad(image, (*below, (0, 0)), mode="edge").astype(np.float32) / 255
        holes = np.pad(mask, below).astype(np.float32)
        levels = completed(variables, images[None], holes[None, ..., None])
        return np.asarray(levels)[0, :height, :width].astype(np.uint8)

    return config, fair(complete), restored.step


def _photographs(
    source: Source, masks: str, count: int, side: int, seed: int, notes: list[str]
) -> list[Photograph]:
    """The photographs that can be read, at least one; `notes` names the others."""
    indices = evenly_spaced(len(source), count)
    if len(indices) < count:
        notes.append(f"{count} photographs were asked for, there are {len(indices)}.")
    holes = make_masks(masks, len(indices), side, side, seed=seed)
    photographs = []
    for index, mask in zip(indices, holes, strict=True):
        name = source.name(index)
        try:
            image = read_crop(source.read(index), name, shortest=side, side=side)
        except (OSError, ValueError) as error:
            notes.append(f"left out, it cannot be read: {_reason(error)}")
            continue
        photographs.append(Photograph(Path(name).name, image, mask))
    if not photographs:
        raise UsageError(f"no photograph can be read; {notes[-1]}")
    return photographs


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
    if not available:
        raise UsageError(f"no method is left to compare; {notes[-1]}")
    return available


def _attempt(
    name: str, complete: Baseline, photograph: Photograph
) -> tuple[Score | Failure, Tile]:
    """What one method makes of one photograph, and how that stands in the sheet."""
    start = time.perf_counter()
    try:
        result = complete(photograph.image, photograph.mask)
    except Exception as error:
        return Failure(name, photograph.name, _reason(error)), Tile(None, "failed")
    seconds = time.perf_counter() - start
    hole_l1, hole_psnr, ssim = _measure(
        result[None], photograph.image[None], photograph.mask[None, ..., None]
    )
    score = Score(
        name, photograph.name, 100 * float(hole_l1[0]), float(hole_psnr[0]),
        float(ssim[0]), seconds,
    )  # fmt: skip
    return score, Tile(result, f"{score.hole_psnr_db:.1f} dB")


@jax.jit
def _measure(
    images: UInt8[Array, "b h w 3"],
    targets: UInt8[Array, "b h w 3"],
    mask: Bool[Array, "b h w 1"],
) -> tuple[Float[Array, " b"], Float[Array, " b"], Float[Array, " b"]]:
    """L1 and PSNR in the hole, SSIM over the whole picture."""
    return (
        metrics.l1(images, targets, mask, max_value=255),
        metrics.psnr(images, targets, mask, max_value=255),
        metrics.ssim(images, targets, max_value=255),
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
        (output / f"comparison.{ending}").write_text(text, encoding="utf-8")
    if rows:
        titles = ["input", *result.methods, "truth"]
        comparison_sheet(output / "comparison.png", titles, rows)
