"""Chips and their arrangements by name, such as v5e:4x4 and gpu:h100x8."""

import difflib
import math
import re
from dataclasses import dataclass
from typing import Literal

from gl_jax.config import UsageError

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """The limits of one chip, in FLOP/s, bytes and bytes per second."""

    platform: Literal["tpu", "gpu"]
    peak: dict[str, float]
    """FLOP per second of the matrix units, by the network's compute type."""
    memory: float
    """Bytes available to a program."""
    bandwidth: float
    """Bytes per second between the chip and its memory."""
    interconnect: float
    """Bytes per second sent over all its links to other chips."""
    per_host: int
    shapes: tuple[str, ...]
    """The arrangements on offer; () for any number."""
    compiler_name: str
    source: str


FLAT = tuple("1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16".split())
CUBES = tuple("2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8 8x8x8 8x8x16 8x16x16".split())

# JAX's default precision rounds float32 to bfloat16 on a TPU, whose matrix units multiply
# bfloat16, and uses TF32 on a GPU. A TPU's memory is the limit that the compiler of libtpu
# 0.0.42 states when it refuses a larger program. The pages give the interconnect as the
# sum of both directions (v5e 400, v6e 800 GB/s) or one way in bits (v5p 4,800 Gb/s).
CHIPS = {
    "v4": Chip(
        "tpu", {"float32": 275e12, "bfloat16": 275e12}, 30.75 * GIB, 1.2e12, 300e9, 4,
        CUBES, "v4", "docs.cloud.google.com/tpu/docs/v4; interconnect from memory",
    ),
    "v5e": Chip(
        "tpu", {"float32": 197e12, "bfloat16": 197e12}, 15.75 * GIB, 819e9, 200e9, 4,
        FLAT, "v5e", "docs.cloud.google.com/tpu/docs/v5e",
    ),
    "v5p": Chip(
        "tpu", {"float32": 459e12, "bfloat16": 459e12}, 95.74 * GIB, 2765e9, 600e9, 4,
        CUBES, "v5", "docs.cloud.google.com/tpu/docs/v5p",
    ),
    "v6e": Chip(
        "tpu", {"float32": 918e12, "bfloat16": 918e12}, 31.25 * GIB, 1638e9, 400e9, 4,
        FLAT, "v6e", "docs.cloud.google.com/tpu/docs/v6e",
    ),
    # JAX uses three quarters of a GPU's memory by default
    # (XLA_PYTHON_CLIENT_MEM_FRACTION). The peaks are without sparsity.
    "h100": Chip(
        "gpu", {"float32": 495e12, "bfloat16": 989e12}, 0.75 * 80e9, 3.35e12, 450e9, 8,
        (), "h100", "NVIDIA's data sheet of the H100 SXM, from memory",
    ),
}  # fmt: skip


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
