"""Further lives of a run: its folder, its photographs, its length, another life beside it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from PIL import Image

from gl_jax import cli
from gl_jax.config import (
    Config,
    LossConfig,
    OptimizerConfig,
    ScheduleConfig,
    UsageError,
)
from gl_jax.experiment import load_experiment
from gl_jax.inpainting.loading import load_model
from gl_jax.training import loop
from gl_jax.training.workdir import LOCK, locked, require_same_length

EXPERIMENT = """
from gl_jax.config import *

config = Config(
    name="lives",
    model=ModelConfig(width=0.015625, discriminators="none"),
    data=DataConfig(
        source="ph", validation_source="held", batch_size=2, image_size=32,
        resize=(32, 32), workers=1,
    ),
    holes=HolesConfig(min_size=8, max_size=12, local_size=16),
    completion_optimizer=OptimizerConfig("adam", 1e-3, decay="cosine"),
    schedule=ScheduleConfig(1, 1, 2),
    run=RunConfig(
        device_count=1, log_every=1, save_every=1, eval_every=2, sample_every=1,
        validation_images=2, sample_images=2,
    ),
)
"""
WORKDIR = Path("ph/runs/é漢🖼 ]{a,b}'\"`#%20%s$;&|<>:~!^=\t/-run")
SOURCES = {"source": "ph", "validation_source": "held"}


class Begun(NamedTuple):
    """A finished run of two steps, beside its photographs, and what it said."""

    root: Path
    said: list[str]


def photographs(folder: Path, count: int, seed: int) -> None:
    folder.mkdir()
    chance = np.random.default_rng(seed)
    for index in range(count):
        pixels = chance.integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> Begun:
    """In two lives; the workdir lies among the photographs."""
    root, said = tmp_path_factory.mktemp("begun"), []
    (root / "lives.py").write_text(EXPERIMENT)
    photographs(root / "ph", 4, seed=0)
    photographs(root / "held", 2, seed=1)
    (root / "ph" / "a.heic").touch()
    (root / "ph" / "notes.txt").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        config = load_experiment("lives.py").config
        for total in (1, 2):
            schedule = ScheduleConfig(1, 1, total)
            loop.run(replace(config, schedule=schedule), WORKDIR, log=said.append)
    return Begun(root, said)


@pytest.fixture
def root(begun, tmp_path, monkeypatch) -> Path:
    """A copy of that run, in the current folder."""
    shutil.copytree(begun.root, tmp_path / "root")
    monkeypatch.chdir(tmp_path / "root")
    return tmp_path / "root"


def lives(**data: str) -> Config:
    config = load_experiment("lives.py").config
    return replace(config, data=replace(config.data, **data))


def resumed(config: Config, workdir: Path = WORKDIR) -> list[str]:
    said: list[str] = []
    loop.run(config, workdir, log=said.append)
    assert any("at step 2 of 2" in text for text in said)
    return said


def records(workdir: Path = WORKDIR) -> list[bytes]:
    return [(workdir / f).read_bytes() for f in ("config.json", "run_status.json")]


def refusal(config: Config, workdir: Path = WORKDIR) -> str:
    """The line with which the run is refused, which changes nothing in its folder."""
    before = records(workdir)
    with pytest.raises(UsageError) as refused:
        loop.run(config, workdir)
    assert records(workdir) == before
    assert "\n" not in str(refused.value)
    return str(refused.value)


# --- the folder's name


def test_a_folder_of_odd_characters_holds_a_whole_run(begun):
    assert any("at step 1 of 2" in text for text in begun.said)
    assert load_model(begun.root / WORKDIR).training["steps"] == 2


@pytest.mark.parametrize("name", ["a [1]", "a*", "a?", "a\\b", os.fsdecode(b"a\xff")])
def test_a_folder_in_which_checkpoints_are_lost_is_refused(root, name, capsys):
    assert cli.main(["train", "lives.py", "--workdir", name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "a pattern" in line or "a\\xff is not UTF-8" in line
    assert not Path(name, "config.json").exists()


# --- two lives at once


@pytest.fixture
def other(root) -> Iterator[subprocess.Popen]:
    """Another process that holds the folder."""
    code = (
        "import time; from pathlib import Path; from gl_jax.training.workdir import *\n"
        f"with locked(Path({str(WORKDIR)!r}), '--workdir', print):\n"
        "    print('locked', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"locked\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_training_is_refused_until_the_first_is_gone(other, capsys):
    before = records()
    assert cli.main(["train", "lives.py", "--workdir", str(WORKDIR)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--workdir {WORKDIR} is in use by another training" in line
    assert f"process {other.pid} on " in line
    assert records() == before
    other.send_signal(signal.SIGKILL)
    other.wait()
    resumed(lives())


def test_a_folder_of_checkpoints_belongs_to_one_training(root):
    shutil.move(WORKDIR / "checkpoints", root / "kept")
    config = lives()
    run = replace(config.run, checkpoints=str(root / "kept"))
    with locked(root / "kept", "--run.checkpoints", print):
        said = refusal(replace(config, run=run))
    assert "--run.checkpoints" in said and "is in use by another training" in said
    resumed(replace(config, run=run))


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    said: list[str] = []
    with locked(tmp_path, "--workdir", said.append):
        assert (tmp_path / LOCK).exists()
    assert ["without locks" in text for text in said] == [True]


# --- photographs


def test_a_run_among_its_photographs_reads_none_of_its_pictures(root):
    """Nor those of another run."""
    assert list((WORKDIR / "samples").glob("*.png"))
    shutil.copytree(WORKDIR, root / "ph" / "another")
    assert not any("CHANGED" in text for text in resumed(lives()))


def test_a_workdir_that_is_the_folder_of_photographs_is_refused(root):
    source = str(root / "held")
    for _ in range(2):
        with pytest.raises(UsageError, match="is the folder of a training run") as said:
            loop.run(lives(source=source), Path("held"))
    assert "another --workdir" in str(said.value)
    assert not (root / "held" / "config.json").exists()
    # A run that has its own folder may read there afterwards.
    later = lives(source=source, validation_source="ph")
    with pytest.raises(UsageError, match=r"data\.source .* does not hold"):
        loop.run(later, WORKDIR)


def test_the_start_says_what_is_used_and_what_is_not(begun):
    first, line = (text for text in begun.said if text.startswith("photographs:"))
    assert line == first
    assert line.startswith(
        "photographs: 4 to train on, 2 to validate on; left out of ph: 1 HEIC"
    )
    assert "1 .txt" in line and "1 training run's folder" in line
    assert "\n" not in line


def test_the_same_photographs_resume_under_any_name_of_their_folder(root):
    for spelled in ("ph/", "./ph", str(root / "ph")):
        said = resumed(lives(source=spelled, validation_source=f"{root}/held/"))
        assert not any("CHANGED" in text for text in said)
    shutil.copytree("ph", "moved")
    shutil.move("held", "moved held")
    resumed(lives(source="moved", validation_source="moved held"))
    assert json.loads(records()[0])["data"]["source"] == "moved"


@pytest.mark.parametrize("field", SOURCES)
def test_another_folder_with_other_photographs_is_refused(root, field):
    photographs(root / "other", 5, seed=2)
    said = refusal(lives(**{field: "other"}))
    assert f"data.{field} (='other') does not hold the photographs of the run" in said
    assert f"came from {SOURCES[field]!r}" in said


# --- the length of a run


def of_length(total: int, **changes: object) -> Config:
    """Ten steps of each of the first phases."""
    return Config(name="length", schedule=ScheduleConfig(10, 10, total), **changes)


COSINE = OptimizerConfig("adam", 1e-3, decay="cosine")
LINEAR = OptimizerConfig("adam", 1e-3, decay="linear")
WARM = replace(COSINE, warmup_steps=5)
TWICE = replace(LINEAR, joint_learning_rate=1e-4)
NOISE = LossConfig(discriminator_noise=0.1, discriminator_noise_end=0.01)


@pytest.mark.parametrize(
    ("changes", "free", "fallen", "name"),
    [
        ({"completion_optimizer": COSINE}, 1, 2, "learning rate of completion"),
        ({"completion_optimizer": LINEAR}, 1, 2, "learning rate of completion"),
        ({"completion_optimizer": WARM}, 6, 7, "learning rate of completion"),
        ({"completion_optimizer": TWICE}, 21, 22, "learning rate of completion"),
        ({"discriminator_optimizer": COSINE}, 11, 12, "learning rate of discriminator"),
        ({"discriminator_optimizer": TWICE}, 21, 22, "learning rate of discriminator"),
        ({"loss": NOISE}, 21, 22, "discriminator noise"),
        ({}, 40, None, ""),
    ],
)
@pytest.mark.parametrize("other", [35, 80])
def test_another_length_is_refused_once_something_has_fallen(
    changes, free, fallen, name, other
):
    stored, asked = of_length(40, **changes), of_length(other, **changes)
    require_same_length(asked, stored, free, "it")
    if fallen is not None:
        require_same_length(stored, stored, fallen, "it")
        with pytest.raises(UsageError, match=name) as refused:
            require_same_length(asked, stored, fallen, "it")
        assert f"schedule.total_steps (={other})" in str(refused.value)
        assert "Give 40" in str(refused.value)


@pytest.mark.parametrize("killed", [False, True])
def test_a_refused_length_leaves_the_folder_as_it_was(root, killed):
    """Also if the run was killed before its status could tell of its checkpoint."""
    if killed:
        (WORKDIR / "run_status.json").write_text('{"status": "running"}')
    said = refusal(replace(lives(), schedule=ScheduleConfig(1, 1, 4)))
    assert "learning rate of completion_optimizer has fallen" in said
    assert "gl-jax export" in said
    resumed(lives())


# --- later phases


PHASES = EXPERIMENT.replace('discriminators="none"', 'discriminators="local"').replace(
    "(1, 1, 2)", "(1, 1, 3)"
)
FAILING = """
from dataclasses import replace
from gl_jax.training import default_parts

def parts(config):
    def adversarial(logits):
        raise TypeError("no such loss")
    own = default_parts(config)
    return replace(own, objective=replace(own.objective, adversarial=adversarial))
"""


def test_parts_that_fail_in_the_last_phase_are_refused_before_the_first_step(
    root, capsys
):
    Path("failing.py").write_text(PHASES + FAILING)
    assert cli.main(["train", "failing.py", "--workdir", "new"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "failing.py: parts(config): the joint step fails: TypeError" in line
    assert not Path("new").exists()


def test_a_script_with_float64_learns_of_it_before_the_first_step(root):
    Path("phases.py").write_text(PHASES)
    config = load_experiment("phases.py").config
    with jax.enable_x64(True), pytest.raises(UsageError, match=r"lives: .* fails: "):
        loop.run(config, Path("new"))
    assert not Path("new").exists()


def command(*words: str, **environment: str) -> subprocess.CompletedProcess:
    path = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-m", "gl_jax", *words],
        env=os.environ | {"PYTHONPATH": path, "JAX_NUM_CPU_DEVICES": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_trains_all_phases_whatever_jax_enable_x64_says(root):
    Path("phases.py").write_text(PHASES)
    words = "train", "phases.py", "--workdir", "new"
    done = command(*words, JAX_ENABLE_X64="1")
    assert done.returncode == 0, done.stderr
    assert json.loads(Path("new/run_status.json").read_text())["last_step"] == 3


def test_a_platform_that_is_not_there_is_one_line(root):
    done = command("train", "lives.py", "--workdir", "new", JAX_PLATFORMS="cuda")
    assert done.returncode == 2
    (line,) = (x for x in done.stderr.splitlines() if not x.startswith(("W", "E", "I")))
    assert line.startswith("gl-jax: error: JAX_PLATFORMS (=cuda) must name a platform")
