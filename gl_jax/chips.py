"""Accelerators and their limits, from their makers' pages."""

from dataclasses import dataclass
from typing import Literal

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
    """Bytes a second between the chip and its memory."""
    interconnect: float
    """Bytes per second sent over all its links to other chips."""
    per_host: int
    shapes: tuple[str, ...]
    """The arrangements on offer; () for any number."""
    compiler_name: str
    kinds: tuple[str, ...]
    """Names that JAX has for it (`jax.Device.device_kind`)."""
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
        CUBES, "v4", ("TPU v4",), "docs.cloud.google.com/tpu/docs/v4; interconnect from memory",
    ),
    "v5e": Chip(
        "tpu", {"float32": 197e12, "bfloat16": 197e12}, 15.75 * GIB, 819e9, 200e9, 4,
        FLAT, "v5e", ("TPU v5 lite", "TPU v5e"), "docs.cloud.google.com/tpu/docs/v5e",
    ),
    "v5p": Chip(
        "tpu", {"float32": 459e12, "bfloat16": 459e12}, 95.74 * GIB, 2765e9, 600e9, 4,
        CUBES, "v5", ("TPU v5", "TPU v5p"), "docs.cloud.google.com/tpu/docs/v5p",
    ),
    "v6e": Chip(
        "tpu", {"float32": 918e12, "bfloat16": 918e12}, 31.25 * GIB, 1638e9, 400e9, 4,
        FLAT, "v6e", ("TPU v6 lite", "TPU v6e"), "docs.cloud.google.com/tpu/docs/v6e",
    ),
    # JAX takes three quarters of a GPU's memory, unless XLA_PYTHON_CLIENT_MEM_FRACTION
    # is another share. The peaks are those without sparsity; the H200 has the same.
    "h100": Chip(
        "gpu", {"float32": 495e12, "bfloat16": 989e12}, 0.75 * 80e9, 3.35e12, 450e9, 8,
        (), "h100", ("NVIDIA H100 80GB HBM3", "NVIDIA H200"),
        "NVIDIA's data sheet of the H100 SXM, from memory",
    ),
}  # fmt: skip


def peak_of(kind: str, dtype: str) -> float | None:
    """Returns the FLOP a second of the device that JAX calls `kind`; None if not known.

    `dtype` is the type that a network computes in: float32 or bfloat16.
    """
    for chip in CHIPS.values():
        if kind in chip.kinds:
            return chip.peak.get(dtype)
    return None
