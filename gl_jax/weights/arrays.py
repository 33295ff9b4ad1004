"""Named arrays of a network, as in a file or nested as Flax has them, and their checks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gl_jax.config import UsageError
from gl_jax.weights.architectures import Shapes

LISTED = 4
"""Names of wrong arrays in one message; the rest are only counted."""

Tree = dict[str, Any]
Arrays = dict[str, np.ndarray]


def require_fit(arrays: Mapping[str, Any], expected: Shapes, name: str) -> None:
    """Raises UsageError if arrays are missing, unexpected or mis-shaped."""
    misfits = {
        "missing": [key for key in expected if key not in arrays],
        "unexpected": [key for key in arrays if key not in expected],
        "mis-shaped": [
            f"{key} {_times(arrays[key].shape)} instead of {_times(shape)}"
            for key, shape in expected.items()
            if key in arrays and tuple(arrays[key].shape) != shape
        ],
    }
    refuse_misfits(misfits, name)


def refuse_misfits(misfits: Mapping[str, Sequence[str]], name: str) -> None:
    """Raises UsageError that lists the misfits of each kind, if there are any."""
    parts = [f"{kind} {listed(keys)}" for kind, keys in misfits.items() if keys]
    if parts:
        raise UsageError(
            f"{name} does not hold the arrays of its network: {'; '.join(parts)}. "
            "Nothing was loaded."
        )


def require_finite(arrays: Mapping[str, np.ndarray], name: str) -> None:
    """Raises UsageError if an array holds NaN or infinity."""
    bad = [key for key, array in arrays.items() if not np.isfinite(array).all()]
    if bad:
        raise UsageError(f"{name}: {listed(bad)} would hold NaN or infinity.")


def listed(names: Iterable[str]) -> str:
    """Returns the first `LISTED` names and the number of the others, as text."""
    # Names from a damaged file may hold any character and have any length.
    printable = [
        "".join(c if c.isprintable() else "?" for c in name[:80]) for name in names
    ]
    more = len(printable) - LISTED
    text = ", ".join(printable[:LISTED])
    return f"{text} and {more} more" if more > 0 else text


def flat(tree: Tree, prefix: str = "") -> Arrays:
    """Flattens a nested dictionary of arrays to paths such as `params/conv1/kernel`."""
    arrays: Arrays = {}
    for key, value in tree.items():
        place = f"{prefix}{key}"
        if isinstance(value, Mapping):
            arrays |= flat(dict(value), f"{place}/")
        else:
            arrays[place] = np.asarray(value)
    return arrays


def nested(arrays: Mapping[str, Any]) -> Tree:
    """Nests a flat dictionary of arrays: the inverse of `flat`."""
    tree: Tree = {}
    for place, array in arrays.items():
        *parents, last = place.split("/")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = array
    return tree


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a number"
