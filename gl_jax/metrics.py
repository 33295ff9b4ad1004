"""Metrics of a completed image: L1, PSNR, (MS-)SSIM, VIF, sharpness.

Every function takes batches (B, H, W, C) and returns one float32 value per image, over
the whole image or, with a mask [B, H, W, 1] (1 = missing), over its hole only. The
result for an empty hole is NaN.

`max_value` is the largest possible pixel value (1.0 for images in [0, 1], 255 for bytes);
nothing is clipped or rounded. Integer images require it, because the default would give
silently wrong results.

All functions work under `jit`, `vmap` and `grad`. Sums run in float32 and avoid the
subtraction of nearly equal numbers, so bright flat images lose no digits.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num

from gl_jax.colors import LUMA

Images = Num[Array, "b h w c"] | Num[np.ndarray, "b h w c"]
Mask = (
    Num[Array, "b h w 1"]
    | Bool[Array, "b h w 1"]
    | Num[np.ndarray, "b h w 1"]
    | Bool[np.ndarray, "b h w 1"]
)
Range = float | int | Num[Array, ""]
Values = Float[Array, " b"]

SSIM_WINDOW = 11
"""Side of the Gaussian window (Wang et al. 2004)."""
SSIM_SIGMA = 1.5
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, finest first (Wang, Simoncelli and Bovik 2003, table 1)."""
MS_SSIM_MIN_SIZE = SSIM_WINDOW * 2 ** (len(MS_SSIM_WEIGHTS) - 1)
"""Smallest side in pixels, 176: the coarsest of the five scales must hold one window."""
VIF_WINDOWS = (17, 9, 5, 3)
"""Sides of the Gaussian windows of the four scales, finest first; sigma is a fifth."""
VIF_NOISE = 2.0
"""Variance of the visual system's noise, in squared levels of 255 (the authors' value)."""
VIF_FLAT = 1e-8
"""Variance up to which a window is flat, in squared levels of 255: float32's rounding."""
VIF_MIN_SIZE = 41
"""Smallest side in pixels: the coarsest of the four scales must hold one window."""


def l1(
    images: Images, targets: Images, mask: Mask | None = None, *, max_value: Range = 1.0
) -> Values:
    """Returns the mean absolute error as a fraction of the range, in [0, 1].

    Times 100 and with a mask, this is the "l1 error" that mmediting publishes.
    """
    x, y, weights, scale = _prepare(images, targets, mask, max_value)
    return _mean(jnp.abs(x - y), weights) / scale


def psnr(
    images: Images, targets: Images, mask: Mask | None = None, *, max_value: Range = 1.0
) -> Values:
    """Returns the peak signal-to-noise ratio in dB; infinity for equal images.

    It is 10 log10(max_value^2 / MSE).
    """
    x, y, weights, scale = _prepare(images, targets, mask, max_value)
    mean_square = _mean(jnp.square(x - y), weights)
    return 20.0 * jnp.log10(scale) - 10.0 * jnp.log10(mean_square)


def ssim(
    images: Images, targets: Images, mask: Mask | None = None, *, max_value: Range = 1.0
) -> Values:
    """Returns the structural similarity (Wang et al. 2004), 1 for equal images.

    Gaussian window 11x11 with sigma 1.5, per channel, C1 = (0.01 max_value)^2,
    C2 = (0.03 max_value)^2, biased variances, averaged over all positions of the window
    inside the image (5 pixels from each border) and over the channels. MATLAB, mmediting
    and `tf.image.ssim` compute the same, as does scikit-image with
    `gaussian_weights=True, sigma=1.5, use_sample_covariance=False` (its default has
    another window).

    With a mask: the mean over the window centres inside the hole; the windows include
    known pixels around it. NaN if the hole lies only in the 5-pixel border. Raises
    ValueError for images below 11 pixels.
    """
    x, y, weights, scale = _prepare(images, targets, mask, max_value)
    _require_size(x, SSIM_WINDOW, "SSIM needs images of at least {} pixels, its window")
    luminance, structure = _ssim_maps(x / scale, y / scale)
    return _mean(luminance * structure, _valid(weights))


def ms_ssim(
    images: Images, targets: Images, mask: Mask | None = None, *, max_value: Range = 1.0
) -> Values:
    """Returns multi-scale SSIM over five scales, in [0, 1].

    Wang, Simoncelli and Bovik 2003. Each scale halves the one before by averaging 2x2
    pixels (an odd side is first extended by repeating its last pixel). Scales 1 to 4
    contribute the mean of the contrast-structure term, scale 5 the mean of the full SSIM,
    each raised to its weight; a negative mean counts as 0. The product is taken per
    channel and then averaged, as in `tf.image.ssim_multiscale`.

    With a mask: the means are over the hole at each scale, at positions with the window
    inside the image; a coarse pixel is weighted by the fraction of it that is hole. At
    scale 5 these positions are 80 pixels from the border, so a hole entirely in that
    border gives NaN. Raises ValueError for images below 176 pixels.
    """
    x, y, weights, scale = _prepare(images, targets, mask, max_value)
    x, y = x / scale, y / scale
    _require_size(x, MS_SSIM_MIN_SIZE, "MS-SSIM needs images of at least {} pixels")
    last = len(MS_SSIM_WEIGHTS) - 1
    per_channel = jnp.ones((x.shape[0], x.shape[3]), jnp.float32)
    for level, exponent in enumerate(MS_SSIM_WEIGHTS):
        luminance, structure = _ssim_maps(x, y)
        similarity = luminance * structure if level == last else structure
        mean = _mean_per_channel(similarity, _valid(weights))
        per_channel *= jnp.maximum(mean, 0.0) ** exponent
        if level < last:
            x, y, weights = _halve(x), _halve(y), _halve(weights)
    return jnp.mean(per_channel, axis=1)


def vif(images: Images, targets: Images, *, max_value: Range = 1.0) -> Values:
    """Returns the visual information fidelity: the target's information in the image.

    1 for equal images, 0 if the image shows nothing of the target, above 1 for more
    contrast; NaN for a target of one colour. Computed like vifp_mscale.m of Sheikh and
    Bovik ("Image Information and Visual Quality", 2006), in the pixel domain over four
    scales, on the brightness of BT.601, at positions with the window inside the image.
    Raises ValueError for images below 41 pixels, or with neither 1 nor 3 channels.
    """
    x, y, _, scale = _prepare(images, targets, None, max_value)
    _require_size(x, VIF_MIN_SIZE, "VIF needs images of at least {} pixels")
    if x.shape[3] not in (1, 3):
        raise ValueError(f"VIF is of 1 or 3 channels; these have {x.shape[3]}.")
    factor = 255 / scale
    return _visual_information(_brightness(x) * factor, _brightness(y) * factor)


def sharpness(
    images: Images, targets: Images, mask: Mask | None = None, *, max_value: Range = 1.0
) -> Values:
    """Returns the mean length of the colours' gradient divided by the target's.

    Below 1 the image is more blurred, above 1 noisier than the target. The gradient is
    the difference to the next pixel down and right. With a mask, a pixel counts only if
    both neighbours are missing too, so that a seam around the hole has no influence. A
    target without any gradient gives NaN or infinity.
    """
    x, y, weights, _ = _prepare(images, targets, mask, max_value)
    inner = weights[:, :-1, :-1] * weights[:, 1:, :-1] * weights[:, :-1, 1:]
    return _mean(_gradient(x), inner) / _mean(_gradient(y), inner)


def _prepare(
    images: Images, targets: Images, mask: Mask | None, max_value: Range
) -> tuple[Array, Array, Array, Array]:
    """Checks the arguments; returns both batches, pixel weights and range as float32."""
    if images.ndim != 4 or images.shape != targets.shape:
        raise ValueError(
            f"images {images.shape} and targets {targets.shape} must be two batches "
            "(B, H, W, C) of the same shape."
        )
    shape = (*images.shape[:3], 1)
    if mask is not None and mask.shape != shape:
        raise ValueError(f"mask {mask.shape} must be {shape}, one value per pixel.")
    bytes_given = any(jnp.issubdtype(a.dtype, jnp.integer) for a in (images, targets))
    if bytes_given and not isinstance(max_value, jax.Array) and max_value <= 1:
        raise ValueError(
            f"max_value (={max_value}) does not fit {images.dtype} images and "
            f"{targets.dtype} targets: give the largest value, 255 for bytes."
        )
    # Converted first, because a difference of bytes would wrap around.
    x, y = (jnp.asarray(a).astype(jnp.float32) for a in (images, targets))
    weights = jnp.ones(shape) if mask is None else jnp.asarray(mask)
    return x, y, weights.astype(jnp.float32), jnp.asarray(max_value, jnp.float32)


def _require_size(images: Array, smallest: int, rule: str) -> None:
    height, width = images.shape[1:3]
    if min(height, width) < smallest:
        raise ValueError(f"{rule.format(smallest)}; these are {height}x{width}.")


def _mean(values: Array, weights: Array) -> Array:
    """Returns the weighted mean over pixels and channels, [b, h, w, c] to [b]."""
    return jnp.mean(_mean_per_channel(values, weights), axis=1)


def _mean_per_channel(values: Array, weights: Array) -> Array:
    """Returns the weighted mean over pixels, [b, h, w, c] to [b, c]."""
    area = _pixel_sum(weights)
    mean = _pixel_sum(values * weights) / area
    # A float32 sum of equal signs has a rounding error (1e-5 of it over 32x32 pixels on
    # a CPU), which the mean of the residuals corrects.
    mean += _pixel_sum((values - mean) * weights) / area
    return mean[:, 0, 0, :]


def _pixel_sum(values: Array) -> Array:
    return jnp.sum(values, axis=(1, 2), keepdims=True)


@jax.jit
def _ssim_maps(x: Array, y: Array) -> tuple[Array, Array]:
    """Returns maps of SSIM's luminance and contrast-structure terms, for a range of 1.

    Computed from the difference d = x - y, by 2ab = a^2 + b^2 - (a - b)^2:
      (2 mx my + C1) / (mx^2 + my^2 + C1) = 1 - md^2 / (mx^2 + my^2 + C1)
      (2 cov(x, y) + C2) / (vx + vy + C2) = 1 - vd / (vx + vy + C2)
    so that no covariance is needed and equal images give exactly 1.
    """
    taps = _gaussian(SSIM_WINDOW, SSIM_SIGMA)
    mean, variance = _local_moments(jnp.concatenate([x, y, x - y], axis=-1), taps)
    mean_x, mean_y, mean_d = jnp.split(mean, 3, axis=-1)
    variance_x, variance_y, variance_d = jnp.split(variance, 3, axis=-1)
    power = jnp.square(mean_x) + jnp.square(mean_y)
    luminance = 1.0 - jnp.square(mean_d) / (power + 0.01**2)
    structure = 1.0 - variance_d / (variance_x + variance_y + 0.03**2)
    return luminance, structure


@jax.jit
def _visual_information(x: Array, y: Array) -> Array:
    """Returns VIF of x for the target y, of one channel in levels of 255."""
    information = total = jnp.zeros((), jnp.float32)
    for level, side in enumerate(VIF_WINDOWS):
        taps = _gaussian(side, side / 5)
        if level:
            x, y = (_blurred(a, taps)[:, ::2, ::2] for a in (x, y))
        _, variances = _local_moments(jnp.concatenate([x, y, x - y], axis=-1), taps)
        variance_x, variance_y, variance_d = jnp.split(variances, 3, axis=-1)
        covariance = (variance_x + variance_y - variance_d) / 2
        # The image is modelled as gain * target + noise; a negative gain counts as 0.
        gain = jnp.where(variance_y > VIF_FLAT, covariance / variance_y, 0.0)
        gain = jnp.maximum(gain, 0.0)
        noise = jnp.maximum(variance_x - gain * covariance, 0.0)
        signal = jnp.square(gain) * variance_y / (noise + VIF_NOISE)
        information += _pixel_sum(jnp.log1p(signal))
        total += _pixel_sum(jnp.log1p(variance_y / VIF_NOISE))
    return (information / total)[:, 0, 0, 0]


def _local_moments(x: Array, taps: list[float]) -> tuple[Array, Array]:
    """Returns mean and variance under a window, one axis after the other.

    The usual E[x^2] - E[x]^2 loses its digits in float32 if the image is bright and flat
    (an error of 4e-4 in SSIM). Here the variance of a window is the mean of its rows'
    variances plus the variance of its rows' means, a sum of squares.
    """
    mean, variance = x, jnp.zeros_like(x)
    for axis in (1, 2):
        means, variances = (_shifts(a, axis, len(taps)) for a in (mean, variance))
        mean = _weighted(means, taps)
        variance = _weighted(
            [v + jnp.square(m - mean) for m, v in zip(means, variances, strict=True)],
            taps,
        )
    return mean, variance


def _blurred(x: Array, taps: list[float]) -> Array:
    """Returns the mean under a window, one axis after the other."""
    for axis in (1, 2):
        x = _weighted(_shifts(x, axis, len(taps)), taps)
    return x


def _shifts(x: Array, axis: int, window: int) -> list[Array]:
    """Returns the slices of `x` under the taps of the window, for complete windows."""
    length = x.shape[axis] - window + 1
    return [
        jax.lax.slice_in_dim(x, tap, tap + length, axis=axis) for tap in range(window)
    ]


def _weighted(views: list[Array], taps: list[float]) -> Array:
    # Sums instead of a convolution, which may round its operands to fewer bits than
    # float32 on some devices.
    return sum(
        (view * tap for view, tap in zip(views, taps, strict=True)),
        start=jnp.zeros_like(views[0]),
    )


def _gaussian(side: int, sigma: float) -> list[float]:
    """Returns the weights of a window along one axis, with sum 1."""
    taps = [math.exp(-0.5 * ((i - side // 2) / sigma) ** 2) for i in range(side)]
    return [tap / sum(taps) for tap in taps]


def _brightness(x: Array) -> Array:
    """BT.601's brightness of colours, one channel; grey stays as it is."""
    if x.shape[3] == 1:
        return x
    return jnp.sum(
        x * jnp.asarray(LUMA, jnp.float32).reshape(1, 1, 1, 3), 3, keepdims=True
    )


def _gradient(x: Array) -> Array:
    corner = x[:, :-1, :-1]
    down, right = x[:, 1:, :-1] - corner, x[:, :-1, 1:] - corner
    return jnp.sqrt(jnp.square(down) + jnp.square(right))


def _valid(weights: Array) -> Array:
    """Returns the pixels that can be the centre of a complete window."""
    border = SSIM_WINDOW // 2
    return weights[:, border:-border, border:-border]


def _halve(x: Array) -> Array:
    odd = [(0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)]
    x = jnp.pad(x, odd, mode="edge")
    batch, height, width, channels = x.shape
    blocks = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return jnp.mean(blocks, axis=(2, 4))
