"""The convolutions of the paper's tables, in the formulation that is fastest where they run.

`convolve` and `upsample` are the same functions on every platform; what differs is how
they and their gradients are computed. On accelerators the native operations are used. On
CPU some of XLA's gradients are several to a hundred times slower than its forward
convolution, so there they are written as forward convolutions and matrix products:

- A stride-2 convolution's input gradient, and the transposed convolution, split into
  four stride-1 convolutions, one for each parity of the output's row and column; where
  they have few features, both columns' are one.
- A 3x3 convolution between wide layers, dilated or not, and its gradients, are done by
  Winograd's algorithm with a third or a quarter of the products (`winograd.py`).
- Of a thin layer, as the first and the last of the network, the weight gradient is a
  matrix product with the patches of its thin side, a strip of the image at a time.
- A stride-2 convolution onto a small map, as the last ones of a discriminator, is a matrix
  product with the patches of its inputs; its gradients are the other two.
- Other weight gradients are one matrix product for each tap of the kernel and each strip.

`python -m benchmarks --cases completion_step,joint_step` measures the whole of it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal
from jaxtyping import Array, Float

from gl_jax.models import winograd
from gl_jax.models.ordering import after

Inputs = Float[Array, "b h w i"]
Outputs = Float[Array, "b y x o"]
Kernel = Float[Array, "k l i o"]
Padding = tuple[tuple[int, int], tuple[int, int]]
ParityTaps = tuple[slice, tuple[int, int]]

# Below this many channels on either side Winograd's transforms cost more than its
# products save; a weight gradient saves more, because XLA's own is slower.
WINOGRAD_CHANNELS = 128
WINOGRAD_GRADIENT_CHANNELS = 32

# What is made of so many pixels of a layer fits into the cache.
STRIP_PIXELS = 4096

# Up to this many channels on one side patches of that side do, too; of wider layers what
# meets one tap of the kernel, of fewer pixels.
THIN_CHANNELS = 16
TAP_PIXELS = 1024

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
    return _same(inputs, kernel, stride, dilation)


def _convolve_forward(
    inputs: CustomVJPPrimal, kernel: CustomVJPPrimal, stride: int, dilation: int
) -> tuple[Outputs, Residuals]:
    outputs = convolve(inputs.value, kernel.value, stride, dilation)
    return outputs, Residuals.of(inputs, kernel)


def _convolve_backward(
    stride: int, dilation: int, residuals: Residuals, errors: Outputs
) -> tuple[Inputs | None, Kernel | None]:
    inputs, kernel, asked = residuals
    padding = dilation * (kernel.shape[0] - 1) // 2

    def input_gradient(kernel: Kernel) -> Inputs:
        shape = inputs.shape
        return _input_gradient(errors, kernel, stride, dilation, padding, shape)

    def weight_gradient() -> Kernel:
        shape = kernel.shape
        return _weight_gradient(inputs, errors, shape, stride, dilation, padding)

    return _gradients(asked, kernel, input_gradient, weight_gradient)


convolve.defvjp(_convolve_forward, _convolve_backward, symbolic_zeros=True)


@jax.custom_vjp
def upsample(inputs: Inputs, kernel: Float[Array, "4 4 i o"]) -> Outputs:
    """The 4x4 transposed convolution of stride 2 and padding 1: exactly twice the size.

    `kernel[dy, dx]` carries input pixel (y, x) to output pixel (2y + dy - 1, 2x + dx - 1).
    """
    b, h, w, _ = inputs.shape
    shape = (b, 2 * h, 2 * w, kernel.shape[3])
    return _input_gradient(inputs, kernel.swapaxes(2, 3), 2, 1, 1, shape)


def _upsample_forward(
    inputs: CustomVJPPrimal, kernel: CustomVJPPrimal
) -> tuple[Outputs, Residuals]:
    return upsample(inputs.value, kernel.value), Residuals.of(inputs, kernel)


def _upsample_backward(
    residuals: Residuals, errors: Outputs
) -> tuple[Inputs | None, Kernel | None]:
    # The transposed convolution is a stride-2 convolution read backwards: its input
    # gradient is that convolution, and in its weight gradient the two sides change roles.
    inputs, kernel, asked = residuals

    def input_gradient(kernel: Kernel) -> Inputs:
        return _native(errors, kernel.swapaxes(2, 3), 2, 1, _both(1, 1))

    def weight_gradient() -> Kernel:
        height, width, features, swapped = kernel.shape
        shape = (height, width, swapped, features)
        return _weight_gradient(errors, inputs, shape, 2, 1, 1).swapaxes(2, 3)

    return _gradients(asked, kernel, input_gradient, weight_gradient)


upsample.defvjp(_upsample_forward, _upsample_backward, symbolic_zeros=True)


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


def _same(inputs: Array, kernel: Array, stride: int, dilation: int) -> Array:
    padding = dilation * (kernel.shape[0] - 1) // 2

    def native(inputs: Array, kernel: Array) -> Array:
        return _native(inputs, kernel, stride, dilation, _both(padding, padding))

    on_cpu: Callable[[Array, Array], Array]
    if _onto_small_map(inputs, inputs.shape, stride, dilation):
        on_cpu = partial(_by_patches, padding=padding)
    elif _fits_pairs(inputs, kernel.shape, stride, dilation):
        on_cpu = _in_pairs
    elif (
        _fits_winograd(inputs, kernel.shape, stride, dilation)
        and min(kernel.shape[2:]) >= WINOGRAD_CHANNELS
    ):
        on_cpu = partial(winograd.convolve, dilation=dilation)
    else:
        return native(inputs, kernel)
    return jax.lax.platform_dependent(inputs, kernel, cpu=on_cpu, default=native)


def _fits_winograd(
    inputs: Array, shape: tuple[int, ...], stride: int, dilation: int
) -> bool:
    """3x3, stride 1, and what `winograd` asks of the type and the sides."""
    exact = inputs.dtype == jnp.float32
    plain = shape[:2] == (3, 3) and stride == 1
    return exact and plain and winograd.fits(inputs.shape, dilation)


def _onto_small_map(
    array: Array, shape: tuple[int, ...], stride: int, dilation: int
) -> bool:
    """Whether a convolution of inputs of this shape is done by patches (on CPU).

    Only in float32, the type of `array`: overlapping patches are added in their own type.
    """
    pixels = -(-shape[1] // 2) * -(-shape[2] // 2)
    few = pixels <= SMALL_MAP and shape[0] * pixels <= MOST_PATCHES
    return array.dtype == jnp.float32 and stride == 2 and dilation == 1 and few


def _native(
    inputs: Array, kernel: Array, stride: int, dilation: int, padding: Padding
) -> Array:
    return jax.lax.conv_general_dilated(
        inputs,
        kernel,
        window_strides=(stride, stride),
        padding=padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _fits_pairs(
    inputs: Array, shape: tuple[int, ...], stride: int, dilation: int
) -> bool:
    """3x3, stride 1, few features from fewer, and columns in pairs."""
    plain = shape[:2] == (3, 3) and stride == dilation == 1
    return plain and shape[2] < shape[3] <= FEW_CHANNELS and inputs.shape[2] % 2 == 0


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


def _both(before: int, after: int) -> Padding:
    return (before, after), (before, after)


def _input_gradient(
    errors: Array,
    kernel: Array,
    stride: int,
    dilation: int,
    padding: int,
    shape: tuple[int, ...],
) -> Array:
    """The gradient of a convolution with respect to its inputs, of the given shape."""
    if stride == 1:
        return _same(errors, kernel[::-1, ::-1].swapaxes(2, 3), 1, dilation)

    def native(errors: Array, kernel: Array) -> Array:
        zeros = jnp.zeros(shape, errors.dtype)

        def forward(inputs: Array) -> Array:
            return _native(inputs, kernel, stride, dilation, _both(padding, padding))

        return jax.vjp(forward, zeros)[1](errors)[0]

    even = shape[1] % 2 == 0 and shape[2] % 2 == 0
    on_cpu: Callable[[Array, Array], Array]
    if _onto_small_map(errors, shape, stride, dilation):
        on_cpu = partial(_to_patches, padding=padding, sides=shape[1:3])
    elif stride == 2 and dilation == 1 and even:
        on_cpu = partial(_by_parity, padding=padding)
    else:
        return native(errors, kernel)
    return jax.lax.platform_dependent(errors, kernel, cpu=on_cpu, default=native)


def _by_patches(inputs: Array, kernel: Array, *, padding: int) -> Array:
    """A stride-2 convolution as one matrix product."""
    size, features = kernel.shape[0], kernel.shape[3]
    sides = [-(-side // 2) for side in inputs.shape[1:3]]
    patches = _patches(inputs, sides, size=size, padding=padding)
    return (patches @ kernel.reshape(-1, features)).reshape(-1, *sides, features)


def _to_patches(
    errors: Array, kernel: Array, *, padding: int, sides: tuple[int, ...]
) -> Array:
    """Its input gradient: every patch's share, added where the patches overlap."""
    size, features = kernel.shape[0], kernel.shape[2]
    count, height, width, _ = errors.shape
    shares = errors @ kernel.reshape(-1, kernel.shape[3]).T
    shares = shares.reshape(count, height, width, size, size, features)
    # Room for the last tap, whatever the padding.
    room = [2 * (side - 1) + size for side in (height, width)]
    total = jnp.zeros((count, *room, features), errors.dtype)
    for y in range(size):
        for x in range(size):
            rows, columns = slice(y, y + 2 * height, 2), slice(x, x + 2 * width, 2)
            total = total.at[:, rows, columns].add(shares[:, :, :, y, x])
    return total[:, padding:, padding:][:, : sides[0], : sides[1]]


def _patches(inputs: Array, sides: Sequence[int], *, size: int, padding: int) -> Array:
    """What each of the sides' outputs of a stride-2 convolution sees, an output a row."""
    padded = jnp.pad(inputs, ((0, 0), *_both(padding, padding), (0, 0)))
    return _side_by_side(_taps(padded, sides, size=size, stride=2, dilation=1))


def _side_by_side(taps: Iterator[Array]) -> Array:
    """Patches: what meets the taps of each pixel in one row, [pixels, taps * i]."""
    # Fused with a product, each patch would be made many times.
    patches = jax.lax.optimization_barrier(jnp.concatenate(list(taps), axis=3))
    return patches.reshape(-1, patches.shape[3])


def _taps(
    padded: Array, sides: Sequence[int], *, size: int, stride: int, dilation: int
) -> Iterator[Array]:
    """The inputs that meet each tap of the kernel, [b, *sides, i], row by row of taps."""
    height, width = (stride * (side - 1) + 1 for side in sides)
    for y in range(0, size * dilation, dilation):
        for x in range(0, size * dilation, dilation):
            yield padded[:, y : y + height : stride, x : x + width : stride]


def _by_parity(errors: Array, kernel: Array, *, padding: int) -> Array:
    """A stride-2 convolution's input gradient from stride-1 convolutions.

    Input row 2y + p met output row (2y + p + padding - t) / 2 through tap t, so each
    parity p has its own taps t, of parity p + padding, and a dense convolution of them.
    Their outputs are interleaved in the cache, a strip of rows at a time.
    """
    b, h, w, _ = errors.shape
    features = kernel.shape[2]
    parities = [_parity_taps(kernel.shape[0], padding, parity) for parity in (0, 1)]
    before, after = _most_padding(parities)
    padded = jnp.pad(errors, ((0, 0), (before, after), (0, 0), (0, 0)))
    rows = winograd.divisor(h, STRIP_PIXELS // (b * w))

    def complete(index: Array, outputs: Array) -> Array:
        start, height = index * rows, before + rows + after
        seen = jax.lax.dynamic_slice_in_dim(padded, start, height, axis=1)
        parts = []
        for taps, around in parities:
            part = seen[:, before - around[0] : before + rows + around[1]]
            row_kernel = kernel[taps].swapaxes(2, 3)
            parts.append(_columns_by_parity(part, row_kernel, parities))
        # b, rows, parity of the row, w, parity of the column
        found = jnp.stack(parts, axis=2).reshape(b, 2 * rows, 2 * w, features)
        return jax.lax.dynamic_update_slice_in_dim(outputs, found, 2 * start, axis=1)

    zeros = jnp.zeros((b, 2 * h, 2 * w, features), errors.dtype)
    return jax.lax.fori_loop(0, h // rows, complete, zeros)


def _columns_by_parity(
    errors: Array, kernel: Array, parities: list[ParityTaps]
) -> Array:
    """The columns of both parities, [b, rows, w, 2, i], of rows that are padded already."""
    features = kernel.shape[3]
    if kernel.shape[1] % 2 == 1 and features <= FEW_CHANNELS:
        both, around = _both_columns(kernel, parities)
        found = _native(errors, both, 1, 1, ((0, 0), around))
        return found.reshape(*found.shape[:3], 2, features)
    return jnp.stack(
        [
            _native(errors, kernel[:, taps], 1, 1, ((0, 0), around))
            for taps, around in parities
        ],
        axis=3,
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


def _parity_taps(kernel_size: int, padding: int, parity: int) -> ParityTaps:
    """The taps that reach inputs of one parity, last first, and the padding they need."""
    first = (parity + padding) % 2
    last = kernel_size - 1 - (kernel_size - 1 - first) % 2
    taps = slice(last, first - 1 if first else None, -2)
    # Tap t reads the error at (parity + padding - t) / 2 from the output's own place.
    before = -(parity + padding - last) // 2
    after = (parity + padding - first) // 2
    return taps, (before, after)


def _weight_gradient(
    inputs: Array,
    errors: Array,
    shape: tuple[int, ...],
    stride: int,
    dilation: int,
    padding: int,
) -> Array:
    """The gradient of a convolution with respect to its kernel, of the given shape."""

    def native(inputs: Array, errors: Array) -> Array:
        def forward(kernel: Array) -> Array:
            return _native(inputs, kernel, stride, dilation, _both(padding, padding))

        return jax.vjp(forward, jnp.zeros(shape, inputs.dtype))[1](errors)[0]

    on_cpu = _cpu_weight_gradient(inputs, shape, stride, dilation, padding)
    if on_cpu is None:
        return native(inputs, errors)
    return jax.lax.platform_dependent(inputs, errors, cpu=on_cpu, default=native)


def _cpu_weight_gradient(
    inputs: Array,
    shape: tuple[int, ...],
    stride: int,
    dilation: int,
    padding: int,
) -> Callable[[Array, Array], Array] | None:
    """The formulation that is faster than XLA's own on CPU, None where there is none."""
    size, thinner = shape[0], min(shape[2:])
    if _onto_small_map(inputs, inputs.shape, stride, dilation):
        return partial(_from_patches, size=size, padding=padding)
    if stride == dilation == 1 and thinner <= THIN_CHANNELS:
        if shape[3] < shape[2]:
            return partial(_mirrored_patch_products, size=size)
        return partial(_patch_products, size=size)
    wide = thinner >= WINOGRAD_GRADIENT_CHANNELS
    if wide and _fits_winograd(inputs, shape, stride, dilation):
        return partial(winograd.weight_gradient, dilation=dilation)
    if size == 5 or thinner < 2 * WINOGRAD_GRADIENT_CHANNELS:
        return None
    return partial(
        _tap_products, size=size, stride=stride, dilation=dilation, padding=padding
    )


def _from_patches(inputs: Array, errors: Array, *, size: int, padding: int) -> Array:
    """The weight gradient of a stride-2 convolution as one matrix product."""
    patches = _patches(inputs, errors.shape[1:3], size=size, padding=padding)
    product = patches.T @ errors.reshape(-1, errors.shape[3])
    return product.reshape(size, size, inputs.shape[3], errors.shape[3])


def _patch_products(inputs: Array, errors: Array, *, size: int) -> Array:
    """A "same" convolution's weight gradient from patches of its inputs."""
    features = (inputs.shape[3], errors.shape[3])

    def product(taps: Iterator[Array], errors: Array) -> Array:
        return _side_by_side(taps).T @ errors

    total = _sum_over_strips(
        product,
        inputs,
        errors,
        pixels=STRIP_PIXELS,
        size=size,
        stride=1,
        dilation=1,
        padding=size // 2,
    )
    return total.reshape(size, size, *features)


def _mirrored_patch_products(inputs: Array, errors: Array, *, size: int) -> Array:
    """The same at stride 1 from patches of the errors: the inputs lie on the other side."""
    mirrored = _patch_products(errors, inputs, size=size)
    return mirrored[::-1, ::-1].swapaxes(2, 3)


def _tap_products(
    inputs: Array, errors: Array, *, size: int, stride: int, dilation: int, padding: int
) -> Array:
    """A weight gradient as one matrix product for each tap of the kernel."""
    features = (inputs.shape[3], errors.shape[3])

    def products(taps: Iterator[Array], errors: Array) -> Array:
        rows = (tap.reshape(-1, features[0]) for tap in taps)
        return jnp.stack([tap.T @ errors for tap in rows])

    total = _sum_over_strips(
        products,
        inputs,
        errors,
        pixels=TAP_PIXELS,
        size=size,
        stride=stride,
        dilation=dilation,
        padding=padding,
    )
    return total.reshape(size, size, *features)


def _sum_over_strips(
    product: Callable[[Iterator[Array], Array], Array],
    inputs: Array,
    errors: Array,
    *,
    pixels: int,
    size: int,
    stride: int,
    dilation: int,
    padding: int,
) -> Array:
    """The sum of `product`(what meets each tap, errors [pixels, o]) over strips of rows.

    A strip has about `pixels` pixels, so that what is made of it stays in the cache.
    """
    count, height, width, features = errors.shape
    reach = dilation * (size - 1) + 1
    needed = [stride * (side - 1) + reach for side in (height, width)]
    around = ((0, 0), *_both(padding, padding), (0, 0))
    # A stride may leave the last pixels unseen.
    padded = jnp.pad(inputs, around)[:, : needed[0], : needed[1]]
    rows = winograd.divisor(height, pixels // width)
    strips = height // rows

    def part(index: Array | int) -> Array:
        image, row = index // strips, index % strips * rows
        seen = jax.lax.dynamic_slice(
            padded,
            (image, stride * row, 0, 0),
            (1, stride * (rows - 1) + reach, needed[1], inputs.shape[3]),
        )
        strip = jax.lax.dynamic_slice(
            errors, (image, row, 0, 0), (1, rows, width, features)
        )
        taps = _taps(seen, (rows, width), size=size, stride=stride, dilation=dilation)
        return product(taps, strip.reshape(-1, features))

    # Many strips are added, which 8 bits are too few for.
    zeros = jnp.zeros(jax.eval_shape(part, 0).shape, jnp.float32)
    total = jax.lax.fori_loop(
        0,
        count * strips,
        lambda index, total: total + part(index).astype(total.dtype),
        zeros,
    )
    return total.astype(inputs.dtype)
