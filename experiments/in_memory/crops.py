"""Crops of photographs and holes in them, drawn on the device.

Everything is a pure function of the key, the step and the example's place in its batch.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt8

from gl_jax.holes import Holes, sample_holes

ORDER, CROPS = 0, 1
"""Streams of the key: the order of the photographs, and what is done to each."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the brightness, after ITU-R BT.601."""

STROKED = 0.25
"""Share of the examples whose hole is a stroke."""
POINTS = 5
"""Points that a stroke goes through."""


@dataclass(frozen=True)
class Crops:
    """The crops of a run: their side, and how far photographs are changed."""

    size: int
    """Side of the crop in pixels; photographs are no smaller."""
    enlarged: float = 1.25
    """Half of the photographs are shown as large as they fit in, the others enlarged by a
    factor up to this one."""
    jitter: float = 0.1
    """Largest relative change of brightness, contrast and saturation."""


def draw(
    photographs: UInt8[Array, "n side side 3"],
    key: Key[Array, ""],
    step: Int[Array, ""],
    count: int,
    crops: Crops,
) -> UInt8[Array, "count size size 3"]:
    """The batch of a step: each photograph once an epoch, in another order every time."""
    of_all = len(photographs)
    example = step * count + jnp.arange(count)
    epoch, place = example // of_all, example % of_all
    # A batch may begin in one epoch and end in the next one, and a large one goes on.
    epochs = epoch[0] + jnp.arange(-(-count // of_all) + 1)
    keys = jax.vmap(lambda e: jax.random.fold_in(jax.random.fold_in(key, ORDER), e))
    orders = jax.vmap(lambda k: jax.random.permutation(k, of_all))(keys(epochs))
    chosen = photographs[orders[epoch - epoch[0], place]]
    stream = jax.random.fold_in(key, CROPS)
    crop_keys = jax.vmap(lambda e: jax.random.fold_in(stream, e))(example)
    return jax.vmap(lambda k, image: _changed(k, image, crops))(crop_keys, chosen)


def mixed_holes(
    keys: Key[Array, " b"],
    image_shape: tuple[int, ...],
    batch_key: Key[Array, ""] | None = None,
    *,
    min_size: int,
    max_size: int,
    local_size: int,
) -> Holes:
    """Rectangles with sides from `min_size` to `max_size`, and some strokes.

    Sides are drawn uniformly, that of a stroke is its brush. All lies in the window.
    """
    del batch_key
    rectangles = sample_holes(
        keys, image_shape, min_size=min_size, max_size=max_size, local_size=local_size
    )

    def stroke(key: Key[Array, ""]) -> tuple[Float[Array, "h w 1"], Int[Array, " 2"]]:
        place_key, point_key, width_key = jax.random.split(
            jax.random.fold_in(key, 1), 3
        )
        bounds = jnp.array(image_shape, jnp.int32) - local_size + 1
        corner = jax.random.randint(place_key, (2,), 0, bounds)
        width = jax.random.uniform(
            width_key, minval=min_size / 2, maxval=min_size * 1.5
        )
        shares = jax.random.uniform(point_key, (POINTS, 2))
        # Half a brush inside the window, and pixels are meant by their middles.
        first = corner.astype(jnp.float32) + width / 2
        points = first[None] + shares * (local_size - 1 - width)
        rows, columns = (jnp.arange(side, dtype=jnp.float32) for side in image_shape)
        pixels = jnp.stack(jnp.meshgrid(rows, columns, indexing="ij"), axis=-1)
        near = _distance(pixels, points[:-1], points[1:]) <= width / 2
        return near.astype(jnp.float32)[..., None], corner

    strokes = Holes(*jax.vmap(stroke)(keys))
    drawn = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 2)))(keys)
    stroked = drawn < STROKED
    return Holes(
        jnp.where(stroked[:, None, None, None], strokes.mask, rectangles.mask),
        jnp.where(stroked[:, None], strokes.corner, rectangles.corner),
    )


def _changed(
    key: Key[Array, ""], photograph: UInt8[Array, "side side 3"], crops: Crops
) -> UInt8[Array, "size size 3"]:
    side, size = photograph.shape[0], crops.size
    shares = jax.random.uniform(key, (8,))
    enlarged = 1 + (crops.enlarged - 1) * shares[1]
    scale = size / side * jnp.where(shares[0] < 0.5, 1.0, enlarged)
    image = photograph.astype(jnp.float32)
    image = jnp.where(shares[2] < 0.5, image, image[:, ::-1])
    image = jax.image.scale_and_translate(
        image,
        (size, size, 3),
        (0, 1),
        jnp.stack([scale, scale]),
        -shares[3:5] * (scale * side - size),
        "cubic",
    )
    brightness, contrast, saturation = 1 + crops.jitter * (2 * shares[5:] - 1)
    luma = jnp.array(LUMA, jnp.float32)
    image = brightness * image
    mean = jnp.mean(image @ luma)
    image = mean + contrast * (image - mean)
    grey = (image @ luma)[..., None]
    image = grey + saturation * (image - grey)
    return jnp.clip(jnp.round(image), 0, 255).astype(jnp.uint8)


def _distance(
    pixels: Float[Array, "h w 2"],
    starts: Float[Array, "n 2"],
    ends: Float[Array, "n 2"],
) -> Float[Array, "h w"]:
    """The distance of each pixel from the nearest of these straight lines."""

    def of_line(start: Float[Array, " 2"], end: Float[Array, " 2"]) -> Array:
        line, offset = end - start, pixels - start[None, None]
        along = offset @ line / jnp.maximum(line @ line, 1e-6)
        nearest = jnp.clip(along, 0.0, 1.0)[..., None] * line[None, None]
        return jnp.linalg.norm(offset - nearest, axis=-1)

    return jnp.min(jax.vmap(of_line)(starts, ends), axis=0)
