"""What XLA compiles programs with, and where they are kept."""

import functools
import os
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

CPU_OPTIONS: dict[str, str | bool] = {
    # It would else begin independent operations early, and keep what they make: half as
    # much memory again and more, while each of them has all processors to itself anyway.
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
    # Without, programs are 2 % slower at most, and compiled with a quarter of the memory:
    # for a joint step of the paper's size 0.5 GB instead of 1.7.
    "xla_cpu_use_fusion_emitters": False,
}

WITHOUT_AVX512: dict[str, str | bool] = {
    # Products and convolutions by Eigen, sums as ever by YNNPACK, whose other loops are
    # the slower ones there: a completion step of the paper's size takes 3.9 to 4.9 s, not
    # 5.1 to 5.4, and a photograph two thirds to five sixths of the time.
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE",
}
"""What is faster on processors with AVX2 and without AVX-512."""

PROCESSOR = Path("/proc/cpuinfo")

LEAST_SECONDS = 0.2
"""What compiles sooner is not kept."""


@functools.cache
def compiler_options() -> dict[str, str | bool]:
    """What XLA should compile large programs with, where they run by default.

    They change how a program is computed and never what: a compiler that lacks one does
    without it.
    """
    options = CPU_OPTIONS | (WITHOUT_AVX512 if _widest_is_avx2() else {})
    return {name: value for name, value in options.items() if _known(name, value)}


def _widest_is_avx2() -> bool:
    """Whether that is what this processor has, as Linux says it; no on other systems."""
    try:
        lines = PROCESSOR.read_text().splitlines()
    except OSError:
        return False
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return "avx2" in flags and "avx512f" not in flags


def _known(name: str, value: str | bool) -> bool:
    try:
        jax.jit(lambda x: x).lower(0.0).compile(compiler_options={name: value})
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return False
    return True


def ops():
    from gl_jax.models.ops import NATIVE

    return NATIVE
