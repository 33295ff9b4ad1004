"""The memory of this process: what it holds, and the most that it has held.

On Linux the high-water mark is the kernel's (VmHWM) and can be set back to what is held
now, which leaves out what imports, compilers and checks needed before. Elsewhere it is
that of the whole life of the process.
"""

import ctypes
import gc
import os
import resource
import sys
from pathlib import Path

MB = 1e6

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")

LINUX = sys.platform == "linux"

DEFINITION = (
    "high-water mark of resident memory during the timed turns, less what was resident "
    "after the imports"
    if LINUX
    else "high-water mark of resident memory over the process's life, less that after "
    "the imports"
)


def resident() -> int:
    """Bytes resident now (elsewhere than on Linux: the most so far)."""
    return _kilobytes("VmRSS") * 1024 if LINUX else _lifetime_peak()


def peak() -> int:
    """The most bytes resident since `reset_peak`, elsewhere since the start."""
    return _kilobytes("VmHWM") * 1024 if LINUX else _lifetime_peak()


def reset_peak() -> None:
    """Gives freed memory back to the system, and sets the mark to what is left."""
    gc.collect()
    if LINUX:
        ctypes.CDLL(None).malloc_trim(0)
        _CLEAR.write_text("5")


def keep_freed() -> None:
    """Lets glibc keep freed memory instead of returning large arrays to the system."""
    mmap_threshold, trim_threshold, most = -3, -1, 2**31 - 1
    library = ctypes.CDLL(None)
    library.mallopt(mmap_threshold, most)
    library.mallopt(trim_threshold, most)


def children_private() -> int:
    """Bytes that the living child processes hold for themselves alone (Linux only)."""
    total = 0
    for tasks in Path("/proc/self/task").glob("*/children"):
        for child in tasks.read_text().split():
            rollup = Path(f"/proc/{child}/smaps_rollup").read_text()
            total += sum(
                int(line.split()[1]) * 1024
                for line in rollup.splitlines()
                if line.startswith("Private_")
            )
    return total


def available() -> int:
    """Bytes that a process could still take without swapping (Linux), else all there are."""
    if LINUX:
        return _kilobytes("MemAvailable", Path("/proc/meminfo")) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _kilobytes(name: str, file: Path = _STATUS) -> int:
    for line in file.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise RuntimeError(f"{file} has no line {name}")


def _lifetime_peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
