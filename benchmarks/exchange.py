"""The weights of gl_jax as named arrays in torch's layout.

Names are paths in the tree, such as `local.conv1.norm.running_mean`. Kernels are
(out, in, kh, kw), those of a transposed convolution (in, out, kh, kw), dense ones
(out, in) with the inputs flattened channels first.
"""

from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

Arrays = dict[str, np.ndarray]
Place = tuple[str, ...]

_FIELDS = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def torch_arrays(params: Any, batch_stats: Any) -> Arrays:
    """Returns the variables of one network by torch's names and in its layout."""
    leaves = flatten_dict(params) | flatten_dict(batch_stats)
    arrays = {}
    for (*place, field), value in leaves.items():
        array = np.asarray(value)
        if place[-1] == "features":
            array = _channels_first(array, _last_channels(params, place[:-1]))
        array = _torch_layout(place[-1], array)
        arrays[".".join((*place, _FIELDS[field]))] = np.ascontiguousarray(array)
    return arrays


def _torch_layout(layer: str, array: np.ndarray) -> np.ndarray:
    if array.ndim == 4:
        return array.transpose((2, 3, 0, 1) if "deconv" in layer else (3, 2, 0, 1))
    return array.T


def _channels_first(array: np.ndarray, channels: int) -> np.ndarray:
    """Reorders the inputs of a dense layer behind convolutions."""
    if array.ndim != 2:
        return array
    side = round((len(array) / channels) ** 0.5)
    maps = array.reshape(side, side, channels, -1)
    return maps.transpose(2, 0, 1, 3).reshape(array.shape)


def _last_channels(params: Any, place: list[str]) -> int:
    """Returns the output channels of the last convolution in a column."""
    for name in place:
        params = params[name]
    depth = sum(name.startswith("conv") for name in params)
    return int(params[f"conv{depth}"]["kernel"].shape[-1])
