"""The hole in a photograph and the local window around it, sampled on the device.

One convention everywhere: images are float RGB in [0, 1], [batch, height, width, 3];
`mask` is float [batch, height, width, 1] with 1 = missing; a `corner` is the integer
(y, x) of a window's top-left pixel.

Randomness is per example: every function takes one key for each image, made by
`example_keys` from the example's index in the whole batch, so that a run draws the same
holes however its batch is spread over devices, hosts and accumulation pieces.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

Images = Float[Array, "b h w 3"]
Mask = Float[Array, "b h w 1"]
Corner = Int[Array, "b 2"]

# The streams of a step's key: the hole M_c, the window M_d of the real photographs, the
# augmentation of what the discriminators see, and what a penalty draws.
HOLES, REAL_PATCHES, NOISE, PENALTY = 0, 1, 2, 3


class Holes(NamedTuple):
    """A hole for each image, and the corner of the local window centred on it."""

    mask: Mask
    corner: Corner


def example_keys(
    key: Key[Array, ""], stream: int, first: int | Int[Array, ""], count: int
) -> Key[Array, " b"]:
    """One key for each example `first`, `first + 1`, ... of the whole batch."""
    stream_key = jax.random.fold_in(key, stream)
    indices = jnp.asarray(first, jnp.int32) + jnp.arange(count, dtype=jnp.int32)
    return jax.vmap(lambda index: jax.random.fold_in(stream_key, index))(indices)


def batch_key(key: Key[Array, ""], stream: int) -> Key[Array, ""]:
    """The stream's key for what all examples of the batch share."""
    beyond_all_examples = 2**32 - 1
    return jax.random.fold_in(jax.random.fold_in(key, stream), beyond_all_examples)


def sample_holes(
    key: Key[Array, " b"],
    image_shape: tuple[int, ...],
    batch_key: Key[Array, ""] | None = None,
    *,
    min_size: int,
    max_size: int,
    local_size: int,
) -> Holes:
    """One rectangular hole for each key, anywhere inside the image.

    Width and height are drawn independently from [min_size, max_size] (paper: 96 to
    128), the position uniformly among those inside the image. The local window of
    `local_size` is centred on the hole and shifted where it would leave the image.
    """

    def sample(key: Key[Array, ""]) -> tuple[Float[Array, "h w 1"], Int[Array, " 2"]]:
        bounds = jnp.array(image_shape, jnp.int32)
        # One draw of four numbers in [0, 1): a draw each would double the compile time.
        size_share, place_share = jax.random.uniform(key, (2, 2))
        size = min_size + _scaled(size_share, max_size - min_size + 1)
        top_left = _scaled(place_share, bounds - size + 1)
        inside = [
            (start <= at) & (at < start + length)
            for start, length, at in zip(
                top_left, size, map(jnp.arange, image_shape), strict=True
            )
        ]
        mask = (inside[0][:, None, None] & inside[1][None, :, None]).astype(jnp.float32)
        corner = top_left + size // 2 - local_size // 2
        return mask, jnp.clip(corner, 0, bounds - local_size)

    return Holes(*jax.vmap(sample)(key))


def fill(images: Images, mask: Mask, mean_color: Float[Array, " 3"]) -> Images:
    """The photographs with their holes painted in the mean colour of the training set."""
    return images * (1 - mask) + mask * mean_color[None, None, None, :]


def network_input(
    images: Images, mask: Mask, mean_color: Float[Array, " 3"]
) -> Float[Array, "b h w 4"]:
    """What the completion network sees: the filled photograph less the mean, and the mask.

    After the subtraction the hole holds 0, as does the padding around the image (the
    authors' inpaint.lua). The network's output is a colour in [0, 1]: no mean is added.
    """
    centred = fill(images, mask, mean_color) - mean_color[None, None, None, :]
    return jnp.concatenate([centred, mask], axis=-1)


def composite(completed: Images, images: Images, mask: Mask) -> Images:
    """The completed hole in the photograph; outside the hole the photograph to the bit."""
    return jnp.where(mask > 0, completed, images)


def crop(images: Images, corner: Corner, size: int) -> Float[Array, "b s s 3"]:
    """The local discriminator's view: one square of `size` for each image at its corner."""

    def cut(
        image: Float[Array, "h w 3"], at: Int[Array, " 2"]
    ) -> Float[Array, "s s 3"]:
        start = (at[0], at[1], jnp.zeros_like(at[0]))
        return jax.lax.dynamic_slice(image, start, (size, size, 3))

    return jax.vmap(cut)(images, corner)


def _scaled(
    share: Float[Array, " 2"], count: Int[Array, " 2"] | int
) -> Int[Array, " 2"]:
    """Numbers in [0, 1) to integers in [0, count)."""
    counts = jnp.broadcast_to(jnp.asarray(count, jnp.int32), share.shape)
    # The product can round up to the count itself.
    whole = jnp.floor(share * counts.astype(jnp.float32)).astype(jnp.int32)
    return jnp.minimum(whole, counts - 1)
