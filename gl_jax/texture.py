"""Two measures of the texture inside holes that need no trained weights.

The sliced Wasserstein distance compares small patches of a set of completed images with
those of their photographs (Karras et al. 2018, "Progressive Growing of GANs", section 5).
The grid energy detects the grid pattern of upsampling by two. The distance counts such a
pattern as texture, so read both together.

Images are (B, H, W, 3), masks (B, H, W, 1) with 1 = missing, as in `gl_jax.metrics`. Only
patches and squares entirely inside the hole are compared. Holes may have any shape; one
that is too small is left out.
"""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

LEVELS = 2
"""Levels of the Laplacian pyramid: fine and coarse."""
PATCH = 7
"""Side of a patch in pixels of its level."""
PATCHES = 24
"""Patches in each hole and level."""
MOST_PATCHES = 50_000
"""Most patches of a level in an evaluation; above 2,083 photographs each has fewer."""
DIRECTIONS = 256
"""Random directions on which patches are projected."""
SQUARE = 16
"""Side in pixels of the square in which the grid energy is measured."""
FLOOR = 1e-9
"""Added to the power outside the grid, so that a flat square has an energy of 0."""

BLUR = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
"""The pyramid's kernel of Burt and Adelson (1983), also used by OpenCV."""

Images = Shaped[Array, "b h w 3"] | Shaped[np.ndarray, "b h w 3"]
Masks = Shaped[Array, "b h w 1"] | Shaped[np.ndarray, "b h w 1"]
Textures = Float[np.ndarray, "n 2 levels patches d"]
"""Patches of n photographs (index 0) and of the same places in completions (index 1)."""
GRIDS = ("grid_photographs", "grid")
"""Names of the grid energies of photographs and completions."""
Grids = Float[np.ndarray, "n 2"]
"""Grid energies of n photographs (index 0) and of their completions (index 1)."""


class SmallHolesError(ValueError):
    """All holes of a set are too small for a patch."""


class Places(NamedTuple):
    """Top-left corners of the patches and of the square in a hole; -1 if it is too small.

    A batch has an additional first axis.
    """

    patches: (
        Shaped[Array, "*b levels patches 2"] | Shaped[np.ndarray, "*b levels patches 2"]
    )
    square: Shaped[Array, "*b 2"] | Shaped[np.ndarray, "*b 2"]

    @classmethod
    def stacked(cls, each: Iterable["Places"]) -> "Places":
        """Returns the places of several holes as a batch."""
        return cls(*(np.stack(arrays) for arrays in zip(*each, strict=True)))


def swd(
    images: Images,
    targets: Images,
    mask: Masks,
    *,
    levels: int = LEVELS,
    patches: int = PATCHES,
    directions: int = DIRECTIONS,
    seed: int = 0,
    max_value: float | int = 1.0,
) -> list[float]:
    """Returns 1000 x the sliced Wasserstein distance to the targets, finest level first.

    At each level of the Laplacian pyramid, `patches` random places inside the hole are
    drawn for each image, the same in both sets. The 7x7 patches there are projected on
    `directions` random directions, sorted and compared. `seed` determines places and
    directions. Each level halves the image and the hole.

    Unlike in Karras et al., patches are not normalised by channel, so that a fill without
    contrast is far from a photograph. The distance depends on the number of images; only
    compare sets of the same size.

    Raises SmallHolesError if no hole holds a patch at one of the levels; single holes that
    are too small are left out.
    """
    _check(images, mask, max_value)
    if images.shape != targets.shape:
        raise ValueError(
            f"images {images.shape} and targets {targets.shape} must be two batches "
            "(B, H, W, 3) of the same shape."
        )
    counts = {"levels": levels, "patches": patches, "directions": directions}
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} (={value}) must be at least 1.")
    drawn = Places.stacked(
        places(hole, number, levels=levels, patches=patches, seed=seed)
        for number, hole in enumerate(np.asarray(mask, bool)[..., 0])
    )
    corners = np.asarray(drawn.patches)
    for level in range(levels):
        if (corners[:, level] < 0).all():
            raise SmallHolesError(
                f"no hole holds {PATCH}x{PATCH} pixels of level {level}, that is "
                f"{PATCH * 2**level}x{PATCH * 2**level} of the image; use larger holes "
                "or fewer levels."
            )
    sets = [jnp.asarray(x, jnp.float32) / max_value for x in (targets, images)]
    textures = np.stack([descriptors(x, jnp.asarray(corners)) for x in sets], axis=1)
    return sliced_wasserstein(textures, directions=directions, seed=seed)


def grid_energy(
    images: Images, mask: Masks, *, max_value: float | int = 1.0
) -> Float[Array, " b"]:
    """Returns the ratio of power at periods of 2 and 4 pixels to other power, per image.

    It is measured in the grey 16x16 square inside the hole that is closest to its centre,
    without its mean and under a Hann window. Networks that upsample by two make grid
    patterns of these periods; the energy of photographs is about 0.3. NaN for a hole
    without such a square.
    """
    _check(images, mask, max_value)
    corners = np.stack([_square(hole) for hole in np.asarray(mask, bool)[..., 0]])
    values = jnp.asarray(images, jnp.float32) / max_value
    return grid_energies(values, jnp.asarray(corners))


def places(
    mask: Bool[np.ndarray, "h w"],
    number: int,
    *,
    levels: int = LEVELS,
    patches: int = PATCHES,
    seed: int = 0,
) -> Places:
    """Returns the patches and the square to measure in the hole of image `number`.

    Patches are drawn uniformly from all inside the hole, with the seed
    (seed, number, level).
    """
    corners = np.full((levels, patches, 2), -1, np.int32)
    for level in range(levels):
        candidates = _fitting(mask[:: 2**level, :: 2**level], PATCH)
        if len(candidates):
            rng = np.random.default_rng((seed, number, level))
            corners[level] = candidates[rng.integers(len(candidates), size=patches)]
    return Places(corners, _square(mask))


def patches_each(holes: int) -> int:
    """Returns the patches of each hole: `PATCHES`, or fewer for more than 2,083 holes."""
    return max(1, min(PATCHES, MOST_PATCHES // holes))


def measure(
    images: Float[Array, "b h w 3"], targets: Float[Array, "b h w 3"], where: Places
) -> tuple[dict[str, Array], Float[Array, "b 2 levels patches d"]]:
    """Returns the grid energies of completed images and photographs, and their patches.

    Images are in [0, 1]. `of_set` combines the results of all images of a set.
    """
    pair = (targets, images)
    patches = [descriptors(x, jnp.asarray(where.patches)) for x in pair]
    energies = [grid_energies(x, jnp.asarray(where.square)) for x in pair]
    # float16, because they are stored on disk and 11 bits are enough.
    textures = jnp.stack(patches, axis=1).astype(jnp.float16)
    return dict(zip(GRIDS, energies, strict=True)), textures


def of_set(textures: Textures, grids: Grids) -> dict[str, float]:
    """Returns SWD and the medians of the grid energies by name; NaN without values."""
    fine, coarse = sliced_wasserstein(textures)
    values = {"swd_fine": fine, "swd_coarse": coarse}
    for name, energies in zip(GRIDS, grids.T, strict=True):
        present = energies[~np.isnan(energies)]
        values[name] = float(np.median(present)) if len(present) else float("nan")
    return values


@jax.jit
def descriptors(
    images: Float[Array, "b h w 3"], corners: Int[Array, "b levels patches 2"]
) -> Float[Array, "b levels patches d"]:
    """Returns patches of the Laplacian pyramid as rows of numbers; NaN at -1."""

    def patch(band: Array, corner: Array) -> Array:
        return jax.lax.dynamic_slice(
            band, (corner[0], corner[1], 0), (PATCH, PATCH, band.shape[2])
        ).reshape(-1)

    rows = [
        jax.vmap(jax.vmap(patch, (None, 0)))(band, corners[:, level])
        for level, band in enumerate(laplacian(images, corners.shape[1]))
    ]
    return jnp.where(corners[..., :1] >= 0, jnp.stack(rows, axis=1), jnp.nan)


def sliced_wasserstein(
    textures: Textures, *, directions: int = DIRECTIONS, seed: int = 0
) -> list[float]:
    """Returns 1000 x the distance of a set's patches at each level; NaN without patches."""
    rays = np.random.default_rng(seed).normal(size=(textures.shape[-1], directions))
    rays /= np.linalg.norm(rays, axis=0)
    distances = []
    for level in range(textures.shape[2]):
        rows = textures[:, :, level].astype(np.float32)
        rows = rows[~np.isnan(rows[:, 0, 0, 0])]
        if not len(rows):
            distances.append(float("nan"))
            continue
        truth, completed = (
            np.sort(rows[:, side].reshape(-1, len(rays)) @ rays, axis=0)
            for side in (0, 1)
        )
        distances.append(1000 * float(np.abs(completed - truth).mean()))
    return distances


@jax.jit
def grid_energies(
    images: Float[Array, "b h w 3"], corners: Int[Array, "b 2"]
) -> Float[Array, " b"]:
    """Returns the grid energy in the square at each corner; NaN at -1."""
    window = np.hanning(SQUARE + 2)[1:-1].astype(np.float32)
    multiple = np.arange(SQUARE) % (SQUARE // 4) == 0
    grid = np.outer(multiple, multiple)
    elsewhere = ~grid
    grid[0, 0] = False

    def energy(image: Array, corner: Array) -> Array:
        grey = jnp.mean(image, axis=2)
        square = jax.lax.dynamic_slice(grey, (corner[0], corner[1]), (SQUARE, SQUARE))
        waves = jnp.fft.fft2((square - square.mean()) * np.outer(window, window))
        power = jnp.square(jnp.abs(waves))
        return power[grid].mean() / (power[elsewhere].mean() + FLOOR)

    return jnp.where(corners[:, 0] >= 0, jax.vmap(energy)(images, corners), jnp.nan)


def laplacian(images: Float[Array, "b h w c"], levels: int) -> list[Array]:
    """Returns the bands of the Laplacian pyramid, the finest first.

    Each is the difference between a level and its halved and doubled version, by the
    method of `cv2.pyrDown` and `pyrUp`. The remainder after the last level is dropped.
    """
    bands = []
    for _ in range(levels):
        smaller = _halved(images)
        bands.append(images - _doubled(smaller, images.shape[1:3]))
        images = smaller
    return bands


def left_out(textures: Textures, grids: Grids) -> list[str]:
    """Returns a line for each measure that leaves out holes as too small."""
    small = np.isnan(textures[:, 0, :, 0, 0]).sum(axis=0)
    parts = [(f"SWD {name}", PATCH * 2**i) for i, name in enumerate(("fine", "coarse"))]
    parts.append(("grid", SQUARE))
    counts = [*small, np.isnan(grids[:, 0]).sum()]
    return [
        f"{name}: {count} of {len(textures)} holes are left out, because they hold no "
        f"square of {side}x{side} pixels."
        for (name, side), count in zip(parts, counts, strict=True)
        if count
    ]


def _check(images: Images, mask: Masks, max_value: float | int) -> None:
    shape = (*images.shape[:3], 1)
    if mask.shape != shape:
        raise ValueError(f"mask {mask.shape} must be {shape}, one value per pixel.")
    if min(shape[1:3]) < SQUARE:
        raise ValueError(
            f"images must have at least {SQUARE}x{SQUARE} pixels; these are "
            f"{shape[1]}x{shape[2]}."
        )
    if jnp.issubdtype(images.dtype, jnp.integer) and max_value <= 1:
        raise ValueError(
            f"max_value (={max_value}) does not fit {images.dtype} images: give the "
            "largest value, 255 for bytes."
        )


def _fitting(mask: Bool[np.ndarray, "h w"], side: int) -> Int[np.ndarray, "n 2"]:
    """Returns the corners of all squares that lie in the hole."""
    if min(mask.shape) < side:
        return np.zeros((0, 2), int)
    for axis in (0, 1):
        windows = np.lib.stride_tricks.sliding_window_view(mask, side, axis)
        mask = np.asarray(windows.all(axis=-1))
    return np.argwhere(mask)


def _square(mask: Bool[np.ndarray, "h w"]) -> Int[np.ndarray, " 2"]:
    """Returns the corner of the square inside the hole closest to its centre, or -1."""
    corners = _fitting(mask, SQUARE)
    if not len(corners):
        return np.full(2, -1, np.int32)
    pixels = np.argwhere(mask)
    middle = (pixels.min(axis=0) + pixels.max(axis=0)) // 2 - SQUARE // 2
    nearest = np.square(corners - middle).sum(axis=1).argmin()
    return corners[nearest].astype(np.int32)


def _halved(images: Float[Array, "b h w c"]) -> Float[Array, "b y x c"]:
    # Sums instead of a convolution, which may round its operands to fewer bits.
    for axis in (1, 2):
        length, margin = images.shape[axis], [(0, 0)] * 4
        margin[axis] = (2, 2)
        padded = jnp.pad(images, margin, mode="reflect")
        images = sum(
            (
                weight * jax.lax.slice_in_dim(padded, tap, tap + length, 2, axis)
                for tap, weight in enumerate(BLUR)
            ),
            start=jnp.zeros((), images.dtype),
        )
    return images


def _doubled(
    images: Float[Array, "b h w c"], size: tuple[int, ...]
) -> Float[Array, "b y x c"]:
    """Doubles images to `size`, which is twice theirs or one less."""
    for axis, length in zip((1, 2), size, strict=True):
        # OpenCV's border: mirrored at the start, repeated at the end.
        margin = [(0, 0)] * 4
        margin[axis] = (1, 0)
        before = jnp.pad(images, margin, mode="reflect")
        before = jax.lax.slice_in_dim(before, 0, images.shape[axis], axis=axis)
        margin[axis] = (0, 1)
        after = jnp.pad(images, margin, mode="edge")
        after = jax.lax.slice_in_dim(after, 1, None, axis=axis)
        pairs = jnp.stack([(before + 6 * images + after) / 8, (images + after) / 2])
        pairs = jnp.moveaxis(pairs, 0, axis + 1)
        shape = list(images.shape)
        shape[axis] *= 2
        images = jax.lax.slice_in_dim(pairs.reshape(shape), 0, length, axis=axis)
    return images
