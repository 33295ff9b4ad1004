"""Texture in holes, against OpenCV, SciPy and cases worked out by hand."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError
from scipy.stats import wasserstein_distance

from gl_jax import texture
from gl_jax.texture import grid_energy, swd

SIDE = 48


def photographs(count: int = 3) -> np.ndarray:
    """Smooth colours with some noise."""
    generator = np.random.default_rng(0)
    coarse = generator.random((count, 6, 6, 3)).astype(np.float32)
    large = np.stack([cv2.resize(image, (SIDE, SIDE)) for image in coarse])
    noise = generator.normal(0, 0.05, large.shape)
    return np.clip(large + noise, 0, 1).astype(np.float32)


def holes(count: int = 3) -> np.ndarray:
    """Holes in the shape of an L, each at another place."""
    masks = np.zeros((count, SIDE, SIDE, 1), bool)
    for index, mask in enumerate(masks):
        top = 2 + 3 * index
        mask[top : top + 34, 4:24] = True
        mask[top + 14 : top + 34, 4:44] = True
    return masks


def blurred(images: np.ndarray) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(image, (0, 0), 2) for image in images])


def grids(values: dict[str, jax.Array]) -> np.ndarray:
    return np.stack([values[name] for name in texture.GRIDS], axis=1)


# --- the pyramid


@pytest.mark.parametrize("size", [(16, 16), (17, 21), (30, 33)])
def test_the_pyramid_is_that_of_opencv(size: tuple[int, int]) -> None:
    image = np.random.default_rng(1).random((*size, 3)).astype(np.float32)
    expected, rest = [], image
    for _ in range(2):
        smaller = cv2.pyrDown(rest)
        expected.append(rest - cv2.pyrUp(smaller, dstsize=rest.shape[1::-1]))
        rest = smaller
    for found, band in zip(
        texture.laplacian(jnp.asarray(image[None]), 2), expected, strict=True
    ):
        np.testing.assert_allclose(found[0], band, atol=1e-6)


# --- the sliced Wasserstein distance


def exhaustive_distance(
    images: np.ndarray, targets: np.ndarray, masks: np.ndarray, level: int
) -> float:
    """Of all patches that lie in the holes, on directions of its own."""
    rays = np.random.default_rng(99).normal(size=(300, 147))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    patches: list[list[np.ndarray]] = [[], []]
    for side, pictures in enumerate((images, targets)):
        for picture, mask in zip(pictures, masks[..., 0], strict=True):
            rest, hole = picture.astype(np.float64), mask
            for _ in range(level):
                rest, hole = cv2.pyrDown(rest), hole[::2, ::2]
            band = rest - cv2.pyrUp(cv2.pyrDown(rest), dstsize=rest.shape[1::-1])
            for y in range(len(band) - 6):
                for x in range(len(band) - 6):
                    if hole[y : y + 7, x : x + 7].all():
                        patches[side].append(band[y : y + 7, x : x + 7].ravel())
    one, other = (np.array(rows) for rows in patches)
    apart = [wasserstein_distance(one @ ray, other @ ray) for ray in rays]
    return 1000 * float(np.mean(apart))


def test_the_distance_is_that_of_all_patches_in_the_hole() -> None:
    targets, masks = photographs(), holes()
    images = np.where(masks, blurred(targets), targets)
    found = swd(images, targets, masks, patches=1500)
    for level in (0, 1):
        expected = exhaustive_distance(images, targets, masks, level)
        assert found[level] == pytest.approx(expected, rel=0.03), level


def test_equal_sets_are_at_0_and_half_the_contrast_at_half_the_distance_of_none() -> (
    None
):
    targets, masks = photographs(), holes()
    assert swd(targets, targets, masks) == [0, 0]
    half, none = swd(targets / 2, targets, masks), swd(0 * targets, targets, masks)
    np.testing.assert_allclose(half, np.array(none) / 2, rtol=1e-4)


def test_what_lies_outside_the_hole_does_not_count() -> None:
    targets, masks = photographs(), holes()
    # The pyramid's kernels reach out of the hole, by at most 13 pixels.
    near = np.stack([cv2.dilate(mask * 1.0, np.ones((27, 27))) for mask in masks])
    images = np.where(near[..., None] > 0, targets, 0)
    np.testing.assert_allclose(swd(images, targets, masks), [0, 0], atol=1e-4)


def test_the_seed_decides_places_and_directions() -> None:
    targets, masks = photographs(), holes()
    first = swd(blurred(targets), targets, masks)
    assert swd(blurred(targets), targets, masks) == first
    assert swd(blurred(targets), targets, masks, seed=1) != first
    assert len(swd(blurred(targets), targets, masks, levels=1)) == 1


def test_bytes_are_measured_as_the_floats_they_stand_for() -> None:
    targets, masks = (255 * photographs()).astype(np.uint8), holes()
    images = (255 * blurred(photographs())).astype(np.uint8)
    np.testing.assert_allclose(
        swd(images, targets, masks, max_value=255),
        swd(images / np.float32(255), targets / np.float32(255), masks),
        rtol=1e-4,
    )


def test_patches_lie_in_the_hole_everywhere_in_it() -> None:
    mask = holes(1)[0, ..., 0]
    corners = texture.places(mask, 0, patches=20_000).patches
    for level, hole in enumerate((mask, mask[::2, ::2])):
        possible = {
            (y, x)
            for y in range(len(hole) - 6)
            for x in range(len(hole) - 6)
            if hole[y : y + 7, x : x + 7].all()
        }
        assert {(int(y), int(x)) for y, x in corners[level]} == possible


def test_holes_without_room_are_left_out_and_a_set_of_them_is_refused() -> None:
    targets, masks = photographs(), holes()
    images, first = blurred(targets), holes()[:1]
    masks[1:] = False
    masks[1:, 10:16, :] = True  # six pixels high
    alone = swd(images[:1], targets[:1], first)
    assert swd(images, targets, masks) == pytest.approx(alone)
    with pytest.raises(ValueError, match=r"no hole holds 7x7 pixels of level 0"):
        swd(images[1:], targets[1:], masks[1:])
    with pytest.raises(ValueError, match=r"level 2, that is 28x28 of the image"):
        swd(images, targets, masks, levels=3)


def test_what_is_left_out_is_counted() -> None:
    masks = holes(4)
    masks[1:] = False
    masks[1, 4:12, 4:12] = True
    masks[2, 4:18, 4:18] = True
    masks[3, 4:10, :] = True
    where = texture.Places.stacked(texture.places(mask, 0) for mask in masks[..., 0])
    images = jnp.asarray(photographs(4))
    values, textures = texture.measure(images, images, where)
    assert texture.left_out(np.asarray(textures), grids(values)) == [
        "SWD fine: 1 of 4 holes are left out, because they hold no square of 7x7 pixels.",
        "SWD coarse: 2 of 4 holes are left out, because they hold no square of 14x14 pixels.",
        "grid: 3 of 4 holes are left out, because they hold no square of 16x16 pixels.",
    ]


def test_a_large_set_has_fewer_patches_of_each_picture() -> None:
    assert [texture.patches_each(n) for n in (1, 2000, 10_000, 100_000)] == [
        24, 24, 5, 1,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"levels": 0}, r"levels \(=0\) must be at least 1"),
        ({"patches": 0}, r"patches \(=0\) must be at least 1"),
        ({"directions": 0}, r"directions \(=0\) must be at least 1"),
        ({"images": np.zeros((3, SIDE, SIDE, 3), np.uint8)}, "255 for bytes"),
    ],
)
def test_impossible_values_are_refused(changes: dict[str, object], rule: str) -> None:
    values = {"images": photographs(), "targets": photographs(), "mask": holes()}
    with pytest.raises(ValueError, match=rule):
        swd(**(values | changes))


@pytest.mark.parametrize("changes", [{"targets": photographs(2)}, {"mask": holes(2)}])
def test_shapes_that_do_not_fit_are_refused(changes: dict[str, object]) -> None:
    values = {"images": photographs(), "targets": photographs(), "mask": holes()}
    with pytest.raises((ValueError, TypeCheckError)):
        swd(**(values | changes))


# --- the grid


def energy_by_sums(square: np.ndarray) -> float:
    """Of a grey 16x16 square: every coefficient of the Fourier transform as a sum."""
    side = np.arange(16)
    window = np.sin(np.pi * (side + 1) / 17) ** 2
    values = (square - square.mean()) * window[:, None] * window
    grid, elsewhere = [], []
    for i in range(16):
        for j in range(16):
            turn = np.exp(-2j * np.pi * (i * side[:, None] + j * side) / 16)
            power = abs((values * turn).sum()) ** 2
            if (i, j) != (0, 0):
                on_grid = i in (0, 4, 8, 12) and j in (0, 4, 8, 12)
                (grid if on_grid else elsewhere).append(power)
    return float(np.mean(grid) / np.mean(elsewhere))


def test_the_grid_energy_is_that_of_the_middle_of_the_hole() -> None:
    images = photographs(2)
    masks = np.zeros((2, SIDE, SIDE, 1), bool)
    masks[0, 5:35, 10:40] = True
    masks[1, 0:20, 3:22] = True
    corners = [(11, 16), (1, 4)]
    expected = [
        energy_by_sums(image[y : y + 16, x : x + 16].mean(axis=2))
        for image, (y, x) in zip(images, corners, strict=True)
    ]
    np.testing.assert_allclose(grid_energy(images, masks), expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("period", "low", "high"), [(2, 5, np.inf), (4, 5, np.inf), (8, 0, 0.1)]
)
def test_waves_of_the_upsamplings_periods_stand_out(
    period: float, low: float, high: float
) -> None:
    wave = 0.5 + 0.2 * np.cos(2 * np.pi * np.arange(SIDE) / period)
    images = np.broadcast_to(wave[:, None, None], (1, SIDE, SIDE, 3))
    mask = np.ones((1, SIDE, SIDE, 1), bool)
    assert low <= float(grid_energy(images, mask)[0]) < high


def test_a_flat_square_has_no_grid_and_a_small_hole_no_value() -> None:
    masks = np.zeros((2, SIDE, SIDE, 1), bool)
    masks[0, 4:20, 4:20] = True
    masks[1, 4:19, 4:40] = True
    flat = np.full((2, SIDE, SIDE, 3), 0.3, np.float32)
    np.testing.assert_allclose(grid_energy(flat, masks), [0, np.nan], atol=1e-3)


def test_the_square_lies_in_the_hole_also_where_its_middle_does_not() -> None:
    # A ring: its middle is known.
    mask = np.ones((SIDE, SIDE), bool)
    mask[17:31, 17:31] = False
    y, x = texture.places(mask, 0).square
    assert mask[y : y + 16, x : x + 16].all()


def test_measures_of_a_set_are_those_of_its_pictures() -> None:
    targets, masks = photographs(), holes()
    images = np.where(masks, blurred(targets), targets)
    where = texture.Places.stacked(
        texture.places(mask, number) for number, mask in enumerate(masks[..., 0])
    )
    values, textures = jax.jit(texture.measure)(images, targets, where)
    found = texture.of_set(np.asarray(textures), grids(values))
    assert [found["swd_fine"], found["swd_coarse"]] == pytest.approx(
        swd(images, targets, masks), rel=2e-3
    )
    assert found["grid"] == pytest.approx(
        np.median(grid_energy(images, masks)), rel=1e-3
    )
    assert found["grid_photographs"] == pytest.approx(
        np.median(grid_energy(targets, masks)), rel=1e-3
    )
