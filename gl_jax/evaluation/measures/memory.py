"""The peak memory of a call, from Linux's counters; needs no privileges."""

import ctypes
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def peak_above(call: Callable[[], Result]) -> tuple[Result, float]:
    """Returns the result of `call`, and the peak of its memory in MiB.

    The peak is that of this process's resident memory during the call, less the level
    before it: loaded libraries, weights and compiled programs do not count. Memory freed
    earlier is first given back to the system, as far as the C library can. Memory on an
    accelerator does not count. NaN if the system does not know, as outside Linux.
    """
    _give_back()
    before = _resident("VmRSS") if _reset() else math.nan
    result = call()
    peak = _resident("VmHWM") if not math.isnan(before) else math.nan
    return result, max(0.0, peak - before) if not math.isnan(peak) else math.nan


def _give_back() -> None:
    try:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (OSError, TypeError):  # no C library can be opened this way
        return
    if trim is not None:
        trim(0)


def _reset() -> bool:
    """Resets the peak by the `5` of proc(5)'s clear_refs; returns False if it cannot."""
    try:
        _RESET.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def _resident(name: str) -> float:
    try:
        match = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return math.nan
    return int(match[1]) / 1024 if match else math.nan
