"""The parts of a run from its experiment file, checked before anything is compiled."""

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
"""Images of the batch that the parts are traced with."""


def parts_of(config: Config, experiment: Experiment | None = None) -> Parts:
    """The run's parts: those of its experiment's `parts(config)`, else the paper's.

    Raises UsageError, one line that names the file, if they do not fit together: nothing
    is compiled or computed to find out. The steps of all phases are traced, so that none
    fails after days of the phase before it.
    """
    if experiment is None or experiment.make_parts is None:
        parts = default_parts(config)
        _require_steps(parts, config, config.name)
        return parts
    parts = experiment.parts(config)
    say = f"{experiment.file}: parts(config)"
    if not isinstance(parts, Parts):
        raise UsageError(
            f"{say} returned {_kind(parts)} and must return gl_jax.training.Parts."
        )
    for role in ("completion", "discriminator"):
        network = getattr(parts, role)
        if not isinstance(network, nn.Module | None) or (
            network is None and role == "completion"
        ):
            raise UsageError(
                f"{say} has {_kind(network)} as its {role} network and must have a Flax "
                "module (flax.linen.Module)."
            )
    _require_shapes(parts, config, say)
    _require_steps(parts, config, say)
    return parts


def _require_shapes(parts: Parts, config: Config, say: str) -> None:
    """Refuses networks and views whose outputs have other shapes or types than is asked."""
    size = config.data.image_size
    images = jnp.zeros((COUNT, size, size, 3))
    with jax.ensure_compile_time_eval():
        keys = jax.random.split(jax.random.key(0), COUNT)
    holes = _traced(
        f"{say}: sample_holes(keys, (height, width), batch_key)",
        lambda: parts.sample_holes(keys, (size, size), keys[0]),
    )
    wanted = jax.eval_shape(
        lambda: Holes(jnp.zeros((COUNT, size, size, 1)), jnp.zeros((COUNT, 2), int))
    )
    if not _alike(holes, wanted):
        raise UsageError(
            f"{say}: sample_holes returned {_kind(holes)} and must return Holes of a "
            f"mask {_shape(wanted.mask)} and a corner {_shape(wanted.corner)}."
        )
    inputs = _traced(
        f"{say}: sample_codes(keys)",
        lambda: parts.inputs(keys, images, jnp.zeros((COUNT, size, size, 1)), GREY),
    )
    completed = _traced(
        f"{say}: the completion network",
        lambda: _outputs(parts.completion, jnp.zeros(inputs.shape)),
    )
    if not _alike(completed, jax.eval_shape(lambda: images)):
        raise UsageError(
            f"{say}: the completion network {type(parts.completion).__name__} returned "
            f"{_kind(completed)} of inputs {_shape(inputs)} and must return images "
            f"{_shape(images)}."
        )
    if parts.adaptive is not None and parts.augment is None:
        raise UsageError(
            f"{say} has adaptive and no augment: there is nothing whose probability it "
            "would lead."
        )
    if parts.discriminator is None:
        return
    drawn = Holes(jnp.zeros((COUNT, size, size, 1)), jnp.zeros((COUNT, 2), jnp.int32))
    views = {}
    for name, view in parts.views.items():
        views[name] = seen = _traced(
            f"{say}: the view {name!r} of images {_shape(images)}",
            partial(view, images, drawn),
        )
        shape: tuple[int, ...] = getattr(seen, "shape", ())
        if len(shape) != 4 or shape[0] != COUNT or 0 in shape:
            raise UsageError(
                f"{say}: the view {name!r} returned {_kind(seen)} of images "
                f"{_shape(images)} and must return a part of them, "
                f"float32[{COUNT},height,width,channels], that lies inside."
            )
    logits = _traced(
        f"{say}: the discriminator",
        lambda: _outputs(
            parts.discriminator, jax.tree.map(lambda x: jnp.zeros(x.shape), views)
        ),
    )
    if not _alike(logits, jax.eval_shape(lambda: jnp.zeros(COUNT))):
        raise UsageError(
            f"{say}: the discriminator {type(parts.discriminator).__name__} returned "
            f"{_kind(logits)} for {COUNT} images and must return one logit each, "
            f"float32[{COUNT}]."
        )
    _require_changes(parts, views, keys, say)


def _require_changes(parts: Parts, views: Any, keys: Any, say: str) -> None:
    """Refuses an augmentation that changes more than values, and a penalty of no number."""
    seen = jax.tree.map(lambda view: jnp.zeros(view.shape, view.dtype), views)
    augment, penalty = parts.augment, parts.objective.penalty
    if augment is not None:
        changed = _traced(
            f"{say}: augment(keys, views, step, probability)",
            lambda: dict(augment(keys, seen, jnp.zeros((), jnp.int32), jnp.ones(()))),
        )
        if not _alike(changed, views):
            raise UsageError(
                f"{say}: augment returned {_named(changed)} of views {_named(views)} and "
                "must return the same names, shapes and types."
            )
    if penalty is not None:
        value = _traced(
            f"{say}: objective.penalty(logits_of, real_views, fake_views, keys)",
            lambda: penalty(partial(_outputs, parts.discriminator), seen, seen, keys),
        )
        if not _alike(value, jax.eval_shape(lambda: jnp.zeros(()))):
            raise UsageError(
                f"{say}: objective.penalty returned {_kind(value)} and must return one "
                "number, float32[]."
            )


def _require_steps(parts: Parts, config: Config, say: str) -> None:
    """Refuses parts whose steps cannot be traced: losses, penalties, optimizers."""
    size, total = config.data.image_size, config.schedule.total_steps
    reached = {config.update_at(step) for step in _firsts(config) if step < total}
    state = _traced(f"{say}: the state", lambda: state_shapes(parts, size))
    images = jax.ShapeDtypeStruct((COUNT, size, size, 3), np.uint8)
    key = jax.eval_shape(lambda: jax.random.key(0))
    for phase, step in make_steps(parts, (0.5, 0.5, 0.5)).items():
        if phase not in reached:
            continue
        try:
            jax.eval_shape(step, state, images, key)
        except Exception as error:
            raise UsageError(
                f"{say}: the {phase} step fails: {_reason(error)}"
            ) from error


def _firsts(config: Config) -> tuple[int, ...]:
    """Completed steps before the first update of each kind."""
    schedule = config.schedule
    joint = schedule.completion_steps + schedule.discriminator_steps
    last_of_cycle = joint + schedule.discriminator_updates - 1
    return 0, schedule.completion_steps, joint, last_of_cycle


def _outputs(network: Any, inputs: Any) -> Any:
    variables = network.init(jax.random.key(0), inputs, train=False)
    return network.apply(variables, inputs, train=True, mutable=["batch_stats"])[0]


def _traced(what: str, function: Callable[[], Any]) -> Any:
    """The shapes that a function of the user's returns; UsageError where it fails."""
    try:
        return jax.eval_shape(function)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"{what} fails: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"


def _alike(found: Any, wanted: Any) -> bool:
    """Returns whether two trees have the same structure, shapes and types."""
    leaves, others = jax.tree.leaves(found), jax.tree.leaves(wanted)
    if str(jax.tree.structure(found)) != str(jax.tree.structure(wanted)):
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
    """A value in a few words: an array by type and shape, anything else by its type."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return _shape(value)
    if isinstance(value, tuple | list | dict):
        leaves = value.values() if isinstance(value, dict) else value
        return f"{type(value).__name__} of {', '.join(map(_kind, leaves)) or 'nothing'}"
    return "None" if value is None else f"{type(value).__name__} ({value!r:.60})"
