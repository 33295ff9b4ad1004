"""Requests to stop."""

import os
import signal
import subprocess
import sys

import pytest

from gl_jax.training.interruption import EXIT_CODE, Interrupted, Interruption


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_not_obeyed(number):
    with Interruption() as interruption:
        assert not interruption.requested(1)
        os.kill(os.getpid(), number)
        assert interruption.requested(1)


def test_the_handlers_before_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with Interruption():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_second_interrupt_leaves_at_once():
    program = (
        "import os, signal, time\n"
        "from gl_jax.training.interruption import Interruption\n"
        "with Interruption():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=60)
    assert done.returncode == 130


def test_before_it_leaves_at_once_it_says_so(tmp_path):
    program = (
        "import os, pathlib, signal, time\n"
        "from gl_jax.training.interruption import Interruption\n"
        "with Interruption(pathlib.Path('left').touch):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=60, cwd=tmp_path)
    assert done.returncode == 130
    assert (tmp_path / "left").exists()


def test_interrupted_carries_the_exit_code_of_sigterm():
    assert EXIT_CODE == 143
    assert Interrupted(7).code == 143
    assert Interrupted(7).step == 7
