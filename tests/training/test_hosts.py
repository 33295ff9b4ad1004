"""Two processes that train together, as two hosts would."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from gl_jax.training.checkpoint import restore_subtree

EXPERIMENT = """
from gl_jax.config import *

config = Config(
    name="hosts",
    model=ModelConfig(width=0.0625),
    data=DataConfig(batch_size=4, image_size=32, resize=(32, 48), workers=1),
    holes=HolesConfig(min_size=8, max_size=12, local_size=16),
    schedule=ScheduleConfig(1, 1, 3),
    run=RunConfig(log_every=1, save_every=3, eval_every=3, sample_every=3),
)
"""


def train(folder: Path, workdir: str, devices: int, *flags: str) -> subprocess.Popen:
    # The suite's own settings, four devices among them, are not for these processes.
    environment = dict(os.environ, XLA_FLAGS="", JAX_NUM_CPU_DEVICES=str(devices))
    command = [
        sys.executable,
        "-m",
        "gl_jax",
        "train",
        "hosts.py",
        "--workdir",
        workdir,
    ]
    return subprocess.Popen(
        [*command, *flags],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(*processes: subprocess.Popen) -> None:
    outputs = [process.communicate(timeout=800)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), (
        outputs
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.slow
@pytest.mark.timeout(900)  # three processes that each compile, on as few cores
def test_two_processes_train_the_same_networks_as_one_with_two_devices(tmp_path):
    (tmp_path / "hosts.py").write_text(EXPERIMENT)
    finished(train(tmp_path, "one", 2))
    address = ("--coordinator", f"127.0.0.1:{free_port()}", "--process-count", "2")
    finished(
        *(
            train(tmp_path, "two", 1, *address, "--process-id", str(index))
            for index in (0, 1)
        )
    )
    names = ("step", "completion", "discriminator")
    one, two = (
        restore_subtree(tmp_path / workdir / "checkpoints", names).state
        for workdir in ("one", "two")
    )
    worst = jax.tree.map(lambda a, b: np.max(np.abs(a - b)), one, two)
    assert max(jax.tree.leaves(worst)) < 1e-5
