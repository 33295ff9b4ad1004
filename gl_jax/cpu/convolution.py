"""The two operations of `gl_jax.models.ops`, with gradients rewritten for processors.

A layer has three bilinear maps: from the fine grid to the coarse one (a convolution), back
(a transposed convolution), and from both grids to the kernel. The gradients of each are
the other two, so derivatives of any order need only these three. On processors XLA's
forward convolution is fast, but its gradients are slow. They are replaced by

- Winograd's algorithm for wide 3x3 layers of stride 1 and 5x5 layers of stride 2
  (`winograd.py`),
- one convolution of stride 1 for each parity of row and column, from the coarse grid to
  the fine one at stride 2,
- matrix products with patches of the inputs, at stride 2 onto a small map,
- matrix products with patches of a strip of rows at a time, for other kernels' gradients.

Small layers use XLA's own gradients. `NOTES.md` has the measurements.
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
"""Fewest multiplications per tap and photograph for these gradients; below, XLA's own are
as fast and compile in half the time."""

WINOGRAD_CHANNELS = 32
"""Fewest features on either side for Winograd; below, the transforms cost too much."""

WINOGRAD_OUTPUT_CHANNELS = 64
"""Fewest features for the forward pass by Winograd, as XLA's convolution is fast."""

WINOGRAD_COARSE_CHANNELS = 128
"""Fewest coarse features for Winograd at stride 2."""

WINOGRAD_PRODUCTS = 2**26
"""Fewest multiplications per tap for Winograd at stride 2; below, compiling it takes longer
than it saves in a few hundred steps."""

ACCURATE_FEATURES = 128
"""Most summed features for larger tiles in an undilated layer: their rounding errors grow
with the features, and normalisation amplifies them."""

LARGE_TILES_FEATURES = 192
"""Fewest features on either side for the largest tiles in input gradients."""

STRIP_VALUES = 2**20
"""Values of the patches of a strip: 4 MB, which stay in the cache."""

LEAST_STRIP = 1024
"""Fewest pixels of a strip; with fewer, adding up the strips' products takes long."""

SMALL_MAP = 64
"""Most coarse pixels of a photograph, and with MOST_PATCHES of all photographs, for stride-2
layers by patches: there XLA reaches only 1/4 to 3/4 of the peak."""
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
    """Makes both arrays vary over the same axes of a `shard_map`, as the maps below need.

    JAX then sums the gradient of a replicated kernel over the devices.
    """
    return one + _zero_like(other), other + _zero_like(one)


def _zero_like(array: Array) -> Array:
    """Returns a zero that varies over the same axes; XLA removes its addition."""
    return jax.lax.full_like(array, 0, shape=())


# ---- The three maps ------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def to_coarse(fine: Fine, kernel: Kernel, layer: Layer) -> Coarse:
    """Applies the layer's convolution."""
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
    """Applies the layer's transposed convolution, onto a fine grid of these sides."""
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
    """Returns the kernel's gradient from the layer's inputs and its outputs' gradient."""
    shape = (layer.size, layer.size, fine.shape[3], coarse.shape[3])
    way = _way(layer, fine, shape, fine.shape[1:3])
    if way is _Way.LITTLE:
        return _native_to_kernel(fine, coarse, layer)
    if way is not _Way.WINOGRAD:
        if layer.stride == 1 and coarse.shape[3] < fine.shape[3]:
            # Patches of the side with fewer features; at stride 1 the grids are symmetric.
            return grids.mirrored(_from_patches(coarse, fine, layer))
        return _from_patches(fine, coarse, layer)
    if layer.stride == 1:
        return winograd.weight_gradient(fine, coarse, layer.dilation)
    gradient = winograd.weight_gradient(grids.squares(fine), coarse, 1)
    return grids.kernel_of_pixels(gradient)


to_coarse.defvjp(
    lambda fine, kernel, layer: (to_coarse(fine, kernel, layer), (fine, kernel)),
    lambda layer, residuals, error: (
        to_fine(error, residuals[1], layer, residuals[0].shape[1:3]),
        to_kernel(residuals[0], error, layer),
    ),
)
to_fine.defvjp(
    lambda coarse, kernel, layer, sides: (
        to_fine(coarse, kernel, layer, sides),
        (coarse, kernel),
    ),
    lambda layer, sides, residuals, error: (
        to_coarse(error, residuals[1], layer),
        to_kernel(error, residuals[0], layer),
    ),
)
to_kernel.defvjp(
    lambda fine, coarse, layer: (to_kernel(fine, coarse, layer), (fine, coarse)),
    lambda layer, residuals, error: (
        to_fine(residuals[1], error, layer, residuals[0].shape[1:3]),
        to_coarse(residuals[0], error, layer),
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
    """Returns the formulation for a layer with a fine grid of these sides.

    `array` is on either grid; `kernel` is the kernel's shape.
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
        (before, side + layer.padding - 1 - layer.stride * (count - 1))
        for side, count in zip(sides, coarse.shape[1:3], strict=True)
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
    """Computes a stride-2 transposed convolution by four convolutions of stride 1.

    Tap t connects fine row 2y + p with coarse row (2y + p + padding - t) / 2, so each
    parity p has its own taps t, of parity p + padding, and a convolution with them.
    """
    kernel = kernel.swapaxes(2, 3)
    parities = [_parity_taps(layer, parity) for parity in (0, 1)]
    parts = [
        dense(coarse, kernel[down, right], (above, left))
        for down, above in parities
        for right, left in parities
    ]
    fine = grids.pixels(jnp.concatenate(parts, axis=3))
    return fine[:, : sides[0], : sides[1]]


def _parity_taps(layer: Layer, parity: int) -> tuple[slice, tuple[int, int]]:
    """Returns the taps of one parity's pixels, last first, and the padding they need."""
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
    """Returns the fine grid's padding, negative if the stride skips its last pixels."""
    height, width = (
        (layer.padding, layer.stride * (count - 1) + layer.reach - layer.padding - side)
        for side, count in zip(fine.shape[1:3], coarse, strict=True)
    )
    return height, width


def _padded(images: Array, padding: Padding) -> Array:
    zero = jnp.zeros((), images.dtype)
    around = ((0, 0, 0), *((*ends, 0) for ends in padding), (0, 0, 0))
    return jax.lax.pad(images, zero, around)


def _by_patches(
    inputs: Fine, kernel: Kernel, padding: Padding, stride: int = 1
) -> Coarse:
    """Computes a convolution as one matrix product."""
    patches = _patches(_padded(inputs, padding), kernel.shape[:2], stride, 1)
    products = patches.reshape(-1, patches.shape[3]) @ kernel.reshape(
        -1, kernel.shape[3]
    )
    return products.reshape(*patches.shape[:3], kernel.shape[3])


def _patches(
    padded: Fine, taps: Sequence[int], stride: int, dilation: int
) -> Float[Array, "b y x kli"]:
    """Gathers the input pixels of each output, first along columns, then along rows."""
    for axis in (2, 1):
        reach = dilation * (taps[axis - 1] - 1)
        parts = [
            jax.lax.slice_in_dim(
                padded, tap, tap + padded.shape[axis] - reach, stride, axis
            )
            for tap in range(0, reach + 1, dilation)
        ]
        # Without the barrier XLA fuses this with the product and computes patches often.
        padded = jax.lax.optimization_barrier(jnp.concatenate(parts, axis=3))
    return padded


def _from_patches(fine: Fine, coarse: Coarse, layer: Layer) -> Kernel:
    """Computes a kernel's gradient by matrix products with patches, strip by strip."""
    count, height, width, features = coarse.shape
    patch = layer.size**2 * fine.shape[3]
    padded = _padded(fine, _padding(fine, (height, width), layer))
    pixels = max(LEAST_STRIP, STRIP_VALUES // patch)
    rows = winograd.divisor(height, pixels // width)
    images = winograd.divisor(count, pixels // (rows * width)) if rows == height else 1
    strips = height // rows
    sizes = (images, layer.stride * (rows - 1) + layer.reach, *padded.shape[2:])

    def add(index: Array, total: Array) -> Array:
        image, row = index // strips * images, index % strips * rows
        strip = jax.lax.dynamic_slice(padded, (image, layer.stride * row, 0, 0), sizes)
        patches = _patches(strip, (layer.size,) * 2, layer.stride, layer.dilation)
        errors = jax.lax.dynamic_slice(
            coarse, (image, row, 0, 0), (images, rows, width, features)
        )
        # float32, because the 8 bits of bfloat16 are too few for a sum of many strips.
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
