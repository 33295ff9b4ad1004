"""Compilation for TPUs without a TPU, by libtpu's ahead-of-time compiler."""

import importlib.metadata
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from gl_jax.config import UsageError
from gl_jax.parallel import over_devices
from gl_jax.planning import hlo
from gl_jax.planning.topologies import GIB, Topology

# Without the first three libtpu queries the network about its machine. The last one lets
# it load while another process trains.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


class Memory(NamedTuple):
    """Bytes of a chip's memory that a step's program takes, by purpose."""

    arguments: float
    """State, photographs and key, padded to the chip's layout."""
    temporaries: float
    results: float
    """Results that do not reuse an argument's memory."""
    program: float

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return sum(self)


class Compiled(NamedTuple):
    """A step's program for one chip of a topology."""

    memory: Memory
    figures: hlo.Figures


class TooLargeError(Exception):
    """The compiler refuses a program that needs `needed` bytes of a chip."""

    def __init__(self, needed: float) -> None:
        super().__init__(needed)
        self.needed = needed


def require_libtpu() -> str:
    """Returns libtpu's version; raises UsageError if it is absent or unfit for JAX."""
    required = _required(importlib.metadata.requires("jax") or [])
    install = f"pip install 'jax[tpu]=={jax.__version__}'"
    try:
        version = importlib.metadata.version("libtpu")
    except importlib.metadata.PackageNotFoundError:
        raise UsageError(
            "a plan for TPUs needs their compiler, libtpu, which is not installed: "
            f"{install} (Linux x86-64; no TPU needed)."
        ) from None
    if not f"{version}.".startswith(required):
        raise UsageError(
            f"libtpu (={version}) must have version {required}* for jax {jax.__version__}: "
            f"{install}."
        )
    return version


def _required(requirements: Sequence[str]) -> str:
    """Returns the start of the version that JAX requires, such as "0.0.42.", or ""."""
    for requirement in requirements:
        if match := re.match(r"libtpu\s*==\s*([\d.]+?)\.?\*?\s*;", requirement):
            return f"{match[1]}."
    return ""


def compiled(
    step: Callable[..., Any],
    topology: Topology,
    state: Any,
    images: Any,
    key: Any,
    *,
    pieces: int,
) -> Compiled:
    """Compiles a step for a topology; `images` are those of one chip, in `pieces` pieces.

    Raises TooLargeError if it does not fit into a chip's memory.
    """
    os.environ.update(
        {name: os.environ.get(name, ENVIRONMENT[name]) for name in ENVIRONMENT}
    )
    chip = topology.chip
    name = f"{chip.compiler_name}:{topology.name.partition(':')[2]}"
    # As on real chips, the two cores of a v4 or v5p are one device.
    kind = "megacore" if chip.compiler_name in ("v4", "v5") else "default"
    shape = (1, 1, 1) if topology.count == 1 else (2, 2, 1)
    described = topologies.get_topology_desc(
        platform="tpu",
        topology_name=name,
        chip_config_name=kind,
        chips_per_host_bounds=shape,
    )
    shared = jax.ShapeDtypeStruct((topology.count, *images.shape), images.dtype)
    lowered = over_devices(step, described.devices).lower(state, shared, key)
    try:
        program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise TooLargeError(needed_of(str(error))) from error
    stats = program.memory_analysis()
    memory = Memory(
        stats.argument_size_in_bytes,
        stats.temp_size_in_bytes,
        stats.output_size_in_bytes - stats.alias_size_in_bytes,
        stats.generated_code_size_in_bytes,
    )
    return Compiled(memory, hlo.figures(program.as_text(), pieces=pieces))


def needed_of(message: str) -> float:
    """Returns the bytes that a refused program needs, from the compiler's message."""
    units = {"K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}
    match = re.search(r"(?:Used |temporaries \()([\d.]+)([KMGT])", message)
    if match is None:
        raise ValueError(f"no size in the compiler's message: {message}")
    return float(match[1]) * units[match[2]]
