"""A run that is watched from beside it, on two small photographs."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from gl_jax import cli
from gl_jax.checkpoint import Checkpoints
from gl_jax.config import (
    Config,
    DataConfig,
    HolesConfig,
    Measure,
    ModelConfig,
    RunConfig,
    UsageError,
)
from gl_jax.evaluation import follow
from gl_jax.evaluation.measures import catalogue
from gl_jax.training.parts import default_parts
from gl_jax.training.report import evaluations_by_step
from gl_jax.training.state import create_state
from gl_jax.training.workdir import write_config, write_status

SIDE = 32
CONFIG = Config(
    model=ModelConfig(width=0.0625, discriminators="none"),
    data=DataConfig(image_size=SIDE, mean_color=(0.5, 0.4, 0.3)),
    holes=HolesConfig(min_size=8, max_size=16, local_size=16),
    run=RunConfig(keep_newest=2),
)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for index in range(2):
        pixels = np.random.default_rng(index).integers(
            0, 256, (SIDE, SIDE, 3), np.uint8
        )
        Image.fromarray(pixels).save(folder / f"photo{index}.png")
    return folder


@pytest.fixture
def save(tmp_path: Path) -> Iterator[Callable[[int], None]]:
    """Saves a step of the run in the folder `run`, as its training would."""
    run = tmp_path / "run"
    run.mkdir()
    write_config(run, CONFIG, {})
    write_status(run, "running", None)
    checkpoints = Checkpoints(
        run / "checkpoints", keep_newest=2, keep_best=0, keep_every=None,
        max_failed_saves=1, log=print,
    )  # fmt: skip
    state = create_state(default_parts(CONFIG), SIDE)

    def save(step: int) -> None:
        checkpoints.save(
            step, state, measured={}, config_json=CONFIG.to_json(), extra={}
        )
        assert checkpoints.wait()

    yield save
    checkpoints.close()


def test_each_checkpoint_is_measured_as_it_lands_until_the_run_ends(
    photographs, save, tmp_path, monkeypatch, capsys
):
    run = tmp_path / "run"
    words = ["evaluate", "--follow", str(run), "--data", str(photographs)]
    words += ["--masks", "center", "--batch-size", "1"]

    def passing(seconds: float) -> None:
        assert seconds == follow.POLL_SECONDS
        save(5)
        write_status(run, "finished", 5)

    monkeypatch.setattr("time.sleep", passing)
    save(3)
    assert cli.main(words) == 0
    measured = evaluations_by_step(run)
    assert list(measured) == [3, 5]
    assert 0 < measured[3]["hole_ssim"] == measured[5]["hole_ssim"]  # the same weights
    assert (run / "evaluations" / "step_00000005" / "evaluation.png").is_file()
    assert (run / "curves.png").is_file()
    assert "The run has ended: finished." in capsys.readouterr().out

    assert cli.main(words) == 2
    assert "the run has ended (finished)" in capsys.readouterr().err


def test_a_step_is_measured_once_if_it_stays_and_never_with_other_holes(
    save, tmp_path, monkeypatch
):
    run, said, measured = tmp_path / "run", [], []
    from_run = follow.export.from_run

    def slow(workdir: Path, *, step: int, **options: Any) -> Any:
        if step == 3:
            save(4)
            save(5)  # Step 3 is no longer one of the two newest.
        return from_run(workdir, step=step, **options)

    def evaluate(model: str, masks: str, output: Path, **options: Any) -> Any:
        measured.append(int(model.rpartition(" ")[2]))
        means = {"hole_psnr_db": 20.0, "fid": 7.5, "swd_fine": math.nan}
        return SimpleNamespace(
            settings={"model": output.name, "masks": masks}, means=lambda: means
        )

    def stop(seconds: float) -> None:
        write_status(run, "failed", 5)

    monkeypatch.setattr(follow.export, "from_run", slow)
    monkeypatch.setattr(follow.evaluate, "run", evaluate)
    monkeypatch.setattr("time.sleep", stop)
    save(2)
    save(3)
    write_status(run, "preempted", 3)  # which may go on
    follow.run(run, "center", log=said.append)
    assert measured == [2, 4, 5]
    assert said[0].startswith("Checkpoint 3 was removed before it was measured")
    line = evaluations_by_step(run)[5]
    assert (line["hole_psnr_db"], line["fid"]) == (20.0, 7.5)
    assert "swd_fine" not in line and line["phase"] == "completion"

    write_status(run, "running", 5)
    save(6)
    with pytest.raises(UsageError, match="other photographs, holes or weights"):
        follow.run(run, "box", log=said.append)
    assert measured == [2, 4, 5, 6]


def test_a_run_is_ranked_by_measures_that_there_are():
    metrics = catalogue.METRICS
    known = {*catalogue.columns(metrics), *catalogue.set_columns(metrics), "fid"}
    beside = {name for name in get_args(Measure) if not name.startswith("val_")}
    assert beside <= known


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--follow", "elsewhere"], "elsewhere is no folder of a training run"),
        (["--follow", "run", "--output", "x"], "needs --output, or --follow alone"),
        (["--follow", "run", "--model", "demo"], "needs --output, or --follow alone"),
        ([], "needs --output, or --follow alone"),
    ],
)
def test_mistakes_are_refused_in_one_line(words, message, capsys):
    assert cli.main(["evaluate", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
