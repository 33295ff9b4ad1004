"""The context discriminators: the paper's tables, and what PyTorch computes."""

import runpy
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gl_jax import compilation
from gl_jax.models.discriminators import (
    ContextDiscriminator,
    GlobalDiscriminator,
    LocalDiscriminator,
    depth,
)

GOLDEN = Path(__file__).parents[1] / "golden"
golden = SimpleNamespace(**runpy.run_path(str(GOLDEN / "weights.py")))

# The paper's tables, all 5x5 convolutions of stride 2: outputs, and the size of the output.
LOCAL = ((64, 64), (128, 32), (256, 16), (512, 8), (512, 4))
GLOBAL = ((64, 128), (128, 64), (256, 32), (512, 16), (512, 8), (512, 4))

NARROW = 0.01  # every layer has the least number of channels


def shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


@cache
def context_params(**sizes: int) -> Any:
    """Shapes of the parameters at full width, for views of these sizes."""
    net = ContextDiscriminator(tuple(sizes))
    views = {name: shape(1, size, size, 3) for name, size in sizes.items()}
    return jax.eval_shape(net.init, jax.random.key(0), views)["params"]


def count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


# --- the paper's tables ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "size", "table"),
    [(LocalDiscriminator, 128, LOCAL), (GlobalDiscriminator, 256, GLOBAL)],
)
def test_layers_are_the_papers(network, size, table):
    net = network()
    images = shape(2, size, size, 3)
    variables = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, False), images)

    def outputs(variables: Any, images: Any) -> Any:
        _, captured = net.apply(
            variables,
            images,
            False,
            capture_intermediates=True,
            mutable=["intermediates"],
        )
        return captured["intermediates"]

    layers = jax.eval_shape(outputs, variables, images)
    inputs = 3
    for index, (channels, side) in enumerate(table, 1):
        assert variables["params"][f"conv{index}"]["kernel"].shape == (
            5,
            5,
            inputs,
            channels,
        )
        assert variables["params"][f"conv{index}"]["norm"]["scale"].shape == (channels,)
        assert layers[f"conv{index}"]["__call__"][0].shape == (2, side, side, channels)
        inputs = channels
    assert variables["params"]["features"]["kernel"].shape == (8192, 1024)
    assert layers["features"]["__call__"][0].shape == (2, 1024)
    assert len(variables["params"]) == len(table) + 1


def test_parameters_are_counted_as_in_the_paper():
    params = context_params(**{"local": 128, "global": 256})
    assert count(params["local"]) == 19_253_248
    assert count(params["global"]) == 25_808_384
    assert count(params["fusion"]) == 2_049
    assert count(params) == 45_063_681


def test_parameters_for_faces_are_counted_as_in_the_published_model():
    params = context_params(**{"local": 96, "global": 160})
    assert count(params["local"]) == 15_583_232
    assert count(params["global"]) == 23_971_840
    assert count(params) == 39_557_121


@pytest.mark.parametrize(
    ("input_size", "layers"),
    [(512, 7), (256, 6), (128, 5), (160, 5), (96, 5), (64, 4)],
)
def test_depth_follows_from_the_size_of_the_input(input_size, layers):
    assert depth(input_size) == layers
    params = context_params(local=input_size)["local"]
    assert set(params) == {"features"} | {f"conv{n}" for n in range(1, layers + 1)}


@pytest.mark.parametrize(
    "views", [("local", "global"), ("local",), ("global",), ("global", "middle")]
)
def test_there_is_a_column_for_each_view_and_no_other(views):
    params = context_params(**dict.fromkeys(views, 64))
    assert set(params) == {*views, "fusion"}
    assert params["fusion"]["kernel"].shape == (1024 * len(views), 1)


# --- what PyTorch computes --------------------------------------------------------------


@cache
def our_results(mode: str, platform: str) -> dict[str, np.ndarray]:
    """Features and logits, as networks.npz names them."""
    variables = golden.flax_variables(golden.discriminator())
    images, patches = (x.transpose(0, 2, 3, 1) for x in golden.discriminator_inputs())
    net = ContextDiscriminator(ops=compilation.ops(platform))

    @jax.jit
    def judge(variables: Any, views: Any) -> Any:
        def run(views: Any) -> Any:
            return net.apply(
                variables,
                views,
                train=mode == "train",
                capture_intermediates=True,
                mutable=["batch_stats", "intermediates"],
            )

        # As a training step runs it: operations may have another way to be derived.
        logits, captured = jax.vjp(run, views)[0] if mode == "train" else run(views)
        parts = captured["intermediates"]
        features = {name: parts[name]["__call__"][0] for name in ("local", "global")}
        return features | {"logits": logits}

    return jax.device_get(judge(variables, {"local": patches, "global": images}))


# The operations of every platform: native ones, and those that processors have.
@pytest.mark.parametrize("platform", ["tpu", "cpu"])
@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("name", ["local", "global", "logits"])
def test_judgements_are_those_of_pytorch(name, mode, platform):
    with np.load(GOLDEN / "networks.npz") as results:
        expected = results[f"{name}.{mode}"]
    ours = our_results(mode, platform)[name]
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


# --- behaviour --------------------------------------------------------------------------

BOTH = ("local", "global")


def seen(count: int = 2, seed: int = 0) -> dict[str, jax.Array]:
    """Views of photographs: windows of 16 pixels, and whole images of 32."""
    return {
        name: jax.random.uniform(jax.random.key(seed), (count, size, size, 3))
        for name, size in (("local", 16), ("global", 32))
    }


@cache
def small_variables(views: tuple[str, ...] = BOTH) -> Any:
    net = ContextDiscriminator(views, width=NARROW)
    return jax.jit(net.init)(jax.random.key(1), seen(1))


def trained(
    variables: Any, shown: Any, views: tuple[str, ...] = BOTH, **options: Any
) -> Any:
    """Logits and the moved statistics, normalised by those of the batch."""
    net = ContextDiscriminator(views, width=NARROW, **options)
    return net.apply(variables, shown, True, mutable=["batch_stats"])


compiled = jax.jit(trained, static_argnames="views")


def judged(shown: Any, views: tuple[str, ...] = BOTH) -> jax.Array:
    """Logits of a small discriminator."""
    return compiled(small_variables(views), shown, views)[0]


@pytest.mark.parametrize("name", BOTH)
def test_logits_depend_on_every_view(name):
    logits = judged(seen())
    assert logits.shape == (2,) and logits.dtype == jnp.float32
    turned = seen() | {name: seen()[name][::-1]}
    assert np.abs(logits - judged(turned)).min() > 1e-4


@pytest.mark.parametrize(("name", "other"), [BOTH, BOTH[::-1]])
def test_one_discriminator_looks_at_its_own_view_only(name, other):
    logits = judged(seen(), (name,))
    unlike = seen(seed=1)
    np.testing.assert_array_equal(
        judged(seen() | {other: unlike[other]}, (name,)), logits
    )
    np.testing.assert_array_equal(judged({name: seen()[name]}, (name,)), logits)
    assert np.abs(judged(unlike, (name,)) - logits).max() > 1e-4


def test_a_logit_is_no_probability():
    variables = jax.tree.map(jnp.zeros_like, small_variables())
    variables["params"]["fusion"]["bias"] = jnp.array([7.0])
    net = ContextDiscriminator(width=NARROW)
    np.testing.assert_array_equal(net.apply(variables, seen()), [7, 7])


def test_width_multiplies_channels_and_features():
    net = LocalDiscriminator(width=0.5)
    params = jax.eval_shape(net.init, jax.random.key(0), shape(1, 128, 128, 3))[
        "params"
    ]
    sizes = [params[f"conv{n}"]["bias"].size for n in range(1, 6)]
    assert sizes == [32, 64, 128, 256, 256]
    assert params["features"]["bias"].shape == (512,)


def test_a_view_that_is_not_shown_is_named():
    with pytest.raises(
        ValueError, match=r"needs the views local, global, but.*only global\."
    ):
        judged({"global": seen()["global"]})


def test_views_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match=r"\(=16x32\) must be square"):
        judged(seen() | {"global": seen()["global"][:, :16]})


def test_forward_and_reverse_derivatives_agree():
    """Along one direction of parameters and views, and with finite differences."""
    point = (small_variables()["params"], seen())
    # Small beside the weights, so that few units cross the kink of a ReLU.
    direction = jax.tree.map(
        lambda leaf: 1e-3 * jax.random.normal(jax.random.key(3), leaf.shape), point
    )

    def energy(params: Any, views: Any) -> jax.Array:
        logits, _ = trained(small_variables() | {"params": params}, views)
        return jnp.sum(jnp.square(1 + logits))

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


def test_batch_statistics_are_those_of_all_devices():
    scale = np.arange(1, 5, dtype=np.float32)[:, None, None, None]
    shown = {name: view * scale for name, view in seen(4).items()}
    variables = small_variables()
    whole, statistics = compiled(variables, shown)
    over_devices = jax.pmap(
        partial(trained, axis_name="devices"),
        axis_name="devices",
        in_axes=(None, 0),
        devices=jax.devices()[:2],
    )
    halves = {name: view.reshape(2, 2, *view.shape[1:]) for name, view in shown.items()}
    logits, moved = jax.device_get(over_devices(variables, halves))
    np.testing.assert_allclose(logits.reshape(4), whole, rtol=0, atol=1e-5)
    for ours, expected in zip(
        jax.tree.leaves(moved), jax.tree.leaves(statistics), strict=True
    ):
        np.testing.assert_allclose(ours[0], expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(ours[0], ours[1])


# --- spectral normalisation -------------------------------------------------------------


def divided(params: Any, largest: dict[str, float]) -> Any:
    """The parameters, each kernel divided by its largest singular value, which is noted."""

    def one(path: Any, leaf: Any) -> Any:
        if path[-1].key != "kernel":
            return leaf
        singular = np.linalg.svd(
            np.reshape(leaf, (-1, leaf.shape[-1])), compute_uv=False
        )
        largest[jax.tree_util.keystr(path)] = singular[0]
        return leaf / singular[0]

    return jax.tree_util.tree_map_with_path(one, params)


def test_spectral_norm_divides_each_kernel_by_its_largest_singular_value():
    """After as many steps of power iteration as calls in training; in use it stays so."""
    plain = ContextDiscriminator(width=0.05, norm_order="none")
    net = plain.clone(spectral_norm=True)
    variables = jax.jit(net.init)(jax.random.key(1), seen(1))
    # Biases of 0 would hide whether they are divided too.
    params = jax.tree.map(lambda leaf: leaf + 0.01, variables["params"])

    def call(stats: Any, _: None) -> tuple[Any, jax.Array]:
        given = {"params": params, "batch_stats": stats}
        logits, updated = net.apply(given, seen(), True, mutable=["batch_stats"])
        return updated["batch_stats"], logits

    stats, logits = jax.jit(lambda stats: jax.lax.scan(call, stats, length=300))(
        variables["batch_stats"]
    )
    largest: dict[str, float] = {}
    expected = jax.jit(plain.apply)({"params": divided(params, largest)}, seen())
    # Five convolutions, two dense layers of the columns, and the fusion.
    assert len(largest) == 8 and min(np.abs(np.log([*largest.values()]))) > 0.01
    np.testing.assert_allclose(logits[-1], expected, rtol=1e-3)
    assert np.abs(logits[0] - expected).max() > 0.01 * np.abs(expected).max()
    used = jax.jit(net.apply)({"params": params, "batch_stats": stats}, seen())
    np.testing.assert_allclose(used, expected, rtol=1e-3)


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_without_batch_normalisation_an_image_is_judged_alone(spectral_norm):
    net = ContextDiscriminator(
        width=NARROW, norm_order="none", spectral_norm=spectral_norm
    )
    variables = jax.jit(net.init)(jax.random.key(1), seen(1))
    assert ("batch_stats" in variables) == spectral_norm

    @jax.jit
    def judge(views: Any) -> jax.Array:
        return net.apply(variables, views, True, mutable=["batch_stats"])[0]

    alone = judge({name: view[:1] for name, view in seen().items()})
    np.testing.assert_allclose(judge(seen())[:1], alone, rtol=1e-5)


def test_spectral_norm_and_recomputation_go_together():
    net = ContextDiscriminator(width=NARROW, norm_order="none", spectral_norm=True)
    variables = jax.jit(net.init)(jax.random.key(1), seen(1))

    def slopes(net: ContextDiscriminator) -> Any:
        def loss(params: Any) -> jax.Array:
            given = variables | {"params": params}
            return jnp.sum(net.apply(given, seen(), True, mutable=["batch_stats"])[0])

        return jax.jit(jax.grad(loss))(variables["params"])

    plain, again = slopes(net), slopes(net.clone(rematerialize=True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), plain, again)
