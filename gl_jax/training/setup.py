"""A step's parts and numbers, and its random holes and keys."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from gl_jax.holes import (
    CODES,
    HOLES,
    NOISE,
    PENALTY,
    REAL_PATCHES,
    Holes,
    Images,
    batch_key,
    example_keys,
)
from gl_jax.parallel import axis_index, pmean
from gl_jax.training.parts import Parts
from gl_jax.training.state import TrainState
from gl_jax.weights.convention import Color

Batch = UInt8[Array, "b h w 3"]


@dataclass(frozen=True)
class Setup:
    """A step's parts and numbers, fixed for the whole run."""

    parts: Parts
    mean_color: Color
    accumulate: int = 1
    axis_name: str | None = None
    ema_decay: float | None = None
    ema_ramp: float | None = None


def set_up(
    parts: Parts,
    mean_color: Color,
    accumulate: int = 1,
    axis_name: str | None = None,
    ema_decay: float | None = None,
    ema_ramp: float | None = None,
) -> Setup:
    """Returns the setup, with the networks' batch statistics shared over the axis."""

    def shared(network: nn.Module | None) -> Any:
        if hasattr(network, "axis_name"):
            return network.clone(axis_name=axis_name)  # type: ignore[union-attr]
        return network

    parts = replace(
        parts,
        completion=shared(parts.completion),
        discriminator=shared(parts.discriminator),
    )
    return Setup(parts, mean_color, accumulate, axis_name, ema_decay, ema_ramp)


class Drawn(NamedTuple):
    """The holes of a step, given by the caller instead of drawn by the step."""

    holes: Holes
    """M_c: the hole of each photograph, and the window around it."""
    windows: Holes
    """M_d: the windows of the real photographs."""


class Examples(NamedTuple):
    """Photographs of a step with their holes and random keys."""

    images: Images
    holes: Holes
    windows: Holes
    augment: Key[Array, "b 3"]
    """Keys of the augmentation: of fakes and of photographs in the discriminators' update,
    and of the completion network's update."""
    penalty: Key[Array, " b"]
    codes: Key[Array, " b"]
    missing: Float[Array, " b"] | None
    """Missing fraction of the batch's pixels, the same number for each image; None if no
    term is `over_holes`."""


def examples_of(
    setup: Setup,
    state: TrainState,
    images: Batch,
    key: Key[Array, ""],
    drawn: Drawn | None,
) -> Examples:
    """Returns the photographs in [0, 1] with holes that depend on their batch index."""
    count, *shape, _ = images.shape
    key = jax.random.fold_in(key, state.step)
    first = axis_index(setup.axis_name) * count
    keys = partial(example_keys, key, first=first, count=count)
    if drawn is None:

        def sample(stream: int) -> Holes:
            common = batch_key(key, stream)
            return setup.parts.sample_holes(keys(stream=stream), tuple(shape), common)

        holes = sample(HOLES)
        paired = setup.parts.paired_windows
        drawn = Drawn(holes, holes if paired else sample(REAL_PATCHES))
    missing = None
    if any(term.over_holes for term in setup.parts.objective.completion.values()):
        share = pmean(jnp.mean(drawn.holes.mask), setup.axis_name)
        missing = jnp.broadcast_to(share, (count,))
    augment = jax.vmap(partial(jax.random.split, num=3))(keys(stream=NOISE))
    images = images.astype(jnp.float32) / 255
    drawn_later = keys(stream=PENALTY), keys(stream=CODES)
    return Examples(images, *drawn, augment, *drawn_later, missing)
