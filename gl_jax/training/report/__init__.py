"""Everything a training run shows: its log, the screen, TensorBoard, sheets and curves.

metrics.jsonl is the record (see `log`), and the curves are drawn from it alone. A failure
to write, on a full disk for example, is reported and does not stop the run: lines of
metrics.jsonl are kept and written later, pictures and events are left out.
"""

import contextlib
import io
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
from jaxtyping import Float, UInt8

from gl_jax.config import Config, UsageError
from gl_jax.figures.curves import History, draw_curves
from gl_jax.figures.sheets import Tile, draw_sheet
from gl_jax.files import write_whole
from gl_jax.training.report.clock import Clock, Part, Progress
from gl_jax.training.report.log import (
    METRICS,
    Log,
    evaluations_by_step,
    read_history,
    read_metrics,
)
from gl_jax.training.report.screen import FULL, duration, open_screen, say
from gl_jax.training.report.tensorboard import TensorBoard
from gl_jax.training.report.weights_and_biases import WeightsAndBiases, require_wandb

__all__ = [
    "FULL",
    "Progress",
    "Report",
    "evaluations_by_step",
    "read_history",
    "read_metrics",
    "require_wandb",
    "say",
    "write_curves",
]

SHEET_COLUMNS = "photo", "hole", "raw output", "composite"


class Report:
    """Everything a run tells its user, on the screen and in the workdir.

    A run resumed at `start_step` continues the log as if it had never been broken:
    lines beyond that step are dropped. At 0 the log starts afresh. Log a step before
    saving it, so that a resumed log misses no line. `progress` is that of the checkpoint.
    `enabled` is false on all hosts but the first: every method is silent there.

    Raises OSError if metrics.jsonl cannot be written: a run should not start so.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        config: Config,
        start_step: int,
        progress: Progress | None = None,
        enabled: bool = True,
    ) -> None:
        self.enabled = enabled
        self._workdir = workdir
        self._config = config
        self._log = Log(workdir / METRICS)
        progress = progress or Progress(time.time())
        self._failures: set[str] = set()
        self._last_step = start_step
        self._pace_start: tuple[str, int, float] | None = None
        # Beside the log, by the names under which a failure to write is reported.
        self._copies: dict[str, TensorBoard | WeightsAndBiases] = {}
        with contextlib.ExitStack() as closing:
            if enabled:
                tensorboard = TensorBoard(workdir / "tensorboard")
                closing.callback(tensorboard.close)
                self._log.rewind(start_step)
                tensorboard.forget_from(start_step + 1)
                self._copies["TensorBoard's events"] = tensorboard
                self._screen = open_screen(config.schedule.total_steps, start_step)
                closing.callback(self._screen.close)
                if config.run.wandb:
                    self._open_wandb(closing, progress, begins=start_step == 0)
            self._closing = closing.pop_all()
        # Opening all of this takes seconds, which are none of training.
        self._clock = Clock(progress)

    @contextlib.contextmanager
    def pause(self, *, steps: int = 0) -> Iterator[None]:
        """Leaves time out of training: compiling, evaluating, saving.

        `steps` of training done meanwhile are left out too. Devices work on while the
        host goes ahead, so fetch the last metrics before.
        """
        with self._clock.pause():
            yield
        self._last_step += steps

    def part(
        self, name: Part, *, at_peak: float = 0.0
    ) -> contextlib.AbstractContextManager[None]:
        """Counts the time inside for a part of the step, see `Clock.part`."""
        return self._clock.part(name, at_peak=at_peak)

    def progress_made(self) -> Progress:
        """Returns the training so far that counts if this step is saved."""
        return self._clock.progress()

    def message(self, text: str) -> None:
        """Shows one line to the user, above the progress bar."""
        if self.enabled:
            self._screen.message(text)

    def progress(self, step: int, phase: str) -> None:
        """Moves the bar to `step` completed updates; cheap enough for every step."""
        if self.enabled:
            self._screen.progress(step, phase)

    def scalars(
        self,
        step: int,
        phase: str,
        metrics: Mapping[str, SupportsFloat],
        *,
        peak_memory: int | None = None,
        order_hash: str | None = None,
    ) -> None:
        """Logs training metrics, and where the time since the previous call went."""
        if not self.enabled:
            return
        values = {name: float(value) for name, value in metrics.items()}
        facts = [f"{k} {v:.4g}" for k, v in values.items() if k.endswith("_loss")]
        pace = self._clock.pace(step - self._last_step)
        self._last_step = step
        left = []
        if pace is not None:
            rate = self._config.data.batch_size / pace.total
            values |= {"images_per_second": round(rate, 3), **pace.values()}
            left = [f"{duration(self._time_left(step, phase, pace=pace.total))} left"]
            digits = 0 if rate >= 100 else 2
            facts += [f"{rate:,.{digits}f} images/s", *pace.facts()]
        values["goodput"] = self._clock.goodput()
        facts.append(f"goodput {values['goodput']:.0%}")
        if peak_memory is not None:
            values["peak_memory_bytes"] = peak_memory
            facts.append(f"peak {peak_memory / 1e9:.3g} GB")
        marks = {} if order_hash is None else {"order_hash": order_hash}
        self._record(step, phase, values, "train", marks)
        self._screen.training(step, phase, [*facts, *left])

    def validation(
        self, step: int, phase: str, metrics: Mapping[str, SupportsFloat]
    ) -> None:
        """Logs a validation's metrics on a line of their own; shows those called `val_*`."""
        if not self.enabled:
            return
        values = {name: float(value) for name, value in metrics.items()}
        self._record(step, phase, values, "validation", {})
        facts = [f"{k} {v:.4g}" for k, v in values.items() if k.startswith("val_")]
        self._screen.validation(step, facts)

    def samples(
        self,
        step: int,
        photographs: UInt8[Any, "n s s 3"],
        mask: Float[Any, "n s s 1"],
        completed: Float[Any, "n s s 3"],
        composite: Float[Any, "n s s 3"],
    ) -> None:
        """Draws samples/step_00001000.png, and writes its arrays beside it as .npz.

        The sheet has a row for each photograph, with the columns photo, hole (white), raw
        output and composite. Floats lie in [0, 1]; they are clipped, NaN becomes black.
        The arrays are `photo` and `completed`, the raw output (uint8 [n, s, s, 3]), and
        `mask` (bool [n, s, s, 1], true in the hole).
        """
        if not self.enabled:
            return
        with self.pause(), self._tolerated("samples"):
            photo, hole = np.asarray(photographs), np.asarray(mask) > 0.5
            raw = _to_uint8(completed)
            white = np.where(hole, np.uint8(255), photo)
            columns = photo, white, raw, _to_uint8(composite)
            rows = [
                [Tile(image) for image in row] for row in zip(*columns, strict=True)
            ]
            note = f"{self._config.name}, step {step:,}"
            png = draw_sheet(SHEET_COLUMNS, rows, note=note)
            npz = io.BytesIO()
            np.savez_compressed(
                npz, allow_pickle=False, photo=photo, mask=hole, completed=raw
            )
            file = self._workdir / "samples" / f"step_{step:08d}.png"
            write_whole(file.with_suffix(".npz"), npz.getvalue())
            write_whole(file, png)
            for product, copy in self._copies.items():
                with self._tolerated(product):
                    copy.image(step, "samples", file)

    def curves(self) -> None:
        """Draws curves.png from metrics.jsonl; before the first line there is none."""
        if not self.enabled:
            return
        with self.pause(), self._tolerated("curves"):
            write_curves(self._workdir, self._config)

    def close(self) -> None:
        """Takes the bar off the screen and closes the files; twice does no harm."""
        self._closing.close()

    def _open_wandb(
        self, closing: contextlib.ExitStack, progress: Progress, *, begins: bool
    ) -> None:
        """Opens Weights & Biases; a run that is resumed goes on without it if it must."""
        try:
            copy = WeightsAndBiases(self._workdir, self._config, progress.started)
        except UsageError as error:
            if begins:
                raise
            self._screen.message(f"TRAINING GOES ON WITHOUT {error}")
        else:
            closing.callback(copy.close)
            self._copies["Weights & Biases"] = copy

    def _record(
        self,
        step: int,
        phase: str,
        values: Mapping[str, float],
        group: str,
        marks: Mapping[str, str],
    ) -> None:
        with self._tolerated("metrics.jsonl"):
            self._log.append(step, phase, values, time=round(time.time(), 3), **marks)
        tagged = {f"{group}/{k}": v for k, v in values.items()}
        for product, copy in self._copies.items():
            with self._tolerated(product):
                copy.scalars(step, tagged)

    @contextlib.contextmanager
    def _tolerated(self, product: str) -> Iterator[None]:
        """Reports that `product` cannot be written, once, until it can be again."""
        try:
            yield
        except OSError as error:
            if product not in self._failures:
                self._failures.add(product)
                reason = error.strerror or error
                self._screen.message(
                    f"{product.upper()} COULD NOT BE WRITTEN: {reason}. "
                    "Training goes on."
                )
        else:
            self._failures.discard(product)

    def _time_left(self, step: int, phase: str, *, pace: float) -> float:
        """Returns seconds at this phase's pace, its evaluations and saves included.

        Counted from the phase's first log on, so that compiling does not raise the
        estimate; until the second log it is `pace`, the seconds per step just measured.
        """
        now = time.perf_counter()
        if self._pace_start is None or self._pace_start[0] != phase:
            self._pace_start = phase, step, now
        _, first, since = self._pace_start
        if step > first:
            pace = (now - since) / (step - first)
        return max(0, self._config.schedule.total_steps - step) * pace


def write_curves(workdir: Path, config: Config) -> None:
    """Draws a run's curves.png, its evaluations included, if anything is logged."""
    lines = read_history(workdir)
    if lines:
        png = draw_curves([History(config.name, config, lines)])
        write_whole(workdir / "curves.png", png)


def _to_uint8(images: Any) -> np.ndarray:
    levels = np.nan_to_num(np.asarray(images, np.float32)).clip(0, 1) * 255
    return levels.round().astype(np.uint8)
