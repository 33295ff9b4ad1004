"""The fixed holes of an evaluation."""

import numpy as np
import pytest

from gl_jax.config import UsageError
from gl_jax.evaluation.masks import KINDS, box, center, make_masks


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
    masks = make_masks(kind, 20, *size, seed=3)
    assert masks.shape == (20, *size)
    assert masks.any(axis=(1, 2)).all()
    assert not masks.all(axis=(1, 2)).any()


def test_a_longer_list_begins_with_the_shorter_one() -> None:
    np.testing.assert_array_equal(box(9, 64, 64, 1)[:4], box(4, 64, 64, 1))


def test_another_seed_gives_other_boxes() -> None:
    assert (box(4, 64, 64, 0) != box(4, 64, 64, 1)).any()


def test_an_unknown_kind_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"'centre' are unknown\. Did you mean 'center'"
    ):
        make_masks("centre", 1, 64, 64, seed=0)
