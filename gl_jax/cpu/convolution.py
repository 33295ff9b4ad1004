"""The two operations of `gl_jax.models.ops`, their gradients rewritten for processors.

A layer is three bilinear maps: from the fine grid to the coarse one (a convolution), back
(a transposed convolution), and from both grids to the kernel. Each one's gradients are the
other two, so derivatives of any order stay inside them. XLA's forward convolution is fast
on processors, and its gradients are not; here they are

- Winograd's algorithm for 3x3 layers of stride 1 and 5x5 layers of stride 2, if they are
  wide (`winograd.py`),
- from the coarse grid to the fine one at stride 2 one convolution of stride 1 for each
  parity of the row and the column,
- at stride 2 onto a small map, matrix products with patches of the inputs,
- for other kernels' gradients matrix products with patches, a strip of rows at a time,
- and XLA's own for layers that do little. `NOTES.md` has the measurements.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from math import prod

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gl_jax.cpu import grids, winograd
from gl_jax.cpu.grids import Layer
from gl_jax.models.ops import NATIVE, Ops

Fine = Float[Array, "b h w i"]
Coarse = Float[Array, "b y x o"]
Kernel = Float[Array, "k l i o"]
Padding = tuple[tuple[int, int], tuple[int, int]]
Dense = Callable[[Coarse, Kernel, Padding], Fine]

LEAST_PRODUCTS = 2**17
"""Multiplications for each tap and photograph; below, XLA's own operations are as fast and
compile in half the time."""

WINOGRAD_CHANNELS = 32
"""Features on either side; below, Winograd's transforms cost more than they save."""

WINOGRAD_OUTPUT_CHANNELS = 64
"""The same of outputs, for which XLA's own convolution is fast."""

WINOGRAD_COARSE_CHANNELS = 128
"""The same of the coarse side at stride 2."""

WINOGRAD_PRODUCTS = 2**26
"""Multiplications for each tap at stride 2; below, Winograd takes longer to compile than it
saves in a few hundred steps."""

ACCURATE_FEATURES = 128
"""Features that are summed; with more, an undilated layer takes the smallest tiles:
normalisation makes more of their rounding, which grows with the features."""

LARGE_TILES_FEATURES = 192
"""Features on either side; from so many on, input gradients take the largest tiles."""

STRIP_VALUES = 2**20
"""Values of the patches of a strip: 4 MB, which stay in the cache."""

LEAST_STRIP = 1024
"""Pixels of a strip; of fewer, adding up the products of all strips takes time."""

SMALL_MAP = 64
"""Coarse pixels of one photograph, and MOST_PATCHES of all, up to which a stride-2 layer
is done by patches: XLA reaches a quarter to three quarters of the peak there."""
MOST_PATCHES = 1024


def ops() -> Ops:
    """Returns the convolutions for networks that run on processors."""
    return Ops(convolve, upsample)


def convolve(
    inputs: Fine, kernel: Kernel, stride: int = 1, dilation: int = 1
) -> Coarse:
    """`gl_jax.models.ops.convolve`."""
    layer = Layer(kernel.shape[0], stride, dilation)
    return to_coarse(*_varying_alike(inputs, kernel), layer)


def upsample(inputs: Coarse, kernel: Float[Array, "4 4 i o"]) -> Fine:
    """`gl_jax.models.ops.upsample`."""
    _, height, width, _ = inputs.shape
    inputs, kernel = _varying_alike(inputs, kernel.swapaxes(2, 3))
    return to_fine(inputs, kernel, Layer(4, 2), (2 * height, 2 * width))


def _varying_alike(one: Array, other: Array) -> tuple[Array, Array]:
    """Both, varying over the same axes of a `shard_map`, as the functions below need.

    The gradient of a kernel that devices share is then summed over them by JAX.
    """
    return one + _zero_like(other), other + _zero_like(one)


def _zero_like(array: Array) -> Array:
    """A zero that varies over the same axes; XLA removes its addition."""
    return jax.lax.full_like(array, 0, shape=())


# ---- The three maps ------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def to_coarse(fine: Fine, kernel: Kernel, layer: Layer) -> Coarse:
    """The layer's convolution."""
    sides = layer.coarse_sides(fine.shape[1:3])
    way = _way(layer, fine, kernel.shape, fine.shape[1:3])
    if way is _Way.SMALL_MAP:
        return _by_patches(fine, kernel, _padding(fine, sides, layer), layer.stride)
    if way is not _Way.WINOGRAD or min(kernel.shape[2:]) < WINOGRAD_OUTPUT_CHANNELS:
        return NATIVE.convolve(fine, kernel, layer.stride, layer.dilation)
    summed = layer.stride**2 * fine.shape[3]
    accurate = layer.dilation == 1 and summed > ACCURATE_FEATURES
    tiles = winograd.TILES_2X2 if accurate else winograd.TILES_2X4
    if layer.stride == 1:
        return winograd.convolve(fine, kernel, layer.dilation, tiles)
    kernel = grids.kernel_of_squares(kernel)
    return winograd.convolve(grids.squares(fine), kernel, 1, tiles)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def to_fine(
    coarse: Coarse, kernel: Kernel, layer: Layer, sides: tuple[int, int]
) -> Fine:
    """The layer's transposed convolution, onto a fine grid of these sides."""
    way = _way(layer, coarse, kernel.shape, sides)
    if way is _Way.WINOGRAD and layer.stride == 1:
        large = min(kernel.shape[2:]) >= LARGE_TILES_FEATURES
        tiles = winograd.TILES_4X4 if large else winograd.TILES_2X4
        dilation = layer.dilation
        return winograd.convolve(coarse, kernel, dilation, tiles, transposed=True)
    if way is _Way.WINOGRAD:
        kernel, tiles = grids.kernel_of_squares(kernel), winograd.TILES_2X4
        squares = winograd.convolve(coarse, kernel, 1, tiles, transposed=True)
        return grids.pixels(squares)
    if (
        way is _Way.LITTLE
        or layer.stride != 2
        or layer.dilation != 1
        or layer.size == 1
    ):
        return _native_to_fine(coarse, kernel, layer, sides)
    dense = _by_patches if way is _Way.SMALL_MAP else _dense
    return _by_parity(coarse, kernel, layer, sides, dense)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def to_kernel(fine: Fine, coarse: Coarse, layer: Layer) -> Kernel:
    """The kernel's gradient from the layer's inputs and the gradient of its outputs."""
    shape = (layer.size, layer.size, fine.shape[3], coarse.shape[3])
    way = _way(layer, fine, shape, fine.shape[1:3])
    if way is _Way.LITTLE:
        return _native_to_kernel(fine, coarse, layer)
    if way is not _Way.WINOGRAD:
        if layer.stride == 1 and coarse.shape[3] < fine.shape[3]:
            # Patches of the thinner side: at stride 1 both grids may change roles.
            return grids.mirrored(_from_patches(coarse, fine, layer))
        return _from_patches(fine, coarse, layer)
    if layer.stride == 1:
        return winograd.weight_gradient(fine, coarse, layer.dilation)
    gradient = winograd.weight_gradient(grids.squares(fine), coarse, 1)
    return grids.kernel_of_pixels(gradient)


to_coarse.defvjp(
    lambda fine, kernel, layer: (to_coarse(fine, kernel, layer), (fine, kernel)),
    lambda layer, kept, error: (
        to_fine(error, kept[1], layer, kept[0].shape[1:3]),
        to_kernel(kept[0], error, layer),
    ),
)
to_fine.defvjp(
    lambda coarse, kernel, layer, sides: (
        to_fine(coarse, kernel, layer, sides),
        (coarse, kernel),
    ),
    lambda layer, sides, kept, error: (
        to_coarse(error, kept[1], layer),
        to_kernel(error, kept[0], layer),
    ),
)
to_kernel.defvjp(
    lambda fine, coarse, layer: (to_kernel(fine, coarse, layer), (fine, coarse)),
    lambda layer, kept, error: (
        to_fine(kept[1], error, layer, kept[0].shape[1:3]),
        to_coarse(kept[0], error, layer),
    ),
)


# ---- Which formulation ---------------------------------------------------------------


class _Way(Enum):
    LITTLE = "XLA's own"
    SMALL_MAP = "patches of all photographs"
    WINOGRAD = "Winograd's algorithm"
    OTHER = "XLA's convolution, and gradients by parity and by patches of strips"


def _way(
    layer: Layer, array: Array, kernel: Sequence[int], fine: Sequence[int]
) -> _Way:
    """The formulation for a layer between a fine grid of these sides and its coarse one.

    `array` is of either grid, `kernel` the kernel's shape.
    """
    coarse = layer.coarse_sides(fine)
    count, pixels, strided = array.shape[0], prod(coarse), layer.stride == 2
    products = pixels * kernel[2] * kernel[3]
    if products < LEAST_PRODUCTS:
        return _Way.LITTLE
    few = pixels <= SMALL_MAP and count * pixels <= MOST_PATCHES
    if few and strided and layer.dilation == 1:
        return _Way.SMALL_MAP
    if array.dtype != jnp.float32 or min(kernel[2:]) < WINOGRAD_CHANNELS:
        return _Way.OTHER
    if layer.size == 3 and layer.stride == 1:
        return _Way.WINOGRAD if winograd.fits(fine, layer.dilation) else _Way.OTHER
    even = fine[0] % 2 == fine[1] % 2 == 0
    square = layer.size == 5 and strided and layer.dilation == 1 and even
    much = (
        count * products >= WINOGRAD_PRODUCTS and kernel[3] >= WINOGRAD_COARSE_CHANNELS
    )
    return _Way.WINOGRAD if square and much and winograd.fits(coarse, 1) else _Way.OTHER


# ---- XLA's own gradients -------------------------------------------------------------


def _native_to_fine(
    coarse: Coarse, kernel: Kernel, layer: Layer, sides: Sequence[int]
) -> Fine:
    before = layer.reach - 1 - layer.padding
    padding = [
        (before, side + layer.padding - 1 - layer.stride * (met - 1))
        for side, met in zip(sides, coarse.shape[1:3], strict=True)
    ]
    return jax.lax.conv_general_dilated(
        coarse,
        grids.mirrored(kernel),
        window_strides=(1, 1),
        padding=padding,
        lhs_dilation=(layer.stride, layer.stride),
        rhs_dilation=(layer.dilation, layer.dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _native_to_kernel(fine: Fine, coarse: Coarse, layer: Layer) -> Kernel:
    return jax.lax.conv_general_dilated(
        fine,
        coarse,
        window_strides=(layer.dilation, layer.dilation),
        padding=_padding(fine, coarse.shape[1:3], layer),
        rhs_dilation=(layer.stride, layer.stride),
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
    )


# ---- Parity --------------------------------------------------------------------------


def _by_parity(
    coarse: Coarse, kernel: Kernel, layer: Layer, sides: Sequence[int], dense: Dense
) -> Fine:
    """A stride-2 transposed convolution from four convolutions of stride 1.

    Fine row 2y + p meets coarse row (2y + p + padding - t) / 2 through tap t, so each
    parity p has its own taps t, of parity p + padding, and a convolution of them.
    """
    kernel = kernel.swapaxes(2, 3)
    parities = [_parity_taps(layer, parity) for parity in (0, 1)]
    found = [
        dense(coarse, kernel[down, right], (above, left))
        for down, above in parities
        for right, left in parities
    ]
    fine = grids.pixels(jnp.concatenate(found, axis=3))
    return fine[:, : sides[0], : sides[1]]


def _parity_taps(layer: Layer, parity: int) -> tuple[slice, tuple[int, int]]:
    """The taps that reach pixels of one parity, last first, and the padding they need."""
    first = (parity + layer.padding) % 2
    last = layer.size - 1 - (layer.size - 1 - first) % 2
    taps = slice(last, first - 1 if first else None, -2)
    # Tap t reads the coarse pixel (parity + padding - t) / 2 away.
    before = (last - layer.padding - parity) // 2
    after = (parity + layer.padding - first) // 2
    return taps, (before, after)


def _dense(inputs: Fine, kernel: Kernel, padding: Padding) -> Coarse:
    return jax.lax.conv_general_dilated(
        inputs,
        kernel,
        window_strides=(1, 1),
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


# ---- Patches -------------------------------------------------------------------------


def _padding(fine: Array, coarse: Sequence[int], layer: Layer) -> Padding:
    """Zeros around the fine grid; below 0 if the stride leaves its last pixels unmet."""
    height, width = (
        (layer.padding, layer.stride * (met - 1) + layer.reach - layer.padding - side)
        for side, met in zip(fine.shape[1:3], coarse, strict=True)
    )
    return height, width


def _padded(images: Array, padding: Padding) -> Array:
    zero = jnp.zeros((), images.dtype)
    around = ((0, 0, 0), *((*ends, 0) for ends in padding), (0, 0, 0))
    return jax.lax.pad(images, zero, around)


def _by_patches(
    inputs: Fine, kernel: Kernel, padding: Padding, stride: int = 1
) -> Coarse:
    """A convolution as one matrix product."""
    patches = _patches(_padded(inputs, padding), kernel.shape[:2], stride, 1)
    products = patches.reshape(-1, patches.shape[3]) @ kernel.reshape(
        -1, kernel.shape[3]
    )
    return products.reshape(*patches.shape[:3], kernel.shape[3])


def _patches(
    padded: Fine, taps: Sequence[int], stride: int, dilation: int
) -> Float[Array, "b y x kli"]:
    """The pixels that each output of a convolution meets, first columns, then rows."""
    for axis in (2, 1):
        reach = dilation * (taps[axis - 1] - 1)
        parts = [
            jax.lax.slice_in_dim(
                padded, tap, tap + padded.shape[axis] - reach, stride, axis
            )
            for tap in range(0, reach + 1, dilation)
        ]
        # Fused with a product, each patch would be made many times.
        padded = jax.lax.optimization_barrier(jnp.concatenate(parts, axis=3))
    return padded


def _from_patches(fine: Fine, coarse: Coarse, layer: Layer) -> Kernel:
    """A kernel's gradient as a matrix product with patches of a strip of rows at a time."""
    count, height, width, features = coarse.shape
    patch = layer.size**2 * fine.shape[3]
    padded = _padded(fine, _padding(fine, (height, width), layer))
    pixels = max(LEAST_STRIP, STRIP_VALUES // patch)
    rows = winograd.divisor(height, pixels // width)
    images = winograd.divisor(count, pixels // (rows * width)) if rows == height else 1
    strips = height // rows
    seen = (images, layer.stride * (rows - 1) + layer.reach, *padded.shape[2:])

    def add(index: Array, total: Array) -> Array:
        image, row = index // strips * images, index % strips * rows
        strip = jax.lax.dynamic_slice(padded, (image, layer.stride * row, 0, 0), seen)
        patches = _patches(strip, (layer.size,) * 2, layer.stride, layer.dilation)
        errors = jax.lax.dynamic_slice(
            coarse, (image, row, 0, 0), (images, rows, width, features)
        )
        # Many strips are added, which the 8 bits of bfloat16 are too few for.
        return total + jax.lax.dot_general(
            patches.reshape(-1, patch),
            errors.reshape(-1, features),
            (((0,), (0,)), ((), ())),
            preferred_element_type=jnp.float32,
        )

    zeros = jax.lax.full_like(fine, 0, jnp.float32, (patch, features))
    total = jax.lax.fori_loop(0, count // images * strips, add, zeros)
    kernel = total.reshape(layer.size, layer.size, fine.shape[3], features)
    return kernel.astype(fine.dtype)
