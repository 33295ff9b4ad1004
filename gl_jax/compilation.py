"""What XLA compiles programs with, and where they are kept."""

import functools
import os
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

CPU_OPTIONS = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}

LEAST_SECONDS = 0.2
"""What compiles sooner is not kept."""


@functools.cache
def compiler_options() -> dict[str, str]:
    """What XLA should compile large programs with, where they run by default.

    It would else begin independent operations early, and keep what they make: half as
    much memory again and more, while each of them has all processors to itself anyway.
    They change how a program is computed and never what: a compiler that lacks one gets
    none of them.
    """
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda x: x).lower(0.0).compile(compiler_options=dict(CPU_OPTIONS))
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return {}
    return CPU_OPTIONS


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, for the next start.

    That is gl_jax/ in $XDG_CACHE_HOME or ~/.cache. A folder that JAX was told, by
    JAX_COMPILATION_CACHE_DIR or in Python, stays.
    """
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    jax.config.update("jax_compilation_cache_dir", str(Path(cache) / "gl_jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
    # Where something was compiled before, JAX has settled that there is none.
    compilation_cache.reset_cache()
