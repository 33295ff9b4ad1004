"""The convolutions of the paper's tables, in the formulation that is fastest where they run.

`convolve` and `upsample` are the same functions on every platform; what differs is how
they and their gradients are computed. On accelerators the native operations are used. On
CPU some of XLA's gradients are several to a hundred times slower than its forward
convolution, so there they are written as forward convolutions and matrix products:

- A stride-2 convolution's input gradient, and the transposed convolution, split into
  four stride-1 convolutions, one for each parity of the output's row and column; where
  they have few features, both columns' are one.
- Between wide layers a 3x3 convolution, dilated or not, and in training one of stride 2
  are done with their gradients by Winograd's algorithm, with a quarter to a half of
  the products (`winograd.py`).
- Of a thin layer, as the first and the last of the network, the weight gradient is a
  matrix product with the patches of its thin side, a strip of the image at a time; of
  other 5x5 layers with those of the inputs.
- A stride-2 convolution onto a small map, as the last ones of a discriminator, is a matrix
  product with the patches of its inputs; its gradients are the other two.
- Other weight gradients are one matrix product for each tap of the kernel and each strip.
- A layer that does little, as those of a small network, is left to XLA.

`python -m benchmarks --cases completion_step,joint_step` measures the whole of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf, prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal
from jaxtyping import Array, Float

from gl_jax.models import winograd
from gl_jax.models.grids import Layer
from gl_jax.models.ordering import after, blank

Inputs = Float[Array, "b h w i"]
Outputs = Float[Array, "b y x o"]
Kernel = Float[Array, "k l i o"]
ParityTaps = tuple[slice, tuple[int, int]]

# With fewer multiplications for each tap and photograph there is little to save, and XLA's
# own operations compile in half the time.
LEAST_PRODUCTS = 2**17

# Below this many channels on either side Winograd's transforms cost more than its
# products save; more is saved of gradients, because XLA's own are slower. Stride 2 asks
# for more on the coarse side, and with a kernel of 3, which saves least, for twice as many
# on the fine one. Outputs of a photograph or two save less than their longer compilation.
WINOGRAD_INFERENCE_CHANNELS = 128
WINOGRAD_CHANNELS = 64
WINOGRAD_GRADIENT_CHANNELS = 32
WINOGRAD_COARSE_CHANNELS = 128

# From so many features on input gradients gain from the largest tiles, which round too much
# for outputs.
WINOGRAD_LARGE_TILES_CHANNELS = 192

# Normalising the outputs of a training step makes more of their rounding, half of which, in
# the completion network, comes from layers that are not dilated. It grows with the features
# that are summed: with more than so many these layers take the smallest tiles.
WINOGRAD_SUMMED_CHANNELS = 128

# Below so many multiplications for each tap, its programs at stride 2 take longer to
# compile than they save in a few hundred steps; a weight gradient saves more.
WINOGRAD_PRODUCTS = 2**27
WINOGRAD_GRADIENT_PRODUCTS = 2**25

# Of kernels with more weights patches are as fast, and need less memory.
WINOGRAD_WEIGHTS = 2**22

# What is made of so many pixels of a layer fits into the cache.
STRIP_PIXELS = 4096

# Up to this many channels on one side patches of that side do, too; of wider layers what
# meets one tap of the kernel, of fewer pixels.
THIN_CHANNELS = 16
TAP_PIXELS = 1024

# Of strided layers only with more multiplications for each tap and photograph: up to that
# XLA's own weight gradients take half the time.
STRIDED_PRODUCTS = 2**21

# Up to this many features a convolution onto them leaves a part of the processor idle.
FEW_CHANNELS = 64

# Onto maps of at most this many pixels XLA's stride-2 convolutions and their input
# gradients run at a quarter to three quarters of the matrix peak, with few photographs.
SMALL_MAP = 64
MOST_PATCHES = 1024


@jax.tree_util.register_static
@dataclass(frozen=True)
class Asked:
    """Which gradients are asked for, known while a step is traced."""

    inputs: bool  # not of photographs
    kernel: bool  # not of a network that only judges


class Residuals(NamedTuple):
    """What a way back needs of the way there."""

    inputs: Array
    kernel: Array
    asked: Asked

    @classmethod
    def of(cls, inputs: CustomVJPPrimal, kernel: CustomVJPPrimal) -> "Residuals":
        """Those of a layer with these arguments."""
        asked = Asked(inputs.perturbed, kernel.perturbed)
        return cls(inputs.value, kernel.value, asked)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(
    inputs: Inputs, kernel: Kernel, stride: int = 1, dilation: int = 1
) -> Outputs:
    """The "same" convolution of the tables: zero padding of dilation * (k - 1) / 2.

    The kernel has an odd side; the sides of the output are ceil(side / stride).
    """
    layer = Layer(kernel.shape[0], stride, dilation)
    return _to_coarse(inputs, kernel, layer, often=False)


def _convolve_forward(
    inputs: CustomVJPPrimal, kernel: CustomVJPPrimal, stride: int, dilation: int
) -> tuple[Outputs, Residuals]:
    layer = Layer(kernel.value.shape[0], stride, dilation)
    outputs = _to_coarse(inputs.value, kernel.value, layer)
    return outputs, Residuals.of(inputs, kernel)


def _convolve_backward(
    stride: int, dilation: int, residuals: Residuals, errors: Outputs
) -> tuple[Inputs | None, Kernel | None]:
    inputs, kernel, asked = residuals
    layer = Layer(kernel.shape[0], stride, dilation)

    def input_gradient(kernel: Kernel) -> Inputs:
        return _to_fine(errors, kernel, layer, inputs.shape)

    def weight_gradient() -> Kernel:
        return _to_kernel(inputs, errors, kernel.shape, layer)

    return _gradients(asked, kernel, input_gradient, weight_gradient)


convolve.defvjp(_convolve_forward, _convolve_backward, symbolic_zeros=True)

_UPSAMPLING = Layer(4, 2, upsampling=True)


@jax.custom_vjp
def upsample(inputs: Inputs, kernel: Float[Array, "4 4 i o"]) -> Outputs:
    """The 4x4 transposed convolution of stride 2 and padding 1: exactly twice the size.

    `kernel[dy, dx]` carries input pixel (y, x) to output pixel (2y + dy - 1, 2x + dx - 1).
    """
    return _upsampled(inputs, kernel, often=False)


def _upsampled(inputs: Array, kernel: Array, *, often: bool) -> Array:
    b, h, w, _ = inputs.shape
    shape = (b, 2 * h, 2 * w, kernel.shape[3])
    return _to_fine(inputs, kernel, _UPSAMPLING, shape, often=often)


def _upsample_forward(
    inputs: CustomVJPPrimal, kernel: CustomVJPPrimal
) -> tuple[Outputs, Residuals]:
    outputs = _upsampled(inputs.value, kernel.value, often=True)
    return outputs, Residuals.of(inputs, kernel)


def _upsample_backward(
    residuals: Residuals, errors: Outputs
) -> tuple[Inputs | None, Kernel | None]:
    # The transposed convolution is a stride-2 convolution read backwards: its input
    # gradient is that convolution, and in its weight gradient the two sides change roles.
    inputs, kernel, asked = residuals

    def input_gradient(kernel: Kernel) -> Inputs:
        return _to_coarse(errors, kernel, _UPSAMPLING)

    def weight_gradient() -> Kernel:
        return _to_kernel(errors, inputs, kernel.shape, _UPSAMPLING)

    return _gradients(asked, kernel, input_gradient, weight_gradient)


upsample.defvjp(_upsample_forward, _upsample_backward, symbolic_zeros=True)


@jax.custom_vjp
def multiply(inputs: Float[Array, "b i"], kernel: Float[Array, "i o"]) -> Array:
    """A dense layer's product; its kernel may be updated in its place, as the others'."""
    return inputs @ kernel


def _multiply_forward(
    inputs: CustomVJPPrimal, kernel: CustomVJPPrimal
) -> tuple[Array, Residuals]:
    return inputs.value @ kernel.value, Residuals.of(inputs, kernel)


def _multiply_backward(
    residuals: Residuals, errors: Array
) -> tuple[Array | None, Array | None]:
    inputs, kernel, asked = residuals
    input_errors = errors @ kernel.T if asked.inputs else None
    if not asked.kernel:
        return input_errors, None
    gradient = inputs.T @ errors
    if input_errors is None:
        return None, gradient
    # The inputs are few: this gradient, as large as the kernel, may come last.
    return input_errors, after(gradient, input_errors)


multiply.defvjp(_multiply_forward, _multiply_backward, symbolic_zeros=True)


def _gradients(
    asked: Asked,
    kernel: Kernel,
    input_gradient: Callable[[Kernel], Inputs],
    weight_gradient: Callable[[], Kernel],
) -> tuple[Inputs | None, Kernel | None]:
    """Those that are asked for, in the order that needs the least memory."""
    if not asked.kernel:
        return input_gradient(kernel), None
    gradient = weight_gradient()
    if not asked.inputs:
        return None, gradient
    # First the weight's, which frees the inputs; nobody has the kernel's gradient before
    # the kernel was read for the last time, so that it can be updated in its place.
    errors = input_gradient(after(kernel, gradient))
    return errors, after(gradient, errors)


# ---- From the fine grid to the coarse one --------------------------------------------


def _to_coarse(
    fine: Array, kernel: Array, layer: Layer, *, often: bool = True
) -> Array:
    """A convolution, or the input gradient of a transposed one.

    What is done `often`, as every step of a training run, may take longer to compile.
    """

    def native(fine: Array, kernel: Array) -> Array:
        return _native(fine, layer.fine_first(kernel), layer)

    features = layer.features(kernel.shape)
    channels = WINOGRAD_CHANNELS if often else WINOGRAD_INFERENCE_CHANNELS
    least = WINOGRAD_PRODUCTS if often else inf
    on_cpu: Callable[[Array, Array], Array]
    if _is_small(fine.shape, features, layer):
        return native(fine, kernel)
    if _onto_small_map(fine, fine.shape, layer):
        on_cpu = partial(_by_patches, layer=layer)
    elif _fits_pairs(fine, features, layer):
        on_cpu = _in_pairs
    elif _by_winograd(fine, fine.shape, features, layer, channels, least):
        plain = layer.dilation == 1 and not layer.upsampling
        long = features[0] * layer.stride**2 > WINOGRAD_SUMMED_CHANNELS
        accurate = often and plain and long
        tiles = winograd.TILES_2X2 if accurate else winograd.TILES_2X4
        on_cpu = partial(winograd.to_coarse, layer=layer, tiles=tiles)
    else:
        return native(fine, kernel)
    return jax.lax.platform_dependent(fine, kernel, cpu=on_cpu, default=native)


def _is_small(grid: Sequence[int], features: tuple[int, int], layer: Layer) -> bool:
    """Whether a layer does so little that nothing is gained, by the shape of the fine grid."""
    return _products_per_tap(grid, features, layer) < LEAST_PRODUCTS


def _products_per_tap(
    grid: Sequence[int], features: tuple[int, int], layer: Layer
) -> int:
    """Multiplications for each tap of one photograph, by the shape of the fine grid."""
    sides = [layer.coarse_side(side) for side in grid[1:3]]
    return prod(sides) * prod(features)


def _by_winograd(
    array: Array,
    grid: Sequence[int],
    features: tuple[int, int],
    layer: Layer,
    channels: int,
    products: float,
) -> bool:
    """Whether Winograd's products save time between grids, by the shape of the fine one.

    From so many channels on, and at stride 2 from so many multiplications for each tap on.
    """
    fine = coarse = channels
    if layer.stride == 2:
        if grid[0] * _products_per_tap(grid, features, layer) < products:
            return False
        coarse = WINOGRAD_COARSE_CHANNELS
        fine = 2 * channels if layer.size == 3 else channels
    wide = features[0] >= fine and features[1] >= coarse
    return wide and _fits_winograd(array, grid, features, layer)


def _fits_winograd(
    array: Array, grid: Sequence[int], features: tuple[int, int], layer: Layer
) -> bool:
    """What `winograd` asks of the type, the sides and the kernel."""
    if array.dtype != jnp.float32 or not 3 <= layer.size <= 5:
        return False
    if layer.stride == 1:
        return layer.size == 3 and winograd.fits(grid, layer.dilation)
    if layer.stride != 2 or layer.dilation != 1 or not _even(grid):
        return False
    return winograd.fits((grid[0], grid[1] // 2, grid[2] // 2), 1)


def _even(shape: Sequence[int]) -> bool:
    return shape[1] % 2 == 0 and shape[2] % 2 == 0


def _onto_small_map(array: Array, shape: Sequence[int], layer: Layer) -> bool:
    """Whether a convolution of a fine grid of this shape is done by patches (on CPU).

    Only in float32, the type of `array`: overlapping patches are added in their own type.
    """
    pixels = layer.coarse_side(shape[1]) * layer.coarse_side(shape[2])
    few = pixels <= SMALL_MAP and shape[0] * pixels <= MOST_PATCHES
    strided = layer.stride == 2 and layer.dilation == 1
    return array.dtype == jnp.float32 and strided and few


def _native(inputs: Array, kernel: Array, layer: Layer) -> Array:
    padding = (layer.padding, layer.padding)
    return jax.lax.conv_general_dilated(
        inputs,
        kernel,
        window_strides=(layer.stride, layer.stride),
        padding=(padding, padding),
        rhs_dilation=(layer.dilation, layer.dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _fits_pairs(inputs: Array, features: tuple[int, int], layer: Layer) -> bool:
    """3x3, stride 1, few features from fewer, and columns in pairs."""
    plain = layer.size == 3 and layer.stride == layer.dilation == 1
    few = features[0] < features[1] <= FEW_CHANNELS
    return plain and few and inputs.shape[2] % 2 == 0


def _in_pairs(inputs: Array, kernel: Array) -> Array:
    """A 3x3 convolution of stride 1, of two neighbouring columns at a time.

    One column of taps in four is 0; a processor gains more by twice the features.
    """
    b, h, w, _ = inputs.shape
    none = ((0, 0), (0, 0), (0, 0))
    parts = [jnp.pad(kernel, (none[0], place, *none[1:])) for place in ((0, 1), (1, 0))]
    outputs = jax.lax.conv_general_dilated(
        inputs,
        jnp.concatenate(parts, axis=3),
        window_strides=(1, 2),
        padding=((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return outputs.reshape(b, h, w, kernel.shape[3])


def _by_patches(fine: Array, kernel: Array, *, layer: Layer) -> Array:
    """A stride-2 convolution as one matrix product."""
    kernel = layer.fine_first(kernel)
    sides = [layer.coarse_side(side) for side in fine.shape[1:3]]
    patches = _patches(fine, sides, layer)
    features = kernel.shape[3]
    return (patches @ kernel.reshape(-1, features)).reshape(-1, *sides, features)


def _patches(fine: Array, sides: Sequence[int], layer: Layer) -> Array:
    """What each of the sides' outputs of a convolution sees, an output a row."""
    padding = (layer.padding, layer.padding)
    padded = jnp.pad(fine, ((0, 0), padding, padding, (0, 0)))
    patches = _met(_met(padded, 1, sides[0], layer), 2, sides[1], layer)
    return patches.reshape(prod(patches.shape[:3]), -1)


def _met(padded: Array, axis: int, side: int, layer: Layer) -> Array:
    """What meets the taps along a side of the image, beside each other before the features.

    First rows, then columns of rows: a fifth of the program of all taps at once.
    """
    parts = _met_by_tap(padded, axis, side, layer)
    # Fused with a product, each patch would be made many times.
    return jax.lax.optimization_barrier(jnp.stack(parts, padded.ndim - 1))


def _side_by_side(padded: Array, sides: Sequence[int], layer: Layer) -> Array:
    """Patches in one row each, [pixels, k * k * i]: columns of taps, then rows of columns.

    Pieces are copied as they are: for a strip in the cache that takes less than `_met`.
    """
    for axis in (2, 1):
        # The barriers are as in `_met`.
        parts = _met_by_tap(padded, axis, sides[axis - 1], layer)
        padded = jax.lax.optimization_barrier(jnp.concatenate(parts, axis=3))
    return padded.reshape(-1, padded.shape[3])


def _met_by_tap(padded: Array, axis: int, side: int, layer: Layer) -> list[Array]:
    """What meets each tap along a side of the image."""
    length = layer.stride * (side - 1) + 1
    taps = range(0, layer.size * layer.dilation, layer.dilation)
    return [
        jax.lax.slice_in_dim(padded, tap, tap + length, layer.stride, axis)
        for tap in taps
    ]


# ---- From the coarse grid to the fine one --------------------------------------------


def _to_fine(
    coarse: Array,
    kernel: Array,
    layer: Layer,
    shape: tuple[int, ...],
    *,
    often: bool = True,
) -> Array:
    """A transposed convolution, or the input gradient of a convolution: of that shape."""
    features = layer.features(kernel.shape)
    least = WINOGRAD_PRODUCTS if often else inf
    on_cpu: Callable[[Array, Array], Array]
    if _is_small(shape, features, layer):
        return _native_to_fine(coarse, kernel, layer, shape)
    if _onto_small_map(coarse, shape, layer):
        on_cpu = partial(_to_patches, layer=layer, sides=shape[1:3])
    elif _by_winograd(
        coarse, shape, features, layer, WINOGRAD_GRADIENT_CHANNELS, least
    ):
        large = layer.stride == 1 and min(features) >= WINOGRAD_LARGE_TILES_CHANNELS
        tiles = winograd.TILES_4X4 if large else winograd.TILES_2X4
        on_cpu = partial(winograd.to_fine, layer=layer, tiles=tiles)
    elif layer.stride == 1:
        mirrored = layer.fine_first(kernel)[::-1, ::-1].swapaxes(2, 3)
        return _to_coarse(coarse, mirrored, Layer(layer.size, 1, layer.dilation))
    elif layer.stride == 2 and layer.dilation == 1 and _even(shape):
        on_cpu = partial(_by_parity, layer=layer)
    else:
        return _native_to_fine(coarse, kernel, layer, shape)
    native = partial(_native_to_fine, layer=layer, shape=shape)
    return jax.lax.platform_dependent(coarse, kernel, cpu=on_cpu, default=native)


def _native_to_fine(
    coarse: Array, kernel: Array, layer: Layer, shape: tuple[int, ...]
) -> Array:
    kernel = layer.fine_first(kernel)
    fine = jnp.zeros(shape, coarse.dtype)
    return jax.vjp(lambda fine: _native(fine, kernel, layer), fine)[1](coarse)[0]


def _to_patches(
    coarse: Array, kernel: Array, *, layer: Layer, sides: tuple[int, ...]
) -> Array:
    """At stride 2: every patch's share, added where the patches overlap."""
    kernel = layer.fine_first(kernel)
    size, features = layer.size, kernel.shape[2]
    shares = coarse @ kernel.reshape(-1, kernel.shape[3]).T
    shares = shares.reshape(*coarse.shape[:3], size, size, features)
    # Fused, each row would be added again for each of its columns.
    rows = jax.lax.optimization_barrier(_overlaid(shares, 1, layer)[:, : sides[0]])
    return _overlaid(rows, 2, layer)[:, :, : sides[1]]


def _overlaid(shares: Array, axis: int, layer: Layer) -> Array:
    """The shares of all taps along a side of the image, axis 3, added: twice the side."""
    parities = [_parity_taps(layer, parity) for parity in (0, 1)]
    most, side = _most_padding(parities), shares.shape[axis]
    padded = jnp.pad(
        shares, [most if at == axis else (0, 0) for at in range(shares.ndim)]
    )
    sums = []
    for taps, (before, _) in parities:
        parts = [
            jax.lax.slice_in_dim(padded[:, :, :, tap], start, start + side, axis=axis)
            for start, tap in enumerate(range(layer.size)[taps], most[0] - before)
        ]
        sums.append(sum(parts[1:], parts[0]))
    shape = list(sums[0].shape)
    shape[axis] = 2 * side
    return jnp.stack(sums, axis + 1).reshape(shape)


def _by_parity(errors: Array, kernel: Array, *, layer: Layer) -> Array:
    """A stride-2 convolution's input gradient from stride-1 convolutions.

    Input row 2y + p met output row (2y + p + padding - t) / 2 through tap t, so each
    parity p has its own taps t, of parity p + padding, and a dense convolution of them.
    Their outputs are interleaved in the cache, a strip of rows at a time.
    """
    kernel = layer.fine_first(kernel)
    b, h, w, _ = errors.shape
    features = kernel.shape[2]
    parities = [_parity_taps(layer, parity) for parity in (0, 1)]
    before, after = _most_padding(parities)
    padded = jnp.pad(errors, ((0, 0), (before, after), (0, 0), (0, 0)))
    rows = winograd.divisor(h, STRIP_PIXELS // (b * w))

    def complete(index: Array, outputs: Array) -> Array:
        start, height = winograd.unsigned(index) * rows, before + rows + after
        seen = jax.lax.dynamic_slice_in_dim(padded, start, height, axis=1)
        parts = []
        for taps, around in parities:
            part = seen[:, before - around[0] : before + rows + around[1]]
            row_kernel = kernel[taps].swapaxes(2, 3)
            parts.append(_columns_by_parity(part, row_kernel, parities))
        # b, rows, parity of the row, w, parity of the column
        found = jnp.stack(parts, axis=2).reshape(b, 2 * rows, 2 * w, features)
        return jax.lax.dynamic_update_slice_in_dim(outputs, found, 2 * start, axis=1)

    outputs = blank((b, 2 * h, 2 * w, features), errors)
    return jax.lax.fori_loop(0, h // rows, complete, outputs)


def _columns_by_parity(
    errors: Array, kernel: Array, parities: list[ParityTaps]
) -> Array:
    """The columns of both parities, [b, rows, w, 2, i], of rows that are padded already."""
    features = kernel.shape[3]
    if kernel.shape[1] % 2 == 1 and features <= FEW_CHANNELS:
        both, around = _both_columns(kernel, parities)
        found = _dense(errors, both, around)
        return found.reshape(*found.shape[:3], 2, features)
    return jnp.stack(
        [_dense(errors, kernel[:, taps], around) for taps, around in parities],
        axis=3,
    )


def _dense(padded: Array, kernel: Array, around: tuple[int, int]) -> Array:
    """A convolution of stride 1 with that padding of the columns."""
    return jax.lax.conv_general_dilated(
        padded,
        kernel,
        window_strides=(1, 1),
        padding=((0, 0), around),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _both_columns(
    kernel: Array, parities: list[ParityTaps]
) -> tuple[Array, tuple[int, int]]:
    """One kernel of twice the features for the columns of both parities, and its padding.

    An odd kernel has one tap more for one parity, which is 0 for the other; what that
    costs is less than what a processor gains by more features at a time.
    """
    before, after = _most_padding(parities)
    parts = [
        jnp.pad(
            kernel[:, taps],
            ((0, 0), (before - around[0], after - around[1]), (0, 0), (0, 0)),
        )
        for taps, around in parities
    ]
    return jnp.concatenate(parts, axis=3), (before, after)


def _most_padding(parities: list[ParityTaps]) -> tuple[int, int]:
    before, after = zip(*(around for _, around in parities), strict=True)
    return max(before), max(after)


def _parity_taps(layer: Layer, parity: int) -> ParityTaps:
    """The taps that reach inputs of one parity, last first, and the padding they need."""
    size, padding = layer.size, layer.padding
    first = (parity + padding) % 2
    last = size - 1 - (size - 1 - first) % 2
    taps = slice(last, first - 1 if first else None, -2)
    # Tap t reads the error at (parity + padding - t) / 2 from the output's own place.
    before = -(parity + padding - last) // 2
    after = (parity + padding - first) // 2
    return taps, (before, after)


# ---- From both grids to the kernel ---------------------------------------------------


def _to_kernel(
    fine: Array, coarse: Array, shape: tuple[int, ...], layer: Layer
) -> Array:
    """The gradient with respect to a kernel of that shape."""

    def native(fine: Array, coarse: Array) -> Array:
        def forward(kernel: Array) -> Array:
            return _native(fine, layer.fine_first(kernel), layer)

        return jax.vjp(forward, jnp.zeros(shape, fine.dtype))[1](coarse)[0]

    on_cpu = _cpu_weight_gradient(fine, shape, layer)
    if on_cpu is None:
        return native(fine, coarse)
    return jax.lax.platform_dependent(fine, coarse, cpu=on_cpu, default=native)


def _cpu_weight_gradient(
    fine: Array, shape: tuple[int, ...], layer: Layer
) -> Callable[[Array, Array], Array] | None:
    """The formulation that is faster than XLA's own on CPU, None where there is none."""
    features = layer.features(shape)
    thinner = min(features)
    if _is_small(fine.shape, features, layer):
        return None
    if _onto_small_map(fine, fine.shape, layer):
        return partial(_from_patches, layer=layer)
    much = _products_per_tap(fine.shape, features, layer) > STRIDED_PRODUCTS
    plain = layer.dilation == 1 and (layer.stride == 1 or much)
    if plain and features[0] == thinner <= THIN_CHANNELS:
        return partial(_patch_products, layer=layer)
    if layer.stride == layer.dilation == 1 and features[1] <= THIN_CHANNELS:
        return partial(_mirrored, products=partial(_patch_products, layer=layer))
    least = WINOGRAD_GRADIENT_PRODUCTS
    channels = WINOGRAD_GRADIENT_CHANNELS
    pays = _by_winograd(fine, fine.shape, features, layer, channels, least)
    if pays and (layer.stride == 1 or prod(shape) <= WINOGRAD_WEIGHTS):
        products = partial(winograd.weight_gradient, layer=layer)
        thin_errors = layer.stride == 1 and features[1] < features[0]
        return partial(_mirrored, products=products) if thin_errors else products
    if thinner < 2 * WINOGRAD_GRADIENT_CHANNELS:
        return None
    return partial(_patch_products if layer.size == 5 else _tap_products, layer=layer)


def _from_patches(fine: Array, coarse: Array, *, layer: Layer) -> Array:
    """At stride 2 as one matrix product."""
    # Patches anew, not those of the outputs, kept until now.
    patches = _patches(after(fine, coarse), coarse.shape[1:3], layer)
    product = patches.T @ coarse.reshape(-1, coarse.shape[3])
    size = layer.size
    kernel = product.reshape(size, size, fine.shape[3], coarse.shape[3])
    return layer.fine_first(kernel)


def _patch_products(fine: Array, coarse: Array, *, layer: Layer) -> Array:
    """From patches of the fine grid."""

    def product(seen: Array, coarse: Array, sides: tuple[int, int]) -> Array:
        return _side_by_side(seen, sides, layer).T @ coarse

    total = _sum_over_strips(product, fine, coarse, layer, pixels=STRIP_PIXELS)
    sides = (layer.size, layer.size, fine.shape[3], coarse.shape[3])
    return layer.fine_first(total.reshape(sides))


def _mirrored(
    fine: Array, coarse: Array, *, products: Callable[[Array, Array], Array]
) -> Array:
    """At stride 1 from what the inputs meet of the errors: on their other side.

    What is met is read with its surroundings, and is better the thinner side.
    """
    # The inputs anew, not those of the outputs, kept until now.
    mirrored = products(coarse, after(fine, coarse))
    return mirrored[::-1, ::-1].swapaxes(2, 3)


def _tap_products(fine: Array, coarse: Array, *, layer: Layer) -> Array:
    """As one matrix product for each tap of the kernel."""
    features = (fine.shape[3], coarse.shape[3])

    def products(seen: Array, coarse: Array, sides: tuple[int, int]) -> Array:
        taps = [
            tap.reshape(-1, features[0])
            for row in _met_by_tap(seen, 1, sides[0], layer)
            for tap in _met_by_tap(row, 2, sides[1], layer)
        ]
        return jnp.stack([tap.T @ coarse for tap in taps])

    total = _sum_over_strips(products, fine, coarse, layer, pixels=TAP_PIXELS)
    return layer.fine_first(total.reshape(layer.size, layer.size, *features))


def _sum_over_strips(
    product: Callable[[Array, Array, tuple[int, int]], Array],
    fine: Array,
    coarse: Array,
    layer: Layer,
    *,
    pixels: int,
) -> Array:
    """The sum of `product`(what is seen, errors [pixels, o], sides) over strips of rows.

    A strip has about `pixels` pixels, so that what is made of it stays in the cache.
    """
    count, height, width, features = coarse.shape
    stride, padding = layer.stride, (layer.padding, layer.padding)
    reach = layer.dilation * (layer.size - 1) + 1
    needed = [stride * (side - 1) + reach for side in (height, width)]
    # A stride may leave the last pixels unseen.
    padded = jnp.pad(fine, ((0, 0), padding, padding, (0, 0)))
    padded = padded[:, : needed[0], : needed[1]]
    rows = winograd.divisor(height, pixels // width)
    strips = height // rows

    def part(index: Array | int) -> Array:
        index, none = winograd.unsigned(index), winograd.unsigned(0)
        image, row = index // strips, index % strips * rows
        seen = jax.lax.dynamic_slice(
            padded,
            (image, stride * row, none, none),
            (1, stride * (rows - 1) + reach, needed[1], fine.shape[3]),
        )
        strip = jax.lax.dynamic_slice(
            coarse, (image, row, none, none), (1, rows, width, features)
        )
        return product(seen, strip.reshape(-1, features), (rows, width))

    # Many strips are added, which 8 bits are too few for.
    zeros = jnp.zeros(jax.eval_shape(part, 0).shape, jnp.float32)
    total = jax.lax.fori_loop(
        0,
        count * strips,
        lambda index, total: total + part(index).astype(total.dtype),
        zeros,
    )
    return total.astype(fine.dtype)
