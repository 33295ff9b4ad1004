"""Initial weights of a run from a file, for fine-tuning."""

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
    """Loads the model named by `run.initial_weights`; returns None if it is None.

    `completion` and `discriminator` are the run's architectures. `experiment` builds
    networks that are not gl_jax's own. `encoding` is by default that of the config.
    Raises UsageError if the file is not a weights file of gl_jax, or has another
    architecture or encoding.
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
            f"{holder} has another encoding of photographs than data.encoding "
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
    """Returns a new run's state with the model's networks.

    The optimizers' states stay new, as do networks that the model does not have.
    """
    variables = _on_device(model.variables)
    if state.ema is not None:
        state = replace(state, ema=jax.tree.map(jnp.copy, variables))
    state = replace(state, completion=_with(state.completion, variables))
    if state.discriminator is not None and model.discriminator is not None:
        variables = _on_device(model.discriminator.variables)
        state = replace(state, discriminator=_with(state.discriminator, variables))
    return state


def _on_device(variables: dict[str, Any]) -> dict[str, Any]:
    """Copies the variables to the device; adds empty statistics if there are none."""
    return jax.tree.map(jnp.asarray, {"batch_stats": {}} | variables)


def _with(net: NetState, variables: dict[str, Any]) -> NetState:
    return replace(
        net, params=variables["params"], batch_stats=variables["batch_stats"]
    )


def _require_same(holder: str, theirs: AnyArchitecture, ours: AnyArchitecture) -> None:
    """Raises UsageError with the differences of a file's architecture from the run's."""
    if isinstance(theirs, OwnArchitecture) and isinstance(ours, OwnArchitecture):
        # The configs may differ in numbers that do not concern the network.
        if theirs.module == ours.module and theirs.shapes() == ours.shapes():
            return
        raise UsageError(
            f"{holder} the module {theirs.module} of {theirs.experiment} or other sizes "
            f"than the run's {ours.module} of {ours.experiment}."
        )
    if type(theirs) is not type(ours):
        raise UsageError(
            f"{holder} the module {theirs.module}, but the run has {ours.module}."
        )
    differing = [
        f"{name} {value}, but the run has {getattr(ours, name)}"
        for name, value in vars(theirs).items()
        if value != getattr(ours, name)
    ]
    if differing:
        raise UsageError(f"{holder} {'; '.join(differing)}. Give the same values.")
