"""Augmentations, by what they do to images in the range of DiffAugment's authors, [-1, 1].

What was drawn is found again in each output, and the output made from it in numpy.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gl_jax.config import AugmentConfig, Config, LossConfig
from gl_jax.training import augment, default_parts
from gl_jax.training.augment import (
    Adaptive,
    adapted,
    adaptive_start,
    chain,
    color,
    cutout,
    translation,
)

COUNT = 400
KEYS = jax.random.split(jax.random.key(0), COUNT)
STEP, ALWAYS = jnp.zeros((), jnp.int32), jnp.ones(())
SHIFT, CUT = translation(0.125), cutout(0.5)


def shown(height: int, width: int, count: int = COUNT) -> np.ndarray:
    """Images of which no two pixels are alike, and none is grey."""
    values = np.random.default_rng(height).permutation(count * height * width * 3) + 0.5
    return (values.reshape(count, height, width, 3) / values.size).astype(np.float32)


# 12 * 0.125 and 10 * 0.125 round to 2 and 1; half of 12 is even, half of 10 odd.
VIEWS = {"local": shown(12, 12), "global": shown(10, 12)}


@cache
def changed(change: Any, probability: float = 1.0) -> dict[str, np.ndarray]:
    views = jax.jit(change)(KEYS, VIEWS, STEP, jnp.full((), probability))
    return jax.device_get(views)


def signed(images: np.ndarray) -> np.ndarray:
    return 2.0 * images.astype(np.float64) - 1


# --- colour ---------------------------------------------------------------------------------


def drawn_colors(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Brightness, saturation and contrast of each image, [b, 3], found from its moments.

    Saturation keeps the mean of each pixel, contrast that of each image.
    """
    brightness = after.mean((1, 2, 3)) - before.mean((1, 2, 3))
    contrast = after.mean(3).std((1, 2)) / before.mean(3).std((1, 2))
    colors = [(x - x.mean(3, keepdims=True)).std((1, 2, 3)) for x in (before, after)]
    return np.stack([brightness, colors[1] / colors[0] / contrast, contrast], axis=1)


def recolored(image: np.ndarray, draw: np.ndarray) -> np.ndarray:
    brightness, saturation, contrast = draw
    image = image + brightness
    grey = image.mean(2, keepdims=True)
    image = (image - grey) * saturation + grey
    return (image - image.mean()) * contrast + image.mean()


@cache
def found_colors(name: str) -> np.ndarray:
    return drawn_colors(signed(VIEWS[name]), signed(changed(color)[name]))


@pytest.mark.parametrize("name", VIEWS)
def test_color_is_brightness_then_saturation_then_contrast(name):
    made = [*map(recolored, signed(VIEWS[name]), found_colors(name))]
    np.testing.assert_allclose(signed(changed(color)[name]), made, atol=1e-5)


def test_colors_are_drawn_from_the_authors_ranges():
    low, high = np.array([-0.5, 0.0, 0.5]), np.array([0.5, 2.0, 1.5])
    shares = (found_colors("local") - low) / (high - low)
    assert shares.min() > -1e-4 and shares.max() < 1 + 1e-4
    # Uniform in all of them, and of each other independent.
    np.testing.assert_allclose(shares.mean(0), 0.5, atol=0.05)
    np.testing.assert_allclose(shares.std(0), 1 / np.sqrt(12), atol=0.02)
    assert np.abs(np.corrcoef(shares.T) - np.eye(3)).max() < 0.15


def test_all_views_of_an_image_get_the_same_color_and_each_image_its_own():
    np.testing.assert_allclose(found_colors("local"), found_colors("global"), atol=1e-3)
    assert len(np.unique(found_colors("local").round(4), axis=0)) == COUNT


# --- translation and cutout -----------------------------------------------------------------


def moved(image: np.ndarray, by: tuple[int, int]) -> np.ndarray:
    """Zeros, and as much of the image as lies inside after it has moved."""
    result = np.zeros_like(image)
    height, width, _ = image.shape
    for y in range(height):
        for x in range(width):
            if 0 <= y - by[0] < height and 0 <= x - by[1] < width:
                result[y, x] = image[y - by[0], x - by[1]]
    return result


def cut(image: np.ndarray, offset: tuple[int, int]) -> np.ndarray:
    """The authors' cutout: a grid of pixels around the offset, clamped to the image."""
    result, places = image.copy(), []
    for side, at in zip(image.shape, offset, strict=False):
        length = int(side * 0.5 + 0.5)
        places.append(np.clip(np.arange(length) + at - length // 2, 0, side - 1))
    result[np.ix_(*places)] = 0
    return result


def shifts(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    most = [int(side * 0.125 + 0.5) for side in shape]
    return [
        (y, x)
        for y in range(-most[0], most[0] + 1)
        for x in range(-most[1], most[1] + 1)
    ]


def offsets(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """All that the authors draw from: one more than the side, if the square's is even."""
    ends = [side + 1 - int(side * 0.5 + 0.5) % 2 for side in shape]
    return [(y, x) for y in range(ends[0]) for x in range(ends[1])]


PLACED: dict[str, tuple[Any, Callable[..., np.ndarray], Callable[..., Any]]] = {
    "translation": (SHIFT, moved, shifts),
    "cutout": (CUT, cut, offsets),
}


@cache
def found_places(kind: str, name: str) -> list[tuple[int, int]]:
    """The one place of all possible ones that makes each image what it became."""
    change, make, possible = PLACED[kind]
    places = possible(VIEWS[name].shape[1:3])
    # Where it is zero tells them apart, as no pixel of an image is.
    by_zeros = {
        (make(np.ones(VIEWS[name].shape[1:]), place) == 0).tobytes(): place
        for place in places
    }
    if kind == "cutout":
        assert len(by_zeros) == len(places)
        zeros = [x == 0 for x in signed(changed(change)[name])]
        return [by_zeros[zero.tobytes()] for zero in zeros]
    found = []
    for before, after in zip(
        signed(VIEWS[name]), signed(changed(change)[name]), strict=True
    ):
        fitting = [p for p in places if np.allclose(make(before, p), after, atol=1e-6)]
        assert len(fitting) == 1
        found += fitting
    return found


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("kind", PLACED)
def test_a_view_is_moved_or_cut_as_in_the_authors_code(kind, name):
    change, make, possible = PLACED[kind]
    found = found_places(kind, name)
    made = [*map(make, signed(VIEWS[name]), found)]
    np.testing.assert_allclose(signed(changed(change)[name]), made, atol=1e-6)
    # Each place as often as any other: those along a side are few enough to count.
    places = possible(VIEWS[name].shape[1:3])
    for axis in range(2):
        expected = len({place[axis] for place in places})
        counts = np.unique([place[axis] for place in found], return_counts=True)[1]
        assert len(counts) == expected
        assert counts.min() > COUNT / expected / 2.5


@pytest.mark.parametrize("kind", PLACED)
def test_each_view_draws_a_place_of_its_own(kind):
    local, whole = (np.array(found_places(kind, name))[:, 1] for name in VIEWS)
    assert abs(np.corrcoef(local, whole)[0, 1]) < 0.15


# --- all of them ----------------------------------------------------------------------------

CHANGES = {"color": color, "translation": SHIFT, "cutout": CUT}


def test_noise_of_an_image_does_not_depend_on_those_beside_it():
    noise = augment.normal_noise(lambda step: 0.1)
    images = jnp.asarray(VIEWS["global"])
    noisy, some = noise(KEYS, images, STEP), np.array([3, 1])
    assert float(jnp.std(noisy - images)) == pytest.approx(0.1, rel=0.05)
    np.testing.assert_allclose(
        noise(KEYS[some], images[some], STEP), noisy[some], atol=1e-6
    )


@pytest.mark.parametrize("change", [color, SHIFT, CUT])
def test_an_image_does_not_depend_on_those_beside_it(change):
    some = np.array([3, 1])
    few = {name: jnp.asarray(images[some]) for name, images in VIEWS.items()}
    alone = change(KEYS[some], few, STEP, ALWAYS)
    for name, images in alone.items():
        np.testing.assert_allclose(images, changed(change)[name][some], atol=1e-6)


@pytest.mark.parametrize("change", [color, SHIFT, CUT])
def test_probability_is_the_share_of_images_that_are_changed(change):
    def share(probability: float) -> np.ndarray:
        apart = [
            (changed(change, probability)[name] != VIEWS[name]).any((1, 2, 3))
            for name in VIEWS
        ]
        # A translation by (0, 0) is one too; a view of it is as it was.
        return np.mean(apart[0] | apart[1])

    assert share(0.0) == 0
    assert share(1.0) > 0.98
    assert 0.42 < share(0.5) < 0.58
    for name, images in changed(change, 0.5).items():
        untouched = (images == VIEWS[name]).all((1, 2, 3))
        np.testing.assert_allclose(
            images[~untouched], changed(change)[name][~untouched], atol=1e-6
        )


def test_all_views_of_an_image_are_changed_or_none():
    for change in (color, CUT):
        local, whole = (
            (changed(change, 0.5)[name] != VIEWS[name]).any((1, 2, 3)) for name in VIEWS
        )
        np.testing.assert_array_equal(local, whole)


@pytest.mark.parametrize("kind", CHANGES)
def test_gradients_come_back_to_the_images(kind):
    """By finite differences along one direction."""
    few = {name: jnp.asarray(images[:8]) for name, images in VIEWS.items()}
    chance = np.random.default_rng(1)
    direction, weights = (
        jax.tree.map(lambda x: chance.normal(size=x.shape).astype(np.float32), few)
        for _ in range(2)
    )

    def total(views: Any) -> jax.Array:
        after = CHANGES[kind](KEYS[:8], views, STEP, ALWAYS)
        parts = jax.tree.map(lambda w, x: jnp.sum(w * jnp.square(x)), weights, after)
        return sum(jax.tree.leaves(parts))

    slopes = jax.jit(jax.grad(total))(few)
    ahead, back = (
        float(jax.jit(total)(jax.tree.map(lambda x, d, h=h: x + h * d, few, direction)))
        for h in (0.05, -0.05)
    )
    along = sum(float(np.vdot(slopes[name], direction[name])) for name in few)
    # The sum is of second degree, of which central differences are exact.
    assert along == pytest.approx((ahead - back) / 0.1, rel=1e-3, abs=1e-2)
    assert all(np.abs(slope).max() > 0 for slope in slopes.values())


# --- chains ---------------------------------------------------------------------------------


def test_no_augmentation_is_none_and_one_is_itself():
    assert chain() is None
    assert chain(color) is color


def test_each_of_a_chain_has_keys_of_its_own():
    given: list[np.ndarray] = []

    def noticed(keys: Any, views: Any, step: Any, probability: Any) -> Any:
        given.append(np.asarray(jax.random.key_data(keys)))
        return views

    jax_views = {name: jnp.asarray(images) for name, images in VIEWS.items()}
    chain(noticed, noticed, noticed)(KEYS, jax_views, STEP, ALWAYS)
    assert len(np.unique(np.concatenate(given), axis=0)) == 3 * COUNT


def test_of_a_chain_each_is_changed_by_a_chance_of_its_own():
    """Of colour and cutout at one half, a quarter of the images are cut but not coloured."""
    both = changed(chain(color, CUT), 0.5)["local"]
    grey = (both == 0.5).all(3).sum((1, 2)) > 3
    same = (both == VIEWS["local"]).mean((1, 2, 3)) > 0.5
    untouched = (both == VIEWS["local"]).all((1, 2, 3))
    for share in (grey & same, untouched, grey & ~same):
        assert 0.18 < share.mean() < 0.32


def test_a_configuration_chains_them_in_diffaugments_order():
    chosen = AugmentConfig(color=True, translation=0.125, cutout=0.5)
    config = Config(augment=chosen, loss=LossConfig(discriminator_noise=0.1))
    made = default_parts(config)
    expected = changed(chain(color, SHIFT, CUT))
    for name, images in changed(made.augment).items():
        np.testing.assert_allclose(images, expected[name], atol=1e-6)
    assert made.adaptive is None and made.noise is not None
    assert default_parts(Config()).augment is None


# --- the adaptive probability ---------------------------------------------------------------


def test_the_probability_follows_the_mean_sign_every_few_updates():
    """Hand-worked: 10 photographs an update, 4 updates a change, so changes of 0.4."""
    adaptive = Adaptive(target=0.5, images=100, every=4)
    step = jax.jit(partial(adapted, adaptive, batch=10))
    state, probabilities = adaptive_start(), []
    assert float(state.probability) == 0
    for signs in (
        (-1, -1, -1, -1),  # below the target, and already at 0
        (1, 1, 0.5, 0.5),  # r is 0.75: up
        (1, 0, 1, 0),  # r is the target: stays
        (0.6, 0.6, 0.6, 0.6),  # up again
        (1, 1, 1, 1),  # no further than 1
        (0.4, 0.4, 0.4, 0.4),  # down
    ):
        for place, sign in enumerate(signs):
            assert int(state.updates) == place
            before = float(state.probability)
            state = step(state, jnp.float32(sign))
            if place < 3:
                assert float(state.probability) == before
        assert float(state.signs) == 0
        probabilities.append(float(state.probability))
    np.testing.assert_allclose(probabilities, [0, 0.4, 0.4, 0.8, 1.0, 0.6], rtol=1e-6)


def test_a_configuration_leads_the_probability():
    chosen = AugmentConfig(color=True, adaptive_target=0.3, adaptive_images=1000)
    assert default_parts(Config(augment=chosen)).adaptive == Adaptive(0.3, 1000, 4)
