"""GLCIC, globally and locally consistent image completion, in JAX and Flax.

Training is the command line's: `gl-jax train`, or `gl_jax.training.loop.run`. Importing
this package loads neither JAX nor TensorFlow; the names for completing photographs load
what they need when they are first used.
"""

import importlib
from typing import Any

from gl_jax.version import __version__

_COMPLETER = ("Completer", "complete", "load")

__all__ = ["Completer", "__version__", "complete", "load"]


def __getattr__(name: str) -> Any:
    if name in _COMPLETER:
        return getattr(importlib.import_module("gl_jax.inpainting.completer"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_COMPLETER})
