"""Weights for a run to begin with: fine-tuning, instead of random ones."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from gl_jax.config import Config, UsageError
from gl_jax.experiment import Experiment
from gl_jax.training.state import NetState, TrainState
from gl_jax.weights import native
from gl_jax.weights.architectures import AnyArchitecture, OwnArchitecture
from gl_jax.weights.convention import ENCODINGS, Encoding
from gl_jax.weights.native import Model


def load(
    config: Config,
    completion: AnyArchitecture,
    discriminator: AnyArchitecture | None,
    experiment: Experiment | None = None,
    encoding: Encoding | None = None,
) -> Model | None:
    """The model named by `run.initial_weights`; None where the run begins at random.

    The architectures are those of the run, its `experiment` builds them where they are
    not ours; the `encoding` is by default that of the configuration. Raises UsageError
    for a file that is none of ours, or has another architecture or encoding.
    """
    name = config.run.initial_weights
    if name is None:
        return None
    holder = f"run.initial_weights (={name})"
    try:
        model = native.load(native.shipped().get(name, name), experiment)
    except UsageError as error:
        raise UsageError(f"run.initial_weights: {error}") from error
    _require_same(
        f"{holder} has a completion network with", model.architecture, completion
    )
    encoding = encoding or ENCODINGS[config.data.encoding]
    if model.convention != encoding.completion(model.mean_color):
        fitting = [
            f"Give --data.encoding {name}."
            for name, other in ENCODINGS.items()
            if model.convention == other.completion(model.mean_color)
        ]
        raise UsageError(
            f"{holder} sees photographs in another encoding than data.encoding "
            f"(={config.data.encoding!r}). {''.join(fitting[:1])}".rstrip()
        )
    color = config.data.mean_color
    if color not in (None, model.mean_color):
        raise UsageError(
            f"data.mean_color (={color}) is not the colour that {holder} was trained with, "
            f"{model.mean_color}. Leave it out."
        )
    if model.discriminator is not None and discriminator is not None:
        _require_same(
            f"{holder} has discriminators with",
            model.discriminator.architecture,
            discriminator,
        )
    return model


def begin_with(state: TrainState, model: Model) -> TrainState:
    """A new run's state with the model's networks in it; its optimizers are left new.

    A network that the model does not have stays as it is.
    """
    variables = _whole(model.variables)
    if state.ema is not None:
        state = replace(state, ema=jax.tree.map(jnp.copy, variables))
    state = replace(state, completion=_with(state.completion, variables))
    if state.discriminator is not None and model.discriminator is not None:
        variables = _whole(model.discriminator.variables)
        state = replace(state, discriminator=_with(state.discriminator, variables))
    return state


def _whole(variables: dict[str, Any]) -> dict[str, Any]:
    """The variables on the device; without batch normalisation there are no statistics."""
    return jax.tree.map(jnp.asarray, {"batch_stats": {}} | variables)


def _with(net: NetState, variables: dict[str, Any]) -> NetState:
    return replace(
        net, params=variables["params"], batch_stats=variables["batch_stats"]
    )


def _require_same(holder: str, found: AnyArchitecture, wanted: AnyArchitecture) -> None:
    """Refuses an architecture that differs from the run's, saying in what."""
    if isinstance(found, OwnArchitecture) and isinstance(wanted, OwnArchitecture):
        # The numbers of the two runs may differ in much that is no network's.
        if found.module == wanted.module and found.shapes() == wanted.shapes():
            return
        raise UsageError(
            f"{holder} the module {found.module} of {found.experiment} or other sizes "
            f"than the run's {wanted.module} of {wanted.experiment}."
        )
    if type(found) is not type(wanted):
        raise UsageError(
            f"{holder} the module {found.module}, the run has {wanted.module}."
        )
    differing = [
        f"{name} {value}, the run has {getattr(wanted, name)}"
        for name, value in vars(found).items()
        if value != getattr(wanted, name)
    ]
    if differing:
        raise UsageError(f"{holder} {'; '.join(differing)}. Give the same values.")
