"""The parts of a run as values: networks, views, objective, augmentation, optimizers.

`default_parts(config)` are the paper's. An experiment may replace any of them:

    parts = dataclasses.replace(default_parts(config), completion=UNet())

Nothing behind this file asks which they are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from gl_jax import compilation
from gl_jax.config import Config, LossConfig
from gl_jax.holes import Holes, Images, crop, sample_holes
from gl_jax.models.completion import CompletionNetwork
from gl_jax.models.discriminators import ContextDiscriminator
from gl_jax.models.ops import Ops
from gl_jax.training.augment import Augment, normal_noise
from gl_jax.training.objectives import (
    Objective,
    Term,
    adversarial_loss,
    completion_loss,
    structure_loss,
)
from gl_jax.training.optimizers import create_optimizer

View = Callable[[Images, Holes], Array]
SampleHoles = Callable[[Key[Array, " b"], tuple[int, ...]], Holes]


class Optimizers(NamedTuple):
    """The optimizer of each network, counting that network's own updates."""

    completion: optax.GradientTransformation
    discriminator: optax.GradientTransformation


@dataclass(frozen=True)
class Parts:
    """All that a run is made of, besides its numbers and its photographs.

    A network that normalises over the batch has a field `axis_name`, as Flax's BatchNorm
    has; the run sets it to share the statistics over devices.
    """

    completion: nn.Module
    """(inputs [b, h, w, 4] of `holes.network_input`, train) -> images [b, h, w, 3]."""
    discriminator: nn.Module | None
    """(views, train) -> logits [b]; None trains with the completion loss alone."""
    views: Mapping[str, View]
    """The discriminator's views, by name: (images, holes) -> a part of the images.
    Of photographs the holes are others, drawn for them as places to look at."""
    objective: Objective
    optimizers: Optimizers
    sample_holes: SampleHoles
    """(a key for each image, (height, width)) -> a hole and a window for each."""
    augment: Augment | None = None
    """(a key for each image, images, step) -> images, before the views are cut out."""

    def example_inputs(self, image_size: int) -> tuple[Array, dict[str, Array]]:
        """Zeros in the shapes that the two networks are shown: inputs, and views."""
        shape = (1, image_size, image_size)
        images, mask = jnp.zeros((*shape, 3)), jnp.zeros((*shape, 1))
        holes = Holes(mask, jnp.zeros((1, 2), jnp.int32))
        views = {name: view(images, holes) for name, view in self.views.items()}
        return jnp.concatenate([images, mask], axis=-1), views


def whole(images: Images, holes: Holes) -> Images:
    """The view of the global discriminator: the images as they are."""
    del holes
    return images


def window(size: int) -> View:
    """The view of the local discriminator: a square of `size` pixels around the hole."""
    return lambda images, holes: crop(images, holes.corner, size)


def default_parts(config: Config, *, ops: Ops | None = None) -> Parts:
    """The paper's parts with the numbers of `config`.

    The networks are built of `ops`, by default those for the platform that JAX runs on.
    """
    ops = compilation.ops() if ops is None else ops
    model, holes = config.model, config.holes
    common: dict[str, Any] = {
        "width": model.width,
        "norm_order": model.norm_order,
        "dtype": jnp.dtype(model.compute_dtype),
        "momentum": model.batch_norm_momentum,
        "rematerialize": model.rematerialize,
        "ops": ops,
    }
    views: dict[str, View] = {"local": window(holes.local_size), "global": whole}
    if model.discriminators != "both":
        views = {name: views[name] for name in views if name == model.discriminators}
    return Parts(
        completion=CompletionNetwork(
            output_activation=model.output_activation, **common
        ),
        discriminator=ContextDiscriminator(tuple(views), **common) if views else None,
        views=views,
        objective=_objective(config.loss),
        optimizers=_optimizers(config),
        sample_holes=partial(
            sample_holes,
            min_size=holes.min_size,
            max_size=holes.max_size,
            local_size=holes.local_size,
        ),
        augment=_noise(config),
    )


def _objective(loss: LossConfig) -> Objective:
    squared = partial(completion_loss, normalizer=loss.normalizer)
    terms = {"completion_loss": Term(squared)}
    if loss.structure_weight > 0:
        terms["structure_loss"] = Term(structure_loss, loss.structure_weight)
    return Objective(
        completion=terms,
        adversarial=partial(adversarial_loss, kind=loss.adversarial),
        discriminator_weight=loss.discriminator_weight,
        alpha=loss.alpha,
        ratio=loss.adversarial_ratio,
    )


def _noise(config: Config) -> Augment | None:
    """Noise whose deviation falls over the joint phase; its end comes with the last step."""
    start, end = config.loss.discriminator_noise, config.loss.discriminator_noise_end
    if start == 0:
        return None
    if end is None:
        return normal_noise(optax.constant_schedule(start))
    first = config.schedule.completion_steps + config.schedule.discriminator_steps
    return normal_noise(
        optax.exponential_decay(
            start,
            transition_steps=max(config.schedule.total_steps - first, 1),
            decay_rate=end / start,
            transition_begin=first,
        )
    )


def _optimizers(config: Config) -> Optimizers:
    schedule = config.schedule
    total = schedule.total_steps
    first = min(schedule.completion_steps, total)
    second = min(schedule.discriminator_steps, total - first)
    joint = total - first - second
    if config.model.discriminators == "none":
        first, second, joint = total, 0, 0
    return Optimizers(
        create_optimizer(config.completion_optimizer, first + joint, joint),
        create_optimizer(config.discriminator_optimizer, second + joint, joint),
    )
