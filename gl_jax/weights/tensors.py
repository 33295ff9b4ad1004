"""Reads named arrays from published files of other people's networks.

The networks behind FID and LPIPS come this way, from files that the user supplies.
Nothing in a file is executed.
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
from gl_jax.weights import pytorch
from gl_jax.weights.arrays import Arrays, require_finite, require_fit


def read(path: str | Path) -> Arrays:
    """Returns the floating-point arrays of a .safetensors, .pth or .pt file as float32.

    A PyTorch file may hold the state_dict itself or under the key `state_dict` or
    `model`. If all names begin with `module.`, that is dropped. Raises UsageError if
    the file cannot be read or holds no named array.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        with reading(path):
            data = path.read_bytes()
        try:
            tree: Any = load(data)
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UsageError(f"{path} is not a safetensors file: {reason}.") from error
    else:
        tree = pytorch.read(path)
        for key in ("state_dict", "model"):
            if isinstance(tree, dict) and isinstance(tree.get(key), dict):
                tree = tree[key]
    arrays: Arrays = {}
    for name, array in tree.items() if isinstance(tree, dict) else ():
        # Integers are counters of batches. ml_dtypes' floats have the kind V.
        if isinstance(array, np.ndarray) and array.dtype.kind in "fV":
            arrays[str(name)] = array.astype(np.float32)
    if not arrays:
        raise UsageError(f"{path} holds no named array: give a state_dict.")
    if all(name.startswith("module.") for name in arrays):
        arrays = {name.removeprefix("module."): arrays[name] for name in arrays}
    return arrays


def sha256(path: str | Path) -> str:
    """Returns the file's SHA-256 as 64 hexadecimal digits.

    Raises UsageError if the file cannot be read.
    """
    with reading(path), Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require(
    arrays: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
    name: str,
) -> Arrays:
    """Returns the arrays that `shapes` names and drops the others.

    Published trunks include a classifier, for example. Raises UsageError, with `name`
    in its message, if an array is missing, mis-shaped or not finite.
    """
    chosen = {key: arrays[key] for key in shapes if key in arrays}
    require_fit(chosen, dict(shapes), name)
    require_finite(chosen, name)
    return chosen


def renamed(
    arrays: Mapping[str, np.ndarray], rules: Iterable[tuple[str, str]]
) -> Arrays:
    """Returns the arrays after substituting each (pattern, replacement) in their names."""
    result: Arrays = {}
    for name, array in arrays.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        result[name] = array
    return result
