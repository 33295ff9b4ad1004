"""Exemplar-based inpainting on cases with a known answer."""

import numpy as np
import pytest

from gl_jax.evaluation.baselines.criminisi import SIDE, criminisi

DARK, BRIGHT = np.array([[40, 60, 30], [220, 180, 200]], np.uint8)


def hole(height: int, width: int, top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def damaged(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.where(mask[..., None], np.uint8(255) - image, image)


def psnr(result: np.ndarray, image: np.ndarray, mask: np.ndarray) -> float:
    """In the hole."""
    error = (result[mask].astype(float) - image[mask]) ** 2
    return float(10 * np.log10(255**2 / max(error.mean(), 1e-9)))


@pytest.mark.parametrize(
    ("down", "right"),
    [(1, 0), (0, 1), (1, -1), (1, 1)],
    ids=["horizontal", "vertical", "falling", "rising"],
)
def test_a_straight_edge_is_continued(down: int, right: int) -> None:
    y, x = np.mgrid[:64, :64] - 32
    image = np.where((down * y + right * x > 0)[..., None], BRIGHT, DARK)
    mask = hole(64, 64, 22, 22, 21)
    result = criminisi(damaged(image, mask), mask)
    np.testing.assert_array_equal(result, image)


def test_an_edge_of_any_slope_is_continued() -> None:
    y, x = np.mgrid[:64, :64] - 32
    # Sixteen pixels of grey between the sides would be a smooth edge; this has two.
    share = np.clip((x - 0.37 * y) / 2 + 0.5, 0, 1)[..., None]
    image = np.rint(DARK + share * (BRIGHT.astype(float) - DARK)).astype(np.uint8)
    mask = hole(64, 64, 24, 24, 16)
    result = criminisi(damaged(image, mask), mask)
    assert psnr(result, image, mask) > 24
    # Away from the edge there is nothing but the two colours.
    far = mask & (np.abs(x - 0.37 * y) > 4)
    assert np.abs(result[far].astype(int) - image[far]).max() <= 4


def test_a_periodic_texture_is_restored() -> None:
    y, x = np.mgrid[:96, :96]
    waves = np.stack(
        [
            np.sin(2 * np.pi * x / 8) * np.cos(2 * np.pi * y / 12),
            np.sin(2 * np.pi * (x + y) / 12),
            np.cos(2 * np.pi * y / 6),
        ],
        axis=2,
    )
    image = np.rint(128 + 100 * waves).astype(np.uint8)
    mask = hole(96, 96, 30, 34, 32)
    result = criminisi(damaged(image, mask), mask)
    assert psnr(result, image, mask) > 30


def test_what_exists_a_second_time_is_found() -> None:
    half = np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    image = np.concatenate([half, half], axis=1)
    mask = hole(30, 60, 9, 38, 12)
    result = criminisi(damaged(image, mask), mask)
    np.testing.assert_array_equal(result, image)


def test_every_colour_comes_from_the_known_pixels() -> None:
    image = np.random.default_rng(1).integers(0, 256, (33, 40, 3), dtype=np.uint8)
    mask = hole(33, 40, 0, 25, 15)
    known = {tuple(color) for color in image[~mask]}
    result = criminisi(damaged(image, mask), mask)
    assert {tuple(color) for color in result[mask]} <= known


def test_it_is_the_same_every_time() -> None:
    image = np.random.default_rng(2).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    mask = hole(40, 40, 14, 20, 12)
    np.testing.assert_array_equal(criminisi(image, mask), criminisi(image, mask))


def test_one_patch_beside_the_hole_is_enough() -> None:
    image = np.full((SIDE, SIDE + 1, 3), BRIGHT)
    mask = np.zeros((SIDE, SIDE + 1), bool)
    mask[:, -1] = True
    np.testing.assert_array_equal(criminisi(damaged(image, mask), mask), image)


@pytest.mark.parametrize("size", [(SIDE, SIDE), (5, 40), (17, 17)])
def test_without_a_whole_patch_to_copy_it_says_so(size: tuple[int, int]) -> None:
    mask = np.zeros(size, bool)
    mask[size[0] // 2, :: SIDE - 1] = True
    with pytest.raises(ValueError, match="no 9x9 pixels without a hole exist"):
        criminisi(np.zeros((*size, 3), np.uint8), mask)
