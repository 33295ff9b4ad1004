"""The watchdog: it speaks once for each hang, and never of what moves."""

import threading
import time

from gl_jax.training.watchdog import Watchdog


def hang(seconds: float) -> None:
    time.sleep(seconds)


def test_what_hangs_is_shown_once_with_its_place(capfd):
    with Watchdog(0.2) as watchdog:
        watchdog.beat()
        hang(0.8)
    said = capfd.readouterr().err
    assert said.count("Nothing has happened for 0.2 s") == 1
    assert "in hang" in said and said.index("MainThread") < said.index("in hang")


def test_each_hang_is_shown(capfd):
    with Watchdog(0.2) as watchdog:
        for _ in range(2):
            watchdog.beat()
            hang(0.5)
    assert capfd.readouterr().err.count("Nothing has happened") == 2


def test_what_moves_is_left_in_peace(capfd):
    with Watchdog(1.0) as watchdog:
        for _ in range(8):
            watchdog.beat()
            time.sleep(0.2)
    assert capfd.readouterr().err == ""


def test_nothing_is_watched_before_the_first_beat(capfd):
    with Watchdog(0.05):
        time.sleep(0.3)
    assert capfd.readouterr().err == ""


def test_its_thread_ends_with_it():
    with Watchdog(1e9) as watchdog:
        watchdog.beat()
        assert "watchdog" in {thread.name for thread in threading.enumerate()}
    assert "watchdog" not in {thread.name for thread in threading.enumerate()}
