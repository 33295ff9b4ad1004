"""Networks for inference, with batch normalisation folded into the convolutions."""

import inspect
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gl_jax.models.layers import BATCH_NORM_EPSILON

Tree = dict[str, Any]


def fold(network: nn.Module, variables: Mapping[str, Any]) -> tuple[nn.Module, Tree]:
    """Returns an equivalent network without normalisation, and its variables.

    `variables` is {"params", "batch_stats"} of numpy arrays, as is the result. In the
    order "norm_activation" each block's normalisation is folded into its kernel and bias.
    All other networks are returned unchanged. In the order "activation_norm" the next
    layer cannot absorb the normalisation, because its zero padding comes after it; with
    spectral normalisation the module would divide the folded kernel.
    """
    foldable = getattr(network, "norm_order", None) == "norm_activation"
    if not foldable or getattr(network, "spectral_norm", False):
        return network, dict(variables)
    params = _folded(variables["params"], variables["batch_stats"])
    return network.clone(norm_order="none"), {"params": params}


def _folded(params: Mapping[str, Any], stats: Mapping[str, Any]) -> Tree:
    if "norm" not in params:
        return {
            name: _folded(value, stats.get(name, {}))
            if isinstance(value, Mapping)
            else value
            for name, value in params.items()
        }
    norm, running = (_precise(tree["norm"]) for tree in (params, stats))
    scale = norm["scale"] / np.sqrt(running["var"] + BATCH_NORM_EPSILON)
    block = _precise({name: params[name] for name in ("kernel", "bias")})
    return {
        "kernel": np.float32(block["kernel"] * scale),
        "bias": np.float32((block["bias"] - running["mean"]) * scale + norm["bias"]),
    }


def _precise(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(array, np.float64) for name, array in arrays.items()}


def complete(
    network: nn.Module,
    variables: Mapping[str, Any],
    inputs: Float[Array, "b h w 4"],
    size: Int[Array, " 2"],
) -> Float[Array, "b h w 3"]:
    """Completes images of `size` (height, width) in the top left of `inputs`.

    h, w and `size` are multiples of 4. The output beyond `size` is undefined. A network
    without an argument `size` completes the whole array.
    """
    known: dict[str, Any] = {"size": size} if takes_size(network) else {}
    return jnp.asarray(network.apply(variables, inputs, train=False, **known))


def takes_size(network: nn.Module) -> bool:
    """Returns whether the network has an argument `size`, like CompletionNetwork."""
    return "size" in inspect.signature(type(network).__call__).parameters
