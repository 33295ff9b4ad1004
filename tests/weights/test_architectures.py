"""Networks by name and numbers."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gl_jax import compilation, cpu
from gl_jax.config import Config, DataConfig, HolesConfig, ModelConfig, UsageError
from gl_jax.experiment import Experiment
from gl_jax.models.completion import CompletionNetwork
from gl_jax.models.discriminators import ContextDiscriminator
from gl_jax.training.parts import default_parts
from gl_jax.weights import architectures
from gl_jax.weights.architectures import (
    Architecture,
    DiscriminatorArchitecture,
    OwnArchitecture,
)
from gl_jax.weights.convention import Convention

CONFIG = Config(
    model=ModelConfig(0.125, "activation_norm", "clamp", "local", "none", True),
    data=DataConfig(image_size=64, resize=(64, 64)),
    holes=HolesConfig(8, 12, 32),
)
EVERY_FIELD = {
    "completion": Architecture(0.125, "activation_norm", "clamp"),
    "discriminator": DiscriminatorArchitecture(
        64, 32, "local", 0.125, "none",
        Convention("BGR", 2.0, (0.5, 0.4, 0.3), (0.1, 0.2, 0.3)), True,
    ),
}  # fmt: skip


class Own(nn.Module):
    """Neither of ours."""

    @nn.compact
    def __call__(self, inputs, train):
        return nn.Conv(3, (1, 1))(inputs)


@pytest.mark.parametrize("role", EVERY_FIELD)
def test_every_field_comes_back_from_json(role):
    made = EVERY_FIELD[role]
    default = type(made)()
    same = [
        field.name
        for field in dataclasses.fields(made)
        if getattr(made, field.name) == getattr(default, field.name)
    ]
    assert same == ["module"], "give every field another value than its default"
    text = json.dumps(architectures.to_json(made))
    assert architectures.from_json(json.loads(text), role) == made


def test_a_network_of_version_0_1_does_not_name_its_module():
    values = architectures.to_json(EVERY_FIELD["completion"])
    del values["module"]
    found = architectures.from_json(values, "completion")
    assert found == EVERY_FIELD["completion"]


def test_a_discriminator_without_spectral_normalisation_is_described_as_before_it():
    values = architectures.to_json(DiscriminatorArchitecture())
    assert list(values) == [
        "image_size", "local_size", "variant", "width", "norm_order", "convention",
        "module",
    ]  # fmt: skip


@pytest.mark.parametrize("role", EVERY_FIELD)
def test_the_networks_of_a_run_are_those_of_its_configuration(role):
    network = getattr(default_parts(CONFIG), role)
    found = architectures.of_network(network, role, CONFIG, "run.py")
    assert found == architectures.of_config(CONFIG)[role == "discriminator"]
    wanted = EVERY_FIELD[role]
    if role == "discriminator":
        wanted = dataclasses.replace(wanted, convention=Convention())
    assert found == wanted


def test_a_network_is_built_of_the_operations_asked_for():
    made = EVERY_FIELD["completion"]
    assert made.network() == CompletionNetwork(0.125, "activation_norm", "clamp")
    assert made.network(cpu.ops()).ops == cpu.ops() == compilation.ops("cpu")
    discriminator = EVERY_FIELD["discriminator"].network()
    assert discriminator == ContextDiscriminator(("local",), 0.125, "none", True)


def test_shapes_are_those_of_the_module():
    shapes = EVERY_FIELD["completion"].shapes()
    variables = jax.jit(EVERY_FIELD["completion"].network().init)(
        jax.random.key(0), jnp.zeros((1, 32, 32, 4))
    )
    assert shapes["params/conv1/kernel"] == (5, 5, 4, 8)
    assert len(shapes) == len(jax.tree.leaves(variables))
    fusion = EVERY_FIELD["discriminator"].shapes()["params/fusion/kernel"]
    assert fusion == (128, 1)


@pytest.mark.parametrize("width", [0, -1, 9])
def test_a_width_beyond_reason_is_refused(width):
    with pytest.raises(UsageError, match="width"):
        Architecture(width).shapes()
    with pytest.raises(UsageError, match="size"):
        DiscriminatorArchitecture(image_size=10**6).shapes()


def own(source: Experiment | None = None) -> OwnArchitecture:
    found = architectures.of_network(Own(), "completion", CONFIG, "own.py")
    assert isinstance(found, OwnArchitecture)
    return dataclasses.replace(found, source=source)


def test_a_network_of_somebody_else_comes_back_with_its_runs_numbers():
    text = json.dumps(architectures.to_json(own()))
    found = architectures.from_json(json.loads(text), "completion")
    assert found == own() and found.config == CONFIG


def test_it_is_built_by_the_experiment_that_a_user_names():
    with pytest.raises(UsageError, match=r"Own of own\.py.*--experiment own\.py"):
        own().network()
    seen = []

    def parts(config: Config):
        seen.append(config)
        return dataclasses.replace(default_parts(config), completion=Own())

    named = own(Experiment(CONFIG, "own.py", "", parts))
    assert named.network() == Own() and seen == [CONFIG]
    assert named.shapes() == {
        "params/Conv_0/kernel": (1, 1, 4, 3),
        "params/Conv_0/bias": (3,),
    }


def test_an_experiment_without_a_network_says_so():
    named = own(Experiment(CONFIG, "own.py", "", lambda config: 7))
    with pytest.raises(UsageError, match=r"own\.py.*must be a Flax module"):
        named.network()


def test_the_operations_of_a_platform_compute_the_same():
    inputs = jnp.asarray(np.random.default_rng(0).normal(size=(1, 32, 32, 4)), "f4")
    made = Architecture(0.25)
    variables = jax.jit(made.network().init)(jax.random.key(1), inputs)
    found, expected = (
        jax.jit(made.network(compilation.ops(platform)).apply)(variables, inputs)
        for platform in ("cpu", "tpu")
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)
