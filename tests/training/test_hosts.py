"""Two processes that train together, as two hosts would."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from gl_jax.checkpoint import restore_subtree
from gl_jax.experiment import load_experiment
from gl_jax.options import override
from gl_jax.training import loop

PROCESSORS = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None

TEMPLATE = """
from gl_jax.config import *

config = Config(
    name="hosts",
    model=ModelConfig(width=0.0625),
    data=DataConfig(batch_size=4, image_size=32, resize=(32, 48), workers=1),
    holes=HolesConfig(min_size=8, max_size=12, local_size=16),
    schedule=ScheduleConfig({schedule}),
    run=RunConfig(log_every=1, save_every={save}, eval_every={look}, sample_every={look}),
)
"""
EXPERIMENT = TEMPLATE.format(schedule="1, 1, 3", save=3, look=3)
LONG = TEMPLATE.format(schedule="40, 40, 120", save=2, look=60)


def stay() -> None:
    """Back to the session's processors: with others the last bits of a run differ."""
    if PROCESSORS is not None:
        os.sched_setaffinity(0, PROCESSORS)


def train(folder: Path, workdir: str, devices: int, *flags: str) -> subprocess.Popen:
    stay()
    environment = dict(os.environ, JAX_NUM_CPU_DEVICES=str(devices))
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
@pytest.mark.timeout(900)  # two processes that each compile, on as few cores
def test_two_processes_train_the_same_networks_as_one_with_two_devices(tmp_path):
    (tmp_path / "hosts.py").write_text(EXPERIMENT)
    config = load_experiment(str(tmp_path / "hosts.py")).config
    config = override(config, {"run.device_count": ["2"]})
    loop.run(config, tmp_path / "one")
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
    # Adadelta's first updates are 0.003. They are summed in another order here, which can
    # carry a unit over ReLU's kink: seen on one processor, 0.00005.
    assert max(jax.tree.leaves(worst)) < 2e-4


def pair(folder: Path, workdir: str, *flags: str) -> list[subprocess.Popen]:
    """Two processes of one run, the coordinator first."""
    address = ("--coordinator", f"127.0.0.1:{free_port()}", "--process-count", "2")
    heartbeat = ("--heartbeat", str(HEARTBEAT))
    return [
        train(folder, workdir, 1, *address, "--process-id", str(i), *heartbeat, *flags)
        for i in (0, 1)
    ]


HEARTBEAT = 10
SLACK = 10
"""Seconds that a process may take to notice, beyond the heartbeat, on a busy machine."""


@pytest.mark.slow
def test_hosts_that_differ_are_refused_at_the_start_saying_in_what(tmp_path):
    (tmp_path / "hosts.py").write_text(EXPERIMENT)
    address = ("--coordinator", f"127.0.0.1:{free_port()}", "--process-count", "2")
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (64, 64), (90, 120, 150)).save(folder / name)
    hosts = [
        train(tmp_path, "run", 1, *address, "--process-id", "0"),
        train(
            tmp_path,
            "run-1",
            1,
            *address,
            "--process-id",
            "1",
            "--run.seed",
            "7",
            "--data.source",
            str(folder),
        ),
    ]
    outputs = [host.communicate(timeout=250)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [2, 2], outputs
    for output in outputs:
        (line,) = (x for x in output.splitlines() if x.startswith("gl-jax: error:"))
        assert "the hosts of the run differ" in line
        assert "run.seed is 7 on host 1 and 0 on host 0" in line
        assert "data.source is " in line
        assert "the number of photographs is 2 on host 1 and 10 on host 0" in line
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.slow
def test_a_mistake_on_one_host_ends_them_all(tmp_path):
    (tmp_path / "hosts.py").write_text(EXPERIMENT)
    (tmp_path / "in-the-way").write_text("")
    address = ("--coordinator", f"127.0.0.1:{free_port()}", "--process-count", "2")
    hosts = [
        train(tmp_path, workdir, 1, *address, "--process-id", str(index))
        for index, workdir in enumerate(("run", "in-the-way"))
    ]
    outputs = [host.communicate(timeout=250)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [2, 2], outputs
    assert all("host 1: --workdir in-the-way cannot be written" in o for o in outputs)


def steps_on_disk(folder: Path, workdir: str) -> int:
    steps = (folder / workdir / "checkpoints").glob("[0-9]*")
    return max((int(p.name) for p in steps if p.name.isdigit()), default=0)


def wait_for_step(folder: Path, workdir: str, step: int, hosts: list) -> None:
    deadline = time.monotonic() + 250
    while steps_on_disk(folder, workdir) < step:
        assert all(host.poll() is None for host in hosts), hosts
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_one_host_killed_ends_the_other_and_a_restart_of_both_resumes(tmp_path):
    (tmp_path / "hosts.py").write_text(LONG)
    finished(*pair(tmp_path, "unbroken"))
    for victim, step in ((1, 20), (0, 70)):  # the worker, then the coordinator
        hosts = pair(tmp_path, "broken")
        wait_for_step(tmp_path, "broken", step, hosts)
        hosts[victim].kill()
        began = time.monotonic()
        survivor = hosts[1 - victim]
        output = survivor.communicate(timeout=120)[0]
        took = time.monotonic() - began
        print(
            f"host {victim} killed: the other ended after {took:.1f} s, "
            f"code {survivor.returncode}"
        )
        assert took < HEARTBEAT + SLACK, output
        assert survivor.returncode not in (0, 2)
        hosts[victim].communicate()
    finished(*pair(tmp_path, "broken"))
    assert_same_hosts(tmp_path, "broken", "unbroken")


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("told", [0, 1])
def test_sigterm_to_one_host_stops_both_after_the_same_step(tmp_path, told):
    (tmp_path / "hosts.py").write_text(LONG)
    finished(*pair(tmp_path, "unbroken"))
    hosts = pair(tmp_path, "stopped")
    wait_for_step(tmp_path, "stopped", 30, hosts)
    hosts[told].send_signal(signal.SIGTERM)
    outputs = [host.communicate(timeout=250)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [143, 143], outputs
    (said,) = {
        line for o in outputs for line in o.splitlines() if line.startswith("Stopped")
    }
    assert f"after step {steps_on_disk(tmp_path, 'stopped')}, saved" in said
    finished(*pair(tmp_path, "stopped"))
    assert_same_hosts(tmp_path, "stopped", "unbroken")


def assert_same_hosts(folder: Path, workdir: str, other: str) -> None:
    names = ("step", "completion", "discriminator")
    mine, theirs = (
        restore_subtree(folder / name / "checkpoints", names).state
        for name in (workdir, other)
    )
    assert mine["step"] == 120
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, mine, theirs)))
