"""Operations, compiler options and the compilation cache for the current platform."""

import contextlib
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from gl_jax import cpu
from gl_jax.models.ops import NATIVE, Ops

GUESTS = {"cpu": cpu}
"""Platforms with their own operations and options, which are faster there."""

_target: ContextVar[str | None] = ContextVar("target", default=None)

LEAST_SECONDS = 0.2
"""Seconds of compilation below which a program is not cached."""


@contextlib.contextmanager
def building_for(platform: str) -> Iterator[None]:
    """Makes `platform`, which need not be present, the default of `ops` and `options`."""
    before = _target.set(platform)
    try:
        yield
    finally:
        _target.reset(before)


def _guest(platform: str | None) -> Any:
    return GUESTS.get(platform or _target.get() or jax.default_backend())


def ops(platform: str | None = None) -> Ops:
    """Returns the networks' operations for a platform, by default JAX's default one."""
    guest = _guest(platform)
    return guest.ops() if guest else NATIVE


def options(
    platform: str | None = None, *, once: bool = False
) -> dict[str, str | bool]:
    """Returns the compiler options for large programs on a platform.

    For a program that runs `once` they favour fast compilation over fast code.
    """
    guest = _guest(platform)
    return guest.compiler_options(once=once) if guest else {}


def jit(
    function: Callable[..., Any], static: tuple[int, ...] = (), *, once: bool = False
) -> Any:
    """Applies `jax.jit` with these options; `static` are indices of static arguments."""
    return jax.jit(function, static_argnums=static, compiler_options=options(once=once))


def use_compilation_cache() -> None:
    """Caches compiled programs in the user's cache folder, for the next start.

    The folder is gl_jax/ in $XDG_CACHE_HOME or ~/.cache, unless JAX already has one, from
    JAX_COMPILATION_CACHE_DIR or set in Python.
    """
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    jax.config.update("jax_compilation_cache_dir", str(Path(cache) / "gl_jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
    # If a program was compiled before, JAX has recorded that there is no cache.
    compilation_cache.reset_cache()
