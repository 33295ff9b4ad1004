"""The machine that is measured, and the memory of this process.

Linux keeps a high-water mark of resident memory (VmHWM) that can be set back to the
present value; this leaves imports, compilation and checks out. Elsewhere the mark is that
of the whole life of the process.
"""

import ctypes
import gc
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MB = 1e6
LINUX = sys.platform == "linux"


def facts() -> dict[str, Any]:
    """Returns the processor, memory, GPU and system that a measurement belongs to."""
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpu = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return {
        "processor": _processor(),
        "processors": processors(),
        "memory_gb": round(pages / 1e9, 1),
        "gpu": gpu.partition("\n")[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def revision() -> str:
    """Returns the commit, followed by "+" if the tree has uncommitted changes."""
    commit = _output("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    changed = _output("git", "-C", str(ROOT), "status", "--porcelain")
    return (commit or "unknown") + ("+" if changed else "")


def processors() -> int:
    """Returns how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resident() -> int:
    """Returns the bytes resident now; outside Linux, the most so far."""
    return _status("VmRSS") if LINUX else lifetime_peak(resource.RUSAGE_SELF)


def peak() -> int:
    """Returns the most bytes resident since `reset_peak`; outside Linux, since start."""
    return _status("VmHWM") if LINUX else lifetime_peak(resource.RUSAGE_SELF)


def reset_peak() -> None:
    """Returns freed memory to the system and sets the mark to what is resident then."""
    gc.collect()
    if LINUX:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def lifetime_peak(who: int) -> int:
    """Returns the most bytes that this process, or one of its children, ever held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(who).ru_maxrss * unit


def children_private() -> int:
    """Returns the bytes that only the living child processes hold (0 outside Linux)."""
    total = 0
    for tasks in Path("/proc/self/task").glob("*/children"):
        for child in tasks.read_text().split():
            lines = Path(f"/proc/{child}/smaps_rollup").read_text().splitlines()
            private = (line.split()[1] for line in lines if line.startswith("Private_"))
            total += sum(map(int, private)) * 1024
    return total


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return int(value) * 1024


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    flags = [line.split() for line in lines if line.startswith("flags")]
    if not names or not flags:
        return platform.processor() or platform.machine()
    wide = [flag for flag in ("avx2", "avx512f", "avx512_bf16") if flag in flags[0]]
    return f"{names[0].strip()} ({', '.join(wide)})"


def _output(*command: str) -> str:
    """Returns a command's output, or nothing if it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
