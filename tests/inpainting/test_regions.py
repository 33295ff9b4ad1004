"""The windows hold all that decides their holes, and no more than they must."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gl_jax.inpainting import regions
from gl_jax.inpainting.completer import Completer
from gl_jax.models import inference
from gl_jax.models.completion import CompletionNetwork

SIDE = 512


@pytest.fixture(scope="module")
def depends(model):
    """Tells which rows of the output depend on some rows of the input, by a NaN there."""
    network, folded = inference.fold(
        CompletionNetwork(model.architecture.width, output_activation="clamp"),
        model.variables,
    )
    variables = jax.tree.map(
        lambda array: np.full_like(array, 1.0 if array.ndim > 1 else 0.0), folded
    )
    program = jax.jit(functools.partial(inference.complete, network))

    def depends(rows: np.ndarray) -> np.ndarray:
        inputs = np.zeros((1, 448, 64, 4), np.float32)
        inputs[:, rows] = np.nan
        output = program(variables, inputs, np.array([448, 64], np.int32))
        return np.isnan(np.asarray(output)).any(axis=(0, 2, 3))

    return depends


@pytest.mark.parametrize("row", [220, 221, 222, 223])
def test_nothing_outside_a_window_decides_its_hole(row: int, depends) -> None:
    mask = np.zeros((448, 64), bool)
    mask[row, 30] = True
    (window,) = regions.windows(mask)
    rows = np.arange(window.top, window.top + window.height)
    assert len(rows) < 448
    assert not depends(np.setdiff1d(np.arange(448), rows))[row]


def test_the_margins_are_no_wider_than_blocks_of_four_make_them(depends) -> None:
    first, last = 220 - regions.BEFORE, 220 + 4 + regions.AFTER
    block = slice(220, 224)
    assert not depends(np.r_[0:first, last:448])[block].any()
    assert depends(np.arange(first, first + 4))[block].any()
    assert depends(np.arange(last - 4, last))[block].any()


@functools.cache
def whole_image():
    return jax.jit(inference.complete, static_argnums=0)


SHORT = st.integers(1, 64)


@st.composite
def photos_with_holes(draw):
    """Long strips of up to 500 pixels and up to three rectangles, often at the border."""
    height, width = draw(st.permutations([draw(st.integers(1, 500)), draw(SHORT)]))
    mask = np.zeros((height, width), bool)
    for _ in range(draw(st.integers(1, 3))):
        top, left = (draw(st.integers(0, side - 1)) for side in (height, width))
        down, across = (draw(st.integers(1, 40)) for _ in range(2))
        mask[top : top + down, left : left + across] = True
    return mask, draw(st.integers(0, 99))


@settings(max_examples=25)
@given(photos_with_holes())
@example((np.pad([[True] * 9] * 7, ((200, 203), (301, 141))), 0))
def test_windows_give_what_the_whole_image_gives(model, case) -> None:
    mask, seed = case
    height, width = mask.shape
    chance = np.random.default_rng(seed)
    photo = chance.integers(0, 256, (height, width, 3), dtype=np.uint8)
    completer = Completer(model)
    found = regions.windows(mask)
    windowed = completer._outputs(
        lambda box: photo[box].astype(np.float32) / 255, mask, found
    )
    below = ((0, -height % 4), (0, -width % 4))
    padded = np.pad(photo, (*below, (0, 0)), mode="edge").astype(np.float32) / 255
    inputs = model.convention.encode(padded, np.pad(mask, below))
    canvas = np.zeros((1, SIDE, SIDE, 4), np.float32)
    canvas[0, : padded.shape[0], : padded.shape[1]] = inputs
    size = np.array(padded.shape[:2], np.int32)
    network, variables = inference.fold(model.network(), model.variables)
    whole = np.asarray(whole_image()(network, variables, canvas, size))
    whole = whole[0, :height, :width]
    np.testing.assert_allclose(windowed[mask], whole[mask], atol=1e-5)


@given(photos_with_holes())
def test_windows_cover_the_mask_and_keep_to_the_grid(case) -> None:
    mask, _ = case
    covered = np.zeros_like(mask)
    for window in regions.windows(mask):
        assert window.top % 4 == window.left % 4 == 0
        assert window.height % regions.BUCKET == window.width % regions.BUCKET == 0
        assert max(window.height, window.width) <= regions.LARGEST
        covered[window.inner] = True
        starts = (window.top, window.left)
        sides = (window.height, window.width)
        for start, side, inner, limit in zip(
            starts, sides, window.inner, mask.shape, strict=True
        ):
            block, last = inner.start // 4 * 4, (inner.stop - 1) // 4 * 4 + 4
            assert start <= max(0, block - regions.BEFORE)
            assert start + side >= min(limit, last + regions.AFTER)
            # Either it ends inside the image, or it begins with it.
            assert start == 0 or start + side <= regions.padded(limit)
    assert covered[mask].all()


def test_one_window_for_near_holes_and_two_for_far_ones() -> None:
    mask = np.zeros((3000, 4000), bool)
    mask[1000:1050, 1000:1050] = mask[1000:1050, 1100:1150] = True
    assert len(regions.windows(mask)) == 1
    mask[2500:2550, 3500:3550] = True
    assert len(regions.windows(mask)) == 2


def test_a_small_hole_in_a_large_photo_needs_a_small_part_of_it() -> None:
    mask = np.zeros((3000, 4000), bool)
    mask[1400:1600, 1900:2100] = True
    (window,) = regions.windows(mask)
    assert (window.height, window.width) == (512, 512)


def test_a_large_hole_is_tiled() -> None:
    mask = np.zeros((1500, 1300), bool)
    mask[100:1400, 100:1200] = True
    found = regions.windows(mask)
    assert len(found) > 1
    assert len({(w.height, w.width) for w in found}) <= 4
    assert sum(mask[w.inner].sum() for w in found) == mask.sum()


def test_photos_of_many_sizes_share_few_programs() -> None:
    shapes = set()
    for height in range(300, 400, 7):
        mask = np.zeros((height, 640), bool)
        mask[100:150, 200:250] = True
        (window,) = regions.windows(mask)
        shapes.add((window.height, window.width))
    assert len(shapes) <= 3


def test_an_empty_mask_has_no_windows() -> None:
    assert regions.windows(np.zeros((64, 64), bool)) == []
