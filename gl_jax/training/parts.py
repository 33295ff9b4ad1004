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
    """(inputs [b, h, w, 4] in the `encoding`, train) -> images [b, h, w, 3] in it."""
    discriminator: nn.Module | None
    """(views, train) -> logits [b]; None trains with the completion loss alone."""
    views: Mapping[str, View]
    """The discriminator's views, by name: (images, holes) -> a part of the images.
    Of photographs the holes are others, drawn for them as places to look at, unless
    there are `paired_windows`."""
    objective: Objective
    optimizers: Optimizers
    sample_holes: SampleHoles
    """(a key for each image, (height, width), a key of the batch) -> Holes."""
    noise: Noise | None = None
    """(a key for each image, images, step) -> images, before the views are cut out."""
    augment: Augment | None = None
    """(a key for each image, views, step, probability) -> views; see `augment`."""
    adaptive: Adaptive | None = None
    """The controller of the augmentation's probability; without one it is 1."""
    paired_windows: bool = False
    """The discriminator's views of photographs are those of their own holes."""
    encoding: Encoding = ENCODINGS["centred"]
    """How both networks see images; losses and all else see RGB in [0, 1]."""
    fakes: Fakes = composite
    """(completed, images, mask) -> the images that the discriminators take for fakes."""
    sample_codes: SampleCodes | None = None
    """(a key for each image) -> codes [b, n], which the completion network is then given
    instead of photographs: it is the generator of an unconditional GAN."""

    def inputs(
        self, keys: Key[Array, " b"], images: Images, mask: Mask, mean_color: Color
    ) -> Array:
        """The completion network's inputs: the filled photographs with their mask, or codes."""
        if self.sample_codes is not None:
            return self.sample_codes(keys)
        return jnp.asarray(self.encoding.completion(mean_color).encode(images, mask))

    def example_inputs(self, image_size: int) -> tuple[Array, dict[str, Array]]:
        """Zeros in the shapes that the two networks are shown: inputs, and views."""
        shape = (1, image_size, image_size)
        images, mask = jnp.zeros((*shape, 3)), jnp.zeros((*shape, 1))
        holes = Holes(mask, jnp.zeros((1, 2), jnp.int32))
        views = {name: view(images, holes) for name, view in self.views.items()}
        keys = jax.random.split(jax.random.key(0), 1)
        return self.inputs(keys, images, mask, (0.0, 0.0, 0.0)), views


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
    of_discriminators = common | {"spectral_norm": model.spectral_norm}
    if model.discriminator_norm == "none":
        of_discriminators["norm_order"] = "none"
    views: dict[str, View] = {"local": window(holes.local_size), "global": whole}
    if model.discriminators != "both":
        views = {name: views[name] for name in views if name == model.discriminators}
    return Parts(
        completion=CompletionNetwork(
            output_activation=model.output_activation, **common
        ),
        discriminator=ContextDiscriminator(tuple(views), **of_discriminators)
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


def _augment(chosen: AugmentConfig) -> Augment | None:
    """Colour, translation, cutout: DiffAugment's order."""
    augments: list[Augment] = []
    if chosen.color:
        augments.append(augment.color)
    if chosen.translation > 0:
        augments.append(augment.translation(chosen.translation))
    if chosen.cutout > 0:
        augments.append(augment.cutout(chosen.cutout))
    return augment.chain(*augments)


def _adaptive(chosen: AugmentConfig) -> Adaptive | None:
    if chosen.adaptive_target is None:
        return None
    return Adaptive(chosen.adaptive_target, chosen.adaptive_images)


def _raw(completed: Images, images: Images, mask: Mask) -> Images:
    """The completion network's whole output, known pixels included."""
    del images, mask
    return completed


def _noise(config: Config) -> Noise | None:
    """Noise whose deviation falls over the joint phase; its end comes with the last step."""
    if config.loss.discriminator_noise == 0:
        return None
    return normal_noise(_deviation(config))


def _deviation(config: Config) -> optax.Schedule:
    """The noise's standard deviation over the steps of a run."""
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
    chosen = config.completion_optimizer, config.discriminator_optimizer
    updates = _updates(config, config.schedule.total_steps)
    return Optimizers(*map(create_optimizer, chosen, *zip(*updates, strict=True)))


def falling(config: Config, step: int) -> dict[str, float]:
    """The numbers that may fall over a run, as its last update until `step` had them."""
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
    """Updates of each network in `total` steps, and how many of them are joint ones."""
    schedule = config.schedule
    first = min(schedule.completion_steps, total)
    second = min(schedule.discriminator_steps, total - first)
    joint = total - first - second
    if config.model.discriminators == "none":
        first, second, joint = total, 0, 0
    completing = joint // schedule.discriminator_updates
    return (first + completing, completing), (second + joint, joint)
