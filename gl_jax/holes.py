"""Holes in photographs and the local windows around them, sampled on the device.

Conventions: images are float RGB in [0, 1], [batch, height, width, 3]; `mask` is float
[batch, height, width, 1] with 1 = missing; a `corner` is the integer (y, x) of a window's
top-left pixel.

Every image has its own key, made by `example_keys` from its index in the whole batch. A
run therefore draws the same holes for any division of the batch into devices, hosts and
accumulation pieces.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

Images = Float[Array, "b h w 3"]
Mask = Float[Array, "b h w 1"]
Corner = Int[Array, "b 2"]

# The streams of a step's key: the hole M_c, the window M_d of the real photographs, the
# augmentation of the discriminators' inputs, the penalty, and latent codes.
HOLES, REAL_PATCHES, NOISE, PENALTY, CODES = 0, 1, 2, 3, 4


class Holes(NamedTuple):
    """The mask of each image, and the corner of the local window around its holes."""

    mask: Mask
    corner: Corner


def example_keys(
    key: Key[Array, ""], stream: int, first: int | Int[Array, ""], count: int
) -> Key[Array, " b"]:
    """Returns `count` keys, for examples `first`, `first + 1`, ... of the whole batch."""
    stream_key = jax.random.fold_in(key, stream)
    indices = jnp.asarray(first, jnp.int32) + jnp.arange(count, dtype=jnp.int32)
    return jax.vmap(lambda index: jax.random.fold_in(stream_key, index))(indices)


def batch_key(key: Key[Array, ""], stream: int) -> Key[Array, ""]:
    """Returns the stream's key for random numbers that all examples share."""
    beyond_all_examples = 2**32 - 1
    return jax.random.fold_in(jax.random.fold_in(key, stream), beyond_all_examples)


def rectangle(
    image_shape: tuple[int, ...], top_left: Int[Array, " 2"], size: Int[Array, " 2"]
) -> Float[Array, "h w 1"]:
    """Returns a mask that is 1 in a rectangle of `size` (height, width)."""
    rows, columns = (
        (start <= at) & (at < start + length)
        for start, length, at in zip(
            top_left, size, map(jnp.arange, image_shape), strict=True
        )
    )
    return (rows[:, None, None] & columns[None, :, None]).astype(jnp.float32)


STROKE_POINTS = 4
STROKE_RADIUS = (1 / 8, 1 / 4)
"""Least and largest radius of a stroke, as a share of its box's shorter side."""


def stroke(
    image_shape: tuple[int, ...],
    top_left: Int[Array, " 2"],
    size: Int[Array, " 2"],
    shares: Float[Array, "n 2"],
) -> Float[Array, "h w 1"]:
    """Returns a mask that is 1 along a line through points of a box, as a brush paints it.

    `shares` are numbers in [0, 1): the first row gives the radius, the others the points,
    which lie as far inside the box as the radius.
    """
    least, largest = STROKE_RADIUS
    corner, sides = (x.astype(jnp.float32)[None] for x in (top_left, size))
    radius = jnp.min(sides) * (least + (largest - least) * shares[0, 0])
    # Every point has a pixel's centre within sqrt(1/2), so that no stroke is empty.
    radius = jnp.maximum(radius, 0.75)
    points = corner + radius + shares[1:] * (sides - 2 * radius)
    rows, columns = (jnp.arange(0.5, length) for length in image_shape)

    def squared_distance(
        start: Float[Array, " 2"], end: Float[Array, " 2"]
    ) -> Float[Array, "h w"]:
        """Returns each pixel's squared distance from a segment."""
        step = end - start
        y, x = (rows - start[0])[:, None], (columns - start[1])[None, :]
        nearest = (y * step[0] + x * step[1]) / (jnp.sum(jnp.square(step)) + 1e-9)
        nearest = jnp.clip(nearest, 0.0, 1.0)
        return jnp.square(y - nearest * step[0]) + jnp.square(x - nearest * step[1])

    squares = jnp.min(jax.vmap(squared_distance)(points[:-1], points[1:]), axis=0)
    return (squares <= jnp.square(radius)).astype(jnp.float32)[..., None]


def sample_holes(
    key: Key[Array, " b"],
    image_shape: tuple[int, ...],
    batch_key: Key[Array, ""] | None = None,
    *,
    min_size: int,
    max_size: int,
    local_size: int,
    max_count: int = 1,
    shared_window: bool = False,
    strokes: float = 0.0,
) -> Holes:
    """Samples holes for each key, inside a local window.

    Width and height are drawn independently from [min_size, max_size] (paper: 96 to
    128). The first hole lies anywhere inside the image; the window of `local_size` is
    centred on it, and shifted to stay inside the image. With a `shared_window` the window
    is drawn first, from `batch_key`, at one place for all images, and the hole lies
    anywhere inside it (GLCIC-PyTorch). An image has 1 to `max_count` holes with equal
    probability; further holes lie anywhere inside the window and may overlap.

    Holes are rectangles. With probability `strokes` the first one is a brush stroke
    inside its rectangle instead.
    """
    bounds = jnp.array(image_shape, jnp.int32)
    if shared_window:
        assert batch_key is not None
        place = _scaled(jax.random.uniform(batch_key, (2,)), bounds - local_size + 1)

    def sizes(share: Float[Array, " 2"]) -> Int[Array, " 2"]:
        return min_size + _scaled(share, max_size - min_size + 1)

    def further(
        shares: Float[Array, "2 2"], corner: Int[Array, " 2"]
    ) -> Float[Array, "h w 1"]:
        size = sizes(shares[0])
        inside = _scaled(shares[1], local_size - size + 1)
        return rectangle(image_shape, corner + inside, size)

    def sample(key: Key[Array, ""]) -> tuple[Float[Array, "h w 1"], Int[Array, " 2"]]:
        # One draw of four numbers in [0, 1), as four draws double the compile time.
        size_share, place_share = jax.random.uniform(key, (2, 2))
        size = sizes(size_share)
        if shared_window:
            corner = place
            top_left = corner + _scaled(place_share, local_size - size + 1)
        else:
            top_left = _scaled(place_share, bounds - size + 1)
            corner = top_left + size // 2 - local_size // 2
            corner = jnp.clip(corner, 0, bounds - local_size)
        mask = rectangle(image_shape, top_left, size)
        if strokes > 0:
            shares = jax.random.uniform(
                jax.random.fold_in(key, 2), (STROKE_POINTS + 2, 2)
            )
            painted = stroke(image_shape, top_left, size, shares[1:])
            mask = jnp.where(shares[0, 0] < strokes, painted * mask, mask)
        if max_count > 1:
            # The first of these rows only gives the number of further holes.
            shares = jax.random.uniform(jax.random.fold_in(key, 1), (max_count, 2, 2))
            more = _scaled(shares[0, 0, :1], max_count)
            others = jax.vmap(further, (0, None))(shares[1:], corner)
            drawn = (jnp.arange(1, max_count) <= more)[:, None, None, None]
            mask = jnp.maximum(mask, jnp.max(jnp.where(drawn, others, 0.0), axis=0))
        return mask, corner

    return Holes(*jax.vmap(sample)(key))


def sample_centered(
    key: Key[Array, " b"],
    image_shape: tuple[int, ...],
    batch_key: Key[Array, ""] | None = None,
    *,
    size: int,
    local_size: int,
) -> Holes:
    """The same square hole in the middle of every image; nothing is drawn."""
    del batch_key
    top_left, corner = (
        jnp.array([(side - inner) // 2 for side in image_shape], jnp.int32)
        for inner in (size, local_size)
    )
    hole = rectangle(image_shape, top_left, jnp.full(2, size, jnp.int32))
    return _for_all(key, hole, corner)


REGION_CELL = 1 / 0.06
"""Pixels from one number of the noise to the next (`res` of the released code)."""
REGION_BELOW = 0.25
"""Threshold of the noise, uniform in [0, 1) at its cells; lower values are the hole."""
REGION_SHARE = (0.2, 0.3)
"""Least and largest share of the image that a region covers."""
REGION_TRIES = 32


def sample_regions(
    key: Key[Array, " b"],
    image_shape: tuple[int, ...],
    batch_key: Key[Array, ""] | None = None,
    *,
    local_size: int,
) -> Holes:
    """One region of any shape for all images: enlarged noise below a threshold.

    The random regions of Context Encoders (Pathak et al. 2016, train_random.lua). Of
    REGION_TRIES drawn from `batch_key` it is the first that covers a share of the image in
    REGION_SHARE; if none does, it is the one that comes nearest. The window, which need
    not contain it, is the middle of the image.
    """
    assert batch_key is not None
    least, largest = REGION_SHARE
    cells = [math.ceil(side / REGION_CELL) + 4 for side in image_shape]

    def region(key: Key[Array, ""]) -> Float[Array, "h w 1"]:
        of_noise, of_place = jax.random.split(key)
        noise = jax.random.uniform(of_noise, cells)
        # Two cells from the noise's own border, and anywhere between two cells.
        place = -(2 + jax.random.uniform(of_place, (2,))) * REGION_CELL
        enlarged = jax.image.scale_and_translate(
            noise, image_shape, (0, 1), jnp.full(2, REGION_CELL), place,
            method="cubic", antialias=False,
        )  # fmt: skip
        return (enlarged < REGION_BELOW).astype(jnp.float32)[..., None]

    regions = jax.vmap(region)(jax.random.split(batch_key, REGION_TRIES))
    shares = jnp.mean(regions, axis=(1, 2, 3))
    away = jnp.maximum(jnp.maximum(least - shares, shares - largest), 0.0)
    corner = [(side - local_size) // 2 for side in image_shape]
    return _for_all(key, regions[jnp.argmin(away)], jnp.array(corner, jnp.int32))


def _for_all(
    key: Key[Array, " b"], mask: Float[Array, "h w 1"], corner: Int[Array, " 2"]
) -> Holes:
    """The same hole and window for each key."""
    count = len(key)
    return Holes(
        jnp.broadcast_to(mask, (count, *mask.shape)),
        jnp.broadcast_to(corner, (count, 2)),
    )


def composite(completed: Images, images: Images, mask: Mask) -> Images:
    """Returns the completed image inside the hole and the photograph outside, bit for bit."""
    return jnp.where(mask > 0, completed, images)


def crop(images: Images, corner: Corner, size: int) -> Float[Array, "b s s 3"]:
    """Cuts the local discriminator's view: a square of `size` at each image's corner."""

    def cut(
        image: Float[Array, "h w 3"], at: Int[Array, " 2"]
    ) -> Float[Array, "s s 3"]:
        start = (at[0], at[1], jnp.zeros_like(at[0]))
        return jax.lax.dynamic_slice(image, start, (size, size, 3))

    return jax.vmap(cut)(images, corner)


def _scaled(
    share: Float[Array, " n"], count: Int[Array, " n"] | int
) -> Int[Array, " n"]:
    """Scales numbers in [0, 1) to integers in [0, count)."""
    counts = jnp.broadcast_to(jnp.asarray(count, jnp.int32), share.shape)
    # The product can round up to the count itself.
    integers = jnp.floor(share * counts.astype(jnp.float32)).astype(jnp.int32)
    return jnp.minimum(integers, counts - 1)
