"""Chips and their arrangements by name, such as v5e:4x4 and gpu:h100x8."""

import difflib
import math
import re
from dataclasses import dataclass

from gl_jax.chips import CHIPS, Chip
from gl_jax.config import UsageError


@dataclass(frozen=True)
class Topology:
    """A number of chips in an arrangement."""

    name: str
    chip: Chip
    count: int

    @property
    def hosts(self) -> int:
        """Number of hosts of the chips."""
        return -(-self.count // self.chip.per_host)


def topology_of(name: str) -> Topology:
    """Returns the topology of a name: CHIP:SHAPE for TPUs, gpu:CHIPxCOUNT for GPUs.

    Raises UsageError, with the nearest names, for an unknown name.
    """
    gpu = re.fullmatch(r"gpu:(\w+?)x([1-9]\d*)", name)
    family, _, shape = (gpu[1], "", gpu[2]) if gpu else name.partition(":")
    chip = CHIPS.get(family)
    if chip and gpu and chip.platform == "gpu":
        return Topology(name, chip, int(shape))
    if chip and not gpu and shape in chip.shapes:
        return Topology(name, chip, math.prod(map(int, shape.split("x"))))
    raise UsageError(f"there is no topology {name!r}: {_nearest(name)}")


def _nearest(name: str) -> str:
    tpus = {f for f, chip in CHIPS.items() if chip.platform == "tpu"}
    family = name.partition(":")[0]
    families = [family] if family in tpus else sorted(tpus)
    known = [f"{f}:{shape}" for f in families for shape in CHIPS[f].shapes]
    known += [] if family in tpus else ["gpu:h100x1", "gpu:h100x8"]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:3]
    return (
        f"did you mean {', '.join(near)}? TPUs are {', '.join(sorted(tpus))} with a "
        "shape, GPUs are gpu:h100xCOUNT."
    )
