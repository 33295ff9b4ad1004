"""Augmentations in front of the discriminators: (keys, views, step, probability) -> views.

The same function is applied to the views of photographs and of completions, and C's
gradient passes through it. `keys` has a key for each image, so an image's augmentation
does not depend on the rest of the batch. `step` is the number of completed updates.
`probability` comes from `Adaptive`, or is 1. Views are a dictionary of float images
[b, h, w, c] in [0, 1]; outputs may leave that range, as in the papers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from gl_jax.holes import Images

Views = Mapping[str, Float[Array, "b _ _ _"]]
Keys = Key[Array, " b"]
Scalar = Float[Array, ""]
Augment = Callable[[Keys, Views, Int[Array, ""], Scalar], Views]
Noise = Callable[[Keys, Images, Int[Array, ""]], Images]
"""(keys, images, step) -> images; the views are cut from its output."""
Change = Callable[[Key[Array, ""], Float[Array, "h w c"]], Float[Array, "h w c"]]
"""A random change of one image: (key, image) -> image."""

GREY = 0.5
"""Colour of empty areas, in [0, 1]: 0 in the authors' range of [-1, 1]."""


def normal_noise(deviation: Callable[[Int[Array, ""]], Array | float]) -> Noise:
    """Returns a function that adds normal noise; its deviation depends on the step.

    With few photographs it keeps the discriminators from winning (Arjovsky and Bottou
    2017, "Towards Principled Methods for Training GANs", section 3).
    """

    def add(keys: Keys, images: Images, step: Int[Array, ""]) -> Images:
        draw = partial(jax.random.normal, shape=images.shape[1:], dtype=images.dtype)
        return images + deviation(step) * jax.vmap(draw)(keys)

    return add


def color(keys: Keys, views: Views, step: Int[Array, ""], probability: Scalar) -> Views:
    """Applies DiffAugment's random brightness, saturation and contrast to each image.

    Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training", with
    the ranges of the authors' code: brightness changes by up to a quarter of the range,
    saturation is multiplied by up to 2, contrast by 0.5 to 1.5. All views of an image get
    the same numbers. Contrast scales around each view's mean.
    """
    del step

    def changed(key: Key[Array, ""], image: Float[Array, "h w c"]) -> Array:
        brightness, saturation, contrast = jax.random.uniform(key, (3,))
        image = image + (brightness - 0.5) / 2
        grey = jnp.mean(image, axis=-1, keepdims=True)
        image = grey + 2 * saturation * (image - grey)
        mean = jnp.mean(image)
        return mean + (contrast + 0.5) * (image - mean)

    return _sometimes(keys, views, probability, changed, alike=True)


def translation(share: float) -> Augment:
    """Returns DiffAugment's translation by up to this fraction of the side.

    Each view has its own translation. The uncovered area is grey.
    """

    def moved(key: Key[Array, ""], image: Float[Array, "h w c"]) -> Array:
        height, width, channels = image.shape
        margins = [_length(side, share) for side in (height, width)]
        most = jnp.array(margins, jnp.int32)
        by = jax.random.randint(key, (2,), -most, most + 1)
        around = [*((margin, margin) for margin in margins), (0, 0)]
        padded = jnp.pad(image, around, constant_values=GREY)
        return jax.lax.dynamic_slice(
            padded, (*(most + by), jnp.zeros_like(most[0])), (height, width, channels)
        )

    return partial(_each_view, moved)


def cutout(share: float) -> Augment:
    """Returns DiffAugment's cutout: a grey square of this fraction of the side.

    Each view has its own. The centre may be anywhere in the view, so the square may
    extend beyond the edge.
    """

    def cut(key: Key[Array, ""], image: Float[Array, "h w c"]) -> Array:
        inside = []
        for side, place in zip(
            image.shape[:2], jax.random.uniform(key, (2,)), strict=True
        ):
            length = _length(side, share)
            # As in the authors' code, an even square has one more possible centre.
            centre = jnp.floor(place * (side + 1 - length % 2)).astype(jnp.int32)
            first = centre - length // 2
            at = jnp.arange(side)
            inside.append((first <= at) & (at < first + length))
        hole = inside[0][:, None, None] & inside[1][None, :, None]
        return jnp.where(hole, jnp.full((), GREY, image.dtype), image)

    return partial(_each_view, cut)


def chain(*augments: Augment) -> Augment | None:
    """Returns the augmentations one after another, each with its own keys, or None."""
    if not augments:
        return None
    if len(augments) == 1:
        return augments[0]

    def chained(
        keys: Keys, views: Views, step: Int[Array, ""], probability: Scalar
    ) -> Views:
        for place, augment in enumerate(augments):
            views = augment(_folded(keys, place), views, step, probability)
        return views

    return chained


@dataclass(frozen=True)
class Adaptive:
    """Adapts the probability of augmentation to the discriminators' overfitting.

    Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data",
    section 3: r is the mean sign of D's logits of photographs (r_t of Eq. 1). Every 4
    updates the probability rises if r is above the target, and falls if it is below. In a
    relativistic game the mean of the completions' logits is subtracted first.
    """

    target: float = 0.6
    images: int = 500_000
    """Photographs over which the probability moves from 0 to 1."""
    every: int = 4
    """Updates of D between changes."""


@flax.struct.dataclass
class AdaptiveState:
    """The controller's arrays, a part of the training state so that resuming is exact."""

    probability: Any
    """float32 []."""
    signs: Any
    """float32 []: the sum of r since the last change."""
    updates: Any
    """int32 []: updates since the last change."""


def adaptive_start() -> AdaptiveState:
    """Returns the state before the first update, with a probability of 0."""
    zero = jnp.zeros((), jnp.float32)
    return AdaptiveState(zero, zero, jnp.zeros((), jnp.int32))


def adapted(
    adaptive: Adaptive, state: AdaptiveState, sign: Scalar, batch: int
) -> AdaptiveState:
    """Returns the state after an update of D on `batch` photographs of mean sign `sign`."""
    signs, updates = state.signs + sign, state.updates + 1
    due = updates == adaptive.every
    r = signs / adaptive.every
    change = jnp.sign(r - adaptive.target) * (batch * adaptive.every / adaptive.images)
    moved = jnp.clip(state.probability + change, 0.0, 1.0)
    return AdaptiveState(
        jnp.where(due, moved, state.probability),
        jnp.where(due, jnp.zeros_like(signs), signs),
        jnp.where(due, jnp.zeros_like(updates), updates),
    )


def _each_view(
    change: Change, keys: Keys, views: Views, step: Int[Array, ""], probability: Scalar
) -> Views:
    """Applies a change with its own random numbers for each view."""
    del step
    return _sometimes(keys, views, probability, change, alike=False)


def _sometimes(
    keys: Keys, views: Views, probability: Scalar, change: Change, *, alike: bool
) -> Views:
    """Changes each image with this probability, in all its views or in none."""

    def maybe(
        key: Key[Array, ""], place: int, image: Float[Array, "h w c"]
    ) -> Float[Array, "h w c"]:
        choice_key, change_key = jax.random.split(key)
        if not alike:
            change_key = jax.random.fold_in(change_key, place)
        chosen = jax.random.uniform(choice_key) < probability
        return jnp.where(chosen, change(change_key, image), image)

    # Sorted by name, as jax.jit sorts dictionaries.
    return {
        name: jax.vmap(maybe, in_axes=(0, None, 0))(keys, place, views[name])
        for place, name in enumerate(sorted(views))
    }


def _folded(keys: Keys, place: int) -> Keys:
    """Folds a view's or augmentation's index into each image's key."""
    return jax.vmap(lambda key: jax.random.fold_in(key, place))(keys)


def _length(side: int, share: float) -> int:
    return int(side * share + 0.5)
