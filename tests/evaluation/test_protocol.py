"""The protocol of mmediting, pinned: crops, boxes, resizing.

Source: open-mmlab/mmediting v0.5.0, configs/inpainting/global_local/gl_256x256_8x12_
places.py (crop 384, resize 256, bbox mask), mmedit/core/mask.py (`random_bbox`,
`bbox2mask`) and configs/inpainting/global_local/README.md (the figures).
"""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from gl_jax.config import UsageError
from gl_jax.evaluation import published
from gl_jax.evaluation.protocol import (
    Place,
    mmediting_hole,
    mmediting_square,
    photograph,
)

DRAWN = [mmediting_hole(seed, index) for seed in range(3) for index in range(2000)]


def pixels(height: int, width: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_boxes_have_mmeditings_sides_and_margins() -> None:
    # random_bbox: top, left in [20, 108) of side 128; bbox2mask takes 0 to 20 pixels off
    # at the top and left: the sides are 108 to 128, the bottom right corner stays.
    tops, lefts, heights, widths = np.array([box for _, box in DRAWN]).T
    for first, side in ((tops, heights), (lefts, widths)):
        assert (side.min(), side.max()) == (108, 128)
        last = first + side
        assert (last.min(), last.max()) == (148, 235)
        assert (first.min(), first.max()) == (20, 127)


def test_the_hole_takes_mmeditings_share_of_the_picture() -> None:
    shares = np.array([box.height * box.width for _, box in DRAWN]) / 256**2
    assert (shares.min(), shares.max()) == (108**2 / 256**2, 0.25)
    # 118^2 / 256^2, the mean of two independent sides of 108 to 128.
    assert shares.mean() == pytest.approx(0.2125, abs=0.001)


def test_the_place_of_the_crop_is_even_and_follows_from_the_seed() -> None:
    places = np.array([place for place, _ in DRAWN])
    assert places.min() >= 0 and places.max() < 1
    np.testing.assert_allclose(places.mean(axis=0), 0.5, atol=0.02)
    assert mmediting_hole(1, 5) == mmediting_hole(1, 5) != mmediting_hole(2, 5)


def test_a_crop_of_384_is_resized_to_256_bilinearly() -> None:
    image = pixels(400, 500)
    square = mmediting_square(image, "photo", Place(0.5, 0.999))
    # 17 and 117 places: 8 down, 116 across.
    crop = np.ascontiguousarray(image[8:392, 116:500])
    np.testing.assert_array_equal(square, cv2.resize(crop, (256, 256)))


def test_a_photograph_of_256_is_taken_as_it_is() -> None:
    image = pixels(256, 256)
    np.testing.assert_array_equal(
        mmediting_square(image, "photo", Place(0.9, 0.9)), image
    )


def test_between_256_and_384_all_of_a_side_is_taken() -> None:
    image = pixels(300, 500)
    square = mmediting_square(image, "photo", Place(0.7, 0.0))
    np.testing.assert_array_equal(
        square, cv2.resize(np.ascontiguousarray(image[:, :384]), (256, 256))
    )


def test_photographs_below_256_are_refused_by_name() -> None:
    data = io.BytesIO()
    Image.fromarray(pixels(255, 400)).save(data, "PNG")
    with pytest.raises(
        UsageError, match=r"small.png is 400x255.*256x256.*protocol own"
    ):
        photograph(data.getvalue(), "small.png", 256, Place(0, 0))


def test_the_published_figures() -> None:
    rows = published.of("mmediting", "box")
    assert [[*row.values.values()] for row in rows] == [
        [11.164, 23.152, 0.862],
        [6.678, 26.780, 0.904],
    ]
    small, large = (published.of("mat", f"mat-{name}") for name in ("small", "large"))
    assert [row.values["fid"] for row in (small[0], large[0])] == [0.78, 1.96]
    assert published.of("mat", "folder") == published.of("own", "box") == ()
