"""The completion network: the paper's table, and what PyTorch computes from the same weights."""

import runpy
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gl_jax import compilation
from gl_jax.models.completion import (
    LAYERS,
    CompletionNetwork,
    Row,
    layer_name,
)

GOLDEN = Path(__file__).parents[1] / "golden"
golden = SimpleNamespace(**runpy.run_path(str(GOLDEN / "weights.py")))

# The paper's table: type, kernel, dilation, stride, outputs (a deconv's stride is 1/2).
# Beside it the size of the output for a 256x256 image, and the weights and biases.
PAPER = (
    ("conv", 5, 1, 1, 64, 256, 6_464),
    ("conv", 3, 1, 2, 128, 128, 73_856),
    ("conv", 3, 1, 1, 128, 128, 147_584),
    ("conv", 3, 1, 2, 256, 64, 295_168),
    ("conv", 3, 1, 1, 256, 64, 590_080),
    ("conv", 3, 1, 1, 256, 64, 590_080),
    ("conv", 3, 2, 1, 256, 64, 590_080),
    ("conv", 3, 4, 1, 256, 64, 590_080),
    ("conv", 3, 8, 1, 256, 64, 590_080),
    ("conv", 3, 16, 1, 256, 64, 590_080),
    ("conv", 3, 1, 1, 256, 64, 590_080),
    ("conv", 3, 1, 1, 256, 64, 590_080),
    ("deconv", 4, 1, 2, 128, 128, 524_416),
    ("conv", 3, 1, 1, 128, 128, 147_584),
    ("deconv", 4, 1, 2, 64, 256, 131_136),
    ("conv", 3, 1, 1, 32, 256, 18_464),
    ("conv", 3, 1, 1, 3, 256, 867),
)
ROWS = pytest.mark.parametrize(
    "index", range(17), ids=[layer_name(i) for i in range(17)]
)

NARROW = 0.01  # every hidden layer has the least number of channels
SMALL = (2, 16, 16, 4)


def noise(shape: tuple[int, ...], seed: int = 0) -> jax.Array:
    """Numbers in [0, 1) for the network's four input channels."""
    return jax.random.uniform(jax.random.key(seed), shape)


@cache
def narrow_variables() -> dict[str, Any]:
    """Weights of the narrow network with statistics of BatchNorm away from (0, 1)."""
    shape = jax.ShapeDtypeStruct((1, 16, 16, 4), jnp.float32)
    net = CompletionNetwork(width=NARROW)
    tree = jax.eval_shape(net.init, jax.random.key(0), shape)
    stream = np.random.RandomState(1)

    def fill(path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if "kernel" in str(path[-1]):
            return stream.normal(0, 0.25, leaf.shape).astype(np.float32)
        low = 0.5 if "var" in str(path[-1]) else -0.5
        return stream.uniform(low, low + 1, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, tree)


@cache
def shapes(width: float = 1.0) -> tuple[dict[str, Any], dict[str, Any]]:
    """Shapes of all variables, and of every layer's output for a 256x256 image."""
    net = CompletionNetwork(width=width)
    inputs = jax.ShapeDtypeStruct((1, 256, 256, 4), jnp.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0), inputs)

    def outputs(variables: Any, inputs: Any) -> Any:
        _, captured = net.apply(
            variables, inputs, capture_intermediates=True, mutable=["intermediates"]
        )
        return captured["intermediates"]

    return variables, jax.eval_shape(outputs, variables, inputs)


def count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


# --- the paper's table -----------------------------------------------------------------


@ROWS
def test_row_is_the_papers(index):
    assert LAYERS[index] == Row(*PAPER[index][:5])


@ROWS
def test_kernel_has_the_papers_size(index):
    _, kernel, _, _, outputs, _, _ = PAPER[index]
    inputs = PAPER[index - 1][4] if index else 4
    layer = shapes()[0]["params"][layer_name(index)]
    assert layer["kernel"].shape == (kernel, kernel, inputs, outputs)


@ROWS
def test_output_has_the_papers_size(index):
    _, _, _, _, outputs, side, _ = PAPER[index]
    (output,) = shapes()[1][layer_name(index)]["__call__"]
    assert output.shape == (1, side, side, outputs)


@ROWS
def test_layer_has_the_papers_weights(index):
    layer = dict(shapes()[0]["params"][layer_name(index)])
    layer.pop("norm", None)
    assert count(layer) == PAPER[index][6]


def test_there_are_no_other_layers():
    names = {layer_name(index) for index in range(17)}
    assert set(shapes()[0]["params"]) == names
    assert set(shapes()[0]["batch_stats"]) == names - {"conv17"}
    assert "norm" not in shapes()[0]["params"]["conv17"]


def test_parameters_are_counted_as_in_the_paper():
    assert count(shapes()[0]["params"]) == 6_072_131
    assert count(shapes()[0]["batch_stats"]) == 5_952


# --- what PyTorch computes --------------------------------------------------------------


@cache
def golden_weights() -> dict[str, Any]:
    return golden.flax_variables(golden.completion())


@cache
def golden_results() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "networks.npz") as results:
        return dict(results)


@cache
def our_result(case: str, platform: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Our completed images of a case, NHWC, and the running statistics after it."""
    order, last, size, mode = case.split(".")
    net = CompletionNetwork(
        norm_order=order, output_activation=last, ops=compilation.ops(platform)
    )
    inputs = golden.completion_inputs(size).transpose(0, 2, 3, 1)

    @jax.jit
    def complete(variables: Any, inputs: Any) -> Any:
        def run(inputs: Any) -> Any:
            return net.apply(
                variables, inputs, train=mode == "train", mutable=["batch_stats"]
            )

        # As a training step runs it: operations may have another way to be derived.
        return jax.vjp(run, inputs)[0] if mode == "train" else run(inputs)

    completed, updated = complete(golden_weights(), inputs)
    return np.asarray(completed), jax.device_get(updated["batch_stats"])


# The operations of every platform: native ones, and those that processors have.
EVERY_PLATFORM = pytest.mark.parametrize("platform", ["tpu", "cpu"])


@EVERY_PLATFORM
@pytest.mark.parametrize("case", golden.CASES)
def test_completed_images_are_those_of_pytorch(case, platform):
    expected = golden_results()[case].transpose(0, 2, 3, 1)
    completed = our_result(case, platform)[0][:, :: golden.KEEP, :: golden.KEEP]
    np.testing.assert_allclose(completed, expected, rtol=0, atol=1e-5)


@EVERY_PLATFORM
@pytest.mark.parametrize("field", ["mean", "var"])
def test_running_statistics_move_as_in_pytorch(field, platform):
    moved = our_result(golden.MOVED, platform)[1]
    before = golden_weights()["batch_stats"]
    pixels = {"/1": 64 * 64, "/2": 32 * 32, "/4": 16 * 16}
    for index in range(16):
        name = layer_name(index)
        expected = golden_results()[f"moved.{name}.norm.running_{field}"]
        if field == "var":
            # torch moves by the unbiased variance; ours is the one it normalises by.
            n = 2 * pixels[f"/{256 // PAPER[index][5]}"]
            old = 0.9 * before[name]["norm"]["var"]
            expected = old + (expected - old) * (n - 1) / n
        np.testing.assert_allclose(
            moved[name]["norm"][field], expected, rtol=0, atol=1e-5, err_msg=name
        )


# --- the receptive field ----------------------------------------------------------------


@cache
def dependencies() -> np.ndarray:
    """Which pixels of a 320x320 image the outputs at 160..163 depend on, [4, 320, 320].

    All weights are positive and equal, so no ReLU hides a dependency and none cancels.
    """
    net = CompletionNetwork(width=NARROW, output_activation="sigmoid")
    shape = jax.ShapeDtypeStruct((1, 320, 320, 4), jnp.float32)
    variables = flax.traverse_util.flatten_dict(
        jax.eval_shape(net.init, jax.random.key(0), shape)
    )
    for path, leaf in variables.items():
        value = {"kernel": 1 / np.prod(leaf.shape[:3]), "scale": 1.0, "var": 1.0}
        variables[path] = jnp.full(leaf.shape, value.get(path[-1], 0.0), leaf.dtype)
    tree = flax.traverse_util.unflatten_dict(variables)

    @jax.jit
    def gradient(inputs: jax.Array, at: jax.Array) -> jax.Array:
        def output(inputs: jax.Array) -> jax.Array:
            return net.apply(tree, inputs)[0, at, at, 0]

        return jax.grad(output)(inputs)

    ones = jnp.ones(shape.shape, shape.dtype)
    slopes = [gradient(ones, jnp.int32(160 + phase)) for phase in range(4)]
    return np.stack([np.asarray(slope)[0].any(axis=-1) for slope in slopes])


def test_receptive_field_is_at_most_303_pixels_wide():
    extents = [
        np.flatnonzero(seen.any(axis=axis))
        for seen in dependencies()
        for axis in (0, 1)
    ]
    widths = [int(extent[-1] - extent[0] + 1) for extent in extents]
    # Two of the four phases of the deconvs see four pixels less.
    assert sorted(widths) == [299] * 4 + [303] * 4


def test_receptive_field_has_no_gaps():
    for seen in dependencies():
        rows, columns = (
            np.flatnonzero(seen.any(axis=1)),
            np.flatnonzero(seen.any(axis=0)),
        )
        assert seen[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


def test_receptive_field_reaches_153_pixels_back_and_150_ahead():
    # The deconvs' phases make it lopsided; a window cut around a hole must allow for both.
    rows = [
        np.flatnonzero(seen.any(axis=1)) - 160 - at
        for at, seen in enumerate(dependencies())
    ]
    assert min(row[0] for row in rows) == -153
    assert max(row[-1] for row in rows) == 150


# --- options ----------------------------------------------------------------------------


@cache
def narrow_network(**options: Any) -> Callable[[Any], jax.Array]:
    net = CompletionNetwork(width=NARROW, **options)
    return partial(jax.jit(net.apply), narrow_variables())


def narrow_trained(variables: Any, inputs: Any, **options: Any) -> Any:
    """Completed images and the moved statistics, normalised by those of the batch."""
    net = CompletionNetwork(width=NARROW, **options)
    return net.apply(variables, inputs, train=True, mutable=["batch_stats"])


def test_width_multiplies_the_hidden_channels_only():
    params = shapes(0.5)[0]["params"]
    for index, (_, _, _, _, outputs, _, _) in enumerate(PAPER[:-1]):
        assert params[layer_name(index)]["bias"].shape == (outputs // 2,)
    assert params["conv1"]["kernel"].shape[2] == 4
    assert params["conv17"]["bias"].shape == (3,)


@pytest.mark.parametrize("output_activation", ["sigmoid", "clamp", "signed_clamp"])
def test_outputs_are_colours_in_0_to_1(output_activation):
    completed = narrow_network(output_activation=output_activation)(
        40 * noise(SMALL) - 20
    )
    assert completed.shape == (2, 16, 16, 3)
    assert completed.dtype == jnp.float32
    assert 0 <= completed.min() < 0.4 and 0.6 < completed.max() <= 1


def test_clamp_reaches_0_and_1():
    clamped = narrow_network(output_activation="clamp")(40 * noise(SMALL) - 20)
    np.testing.assert_array_equal([clamped.min(), clamped.max()], [0, 1])


def test_signed_clamp_takes_minus_1_to_black_and_0_to_grey():
    clamped, signed = (
        narrow_network(output_activation=name)(noise(SMALL))
        for name in ("clamp", "signed_clamp")
    )
    inside = (clamped > 0) & (clamped < 1)
    assert inside.mean() > 0.1
    np.testing.assert_allclose(signed[inside], (clamped[inside] + 1) / 2, rtol=1e-6)
    assert (signed < 0.5).any()


def test_an_image_is_completed_whatever_else_is_in_its_batch():
    inputs = noise(SMALL)
    others = jnp.stack([inputs[0], 3 * noise(SMALL, seed=1)[1]])
    first, again = narrow_network()(inputs)[0], narrow_network()(others)[0]
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("size", [(18, 16), (16, 18), (17, 16), (1, 1)])
def test_sides_that_are_no_multiples_of_4_are_refused(size):
    with pytest.raises(
        ValueError, match=rf"\(={size[0]}x{size[1]}\) must be multiples of 4"
    ):
        narrow_network()(noise((1, *size, 4)))


def test_rematerializing_changes_no_gradient():
    inputs = noise(SMALL)
    params = narrow_variables()["params"]

    def slopes(rematerialize: bool) -> Any:
        net = CompletionNetwork(width=NARROW, rematerialize=rematerialize)

        def energy(params: Any) -> jax.Array:
            variables = narrow_variables() | {"params": params}
            completed, _ = net.apply(
                variables, inputs, train=True, mutable=["batch_stats"]
            )
            return jnp.sum(jnp.square(completed))

        return jax.jit(jax.grad(energy))(params)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        slopes(True),
        slopes(False),
    )


def test_forward_and_reverse_derivatives_agree():
    """Along one direction of parameters and inputs, and with finite differences."""
    point = (narrow_variables()["params"], noise(SMALL))
    # Small beside the weights, so that few units cross the kink of a ReLU.
    direction = jax.tree.map(
        lambda leaf: 1e-3 * jax.random.normal(jax.random.key(3), leaf.shape), point
    )

    def energy(params: Any, inputs: Any) -> jax.Array:
        completed, _ = narrow_trained(narrow_variables() | {"params": params}, inputs)
        return jnp.sum(jnp.square(completed))

    @jax.jit
    def slopes() -> list[jax.Array]:
        _, forward = jax.jvp(energy, point, direction)
        slopes = jax.grad(energy, argnums=(0, 1))(*point)
        products = jax.tree.map(lambda g, d: jnp.sum(g * d), slopes, direction)
        ahead, back = (
            energy(*jax.tree.map(lambda p, d, way=way: p + way * d, point, direction))
            for way in (0.1, -0.1)
        )
        return [forward, sum(jax.tree.leaves(products)), (ahead - back) / 0.2]

    forward, reverse, differences = map(float, slopes())
    assert forward == pytest.approx(reverse, rel=1e-4)
    assert forward == pytest.approx(differences, rel=2e-2)


def test_bfloat16_stays_near_float32_and_comes_out_as_float32():
    inputs = noise(SMALL)
    half = narrow_network(dtype=jnp.bfloat16)(inputs)
    assert half.dtype == jnp.float32
    error = np.abs(half - narrow_network()(inputs))
    assert 0 < error.max() < 0.05


def test_parameters_stay_float32_under_bfloat16():
    net = CompletionNetwork(width=NARROW, dtype=jnp.bfloat16)
    inputs = jax.ShapeDtypeStruct((1, 16, 16, 4), jnp.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0), inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {
        jnp.dtype(jnp.float32)
    }


# --- devices ----------------------------------------------------------------------------


def uneven() -> jax.Array:
    """Four images of which the last two have other statistics than the first two."""
    return (
        noise((4, 16, 16, 4)) * np.arange(1, 5, dtype=np.float32)[:, None, None, None]
    )


def test_batch_statistics_are_those_of_all_devices():
    whole, statistics = jax.jit(narrow_trained)(narrow_variables(), uneven())
    over_devices = jax.pmap(
        partial(narrow_trained, axis_name="devices"),
        axis_name="devices",
        in_axes=(None, 0),
        devices=jax.devices()[:2],
    )
    halves = uneven().reshape(2, 2, 16, 16, 4)
    completed, moved = jax.device_get(over_devices(narrow_variables(), halves))
    np.testing.assert_allclose(completed.reshape(whole.shape), whole, rtol=0, atol=1e-5)
    for ours, expected in zip(
        jax.tree.leaves(moved), jax.tree.leaves(statistics), strict=True
    ):
        np.testing.assert_allclose(ours[0], expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(ours[0], ours[1])


def test_batch_statistics_without_an_axis_are_each_devices_own():
    trained = jax.jit(narrow_trained)
    whole, _ = trained(narrow_variables(), uneven())
    half, _ = trained(narrow_variables(), uneven()[:2])
    assert np.abs(half - whole[:2]).max() > 1e-3
