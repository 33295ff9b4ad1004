"""Inception: the network's shapes, its pooling, the files it reads."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from gl_jax.config import UsageError
from gl_jax.data.tfds import tensorflow
from gl_jax.evaluation.measures import inception


def test_the_network_has_the_published_arrays() -> None:
    shapes = inception.shapes()
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
        for name, shape in inception.shapes().items()
    }
    for size in ((32, 48), (400, 300)):
        images = jax.ShapeDtypeStruct((3, *size, 3), np.float32)
        assert jax.eval_shape(inception.features, arrays, images).shape == (3, 2048)


def test_mean_pooling_leaves_the_border_out_as_in_pytorch_fid() -> None:
    pooled = inception._pooled(
        inception.Pool("mean"), np.ones((1, 4, 5, 2), np.float32)
    )
    np.testing.assert_allclose(pooled, 1, rtol=1e-6)


def test_max_pooling_with_a_stride_takes_whole_windows() -> None:
    rows = np.arange(8, dtype=np.float32).reshape(1, 8, 1, 1).repeat(8, axis=2)
    pooled = inception._pooled(inception.Pool("max", stride=2), rows)
    np.testing.assert_array_equal(np.asarray(pooled)[0, :, 0, 0], [2, 4, 6])


@pytest.mark.parametrize(("classes", "published"), [(1008, True), (1000, False)])
def test_the_published_file_is_told_from_torchvisions(
    classes: int, published: bool, tmp_path: Path
) -> None:
    arrays = {
        name: np.zeros(s, np.float32) for name, s in inception.shapes().items()
    } | {"fc.bias": np.zeros(classes, np.float32)}
    save_file(arrays, tmp_path / "inception.safetensors")
    assert inception.load(tmp_path / "inception.safetensors").published is published


def test_missing_arrays_are_named(randomly: Any, tmp_path: Path) -> None:
    save_file({"fc.bias": np.zeros(5, np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(UsageError, match=r"missing Conv2d_1a_3x3.conv.weight.* more"):
        inception.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("x.safetensors", b"no weights", "is not a safetensors file"),
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
        inception.load(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("side", [64, 512])
def test_tensorflows_resize_is_that_of_its_first_version(side: int) -> None:
    # The graph of inception-2015-12-05: ResizeBilinear, Sub 128, Mul 1 / 128.
    levels = np.random.default_rng(0).integers(0, 256, (1, side, side, 3))
    images = levels.astype(np.float32)
    tf = tensorflow()
    resize = tf.compat.v1.image.resize_bilinear
    expected = resize(images, (299, 299), half_pixel_centers=False).numpy() / 128 - 1
    result = inception.resized(images / 255, "tensorflow")
    # TensorFlow's places are float32: a hundredth of a level.
    np.testing.assert_allclose(result, expected, atol=1e-4)
