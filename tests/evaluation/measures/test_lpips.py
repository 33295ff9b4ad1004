"""LPIPS with random weights: its properties, and the files it reads."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from gl_jax.config import UsageError
from gl_jax.evaluation.measures import lpips
from gl_jax.evaluation.measures.lpips import ALEXNET, VGG16, Lpips, Trunk

TRUNKS = pytest.mark.parametrize("trunk", [ALEXNET, VGG16], ids=lambda t: t.name)


@pytest.fixture(scope="module")
def distances(randomly: Any) -> Any:
    """Each trunk's weights and jitted distance."""

    def made(trunk: Trunk) -> Any:
        arrays = randomly(lpips.shapes(trunk))
        compiled = jax.jit(Lpips(trunk, arrays))
        return lambda x, y: np.asarray(compiled(arrays, x, y))

    return {trunk.name: made(trunk) for trunk in (ALEXNET, VGG16)}


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).random((2, 2, 36, 40, 3), np.float32)


@TRUNKS
def test_it_is_a_symmetric_distance(
    trunk: Trunk, distances: Any, images: np.ndarray
) -> None:
    distance, (one, other) = distances[trunk.name], images
    assert distance(one, one).tolist() == [0, 0]
    there, back = distance(one, other), distance(other, one)
    assert there.shape == (2,) and (there > 0).all()
    np.testing.assert_allclose(there, back, rtol=1e-6)


@TRUNKS
def test_more_noise_is_further_away(
    trunk: Trunk, distances: Any, images: np.ndarray
) -> None:
    (one, noise), distance = images, distances[trunk.name]
    near, far = (distance(one, one + share * (noise - one)) for share in (0.1, 0.5))
    assert (near < far).all()


def test_the_features_that_are_compared_have_torchvisions_shapes(randomly: Any) -> None:
    # torchvision's AlexNet at 224 pixels: 55, 27 and 13; VGG-16 halves four times.
    expected = {
        "AlexNet": [(55, 64), (27, 192), (13, 384), (13, 256), (13, 256)],
        "VGG-16": [(224, 64), (112, 128), (56, 256), (28, 512), (14, 512)],
    }
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    for trunk in (ALEXNET, VGG16):
        arrays = randomly(lpips.shapes(trunk))
        taps = jax.eval_shape(
            lambda x, t=trunk, a=arrays: lpips._features(t, a, x), images
        )
        assert [(t.shape[1], t.shape[3]) for t in taps] == expected[trunk.name]


def test_a_head_weighs_the_squared_difference_of_its_layer(randomly: Any) -> None:
    arrays = randomly(lpips.shapes(ALEXNET))
    for name in arrays:
        if name.startswith("lin") and name != "lin1.model.1.weight":
            arrays[name] = np.zeros_like(arrays[name])
    one, other = np.random.default_rng(1).random((2, 1, 40, 40, 3), np.float32)
    found = Lpips(ALEXNET, arrays)(arrays, one, other)
    first, second = (
        np.asarray(lpips._features(ALEXNET, arrays, x)[1]) for x in (one, other)
    )
    first, second = (
        x / np.linalg.norm(x, axis=3, keepdims=True).clip(1e-10)
        for x in (first, second)
    )
    head = arrays["lin1.model.1.weight"].reshape(-1)
    expected = (np.square(first - second) * head).sum(axis=3).mean()
    np.testing.assert_allclose(np.asarray(found)[0], expected, rtol=1e-4)


@TRUNKS
def test_trunk_and_heads_may_be_two_files(
    trunk: Trunk, randomly: Any, tmp_path: Path
) -> None:
    arrays = randomly(lpips.shapes(trunk) | {"classifier.1.bias": (5,)})
    heads = {name: a for name, a in arrays.items() if name.startswith("lin")}
    rest = {name: a for name, a in arrays.items() if name not in heads}
    save_file(heads, tmp_path / "heads.safetensors")
    save_file(rest, tmp_path / "trunk.safetensors")
    loaded = lpips.load(
        [tmp_path / "trunk.safetensors", tmp_path / "heads.safetensors"]
    )
    assert loaded.name == trunk.name
    assert set(loaded.arrays) == set(lpips.shapes(trunk))


def test_the_names_of_the_authors_whole_module_are_understood(
    randomly: Any, tmp_path: Path
) -> None:
    arrays = randomly(lpips.shapes(ALEXNET))
    slices = {"0": 1, "3": 2, "6": 3, "8": 4, "10": 5}
    named = {}
    for name, array in arrays.items():
        if name.startswith("features."):
            _, number, kind = name.split(".")
            name = f"net.slice{slices[number]}.{number}.{kind}"
        named[name] = array
    save_file(named, tmp_path / "lpips.safetensors")
    loaded = lpips.load([tmp_path / "lpips.safetensors"])
    np.testing.assert_array_equal(
        loaded.arrays["features.3.weight"], arrays["features.3.weight"]
    )


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"lin2.model.1.weight": None}, "missing lin2.model.1.weight"),
        ({"features.8.bias": (7,)}, "mis-shaped features.8.bias 7 instead of 256"),
        ({"features.0.weight": None}, "no features.0.weight of AlexNet"),
    ],
)
def test_missing_and_mis_shaped_arrays_are_named(
    changes: dict[str, Any], rule: str, randomly: Any, tmp_path: Path
) -> None:
    shapes = lpips.shapes(ALEXNET) | changes
    arrays = randomly({name: s for name, s in shapes.items() if s is not None})
    save_file(arrays, tmp_path / "alex.safetensors")
    with pytest.raises(UsageError, match=rule) as caught:
        lpips.load([tmp_path / "alex.safetensors"])
    assert "\n" not in str(caught.value)
