"""The context discriminators: the paper's tables, and what PyTorch computes."""

import runpy
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gl_jax.models import convolution
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
def context_variables(image_size: int, local_size: int, variant: str = "both") -> Any:
    """Shapes of the variables at full width."""
    net = ContextDiscriminator(image_size, local_size, variant)
    images, patches = (
        shape(1, image_size, image_size, 3),
        shape(1, local_size, local_size, 3),
    )
    return jax.eval_shape(net.init, jax.random.key(0), images, patches)


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
    params = context_variables(256, 128)["params"]
    assert count(params["local"]) == 19_253_248
    assert count(params["global"]) == 25_808_384
    assert count(params["fusion"]) == 2_049
    assert count(params) == 45_063_681


def test_parameters_for_faces_are_counted_as_in_the_published_model():
    params = context_variables(160, 96)["params"]
    assert count(params["local"]) == 15_583_232
    assert count(params["global"]) == 23_971_840
    assert count(params) == 39_557_121


@pytest.mark.parametrize(
    ("input_size", "layers"), [(256, 6), (128, 5), (160, 5), (96, 5), (64, 4)]
)
def test_depth_follows_from_the_size_of_the_input(input_size, layers):
    assert depth(input_size) == layers
    params = context_variables(max(input_size, 96), input_size, "local")["params"][
        "local"
    ]
    assert set(params) == {"features"} | {f"conv{n}" for n in range(1, layers + 1)}


@pytest.mark.parametrize("variant", ["both", "local", "global"])
def test_a_variant_has_the_parameters_it_names_only(variant):
    params = context_variables(256, 128, variant)["params"]
    parts = {"local", "global"} if variant == "both" else {variant}
    assert set(params) == parts | {"fusion"}
    assert params["fusion"]["kernel"].shape == (1024 * len(parts), 1)


# --- what PyTorch computes --------------------------------------------------------------


@cache
def our_results(mode: str) -> dict[str, np.ndarray]:
    """Features and logits, as networks.npz names them."""
    variables = golden.flax_variables(golden.discriminator())
    inputs = [x.transpose(0, 2, 3, 1) for x in golden.discriminator_inputs()]
    net = ContextDiscriminator()

    @jax.jit
    def judge(variables: Any, *inputs: Any) -> Any:
        def run(*inputs: Any) -> Any:
            return net.apply(
                variables,
                *inputs,
                train=mode == "train",
                capture_intermediates=True,
                mutable=["batch_stats", "intermediates"],
            )

        # As a training step runs it, which has formulations of its own.
        trained = mode == "train"
        logits, captured = jax.vjp(run, *inputs)[0] if trained else run(*inputs)
        parts = captured["intermediates"]
        features = {name: parts[name]["__call__"][0] for name in ("local", "global")}
        return features | {"logits": logits}

    with patch.object(convolution, "WINOGRAD_PRODUCTS", 0):
        return jax.device_get(judge(variables, *inputs))


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("name", ["local", "global", "logits"])
def test_judgements_are_those_of_pytorch(name, mode):
    with np.load(GOLDEN / "networks.npz") as results:
        expected = results[f"{name}.{mode}"]
    ours = our_results(mode)[name]
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


# --- behaviour --------------------------------------------------------------------------


def photographs(count: int, size: int, seed: int = 0) -> jax.Array:
    return jax.random.uniform(jax.random.key(seed), (count, size, size, 3))


@cache
def small_variables(variant: str) -> Any:
    net = ContextDiscriminator(32, 16, variant, width=NARROW)
    return jax.jit(net.init)(jax.random.key(1), photographs(1, 32), photographs(1, 16))


def trained(
    variables: Any,
    images: Any,
    patches: Any,
    variant: str,
    batches: int = 1,
    **options: Any,
) -> Any:
    """Logits and the moved statistics, normalised by those of the batch."""
    net = ContextDiscriminator(32, 16, variant, width=NARROW, **options)
    return net.apply(variables, images, patches, True, batches, mutable=["batch_stats"])


compiled = jax.jit(trained, static_argnames=("variant", "batches"))


def judged(images: Any, patches: Any, variant: str = "both") -> jax.Array:
    """Logits of a small discriminator."""
    return compiled(small_variables(variant), images, patches, variant=variant)[0]


def test_logits_depend_on_the_image_and_on_the_window():
    images, patches = photographs(2, 32), photographs(2, 16)
    logits = judged(images, patches)
    assert logits.shape == (2,) and logits.dtype == jnp.float32
    assert np.abs(logits - judged(images[::-1], patches)).min() > 1e-4
    assert np.abs(logits - judged(images, patches[::-1])).min() > 1e-4


@pytest.mark.parametrize("variant", ["local", "global"])
def test_a_variant_looks_at_its_own_input_only(variant):
    images, patches = photographs(2, 32), photographs(2, 16)
    logits = judged(images, patches, variant)
    other_images, other_patches = photographs(2, 32, seed=1), photographs(2, 16, seed=1)
    unseen = (other_images, patches) if variant == "local" else (images, other_patches)
    seen = (images, other_patches) if variant == "local" else (other_images, patches)
    np.testing.assert_array_equal(judged(*unseen, variant), logits)
    assert np.abs(judged(*seen, variant) - logits).max() > 1e-4


def test_a_logit_is_no_probability():
    variables = jax.tree.map(jnp.zeros_like, small_variables("both"))
    variables["params"]["fusion"]["bias"] = jnp.array([7.0])
    net = ContextDiscriminator(32, 16, width=NARROW)
    logits = net.apply(variables, photographs(2, 32), photographs(2, 16))
    np.testing.assert_array_equal(logits, [7, 7])


def test_width_multiplies_channels_and_features():
    net = LocalDiscriminator(width=0.5)
    params = jax.eval_shape(
        lambda x: net.init(jax.random.key(0), x, False), shape(1, 128, 128, 3)
    )["params"]
    assert [params[f"conv{n}"]["bias"].size for n in range(1, 6)] == [
        32,
        64,
        128,
        256,
        256,
    ]
    assert params["features"]["bias"].shape == (512,)


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"input_size \(=32\).*images are 36x36"):
        judged(photographs(2, 36), photographs(2, 16))


def test_batches_that_pass_together_do_not_mix():
    """Logits and running statistics are those of one batch after the other."""
    scale = np.arange(1, 5, dtype=np.float32)[:, None, None, None]
    images, patches = photographs(4, 32) * scale, photographs(4, 16) * scale
    variables = small_variables("both")
    logits, statistics = [], variables
    for half in (slice(2), slice(2, 4)):
        found, moved = compiled(statistics, images[half], patches[half], variant="both")
        logits.append(found)
        statistics = variables | moved
    both, moved = compiled(variables, images, patches, variant="both", batches=2)
    np.testing.assert_allclose(both, np.concatenate(logits), rtol=0, atol=1e-5)
    for ours, expected in zip(
        jax.tree.leaves(moved),
        jax.tree.leaves(statistics["batch_stats"]),
        strict=True,
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


def test_batch_statistics_are_those_of_all_devices():
    scale = np.arange(1, 5, dtype=np.float32)[:, None, None, None]
    images, patches = photographs(4, 32) * scale, photographs(4, 16) * scale
    variables = small_variables("both")
    whole, statistics = compiled(variables, images, patches, variant="both")
    over_devices = jax.pmap(
        partial(trained, variant="both", axis_name="devices"),
        axis_name="devices",
        in_axes=(None, 0, 0),
        devices=jax.devices()[:2],
    )
    halves = (x.reshape(2, 2, *x.shape[1:]) for x in (images, patches))
    logits, moved = jax.device_get(over_devices(variables, *halves))
    np.testing.assert_allclose(logits.reshape(4), whole, rtol=0, atol=1e-5)
    for ours, expected in zip(
        jax.tree.leaves(moved), jax.tree.leaves(statistics), strict=True
    ):
        np.testing.assert_allclose(ours[0], expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(ours[0], ours[1])
