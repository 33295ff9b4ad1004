"""Describes a model in words: network, convention, licence, training."""

import dataclasses
import math

from gl_jax.weights.architectures import (
    AnyArchitecture,
    Architecture,
    DiscriminatorArchitecture,
    OwnArchitecture,
)
from gl_jax.weights.arrays import Tree, flat
from gl_jax.weights.convention import Color
from gl_jax.weights.native import Model


def describe(model: Model) -> str:
    """Describes a model, one fact per line: network, convention, licence, training."""
    convention = model.convention
    lines = {
        "name": model.name,
        "came as": model.source,
        "licence": model.licence,
        "network": f"{numbers_of(model.architecture)}, "
        f"{_parameters(model.variables):,} parameters",
        "input": f"{convention.channels} in [0, 1] less {_rounded(convention.offset)}, "
        f"times {convention.scale:g}; hole painted {_rounded(convention.fill)}",
    }
    if model.discriminator is not None:
        lines["discriminators"] = (
            f"{numbers_of(model.discriminator.architecture)}, "
            f"{_parameters(model.discriminator.variables):,} parameters"
        )
    lines |= {name: str(value) for name, value in model.training.items()}
    lines["sha256"] = model.sha256
    wide = max(map(len, lines))
    return "\n".join(f"{name:{wide}}  {text}" for name, text in lines.items() if text)


def numbers_of(made: AnyArchitecture) -> str:
    """Returns the architecture in a few words."""
    if isinstance(made, OwnArchitecture):
        return f"{made.module} of {made.experiment}"
    order = {
        "norm_activation": "conv-BN-ReLU",
        "activation_norm": "conv-ReLU-BN",
        "none": "conv-ReLU",
    }
    if isinstance(made, Architecture):
        return (
            f"width {made.width:g}, {order[made.norm_order]}, {made.output_activation}"
        )
    if not isinstance(made, DiscriminatorArchitecture):
        numbers = dataclasses.asdict(made)
        named = [
            f"{name} {numbers[name]:g}"
            for name in ("size", "predicted", "bottleneck", "codes", "width")
            if name in numbers
        ]
        return f"{made.module} of {', '.join(named)}"
    return (
        f"{made.variant}, image {made.image_size}, window {made.local_size}, "
        f"{order[made.norm_order]}{', spectral norm' if made.spectral_norm else ''}"
    )


def _parameters(variables: Tree) -> int:
    return sum(math.prod(array.shape) for array in flat(variables["params"]).values())


def _rounded(color: Color) -> str:
    return f"({', '.join(f'{channel:.4g}' for channel in color)})"
