"""How much memory a call takes, as Linux counts it; no rights are needed."""

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
    """What `call` returns, and the MiB by which it raised the process's memory at most.

    That is the peak of the resident memory during the call less the level before it,
    in which libraries, weights and compiled programs that are loaded already are
    contained. Memory that earlier calls have freed is given back to the system first,
    as far as the C library can. It counts this process on the host: not what is on an
    accelerator. NaN where the system does not tell, as outside Linux.
    """
    _give_back()
    before = _resident("VmRSS") if _reset() else math.nan
    result = call()
    peak = _resident("VmHWM") if not math.isnan(before) else math.nan
    return result, max(0.0, peak - before) if not math.isnan(peak) else math.nan


def _give_back() -> None:
    try:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (OSError, TypeError):  # where there is no C library to open this way
        return
    if trim is not None:
        trim(0)


def _reset() -> bool:
    """Begins a new peak, the `5` of proc(5)'s clear_refs; whether that is possible."""
    try:
        _RESET.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def _resident(name: str) -> float:
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return math.nan
    return int(found[1]) / 1024 if found else math.nan
