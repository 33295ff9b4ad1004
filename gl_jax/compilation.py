"""Programs: which operations and options suit the platform they run on, where they are kept."""

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
"""Platforms that are faster with operations and options of their own."""

_target: ContextVar[str | None] = ContextVar("target", default=None)

LEAST_SECONDS = 0.2
"""What compiles sooner is not kept."""


@contextlib.contextmanager
def building_for(platform: str) -> Iterator[None]:
    """Makes `platform` the default of `ops` and `options` inside, present or not."""
    before = _target.set(platform)
    try:
        yield
    finally:
        _target.reset(before)


def _guest(platform: str | None) -> Any:
    return GUESTS.get(platform or _target.get() or jax.default_backend())


def ops(platform: str | None = None) -> Ops:
    """The operations to build networks with for a platform, by default JAX's own default."""
    guest = _guest(platform)
    return guest.ops() if guest else NATIVE


def options(
    platform: str | None = None, *, once: bool = False
) -> dict[str, str | bool]:
    """The options to compile large programs with: they change how a program is computed.

    A program that runs `once` is rather compiled soon than well.
    """
    guest = _guest(platform)
    return guest.compiler_options(once=once) if guest else {}


def jit(
    function: Callable[..., Any], static: tuple[int, ...] = (), *, once: bool = False
) -> Any:
    """`jax.jit` with these options; `static` are the places of static arguments."""
    return jax.jit(function, static_argnums=static, compiler_options=options(once=once))


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
