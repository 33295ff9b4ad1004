"""Weights & Biases beside TensorBoard, offline."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from gl_jax.config import Config, RunConfig, UsageError
from gl_jax.training import report as report_module
from gl_jax.training.report import Progress, Report, require_wandb

CONFIG = Config(name="small", run=RunConfig(wandb="inpainting"))


@pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None,
    reason="the library of Weights & Biases (gl-jax[wandb]) is not installed",
)
@pytest.mark.filterwarnings("ignore:::pydantic")
def test_both_lives_of_a_run_are_one_run_there(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for start in (0, 10):
        report = Report(
            tmp_path, config=CONFIG, start_step=start, progress=Progress(1000.0)
        )
        report.scalars(start + 10, "completion", {"completion_loss": 0.5})
        report.validation(start + 10, "completion", {"val_psnr": 20.0})
        pictures = np.zeros((1, 16, 16, 3))
        report.samples(
            start + 10, pictures.astype(np.uint8), pictures[..., :1], pictures, pictures
        )
        report.close()
    files = sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2
    assert len({file.stem for file in files}) == 1
    for file in files:
        content = file.read_bytes()
        for tag in (b"train/completion_loss", b"validation/val_psnr", b"samples"):
            assert tag in content


def test_a_service_that_refuses_stops_a_start_and_no_resumption(
    tmp_path, monkeypatch, capsys
):
    def refuse(*_: object) -> None:
        raise UsageError("run.wandb (='inpainting'): no network")

    monkeypatch.setattr(report_module, "WeightsAndBiases", refuse)
    with pytest.raises(UsageError, match="no network"):
        Report(tmp_path, config=CONFIG, start_step=0)
    Report(tmp_path, config=CONFIG, start_step=10).close()
    assert "TRAINING GOES ON WITHOUT run.wandb" in capsys.readouterr().out


def test_it_is_off_unless_asked_for_and_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    off = dataclasses.replace(CONFIG, run=RunConfig())
    Report(tmp_path, config=off, start_step=0).close()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install '.\[wandb\]'"):
        require_wandb()
