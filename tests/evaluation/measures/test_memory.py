"""The peak memory of a call."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from gl_jax.evaluation.measures import memory

MIB = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_what_a_call_takes_and_gives_back_is_in_its_peak() -> None:
    def call() -> int:
        held = np.ones(64 * MIB, np.uint8)
        return int(held[-1])

    result, peak = memory.peak_above(call)
    assert result == 1
    assert 60 < peak < 90


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_an_earlier_peak_is_not_in_it() -> None:
    memory.peak_above(lambda: np.ones(64 * MIB, np.uint8).sum())
    _, peak = memory.peak_above(lambda: None)
    assert peak < 10


def test_where_the_system_does_not_tell_it_is_not_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "_RESET", tmp_path / "nowhere" / "clear_refs")
    result, peak = memory.peak_above(lambda: 5)
    assert result == 5
    assert math.isnan(peak)
