"""The fixed holes of an evaluation."""

import numpy as np
import pytest

from gl_jax.evaluation.masks import (
    AREA_CLASSES,
    KINDS,
    box,
    center,
    freeform,
)


def sides(mask: np.ndarray) -> tuple[int, int]:
    """Height and width of the bounding box."""
    rows, columns = np.nonzero(mask)
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def test_center_is_the_middle_half_of_each_side() -> None:
    masks = center(2, 128, 256)
    expected = np.zeros((2, 128, 256), bool)
    expected[:, 32:96, 64:192] = True
    np.testing.assert_array_equal(masks, expected)


def test_boxes_of_256_pixels_have_the_sides_of_the_papers_holes() -> None:
    masks = box(300, 256, 256)
    heights, widths = np.array([sides(mask) for mask in masks]).T
    assert (heights.min(), heights.max()) == (96, 128)
    assert (widths.min(), widths.max()) == (96, 128)
    np.testing.assert_array_equal(masks.sum(axis=(1, 2)), heights * widths)
    assert abs(np.corrcoef(heights, widths)[0, 1]) < 0.2


def test_boxes_reach_every_border() -> None:
    covered = box(300, 64, 64).any(axis=0)
    for border in (covered[0], covered[-1], covered[:, 0], covered[:, -1]):
        assert border.any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(16, 16), (17, 90)])
def test_every_mask_has_a_hole_and_something_around_it(
    kind: str, size: tuple[int, int]
) -> None:
    masks = KINDS[kind](20, *size, 3)
    assert masks.shape == (20, *size)
    assert masks.any(axis=(1, 2)).all()
    assert not masks.all(axis=(1, 2)).any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_longer_list_begins_with_the_shorter_one(kind: str) -> None:
    longer, shorter = (KINDS[kind](n, 64, 64, 1) for n in (9, 4))
    np.testing.assert_array_equal(longer[:4], shorter)


@pytest.mark.parametrize("kind", ["box", "freeform"])
def test_another_seed_gives_other_masks(kind: str) -> None:
    one, other = (KINDS[kind](4, 64, 64, seed) for seed in (0, 1))
    assert (one != other).any(axis=(1, 2)).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "size", [(32, 32), (45, 71), (64, 512), (256, 256), (512, 512)]
)
def test_the_area_classes_take_turns(size: tuple[int, int], seed: int) -> None:
    for index, mask in enumerate(freeform(12, *size, seed)):
        low, high = AREA_CLASSES[index % 6]
        assert low < mask.mean() <= high


def test_areas_fill_their_class() -> None:
    shares = freeform(240, 48, 48).mean(axis=(1, 2)).reshape(-1, 6)
    for (low, high), found in zip(AREA_CLASSES, shares.T, strict=True):
        third = (high - low) / 3
        assert found.min() < low + third
        assert found.max() > high - third


def test_strokes_reach_every_place() -> None:
    share = freeform(240, 64, 64).mean(axis=0)
    assert share.min() > 0.1
    assert share.max() < 0.6


def test_strokes_have_a_width() -> None:
    """Most of a hole lies deeper in it than a pixel; no grains and no hairs."""
    for mask in freeform(12, 256, 256):
        inner = mask[1:-1, 1:-1].copy()
        for near in (mask[:-2, 1:-1], mask[2:, 1:-1], mask[1:-1, :-2], mask[1:-1, 2:]):
            inner &= near
        assert inner.sum() > 0.75 * mask.sum()


def test_an_image_of_few_pixels_has_no_freeform_masks() -> None:
    with pytest.raises(ValueError, match="3x3 pixels is too small"):
        freeform(6, 3, 3)
