"""No seam, nothing outside changes, and what is exact stays exact."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from gl_jax.inpainting import blending

SIZE = (40, 56)

HOLES = {
    "inside": [(10, 30, 12, 40)],
    "top left": [(0, 15, 0, 20)],
    "bottom right": [(25, 40, 40, 56)],
    "left to right": [(15, 30, 0, 56)],
    "all but a row": [(0, 39, 0, 56)],
    "many": [(2, 5, 2, 5), (8, 20, 8, 20), (0, 9, 40, 56), (30, 31, 30, 31)],
    "one pixel": [(5, 6, 5, 6)],
    "one corner pixel": [(39, 40, 55, 56)],
    "a scratch": [(3, 38, 20, 21)],
}


@pytest.fixture(params=HOLES)
def hole(request: pytest.FixtureRequest) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    for top, bottom, left, right in HOLES[request.param]:
        mask[top:bottom, left:right] = True
    return mask


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((*SIZE, 3)).astype(np.float32)


def ramp() -> np.ndarray:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    slopes = [0.2 + y / 99 + x / 199, 0.8 - x / 99 - y / 299, 0 * y + 0.3]
    return np.stack(slopes, axis=-1).astype(np.float32)


def test_outside_the_hole_not_a_bit_changes(hole) -> None:
    photo = noise()
    blended = blending.blend(noise(1), photo, hole)
    np.testing.assert_array_equal(blended[~hole], photo[~hole])
    assert np.isfinite(blended).all()
    assert blended.min() >= 0 and blended.max() <= 1


def test_a_source_that_is_the_target_changes_nothing(hole) -> None:
    photo = noise()
    np.testing.assert_array_equal(blending.poisson(photo, photo, hole), photo)


@pytest.mark.parametrize("offset", [0.15, -0.2, 0.0])
def test_a_ramp_in_another_shade_becomes_the_ramp(hole, offset: float) -> None:
    photo = ramp() * np.float32(0.5) + np.float32(0.25)
    completed = photo + np.float32(offset)
    if hole.sum() == hole.size - SIZE[1]:
        # One row has no slope across it, so the rim continues it as flat.
        photo[:] = photo[0, 0]
        completed = photo + np.float32(offset)
    blended = blending.blend(completed, photo, hole)
    np.testing.assert_allclose(blended, photo, atol=2e-6)


def test_the_gradients_are_those_of_the_completion(hole) -> None:
    completed = ramp()
    target = np.full((*SIZE, 3), 0.5, np.float32)
    blended = blending.poisson(completed, target, hole)
    # Where all four neighbours are in the hole, the Laplacian is the completion's.
    inner = hole.copy()
    inner[[0, -1]] = inner[:, [0, -1]] = False
    for shift in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        inner &= np.roll(hole, shift, (0, 1))

    def laplacian(image: np.ndarray) -> np.ndarray:
        shifts = ((1, 0), (-1, 0), (0, 1), (0, -1))
        return 4 * image - sum(np.roll(image, shift, (0, 1)) for shift in shifts)

    # What was cut to [0, 1] is left out, with its neighbours.
    cut = ((blended <= 0) | (blended >= 1)).any(axis=-1)
    free = inner & ~ndimage.binary_dilation(cut)
    expected = laplacian(completed)[free]
    np.testing.assert_allclose(laplacian(blended)[free], expected, atol=2e-6)


def test_a_constant_offset_at_the_border_is_taken_off_everywhere(hole) -> None:
    completed = 0.3 + 0.4 * noise()
    blended = blending.poisson(completed, completed + np.float32(0.1), hole)
    np.testing.assert_allclose(blended, completed + 0.1, atol=1e-6)


def test_a_region_without_a_border_becomes_the_source() -> None:
    everything = np.ones(SIZE, bool)
    blended = blending.poisson(noise(1), noise(), everything)
    np.testing.assert_array_equal(blended, noise(1))


def test_multigrid_finds_what_the_direct_solver_finds(hole, monkeypatch) -> None:
    direct = blending.blend(noise(1), noise(), hole)
    monkeypatch.setattr(blending, "DIRECT_LIMIT", 0)
    multigrid = blending.blend(noise(1), noise(), hole)
    np.testing.assert_allclose(multigrid, direct, atol=1 / 255 / 20)


@pytest.mark.parametrize("corner", [(30, 40), (0, 0)])
def test_a_large_hole_is_solved_coarsely_inside_within_a_level(
    corner, monkeypatch
) -> None:
    y, x = np.mgrid[:240, :300]
    waves = [np.sin(x / 17 + y / (c + 9)) * np.cos(y / 31 - c) for c in range(3)]
    completed = (0.5 + 0.2 * np.stack(waves, axis=-1)).astype(np.float32)
    photo = (0.5 + 0.2 * np.stack(waves[::-1], axis=-1)).astype(np.float32)
    hole = np.zeros((240, 300), bool)
    hole[corner[0] : corner[0] + 181, corner[1] : corner[1] + 233] = True
    exact = blending.poisson(completed, photo, hole)
    monkeypatch.setattr(blending, "MULTIGRID_LIMIT", 20_000)
    np.testing.assert_allclose(
        blending.poisson(completed, photo, hole), exact, atol=1 / 255
    )
    flat = blending.poisson(completed, completed + np.float32(0.1), hole)
    np.testing.assert_allclose(flat, completed + 0.1, atol=1e-5)


def test_separate_holes_do_not_see_each_other() -> None:
    first, second = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    first[5:15, 5:15], second[25:35, 40:50] = True, True
    together = blending.blend(noise(1), noise(), first | second)
    alone = blending.blend(noise(1), noise(), first)
    np.testing.assert_allclose(together[first], alone[first], atol=1e-6)


def test_fast_marching_continues_a_ramp_across_the_rim() -> None:
    photo, hole = ramp(), np.zeros(SIZE, bool)
    hole[10:30, 12:40] = hole[0:6, 0:7] = True
    hidden = np.where(hole[..., None], np.float32(0.9), photo)
    rim = hole & ~blending._shrunk(hole)
    marched = blending.fast_march(hidden, hole, rim)
    np.testing.assert_allclose(marched[rim], photo[rim], atol=1e-6)
    np.testing.assert_array_equal(marched[~rim], hidden[~rim])


@pytest.mark.parametrize("axis", [0, 1])
def test_fast_marching_continues_no_line_beyond_its_colours(axis: int) -> None:
    photo, hole = np.full((*SIZE, 3), np.float32(0.8)), np.zeros(SIZE, bool)
    hole[10:30, 12:40] = True
    np.moveaxis(photo, axis, 0)[9] = 0.1
    np.moveaxis(photo, axis, 0)[20] = 0.3
    photo[:, 41] = 0.2
    rim = hole & ~blending._shrunk(hole)
    marched = blending.fast_march(photo, hole, rim)[rim]
    assert photo[~hole].min() <= marched.min() and marched.max() <= 0.8 + 1e-6


@given(st.integers(0, 10**6))
def test_holes_of_any_shape_are_blended(seed: int) -> None:
    chance = np.random.default_rng(seed)
    hole = chance.random((9, 11)) < chance.random()
    if hole.all():
        hole[0, 0] = False
    photo, completed = chance.random((2, 9, 11, 3)).astype(np.float32)
    blended = blending.blend(completed, photo, hole)
    np.testing.assert_array_equal(blended[~hole], photo[~hole])
    assert np.isfinite(blended).all() and blended.min() >= 0 and blended.max() <= 1


@pytest.mark.parametrize("limit", [blending.MULTIGRID_LIMIT, 60])
def test_void_beside_a_hole_is_like_the_edge_of_the_image(monkeypatch, limit) -> None:
    monkeypatch.setattr(blending, "MULTIGRID_LIMIT", limit)
    monkeypatch.setattr(blending, "_BAND", 4)
    photo, completed = noise()[:, 20:], noise(1)[:, 20:]
    hole = np.zeros(photo.shape[:2], bool)
    hole[8:30, :14] = True
    cut = blending.poisson(completed, photo, hole)
    # The same with something of no colour where the image ended.
    wider = np.pad(photo, ((0, 0), (20, 0), (0, 0)))
    around = np.pad(completed, ((0, 0), (20, 0), (0, 0)))
    void = np.zeros(wider.shape[:2], bool)
    void[:, :20] = True
    blended = blending.poisson(around, wider, np.pad(hole, ((0, 0), (20, 0))), void)
    near = 1e-5 if limit > 60 else 0.05
    np.testing.assert_allclose(blended[:, 20:], cut, atol=near)
    np.testing.assert_array_equal(blended[:, :20], 0)


def test_holes_between_voids_have_finite_colours() -> None:
    hole, void = np.zeros((2, 40, 40), bool)
    void[10:30, 10:30] = True
    void[12:28:3, 12:28] = False
    hole[12:28:3, 12:28] = hole[5:11, 5:11] = True
    blended = blending.blend(noise()[:40, :40], noise(1)[:40, :40], hole, void)
    assert np.isfinite(blended).all()
