"""The convolutions of the paper's tables, in the formulation that is fastest where they run.

`convolve` and `upsample` are the same functions on every platform; what differs is how
they and their gradients are computed. On accelerators the native operations are used. On
CPU some of XLA's gradients are several to a hundred times slower than its forward
convolution, so there they are written as forward convolutions and matrix products:

- A stride-2 convolution's input gradient, and the transposed convolution, split into
  four stride-1 convolutions, one for each parity of the output's row and column.
- A 3x3 convolution between wide layers, and its gradients, use Winograd's F(2x2, 3x3):
  16 products where the definition needs 36 (Lavin and Gray 2016). The transforms are
  memory traffic, so a block of the image that fits into the cache is done at a time.
- Other weight gradients are one matrix product for each tap of the kernel.

`python -m benchmarks --cases completion_step,joint_step` measures the whole of it.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Inputs = Float[Array, "b h w i"]
Outputs = Float[Array, "b y x o"]
Kernel = Float[Array, "k l i o"]
Padding = tuple[tuple[int, int], tuple[int, int]]

# Below this many channels on either side Winograd's transforms cost more than its
# products save; a weight gradient saves more, because XLA's own is slower.
WINOGRAD_CHANNELS = 192
WINOGRAD_GRADIENT_CHANNELS = 64

# Pixels to transform at a time: with 256 channels, 16 MB of products, half an L3 cache.
WINOGRAD_PIXELS = 4096


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(
    inputs: Inputs, kernel: Kernel, stride: int = 1, dilation: int = 1
) -> Outputs:
    """The "same" convolution of the tables: zero padding of dilation * (k - 1) / 2.

    The kernel has an odd side; the sides of the output are ceil(side / stride).
    """
    return _same(inputs, kernel, stride, dilation)


def _convolve_forward(
    inputs: Inputs, kernel: Kernel, stride: int, dilation: int
) -> tuple[Outputs, tuple[Inputs, Kernel]]:
    return convolve(inputs, kernel, stride, dilation), (inputs, kernel)


def _convolve_backward(
    stride: int, dilation: int, residuals: tuple[Inputs, Kernel], errors: Outputs
) -> tuple[Inputs, Kernel]:
    inputs, kernel = residuals
    padding = dilation * (kernel.shape[0] - 1) // 2
    return (
        _input_gradient(errors, kernel, stride, dilation, padding, inputs.shape),
        _weight_gradient(inputs, errors, kernel.shape, stride, dilation, padding),
    )


convolve.defvjp(_convolve_forward, _convolve_backward)


@jax.custom_vjp
def upsample(inputs: Inputs, kernel: Float[Array, "4 4 i o"]) -> Outputs:
    """The 4x4 transposed convolution of stride 2 and padding 1: exactly twice the size.

    `kernel[dy, dx]` carries input pixel (y, x) to output pixel (2y + dy - 1, 2x + dx - 1).
    """
    b, h, w, _ = inputs.shape
    shape = (b, 2 * h, 2 * w, kernel.shape[3])
    return _input_gradient(inputs, kernel.swapaxes(2, 3), 2, 1, 1, shape)


def _upsample_forward(
    inputs: Inputs, kernel: Kernel
) -> tuple[Outputs, tuple[Inputs, Kernel]]:
    return upsample(inputs, kernel), (inputs, kernel)


def _upsample_backward(
    residuals: tuple[Inputs, Kernel], errors: Outputs
) -> tuple[Inputs, Kernel]:
    # The transposed convolution is a stride-2 convolution read backwards: its input
    # gradient is that convolution, and in its weight gradient the two sides change roles.
    inputs, kernel = residuals
    swapped = kernel.swapaxes(2, 3)
    input_gradient = _native(errors, swapped, 2, 1, _both(1, 1))
    gradient = _weight_gradient(errors, inputs, swapped.shape, 2, 1, 1)
    return input_gradient, gradient.swapaxes(2, 3)


upsample.defvjp(_upsample_forward, _upsample_backward)


def _same(inputs: Array, kernel: Array, stride: int, dilation: int) -> Array:
    padding = dilation * (kernel.shape[0] - 1) // 2

    def native(inputs: Array, kernel: Array) -> Array:
        return _native(inputs, kernel, stride, dilation, _both(padding, padding))

    fits = _fits_winograd(inputs.shape, kernel.shape, stride, dilation)
    # A dilated one would spend on gathering its pixels what it saves.
    if not fits or dilation != 1 or min(kernel.shape[2:]) < WINOGRAD_CHANNELS:
        return native(inputs, kernel)
    return jax.lax.platform_dependent(inputs, kernel, cpu=_winograd, default=native)


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
    if stride != 2 or dilation != 1 or not even:
        return native(errors, kernel)
    by_parity = partial(_by_parity, padding=padding)
    return jax.lax.platform_dependent(errors, kernel, cpu=by_parity, default=native)


def _by_parity(errors: Array, kernel: Array, *, padding: int) -> Array:
    """A stride-2 convolution's input gradient from four stride-1 convolutions.

    Input row 2y + p met output row (2y + p + padding - t) / 2 through tap t, so each
    parity p has its own taps t, of parity p + padding, and a dense convolution of them.
    """
    b, h, w, _ = errors.shape
    taps = [_parity_taps(kernel.shape[0], padding, parity) for parity in (0, 1)]
    rows = []
    for row_taps, row_padding in taps:
        columns = []
        for column_taps, column_padding in taps:
            part = kernel[row_taps][:, column_taps].swapaxes(2, 3)
            columns.append(_native(errors, part, 1, 1, (row_padding, column_padding)))
        rows.append(jnp.stack(columns, axis=3))
    both = jnp.stack(rows, axis=2)  # b, h, parity of the row, w, parity of the column
    return both.reshape(b, 2 * h, 2 * w, kernel.shape[2])


def _parity_taps(
    kernel_size: int, padding: int, parity: int
) -> tuple[slice, tuple[int, int]]:
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

    on_cpu = _cpu_weight_gradient(inputs.shape, shape, stride, dilation, padding)
    if on_cpu is None:
        return native(inputs, errors)
    return jax.lax.platform_dependent(inputs, errors, cpu=on_cpu, default=native)


def _cpu_weight_gradient(
    input_shape: tuple[int, ...],
    shape: tuple[int, ...],
    stride: int,
    dilation: int,
    padding: int,
) -> Callable[[Array, Array], Array] | None:
    """The formulation that is faster than XLA's own on CPU, None where there is none."""
    size, wide = shape[0], min(shape[2:]) >= WINOGRAD_GRADIENT_CHANNELS
    if not wide or size == 5:
        return None
    if _fits_winograd(input_shape, shape, stride, dilation):
        return partial(_winograd_weight_gradient, dilation=dilation)
    return partial(
        _tap_products, size=size, stride=stride, dilation=dilation, padding=padding
    )


def _tap_products(
    inputs: Array, errors: Array, *, size: int, stride: int, dilation: int, padding: int
) -> Array:
    """A weight gradient as one matrix product for each tap of the kernel."""
    height, width = errors.shape[1:3]
    around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(inputs, around)
    rows = errors.reshape(-1, errors.shape[3])
    products = []
    for y in range(0, size * dilation, dilation):
        for x in range(0, size * dilation, dilation):
            seen = padded[
                :,
                y : y + stride * (height - 1) + 1 : stride,
                x : x + stride * (width - 1) + 1 : stride,
            ]
            products.append(seen.reshape(-1, seen.shape[3]).T @ rows)
    return jnp.stack(products).reshape(size, size, inputs.shape[3], errors.shape[3])


# ---- Winograd's F(2x2, 3x3) ---------------------------------------------------------

# The kernel's transform along one axis: four products from three taps.
_KERNEL_TRANSFORM = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])


def _fits_winograd(
    input_shape: tuple[int, ...], shape: tuple[int, ...], stride: int, dilation: int
) -> bool:
    """3x3, stride 1, and sides of whole 2x2 tiles in each of the dilation's grids."""
    whole = all(side % (2 * dilation) == 0 for side in input_shape[1:3])
    return shape[:2] == (3, 3) and stride == 1 and whole


def _winograd(inputs: Array, kernel: Array) -> Array:
    """The 3x3 "same" convolution of stride 1."""
    _, height, width, _ = inputs.shape
    features = kernel.shape[3]
    transform = jnp.asarray(_KERNEL_TRANSFORM, kernel.dtype)
    weights = jnp.einsum("ua,vb,abio->uvio", transform, transform, kernel)
    weights = weights.reshape(16, *kernel.shape[2:])
    blocks = _Blocks(inputs.shape)
    padded = _padded(inputs)

    def complete(index: Array) -> Array:
        tiles = _tiles(blocks.cut(padded, index, halo=2))
        products = jax.lax.dot_general(tiles, weights, (((2,), (1,)), ((0,), (0,))))
        shape = (4, 4, blocks.images, blocks.rows // 2, width // 2, features)
        rows = [_output(row) for row in _output(products.reshape(shape))]
        outputs = jnp.stack([jnp.stack(row, axis=3) for row in rows], axis=2)
        return outputs.reshape(blocks.images, blocks.rows, width, features)

    outputs = jax.lax.map(complete, jnp.arange(blocks.count, dtype=jnp.int32))
    return outputs.reshape(-1, height, width, features)


def _winograd_weight_gradient(inputs: Array, errors: Array, *, dilation: int) -> Array:
    """The gradient with respect to a 3x3 kernel: the transpose of the above."""
    inputs, errors = _grids(inputs, dilation), _grids(errors, dilation)
    features_in, features_out = inputs.shape[3], errors.shape[3]
    blocks = _Blocks(inputs.shape)
    padded = _padded(inputs)

    def add(total: Array, index: Array) -> tuple[Array, None]:
        tiles = _tiles(blocks.cut(padded, index, halo=2))
        parts = _output_transposed(blocks.cut(errors, index, halo=0), 1)
        spread = jnp.stack(
            [part for row in parts for part in _output_transposed(row, 2)]
        )
        spread = spread.reshape(16, -1, features_out)
        products = jax.lax.dot_general(tiles, spread, (((1,), (1,)), ((0,), (0,))))
        return total + products, None

    zeros = jnp.zeros((16, features_in, features_out), inputs.dtype)
    total, _ = jax.lax.scan(add, zeros, jnp.arange(blocks.count, dtype=jnp.int32))
    total = total.reshape(4, 4, features_in, features_out)
    transform = jnp.asarray(_KERNEL_TRANSFORM, inputs.dtype)
    return jnp.einsum("ua,vb,uvio->abio", transform, transform, total)


class _Blocks:
    """A batch of images cut into blocks of about WINOGRAD_PIXELS: whole images or rows."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        count, self.height, self.width, _ = shape
        size = self.height * self.width
        most_images = max(1, min(count, WINOGRAD_PIXELS // size))
        self.images = max(n for n in range(1, most_images + 1) if count % n == 0)
        most_rows = max(2, min(self.height, WINOGRAD_PIXELS // self.width))
        self.rows = max(n for n in range(2, most_rows + 1, 2) if self.height % n == 0)
        self.strips = self.height // self.rows
        self.count = count // self.images * self.strips

    def cut(self, images: Array, index: Array, *, halo: int) -> Array:
        """Block `index` of images that have `halo` more rows and columns."""
        starts = (index // self.strips * self.images, index % self.strips * self.rows)
        sizes = (self.images, self.rows + halo, self.width + halo, images.shape[3])
        return jax.lax.dynamic_slice(images, (*starts, 0, 0), sizes)


def _grids(images: Array, dilation: int) -> Array:
    """The dilation^2 grids of pixels that a dilated convolution sees, as images."""
    b, h, w, c = images.shape
    if dilation == 1:
        return images
    apart = images.reshape(b, h // dilation, dilation, w // dilation, dilation, c)
    return apart.transpose(0, 2, 4, 1, 3, 5).reshape(
        b * dilation**2, h // dilation, w // dilation, c
    )


def _padded(images: Array) -> Array:
    return jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _tiles(padded: Array) -> Array:
    """The transformed 4x4 tiles, [16, tiles, features]; they overlap by two pixels."""
    parts = [part for row in _input(padded, 1) for part in _input(row, 2)]
    return jnp.stack(parts).reshape(16, -1, padded.shape[3])


def _input(padded: Array, axis: int) -> list[Array]:
    count = (padded.shape[axis] - 2) // 2
    a, b, c, d = (
        jax.lax.slice_in_dim(padded, start, start + 2 * count - 1, 2, axis=axis)
        for start in range(4)
    )
    return [a - c, b + c, c - b, b - d]


def _output(products: Array | list[Array]) -> list[Array]:
    """Two outputs from four products; each may hold the products of the other axis."""
    a, b, c, d = products
    return [a + b + c, b - c - d]


def _output_transposed(errors: Array, axis: int) -> list[Array]:
    even = jax.lax.slice_in_dim(errors, 0, None, 2, axis=axis)
    odd = jax.lax.slice_in_dim(errors, 1, None, 2, axis=axis)
    return [even, even + odd, even - odd, -odd]
