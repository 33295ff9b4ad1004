"""`gl-jax plan` as a user types it: what it says, what it refuses, how it ends."""

import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gl_jax import cli
from gl_jax.planning import compiling, topologies

SMALL = """
import dataclasses
import flax.linen as nn
from gl_jax.config import *

config = Config(
    name="small",
    data=DataConfig(image_size=32, resize=(32, 32), batch_size=16),
    holes=HolesConfig(min_size=8, max_size=12, local_size=16),
    model=ModelConfig(discriminators="none"),
)

class Painter(nn.Module):
    axis_name: str | None = None

    @nn.compact
    def __call__(self, inputs, train=False):
        hidden = nn.Conv(8, (3, 3), use_bias=False)(inputs)
        hidden = nn.BatchNorm(not train, axis_name=self.axis_name)(hidden)
        return nn.sigmoid(nn.Conv(3, (3, 3))(hidden))

def parts(config):
    from gl_jax.training import default_parts
    return dataclasses.replace(default_parts(config), completion=Painter())
"""


@pytest.fixture
def small(tmp_path):
    file = tmp_path / "small.py"
    file.write_text(SMALL)
    return str(file)


def test_a_run_on_gpus_is_planned_by_arithmetic(small, capsys):
    assert cli.main(["plan", small, "--topology", "gpu:h100x4", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    (phase,) = plan["phases"]
    need = phase["need"]
    assert plan["source"] == "arithmetic"
    assert phase["steps"] == 500_000
    parts = need["state"] + need["batches"] + need["temporaries"]
    assert need["memory"] == pytest.approx(parts)
    # The batch and two that wait, each 4 photographs a chip.
    assert need["batches"] == 3 * 4 * 32 * 32 * 3
    assert plan["hours"]["1.0"] == pytest.approx(0.4 * plan["hours"]["0.4"])


def test_the_table_says_that_nothing_was_compiled(small, capsys):
    words = ["plan", small, "--topology", "gpu:h100x1", "--largest-batch"]
    assert cli.main([*words, "--data.batch-size", "40000"]) == 0
    text = capsys.readouterr().out
    assert "By arithmetic, without" in text
    largest = int(text.partition("Largest batch that fits: ")[2].split()[0])
    for size, code in ((largest, 0), (largest + 1, 1)):
        words = ["plan", small, "--topology", "gpu:h100x1"]
        assert cli.main([*words, "--data.batch-size", str(size)]) == code


@pytest.fixture
def cut_memory(small, capsys, monkeypatch):
    """Leaves H100s a share of the memory that the run needs on four of them."""

    def cut(share):
        assert cli.main(["plan", small, "--topology", "gpu:h100x4", "--json"]) == 0
        (phase,) = json.loads(capsys.readouterr().out)["phases"]
        memory = share * phase["need"]["memory"]
        less = dataclasses.replace(topologies.CHIPS["h100"], memory=memory)
        monkeypatch.setitem(topologies.CHIPS, "h100", less)

    return cut


def test_a_run_that_does_not_fit_ends_with_1_and_what_would_help(
    small, cut_memory, capsys
):
    cut_memory(0.8)
    assert cli.main(["plan", small, "--topology", "gpu:h100x4"]) == 1
    output = capsys.readouterr()
    lines = output.out.splitlines()
    (pieces,) = [line for line in lines if "--run.accumulate 2:" in line]
    (remade,) = [line for line in lines if "--model.rematerialize:" in line]
    assert pieces.endswith(", fits")
    # Its own network has no blocks to compute again.
    assert remade.endswith(", does not fit")
    assert output.err == "gl-jax: error: small does not fit into gpu:h100x4.\n"


def test_a_run_that_never_fits_is_a_mistake(small, cut_memory, capsys):
    cut_memory(0.05)
    assert cli.main(["plan", small, "--topology", "gpu:h100x4"]) == 2
    error = capsys.readouterr().err
    assert "small never fits into gpu:h100x4: with every option" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--topology", "v5e:4x5"], "there is no topology 'v5e:4x5': did you mean"),
        (["--topology", "gpu:h100x3"], "data.batch_size (=16) must divide over 3"),
        (["--topology", "v5e:4x8"], "data.batch_size (=16) must divide over 32"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_ends_with_2(small, words, message, capsys):
    assert cli.main(["plan", small, *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def versions(libtpu):
    def version(name):
        if name == "libtpu" and libtpu is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return libtpu

    return version


@pytest.mark.parametrize(
    ("installed", "message"),
    [
        (None, "libtpu, which is not installed: pip install"),
        ("0.0.4", "libtpu (=0.0.4)"),
    ],
)
def test_libtpu_has_to_be_there_in_jaxs_own_version(
    small, installed, message, monkeypatch, capsys
):
    monkeypatch.setattr(importlib.metadata, "version", versions(installed))
    requirements = ["numpy>=2", "libtpu==0.0.42.*; extra == 'tpu'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: requirements)
    assert cli.main(["plan", small, "--topology", "v5e:2x2"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_libtpu_of_jaxs_own_version_is_taken(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", versions("0.0.42.1"))
    requirements = ["libtpu==0.0.42.*; extra == 'tpu'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: requirements)
    assert compiling.require_libtpu() == "0.0.42.1"


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install '.[tpu]'",
)
def test_the_tpus_compiler_plans_a_run_on_chips_that_are_not_there(small):
    command = ["-m", "gl_jax", "plan", small, *"--topology v5e:2x2 --json".split()]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    # Flags of processors, which the TPU's compiler does not know.
    environment.pop("XLA_FLAGS")
    done = subprocess.run(
        [sys.executable, *command], env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    (phase,) = plan["phases"]
    need = phase["need"]
    # The statistics there, their gradients back, and all weights' gradients at once.
    assert need["collectives"] == 3
    numbers = 2 * 8 + 2 * 8 + (3 * 3 * 4 * 8 + 2 * 8 + 3 * 3 * 8 * 3 + 3) + 2
    assert need["collective_bytes"] == pytest.approx(4 * numbers, rel=0.02)
    assert need["state"] > 3 * 4 * (numbers - 34)
    assert 0 < need["memory"] < plan["topology"]["chip"]["memory"]
