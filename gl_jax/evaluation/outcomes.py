"""Runs each method of a comparison on each photograph and keeps scores and failures."""

import base64
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from gl_jax import images, texture
from gl_jax.config import UsageError
from gl_jax.evaluation.baselines import Baseline, Image
from gl_jax.evaluation.measures import catalogue
from gl_jax.evaluation.measures.memory import peak_above
from gl_jax.evaluation.photographs import Photograph, one_line
from gl_jax.evaluation.results import Failure, Score
from gl_jax.evaluation.resume import Journal
from gl_jax.figures.sheets import Tile
from gl_jax.texture import Places


class Outcomes:
    """A score or a failure of each method on each photograph."""

    def __init__(
        self,
        journal: Journal,
        photographs: list[Photograph],
        output: Path,
        fingerprints: Mapping[str, str],
        metrics: tuple[str, ...],
        sheet_rows: int,
    ) -> None:
        """Takes the finished scores from the journal.

        `fingerprints` are those of the networks, by method; a score of another network is
        measured again. Pictures of the first `sheet_rows` photographs are kept in `output`.
        """
        self._journal = journal
        self._photographs = photographs
        self._shown = photographs[:sheet_rows]
        self._folder = output
        self._fingerprints = fingerprints
        self._metrics = metrics
        self._patches = texture.patches_each(len(photographs))
        self._textures: dict[tuple[str, int], Float[np.ndarray, "2 levels n d"]] = {}
        self._outcomes: dict[tuple[str, int], Score | Failure] = {}
        for record in journal.records:
            name, number = record["score"]["method"], record["number"]
            shown = number < len(self._shown)
            current = record["model"] == fingerprints.get(name)
            if current and (not shown or self._picture(name, number).exists()):
                self._outcomes[name, number] = Score(**record["score"])
                if "texture" in record:
                    self._textures[name, number] = _unpacked(record["texture"])

    def complete(
        self,
        methods: Mapping[str, Baseline],
        notes: list[str],
        log: Callable[[str], None],
    ) -> tuple[tuple[str, ...], tuple[Score, ...], tuple[Failure, ...]]:
        """Runs methods without results; returns the methods that ran, scores and failures."""
        numbers = range(len(self._photographs))
        unfinished = {
            name: method
            for name, method in methods.items()
            if any((name, number) not in self._outcomes for number in numbers)
        }
        available = _available(unfinished, self._photographs[0], notes)
        names = tuple(n for n in methods if n in available or n not in unfinished)
        if not names:
            raise UsageError(f"no method is left to compare; {notes[-1]}")
        kept = sum((name, i) in self._outcomes for name in names for i in numbers)
        if kept:
            log(f"{kept} results of an earlier run are kept.")
        for number, photograph in enumerate(self._photographs):
            if number < len(self._shown):
                truth = images.from_array(photograph.image, photograph.entry.photograph)
                images.write(truth, self._folder / "truth" / f"{number:04d}.png")
            for name in names:
                if (name, number) not in self._outcomes:
                    self._run(name, methods[name], number)
            done = f"{number + 1}/{len(self._photographs)}"
            log(f"{done} {photograph.entry.photograph}")
        outcomes = [self._outcomes[name, i] for i in numbers for name in names]
        return (
            names,
            tuple(o for o in outcomes if isinstance(o, Score)),
            tuple(o for o in outcomes if isinstance(o, Failure)),
        )

    def of_sets(
        self, methods: Sequence[str], notes: list[str]
    ) -> dict[str, dict[str, float]]:
        """Returns the measures over all pictures of a method, by method and name.

        `notes` gets a line on the holes that are too small for them.
        """

        def texture_and_grid(
            keys: Sequence[tuple[str, int]],
        ) -> tuple[np.ndarray, np.ndarray]:
            outcomes = [self._outcomes[key] for key in keys]
            grids = [
                [o.values[n] for n in texture.GRIDS]
                for o in outcomes
                if isinstance(o, Score)
            ]
            return np.stack([self._textures[key] for key in keys]), np.array(grids)

        measured = sorted(self._textures)
        sets = {
            name: texture.of_set(*texture_and_grid(keys))
            for name in methods
            if (keys := [key for key in measured if key[0] == name])
        }
        # The holes are the same for all methods.
        once = {number: (name, number) for name, number in measured}
        if once:
            notes += texture.left_out(
                *texture_and_grid([once[n] for n in sorted(once)])
            )
        return sets

    def tiles(self, methods: Sequence[str]) -> list[list[Tile]]:
        """Returns rows of the sheet: the hole, each method's picture, the truth."""
        rows = []
        for number, photograph in enumerate(self._shown):
            completed = []
            for name in methods:
                outcome = self._outcomes[name, number]
                if isinstance(outcome, Failure):
                    completed.append(Tile(None, "failed"))
                    continue
                picture = self._picture(name, number)
                image = images.read_rgb(picture, str(picture))
                completed.append(
                    Tile(image, f"{outcome.values['hole_psnr_db']:.1f} dB")
                )
            rows.append(photograph.row(completed))
        return rows

    def _picture(self, method: str, number: int) -> Path:
        return self._folder / "pictures" / method / f"{number:04d}.png"

    def _run(self, name: str, method: Baseline, number: int) -> None:
        """Runs one method on one photograph; a failure is tried again next time."""
        entry, image = self._photographs[number]
        mask = entry.mask()

        def timed() -> tuple[Image, float]:
            start = time.perf_counter()
            result = method(image, mask)
            return result, time.perf_counter() - start

        try:
            (result, seconds), memory = peak_above(timed)
        except Exception as error:
            failure = Failure(name, entry.photograph, one_line(error))
            self._outcomes[name, number] = failure
            return
        where = texture.places(mask, entry.index, patches=self._patches)
        values, textures = _measure(
            self._metrics, result[None], image[None], mask[None, ..., None],
            Places.stacked([where]),
        )  # fmt: skip
        row = {key: float(value[0]) for key, value in values.items()}
        row |= {"seconds": seconds, "peak_memory_mib": memory}
        score = Score(name, entry.photograph, row)
        if number < len(self._shown):
            picture = images.from_array(result, name)
            images.write(picture, self._picture(name, number))
        self._outcomes[name, number] = score
        record = {
            "number": number, "model": self._fingerprints.get(name),
            "score": asdict(score),
        }  # fmt: skip
        if textures is not None:
            self._textures[name, number] = np.asarray(textures[0])
            record["texture"] = _packed(textures[0])
        self._journal.add(record)


def _packed(textures: Float[Array, "2 levels n d"]) -> str:
    return base64.b64encode(np.asarray(textures, "<f2").tobytes()).decode()


def _unpacked(text: str) -> Float[np.ndarray, "2 levels n d"]:
    shape = (2, texture.LEVELS, -1, 3 * texture.PATCH**2)
    return np.frombuffer(base64.b64decode(text), "<f2").reshape(shape)


def _available(
    methods: Mapping[str, Baseline], photograph: Photograph, notes: list[str]
) -> set[str]:
    """Returns the methods whose libraries are installed, after one call of each."""
    available = set()
    for name, method in methods.items():
        try:
            method(photograph.image, photograph.entry.mask())
        except ImportError as error:
            notes.append(f"{name} left out, a library is missing: {one_line(error)}")
            continue
        except Exception:
            # The measured call fails again and reports it.
            pass
        available.add(name)
    return available


@functools.partial(jax.jit, static_argnums=0)
def _measure(
    metrics: tuple[str, ...],
    images: UInt8[Array, "b h w 3"],
    targets: UInt8[Array, "b h w 3"],
    mask: Bool[Array, "b h w 1"],
    where: Places,
) -> tuple[dict[str, Float[Array, " b"]], Float[Array, "b 2 levels n d"] | None]:
    """Returns the values of metrics by column, and patches as `texture.measure` does."""
    values = catalogue.of_pictures(metrics, images, targets, mask)
    if "texture" not in metrics:
        return values, None
    completed, truth = (x.astype(jnp.float32) / 255 for x in (images, targets))
    grids, textures = texture.measure(completed, truth, where)
    return values | grids, textures
