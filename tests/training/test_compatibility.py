"""A run that version 0.1.0 broke off after step 3, in the midst of the second phase.

`tests/golden/README.md` says how its files were made.
"""

import dataclasses
import json
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image
from safetensors.numpy import load_file

from gl_jax import cli
from gl_jax.checkpoint import restore_subtree
from gl_jax.config import Config
from gl_jax.experiment import load_experiment
from gl_jax.training import initial
from gl_jax.weights import architectures

GOLDEN = Path(__file__).parents[1] / "golden" / "0.1.0"
NAMES = ("step", "completion", "discriminator", "ema")

ROUNDING = 5e-6
"""Of arrays around 1; other convolutions and orders of summation have made up to 7e-7."""
ROUNDING_OF_METRICS = 2e-5
"""Relative; they have made up to 3e-6."""


@pytest.fixture(autouse=True)
def unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's files in the current folder, to which its paths are relative."""
    with tarfile.open(GOLDEN / "run.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)


def saved(step: int) -> dict[str, np.ndarray]:
    """All arrays of the run's checkpoint of this step, by name."""
    state = restore_subtree("run/checkpoints", NAMES, step=step).state
    return flatten_dict(state, sep="/")


def logged(workdir: str) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, without the speed."""
    lines = Path(workdir, "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [{k: v for k, v in r.items() if k != "images_per_second"} for r in records]


@pytest.mark.slow
def test_it_resumes_and_ends_as_it_would_have():
    assert cli.main(["train", "small.py", "--workdir", "run"]) == 0
    state = saved(6)
    with np.load("unbroken/state.npz") as expected:
        assert set(expected) == {name for name in state if "opt_state" not in name}
        for name, array in expected.items():
            np.testing.assert_allclose(
                state[name], array, rtol=0, atol=ROUNDING, err_msg=name
            )
    for found, line in zip(logged("run"), logged("unbroken"), strict=True):
        for name in ("phase", "order_hash"):
            assert found.pop(name, None) == line.pop(name, None)
        # Newer versions log more.
        known = {name: found[name] for name in line}
        assert known == pytest.approx(line, rel=ROUNDING_OF_METRICS)


def test_its_configuration_says_the_same():
    text = Path("run/config.json").read_text()
    read = json.loads(Config.from_json(text).to_json())
    assert read.pop("name") == "small"
    for section, values in json.loads(text).items():
        if section != "name":  # a later version may have more fields
            assert {name: read[section][name] for name in values} == values


def test_every_array_of_its_checkpoint_is_restored_bit_for_bit():
    found = {
        name: f"{array.dtype} {array.shape} {zlib.crc32(array.tobytes()):08x}"
        for name, array in saved(3).items()
    }
    assert found == json.loads(Path("run/checksums.json").read_text())


def test_its_networks_are_exported_as_by_that_version():
    words = ["--workdir", "run", "--discriminators", "--output", "run.safetensors"]
    assert cli.main(["export", *words]) == 0
    found = load_file("run.safetensors")
    expected = load_file(GOLDEN / "run.safetensors")
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True, err_msg=name)


def test_another_run_begins_with_the_weights_file_of_that_version():
    config = load_experiment("small.py").config
    file = str(GOLDEN / "run.safetensors")
    run = dataclasses.replace(config.run, initial_weights=file)
    model = initial.load(
        dataclasses.replace(config, run=run), *architectures.of_config(config)
    )
    assert model is not None and model.discriminator is not None


def test_it_completes_a_photograph():
    photograph = np.asarray(Image.open("photographs/val/0.png"))
    words = ["--image", "photographs/val/0.png", "--rect", "12,14,10,8"]
    assert cli.main(["complete", "--model", "run", *words, "--output", "out.png"]) == 0
    changed = (np.asarray(Image.open("out.png")) != photograph).any(axis=-1)
    assert changed[14:22, 12:22].mean() > 0.9
    assert changed.sum() == changed[14:22, 12:22].sum()


def test_it_is_measured():
    words = ["--data", "photographs/val", "--masks", "center", "--output", "measured"]
    assert cli.main(["evaluate", "--model", "run", *words]) == 0
    lines = Path("measured", "per_image.csv").read_text().splitlines()
    assert len(lines) == 3
