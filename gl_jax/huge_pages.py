"""Large arrays in pages of 2 MB, not of 4 KB, where Linux gives them to who asks.

What a program computes with on a processor is new memory in every call. A joint step of
the paper's size meets 169,000 new small pages, or 350 huge ones and 270 small ones, and
takes up to a twelfth less time (docs/performance.md). glibc asks for them only if it was
told so before the process began, which is why the command line begins again.
"""

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

_MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_VARIABLE = "GLIBC_TUNABLES"
_TUNABLE = "glibc.malloc.hugetlb"


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """`given`, and what tells glibc to ask for huge pages in a process begun with it.

    As it was where Linux gives them to all or to nobody, where it is another system, and
    where something was told already: GLIBC_TUNABLES=glibc.malloc.hugetlb=0 is a no.
    """
    found = dict(given)
    told = found.get(_VARIABLE, "")
    if _TUNABLE not in told and _given_on_request():
        found[_VARIABLE] = ":".join(filter(None, (told, f"{_TUNABLE}=1")))
    return found


def begin_again() -> None:
    """Replaces this process by the same one with huge pages, unless that changes nothing."""
    wanted = environment(os.environ)
    if wanted != dict(os.environ) and sys.executable:
        # Where it cannot be, it goes on as it is.
        with contextlib.suppress(OSError):
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], wanted)


def _given_on_request() -> bool:
    try:
        return "[madvise]" in _MODE.read_text()
    except OSError:
        return False
