"""The rules for every baseline, and the pictures of the simple ones."""

import sys

import numpy as np
import pytest

from gl_jax.evaluation.baselines import BASELINES, fair

NAMES = sorted(BASELINES)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (40, 52, 3), dtype=np.uint8)


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.zeros((40, 52), bool)
    mask[12:30, 20:45] = True
    mask[0:4, 0:7] = True  # a corner too
    return mask


@pytest.mark.parametrize("name", NAMES)
def test_known_pixels_stay_to_the_bit(
    name: str, image: np.ndarray, mask: np.ndarray
) -> None:
    before = image.copy()
    result = BASELINES[name](image, mask)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result[~mask], before[~mask])
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_under_the_hole_does_not_matter(
    name: str, image: np.ndarray, mask: np.ndarray
) -> None:
    other = np.where(mask[..., None], np.uint8(255) - image, image)
    np.testing.assert_array_equal(
        BASELINES[name](image, mask), BASELINES[name](other, mask)
    )


LEVELS = {"telea": 3, "shift_map": 2}
"""Levels lost in one flat colour, to Telea's weights and to 8-bit CIELab."""


@pytest.mark.parametrize("name", NAMES)
def test_one_colour_is_continued(name: str) -> None:
    image = np.full((40, 40, 3), (200, 90, 30), np.uint8)
    mask = np.zeros((40, 40), bool)
    mask[10:25, 12:30] = True
    damaged = np.where(mask[..., None], np.uint8(0), image)
    error = BASELINES[name](damaged, mask).astype(int) - image
    assert np.abs(error).max() <= LEVELS.get(name, 0)


HOLES = {
    "one pixel": [(20, 21, 25, 26)],
    "four corners": [(0, 5, 0, 6), (0, 5, 47, 53), (32, 37, 0, 6), (32, 37, 47, 53)],
    "a whole side": [(0, 37, 0, 9)],
    "several": [(2, 6, 3, 30), (12, 22, 30, 45), (25, 26, 4, 40), (36, 37, 52, 53)],
}


@pytest.mark.parametrize("name", NAMES)
def test_holes_of_every_kind_are_filled(name: str) -> None:
    # A slope of colours without black, in a picture with odd sides.
    y, x = np.mgrid[:37, :53]
    image = np.stack([80 + 3 * y, 60 + 2 * x, 200 - y - x], axis=2).astype(np.uint8)
    for kind, holes in HOLES.items():
        mask = np.zeros((37, 53), bool)
        for top, bottom, left, right in holes:
            mask[top:bottom, left:right] = True
        result = BASELINES[name](np.where(mask[..., None], np.uint8(0), image), mask)
        np.testing.assert_array_equal(result[~mask], image[~mask], kind)
        # Nothing worse than the mean colour would be, give or take.
        assert np.abs(result.astype(int) - image).max() <= 130, kind
        assert result[mask].min() >= 50, kind


@pytest.mark.parametrize("name", NAMES)
def test_a_method_is_the_same_every_time(
    name: str, image: np.ndarray, mask: np.ndarray
) -> None:
    first, *others = (BASELINES[name](image, mask) for _ in range(3))
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_mean_fill_paints_the_mean_of_the_known_pixels() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[0] = [[10, 20, 30], [20, 40, 61]]
    image[1] = 255
    mask = np.array([[False, False], [True, True]])
    result = BASELINES["mean"](image, mask)
    np.testing.assert_array_equal(result[1], [[15, 30, 46], [15, 30, 46]])


def test_telea_and_navier_stokes_are_two_methods(
    image: np.ndarray, mask: np.ndarray
) -> None:
    assert (BASELINES["telea"](image, mask) != BASELINES["ns"](image, mask)).any()


def test_a_method_that_paints_everywhere_keeps_the_known_pixels(
    image: np.ndarray, mask: np.ndarray
) -> None:
    def rude(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        image[:] = 7
        return image

    result = fair(rude)(image, mask)
    np.testing.assert_array_equal(result, np.where(mask[..., None], 7, image))


def test_without_a_hole_nothing_is_asked_and_nothing_changes(image: np.ndarray) -> None:
    def never(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        raise AssertionError

    result = fair(never)(image, np.zeros(image.shape[:2], bool))
    np.testing.assert_array_equal(result, image)
    assert result is not image


def test_a_hole_without_anything_around_it_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="no pixel is known"):
        BASELINES["mean"](image, np.ones(image.shape[:2], bool))


def test_a_result_of_another_size_is_refused(
    image: np.ndarray, mask: np.ndarray
) -> None:
    with pytest.raises(ValueError, match=r"returned uint8 \(39, 52, 3\)"):
        fair(lambda image, mask: image[1:])(image, mask)


def test_a_missing_library_is_missed_by_its_method_only(
    image: np.ndarray, mask: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(
        sys.modules, "gl_jax.evaluation.baselines.opencv", raising=False
    )
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match="cv2"):
        BASELINES["telea"](image, mask)
    BASELINES["mean"](image, mask)
