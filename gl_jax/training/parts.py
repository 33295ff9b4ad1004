"""The parts of a run as values: networks, views, objective, augmentation, optimizers.

`default_parts(config)` returns the paper's. An experiment may replace any of them:

    parts = dataclasses.replace(default_parts(config), completion=UNet())

The steps treat all parts alike.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from gl_jax import compilation
from gl_jax.config import AugmentConfig, Config, LossConfig
from gl_jax.holes import Holes, Images, Mask, composite, crop, sample_holes
from gl_jax.models.completion import CompletionNetwork
from gl_jax.models.discriminators import ContextDiscriminator
from gl_jax.models.ops import Ops
from gl_jax.training import augment, penalties
from gl_jax.training.augment import Adaptive, Augment, Noise, normal_noise
from gl_jax.training.objectives import (
    GAMES,
    Objective,
    Term,
    absolute_loss,
    completion_loss,
    feature_loss,
    structure_loss,
)
from gl_jax.training.optimizers import create_optimizer, learning_rate
from gl_jax.weights.convention import ENCODINGS, Color, Encoding

View = Callable[[Images, Holes], Array]
SampleHoles = Callable[[Key[Array, " b"], tuple[int, ...], Key[Array, ""]], Holes]
Fakes = Callable[[Images, Images, Mask], Images]
SampleCodes = Callable[[Key[Array, " b"]], Array]


class Optimizers(NamedTuple):
    """The optimizer of each network; its schedules count that network's own updates."""

    completion: optax.GradientTransformation
    discriminator: optax.GradientTransformation


@dataclass(frozen=True)
class Parts:
    """Networks, losses and functions of a run.

    A network with batch normalisation has a field `axis_name`, like Flax's BatchNorm;
    the run sets it to share the statistics over devices.
    """

    completion: nn.Module
    """(inputs [b, h, w, 4], train) -> images [b, h, w, 3], both in the `encoding`."""
    discriminator: nn.Module | None
    """(views, train) -> logits [b]; None trains with the completion loss alone."""
    views: Mapping[str, View]
    """The discriminator's views, by name: (images, holes) -> a part of the images.
    For real photographs, separate random holes give the place of the window, unless
    `paired_windows` is set."""
    objective: Objective
    optimizers: Optimizers
    sample_holes: SampleHoles
    """(a key for each image, (height, width), a key for the batch) -> Holes."""
    noise: Noise | None = None
    """(a key for each image, images, step) -> images; applied before cutting the views."""
    augment: Augment | None = None
    """(a key for each image, views, step, probability) -> views; see `augment`."""
    adaptive: Adaptive | None = None
    """The controller of the augmentation's probability, which is 1 without it."""
    paired_windows: bool = False
    """If set, real photographs are viewed at the windows of their own holes."""
    encoding: Encoding = ENCODINGS["centred"]
    """The encoding of both networks' images; all other functions get RGB in [0, 1]."""
    fakes: Fakes = composite
    """(completed, images, mask) -> the discriminators' fake images."""
    sample_codes: SampleCodes | None = None
    """(a key for each image) -> codes [b, n], the inputs of the completion network instead
    of photographs: it is then the generator of an unconditional GAN."""

    def inputs(
        self, keys: Key[Array, " b"], images: Images, mask: Mask, mean_color: Color
    ) -> Array:
        """Returns the completion network's inputs: filled photographs with masks, or codes."""
        if self.sample_codes is not None:
            return self.sample_codes(keys)
        return jnp.asarray(self.encoding.completion(mean_color).encode(images, mask))

    def example_inputs(self, image_size: int) -> tuple[Array, dict[str, Array]]:
        """Returns zeros in the shapes of both networks' inputs: (inputs, views)."""
        shape = (1, image_size, image_size)
        images, mask = jnp.zeros((*shape, 3)), jnp.zeros((*shape, 1))
        holes = Holes(mask, jnp.zeros((1, 2), jnp.int32))
        views = {name: view(images, holes) for name, view in self.views.items()}
        keys = jax.random.split(jax.random.key(0), 1)
        return self.inputs(keys, images, mask, (0.0, 0.0, 0.0)), views


def whole(images: Images, holes: Holes) -> Images:
    """Returns the global discriminator's view: the whole images."""
    del holes
    return images


def window(size: int) -> View:
    """Returns the local discriminator's view: a square of `size` pixels around the hole."""
    return lambda images, holes: crop(images, holes.corner, size)


def default_parts(config: Config, *, ops: Ops | None = None) -> Parts:
    """Returns the paper's parts with the numbers of `config`.

    `ops` are the networks' operations, by default those for JAX's current platform.
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
    discriminator_common = common | {"spectral_norm": model.spectral_norm}
    if model.discriminator_norm == "none":
        discriminator_common["norm_order"] = "none"
    views: dict[str, View] = {"local": window(holes.local_size), "global": whole}
    if model.discriminators != "both":
        views = {name: views[name] for name in views if name == model.discriminators}
    return Parts(
        completion=CompletionNetwork(
            output_activation=model.output_activation, **common
        ),
        discriminator=ContextDiscriminator(tuple(views), **discriminator_common)
        if views
        else None,
        views=views,
        objective=_objective(config.loss),
        optimizers=_optimizers(config),
        sample_holes=partial(
            sample_holes,
            min_size=holes.min_size,
            max_size=holes.max_size,
            local_size=holes.local_size,
            max_count=holes.max_count,
            shared_window=holes.shared_window,
            strokes=holes.strokes,
        ),
        paired_windows=holes.paired_windows,
        encoding=ENCODINGS[config.data.encoding],
        noise=_noise(config),
        augment=_augment(config.augment),
        adaptive=_adaptive(config.augment),
        fakes=composite if config.loss.fakes == "composite" else _raw,
    )


def _objective(loss: LossConfig) -> Objective:
    errors = {"squared": completion_loss, "absolute": absolute_loss}
    over_holes = loss.normalizer == "batch"
    error = partial(
        errors[loss.completion],
        normalizer="image" if loss.normalizer == "batch" else loss.normalizer,
    )
    terms = {"completion_loss": Term(error, loss.completion_weight, over_holes)}
    if loss.structure_weight > 0:
        terms["structure_loss"] = Term(structure_loss, loss.structure_weight)
    weights = {
        penalties.r1: loss.r1,
        penalties.r2: loss.r2,
        penalties.gradient_penalty: loss.gradient_penalty,
    }
    penalty = penalties.total(*(make(w) for make, w in weights.items() if w > 0))
    game = GAMES[loss.adversarial]
    return Objective(
        completion=terms,
        discriminator=game.discriminator,
        adversarial=game.adversarial,
        relativistic=game.relativistic,
        discriminator_weight=loss.discriminator_weight,
        joint_discriminator_weight=loss.joint_discriminator_weight,
        joint_completion_weight=loss.joint_completion_weight,
        alpha=loss.alpha,
        ratio=loss.adversarial_ratio,
        penalty=penalty,
        penalty_every=loss.penalty_every,
        matching=feature_loss if loss.feature_weight > 0 else None,
        matching_weight=loss.feature_weight,
    )


def _augment(settings: AugmentConfig) -> Augment | None:
    """Returns colour, translation and cutout, in DiffAugment's order."""
    augments: list[Augment] = []
    if settings.color:
        augments.append(augment.color)
    if settings.translation > 0:
        augments.append(augment.translation(settings.translation))
    if settings.cutout > 0:
        augments.append(augment.cutout(settings.cutout))
    return augment.chain(*augments)


def _adaptive(settings: AugmentConfig) -> Adaptive | None:
    if settings.adaptive_target is None:
        return None
    return Adaptive(settings.adaptive_target, settings.adaptive_images)


def _raw(completed: Images, images: Images, mask: Mask) -> Images:
    """Returns the completion network's output, including the known pixels."""
    del images, mask
    return completed


def _noise(config: Config) -> Noise | None:
    """Returns noise whose deviation falls over the joint phase, until the last step."""
    if config.loss.discriminator_noise == 0:
        return None
    return normal_noise(_deviation(config))


def _deviation(config: Config) -> optax.Schedule:
    """Returns the noise's standard deviation as a function of the step."""
    start, end = config.loss.discriminator_noise, config.loss.discriminator_noise_end
    if start == 0 or end is None:
        return optax.constant_schedule(start)
    first = config.schedule.completion_steps + config.schedule.discriminator_steps
    return optax.exponential_decay(
        start,
        transition_steps=max(config.schedule.total_steps - first, 1),
        decay_rate=end / start,
        transition_begin=first,
    )


def _optimizers(config: Config) -> Optimizers:
    settings = config.completion_optimizer, config.discriminator_optimizer
    updates = _updates(config, config.schedule.total_steps)
    return Optimizers(*map(create_optimizer, settings, *zip(*updates, strict=True)))


def falling(config: Config, step: int) -> dict[str, float]:
    """Returns the noise and learning rates of the last update before `step`, by name."""
    values = {"discriminator noise": float(_deviation(config)(max(step - 1, 0)))}
    total = config.schedule.total_steps
    for role, (updates, joint), (done, _) in zip(
        ("completion", "discriminator"),
        _updates(config, total),
        _updates(config, step),
        strict=True,
    ):
        rate = learning_rate(getattr(config, f"{role}_optimizer"), updates, joint)
        values[f"learning rate of {role}_optimizer"] = float(rate(max(done - 1, 0)))
    return values


def _updates(config: Config, total: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns (updates, joint updates) of each network in `total` steps."""
    schedule = config.schedule
    first = min(schedule.completion_steps, total)
    second = min(schedule.discriminator_steps, total - first)
    joint = total - first - second
    if config.model.discriminators == "none":
        first, second, joint = total, 0, 0
    completing = joint // schedule.discriminator_updates
    return (first + completing, completing), (second + joint, joint)
