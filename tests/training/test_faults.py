"""A run that is killed, stopped or starved, in processes of its own.

Each test ends with the same comparison: rerun with the same command until it is done,
the run has the state of one that was never disturbed, bit for bit, and the same log.
"""

import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.timeout(900)  # many processes, on a machine that may be busy

PHASES = ("completion", "discriminator", "joint")


@pytest.mark.soak
def test_a_run_that_is_killed_and_stopped_ends_as_the_unbroken_one(short_run):
    life = short_run.start("broken")
    assert life.reach(3)
    life.signal(signal.SIGKILL)
    assert life.wait() == -signal.SIGKILL
    assert short_run.status("broken")["status"] == "running"
    life = short_run.start("broken")
    assert life.reach(7)
    life.signal(signal.SIGTERM)
    assert life.wait() == 143, life.text()
    status = short_run.status("broken")
    assert status["status"] == "preempted"
    assert status["last_step"] == life.step()
    assert f"at step {life.step()} of 12" in short_run.finish("broken")
    short_run.assert_same("broken", "unbroken")


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_killed_at_twenty_random_moments(long_run):
    stream = np.random.default_rng(2017)
    kills = cut_short = starting = 0
    checkpoints = long_run.folder / "killed" / "checkpoints"
    while kills < 20:
        before = unfinished(checkpoints)
        life = long_run.start("killed")
        if kills % 4 == 3:  # of some lives any moment, most of which is starting up
            time.sleep(stream.uniform(0, 10))
        elif life.reach(1):
            # A save, every fifth step, goes on during the steps that follow.
            life.reach(life.step() + int(stream.integers(0, 12)))
            time.sleep(stream.uniform(0, 0.1))
        life.signal(signal.SIGKILL)
        code = life.wait()
        assert code == -signal.SIGKILL, f"ended before: {kills} kills\n{life.text()}"
        kills += 1
        starting += life.step() == 0
        cut_short += bool(unfinished(checkpoints) - before)
    long_run.finish("killed")
    long_run.assert_same("killed", "unbroken")
    print(f"{kills} kills: {cut_short} within a save, {starting} before a step")
    assert cut_short >= 3
    assert kills - cut_short - starting >= 3


def unfinished(checkpoints: Path) -> set[tuple[str, int]]:
    """The folders of saves that were cut short, each known by its inode."""
    found = checkpoints.glob("*.orbax-checkpoint-tmp*")
    return {(path.name, path.stat().st_ino) for path in found}


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_in_each_phase_by_either_signal(long_run, number):
    name = f"stopped-{number.name}"
    for phase, step in zip(PHASES, (20, 120, 220), strict=True):
        life = long_run.start(name)
        assert life.reach(step)
        life.signal(number)
        assert life.wait() == 143, life.text()
        status = long_run.status(name)
        assert (status["status"], status["last_step"]) == ("preempted", life.step())
        assert long_run.training(name)[-1]["phase"] == phase
    long_run.finish(name)
    long_run.assert_same(name, "unbroken")


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_second_interrupt_leaves_at_once_and_costs_only_steps(long_run):
    life = long_run.start("left")
    assert life.reach(61)
    for _ in range(2):
        life.signal(signal.SIGINT)
        time.sleep(0.02)  # two signals at once would be one
    assert life.wait() == 130, life.text()
    status = long_run.status("left")
    assert status["status"] == "failed"
    assert status["reason"] == "left at once, on a second Ctrl-C"
    long_run.finish("left")
    long_run.assert_same("left", "unbroken")


# --- a disk that fills up

NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
"""A file system that only the processes within see, and that ends with them."""

BALLAST = 16
"""MB of the 20 that are taken: room for a few checkpoints."""

SMALL_DISK = """
set -eu
mkdir -p disk
mount -t tmpfs -o size={size}m small-disk disk
head -c {ballast}M /dev/zero > disk/ballast
set +e
{train} > full.log 2>&1
echo $? > full.code
cp disk/run/run_status.json full.status
ls disk/run/checkpoints > full.steps
rm disk/ballast
{train} > freed.log 2>&1
echo $? > freed.code
cp -r disk/run freed
"""


def require_small_disk() -> None:
    mount = "mount -t tmpfs -o size=1m small-disk /tmp"
    tried = subprocess.run([*NAMESPACE, "sh", "-c", mount], capture_output=True)
    if tried.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {tried.stderr.decode().strip()}")


@pytest.mark.soak
def test_a_disk_that_fills_up_stops_the_run_and_spoils_nothing(short_run):
    require_small_disk()
    folder = short_run.folder
    train = " ".join(short_run.command("disk/run", "--run.keep-every", "2"))
    script = SMALL_DISK.format(size=20, ballast=BALLAST, train=train)
    done = subprocess.run(
        [*NAMESPACE, "sh", "-c", script],
        cwd=folder,
        env=short_run.environment,
        capture_output=True,
        timeout=800,
    )
    text = (folder / "full.log").read_text()
    assert done.returncode == 0, done.stderr.decode() + text
    # Loud, and the training goes on ...
    failures = [f"(failure {n} of 3)" for n in (1, 2)]
    assert all(failure in text for failure in failures), text
    assert text.count("COULD NOT BE SAVED: the disk is full: it needs ") == 2
    first, second = (text.index(failure) for failure in failures)
    assert "/12  " in text[first:second]
    # ... until the third failure in a row: exit code 1 and the truth about it.
    assert (folder / "full.code").read_text() == "1\n", text
    assert "Traceback" not in text
    short = (folder / "full.status").read_text()
    assert '"failed"' in short
    assert "the disk is full" in short
    whole = [int(s) for s in (folder / "full.steps").read_text().split() if s.isdigit()]
    assert f'"last_step": {max(whole)},' in short
    # With room again the same command goes on from there, as if nothing had been.
    text = (folder / "freed.log").read_text()
    assert (folder / "freed.code").read_text() == "0\n", text
    assert f"at step {max(whole)} of 12" in text
    short_run.assert_same("freed", "unbroken")
    shutil.rmtree(folder / "freed")
