"""GLCIC, globally and locally consistent image completion, in JAX and Flax.

Training is the command line's: `gl-jax train`, or `gl_jax.training.loop.run`. Importing
this package loads neither JAX nor TensorFlow; the names below load what they need when
they are first used. A script that starts often keeps its compiled programs by one call
before the first photograph: `gl_jax.use_compilation_cache()`.
"""

import importlib
from typing import Any

from gl_jax.version import __version__

_HOMES = {
    "Completer": "gl_jax.inpainting.completer",
    "complete": "gl_jax.inpainting.completer",
    "load": "gl_jax.inpainting.completer",
    "use_compilation_cache": "gl_jax.compilation",
}

__all__ = ["Completer", "__version__", "complete", "load", "use_compilation_cache"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
