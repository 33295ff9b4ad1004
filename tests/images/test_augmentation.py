"""What training changes at random in its photographs."""

import numpy as np
import pytest

from gl_jax.images import jittered, mirrored

LUMA = np.array([0.299, 0.587, 0.114])


def noise(height: int = 24, width: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_a_mirrored_image_has_its_left_on_the_right() -> None:
    image = noise()
    np.testing.assert_array_equal(mirrored(image), image[:, ::-1])
    view = image[3:20, 5:30]
    np.testing.assert_array_equal(mirrored(view), view[:, ::-1])


@pytest.mark.parametrize(
    "factors",
    [(1.2, 1, 1), (1, 0.7, 1), (1, 1, 1.3), (0.8, 1.25, 0.6), (0, 1, 1), (2, 2, 2)],
)
def test_jitter_multiplies_brightness_then_contrast_then_saturation(
    factors: tuple[float, float, float],
) -> None:
    brightness, contrast, saturation = factors
    # Not the whole range: most of it is not clipped.
    image = noise() // 3 + 60
    values = image.astype(float) * brightness
    middle = (values @ LUMA).mean()
    values = middle + contrast * (values - middle)
    grey = (values @ LUMA)[..., None]
    values = np.clip(grey + saturation * (values - grey), 0, 255)
    assert np.abs(jittered(image, *factors) - values).max() <= 1


def test_jitter_by_one_changes_nothing() -> None:
    image = noise()
    np.testing.assert_array_equal(jittered(image, 1, 1, 1), image)


def test_jitter_without_saturation_is_grey() -> None:
    grey = jittered(noise(), 1, 1, 0)
    assert (grey == grey[..., :1]).all()


def test_jitter_without_contrast_is_the_mean_grey() -> None:
    image = noise()
    flat = jittered(image, 1, 0, 0)
    assert np.abs(flat - (image @ LUMA).mean()).max() <= 1
