"""The completion network in an .npz, and that file as a weights file of gl_jax.

The .npz needs NumPy alone. It holds the variables by their place, such as
`params/conv1/kernel`, and `about`, a JSON object with the network's width, the mean colour
and a summary of the training. Kernels are float16, all else is float32.
"""

import io
import json
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from gl_jax.config import UsageError
from gl_jax.files import reading, write_output
from gl_jax.weights.arrays import flat

Tree = dict[str, Any]


def save(path: Path, variables: Tree, about: dict[str, Any]) -> bool:
    """Writes the variables, whole or not at all; not, and False, if they are not finite."""
    arrays = {
        place: _stored(a) for place, a in flatten_dict(variables, sep="/").items()
    }
    if not all(np.isfinite(array).all() for array in arrays.values()):
        return False
    buffer = io.BytesIO()
    np.savez(buffer, about=np.array(json.dumps(about)), **arrays)
    write_output(path, buffer.getvalue())
    return True


def load(path: Path) -> tuple[Tree, dict[str, Any]]:
    """Reads what `save` wrote, in float32. Raises UsageError if it is no such file."""
    try:
        with reading(path), path.open("rb") as data, np.load(data) as file:
            arrays = dict(file)
        about = json.loads(str(arrays.pop("about")))
    except (ValueError, TypeError, KeyError, EOFError, BadZipFile) as error:
        raise UsageError(f"{path} holds no weights of this script: {error}") from error
    arrays = {place: array.astype(np.float32) for place, array in arrays.items()}
    return unflatten_dict(arrays, sep="/"), about


def convert(path: Path, output: Path, name: str, licence: str) -> str:
    """Writes the weights file that `gl-jax complete --model` reads; returns its SHA-256."""
    from gl_jax.weights import native
    from gl_jax.weights.architectures import Architecture
    from gl_jax.weights.convention import Convention

    variables, about = load(path)
    model = native.Model(
        {},
        Architecture(width=about["width"]),
        Convention.gl_jax(tuple(about["mean_color"])),
        name=name,
        licence=licence,
        training=about["training"],
    )
    model = native.with_arrays(model, flat(variables), str(path))
    return native.save(model, output, dtype="float16")


def _stored(array: Any) -> np.ndarray:
    array = np.asarray(array)
    return array.astype(np.float16 if array.ndim > 1 else np.float32)
