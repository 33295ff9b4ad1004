"""What a training run shows: metrics.jsonl, TensorBoard, progress, sheets, curves.

metrics.jsonl is the record: one JSON object a line, `step` (completed updates) and
`phase` first. Lines of training carry the losses and `images_per_second`, lines of
validation carry `val_*`. JSON has no NaN: a value that is not finite is written as
null, which every reader takes for a missing number. The curves are drawn from this
file alone. `order_hash` on a line of training stands for all photographs shown so far.

What cannot be written, on a full disk for example, is said and does not stop the run:
lines of metrics.jsonl are kept and written later, pictures and events are left out.

rich, matplotlib and tensorboardX are imported where they are used.
"""

import contextlib
import errno
import functools
import io
import itertools
import json
import math
import os
import sys
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, SupportsFloat

import numpy as np
from jaxtyping import Float, UInt8

from gl_jax.config import Config, Phase, UsageError
from gl_jax.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHEET_CELL = 192
"""Pixels that a photograph of a sample sheet has at least; small ones are enlarged."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a full disk."""

SHEET_COLUMNS = "photo", "hole", "raw output", "composite"
SHEET_GUTTER, SHEET_HEADER = 6, 30

Record = dict[str, Any]
"""One line of metrics.jsonl."""

_P = ParamSpec("_P")


def _where_enabled(
    method: Callable[Concatenate["Report", _P], None],
) -> Callable[Concatenate["Report", _P], None]:
    """Of several hosts, only the first one reports; storage that fails is no reason to stop."""

    @functools.wraps(method)
    def silent_elsewhere(
        report: "Report", /, *args: _P.args, **kwargs: _P.kwargs
    ) -> None:
        if not report.enabled:
            return
        try:
            method(report, *args, **kwargs)
        except OSError as error:
            report.failed(method.__name__, error)
        else:
            report.worked(method.__name__)

    return silent_elsewhere


class Report:
    """Everything a run tells its user, on the screen and in the workdir.

    A run resumed at `start_step` continues the log as if it had never been broken:
    lines beyond that step are dropped. At 0 the log starts afresh. Log a step before
    saving it, so that a resumed log misses no line. Where `enabled` is false, on all
    hosts but the first, every method is silent.
    """

    def __init__(
        self, workdir: Path, *, config: Config, start_step: int, enabled: bool = True
    ) -> None:
        self.enabled = enabled
        self._workdir = workdir
        self._config = config
        self._metrics_file = workdir / "metrics.jsonl"
        self._stopwatch = _Stopwatch()
        self._unwritten: list[str] = []
        self._failures: set[str] = set()
        self._last_step = start_step
        with contextlib.ExitStack() as closing:
            if enabled:
                self._tensorboard = _TensorBoard(workdir / "tensorboard")
                closing.callback(self._tensorboard.close)
                self.rewind(start_step)
                self._screen = _open_screen(config.schedule.total_steps, start_step)
                closing.callback(self._screen.close)
            self._closing = closing.pop_all()

    def rewind(self, step: int) -> None:
        """Forgets what was logged after `step`: the run goes on from its checkpoint.

        OSError where metrics.jsonl cannot be written: a run should not start so.
        """
        if not self.enabled:
            return
        _drop_after(self._metrics_file, step)
        self._tensorboard.forget_from(step + 1)
        self._last_step, self._last_seconds = step, self._stopwatch.seconds()
        self._pace_start: tuple[str, int, float] | None = None

    @contextlib.contextmanager
    def pause(self, *, steps: int = 0) -> Iterator[None]:
        """Leaves time out of images_per_second: compiling, evaluating, saving.

        And so many `steps` that are done meanwhile. Devices work on while the host goes
        ahead, so fetch the last metrics before.
        """
        with self._stopwatch.pause():
            yield
        self._last_step += steps

    @_where_enabled
    def message(self, text: str) -> None:
        """One line for the user, above the progress bar."""
        self._screen.message(text)

    def failed(self, what: str, error: OSError) -> None:
        """Says that `what` could not be written; once, until it can be again."""
        if what not in self._failures:
            self._failures.add(what)
            reason = error.strerror or error
            self._screen.message(
                f"{what.upper()} COULD NOT BE WRITTEN: {reason}. Training goes on."
            )

    def worked(self, what: str) -> None:
        """After this a failure of `what` is worth saying again."""
        self._failures.discard(what)

    @_where_enabled
    def progress(self, step: int, phase: str) -> None:
        """Moves the bar to `step` completed updates; cheap enough for every step."""
        self._screen.progress(step, phase)

    @_where_enabled
    def scalars(
        self,
        step: int,
        phase: str,
        metrics: Mapping[str, SupportsFloat],
        *,
        order_hash: str | None = None,
    ) -> None:
        """Logs training metrics, and the images per second since the previous call."""
        values = {name: float(value) for name, value in metrics.items()}
        seconds = self._stopwatch.seconds()
        steps, elapsed = step - self._last_step, seconds - self._last_seconds
        facts = [f"{k} {v:.4g}" for k, v in values.items() if k.endswith("_loss")]
        if steps > 0 and elapsed > 0:
            rate = steps * self._config.data.batch_size / elapsed
            values["images_per_second"] = round(rate, 3)
            left = self._time_left(step, phase, pace=elapsed / steps)
            digits = 0 if rate >= 100 else 2
            facts += [f"{rate:,.{digits}f} images/s", f"{_duration(left)} left"]
        self._last_step, self._last_seconds = step, seconds
        marks = {} if order_hash is None else {"order_hash": order_hash}
        self._record(step, phase, values, "train", marks)
        self._screen.training(step, phase, facts)

    @_where_enabled
    def validation(
        self, step: int, phase: str, metrics: Mapping[str, SupportsFloat]
    ) -> None:
        """Logs validation metrics (`val_*`) on a line of their own."""
        values = {name: float(value) for name, value in metrics.items()}
        self._record(step, phase, values, "validation")
        self._screen.validation(step, [f"{k} {v:.4g}" for k, v in values.items()])

    @_where_enabled
    def samples(
        self,
        step: int,
        photographs: UInt8[Any, "n s s 3"],
        mask: Float[Any, "n s s 1"],
        completed: Float[Any, "n s s 3"],
        composite: Float[Any, "n s s 3"],
    ) -> None:
        """Draws samples/step_00001000.png: a row for each photograph, pixel by pixel.

        Columns: photo, hole (white), raw output, composite. Photographs smaller than
        SHEET_CELL are enlarged by a whole factor. Floats lie in [0, 1]; what lies
        outside is clipped, NaN becomes black.
        """
        with self.pause():
            photo = np.asarray(photographs)
            hole = np.where(np.asarray(mask) > 0.5, np.uint8(255), photo)
            pictures = (photo, hole, _to_uint8(completed), _to_uint8(composite))
            columns = dict(zip(SHEET_COLUMNS, pictures, strict=True))
            png, size = _draw_sheet(columns, f"{self._config.name}, step {step:,}")
            write_whole(self._workdir / "samples" / f"step_{step:08d}.png", png)
            self._tensorboard.image(step, "samples", png, size)

    @_where_enabled
    def curves(self) -> None:
        """Draws curves.png from metrics.jsonl; before the first line there is none."""
        with self.pause():
            metrics = read_metrics(self._metrics_file)
            if metrics:
                draw_curves(metrics, self._config, self._workdir / "curves.png")

    def close(self) -> None:
        """Takes the bar off the screen and closes the files; twice does no harm."""
        self._closing.close()

    def _record(
        self,
        step: int,
        phase: str,
        values: dict[str, float],
        group: str,
        marks: Mapping[str, str] = types.MappingProxyType({}),
    ) -> None:
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        line = json.dumps(
            {"step": step, "phase": str(phase), **finite, **marks}, allow_nan=False
        )
        self._unwritten.append(line + "\n")
        try:
            _append(self._metrics_file, "".join(self._unwritten).encode())
        except OSError as error:
            self.failed(self._metrics_file.name, error)
        else:
            self._unwritten.clear()
            self.worked(self._metrics_file.name)
        try:
            self._tensorboard.scalars(
                step, {f"{group}/{k}": v for k, v in values.items()}
            )
        except OSError as error:
            self.failed("TensorBoard's events", error)
        else:
            self.worked("TensorBoard's events")

    def _time_left(self, step: int, phase: str, *, pace: float) -> float:
        """Seconds at this phase's pace, its evaluations and saves included.

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


@dataclass
class _Stopwatch:
    """Seconds of training: a clock that stands still during a pause."""

    paused: float = field(default=0.0, init=False)
    stopped_at: float | None = field(default=None, init=False)

    def seconds(self) -> float:
        now = time.perf_counter() if self.stopped_at is None else self.stopped_at
        return now - self.paused

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        if self.stopped_at is not None:  # a pause within a pause
            yield
            return
        began = self.stopped_at = time.perf_counter()
        try:
            yield
        finally:
            self.paused += time.perf_counter() - began
            self.stopped_at = None


# --- metrics.jsonl ---


def read_metrics(path: Path) -> list[Record]:
    """The lines of a metrics.jsonl, [] where there is no file.

    A last line cut short by a crash is left out; any other line that is not a JSON
    object with a `step` raises UsageError. Values that were not finite are None.
    """
    return [record for _, record in _lines(path)]


def _lines(path: Path) -> Iterator[tuple[str, Record]]:
    """Each whole line, ending in a newline, with what it says."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            record = None
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            yield line.rstrip("\n") + "\n", record
        elif number < len(lines) or line.endswith("\n"):
            raise UsageError(
                f"{path}, line {number}, is not a JSON object with a step: "
                "remove or repair this line."
            )


def _drop_after(path: Path, step: int) -> None:
    lines = _lines(path) if step else ()
    kept = [line for line, record in lines if record["step"] <= step]
    write_whole(path, "".join(kept).encode())


def _append(path: Path, content: bytes) -> None:
    """Adds to the file, all or nothing: a line cut short would spoil the ones after it."""
    with path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            written = file.write(content)
            if written != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except OSError:
            file.truncate(before)
            raise


# --- TensorBoard ---


class _TensorBoard:
    """An event file, written event by event: no thread, nothing to lose in a crash."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._files = itertools.count()
        self._writer: Any = self._open()

    def _open(self) -> Any:
        # This also imports torch (a second) where it is installed; the package does so
        # in its first lines, for type checks that are of no use here.
        from tensorboardX.event_file_writer import EventsWriter

        # Named by the second; the process tells two that start within one apart.
        name = f".{os.getpid()}.{next(self._files)}"
        return EventsWriter(str(self._folder / "events"), name)

    def forget_from(self, step: int) -> None:
        """TensorBoard no longer shows what was written before for `step` and later."""
        from tensorboardX.proto.event_pb2 import SessionLog

        restart = SessionLog(status=SessionLog.START)
        self._write(step=step, session_log=restart)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        points = [Summary.Value(tag=k, simple_value=v) for k, v in values.items()]
        self._write(step=step, summary=Summary(value=points))

    def image(self, step: int, tag: str, png: bytes, size: tuple[int, int]) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        image = Summary.Image(
            width=size[0], height=size[1], colorspace=3, encoded_image_string=png
        )
        self._write(
            step=step, summary=Summary(value=[Summary.Value(tag=tag, image=image)])
        )

    def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            # Every event was flushed when it was written. Where that failed it fails
            # again, and the file itself is left to be closed.
            with contextlib.suppress(OSError):
                writer.close()
            with contextlib.suppress(OSError):
                writer._py_recordio_writer.close()

    def _write(self, **event: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        if self._writer is None:
            self._writer = self._open()
        try:
            self._writer.write_event(Event(wall_time=time.time(), **event))
            self._writer.flush()
        except OSError:
            # The file may end within an event, after which none would be read: the
            # next event goes into a file of its own.
            self.close()
            raise


# --- the screen ---


def say(text: str) -> None:
    """Prints a line; where stdout is a file on a full disk, the line is lost."""
    try:
        print(text, flush=True)
    except OSError as error:
        if error.errno not in FULL:
            raise
        # What is still in the buffer would fail again, at last when Python ends.
        stdout, nowhere = sys.stdout.fileno(), os.open(os.devnull, os.O_WRONLY)
        kept = os.dup(stdout)
        os.dup2(nowhere, stdout)
        sys.stdout.flush()
        os.dup2(kept, stdout)
        os.close(kept)
        os.close(nowhere)


class _PlainLines:
    """For files and pipes: a line at each log step."""

    def __init__(self, total: int) -> None:
        self._total = total

    def message(self, text: str) -> None:
        say(text)

    def progress(self, step: int, phase: str) -> None:
        pass

    def training(self, step: int, phase: str, facts: list[str]) -> None:
        total = f"{self._total:,}"
        head = f"{step:>{len(total)},}/{total}  {phase:<13}"
        self.message("  ".join([head, *facts]).rstrip())

    def validation(self, step: int, facts: list[str]) -> None:
        self.training(step, "validation", facts)

    def close(self) -> None:
        pass


class _Bar:
    """For terminals: a bar, and below it the latest losses, speed and validation."""

    def __init__(self, total: int, start_step: int) -> None:
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress = Progress(
            TextColumn("{task.description:<13}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:,}/{task.total:,}"),
            expand=True,
        )
        self._task = self._progress.add_task(
            "starting", total=total, completed=start_step
        )
        self._trained: list[str] = []
        self._validated: list[str] = []
        self._live = Live(self._progress, refresh_per_second=4)
        self._live.start()

    def message(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def progress(self, step: int, phase: str) -> None:
        self._progress.update(self._task, completed=step, description=str(phase))

    def training(self, step: int, phase: str, facts: list[str]) -> None:
        self._trained = facts
        self.progress(step, phase)
        self._show()

    def validation(self, step: int, facts: list[str]) -> None:
        self._validated = facts
        self._show()

    def _show(self) -> None:
        from rich.columns import Columns
        from rich.console import Group
        from rich.text import Text

        facts = [Text(fact, "dim") for fact in self._trained + self._validated]
        self._live.update(Group(self._progress, Columns(facts, padding=(0, 2))))

    def close(self) -> None:
        self._live.stop()


_Screen = _PlainLines | _Bar


def _open_screen(total: int, start_step: int) -> _Screen:
    redraws = sys.stdout.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    return _Bar(total, start_step) if redraws else _PlainLines(total)


def _duration(seconds: float) -> str:
    """`42 s`, `12 min`, `3 h 5 min` or `4 d 7 h`."""
    whole = round(seconds)
    minutes, hours = whole // 60, whole // 3600
    if minutes < 1:
        return f"{whole} s"
    if hours < 1:
        return f"{minutes} min"
    if hours < 48:
        return f"{hours} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"


# --- sample sheets ---


def _to_uint8(images: Any) -> np.ndarray:
    levels = np.nan_to_num(np.asarray(images, np.float32)).clip(0, 1) * 255
    return levels.round().astype(np.uint8)


def _draw_sheet(
    columns: Mapping[str, UInt8[np.ndarray, "n s s 3"]], caption: str
) -> tuple[bytes, tuple[int, int]]:
    """A PNG of the columns side by side under their titles, and its (width, height)."""
    from matplotlib.figure import Figure

    gutter, header, footer, dpi = SHEET_GUTTER, SHEET_HEADER, 26, 100
    images = np.stack(list(columns.values()), axis=1)
    scale = math.ceil(SHEET_CELL / images.shape[2])
    cells = images.repeat(scale, axis=2).repeat(scale, axis=3)
    rows, count, side = cells.shape[:3]
    pitch = side + gutter
    width, height = count * pitch + gutter, header + rows * pitch - gutter + footer
    # Light grey, so that a white hole at the border has an edge.
    sheet = np.full((height, width, 3), 235, np.uint8)
    for row, column in np.ndindex(rows, count):
        top, left = header + row * pitch, gutter + column * pitch
        sheet[top : top + side, left : left + side] = cells[row, column]
    with _plain_style():
        figure = Figure(figsize=(width / dpi, height / dpi), dpi=dpi)
        figure.figimage(sheet)
        for column, title in enumerate(columns):
            x, y = gutter + column * pitch + side / 2, height - header / 2
            figure.text(x / width, y / height, title, ha="center", va="center", size=10)
        figure.text(
            1 - gutter / width,
            footer / 2 / height,
            caption,
            ha="right",
            va="center",
            size=8,
            color="0.45",
            parse_math=False,
        )
        return _png(figure, dpi), (width, height)


def cut_sheet(
    sheet: UInt8[np.ndarray, "h w 3"], side: int
) -> dict[str, UInt8[np.ndarray, "n {side} {side} 3"]]:
    """The pictures of a sample sheet by column, `side` pixels large, as they were drawn.

    ValueError where the sheet is not one of pictures of that size.
    """
    scale = math.ceil(SHEET_CELL / side)
    pitch = side * scale + SHEET_GUTTER
    height, width = sheet.shape[0] - SHEET_HEADER, sheet.shape[1] - SHEET_GUTTER
    if width != len(SHEET_COLUMNS) * pitch or height < pitch:
        raise ValueError(f"it is no sheet of samples of {side}x{side} pixels.")
    rows = height // pitch
    cells = sheet[SHEET_HEADER : SHEET_HEADER + rows * pitch, SHEET_GUTTER:]
    cells = cells.reshape(rows, pitch, len(SHEET_COLUMNS), pitch, 3).swapaxes(1, 2)
    pictures = cells[:, :, : side * scale : scale, : side * scale : scale]
    return {name: pictures[:, i] for i, name in enumerate(SHEET_COLUMNS)}


# --- curves ---

BAND_COLORS = {
    Phase.COMPLETION: "#3b76af",
    Phase.DISCRIMINATOR: "#d08a1d",
    Phase.JOINT: "#3f8f5f",
}
LINE_COLORS = "#1c2f4a", "#c2452d"
STEPS = 1, 2, 2.5, 5, 10
"""Multiples that the ticks count in."""


_Scale = Callable[[Any], Any]


@dataclass(frozen=True)
class _Panel:
    title: str
    series: dict[str, str]
    """The metrics drawn, each with its name in the legend."""
    log: bool = False
    from_zero: bool = False
    unbroken: bool = False
    """Drawn through from phase to phase."""


PANELS = (
    _Panel("Completion loss", {"completion_loss": "masked MSE"}, log=True),
    _Panel("Structure", {"structure_loss": "1 - SSIM"}, log=True),
    _Panel(
        "Adversarial game",
        {
            "discriminator_loss": "discriminator loss",
            "adversarial_loss": "adversarial loss",
        },
    ),
    _Panel(
        "Discriminator's mean score",
        {"real_score": "of photographs", "fake_score": "of completions"},
    ),
    _Panel(
        "Gradient norm at the completed image",
        {
            "completion_gradient_norm": "completion loss",
            "adversarial_gradient_norm": "alpha times adversarial loss",
        },
        log=True,
    ),
    _Panel("Validation", {"val_psnr": "PSNR of the hole, dB"}, unbroken=True),
    _Panel("Speed", {"images_per_second": "images per second"}, from_zero=True),
)


@dataclass(frozen=True)
class _Series:
    """One metric over the steps; `pieces` are slices to be drawn without a break."""

    steps: np.ndarray
    values: np.ndarray
    pieces: tuple[slice, ...]

    @classmethod
    def of(cls, metrics: Sequence[Record], name: str, panel: _Panel) -> "_Series":
        records = [record for record in metrics if name in record]
        values = np.array([r[name] for r in records], float)  # None becomes NaN
        if panel.log:
            values[values <= 0] = math.nan
        steps = np.array([r["step"] for r in records], int)
        phases = [None if panel.unbroken else r["phase"] for r in records]
        lengths = [len(list(same)) for _, same in itertools.groupby(phases)]
        ends = list(itertools.accumulate(lengths, initial=0))
        return cls(
            steps, values, tuple(itertools.starmap(slice, itertools.pairwise(ends)))
        )

    @property
    def finite(self) -> np.ndarray:
        finite: np.ndarray = self.values[np.isfinite(self.values)]
        return finite

    @property
    def window(self) -> int:
        """Points that the running median spans; 0 where there is no need of one."""
        points = len(self.finite)
        return points // 25 | 1 if points >= 200 else 0


def draw_curves(metrics: Sequence[Record], config: Config, path: Path) -> None:
    """Writes a PNG of the curves over the steps: a panel a quantity, a tint a phase.

    `metrics` is what `read_metrics` returns; a panel without any finite value is left
    out. Raises ValueError where there is no line at all.
    """
    if not metrics:
        raise ValueError("metrics must hold at least one line: nothing to draw.")
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    panels = [(panel, _panel_series(panel, metrics)) for panel in PANELS]
    drawn = [(panel, series) for panel, series in panels if series]
    last = max(record["step"] for record in metrics)
    width, head, strip, each, gap, foot, dpi = 9.0, 0.75, 0.09, 1.2, 0.42, 0.55, 120
    height = head + strip + len(drawn) * (each + gap) + foot
    with _plain_style():
        figure = Figure(figsize=(width, height), dpi=dpi)

        def add_axes(top: float, tall: float) -> "Axes":
            bottom = 1 - (top + tall) / height
            axes = figure.add_axes(
                (0.75 / width, bottom, 1 - 1.15 / width, tall / height)
            )
            axes.set_xlim(0, max(last, 1))
            return axes

        left, right = 0.75 / width, 1 - 0.4 / width
        above, below = 1 - 0.3 / height, 0.12 / height
        grey: Any = {"color": "0.45", "ha": "right"}
        name = config.name if len(config.name) <= 32 else f"{config.name[:31]}…"
        figure.text(left, above, name, size=11, weight="bold", parse_math=False)
        reached = f"step {last:,} of {config.schedule.total_steps:,}"
        figure.text(right, above, reached, **grey)
        if any(curve.window for _, series in drawn for curve in series.values()):
            figure.text(right, below, "thin: as logged, thick: running median", **grey)
        bands = list(_bands(config, last))
        _draw_phases(add_axes(head, strip), bands)
        for row, (panel, series) in enumerate(drawn):
            axes = add_axes(head + strip + gap + row * (each + gap), each)
            for start, end, phase in bands:
                axes.axvspan(start, end, color=BAND_COLORS[phase], alpha=0.09, lw=0)
            _draw_panel(axes, panel, series)
            axes.xaxis.set_major_locator(MaxNLocator(8, steps=STEPS, integer=True))
            axes.xaxis.set_major_formatter(
                FuncFormatter(lambda step, _: f"{step:,.0f}")
            )
            axes.tick_params(labelbottom=row == len(drawn) - 1)
        if drawn:
            axes.set_xlabel("step")
        write_whole(path, _png(figure, dpi))


def _bands(config: Config, last: int) -> Iterator[tuple[int, int, Phase]]:
    """The phases up to step `last`, as (from, to, phase)."""
    schedule = config.schedule
    ends = schedule.completion_steps, schedule.discriminator_steps, schedule.total_steps
    edges = sorted({0, last, *(min(end, last) for end in itertools.accumulate(ends))})
    stretches = itertools.pairwise(edges)
    for phase, same in itertools.groupby(
        stretches, lambda edge: config.phase_at(edge[0])
    ):
        run = list(same)
        yield run[0][0], run[-1][1], phase


def _draw_phases(axes: "Axes", bands: Sequence[tuple[int, int, Phase]]) -> None:
    """A strip with a colour for each phase, their names side by side above it."""
    axes.set_axis_off()
    frame = axes.get_window_extent()
    labels, widths, lefts = [], [], []
    for start, end, phase in bands:
        axes.axvspan(start, end, color=BAND_COLORS[phase], lw=0)
        label = axes.annotate(
            str(phase),
            (0, 1),
            xycoords="axes fraction",
            xytext=(0, 3),
            textcoords="offset points",
            color=BAND_COLORS[phase],
            weight="bold",
        )
        labels.append(label)
        widths.append(label.get_window_extent().width / frame.width)
        center = (start + end) / 2 / max(axes.get_xlim()[1], 1)
        lefts.append(center - widths[-1] / 2)
    for label, left in zip(
        labels, _side_by_side(lefts, widths, gap=0.015), strict=True
    ):
        label.xy = left, 1


def _side_by_side(
    lefts: Sequence[float], widths: Sequence[float], *, gap: float
) -> list[float]:
    """Left ends in [0, 1], moved as little as it takes that no two overlap."""
    placed: list[float] = []
    free = 0.0
    for left, width in zip(lefts, widths, strict=True):
        placed.append(max(left, free))
        free = placed[-1] + width + gap
    limit = 1.0
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], limit - widths[i])
        limit = placed[i] - gap
    return placed


def _panel_series(panel: _Panel, metrics: Sequence[Record]) -> dict[str, _Series]:
    """The panel's metrics by their names in the legend, without those never finite."""
    named = panel.series.items()
    series = {label: _Series.of(metrics, name, panel) for name, label in named}
    return {label: curve for label, curve in series.items() if len(curve.finite)}


def _draw_panel(axes: "Axes", panel: _Panel, series: Mapping[str, _Series]) -> None:
    forward: _Scale = np.log10 if panel.log else np.asarray
    backward: _Scale = _power_of_ten if panel.log else np.asarray
    shown = []
    for color, (label, curve) in zip(LINE_COLORS, series.items(), strict=False):
        finite = curve.finite
        label = f"{label}: {finite[-1]:.4g}"
        few = len(finite) <= 30
        for piece in curve.pieces:
            steps, values = curve.steps[piece], curve.values[piece]
            if curve.window:
                axes.plot(steps, values, color=color, lw=0.5, alpha=0.3)
                values = _running_median(values, curve.window)
            dots: dict[str, Any] = (
                {"marker": "o", "ms": 3, "clip_on": False} if few else {}
            )
            axes.plot(steps, values, color=color, lw=1.5, label=label, **dots)
            label = "_"  # only the first piece enters the legend
            shown.append(forward(values[np.isfinite(values)]))
        # Outliers may leave the panel: a spike must not flatten the rest.
        shown.append(
            np.percentile(forward(finite), [1, 99] if curve.window else [0, 100])
        )
    low, high = _padded(np.concatenate(shown), from_zero=panel.from_zero)
    if panel.log:
        axes.set_yscale("log")
    axes.set_ylim(float(backward(low)), float(backward(high)))
    _set_ticks(axes, high - low if panel.log else None)
    axes.set_title(panel.title, loc="left", weight="bold")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1.03), ncols=2)


def _power_of_ten(values: Any) -> Any:
    return 10.0**values


def _padded(values: np.ndarray, *, from_zero: bool) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if from_zero:
        return 0.0, 1.1 * high or 1.0
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 0.5
    return low - margin, high + margin


def _set_ticks(axes: "Axes", decades: float | None) -> None:
    """Three to five plain numbers on the y axis, however narrow or wide its range."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    if decades is None or decades < 0.9:
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=STEPS))
    else:
        subs = (1,) if decades > 2.2 else (1, 2, 5)
        axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=6))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def _running_median(values: np.ndarray, window: int) -> np.ndarray:
    """The centred median, deaf to spikes; NaN stays NaN and counts for nothing."""
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


# --- pictures ---


@contextlib.contextmanager
def _plain_style() -> Iterator[None]:
    """Matplotlib's own defaults and ours, whatever the user's matplotlibrc says."""
    import matplotlib.style

    ours: dict[str, Any] = {
        "font.size": 8,
        "axes.titlesize": 9,
        "axes.titlepad": 5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "0.6",
        "axes.grid": True,
        "grid.color": "0.88",
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "xtick.color": "0.35",
        "ytick.color": "0.35",
        "legend.frameon": False,
        "legend.borderaxespad": 0.0,
        "legend.borderpad": 0.0,
        "legend.handlelength": 1.4,
        "legend.columnspacing": 1.6,
    }
    with matplotlib.style.context(["default", ours]):
        yield


def _png(figure: "Figure", dpi: int) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()
