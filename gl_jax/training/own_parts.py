"""The parts of a run from its experiment file, checked before compilation."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gl_jax.config import GREY, Config, UsageError
from gl_jax.experiment import Experiment
from gl_jax.holes import Holes
from gl_jax.training.parts import Parts, default_parts
from gl_jax.training.state import state_shapes
from gl_jax.training.steps import make_steps

COUNT = 2
"""Images in the batch used to trace the parts."""


def parts_of(config: Config, experiment: Experiment | None = None) -> Parts:
    """Returns the parts of the experiment's `parts(config)`, else the paper's.

    Raises UsageError, which names the file, if they do not fit together. The steps of
    all phases are traced, so that none fails after days of the phase before it; nothing
    is compiled.
    """
    if experiment is None or experiment.make_parts is None:
        parts = default_parts(config)
        _require_steps(parts, config, config.name)
        return parts
    parts = experiment.parts(config)
    prefix = f"{experiment.file}: parts(config)"
    if not isinstance(parts, Parts):
        raise UsageError(
            f"{prefix} returned {_kind(parts)} but must return gl_jax.training.Parts."
        )
    for role in ("completion", "discriminator"):
        network = getattr(parts, role)
        if not isinstance(network, nn.Module | None) or (
            network is None and role == "completion"
        ):
            raise UsageError(
                f"{prefix} has {_kind(network)} as its {role} network but must have a Flax "
                "module (flax.linen.Module)."
            )
    _require_shapes(parts, config, prefix)
    _require_steps(parts, config, prefix)
    return parts


def _require_shapes(parts: Parts, config: Config, prefix: str) -> None:
    """Raises UsageError if outputs of holes, networks or views have wrong shapes or types."""
    size = config.data.image_size
    images = jnp.zeros((COUNT, size, size, 3))
    with jax.ensure_compile_time_eval():
        keys = jax.random.split(jax.random.key(0), COUNT)
    holes = _traced(
        f"{prefix}: sample_holes(keys, (height, width), batch_key)",
        lambda: parts.sample_holes(keys, (size, size), keys[0]),
    )
    expected = jax.eval_shape(
        lambda: Holes(jnp.zeros((COUNT, size, size, 1)), jnp.zeros((COUNT, 2), int))
    )
    if not _alike(holes, expected):
        raise UsageError(
            f"{prefix}: sample_holes returned {_kind(holes)} but must return Holes of a "
            f"mask {_shape(expected.mask)} and a corner {_shape(expected.corner)}."
        )
    inputs = _traced(
        f"{prefix}: sample_codes(keys)",
        lambda: parts.inputs(keys, images, jnp.zeros((COUNT, size, size, 1)), GREY),
    )
    completed = _traced(
        f"{prefix}: the completion network",
        lambda: _outputs(parts.completion, jnp.zeros(inputs.shape)),
    )
    if not _alike(completed, jax.eval_shape(lambda: images)):
        raise UsageError(
            f"{prefix}: the completion network {type(parts.completion).__name__} returned "
            f"{_kind(completed)} for inputs {_shape(inputs)} but must return images "
            f"{_shape(images)}."
        )
    if parts.adaptive is not None and parts.augment is None:
        raise UsageError(
            f"{prefix} has adaptive but no augment: there is no probability to adapt."
        )
    if parts.discriminator is None:
        return
    drawn = Holes(jnp.zeros((COUNT, size, size, 1)), jnp.zeros((COUNT, 2), jnp.int32))
    views = {}
    for name, view in parts.views.items():
        views[name] = output = _traced(
            f"{prefix}: the view {name!r} of images {_shape(images)}",
            partial(view, images, drawn),
        )
        shape: tuple[int, ...] = getattr(output, "shape", ())
        if len(shape) != 4 or shape[0] != COUNT or 0 in shape:
            raise UsageError(
                f"{prefix}: the view {name!r} returned {_kind(output)} for images "
                f"{_shape(images)} but must return a part inside them, "
                f"float32[{COUNT},height,width,channels]."
            )
    logits = _traced(
        f"{prefix}: the discriminator",
        lambda: _outputs(
            parts.discriminator, jax.tree.map(lambda x: jnp.zeros(x.shape), views)
        ),
    )
    if not _alike(logits, jax.eval_shape(lambda: jnp.zeros(COUNT))):
        raise UsageError(
            f"{prefix}: the discriminator {type(parts.discriminator).__name__} returned "
            f"{_kind(logits)} for {COUNT} images but must return one logit each, "
            f"float32[{COUNT}]."
        )
    _require_changes(parts, views, keys, prefix)


def _require_changes(parts: Parts, views: Any, keys: Any, prefix: str) -> None:
    """Raises UsageError if augment changes shapes or types, or a penalty is not a number."""
    zeros = jax.tree.map(lambda view: jnp.zeros(view.shape, view.dtype), views)
    augment, penalty = parts.augment, parts.objective.penalty
    if augment is not None:
        changed = _traced(
            f"{prefix}: augment(keys, views, step, probability)",
            lambda: dict(augment(keys, zeros, jnp.zeros((), jnp.int32), jnp.ones(()))),
        )
        if not _alike(changed, views):
            raise UsageError(
                f"{prefix}: augment returned {_named(changed)} for views {_named(views)} "
                "but must return the same names, shapes and types."
            )
    if penalty is not None:
        value = _traced(
            f"{prefix}: objective.penalty(logits_of, real_views, fake_views, keys)",
            lambda: penalty(partial(_outputs, parts.discriminator), zeros, zeros, keys),
        )
        if not _alike(value, jax.eval_shape(lambda: jnp.zeros(()))):
            raise UsageError(
                f"{prefix}: objective.penalty returned {_kind(value)} but must return one "
                "number, float32[]."
            )


def _require_steps(parts: Parts, config: Config, prefix: str) -> None:
    """Raises UsageError if a step cannot be traced with the losses and optimizers."""
    size, total = config.data.image_size, config.schedule.total_steps
    reached = {config.update_at(step) for step in _firsts(config) if step < total}
    state = _traced(f"{prefix}: the state", lambda: state_shapes(parts, size))
    images = jax.ShapeDtypeStruct((COUNT, size, size, 3), np.uint8)
    key = jax.eval_shape(lambda: jax.random.key(0))
    for phase, step in make_steps(parts, (0.5, 0.5, 0.5)).items():
        if phase not in reached:
            continue
        try:
            jax.eval_shape(step, state, images, key)
        except Exception as error:
            raise UsageError(
                f"{prefix}: the {phase} step fails: {_reason(error)}"
            ) from error


def _firsts(config: Config) -> tuple[int, ...]:
    """Returns the completed steps before the first update of each kind."""
    schedule = config.schedule
    joint = schedule.completion_steps + schedule.discriminator_steps
    last_of_cycle = joint + schedule.discriminator_updates - 1
    return 0, schedule.completion_steps, joint, last_of_cycle


def _outputs(network: Any, inputs: Any) -> Any:
    variables = network.init(jax.random.key(0), inputs, train=False)
    return network.apply(variables, inputs, train=True, mutable=["batch_stats"])[0]


def _traced(label: str, function: Callable[[], Any]) -> Any:
    """Returns the output shapes of a user's function; raises UsageError if it fails."""
    try:
        return jax.eval_shape(function)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"{label} fails: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"


def _alike(actual: Any, expected: Any) -> bool:
    """Returns whether two trees have the same structure, shapes and types."""
    leaves, others = jax.tree.leaves(actual), jax.tree.leaves(expected)
    if str(jax.tree.structure(actual)) != str(jax.tree.structure(expected)):
        return False
    pairs = zip(leaves, others, strict=True)
    return all(
        one.shape == other.shape
        and (one.dtype == other.dtype or jnp.issubdtype(one.dtype, jnp.integer))
        for one, other in pairs
    )


def _shape(array: Any) -> str:
    sides = ",".join(map(str, array.shape))
    return f"{array.dtype}[{sides}]"


def _named(views: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_kind(view)}" for name, view in views.items())


def _kind(value: Any) -> str:
    """Describes a value: an array by type and shape, anything else by its type."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return _shape(value)
    if isinstance(value, tuple | list | dict):
        leaves = value.values() if isinstance(value, dict) else value
        return f"{type(value).__name__} of {', '.join(map(_kind, leaves)) or 'nothing'}"
    return "None" if value is None else f"{type(value).__name__} ({value!r:.60})"
