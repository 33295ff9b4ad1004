"""Named arrays from the authors' Torch7 nn.Sequential."""

import numpy as np

from gl_jax.config import UsageError
from gl_jax.models.completion import LAYERS
from gl_jax.models.layers import BATCH_NORM_EPSILON
from gl_jax.weights import torch7
from gl_jax.weights.arrays import Arrays

MODULES = 50
"""Modules of the authors' network: 16 x (convolution, normalisation, ReLU), then two."""


def named_arrays(model: torch7.Object) -> Arrays:
    """Returns the arrays of a Torch7 nn.Sequential by their PyTorch names.

    Raises UsageError if a module differs from the authors' network.
    """
    modules = model.fields.get("modules")
    if model.name != "nn.Sequential" or not isinstance(modules, dict):
        raise UsageError(
            f"the Torch7 file holds a {model.name}; only a plain nn.Sequential can be "
            "converted."
        )
    arrays: Arrays = {}
    for index in range(len(modules)):
        module = modules.get(index + 1)
        if not isinstance(module, torch7.Object):
            raise UsageError(f"module {index + 1} of the Torch7 network is missing.")
        _require_kind(index, module, len(modules))
        fields = dict(module.fields)
        epsilon = fields.get("eps", BATCH_NORM_EPSILON)
        if not isinstance(epsilon, int | float) or not 0 < epsilon < 1:
            raise UsageError(f"module {index + 1} has the epsilon {epsilon!r:.40}.")
        std = fields.get("running_std")
        if isinstance(std, np.ndarray) and "running_var" not in fields:
            # Files of 2015 and earlier hold 1 / sqrt(var + eps).
            with np.errstate(divide="ignore", over="ignore"):
                fields["running_var"] = std.astype(np.float64) ** -2 - epsilon
        var = fields.get("running_var")
        if isinstance(var, np.ndarray) and epsilon != BATCH_NORM_EPSILON:
            fields["running_var"] = var + (epsilon - BATCH_NORM_EPSILON)
        for key in ("weight", "bias", "running_mean", "running_var"):
            if isinstance(fields.get(key), np.ndarray):
                arrays[f"{index}.{key}"] = fields[key]
    return arrays


def _require_kind(index: int, module: torch7.Object, count: int) -> None:
    """Raises UsageError if a module differs from the authors' at this index."""
    kind = module.name.rpartition(".")[2]
    place, row = index % 3, LAYERS[min(index // 3, len(LAYERS) - 1)]
    if count != MODULES:
        raise UsageError(
            f"the Torch7 network has {count} modules, but the authors' has {MODULES}."
        )
    if index == MODULES - 1:
        expected, fits = "Sigmoid", kind == "Sigmoid"
    elif place == 0:
        expected = (
            "SpatialFullConvolution" if row.kind == "deconv" else "SpatialConvolution"
        )
        fits = kind == expected
        if row.kind == "conv":
            fits = kind in (
                "SpatialConvolution", "SpatialConvolutionMM", "SpatialDilatedConvolution"
            )  # fmt: skip
        required = {"kW": row.kernel, "dW": row.stride, "dilationW": row.dilation}
        for key, number in required.items():
            default = 1 if key == "dilationW" else number
            if module.fields.get(key, default) != number:
                raise UsageError(
                    f"module {index + 1} of the Torch7 network has "
                    f"{key} = {module.fields.get(key, default)!r:.20}, not {number}."
                )
    else:
        expected = "SpatialBatchNormalization" if place == 1 else "ReLU"
        fits = kind == expected
    if not fits:
        raise UsageError(
            f"module {index + 1} of the Torch7 network is a {module.name}, not a "
            f"{expected}."
        )
