"""Winograd's algorithm: 3x3 convolutions with a quarter to a half of the products.

A tile of inputs, a 3x3 kernel and a tile of outputs are treated as polynomials: they are
evaluated at a few points along each axis, multiplied there, and interpolated (Lavin and
Gray 2016). The products at one point, for all tiles and features, are one matrix product.
A dilated convolution does this separately for each of its interleaved grids of pixels.

Larger tiles need fewer products, but have larger rounding errors. With the points 0,
±1/√2, ±√2 and infinity a tile of 4 outputs has half the error of the usual 0, ±1, ±2.
Products for each output (instead of 9) and rounding error relative to the definition's:
tiles of 2x2 need 4 and have 2 times the error, 2x4 need 3 and have 3 times, 4x4, used for
weight gradients, need 2.25 and have 6 times. float32 only.

The transforms are limited by memory traffic, so blocks of tiles that fit into the cache
are processed one after another, from the inputs to the outputs.
"""

from collections.abc import Sequence
from math import ceil, sqrt

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.polynomial.polynomial import polyfromroots

VALUES = 2**20
"""Values of the inputs or outputs of one block: 4 MB."""

GRADIENT_VALUES = 3 * 2**19
"""Values of inputs and errors together in one block of a weight gradient: 6 MB."""

MOST_PADDING = 1.25
"""Largest ratio of pixels after and before padding the sides to complete tiles."""

Images = Float[Array, "b h w f"]
Kernel = Float[Array, "3 3 i o"]
AtPoints = list[Float[Array, "v _ _"]]
"""For each row of points, the matrices at its v points."""


class _Axis:
    """Tiles along one axis: the matrices that transform kernels, inputs and products."""

    def __init__(self, *points: float) -> None:
        self.points = len(points) + 1  # the last is infinity
        self.tile = self.points - 2
        self.outputs = _powers(points, self.tile).T
        scales = [np.prod(np.delete(points, i) - p) for i, p in enumerate(points)]
        self.kernel = _powers(points, 3) / np.array([*scales, 1.0])[:, None]
        self.inputs = np.zeros((self.points, self.points))
        for index in range(len(points)):
            self.inputs[index, :-1] = polyfromroots(np.delete(points, index))
        self.inputs[-1] = polyfromroots(points)

    def filled(self, side: int, dilation: int) -> int:
        """Rounds a side up to complete tiles in every grid of the dilation."""
        return ceil(side / (self.tile * dilation)) * self.tile * dilation


def _powers(points: Sequence[float], count: int) -> np.ndarray:
    """Evaluates a polynomial of `count` coefficients at the points, infinity last."""
    powers = np.array([[point**k for k in range(count)] for point in points])
    return np.vstack([powers, [0.0] * (count - 1) + [1.0]])


_OF_2 = _Axis(0, 1, -1)
_OF_4 = _Axis(0, sqrt(0.5), -sqrt(0.5), sqrt(2), -sqrt(2))
Tiles = tuple[_Axis, _Axis]
TILES_2X2, TILES_2X4, TILES_4X4 = (_OF_2, _OF_2), (_OF_2, _OF_4), (_OF_4, _OF_4)


def fits(sides: Sequence[int], dilation: int) -> bool:
    """Returns whether padding images to complete tiles adds few pixels."""
    height, width = (_OF_4.filled(side, dilation) for side in sides)
    return height * width <= MOST_PADDING * sides[0] * sides[1]


def convolve(
    inputs: Images,
    kernel: Kernel,
    dilation: int,
    tiles: Tiles,
    *,
    transposed: bool = False,
) -> Images:
    """Computes a 3x3 convolution of stride 1, with zero padding of `dilation`.

    With `transposed` it computes the input gradient of such a convolution.
    """
    rows, columns = tiles
    if transposed:
        kernel = kernel[::-1, ::-1]
    summed, features = (2, kernel.shape[2]) if transposed else (1, kernel.shape[3])
    blocks = _Blocks(inputs.shape, tiles, dilation, VALUES // max(kernel.shape[2:]))
    padded = blocks.padded(inputs)
    weights = _transformed(kernel.swapaxes(0, 1), tiles)

    def complete(index: Array, outputs: Array) -> Array:
        points = _input_tiles(blocks.cut_around(padded, index), tiles, dilation)
        products = [
            jax.lax.dot_general(point, weight, (((2,), (summed,)), ((0,), (0,))))
            for point, weight in zip(points, weights, strict=True)
        ]
        image, row = blocks.start(index)
        for number, line in enumerate(_combinations(rows.outputs, products)):
            parts = _combinations(columns.outputs, line)
            written = jnp.stack([part.reshape(blocks.tiles) for part in parts], axis=4)
            start = (image, row, number, 0, 0, 0)
            written = written.reshape(*blocks.tiles[:2], 1, dilation, -1, features)
            outputs = jax.lax.dynamic_update_slice(outputs, written, start)
        return outputs

    # Each line of the tiles is written separately, because XLA would compile a joint
    # write to a selection by line for every value.
    count, height, width = blocks.filled
    shape = (count, height // blocks.high, rows.tile, dilation, width, features)
    outputs = jax.lax.full_like(inputs, 0, shape=shape)
    outputs = jax.lax.fori_loop(0, blocks.count, complete, outputs)
    outputs = outputs.reshape(count, height, width, features)
    return outputs[:, : inputs.shape[1], : inputs.shape[2]]


def weight_gradient(inputs: Images, errors: Images, dilation: int) -> Kernel:
    """Computes the kernel's gradient of `convolve` from `errors`, the outputs' gradient."""
    rows, columns = tiles = TILES_4X4
    features = (inputs.shape[3], errors.shape[3])
    blocks = _Blocks(inputs.shape, tiles, dilation, GRADIENT_VALUES // sum(features))
    padded, cut = blocks.padded(inputs), blocks.whole(errors)

    def add(index: Array, totals: AtPoints) -> AtPoints:
        points = _input_tiles(blocks.cut_around(padded, index), tiles, dilation)
        spread = _error_tiles(blocks.cut(cut, index), tiles, dilation)
        return [
            total + jax.lax.dot_general(point, error, (((1,), (1,)), ((0,), (0,))))
            for total, point, error in zip(totals, points, spread, strict=True)
        ]

    zeros = jax.lax.full_like(inputs, 0, shape=(columns.points, *features))
    totals = jax.lax.fori_loop(0, blocks.count, add, [zeros] * rows.points)
    lines = _combinations(rows.kernel.T, totals)
    taps = [jnp.stack(_combinations(columns.kernel.T, line)) for line in lines]
    return jnp.stack(taps)


# ---- The transforms ------------------------------------------------------------------

# First along the columns, then one row of points at a time, because XLA would write all
# 24 or 36 arrays to a temporary first.


def _transformed(kernel: Kernel, tiles: Tiles) -> AtPoints:
    """Evaluates a kernel, with its columns of taps first, at the points."""
    rows, columns = tiles
    lines = _stacked(_combinations(columns.kernel, kernel))
    return _combinations(rows.kernel, lines.swapaxes(0, 1))


def _input_tiles(block: Images, tiles: Tiles, dilation: int) -> AtPoints:
    """Evaluates overlapping tiles of inputs at the points: [v, t, f]."""
    rows, columns = tiles
    windows = _windows(block, 2, columns, dilation)
    lines = _stacked(_combinations(columns.inputs, windows))
    windows = _windows(lines, 2, rows, dilation)
    return [_flat(row) for row in _combinations(rows.inputs, windows)]


def _error_tiles(block: Images, tiles: Tiles, dilation: int) -> AtPoints:
    """Evaluates tiles of errors at the points: [v, t, f]."""
    rows, columns = tiles
    lines = _stacked(
        _combinations(columns.outputs.T, _split(block, 2, columns, dilation))
    )
    parts = _split(lines, 2, rows, dilation)
    return [_flat(row) for row in _combinations(rows.outputs.T, parts)]


def _stacked(parts: Sequence[Array]) -> Array:
    """Stacks arrays behind a barrier: XLA would fuse and compute them many times."""
    return jax.lax.optimization_barrier(jnp.stack(parts))


def _flat(points: Float[Array, "v b y d x e f"]) -> Float[Array, "v t f"]:
    return points.reshape(len(points), -1, points.shape[-1])


def _combinations(matrix: np.ndarray, parts: Sequence[Array] | Array) -> list[Array]:
    """Multiplies the matrix by a vector whose entries are arrays."""
    return [_combination(weights, parts) for weights in matrix]


def _combination(weights: np.ndarray, parts: Sequence[Array] | Array) -> Array:
    terms = [
        part if weight == 1 else part * np.asarray(weight, part.dtype)
        for weight, part in zip(weights, parts, strict=True)
        if abs(weight) > 1e-9  # smaller ones are rounding errors of 0
    ]
    return sum(terms[1:], terms[0])


# ---- Tiles and blocks ----------------------------------------------------------------


def _split(block: Array, place: int, axis: _Axis, dilation: int) -> list[Array]:
    """Returns the first, second, ... pixel of each tile on an axis: [..., tiles, d, ...]."""
    before, after = block.shape[:place], block.shape[place + 1 :]
    split = block.reshape(*before, -1, axis.tile, dilation, *after)
    return [
        jax.lax.index_in_dim(split, k, axis=place + 1, keepdims=False)
        for k in range(axis.tile)
    ]


def _windows(block: Array, place: int, axis: _Axis, dilation: int) -> list[Array]:
    """Does the same for tiles that share their last two pixels with the next tile."""
    parts = _split(block, place, axis, dilation)
    count = parts[0].shape[place] - 1
    return [
        jax.lax.slice_in_dim(
            parts[k % axis.tile], k // axis.tile, k // axis.tile + count, axis=place
        )
        for k in range(axis.points)
    ]


class _Blocks:
    """Images in equal blocks of complete rows of tiles, with up to about `pixels` pixels."""

    def __init__(
        self, shape: Sequence[int], tiles: Tiles, dilation: int, pixels: int
    ) -> None:
        images, height, width = shape[:3]
        self._dilation = dilation
        self.high, self._wide = (axis.tile * dilation for axis in tiles)
        sides = [
            axis.filled(side, dilation)
            for axis, side in zip(tiles, shape[1:3], strict=True)
        ]
        self.filled = (images, *sides)
        self._missing = (sides[0] - height, sides[1] - width)
        down = sides[0] // self.high
        most = pixels // (self.high * sides[1])
        rows = divisor(down, most)
        together = divisor(images, most // rows) if rows == down else 1
        self.tiles = (together, rows, dilation, sides[1] // self._wide, dilation, -1)
        self._per_image = down // rows
        self.count = images // together * self._per_image

    def whole(self, images: Array) -> Array:
        """Pads with zeros below and on the right, up to complete tiles."""
        below, right = self._missing
        return jnp.pad(images, ((0, 0), (0, below), (0, right), (0, 0)))

    def padded(self, images: Array) -> Array:
        """Pads with zeros on all sides, for the overlap of the first and last tiles."""
        around = [
            (self._dilation, missing + side - self._dilation)
            for missing, side in zip(
                self._missing, (self.high, self._wide), strict=True
            )
        ]
        return jnp.pad(images, ((0, 0), *around, (0, 0)))

    def start(self, index: Array) -> tuple[Array, Array]:
        """Returns the first image and row of tiles of block `index`."""
        together, rows = self.tiles[:2]
        return index // self._per_image * together, index % self._per_image * rows

    def cut(self, images: Array, index: Array, beyond: int = 0) -> Array:
        """Cuts block `index` of `whole` images, with `beyond` more rows of pixels."""
        together, rows = self.tiles[:2]
        image, row = self.start(index)
        sizes = (together, rows * self.high + beyond, *images.shape[2:])
        return jax.lax.dynamic_slice(images, (image, row * self.high, 0, 0), sizes)

    def cut_around(self, images: Array, index: Array) -> Array:
        """Cuts block `index` of `padded` images, with the overlap of its last tiles."""
        return self.cut(images, index, self.high)


def divisor(number: int, most: int) -> int:
    """Returns the largest divisor of `number` up to `most`, at least 1."""
    return max(n for n in range(1, max(1, most) + 1) if number % n == 0)
