"""Runs that begin with given weights."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from gl_jax.config import (
    GREY,
    Config,
    DataConfig,
    HolesConfig,
    ModelConfig,
    RunConfig,
    UsageError,
)
from gl_jax.training import initial
from gl_jax.training.parts import default_parts
from gl_jax.training.state import TrainState, create_state
from gl_jax.weights import architectures, native
from gl_jax.weights.architectures import Architecture, DiscriminatorArchitecture
from gl_jax.weights.convention import Convention

MEAN = (0.25, 0.5, 0.75)
CONFIG = Config(
    model=ModelConfig(width=0.0625),
    data=DataConfig(batch_size=2, image_size=32, resize=(32, 48)),
    holes=HolesConfig(min_size=8, max_size=12, local_size=16),
    run=RunConfig(ema_decay=0.9),
)


def created(config: Config, seed: int = 0) -> TrainState:
    ema = config.run.ema_decay is not None
    size = config.data.image_size
    return create_state(default_parts(config), size, seed=seed, ema=ema)


def load(config: Config) -> native.Model | None:
    return initial.load(config, *architectures.of_config(config))


def variables(net) -> dict:
    tree = {"params": net.params, "batch_stats": net.batch_stats}
    return jax.tree.map(np.asarray, tree)


@pytest.fixture(scope="module")
def trained() -> TrainState:
    """Another state than that of the run, in the place of a trained one."""
    return created(CONFIG, seed=5)


@pytest.fixture(scope="module")
def model(trained) -> native.Model:
    made = DiscriminatorArchitecture(32, 16, "both", 0.0625)
    return native.Model(
        variables(trained.completion),
        Architecture(0.0625),
        Convention.gl_jax(MEAN),
        native.Discriminator(variables(trained.discriminator), made),
    )


@pytest.fixture
def file(tmp_path, model) -> Path:
    native.save(model, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def beginning(file: Path | str, **changes: object) -> Config:
    run = dataclasses.replace(CONFIG.run, initial_weights=str(file))
    return dataclasses.replace(CONFIG, run=run, **changes)


def equal(a: object, b: object) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


def test_both_networks_and_the_average_begin_with_the_file(file, trained):
    new = created(CONFIG)
    loaded = load(beginning(file))
    assert loaded is not None and loaded.mean_color == MEAN
    state = initial.begin_with(new, loaded)
    assert equal(variables(state.completion), variables(trained.completion))
    assert equal(state.ema, variables(trained.completion))
    assert equal(variables(state.discriminator), variables(trained.discriminator))
    assert not equal(variables(new.completion), variables(trained.completion))


def test_optimizers_and_steps_begin_anew(model):
    new = created(CONFIG)
    state = initial.begin_with(new, model)
    assert equal(state.completion.opt_state, new.completion.opt_state)
    assert int(state.step) == 0
    assert jax.tree.structure(state) == jax.tree.structure(new)


def test_no_two_leaves_share_memory(model):
    """The state is donated to the first step: a shared buffer would be donated twice."""
    leaves = jax.tree.leaves(initial.begin_with(created(CONFIG), model))
    pointers = [leaf.unsafe_buffer_pointer() for leaf in leaves]
    assert len(set(pointers)) == len(pointers)


def test_a_file_without_discriminators_leaves_new_ones(model):
    new = created(CONFIG)
    alone = dataclasses.replace(model, discriminator=None)
    state = initial.begin_with(new, alone)
    assert equal(variables(state.discriminator), variables(new.discriminator))
    assert not equal(variables(state.completion), variables(new.completion))


def test_a_run_without_discriminators_takes_the_completion_network_alone(file):
    changes = ModelConfig(width=0.0625, discriminators="none")
    config = beginning(file, model=changes)
    loaded = load(config)
    assert loaded is not None
    assert initial.begin_with(created(config), loaded).discriminator is None


def test_the_shipped_model_goes_by_its_name():
    file = native.shipped()["demo"]
    made = native.load(file).architecture
    config = dataclasses.replace(
        beginning("demo"),
        model=ModelConfig(made.width, output_activation=made.output_activation),
    )
    loaded = load(config)
    assert loaded is not None and loaded.sha256 == native.load(file).sha256


def test_without_a_name_the_run_begins_at_random():
    assert load(CONFIG) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": ModelConfig(width=0.125)}, "width 0.0625, but the run has 0.125"),
        (
            {"model": ModelConfig(width=0.0625, output_activation="clamp")},
            "output_activation sigmoid, but the run has clamp",
        ),
        (
            {"holes": HolesConfig(min_size=4, max_size=6, local_size=8)},
            "discriminators with local_size 16, but the run has 8",
        ),
        (
            {"data": dataclasses.replace(CONFIG.data, mean_color=(0.5, 0.5, 0.5))},
            r"data\.mean_color .* Leave it out",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(changes, message, file):
    with pytest.raises(UsageError, match=message):
        load(beginning(file, **changes))


@pytest.mark.parametrize(
    ("convention", "way_out"),
    [
        (Convention(fill=MEAN), r"Give --data\.encoding plain\."),
        (
            Convention("BGR", 2.0, GREY, GREY),
            r"Give --data\.encoding mmediting\.",
        ),
        (Convention("BGR", 2.0, MEAN, MEAN), r"\(='centred'\)\.$"),
    ],
)
def test_another_encoding_of_photographs_is_refused(
    convention, way_out, model, tmp_path
):
    file = tmp_path / "other.safetensors"
    native.save(dataclasses.replace(model, convention=convention), file)
    with pytest.raises(UsageError, match=f"another encoding .*{way_out}"):
        load(beginning(file))


@pytest.mark.parametrize("content", [None, b"", b"no weights"])
def test_a_file_that_holds_no_weights_is_refused_by_its_name(content, tmp_path):
    file = tmp_path / "weights.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(
        UsageError, match=r"run\.initial_weights: .*weights\.safetensors"
    ):
        load(beginning(file))
