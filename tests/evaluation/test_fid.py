"""FID: the distance against closed forms, the network's shapes, the files it reads."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from gl_jax.config import UsageError
from gl_jax.evaluation import fid
from gl_jax.evaluation.fid import Moments, frechet_distance


def moments(features: np.ndarray) -> Moments:
    found = Moments(features.shape[1])
    found.add(features)
    return found


def gaussian(mean: np.ndarray, covariance: np.ndarray) -> Moments:
    """A set that has exactly this mean and covariance."""
    found = Moments(len(mean), count=11)
    found.total = 11 * mean
    found.products = 10 * covariance + 11 * np.outer(mean, mean)
    return found


def test_mean_and_covariance_are_numpys_in_any_number_of_parts() -> None:
    features = np.random.default_rng(0).normal(3, 1, (20, 4))
    parts = Moments(4)
    for part in (features[:3], features[3:4], features[4:]):
        parts.add(part)
    np.testing.assert_allclose(parts.mean(), features.mean(axis=0))
    np.testing.assert_allclose(parts.covariance(), np.cov(features.T), atol=1e-12)


def test_gaussians_with_commuting_covariances_have_a_closed_form() -> None:
    # |m1 - m2|^2 + sum (s1 - s2)^2 of the deviations along the common axes.
    first, second = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 0.5])
    means = np.array([0.0, 1.0, 2.0]), np.array([1.0, -1.0, 2.0])
    axes, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    one, other = (
        gaussian(mean, axes @ np.diag(deviation**2) @ axes.T)
        for mean, deviation in zip(means, (first, second), strict=True)
    )
    expected = 5 + np.sum((first - second) ** 2)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-9)


def test_two_by_two_covariances_have_a_closed_form() -> None:
    # tr(M^(1/2)) = sqrt(tr M + 2 sqrt(det M)) for M = C1 C2, which is not symmetric here.
    one, other = (
        np.array([[2.0, 0.5], [0.5, 1.0]]),
        np.array([[1.0, -0.7], [-0.7, 3.0]]),
    )
    product = one @ other
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    expected = np.trace(one) + np.trace(other) - 2 * root
    zero = np.zeros(2)
    found = frechet_distance(gaussian(zero, one), gaussian(zero, other))
    assert found == pytest.approx(expected, rel=1e-9)


def test_a_set_is_at_distance_0_from_itself_also_with_fewer_images_than_features() -> (
    None
):
    found = moments(np.random.default_rng(2).normal(size=(5, 40)))
    assert frechet_distance(found, found) == pytest.approx(0, abs=1e-5)


def test_a_shift_of_the_mean_is_its_square() -> None:
    features = np.random.default_rng(3).normal(size=(50, 6))
    found = frechet_distance(moments(features), moments(features + 2))
    assert found == pytest.approx(24, rel=1e-6)


def test_fewer_than_two_images_are_refused() -> None:
    with pytest.raises(ValueError, match="fewer than two"):
        frechet_distance(moments(np.ones((1, 3))), moments(np.ones((2, 3))))


def test_the_network_has_the_published_arrays() -> None:
    shapes = fid.shapes()
    # torchvision's Inception v3: 94 convolutions, 21,785,568 weights and biases before
    # the classifier (without the auxiliary one), and as many means and variances again
    # as there are channels.
    kernels = [name for name in shapes if name.endswith("conv.weight")]
    assert len(kernels) == 94
    trained = sum(
        int(np.prod(shape)) for name, shape in shapes.items() if "running" not in name
    )
    assert trained == 21_785_568
    assert shapes["Mixed_5b.branch_pool.conv.weight"] == (32, 192, 1, 1)
    assert shapes["Mixed_6c.branch7x7dbl_3.conv.weight"] == (160, 160, 1, 7)
    assert shapes["Mixed_7c.branch3x3dbl_3b.conv.weight"] == (384, 384, 3, 1)


def test_features_are_2048_for_images_of_any_size(randomly: Any) -> None:
    arrays = {
        name: jax.ShapeDtypeStruct(shape, np.float32)
        for name, shape in fid.shapes().items()
    }
    for size in ((32, 48), (400, 300)):
        images = jax.ShapeDtypeStruct((3, *size, 3), np.float32)
        assert jax.eval_shape(fid.features, arrays, images).shape == (3, 2048)


def test_mean_pooling_leaves_the_border_out_as_in_pytorch_fid() -> None:
    pooled = fid._pooled(fid.Pool("mean"), np.ones((1, 4, 5, 2), np.float32))
    np.testing.assert_allclose(pooled, 1, rtol=1e-6)


def test_max_pooling_with_a_stride_takes_whole_windows() -> None:
    rows = np.arange(8, dtype=np.float32).reshape(1, 8, 1, 1).repeat(8, axis=2)
    pooled = fid._pooled(fid.Pool("max", stride=2), rows)
    np.testing.assert_array_equal(np.asarray(pooled)[0, :, 0, 0], [2, 4, 6])


@pytest.mark.parametrize(("classes", "published"), [(1008, True), (1000, False)])
def test_the_published_file_is_told_from_torchvisions(
    classes: int, published: bool, tmp_path: Path
) -> None:
    arrays = {name: np.zeros(s, np.float32) for name, s in fid.shapes().items()} | {
        "fc.bias": np.zeros(classes, np.float32)
    }
    save_file(arrays, tmp_path / "inception.safetensors")
    assert fid.load(tmp_path / "inception.safetensors").published is published


def test_missing_arrays_are_named(randomly: Any, tmp_path: Path) -> None:
    save_file({"fc.bias": np.zeros(5, np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(UsageError, match=r"missing Conv2d_1a_3x3.conv.weight.* more"):
        fid.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("x.safetensors", b"no weights", "is no safetensors file"),
        ("x.pth", b"no weights", "is refused as a PyTorch file"),
        ("x.safetensors", None, "cannot be read"),
    ],
)
def test_files_that_are_none_are_refused_in_one_line(
    name: str, content: bytes | None, rule: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=rule) as caught:
        fid.load(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_moments_of_nothing_have_no_mean() -> None:
    with pytest.raises(ValueError, match="empty"):
        fid.Moments(3).mean()
