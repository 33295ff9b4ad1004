"""Convolutions with a third of the products: Winograd's F(2x4, 3x3) and F(4x4, 3x3).

A tile of inputs, a 3x3 kernel and a tile of outputs are seen as polynomials: they are
evaluated at a few points along each axis, multiplied there, and interpolated (Lavin and
Gray 2016). Products at one point, of all tiles and between all features, are one matrix
product. A dilated convolution does the same in each of the grids of pixels that it sees.

Larger tiles need fewer products and round more. With the points 0, ±1/√2, ±√2 and infinity
a tile of 4 outputs has half the error of the usual 0, ±1, ±2. Tiles of 2 rows and 4 columns
take 3 products for each output instead of 9 and have three times the definition's rounding,
of 2 and 2 four products and twice, of 4 and 4, as weight gradients take, 2.25 products and
six times. Nearly all of it is that of the products' sums, not of the transforms, so shorter
sums round less. It is for float32 only.

At stride 2 the fine grid is four coarse ones, its phases. A kernel of 3 to 5 taps has at
most 3 in each phase, so every phase has such a 3x3 kernel. One without its first tap is 0
at the point 0, one without its last at infinity: what is 0 is not multiplied. A kernel of 5
needs 10.5 products for each coarse pixel instead of 25 (14 by 2 and 2), one of 4 7.5 instead
of 16, one of 3 5.6 instead of 9 (6.25); weight gradients 8.3, 6.3 and 5.1.

The transforms are memory traffic, so a block of tiles that fits into the cache is done at
a time, from the inputs to the outputs.
"""

from collections.abc import Callable, Sequence
from copy import copy
from math import ceil, prod, sqrt
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.polynomial.polynomial import polyfromroots

from gl_jax.models.grids import Layer, Places
from gl_jax.models.ordering import blank

VALUES = 2**20
"""Of inputs or outputs at a time: 4 MB, half a row of their tiles' points."""

PRODUCTS = 2**23
"""Of a phase at one point: with fewer XLA's library, YNNPACK, multiplies on one core only,
so up to twice the values are taken at a time."""

GRADIENT_VALUES = 3 * 2**19
"""Of inputs and errors together at a time, for a weight gradient."""

MOST_PADDING = 1.25
"""Times the pixels there are, when the sides are filled up to whole tiles."""

LEAST_WEIGHT = 1e-9
"""What is smaller is 0, but for rounding: the points are symmetrical, many cancel."""

MOST_KEPT = 0.85
"""Of the products of all columns: where more are kept, all are, which compiles faster."""

Fine = Float[Array, "b h w i"]
Coarse = Float[Array, "b y x o"]
Kernel = Float[Array, "k k _ _"]
Block = Float[Array, "b h w f"]

AtPoints = list[list[Array]]
"""[v, ...] of each row of points and there of each group of v columns."""


class _Axis:
    """Tiles along one axis: three linear maps, whose transposes are the other three."""

    def __init__(self, *points: float) -> None:
        self.points = len(points) + 1  # 0 is the first, infinity the last
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

    def phases(self, point: int, places: Sequence[Places]) -> range:
        """The phases whose kernels are not 0 at a point: it is one coefficient at two."""
        kept = {0: 0, self.points - 1: 2}.get(point)
        if kept is None:
            return range(len(places))
        found = [phase for phase, taps in enumerate(places) if taps[kept] is not None]
        return range(found[0], found[-1] + 1) if found else range(0)


def _powers(points: tuple[float, ...], count: int) -> np.ndarray:
    """Evaluates a polynomial of `count` coefficients at the points, infinity last."""
    powers = np.array([[point**k for k in range(count)] for point in points])
    return np.vstack([powers, [0.0] * (count - 1) + [1.0]])


_OF_2 = _Axis(0, 1, -1)
_OF_4 = _Axis(0, sqrt(0.5), -sqrt(0.5), sqrt(2), -sqrt(2))
Tiles = tuple[_Axis, _Axis]
TILES_2X2, TILES_2X4, TILES_4X4 = (_OF_2, _OF_2), (_OF_2, _OF_4), (_OF_4, _OF_4)


def fits(shape: Sequence[int], dilation: int) -> bool:
    """Whether coarse grids of this shape are not much smaller than the tiles over them."""
    height, width = (_OF_4.filled(side, dilation) for side in shape[1:3])
    return height * width <= MOST_PADDING * shape[1] * shape[2]


def to_coarse(fine: Fine, kernel: Kernel, layer: Layer, tiles: Tiles) -> Coarse:
    """The "same" convolution; where the stride is 2, of even sides."""
    return _by_tiles(fine, kernel, layer, tiles, finer=False)


def to_fine(coarse: Coarse, kernel: Kernel, layer: Layer, tiles: Tiles) -> Fine:
    """The transposed convolution: the gradient of `to_coarse` with respect to `fine`."""
    return _by_tiles(coarse, kernel, layer, tiles, finer=True)


def _by_tiles(
    inputs: Array, kernel: Kernel, layer: Layer, tiles: Tiles, *, finer: bool
) -> Array:
    places = layer.places()
    plan = _Plan(tiles, [taps[::-1] for taps in places] if finer else places)
    seen, made = (plan.flat(), plan) if finer else (plan, plan.flat())
    weights = _weights(kernel, plan, layer, mirrored=finer)
    summed = 2 if finer != layer.upsampling else 1  # of the weights' axes
    features = kernel.shape[4 - summed]
    count, height, width, read = inputs.shape
    sides = (height // seen.phases, width // seen.phases)
    pixels = VALUES // max(read * seen.phases**2, features * made.phases**2)
    enough = prod(axis.tile for axis in tiles) * PRODUCTS // prod(kernel.shape[2:])
    pixels = max(pixels, min(enough, 2 * pixels))
    blocks = _Blocks((count, *sides), tiles, layer.dilation, pixels)
    padded = blocks.padded(inputs, seen.phases)

    def complete(index: Array, outputs: Array) -> Array:
        block = blocks.cut_around(padded, index, seen.phases)
        points = _tiles(block, seen, layer.dilation)
        products = _products(points, weights, ((2,), (summed,)))
        image, top, left = blocks.start(index)
        left, zero = left * made.phases, unsigned(0)
        for number, line in enumerate(_interpolated(products, made, blocks.tiles)):
            start = (image, top // high, unsigned(number), zero, left, zero)
            line = line.reshape(*line.shape[:2], 1, layer.dilation, -1, features)
            outputs = jax.lax.dynamic_update_slice(outputs, line, start)
        return outputs

    # By tiles and their lines, each line written on its own: in one piece XLA would ask
    # of every value which line it is in.
    high = blocks.sides[0]
    lines = high // layer.dilation * made.phases
    wide = made.phases * blocks.width
    shape = (count, blocks.height // high, lines, layer.dilation, wide, features)
    outputs = jax.lax.fori_loop(0, blocks.count, complete, blank(shape, inputs))
    outputs = outputs.reshape(count, made.phases * blocks.height, wide, features)
    return outputs[:, : made.phases * sides[0], : made.phases * sides[1]]


def weight_gradient(fine: Fine, coarse: Coarse, layer: Layer) -> Kernel:
    """The gradient of `to_coarse` with respect to the kernel, from that of its outputs."""
    plan = _Plan(TILES_4X4, layer.places())
    pixels = GRADIENT_VALUES // (fine.shape[3] * plan.phases**2 + coarse.shape[3])
    blocks = _Blocks(coarse.shape, plan.axes, layer.dilation, pixels)
    padded, errors = blocks.padded(fine, plan.phases), blocks.filled(coarse)

    def products(index: Array | int) -> AtPoints:
        block = blocks.cut_around(padded, index, plan.phases)
        points = _tiles(block, plan, layer.dilation)
        spread = _error_tiles(blocks.cut(errors, index), plan, layer.dilation)
        sides = (spread, points) if layer.upsampling else (points, spread)
        return _products(*sides, ((1,), (1,)))

    def add(index: Array, totals: AtPoints) -> AtPoints:
        return jax.tree.map(jnp.add, totals, products(index))

    shapes = jax.eval_shape(products, 0)
    zeros = jax.tree.map(lambda array: jnp.zeros(array.shape, array.dtype), shapes)
    totals = jax.lax.fori_loop(0, blocks.count, add, zeros)
    return _kernel(totals, plan, layer)


def _products(
    left: AtPoints, right: AtPoints, summed: tuple[tuple[int], tuple[int]]
) -> AtPoints:
    """Matrix products at every point."""
    return [
        [
            jax.lax.dot_general(*pair, (summed, ((0,), (0,))))
            for pair in zip(*row, strict=True)
        ]
        for row in zip(left, right, strict=True)
    ]


# ---- What is multiplied --------------------------------------------------------------


class _Group(NamedTuple):
    """Neighbouring points of the columns, and the phases that are not 0 there."""

    points: range
    phases: range


def _groups(columns: _Axis, places: Sequence[Places]) -> list[_Group]:
    groups: list[_Group] = []
    for point in range(columns.points):
        phases, first = columns.phases(point, places), point
        if groups and groups[-1].phases == phases:
            first = groups.pop().points.start
        if phases:
            groups.append(_Group(range(first, point + 1), phases))
    every = _Group(range(columns.points), range(len(places)))
    kept = sum(len(group.points) * len(group.phases) for group in groups)
    worth_it = kept <= MOST_KEPT * len(every.points) * len(every.phases)
    return groups if worth_it else [every]


class _Plan:
    """Which phases are multiplied: at each row of points, and at groups of columns."""

    def __init__(self, axes: Tiles, places: Sequence[Places]) -> None:
        self.axes, self.phases = axes, len(places)
        rows, columns = axes
        self.rows = [rows.phases(point, places) for point in range(rows.points)]
        self.columns = _groups(columns, places)

    def flat(self) -> "_Plan":
        """The same for the side that has no phases: all of it is multiplied everywhere."""
        plan = copy(self)
        plan.phases = 1
        plan.rows = [range(min(1, len(phases))) for phases in self.rows]
        plan.columns = [_Group(points, range(1)) for points, _ in self.columns]
        return plan

    def at_points(self, make: Callable[[int, int], Array]) -> AtPoints:
        """`make`(row, number of a group) wherever something is multiplied."""
        numbers = range(len(self.columns))
        return [
            [make(row, number) for number in numbers] if phases else []
            for row, phases in enumerate(self.rows)
        ]

    def of_row(self, arrays: AtPoints, phase: int, group: int) -> list[Array | None]:
        """Of a group each row's [v, ..., f] of one phase, from [v, ..., phases * f]."""
        return [
            _share(row[group], phases, phase) if phase in phases else None
            for row, phases in zip(arrays, self.rows, strict=True)
        ]

    def of_column(self, arrays: list[Array], phase: int) -> list[Array | None]:
        """Each column's [..., f] of one phase, from every group's [v, ..., phases * f]."""
        found: list[Array | None] = [None] * self.axes[1].points
        for (points, phases), array in zip(self.columns, arrays, strict=True):
            if phase in phases:
                for index, point in enumerate(points):
                    found[point] = _share(array[index], phases, phase)
        return found


def _share(array: Array, phases: range, phase: int) -> Array:
    """The features of one of the phases that lie beside each other."""
    features = array.shape[-1] // len(phases)
    first = phases.index(phase) * features
    return array[..., first : first + features]


# ---- The transforms ------------------------------------------------------------------

# First along the columns, then a row of points at a time: 24 or 36 arrays XLA would not
# write where they are needed, but beside each other first.


def _weights(kernel: Kernel, plan: _Plan, layer: Layer, *, mirrored: bool) -> AtPoints:
    """The kernel at the points: its features as they are, the fine ones once a phase."""
    rows, columns = plan.axes
    places = layer.by_place(kernel)
    if mirrored:
        places = places[::-1, ::-1]
    axis = 2 if layer.upsampling else 1  # of the phases

    def at_columns(group: _Group) -> Float[Array, "3 v p q _ _"]:
        points = _combinations(
            columns.kernel[_slice(group.points)], list(places.swapaxes(0, 1))
        )
        return _kept(points, axis=1)

    found = [at_columns(group) for group in plan.columns]

    def weights(row: int, number: int) -> Array:
        points = _combination(rows.kernel[row], list(found[number]))
        phases = (_slice(plan.rows[row]), _slice(plan.columns[number].phases))
        points = points[:, :, *phases] if axis == 2 else points[:, *phases]
        shape = [len(points), *kernel.shape[2:]]
        shape[axis] = -1
        return points.reshape(shape)

    return plan.at_points(weights)


def _kernel(totals: AtPoints, plan: _Plan, layer: Layer) -> Kernel:
    """The gradient of the kernel from that of its `_weights`."""
    rows, columns = plan.axes
    axis = 2 if layer.upsampling else 1  # of the phases

    def filled(total: Array, row: int, group: _Group) -> Float[Array, "v p q _ _"]:
        """With 0 for the phases that the weights are 0 for."""
        phases = (plan.rows[row], group.phases)
        fine = total.shape[axis] // prod(map(len, phases))
        shape = list(total.shape)
        shape[axis : axis + 1] = [*map(len, phases), fine]
        missing = [(0, 0)] * len(shape)
        missing[axis : axis + 2] = [(p.start, plan.phases - p.stop) for p in phases]
        return jnp.pad(total.reshape(shape), missing)

    def lines(number: int) -> Float[Array, "3 v p q _ _"]:
        parts = [
            filled(row[number], index, plan.columns[number]) if row else None
            for index, row in enumerate(totals)
        ]
        return _kept(_combinations(rows.kernel.T, parts))

    found = [lines(number) for number in range(len(plan.columns))]

    def taps(place: int) -> Float[Array, "3 p q _ _"]:
        points = plan.flat().of_column([array[place] for array in found], 0)
        return jnp.stack(_combinations(columns.kernel.T, points))

    return layer.from_places(jnp.stack([taps(place) for place in range(3)]))


def _tiles(block: Float[Array, "b h w qf"], plan: _Plan, dilation: int) -> AtPoints:
    """Tiles of inputs with what they see beyond, at the points: [v, t, phases * f]."""
    rows, columns = plan.axes
    n, features = plan.phases, block.shape[3] // plan.phases

    def at_columns(group: _Group) -> Float[Array, "v b h x d qf"]:
        first, last = group.phases.start, group.phases.stop
        seen = block[..., first * features : last * features]
        windows = _windows(seen, 2, columns, dilation)
        return _kept(_combinations(columns.inputs[_slice(group.points)], windows))

    found = [at_columns(group) for group in plan.columns]

    def tiles(row: int, number: int) -> Float[Array, "v t pqf"]:
        phases = [
            _combination(
                rows.inputs[row], _windows(found[number][:, :, p::n], 2, rows, dilation)
            )
            for p in plan.rows[row]
        ]
        # Not stacked and reshaped: XLA would divide to find each value's phase.
        return _flat(jnp.concatenate(phases, axis=-1))

    return plan.at_points(tiles)


def _error_tiles(block: Block, plan: _Plan, dilation: int) -> AtPoints:
    """Tiles of a coarse grid's errors at the points: [v, t, f]."""
    rows, columns = plan.axes

    def at_columns(group: _Group) -> Float[Array, "v b h x d f"]:
        matrix = columns.outputs.T[_slice(group.points)]
        return _kept(_combinations(matrix, _split(block, 2, columns, dilation)))

    found = [at_columns(group) for group in plan.columns]

    def tiles(row: int, number: int) -> Float[Array, "v t f"]:
        parts = _split(found[number], 2, rows, dilation)
        return _flat(_combination(rows.outputs.T[row], parts))

    return plan.at_points(tiles)


def _kept(parts: list[Array], axis: int = 0) -> Array:
    """Stacked, in the cache: fused with the next step, they would be made again and again."""
    return jax.lax.optimization_barrier(jnp.stack(parts, axis))


def _flat(points: Float[Array, "v b y d x d f"]) -> Float[Array, "v t f"]:
    return points.reshape(len(points), -1, points.shape[-1])


def _interpolated(
    products: AtPoints, plan: _Plan, tiles: Sequence[int]
) -> list[Float[Array, "b y d x 2q d f"]]:
    """The outputs of all tiles, a line of each at a time."""
    rows, columns = plan.axes

    def lines(phase: int) -> list[list[Float[Array, "v t qf"]]]:
        return [
            _combinations(rows.outputs, plan.of_row(products, phase, group))
            for group in range(len(plan.columns))
        ]

    def pixels(line: list[Array]) -> Float[Array, "b y d x 2q d f"]:
        found = [
            _combinations(columns.outputs, plan.of_column(line, phase))
            for phase in range(plan.phases)
        ]
        parts = [phase[k] for k in range(columns.tile) for phase in found]
        return jnp.stack([part.reshape(*tiles, -1) for part in parts], axis=4)

    found = [lines(phase) for phase in range(plan.phases)]
    return [
        pixels([group[k] for group in phase])
        for k in range(rows.tile)
        for phase in found
    ]


def _combinations(matrix: np.ndarray, parts: Sequence[Array | None]) -> list[Array]:
    """The matrix times a vector whose entries are arrays, None where one is 0.

    What belongs to points p and -p, neighbours in the rows or in the columns, differs in
    signs only: sums and differences of both save half the multiplications, and programs.
    """
    matrix, parts = _paired(matrix, parts)
    found: list[Array] = []
    row = 0
    while row < len(matrix):
        if row + 1 < len(matrix) and _mirrored(*matrix[row : row + 2]):
            both, either = _even_and_odd(*matrix[row : row + 2])
            even, odd = _combination(both, parts), _combination(either, parts)
            found += [even + odd, even - odd]
            row += 2
        else:
            found.append(_combination(matrix[row], parts))
            row += 1
    return found


def _paired(
    matrix: np.ndarray, parts: Sequence[Array | None]
) -> tuple[np.ndarray, list[Array | None]]:
    """The same product, with sums and differences for parts whose columns are mirrored."""
    columns, found = list(matrix.T), list(parts)
    for index in range(len(columns) - 1):
        one, other = found[index : index + 2]
        pair = columns[index : index + 2]
        if one is not None and other is not None and _mirrored(*pair):
            columns[index : index + 2] = _even_and_odd(*pair)
            found[index : index + 2] = [one + other, one - other]
    return np.stack(columns, 1), found


def _mirrored(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two rows or columns differ in some signs, and agree in others."""
    even, odd = (abs(part) > LEAST_WEIGHT for part in _even_and_odd(one, other))
    return bool(even.any() and odd.any() and not (even & odd).any())


def _even_and_odd(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (one + other) / 2, (one - other) / 2


def _combination(weights: np.ndarray, parts: Sequence[Array | None]) -> Array:
    terms = [
        part if weight == 1 else part * np.asarray(weight, part.dtype)
        for weight, part in zip(weights, parts, strict=True)
        if part is not None and abs(weight) > LEAST_WEIGHT
    ]
    return sum(terms[1:], terms[0])


# ---- Tiles and blocks ----------------------------------------------------------------


def _slice(numbers: range) -> slice:
    return slice(numbers.start, numbers.stop)


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
    """Coarse grids cut into equal blocks of whole tiles, about so many pixels large.

    `scale` is how much finer than the coarse grids the images are that are padded and cut.
    """

    def __init__(
        self, shape: tuple[int, ...], axes: Tiles, dilation: int, pixels: int
    ) -> None:
        images, height, width = shape[:3]
        self.dilation = dilation
        self.height = axes[0].filled(height, dilation)
        self.width = axes[1].filled(width, dilation)
        self.missing = (self.height - height, self.width - width)
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

    def filled(self, images: Array) -> Array:
        """Zeros below and on the right, up to whole tiles."""
        below, right = self.missing
        return jnp.pad(images, ((0, 0), (0, below), (0, right), (0, 0)))

    def padded(self, images: Array, scale: int) -> Float[Array, "b h w qf"]:
        """Zeros around: what the first and the last tiles see beyond the images.

        The columns' phases lie beside each other in memory, as more features would.
        """
        around = [
            (n * self.dilation, n * (more + side - self.dilation))
            for n, more, side in zip((scale, 1), self.missing, self.sides, strict=True)
        ]
        images = images.reshape(*images.shape[:2], -1, scale * images.shape[3])
        return jnp.pad(images, ((0, 0), *around, (0, 0)))

    def start(self, index: Array | int) -> tuple[Array, Array, Array]:
        """Where block `index` begins: its image, row and column of the coarse grid."""
        index = unsigned(index)
        place = index % self.per_image
        return (
            index // self.per_image * self.shape[0],
            place // self.per_row * self.shape[1],
            place % self.per_row * self.shape[2],
        )

    def cut(self, images: Array, index: Array | int) -> Array:
        """Block `index` of filled images."""
        sizes = (*self.shape, images.shape[3])
        start = (*self.start(index), unsigned(0))
        return jax.lax.dynamic_slice(images, start, sizes)

    def cut_around(self, images: Array, index: Array | int, scale: int) -> Array:
        """Block `index` of padded images, and what its last tiles see beyond it."""
        count, rows, columns = self.shape
        down, right = self.sides
        sizes = (count, scale * (rows + down), columns + right, images.shape[3])
        image, top, left = self.start(index)
        start = (image, scale * top, left, unsigned(0))
        return jax.lax.dynamic_slice(images, start, sizes)


def unsigned(index: Array | int) -> Array:
    """An index that XLA need not expect to be negative, which shortens a program."""
    return jnp.asarray(index, jnp.uint32)


def divisor(number: int, most: int) -> int:
    """The largest divisor of `number` that is at most `most`, at least 1."""
    return max(n for n in range(1, max(1, most) + 1) if number % n == 0)
