"""XLA's compiler options for large programs on processors."""

import functools
from pathlib import Path

import jax

Options = dict[str, str | bool]

_OPTIONS: Options = {
    # By default XLA starts independent operations early and keeps their results. That
    # takes over 1.5 times the memory without a gain, as each uses all processors anyway.
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
    # Programs are at most 2 % slower, and compiling takes a quarter of the memory: 0.5 GB
    # instead of 1.7 for a joint step of the paper's size.
    "xla_cpu_use_fusion_emitters": False,
}

# Products and convolutions by Eigen, because YNNPACK's are slower without AVX-512; only
# sums remain with YNNPACK. A completion step of the paper's size takes 3.9 to 4.9 s
# instead of 5.1 to 5.4, a photograph two thirds to five sixths of the time.
_WITHOUT_AVX512: Options = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE",
}

# Fast compilation. Initial weights of the paper's size take 9 seconds of a processor
# instead of 16, those of a small network 2.5 instead of 21.
_ONCE: Options = {
    "xla_backend_optimization_level": "0",
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}

_PROCESSOR = Path("/proc/cpuinfo")


@functools.cache
def compiler_options(*, once: bool = False) -> Options:
    """Returns XLA's compiler options for large programs on this machine's processors.

    They do not change a program's results. Options unknown to the installed XLA are left
    out. A program that runs `once` is compiled quickly, but runs slowly.
    """
    options = _OPTIONS | (_WITHOUT_AVX512 if _widest_is_avx2() else {})
    options = _ONCE if once else options
    return {name: value for name, value in options.items() if _known(name, value)}


def _widest_is_avx2() -> bool:
    """Returns whether Linux lists AVX2 but not AVX-512; False on other systems."""
    try:
        lines = _PROCESSOR.read_text().splitlines()
    except OSError:
        return False
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return "avx2" in flags and "avx512f" not in flags


def _known(name: str, value: str | bool) -> bool:
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        try:
            jax.jit(lambda x: x).lower(0.0).compile(compiler_options={name: value})
        except jax.errors.JaxRuntimeError as error:
            if "No such compile option" not in str(error):
                raise
            return False
    return True
