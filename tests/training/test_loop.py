"""A run from end to end, tiny, on real photographs."""

import dataclasses
import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from gl_jax.config import (
    Config,
    DataConfig,
    HolesConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
    UsageError,
)
from gl_jax.training import loop
from gl_jax.training.checkpoint import Checkpoints, restore_subtree
from gl_jax.training.interruption import Interrupted, Interruption

TOTAL = 6


def tiny(**changes: object) -> Config:
    """Two steps of each phase; saves at every one of them."""
    config = Config(
        name="tiny",
        model=ModelConfig(width=0.0625),
        data=DataConfig(batch_size=2, image_size=32, resize=(32, 48), workers=1),
        holes=HolesConfig(min_size=8, max_size=12, local_size=16),
        completion_optimizer=OptimizerConfig("adam", 1e-3),
        schedule=ScheduleConfig(2, 2, TOTAL),
        run=RunConfig(
            ema_decay=0.9,
            device_count=1,
            log_every=1,
            save_every=1,
            eval_every=3,
            sample_every=3,
            keep_newest=TOTAL,
        ),
    )
    return dataclasses.replace(config, **changes)


def until(total: int) -> Config:
    return tiny(schedule=ScheduleConfig(2, 2, total))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("unbroken")
    loop.run(tiny(), workdir)
    return workdir


def saved_state(workdir: Path) -> dict:
    names = ("step", "completion", "discriminator", "ema")
    return restore_subtree(workdir / "checkpoints", names).state


def log(workdir: Path) -> list[dict]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [{k: v for k, v in r.items() if k != "images_per_second"} for r in records]


def assert_same_run(workdir: Path, unbroken: Path) -> None:
    same = jax.tree.map(np.array_equal, saved_state(workdir), saved_state(unbroken))
    assert all(jax.tree.leaves(same))
    assert log(workdir) == log(unbroken)


def test_a_run_leaves_what_the_readme_promises(unbroken):
    names = {path.name for path in unbroken.iterdir()}
    promised = (
        "config.json metrics.jsonl run_status.json samples curves.png checkpoints"
    )
    assert names >= {*promised.split(), "tensorboard"}
    status = json.loads((unbroken / "run_status.json").read_text())
    assert status == {"status": "finished", "last_step": TOTAL, "reason": ""}
    sheets = sorted(path.name for path in (unbroken / "samples").iterdir())
    assert sheets == ["step_00000003.png", "step_00000006.png"]


def test_the_log_has_a_line_for_each_step_with_its_phase(unbroken):
    training = [line for line in log(unbroken) if "val_psnr" not in line]
    assert [line["step"] for line in training] == list(range(1, TOTAL + 1))
    assert [line["phase"] for line in training] == (
        ["completion"] * 2 + ["discriminator"] * 2 + ["joint"] * 2
    )
    assert {"completion_loss", "adversarial_loss", "discriminator_loss"} <= set(
        training[-1]
    )
    assert {"completion_gradient_norm", "adversarial_gradient_norm"} <= set(
        training[-1]
    )


@pytest.mark.parametrize("broken_at", [1, 3, 4])
def test_a_resumed_run_is_the_unbroken_one_to_the_bit(broken_at, unbroken, tmp_path):
    loop.run(until(broken_at), tmp_path)
    messages: list[str] = []
    loop.run(tiny(), tmp_path, log=messages.append)
    assert any(f"at step {broken_at} of {TOTAL}" in message for message in messages)
    # The sheets and validations of a run that ended early come on top of the others.
    same = jax.tree.map(np.array_equal, saved_state(tmp_path), saved_state(unbroken))
    assert all(jax.tree.leaves(same))
    training = [line for line in log(tmp_path) if "val_psnr" not in line]
    assert training == [line for line in log(unbroken) if "val_psnr" not in line]


def test_a_request_to_stop_saves_and_the_same_command_resumes(
    unbroken, tmp_path, monkeypatch
):
    monkeypatch.setattr(Interruption, "requested", lambda _, step: step == 4)
    with pytest.raises(Interrupted) as stopped:
        loop.run(tiny(run=dataclasses.replace(tiny().run, save_every=100)), tmp_path)
    assert stopped.value.code == 143
    status = json.loads((tmp_path / "run_status.json").read_text())
    assert (status["status"], status["last_step"]) == ("preempted", 4)
    monkeypatch.undo()
    loop.run(tiny(), tmp_path)
    assert_same_run(tmp_path, unbroken)


def test_a_finished_run_has_nothing_left_to_do(unbroken):
    before = saved_state(unbroken)
    loop.run(tiny(), unbroken)
    assert all(
        jax.tree.leaves(jax.tree.map(np.array_equal, before, saved_state(unbroken)))
    )


def test_another_experiments_workdir_is_refused_and_left_alone(unbroken):
    before = (unbroken / "config.json").read_bytes()
    with pytest.raises(UsageError, match="holds a run of the experiment 'tiny'"):
        loop.run(tiny(name="other"), unbroken)
    assert (unbroken / "config.json").read_bytes() == before


def test_other_values_that_change_what_is_learned_are_refused(unbroken):
    other = tiny(run=dataclasses.replace(tiny().run, seed=1))
    with pytest.raises(UsageError, match=r"run\.seed is 1 and was 0"):
        loop.run(other, unbroken)


def test_a_workdir_that_cannot_be_written_is_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    with pytest.raises(UsageError, match="cannot be written"):
        loop.run(tiny(), file)


def test_a_batch_that_does_not_divide_is_refused_before_anything_is_written(tmp_path):
    config = tiny(run=dataclasses.replace(tiny().run, device_count=4))
    with pytest.raises(UsageError, match="use 4"):
        loop.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def exploding() -> OptimizerConfig:
    return OptimizerConfig("sgd", 1e30)


def test_a_loss_that_is_not_finite_stops_the_run_and_is_never_saved(tmp_path):
    config = tiny(completion_optimizer=exploding())
    with pytest.raises(RuntimeError, match=r"nan|inf|finite"):
        loop.run(config, tmp_path)
    status = json.loads((tmp_path / "run_status.json").read_text())
    assert status["status"] == "failed"
    saved = Checkpoints(
        tmp_path / "checkpoints",
        keep_newest=1,
        keep_best=0,
        keep_every=None,
        max_failed_saves=1,
        log=print,
    )
    assert TOTAL not in saved.steps()
    saved.close()


def test_rollback_gives_up_after_its_limit(tmp_path):
    run = dataclasses.replace(tiny().run, on_nan="rollback", max_rollbacks=2)
    messages: list[str] = []
    with pytest.raises(RuntimeError):
        loop.run(
            tiny(completion_optimizer=exploding(), run=run),
            tmp_path,
            log=messages.append,
        )
    assert sum("Going back to the last checkpoint" in text for text in messages) == 2


def test_profiled_steps_are_there_for_tensorboard(tmp_path):
    run = dataclasses.replace(tiny().run, profile_steps=(2, 2), save_every=100)
    loop.run(tiny(schedule=ScheduleConfig(2, 0, 2), run=run), tmp_path)
    assert list((tmp_path / "tensorboard").rglob("*.xplane.pb"))


@pytest.mark.slow
def test_it_learns(tmp_path):
    """On the bundled photographs the hole error falls well below that of a mean fill."""
    config = tiny(
        model=ModelConfig(width=0.25, discriminators="none"),
        data=DataConfig(batch_size=8, image_size=32, resize=(32, 40), workers=1),
        completion_optimizer=OptimizerConfig("adam", 3e-3),
        schedule=ScheduleConfig(300, 0, 300),
        run=RunConfig(device_count=1, log_every=50, eval_every=300, sample_every=300),
    )
    loop.run(config, tmp_path)
    losses = [
        line["completion_loss"] for line in log(tmp_path) if "completion_loss" in line
    ]
    photographs = loop.Photographs(config.data, seed=0, cache_dir=tmp_path / "cache")
    images = next(photographs.train_batches()).astype(np.float32) / 255
    variance = np.mean((images - np.asarray(photographs.mean_color())) ** 2)
    share_of_hole = (10 / 32) ** 2
    assert losses[-1] < 0.5 * variance * share_of_hole
    assert os.path.getsize(tmp_path / "curves.png") > 10_000
