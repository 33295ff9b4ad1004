"""The metrics against scikit-image, TensorFlow, NumPy in float64 and golden values."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError
from scipy.signal import convolve2d
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from gl_jax.data.tfds import tensorflow
from gl_jax.metrics import l1, ms_ssim, psnr, sharpness, ssim, vif

METRICS = [l1, psnr, ssim, ms_ssim]


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(5)


def pair(generator: np.random.Generator, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth random bytes and a noisy copy, so that the similarity is in the middle."""
    coarse = generator.uniform(30, 220, (shape[0], 8, 8, shape[3]))
    rows, columns = (np.arange(side) * 8 // side for side in shape[1:3])
    targets = coarse[:, rows][:, :, columns]
    noise = generator.normal(0, 20, shape)
    return (targets + noise).clip(0, 255).astype(np.uint8), targets.astype(np.uint8)


def reference_ssim(image: np.ndarray, target: np.ndarray, max_value: float) -> Any:
    """scikit-image in float64: the mean, and the map of every pixel."""
    return structural_similarity(
        image.astype(np.float64),
        target.astype(np.float64),
        channel_axis=-1,
        data_range=max_value,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )


def test_constant_one_against_two_gives_the_published_values() -> None:
    ones = np.ones((1, 32, 32, 3), np.uint8)
    assert psnr(ones, 2 * ones, max_value=255)[0] == pytest.approx(48.1308036, abs=4e-6)
    assert ssim(ones, 2 * ones, max_value=255)[0] == pytest.approx(0.9130623, abs=2e-7)


@pytest.mark.parametrize(
    ("metric", "best"), [(l1, 0), (psnr, np.inf), (ssim, 1), (ms_ssim, 1)]
)
def test_equal_images_have_the_best_value(
    metric: Any, best: float, generator: np.random.Generator
) -> None:
    images, _ = pair(generator, 2, 176, 176, 1)
    np.testing.assert_array_equal(metric(images, images, max_value=255), [best, best])


def test_psnr_agrees_with_scikit_image(generator: np.random.Generator) -> None:
    images, targets = pair(generator, 3, 40, 56, 3)
    expected = [
        peak_signal_noise_ratio(target, image, data_range=255)
        for image, target in zip(images, targets, strict=True)
    ]
    np.testing.assert_allclose(
        psnr(images, targets, max_value=255), expected, rtol=1e-6
    )


def test_ssim_agrees_with_scikit_image(generator: np.random.Generator) -> None:
    images, targets = pair(generator, 3, 40, 57, 3)
    expected = [
        reference_ssim(a, b, 255)[0] for a, b in zip(images, targets, strict=True)
    ]
    np.testing.assert_allclose(
        ssim(images, targets, max_value=255), expected, atol=1e-6
    )


def test_ssim_agrees_with_tensorflow(generator: np.random.Generator) -> None:
    images, targets = pair(generator, 2, 40, 57, 3)
    expected = tensorflow().image.ssim(images, targets, max_val=255)
    np.testing.assert_allclose(
        ssim(images, targets, max_value=255), expected, atol=2e-5
    )


def test_ms_ssim_agrees_with_tensorflow_also_at_odd_sizes(
    generator: np.random.Generator,
) -> None:
    images, targets = pair(generator, 2, 183, 205, 3)
    expected = tensorflow().image.ssim_multiscale(images, targets, max_val=255)
    np.testing.assert_allclose(
        ms_ssim(images, targets, max_value=255), expected, atol=2e-5
    )


@pytest.mark.parametrize("metric", METRICS)
def test_bytes_and_unit_range_agree(
    metric: Any, generator: np.random.Generator
) -> None:
    images, targets = pair(generator, 2, 176, 176, 1)
    bytes_value = metric(images, targets, max_value=255)
    unit_value = metric(images / np.float32(255), targets / np.float32(255))
    np.testing.assert_allclose(bytes_value, unit_value, rtol=2e-6)


def test_l1_and_psnr_of_a_hole_count_its_pixels_only(
    generator: np.random.Generator,
) -> None:
    images, targets = pair(generator, 2, 24, 20, 3)
    mask = generator.random((2, 24, 20, 1)) < 0.3
    for index in range(2):
        hole = mask[index, :, :, 0]
        error = (images[index].astype(float) - targets[index])[hole] / 255
        place = slice(index, index + 1)
        given = images[place], targets[place], mask[place]
        expected = -10 * np.log10(np.mean(error**2))
        assert l1(*given, max_value=255)[0] == pytest.approx(
            np.abs(error).mean(), rel=1e-6
        )
        assert psnr(*given, max_value=255)[0] == pytest.approx(expected, rel=1e-6)


def test_ssim_of_a_hole_is_the_mean_of_the_map_over_it(
    generator: np.random.Generator,
) -> None:
    images, targets = pair(generator, 1, 48, 40, 3)
    mask = np.zeros((1, 48, 40, 1), np.float32)
    mask[:, 0:20, 10:30] = 1  # reaches into the border, where no window fits
    _, similarity = reference_ssim(images[0], targets[0], 255)
    expected = similarity[5:20, 10:30].mean()
    value = ssim(images, targets, mask, max_value=255)[0]
    assert value == pytest.approx(expected, abs=1e-6)


def test_ms_ssim_of_a_hole_does_not_see_far_away(
    generator: np.random.Generator,
) -> None:
    images, targets = pair(generator, 1, 384, 384, 1)
    mask = np.zeros((1, 384, 384, 1), np.float32)
    mask[:, 140:240, 140:240] = 1
    changed = images.copy()
    changed[:, :40] = 0  # further away than the coarsest window's 5.5 * 16 pixels
    before, after = (
        ms_ssim(i, targets, mask, max_value=255) for i in (images, changed)
    )
    assert before == after
    assert before != ms_ssim(images, targets, max_value=255)


@pytest.mark.parametrize("metric", METRICS)
def test_a_hole_everywhere_is_the_whole_image(
    metric: Any, generator: np.random.Generator
) -> None:
    images, targets = pair(generator, 2, 176, 176, 1)
    mask = jnp.ones((2, 176, 176, 1))
    np.testing.assert_array_equal(
        metric(images, targets, mask, max_value=255),
        metric(images, targets, max_value=255),
    )


@pytest.mark.parametrize("metric", METRICS)
def test_an_empty_hole_has_no_value(
    metric: Any, generator: np.random.Generator
) -> None:
    images, targets = pair(generator, 2, 176, 176, 1)
    mask = np.zeros((2, 176, 176, 1), bool)
    mask[1] = True
    value = metric(images, targets, mask, max_value=255)
    assert np.isnan(value[0])
    assert np.isfinite(value[1])


@pytest.mark.parametrize("metric", METRICS)
def test_each_image_has_its_own_value_also_under_jit(
    metric: Any, generator: np.random.Generator
) -> None:
    images, targets = pair(generator, 2, 176, 176, 1)
    batch = jax.jit(metric)(images, targets, max_value=255)
    alone = [
        metric(images[i : i + 1], targets[i : i + 1], max_value=255)[0]
        for i in range(2)
    ]
    assert batch.dtype == jnp.float32
    np.testing.assert_allclose(batch, alone, rtol=1e-6)


def test_ssim_of_bright_flat_images_keeps_its_digits() -> None:
    # With variances as E[x^2] - E[x]^2 in float32 it would be off by 4e-4 here.
    targets = np.full((1, 64, 64, 1), 0.97, np.float32)
    images = targets - np.float32(0.02)
    expected, _ = reference_ssim(images[0], targets[0], 1.0)
    assert ssim(images, targets)[0] == pytest.approx(expected, abs=2e-7)


def test_the_mean_of_equal_errors_does_not_drift() -> None:
    # One float32 sum would be off by 1e-5 here.
    images = np.full((1, 32, 32, 3), 0.1, np.float32)
    targets = np.zeros_like(images)
    assert l1(images, targets)[0] == pytest.approx(0.1, rel=2e-7)
    assert psnr(images, targets)[0] == pytest.approx(20.0, rel=2e-7)


def test_ssim_has_a_finite_gradient_at_equal_images() -> None:
    images = jnp.full((1, 16, 16, 1), 0.5)
    gradient = jax.grad(lambda x: ssim(x, images).sum())(images)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize(
    ("metric", "size", "least"),
    [(ssim, (32, 10), "11"), (ms_ssim, (175, 300), "176"), (vif, (40, 60), "41")],
)
def test_an_image_below_the_least_size_is_refused(
    metric: Any, size: tuple[int, int], least: str
) -> None:
    images = jnp.zeros((1, *size, 3))
    with pytest.raises(
        ValueError, match=f"at least {least} pixels.*{size[0]}x{size[1]}"
    ):
        metric(images, images)


def test_bytes_without_their_range_are_refused() -> None:
    images = np.zeros((1, 16, 16, 3), np.uint8)
    with pytest.raises(ValueError, match=r"max_value \(=1.0\).*255 for bytes"):
        psnr(images, images)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("targets_shape", "mask_shape"),
    [((1, 176, 177, 3), (1, 176, 176, 1)), ((1, 176, 176, 3), (1, 176, 176, 3))],
)
def test_shapes_that_do_not_fit_are_refused(
    metric: Any, targets_shape: tuple[int, ...], mask_shape: tuple[int, ...]
) -> None:
    # The run-time check of the annotations, on in the tests, may be there first.
    with pytest.raises((ValueError, TypeCheckError)):
        metric(
            jnp.zeros((1, 176, 176, 3)), jnp.zeros(targets_shape), jnp.zeros(mask_shape)
        )


def test_sharpness_is_the_share_of_the_gradient(generator: np.random.Generator) -> None:
    targets = generator.random((2, 20, 24, 3)).astype(np.float32)
    half = targets * np.array([1.0, 0.5], np.float32).reshape(2, 1, 1, 1) + 0.25
    np.testing.assert_allclose(sharpness(half, targets), [1, 0.5], rtol=1e-5)
    flat = np.full_like(targets, 0.3)
    np.testing.assert_allclose(sharpness(flat, targets), 0, atol=1e-6)


def test_a_seam_around_the_hole_is_no_sharpness(generator: np.random.Generator) -> None:
    targets = generator.random((1, 20, 24, 3)).astype(np.float32)
    mask = np.zeros((1, 20, 24, 1), bool)
    mask[:, 5:12, 8:20] = True
    inside = np.where(mask, np.float32(0.9), targets)
    assert float(sharpness(inside, targets, mask)[0]) == 0
    outside = np.where(mask, targets, np.float32(0.9))
    assert float(sharpness(outside, targets, mask)[0]) == 1


# --- VIF


def vifp(reference: np.ndarray, distorted: np.ndarray) -> float:
    """vifp_mscale.m of Sheikh and Bovik in float64, by whole two-dimensional windows."""
    seen = total = 0.0
    for scale in range(1, 5):
        side = 2 ** (5 - scale) + 1
        rows, columns = np.mgrid[:side, :side] - side // 2
        window = np.exp(-(rows**2 + columns**2) / (2 * (side / 5) ** 2))
        window /= window.sum()

        def mean(values: np.ndarray, window: np.ndarray = window) -> np.ndarray:
            return convolve2d(values, window, "valid")

        if scale > 1:
            reference, distorted = (mean(a)[::2, ::2] for a in (reference, distorted))
        mu1, mu2 = mean(reference), mean(distorted)
        var1 = np.maximum(mean(reference**2) - mu1**2, 0)
        var2 = np.maximum(mean(distorted**2) - mu2**2, 0)
        both = mean(reference * distorted) - mu1 * mu2
        gain = both / (var1 + 1e-10)
        noise = var2 - gain * both
        gain[var1 < 1e-10], noise[var1 < 1e-10] = 0, var2[var1 < 1e-10]
        var1[var1 < 1e-10] = 0
        gain[var2 < 1e-10], noise[var2 < 1e-10] = 0, 0
        noise[gain < 0] = var2[gain < 0]
        gain[gain < 0] = 0
        noise[noise <= 1e-10] = 1e-10
        seen += np.log10(1 + gain**2 * var1 / (noise + 2)).sum()
        total += np.log10(1 + var1 / 2).sum()
    return float(seen / total)


def test_vif_is_that_of_its_authors_program(generator: np.random.Generator) -> None:
    images, targets = pair(generator, 3, 61, 70, 3)
    images[2] = 255 - targets[2]  # of negative gain
    targets[1, :40] = 90  # flat in parts
    expected = [
        vifp(*((a @ [0.299, 0.587, 0.114]) for a in (target, image)))
        for target, image in zip(targets, images, strict=True)
    ]
    result = vif(images, targets, max_value=255)
    np.testing.assert_allclose(result, expected, rtol=2e-4, atol=1e-6)
    in_unit_range = (a.astype(np.float32) / 255 for a in (images, targets))
    np.testing.assert_allclose(vif(*in_unit_range), result, rtol=1e-4, atol=1e-6)


def test_vif_of_more_contrast_is_above_1_and_of_equal_images_1() -> None:
    # A pattern of large variance v: a gain of 2 leaves log(1 + 4 v / 2) of log(1 + v / 2).
    target = np.tile(np.float32([[0, 100], [100, 0]]), (24, 24))[None, ..., None]
    assert vif(target, target, max_value=255)[0] == 1
    louder, expected = 2 * target, np.log(1 + 4 * 1250) / np.log(1 + 1250)
    # The pattern is gone at coarser scales, where neither image holds information.
    assert vif(louder, target, max_value=255)[0] == pytest.approx(expected, rel=1e-3)
    assert np.isnan(vif(target, 0 * target, max_value=255)[0])
