"""Named arrays from the files in which networks of others are published.

For networks that only measure (FID's, LPIPS's), whose files a user gives. Nothing in
them is executed.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from gl_jax.config import UsageError
from gl_jax.files import reading
from gl_jax.weights import native, pytorch

Arrays = dict[str, np.ndarray]


def read(path: str | Path) -> Arrays:
    """Every floating-point array of a .safetensors, .pth or .pt file, by name, float32.

    A PyTorch file may hold the state_dict itself or under the key `state_dict` or
    `model`; `module.` in front of all names is dropped. Raises UsageError, one line,
    where the file cannot be read or holds no array.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        with reading(path):
            data = path.read_bytes()
        try:
            found: Any = load(data)
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UsageError(f"{path} is no safetensors file: {reason}.") from error
    else:
        found = pytorch.read(path)
        for key in ("state_dict", "model"):
            if isinstance(found, dict) and isinstance(found.get(key), dict):
                found = found[key]
    arrays: Arrays = {}
    for name, array in found.items() if isinstance(found, dict) else ():
        # Counters of batches and the like are whole numbers. ml_dtypes' kind is V.
        if isinstance(array, np.ndarray) and array.dtype.kind in "fV":
            arrays[str(name)] = array.astype(np.float32)
    if not arrays:
        raise UsageError(f"{path} holds no array by name: give a state_dict.")
    if all(name.startswith("module.") for name in arrays):
        arrays = {name.removeprefix("module."): arrays[name] for name in arrays}
    return arrays


def sha256(path: str | Path) -> str:
    """The file's SHA-256 as 64 hexadecimal digits; UsageError where it cannot be read."""
    with reading(path), Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require(
    arrays: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
    name: str,
) -> Arrays:
    """The arrays that `shapes` names; UsageError where one is missing or mis-shaped.

    Arrays beyond those stay behind: a published trunk brings its classifier along.
    """
    chosen = {key: arrays[key] for key in shapes if key in arrays}
    native.require_fit(chosen, dict(shapes), name)
    native.require_finite(chosen, name)
    return chosen


def renamed(
    arrays: Mapping[str, np.ndarray], rules: Iterable[tuple[str, str]]
) -> Arrays:
    """The arrays with each (pattern, replacement) of `rules` applied to their names."""
    result: Arrays = {}
    for name, array in arrays.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        result[name] = array
    return result
