"""The same weights in both libraries: gl_jax's tree as named arrays in torch's layout.

Names are paths in the tree, such as `local.conv1.norm.running_mean`. Kernels are
(out, in, kh, kw), those of a transposed convolution (in, out, kh, kw), dense ones
(out, in) with the inputs flattened channels first. NumPy only.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]

_FIELDS = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def torch_arrays(params: Any, batch_stats: Any) -> Arrays:
    """The variables of one network by torch's names and in its layout."""
    arrays = {}
    for tree in (params, batch_stats):
        for path, value in _leaves(tree):
            *place, field = path
            channels = _channels_before(params, place)
            name = ".".join((*place, _FIELDS[field]))
            arrays[name] = np.ascontiguousarray(_torch_layout(place, value, channels))
    return arrays


def flattened(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The trainable arrays as one vector, in the order of their names."""
    names = sorted(name for name in arrays if "running_" not in name)
    return np.concatenate([np.ravel(arrays[name]) for name in names])


def _leaves(
    tree: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    if isinstance(tree, Mapping):
        for name, branch in tree.items():
            yield from _leaves(branch, (*path, name))
    else:
        yield path, np.asarray(tree)


def _channels_before(params: Any, place: list[str]) -> int | None:
    """For the dense layer behind a column of convolutions: the last one's outputs."""
    if place[-1] != "features":
        return None
    branch = params
    for name in place[:-1]:
        branch = branch[name]
    depth = sum(name.startswith("conv") for name in branch)
    return int(branch[f"conv{depth}"]["kernel"].shape[-1])


def _torch_layout(
    place: list[str], value: np.ndarray, channels: int | None
) -> np.ndarray:
    if value.ndim == 4:
        order = (2, 3, 0, 1) if place[-1].startswith("deconv") else (3, 2, 0, 1)
        return value.transpose(order)
    if value.ndim == 2 and channels is not None:
        side = round((len(value) / channels) ** 0.5)
        maps = value.reshape(side, side, channels, -1)
        return maps.transpose(3, 2, 0, 1).reshape(value.shape[1], -1)
    return value.T
