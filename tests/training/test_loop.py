"""A run from end to end, tiny, on real photographs."""

import dataclasses
import errno
import itertools
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from PIL import Image

from gl_jax import cli
from gl_jax.checkpoint import restore_subtree
from gl_jax.checkpoint.manifest import named
from gl_jax.config import (
    AugmentConfig,
    Config,
    DataConfig,
    HolesConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
    UsageError,
)
from gl_jax.data.pipeline import Photographs
from gl_jax.inpainting.loading import load_model
from gl_jax.parallel import Devices
from gl_jax.training import initial, loop, workdir
from gl_jax.training.interruption import Interrupted
from gl_jax.training.parts import default_parts
from gl_jax.training.report.log import MEASURED
from gl_jax.training.state import create_state, state_shapes
from gl_jax.weights import architectures, native
from gl_jax.weights.arrays import flat

# A test may have several lives, each of which traces its steps, on a machine that is busy.
pytestmark = pytest.mark.timeout(600)

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


def until(total: int, **changes: object) -> Config:
    """The same run, ended earlier."""
    return tiny(schedule=ScheduleConfig(2, 2, total), **changes)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("unbroken")
    loop.run(tiny(), workdir)
    return workdir


def copied_up_to(unbroken: Path, workdir: Path, step: int) -> Path:
    """Makes `workdir` that of a run which has lost all it saved after this step."""
    shutil.copytree(unbroken, workdir)
    for later in range(step + 1, TOTAL + 1):
        shutil.rmtree(workdir / "checkpoints" / str(later))
    return workdir


def saved_state(workdir: Path) -> dict:
    names = ("step", "completion", "discriminator", "ema", "adaptive")
    return restore_subtree(workdir / "checkpoints", names).state


def status(workdir: Path) -> dict:
    return json.loads((workdir / "run_status.json").read_text())


def log(workdir: Path) -> list[dict]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [{k: v for k, v in r.items() if k not in MEASURED} for r in records]


def training(workdir: Path) -> list[dict]:
    return [line for line in log(workdir) if "val_psnr" not in line]


def assert_same_state(workdir: Path, other: Path) -> None:
    same = jax.tree.map(np.array_equal, saved_state(workdir), saved_state(other))
    assert all(jax.tree.leaves(same))


def assert_same_run(workdir: Path, unbroken: Path) -> None:
    assert_same_state(workdir, unbroken)
    assert log(workdir) == log(unbroken)


def test_a_run_leaves_what_the_readme_promises(unbroken):
    names = {path.name for path in unbroken.iterdir()}
    promised = (
        "config.json metrics.jsonl run_status.json samples curves.png checkpoints"
    )
    assert names >= {*promised.split(), "tensorboard"}
    finished = {"status": "finished", "last_step": TOTAL, "reason": ""}
    assert status(unbroken).items() >= finished.items()
    sheets = sorted(path.name for path in (unbroken / "samples").iterdir())
    assert sheets == [
        f"step_{step:08d}.{kind}" for step in (3, 6) for kind in ("npz", "png")
    ]


def test_the_log_has_a_line_for_each_step_with_its_phase(unbroken):
    lines = training(unbroken)
    assert [line["step"] for line in lines] == list(range(1, TOTAL + 1))
    assert [line["phase"] for line in lines] == (
        ["completion"] * 2 + ["discriminator"] * 2 + ["joint"] * 2
    )
    assert {"completion_loss", "adversarial_loss", "discriminator_loss"} <= set(
        lines[-1]
    )
    assert {"completion_gradient_norm", "adversarial_gradient_norm"} <= set(lines[-1])


def test_a_resumed_run_is_the_unbroken_one_to_the_bit(unbroken, tmp_path):
    """Broken off within the first phase, within the second and at its end."""
    messages: list[str] = []
    for total in (1, 3, 4, TOTAL):
        loop.run(until(total), tmp_path, log=messages.append)
    for resumed in ("at step 1 of 3", "at step 3 of 4", "at step 4 of 6"):
        assert any(resumed in message for message in messages)
    assert_same_state(tmp_path, unbroken)
    # The sheets and validations of runs that ended early come on top of the others.
    assert training(tmp_path) == training(unbroken)


def modern(total: int = TOTAL) -> Config:
    """Spectral normalisation, adaptive augmentation, two updates of D for one of C."""
    return tiny(
        model=ModelConfig(width=0.0625, discriminator_norm="none", spectral_norm=True),
        discriminator_optimizer=OptimizerConfig("adam", 1e-3),
        augment=AugmentConfig(color=True, adaptive_target=-1.0, adaptive_images=20),
        schedule=ScheduleConfig(2, 1, total, discriminator_updates=2),
    )


@pytest.fixture(scope="module")
def modern_run(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("modern")
    loop.run(modern(), workdir)
    return workdir


def test_spectral_vectors_and_the_probability_are_resumed_exactly(modern_run, tmp_path):
    """Also between the discriminators' two updates."""
    for total in (4, TOTAL):
        loop.run(modern(total), tmp_path)
    assert_same_state(tmp_path, modern_run)
    assert training(tmp_path) == training(modern_run)
    assert float(saved_state(tmp_path)["adaptive"]["probability"]) > 0


def test_each_optimizer_counts_the_updates_of_its_own_network(modern_run):
    state = saved_state(modern_run)
    for role, updates in (("completion", 3), ("discriminator", 4)):
        places = flat(state[role]["opt_state"])
        counts = {int(n) for place, n in places.items() if place.endswith("count")}
        assert counts == {updates}, role


def test_a_line_has_the_newest_value_of_what_its_last_step_lacks(modern_run, tmp_path):
    """Step 5 of steps 4 to 6 updates the completion network."""
    by_step = {line["step"]: line for line in training(modern_run)}
    assert "completion_loss" not in by_step[4] | by_step[6]
    sparse = dataclasses.replace(modern().run, log_every=3)
    loop.run(
        dataclasses.replace(modern(), run=sparse),
        copied_up_to(modern_run, tmp_path / "sparse", 3),
    )
    *_, line = training(tmp_path / "sparse")
    assert line == by_step[5] | by_step[6]


def test_a_line_has_the_newest_penalty_that_was_due(tmp_path):
    """Those of steps 2 and 4; nothing of the phase before comes along."""
    config = tiny(
        loss=LossConfig(r1=1.0, penalty_every=2),
        schedule=ScheduleConfig(1, 4, 5),
        run=dataclasses.replace(tiny().run, log_every=3),
    )
    loop.run(config, tmp_path)
    first, second = training(tmp_path)
    assert (first["step"], second["step"]) == (3, 5)
    assert first["penalty"] > 0 and second["penalty"] not in (0, first["penalty"])
    assert "completion_loss" not in first


def test_its_discriminators_are_exported_and_begun_with(modern_run, tmp_path):
    file = tmp_path / "m.safetensors"
    command = ["export", "--workdir", str(modern_run), "--discriminators"]
    assert cli.main([*command, "--output", str(file)]) == 0
    run = dataclasses.replace(modern().run, initial_weights=str(file))
    config = dataclasses.replace(modern(), run=run)
    parts = default_parts(config)
    model = initial.load(config, *architectures.of_config(config))
    state = initial.begin_with(create_state(parts, 32), model)
    shapes = state_shapes(parts, 32).discriminator
    assert jax.tree.structure(state.discriminator) == jax.tree.structure(shapes)
    begun = named(state.discriminator.batch_stats)
    saved = saved_state(modern_run)["discriminator"]["batch_stats"]
    assert begun.keys() == flat(saved).keys()
    for name, array in flat(saved).items():
        np.testing.assert_array_equal(begun[name], array)


def test_a_finished_run_has_nothing_left_to_do(unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path / "again")
    loop.run(tiny(), tmp_path / "again")
    assert_same_run(tmp_path / "again", unbroken)


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
    with pytest.raises(loop.NotFiniteError, match="Within steps 2 to 2: "):
        loop.run(config, tmp_path)
    assert (status(tmp_path)["status"], status(tmp_path)["last_step"]) == ("failed", 1)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(saved_state(tmp_path)))


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


# --- a checkpoint that is damaged between two lives


@pytest.fixture(scope="module")
def broken_off(unbroken, tmp_path_factory) -> Path:
    """A run of the first five steps, each of them saved."""
    return copied_up_to(unbroken, tmp_path_factory.mktemp("five") / "run", TOTAL - 1)


def files_of(checkpoint: Path) -> list[Path]:
    """All files of a checkpoint, relative to its folder."""
    files = sorted(f for f in checkpoint.rglob("*") if f.is_file())
    return [file.relative_to(checkpoint) for file in files]


def damage_is_overcome(
    damage: Callable[[Path, str], None],
    broken_off: Path,
    unbroken: Path,
    workdir: Path,
    name: Path,
    fault: str,
) -> bool:
    """Damages a file and resumes; returns whether that was noticed, and cost a step."""
    shutil.copytree(broken_off, workdir)
    damage(workdir / "checkpoints" / str(TOTAL - 1) / name, fault)
    messages: list[str] = []
    loop.run(tiny(), workdir, log=messages.append)
    said = [text for text in messages if "is damaged" in text]
    assert all(t.startswith(f"checkpoint {TOTAL - 1} is damaged: ") for t in said)
    begun = TOTAL - 1 - len(said)
    assert any(f"at step {begun} of {TOTAL}" in text for text in messages)
    same = jax.tree.map(np.array_equal, saved_state(workdir), saved_state(unbroken))
    assert all(jax.tree.leaves(same)), (name, fault)
    shutil.rmtree(workdir)
    return bool(said)


def test_a_damaged_checkpoint_costs_steps_and_nothing_else(
    damage, broken_off, unbroken, tmp_path
):
    newest = broken_off / "checkpoints" / str(TOTAL - 1)
    largest = max(files_of(newest), key=lambda f: (newest / f).stat().st_size)
    workdir = tmp_path / "run"
    assert damage_is_overcome(damage, broken_off, unbroken, workdir, largest, "flipped")


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_every_file_of_a_checkpoint_damaged_in_every_way(
    damage, broken_off, unbroken, tmp_path
):
    files = files_of(broken_off / "checkpoints" / str(TOTAL - 1))
    faults = ("truncated", "deleted", "flipped")
    for name, fault in itertools.product(files, faults):
        workdir = tmp_path / "run"
        damage_is_overcome(damage, broken_off, unbroken, workdir, name, fault)
        # XLA dies of too many programs in one process.
        jax.clear_caches()
    print(f"{len(files)} files in {len(faults)} ways")
    assert len(files) >= 8


# --- requests and numbers that are not finite, in each phase


def after(monkeypatch, step: int, act: Callable[[], None]) -> None:
    """Calls `act` while the run works on this step."""
    progress = loop.Report.progress

    def progress_and_act(report: loop.Report, now: int, phase: str) -> None:
        progress(report, now, phase)
        if now == step:
            act()

    monkeypatch.setattr(loop.Report, "progress", progress_and_act)


def test_sigterm_in_each_phase_saves_and_resumes(unbroken, tmp_path, monkeypatch):
    """Within the first phase, at the end of the second and within the third."""
    rarely = dataclasses.replace(tiny().run, save_every=100)
    for phase, step in (("completion", 1), ("discriminator", 4), ("joint", 5)):
        with monkeypatch.context() as patch:
            after(patch, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
            with pytest.raises(Interrupted) as stopped:
                loop.run(tiny(run=rarely), tmp_path)
        assert (stopped.value.code, stopped.value.step) == (143, step)
        said = status(tmp_path)
        assert (said["status"], said["last_step"]) == ("preempted", step)
        assert log(tmp_path)[-1]["phase"] == phase
    loop.run(tiny(), tmp_path)
    assert_same_run(tmp_path, unbroken)


def test_nan_in_each_phase_stops_and_the_resumed_run_is_the_unbroken_one(
    unbroken, tmp_path, monkeypatch
):
    for step in (1, 3, 5):
        with monkeypatch.context() as patch:
            poison(patch, at=step)
            with pytest.raises(
                loop.NotFiniteError, match=f"Within steps {step} to {step}: "
            ):
                loop.run(tiny(), tmp_path)
        said = status(tmp_path)
        assert (said["status"], said["last_step"]) == ("failed", step - 1 or None)
        assert "NotFiniteError" in said["reason"]
    loop.run(tiny(), tmp_path)
    assert_same_run(tmp_path, unbroken)


def test_a_rollback_leaves_nan_behind_with_other_holes(unbroken, tmp_path, monkeypatch):
    workdir = copied_up_to(unbroken, tmp_path / "run", 4)
    poison(monkeypatch, at=5)
    messages: list[str] = []
    run = dataclasses.replace(tiny().run, on_nan="rollback")
    loop.run(tiny(run=run), workdir, log=messages.append)
    (back,) = (i for i, text in enumerate(messages) if "Going back" in text)
    assert "Going back to the last checkpoint" in messages[back]
    assert f"at step 4 of {TOTAL}" in messages[back + 1]
    ours, theirs = training(workdir), training(unbroken)
    assert ours[:4] == theirs[:4]
    last, unbroken_last = ours[-1], theirs[-1]
    assert last["step"] == unbroken_last["step"] == TOTAL
    assert last["completion_loss"] != unbroken_last["completion_loss"]
    assert last["order_hash"] == unbroken_last["order_hash"]


def poison(monkeypatch, *, at: int, times: int = 1) -> None:
    """Turns losses and state to NaN after this step, so many times."""
    pmap, left = Devices.pmap, [times]

    def spoiled_pmap(devices: Devices, step: Callable[..., Any]) -> Any:
        run = pmap(devices, step)

        def spoiled(state: Any, images: Any, key: Any) -> Any:
            results = run(state, images, key)
            if int(devices.first(results[0].step)) != at or not left[0]:
                return results
            left[0] -= 1
            return jax.tree.map(
                lambda x: x * jnp.nan if jnp.issubdtype(x.dtype, jnp.floating) else x,
                results,
            )

        return spoiled

    monkeypatch.setattr(Devices, "pmap", spoiled_pmap)


def test_a_step_that_hangs_is_shown_with_its_place(tmp_path, monkeypatch, capfd):
    after(monkeypatch, 2, lambda: time.sleep(1.5))
    run = dataclasses.replace(tiny().run, hang_limit=0.5)
    loop.run(until(2, run=run), tmp_path)
    said = capfd.readouterr().err
    assert "Nothing has happened for 0.5 s" in said
    assert "in progress_and_act" in said


# --- what the workdir says


def test_a_dead_run_is_recognised_when_its_checkpoints_are_gone(unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(UsageError, match=f"says that step {TOTAL} was saved"):
        loop.run(tiny(), tmp_path / "run")


def test_checkpoints_of_another_run_are_refused(unbroken, tmp_path):
    elsewhere = str(unbroken / "checkpoints")
    run = dataclasses.replace(tiny().run, checkpoints=elsewhere, seed=3)
    loop.run(until(1, run=dataclasses.replace(run, checkpoints=None)), tmp_path)
    with pytest.raises(UsageError, match=r"run\.seed is 3 and was 0"):
        loop.run(until(1, run=run), tmp_path)


def test_a_new_workdir_finds_the_run_where_its_checkpoints_are(unbroken, tmp_path):
    shutil.copytree(unbroken / "checkpoints", tmp_path / "kept")
    run = dataclasses.replace(tiny().run, checkpoints=str(tmp_path / "kept"))
    messages: list[str] = []
    loop.run(tiny(run=run), tmp_path / "run", log=messages.append)
    assert any(f"at step {TOTAL} of {TOTAL}" in message for message in messages)
    other = dataclasses.replace(run, seed=3)
    with pytest.raises(UsageError, match=r"run\.seed is 3 and was 0"):
        loop.run(tiny(run=other), tmp_path / "second")
    assert load_model(tmp_path / "run").training["steps"] == TOTAL


def test_a_run_begins_with_given_weights_and_goes_on_from_its_own(unbroken, tmp_path):
    file = tmp_path / "weights.safetensors"
    model = load_model(unbroken)
    native.save(model, file)
    settings = dataclasses.replace(tiny().run, initial_weights=str(file), seed=3)

    def run_to(total: int, workdir: str, messages: list[str]) -> dict:
        config = until(total, run=settings)
        loop.run(config, tmp_path / workdir, log=messages.append)
        return saved_state(tmp_path / workdir)

    first: list[str] = []
    run_to(1, "run", first)
    assert any(str(file) in message for message in first)
    begun = load_model(tmp_path / "run")
    assert begun.mean_color == model.mean_color
    # One step of Adam moves each weight by no more than the learning rate.
    change = jax.tree.map(
        lambda new, old: np.abs(new - old).max(),
        begun.variables["params"],
        model.variables["params"],
    )
    assert 0 < max(jax.tree.leaves(change)) < 1.1e-3
    resumed = run_to(2, "run", [])
    straight = run_to(2, "other", [])
    same = jax.tree.map(np.array_equal, resumed, straight)
    assert all(jax.tree.leaves(same))


def test_a_bucket_is_no_workdir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="is a bucket"):
        loop.run(tiny(), Path("gs://bucket/run"))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_at_the_start_is_no_traceback(tmp_path, monkeypatch):
    def no_room(path: Path, _: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(workdir, "write_whole", no_room)
    with pytest.raises(
        loop.StorageError, match=r"config\.json cannot be written: No space"
    ):
        loop.run(tiny(), tmp_path)


def test_a_folder_that_changed_is_said_with_numbers_and_names(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    stream = np.random.default_rng(0)
    for index in range(8):
        pixels = stream.integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    data = dataclasses.replace(tiny().data, source=str(folder))
    workdir = tmp_path / "run"
    loop.run(until(1, data=data), workdir)
    names = sorted(path.name for path in folder.iterdir())
    trained = [n for n in names if n in json.dumps(manifest(workdir)["inventory"])]
    (folder / trained[0]).rename(folder / "new.png")
    (folder / trained[1]).unlink()
    messages: list[str] = []
    loop.run(until(2, data=data), workdir, log=messages.append)
    (said,) = (text for text in messages if text.startswith("THE PHOTOGRAPHS CHANGED"))
    assert f"{len(trained) - 1} instead of {len(trained)}" in said
    assert f"2 gone ({trained[0]}, {trained[1]})" in said
    assert "1 new (new.png)" in said
    assert "put the photographs back" in said


def manifest(workdir: Path) -> dict[str, Any]:
    names = ("step",)
    return restore_subtree(workdir / "checkpoints", names).extra


def test_programs_are_kept_for_the_next_start(unbroken, tmp_path, monkeypatch):
    shutil.copytree(unbroken, tmp_path / "run")
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: jax.config.values[name] for name in names}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        loop.run(tiny(), tmp_path / "run")
        assert jax.config.values[names[0]] == str(tmp_path / "gl_jax")
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def test_profiled_steps_are_there_for_tensorboard(tmp_path):
    run = dataclasses.replace(tiny().run, profile_steps=(2, 2), save_every=100)
    loop.run(until(2, run=run), tmp_path)
    assert list((tmp_path / "tensorboard").rglob("*.xplane.pb"))


@pytest.mark.slow
def test_it_learns(tmp_path):
    """On the bundled photographs the hole error falls well below that of a mean fill."""
    config = tiny(
        model=ModelConfig(width=0.125, discriminators="none"),
        data=DataConfig(batch_size=8, image_size=32, resize=(32, 40), workers=1),
        completion_optimizer=OptimizerConfig("adam", 3e-3),
        schedule=ScheduleConfig(400, 0, 400),
        run=RunConfig(device_count=1, log_every=10, eval_every=400, sample_every=400),
    )
    loop.run(config, tmp_path)
    losses = [
        line["completion_loss"] for line in log(tmp_path) if "completion_loss" in line
    ]
    photographs = Photographs(config.data, seed=0, cache_dir=tmp_path / "cache")
    images = next(photographs.train_batches()).astype(np.float32) / 255
    variance = np.mean((images - np.asarray(photographs.mean_color())) ** 2)
    share_of_hole = (10 / 32) ** 2
    # A batch of eight is noisy: the last fifty steps, every tenth of them.
    assert np.mean(losses[-5:]) < 0.5 * variance * share_of_hole
    assert os.path.getsize(tmp_path / "curves.png") > 10_000
