"""A training run's log, screen, TensorBoard events, samples and curves."""

import errno
import io
import json
import math
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog

from gl_jax.config import Config, DataConfig, ScheduleConfig, UsageError
from gl_jax.training import report as report_module
from gl_jax.training.report import Report, log, read_metrics
from gl_jax.training.report.screen import duration

CONFIG = Config(
    name="small",
    data=DataConfig(batch_size=4),
    schedule=ScheduleConfig(
        completion_steps=30, discriminator_steps=10, total_steps=100
    ),
)


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    monkeypatch.setattr("time.time", clock)
    return clock


@pytest.fixture
def open_report(tmp_path: Path) -> Iterator[Callable[..., Report]]:
    opened: list[Report] = []

    def opener(start_step: int = 0, *, enabled: bool = True) -> Report:
        report = Report(tmp_path, config=CONFIG, start_step=start_step, enabled=enabled)
        opened.append(report)
        return report

    yield opener
    for report in opened:
        report.close()


class Terminal(io.StringIO):
    """Standard output as a terminal has it."""

    def isatty(self) -> bool:
        return True


def open_terminal(monkeypatch: pytest.MonkeyPatch, kind: str) -> Terminal:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", kind)
    monkeypatch.setenv("COLUMNS", "100")
    return terminal


def events(workdir: Path) -> list[Event]:
    """What TensorBoard would read, in order."""
    read = []
    for file in sorted((workdir / "tensorboard").iterdir()):
        stream = io.BytesIO(file.read_bytes())
        while header := stream.read(12):
            (length,) = struct.unpack("<Q", header[:8])
            read.append(Event.FromString(stream.read(length)))
            stream.read(4)
    return read


def points(workdir: Path) -> dict[tuple[int, str], float]:
    return {
        (event.step, value.tag): value.simple_value
        for event in events(workdir)
        for value in event.summary.value
    }


# --- metrics.jsonl ---


def lasting(workdir: Path) -> list[dict[str, Any]]:
    """The lines without what an equal run need not have."""
    lines = read_metrics(workdir / "metrics.jsonl")
    return [{k: v for k, v in x.items() if k not in log.MEASURED} for x in lines]


def test_a_line_has_step_and_phase_first(open_report, tmp_path, clock):
    report = open_report()
    clock.pass_seconds(2)
    report.scalars(10, "completion", {"completion_loss": np.float32(0.5)})
    assert (tmp_path / "metrics.jsonl").read_text() == (
        '{"step": 10, "phase": "completion", "completion_loss": 0.5, '
        '"images_per_second": 20.0, "data_seconds": 0.0, "device_seconds": 0.0, '
        '"host_seconds": 0.2, "goodput": 1.0, "time": 1002.0}\n'
    )


def test_validation_has_its_own_line(open_report, tmp_path, clock):
    report = open_report()
    report.validation(10, "joint", {"val_l1": 0.25, "val_psnr": 20.5})
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {"step": 10, "phase": "joint", "val_l1": 0.25, "val_psnr": 20.5, "time": 1000.0}
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null(open_report, tmp_path, value):
    open_report().scalars(10, "joint", {"completion_loss": value})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=refuse)["completion_loss"] is None


def test_speed_counts_the_images_since_the_last_line(open_report, tmp_path, clock):
    report = open_report()
    for step, seconds in ((10, 2), (30, 5)):
        clock.pass_seconds(seconds)
        report.scalars(step, "completion", {})
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["images_per_second"] for line in lines] == [20, 16]


def test_speed_leaves_pauses_out(open_report, tmp_path, clock):
    report = open_report()
    clock.pass_seconds(1)
    with report.pause():
        clock.pass_seconds(50)
        with report.pause():
            clock.pass_seconds(20)
        clock.pass_seconds(30)
    clock.pass_seconds(1)
    report.scalars(10, "completion", {})
    assert read_metrics(tmp_path / "metrics.jsonl")[0]["images_per_second"] == 20


def test_speed_leaves_out_what_is_done_in_a_pause(open_report, tmp_path, clock):
    """The first step of a phase, which compiles, says nothing of the speed."""
    report = open_report()
    for step in (1, 12):
        with report.pause(steps=1):
            clock.pass_seconds(50)
        clock.pass_seconds(2 if step == 12 else 0.001)
        report.scalars(step, "completion", {})
    first, second = read_metrics(tmp_path / "metrics.jsonl")
    assert "images_per_second" not in first
    assert second["images_per_second"] == 20


def test_a_pause_ends_where_evaluation_fails(open_report, tmp_path, clock):
    report = open_report()

    def evaluate() -> None:
        with report.pause():
            clock.pass_seconds(50)
            raise RuntimeError("evaluation failed")

    with pytest.raises(RuntimeError, match="evaluation failed"):
        evaluate()
    clock.pass_seconds(2)
    report.scalars(10, "completion", {})
    assert read_metrics(tmp_path / "metrics.jsonl")[0]["images_per_second"] == 20


def test_a_resumed_log_is_the_unbroken_one(open_report, tmp_path, clock):
    def train(report: Report, steps: range) -> None:
        for step in steps:
            clock.pass_seconds(2)
            report.scalars(step, "joint", {"completion_loss": 1 / step})
            report.validation(step, "joint", {"val_psnr": float(step)})

    train(open_report(), range(10, 70, 10))
    unbroken = lasting(tmp_path)
    train(open_report(), range(10, 50, 10))
    train(open_report(start_step=20), range(30, 70, 10))
    assert lasting(tmp_path) == unbroken


def test_a_run_from_step_0_starts_afresh(open_report, tmp_path):
    (tmp_path / "metrics.jsonl").write_text("left over, not even JSON\n")
    open_report()
    assert read_metrics(tmp_path / "metrics.jsonl") == []


@pytest.mark.parametrize(
    "torn", ["", "{", '{"step": 30, "pha', '{"step": 30, "a": 1.5']
)
def test_a_torn_last_line_is_left_out(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10}\n{"step": 20}\n' + torn)
    assert [line["step"] for line in read_metrics(path)] == [10, 20]


def test_a_line_that_lost_only_its_newline_is_kept_whole(open_report, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10}\n{"step": 20}')
    open_report(start_step=20).validation(30, "joint", {})
    assert [line["step"] for line in read_metrics(path)] == [10, 20, 30]


@pytest.mark.parametrize("broken", ["{", "[1]", '{"loss": 1}', '{"step": "ten"}'])
def test_a_broken_line_is_named(tmp_path, broken):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 10}}\n{broken}\n{{"step": 20}}\n')
    with pytest.raises(UsageError, match=r"metrics\.jsonl, line 2,"):
        read_metrics(path)


def test_no_file_is_no_metrics(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_the_log_survives_a_failed_rewrite(open_report, tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10}\n{"step": 20}\n')

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        open_report(start_step=10)
    assert path.read_text() == '{"step": 10}\n{"step": 20}\n'


def test_other_hosts_are_silent(open_report, tmp_path, capsys):
    report = open_report(enabled=False)
    images = np.zeros((1, 16, 16, 3))
    report.message("hello")
    report.progress(1, "joint")
    with report.pause():
        report.scalars(1, "joint", {"completion_loss": 1.0})
        report.validation(1, "joint", {"val_psnr": 1.0})
    report.samples(1, images.astype(np.uint8), images[..., :1], images, images)
    report.curves()
    report.close()
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


# --- TensorBoard ---


def test_tensorboard_gets_every_metric(open_report, tmp_path):
    report = open_report()
    report.scalars(10, "joint", {"completion_loss": 0.5})
    report.validation(10, "joint", {"val_psnr": 20.5})
    read = points(tmp_path)
    assert read[10, "train/completion_loss"] == 0.5
    assert read[10, "validation/val_psnr"] == 20.5


def test_tensorboard_shows_nan_quietly(open_report, tmp_path, caplog):
    open_report().scalars(10, "joint", {"completion_loss": math.nan})
    assert math.isnan(points(tmp_path)[10, "train/completion_loss"])
    assert caplog.text == ""


def test_tensorboard_forgets_what_lies_beyond_the_checkpoint(open_report, tmp_path):
    open_report(start_step=20)
    restarts = [
        event.step
        for event in events(tmp_path)
        if event.session_log.status == SessionLog.START
    ]
    assert restarts == [21]


# --- the screen ---


def test_a_pipe_gets_a_line_at_each_log_step(open_report, capsys, clock):
    report = open_report()
    for step in range(1, 11):
        clock.pass_seconds(6)
        report.progress(step, "completion")
    metrics = {"completion_loss": 0.012345, "completion_gradient_norm": 3.0}
    report.scalars(10, "completion", metrics)
    stretched = {
        "completion_singular_value": 2.0,
        "singular_value/completion/conv1": 2.0,
    }
    report.validation(10, "completion", {"val_psnr": 20.123} | stretched)
    assert capsys.readouterr().out.splitlines() == [
        " 10/100  completion     completion_loss 0.01235  0.67 images/s  "
        "6 s/step (data 0, device 0, host 6)  goodput 100%  9 min left",
        " 10/100  validation     val_psnr 20.12",
    ]


def test_a_message_is_shown_as_it_is(open_report, capsys):
    open_report().message("resuming [bold] from step 10")
    assert capsys.readouterr().out == "resuming [bold] from step 10\n"


def test_time_left_counts_evaluations_but_no_compiling(open_report, capsys, clock):
    report = open_report()
    with report.pause():
        clock.pass_seconds(3600)  # compiling
    for step in (40, 50, 60):
        clock.pass_seconds(10)
        report.scalars(step, "joint", {})
        with report.pause():
            clock.pass_seconds(10)  # evaluating
    # From 40 to 60 a step took 2 s, evaluations included: 40 steps take 80 s.
    assert capsys.readouterr().out.splitlines()[-1].endswith(" 1 min left")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (59.7, "1 min"),
        (3599.0, "59 min"),
        (3 * 3600.0 + 300, "3 h 5 min"),
        (48 * 3600.0, "2 d 0 h"),
    ],
)
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text


def test_a_terminal_gets_a_bar_with_the_latest_numbers(open_report, monkeypatch, clock):
    terminal = open_terminal(monkeypatch, "xterm-256color")
    report = open_report()
    clock.pass_seconds(2)
    report.scalars(10, "joint", {"completion_loss": 0.012345})
    report.validation(10, "joint", {"val_psnr": 20.123})
    report.progress(12, "joint")
    report.close()
    frame = terminal.getvalue()[terminal.getvalue().rindex("joint") :]
    for expected in ("12/100", "completion_loss 0.01235", "20.00 images/s", "20.12"):
        assert expected in frame


def test_a_message_above_the_bar_is_shown_as_it_is(open_report, monkeypatch):
    terminal = open_terminal(monkeypatch, "xterm-256color")
    report = open_report()
    message = "resuming [bold] from " + "a long path/" * 20
    report.message(message)
    assert message in terminal.getvalue()


def test_closing_gives_the_cursor_back_once(open_report, monkeypatch):
    terminal = open_terminal(monkeypatch, "xterm-256color")
    report = open_report()
    report.close()
    report.close()
    assert terminal.getvalue().count("\x1b[?25h") == 1


def test_a_dumb_terminal_gets_plain_lines(open_report, monkeypatch):
    terminal = open_terminal(monkeypatch, "dumb")
    report = open_report()
    report.message("hello")
    report.close()
    assert terminal.getvalue() == "hello\n"


# --- sample sheets ---


def sheet_of(report: Report, workdir: Path, **changes: Any) -> np.ndarray:
    images = np.random.default_rng(0).random((2, 192, 192, 3)).astype(np.float32)
    mask = np.zeros((2, 192, 192, 1), np.float32)
    mask[:, 40:90, 60:100] = 1
    given: dict[str, Any] = {
        "photographs": (images * 255).round().astype(np.uint8),
        "mask": mask,
        "completed": 1 - images,
        "composite": images,
    }
    report.samples(10, **(given | changes))
    with Image.open(workdir / "samples" / "step_00000010.png") as image:
        return np.asarray(image.convert("RGB"))


def cell(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    top, left = 30 + row * 200, 8 + column * 200
    return sheet[top : top + 192, left : left + 192]


def test_a_sheet_has_its_columns_in_order(open_report, tmp_path):
    photographs = np.random.default_rng(1).integers(0, 256, (2, 192, 192, 3), np.uint8)
    sheet = sheet_of(
        open_report(),
        tmp_path,
        photographs=photographs,
        completed=1 - photographs / 255,
        composite=photographs / 255,
    )
    for row, photo in enumerate(photographs):
        hole = photo.copy()
        hole[40:90, 60:100] = 255
        for column, picture in enumerate((photo, hole, 255 - photo, photo)):
            np.testing.assert_array_equal(cell(sheet, row, column), picture)


def test_the_arrays_of_a_sheet_lie_beside_it(open_report, tmp_path):
    sheet = sheet_of(open_report(), tmp_path)
    file = tmp_path / "samples" / "step_00000010.npz"
    with np.load(file, allow_pickle=False) as arrays:
        photo, mask, completed = (arrays[k] for k in ("photo", "mask", "completed"))
    assert mask.dtype == bool
    for row in range(2):
        np.testing.assert_array_equal(photo[row], cell(sheet, row, 0))
        np.testing.assert_array_equal(completed[row], cell(sheet, row, 2))
        hole = np.where(mask[row], np.uint8(255), photo[row])
        np.testing.assert_array_equal(hole, cell(sheet, row, 1))


def test_an_output_out_of_range_is_clipped(open_report, tmp_path):
    completed = np.zeros((2, 192, 192, 3), np.float32)
    completed[0], completed[1, :96], completed[1, 96:] = math.nan, 1.5, -0.5
    sheet = sheet_of(open_report(), tmp_path, completed=completed)
    assert (cell(sheet, 0, 2) == 0).all()
    assert (cell(sheet, 1, 2)[:96] == 255).all()
    assert (cell(sheet, 1, 2)[96:] == 0).all()


def test_tensorboard_gets_the_same_sheet(open_report, tmp_path):
    sheet = sheet_of(open_report(), tmp_path)
    (image,) = [v.image for e in events(tmp_path) for v in e.summary.value]
    assert (image.height, image.width) == sheet.shape[:2]
    file = tmp_path / "samples" / "step_00000010.png"
    assert image.encoded_image_string == file.read_bytes()


def test_drawing_is_not_counted_as_training(open_report, tmp_path, clock, monkeypatch):
    write = report_module.write_whole

    def slow(*args: Any) -> None:
        clock.pass_seconds(100)
        write(*args)

    monkeypatch.setattr(report_module, "write_whole", slow)
    report = open_report()
    sheet_of(report, tmp_path)
    clock.pass_seconds(2)
    report.scalars(10, "joint", {})
    report.curves()
    clock.pass_seconds(2)
    report.scalars(20, "joint", {})
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["images_per_second"] for line in lines] == [20, 20]


def test_curves_are_drawn_from_the_log(open_report, tmp_path):
    report = open_report()
    report.curves()
    assert not (tmp_path / "curves.png").exists()
    report.scalars(10, "completion", {"completion_loss": 0.5})
    report.curves()
    with Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG"


def test_importing_the_report_loads_nothing_heavy():
    heavy = ["matplotlib", "tensorboardX", "PIL", "tensorflow"]
    program = (
        "import sys, gl_jax.training.report\n"
        f"print(*[name for name in {heavy} if name in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(report_module.__file__).parents[3],
    )
    assert answer.stdout.strip() == ""


# --- storage that fails ---


def test_lines_that_cannot_be_written_are_written_later(
    open_report, tmp_path, monkeypatch, capsys
):
    report = open_report()
    report.scalars(1, "joint", {"completion_loss": 1.0})
    append = log.append

    def no_room(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(log, "append", no_room)
    for step in (2, 3):
        report.scalars(step, "joint", {"completion_loss": 1.0})
    said = capsys.readouterr().out
    assert said.count("METRICS.JSONL COULD NOT BE WRITTEN: No space left") == 1
    assert "Training goes on." in said
    monkeypatch.setattr(log, "append", append)
    report.scalars(4, "joint", {"completion_loss": 1.0})
    steps = [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert steps == [1, 2, 3, 4]


def test_a_line_cut_short_by_a_full_disk_is_taken_back(tmp_path):
    """The file may not grow beyond ten bytes: a fault of the system, not of a mock."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    path = tmp_path / "lines"
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        log.append(path, b"1234\n")
        with pytest.raises(OSError, match=r"No space|too large"):
            log.append(path, b"56789012\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_bytes() == b"1234\n"


def test_pictures_and_events_that_cannot_be_written_stop_nothing(
    open_report, tmp_path, monkeypatch, capsys
):
    report = open_report()
    report.scalars(1, "joint", {"completion_loss": 1.0})

    def no_room(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(report_module, "write_whole", no_room)
        report.curves()
    with monkeypatch.context() as patch:
        events = report._copies["TensorBoard's events"]
        patch.setattr(events._writer, "flush", no_room)
        report.scalars(2, "joint", {"completion_loss": 1.0})
    said = capsys.readouterr().out
    assert "CURVES COULD NOT BE WRITTEN" in said
    assert "TENSORBOARD'S EVENTS COULD NOT BE WRITTEN" in said
    report.scalars(3, "joint", {"completion_loss": 1.0})
    report.curves()
    assert (tmp_path / "curves.png").exists()
    # The file that may end within an event is not written on.
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2


def test_a_line_carries_the_hash_of_the_order(open_report, tmp_path):
    open_report().scalars(1, "joint", {"completion_loss": 1.0}, order_hash="abc")
    (line,) = read_metrics(tmp_path / "metrics.jsonl")
    assert line["order_hash"] == "abc"
