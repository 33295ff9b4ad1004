"""Where a run's time goes, and what of it is kept."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import jax
import pytest

from gl_jax import cli
from gl_jax.chips import peak_of
from gl_jax.config import Config, ModelConfig, Phase, RunConfig, ScheduleConfig
from gl_jax.experiment import Experiment
from gl_jax.parallel import Devices
from gl_jax.training import loop, work
from gl_jax.training.report import Progress, Report, read_metrics
from gl_jax.training.report.clock import Clock


class Time:
    """Time that passes only when told to, on both of Python's clocks."""

    now = 5000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    monkeypatch.setattr("time.time", clock)
    monkeypatch.setattr("time.perf_counter", clock)
    return clock


# --- in numbers that can be added up by hand


def test_goodput_counts_kept_steps_alone_over_all_lives(clock):
    first = Clock()
    with first.pause():
        clock.wait(30)  # compiling
    clock.wait(100)  # steps
    saved = first.progress()
    clock.wait(50)  # steps that the kill loses
    assert first.goodput() == 150 / 180
    clock.wait(320)  # nobody restarts it
    second = Clock(saved)
    assert second.goodput() == 100 / 500
    with second.pause():
        clock.wait(40)
    clock.wait(60)
    assert second.goodput() == 160 / 600
    # A rollback goes back to the same checkpoint.
    third = Clock(saved)
    clock.wait(100)
    assert third.goodput() == 200 / 700
    assert third.progress() == Progress(5000.0, 200.0)


def test_a_step_has_parts_without_what_is_paused(clock, tmp_path, capsys):
    report = Report(tmp_path, config=Config(), start_step=0)
    with report.pause(steps=1), report.part("device", at_peak=8.0):
        clock.wait(100)
    for _ in range(2):
        with report.part("data"):
            clock.wait(1)
        with report.part("device", at_peak=2.0):
            clock.wait(4)
        clock.wait(3)
    report.scalars(3, "joint", {}, peak_memory=12_300_000_000)
    report.close()
    (line,) = read_metrics(tmp_path / "metrics.jsonl")
    parts = {name: line[f"{name}_seconds"] for name in ("data", "device", "host")}
    assert parts == {"data": 1, "device": 4, "host": 3}
    assert line["mfu"] == 0.25 and line["goodput"] == 16 / 116
    said = capsys.readouterr().out
    assert "8 s/step (data 1, device 4, host 3)  MFU 25%  goodput 14%" in said
    assert "peak 12.3 GB" in said


def test_memory_is_that_of_the_fullest_device_and_none_where_nobody_tells():
    @dataclasses.dataclass
    class Told:
        peak: int

        def memory_stats(self) -> dict[str, int]:
            return {"peak_bytes_in_use": self.peak}

    devices = Devices(1)
    assert devices.peak_memory() is None
    devices.local = [Told(5), Told(7)]
    assert devices.peak_memory() == 7


def test_the_time_at_peak_is_of_the_model_and_not_of_what_is_computed_twice():
    device = dataclasses.make_dataclass("Device", ["device_kind"])("TPU v4")
    config = Config(model=ModelConfig(width=0.0625, discriminators="none"))
    again = dataclasses.replace(
        config, model=dataclasses.replace(config.model, rematerialize=True)
    )
    once, twice = (
        work.seconds_at_peak(c, None, Phase.COMPLETION, device, 4)
        for c in (config, again)
    )
    assert once == twice > 0
    assert peak_of("TPU v4", "bfloat16") == 275e12
    cpu = jax.devices()[0]
    assert work.seconds_at_peak(config, None, Phase.COMPLETION, cpu, 4) == 0


# --- a run that is killed twice


class Killed(BaseException):
    pass


def test_the_goodput_of_a_run_killed_twice_is_that_of_its_log(
    small_parts, small_config, tmp_path, monkeypatch, capsys
):
    config = dataclasses.replace(
        small_config,
        data=dataclasses.replace(small_config.data, workers=1),
        schedule=ScheduleConfig(12, 0, 12),
        run=RunConfig(
            device_count=1, log_every=1, save_every=4, eval_every=12, sample_every=12,
            validation_images=1, sample_images=1,
        ),
    )  # fmt: skip
    experiment = Experiment(config, "killed.py", "", lambda config: small_parts(config))
    monkeypatch.setattr(work, "peak_of", lambda kind, dtype: 1e9)
    progress, kills = Report.progress, [7, 10]

    def slow(report: Report, step: int, phase: str) -> None:
        time.sleep(0.2)
        if kills and step == kills[0]:
            del kills[0]
            raise Killed
        progress(report, step, phase)

    monkeypatch.setattr(Report, "progress", slow)
    workdir = tmp_path / "run"
    started = time.time()
    while kills:
        with pytest.raises(Killed):
            loop.run(config, workdir, experiment=experiment)
        time.sleep(0.5)
    loop.run(config, workdir, experiment=experiment)

    lines = read_metrics(workdir / "metrics.jsonl")
    trained: list[dict[str, Any]] = [line for line in lines if "order_hash" in line]
    assert [line["step"] for line in trained] == [*range(1, 13)]
    status = json.loads((workdir / "run_status.json").read_text())
    assert started <= status["started"] <= trained[0]["time"]
    parts = "data_seconds", "device_seconds", "host_seconds"
    # Each line is of one step; those after a start, which compile, have no seconds.
    seconds = [
        sum(line[part] for part in parts) for line in trained if parts[0] in line
    ]
    assert len(seconds) == 12 - 3
    # Above the tolerance are the lost steps: 5 to 7, and 9. Below it is the host's work
    # between a line and the save after it, which is in none of the lines.
    kept = trained[-1]["goodput"] * (trained[-1]["time"] - status["started"])
    assert kept == pytest.approx(sum(seconds), abs=0.3)
    flop = [
        line["mfu"] * sum(line[p] for p in parts) for line in trained if "mfu" in line
    ]
    assert len(flop) == 9 and flop == pytest.approx([flop[0]] * 9)

    capsys.readouterr()
    assert cli.main(["inspect", str(workdir)]) == 0
    said = capsys.readouterr().out
    assert "status     finished" in said and "checkpoint step 12 of 12" in said
    assert f"goodput    {trained[-1]['goodput']:.1%} of the" in said


def test_a_folder_without_a_configuration_is_no_run(tmp_path: Path, capsys):
    (tmp_path / "run_status.json").write_text("{}")
    assert cli.main(["inspect", str(tmp_path)]) == 2
    assert "no config.json" in capsys.readouterr().err
