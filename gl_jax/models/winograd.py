"""3x3 convolutions with a third of the products: Winograd's F(4x2, 3x3) and F(4x4, 3x3).

A tile of inputs, a 3x3 kernel and a tile of outputs are seen as polynomials: they are
evaluated at a few points along each axis, multiplied there, and interpolated (Lavin and
Gray 2016). Products at one point, of all tiles and between all features, are one matrix
product. A dilated convolution does the same in each of the grids of pixels that it sees.

Larger tiles need fewer products and round more. With the points 0, ±1/√2, ±√2 and infinity
a tile of 4 outputs has half the error of the usual 0, ±1, ±2. A convolution takes 4 rows
and 2 columns at a time, 3 products for each output instead of 9 and three times the
definition's rounding; a weight gradient, whose rounding nothing amplifies, takes 4 and 4,
2.25 products. It is for float32 only.

The transforms are memory traffic, so a block of tiles that fits into the cache is done at
a time, from the inputs to the outputs.
"""

from math import ceil, sqrt

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.polynomial.polynomial import polyfromroots

VALUES = 2**20
"""Of inputs or outputs to convolve at a time: 4 MB, half a row of their tiles' points."""

PIXELS = 4096
"""To take a weight gradient of at a time, whatever their features."""

MOST_PADDING = 1.25
"""Times the pixels there are, when the sides are filled up to whole tiles."""

Inputs = Float[Array, "b h w i"]
Outputs = Float[Array, "b h w o"]
Kernel = Float[Array, "3 3 i o"]
Products = Float[Array, "v t f"]
Weights = Float[Array, "v i o"]


class _Axis:
    """Tiles along one axis: three linear maps, whose transposes are the other three."""

    def __init__(self, *points: float) -> None:
        self.points = len(points) + 1  # infinity is the last
        self.tile = self.points - 2
        self.outputs = _powers(points, self.tile).T
        scales = [np.prod(np.delete(points, i) - p) for i, p in enumerate(points)]
        self.kernel = _powers(points, 3) / np.array([*scales, 1.0])[:, None]
        self.inputs = np.zeros((self.points, self.points))
        for index in range(len(points)):
            self.inputs[index, :-1] = polyfromroots(np.delete(points, index))
        self.inputs[-1] = polyfromroots(points)

    def filled(self, side: int, dilation: int) -> int:
        """The side filled up to whole tiles of every grid of the dilation."""
        return ceil(side / (self.tile * dilation)) * self.tile * dilation


def _powers(points: tuple[float, ...], count: int) -> np.ndarray:
    """Evaluates a polynomial of `count` coefficients at the points, infinity last."""
    powers = np.array([[point**k for k in range(count)] for point in points])
    return np.vstack([powers, [0.0] * (count - 1) + [1.0]])


_OF_2 = _Axis(0, 1, -1)
_OF_4 = _Axis(0, sqrt(0.5), -sqrt(0.5), sqrt(2), -sqrt(2))
_Axes = tuple[_Axis, _Axis]
_FORWARD, _GRADIENT = (_OF_4, _OF_2), (_OF_4, _OF_4)


def fits(shape: tuple[int, ...], dilation: int) -> bool:
    """Whether images of this shape are not much smaller than the whole tiles over them."""
    height, width = (_OF_4.filled(side, dilation) for side in shape[1:3])
    return height * width <= MOST_PADDING * shape[1] * shape[2]


def convolve(inputs: Inputs, kernel: Kernel, dilation: int) -> Outputs:
    """The "same" convolution of stride 1: zero padding of `dilation`."""
    weights = _kernel_rows(kernel, _FORWARD)
    blocks = _Blocks(inputs.shape, _FORWARD, dilation, VALUES // max(kernel.shape[2:]))
    padded = blocks.padded(inputs)

    def complete(index: Array, outputs: Array) -> Array:
        tiles = _input_rows(blocks.cut(padded, index, halo=True), _FORWARD, dilation)
        products = [
            jax.lax.dot_general(row, weight, (((2,), (1,)), ((0,), (0,))))
            for row, weight in zip(tiles, weights, strict=True)
        ]
        shape = (_FORWARD[1].points, *blocks.tiles, kernel.shape[3])
        found = _interpolated([product.reshape(shape) for product in products])
        found = found.reshape(*blocks.shape, kernel.shape[3])
        return jax.lax.dynamic_update_slice(outputs, found, blocks.start(index))

    filled = (inputs.shape[0], blocks.height, blocks.width, kernel.shape[3])
    outputs = jax.lax.fori_loop(
        0, blocks.count, complete, jnp.zeros(filled, inputs.dtype)
    )
    return outputs[:, : inputs.shape[1], : inputs.shape[2]]


def weight_gradient(inputs: Inputs, errors: Outputs, dilation: int) -> Kernel:
    """The gradient of `convolve` with respect to the kernel, from that of the outputs."""
    rows, columns = _GRADIENT
    features = (inputs.shape[3], errors.shape[3])
    blocks = _Blocks(inputs.shape, _GRADIENT, dilation, PIXELS)
    padded = blocks.padded(inputs)
    below = ((0, blocks.height - inputs.shape[1]), (0, blocks.width - inputs.shape[2]))
    errors = jnp.pad(errors, ((0, 0), *below, (0, 0)))

    def add(index: Array, totals: list[Array]) -> list[Array]:
        tiles = _input_rows(blocks.cut(padded, index, halo=True), _GRADIENT, dilation)
        spread = _error_rows(blocks.cut(errors, index, halo=False), dilation)
        return [
            total + jax.lax.dot_general(row, error, (((1,), (1,)), ((0,), (0,))))
            for total, row, error in zip(totals, tiles, spread, strict=True)
        ]

    zeros = [jnp.zeros((columns.points, *features), inputs.dtype)] * rows.points
    totals = jax.lax.fori_loop(0, blocks.count, add, zeros)
    return jnp.stack(
        [
            jnp.stack(_combinations(columns.kernel.T, list(row)))
            for row in _combinations(rows.kernel.T, totals)
        ]
    )


# ---- The transforms ------------------------------------------------------------------

# A row of points at a time: 24 or 36 arrays XLA would not write where they are needed, but
# beside each other first.


def _kernel_rows(kernel: Kernel, axes: _Axes) -> list[Weights]:
    rows, columns = axes
    return [
        jnp.stack(_combinations(columns.kernel, list(row)))
        for row in _combinations(rows.kernel, list(kernel))
    ]


def _input_rows(block: Array, axes: _Axes, dilation: int) -> list[Products]:
    rows, columns = axes
    found = _combinations(rows.inputs, _windows(block, 1, rows, dilation))
    # Kept in the cache: fused with the next step, every row would be made six times.
    found = jax.lax.optimization_barrier(jnp.stack(found))
    return [
        _stacked(_combinations(columns.inputs, _windows(row, 3, columns, dilation)))
        for row in found
    ]


def _error_rows(block: Array, dilation: int) -> list[Products]:
    rows, columns = _GRADIENT
    found = _combinations(rows.outputs.T, _split(block, 1, rows, dilation))
    return [
        _stacked(_combinations(columns.outputs.T, _split(row, 3, columns, dilation)))
        for row in found
    ]


def _stacked(parts: list[Array]) -> Products:
    return jnp.stack(parts).reshape(len(parts), -1, parts[0].shape[-1])


def _interpolated(products: list[Float[Array, "v b y d x d f"]]) -> Array:
    """The outputs of all tiles, [b, y, 4, d, x, 2, d, f]."""
    rows, columns = _FORWARD
    found = _combinations(rows.outputs, products)
    found = jax.lax.optimization_barrier(jnp.stack(found))
    stacked = [
        jnp.stack(_combinations(columns.outputs, list(row)), axis=4) for row in found
    ]
    return jnp.stack(stacked, axis=2)


def _combinations(matrix: np.ndarray, parts: list[Array]) -> list[Array]:
    """The matrix times a vector whose entries are arrays."""
    combined = []
    for row in matrix:
        terms = [
            part if weight == 1 else part * np.asarray(weight, part.dtype)
            for weight, part in zip(row, parts, strict=True)
            if abs(weight) > 1e-9  # the points are symmetrical: many cancel
        ]
        combined.append(sum(terms[1:], terms[0]))
    return combined


# ---- Tiles and blocks ----------------------------------------------------------------


def _split(block: Array, place: int, axis: _Axis, dilation: int) -> list[Array]:
    """Along an axis the first, second, ... pixel of each tile, [..., tiles, d, ...]."""
    before, after = block.shape[:place], block.shape[place + 1 :]
    split = block.reshape(*before, -1, axis.tile, dilation, *after)
    return [
        jax.lax.index_in_dim(split, k, axis=place + 1, keepdims=False)
        for k in range(axis.tile)
    ]


def _windows(block: Array, place: int, axis: _Axis, dilation: int) -> list[Array]:
    """The same of overlapping tiles: a tile's last two pixels are the next one's first."""
    parts = _split(block, place, axis, dilation)
    count = parts[0].shape[place] - 1
    return [
        jax.lax.slice_in_dim(
            parts[k % axis.tile], k // axis.tile, k // axis.tile + count, axis=place
        )
        for k in range(axis.points)
    ]


class _Blocks:
    """Images cut into equal blocks of whole tiles, about so many pixels large."""

    def __init__(
        self, shape: tuple[int, ...], axes: _Axes, dilation: int, pixels: int
    ) -> None:
        images, height, width, _ = shape
        self.dilation = dilation
        self.height = axes[0].filled(height, dilation)
        self.width = axes[1].filled(width, dilation)
        self.sides = (axes[0].tile * dilation, axes[1].tile * dilation)
        high, wide = self.sides
        columns = divisor(self.width // wide, pixels // (high * wide))
        room = pixels // (columns * high * wide)
        rows = divisor(self.height // high, room)
        together = divisor(images, room // rows) if rows * high == self.height else 1
        self.shape = (together, rows * high, columns * wide)
        self.tiles = (together, rows, dilation, columns, dilation)
        self.per_row = self.width // self.shape[2]
        self.per_image = self.height // self.shape[1] * self.per_row
        self.count = images // together * self.per_image

    def padded(self, images: Array) -> Array:
        """Zeros around: what the first and the last tiles see beyond the images."""
        missing = (self.height - images.shape[1], self.width - images.shape[2])
        around = [
            (self.dilation, more + side - self.dilation)
            for more, side in zip(missing, self.sides, strict=True)
        ]
        return jnp.pad(images, ((0, 0), *around, (0, 0)))

    def start(self, index: Array) -> tuple[Array | int, ...]:
        """Where block `index` begins."""
        place = index % self.per_image
        return (
            index // self.per_image * self.shape[0],
            place // self.per_row * self.shape[1],
            place % self.per_row * self.shape[2],
            0,
        )

    def cut(self, images: Array, index: Array, *, halo: bool) -> Array:
        """Block `index`, and with `halo` what its last tiles see beyond it."""
        count, rows, columns = self.shape
        down, right = self.sides if halo else (0, 0)
        sizes = (count, rows + down, columns + right, images.shape[3])
        return jax.lax.dynamic_slice(images, self.start(index), sizes)


def divisor(number: int, most: int) -> int:
    """The largest divisor of `number` that is at most `most`, at least 1."""
    return max(n for n in range(1, max(1, most) + 1) if number % n == 0)
