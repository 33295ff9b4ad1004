"""The comparators' experiments at a small size: their losses, and that they train."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gl_jax.config import Phase
from gl_jax.experiment import load_experiment
from gl_jax.training import create_state, make_steps
from gl_jax.training.own_parts import parts_of
from gl_jax.training.setup import examples_of, set_up
from gl_jax.training.validation import Validation

FOLDER = Path(__file__).parents[2] / "experiments"
GREY = (0.5, 0.5, 0.5)


def small(reference: str, side: int):
    """The experiment's configuration and parts at a hundredth of the size."""
    experiment = load_experiment(str(FOLDER / reference))
    config = experiment.config
    config = replace(
        config,
        model=replace(config.model, width=0.02),
        data=replace(config.data, image_size=side, resize=(side, side), batch_size=4),
        holes=replace(config.holes, min_size=12, max_size=12, local_size=16),
    )
    return config, parts_of(config, experiment)


def test_the_context_encoders_loss_weights_the_known_rim_of_the_middle_tenfold():
    _, parts = small("context_encoder.py:center", 32)
    term = parts.objective.completion["completion_loss"]
    images = jnp.zeros((1, 32, 32, 3))
    # Of the middle 16x16 pixels 12x12 are missing, and 16^2 - 12^2 = 112 are not.
    mask = parts.sample_holes(jax.random.split(jax.random.key(0), 1), (32, 32), None)[0]
    # An error of 0.1 in [0, 1] is 0.2 in [-1, 1].
    expected = 0.04 * (144 + 10 * 112) / 256
    completed = images + 0.1
    np.testing.assert_allclose(term.loss(completed, images, mask), expected, rtol=1e-5)
    assert (term.weight, parts.objective.alpha) == (0.999, 0.001)
    # Elsewhere nothing is predicted.
    outside = completed.at[:, 8:24, 8:24].set(0)
    assert term.loss(outside, images, mask) == 0
    view = parts.views["predicted"](completed, None)
    assert view.shape == (1, 16, 16, 3)


def test_the_whole_photographs_loss_is_the_plain_squared_error():
    _, parts = small("context_encoder.py", 32)
    term = parts.objective.completion["completion_loss"]
    images, mask = jnp.zeros((1, 32, 32, 3)), jnp.zeros((1, 32, 32, 1))
    np.testing.assert_allclose(term.loss(images + 0.1, images, mask), 0.04, rtol=1e-4)


@pytest.fixture(scope="module")
def dcgan():
    config, parts = small("dcgan.py", 16)
    return config, parts, create_state(parts, config.data.image_size)


def test_a_generator_trains_by_the_same_steps(dcgan):
    _, parts, state = dcgan
    step = jax.jit(make_steps(parts, GREY)[Phase.JOINT])
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    after, metrics = step(state, images, jax.random.key(0))
    for net in ("completion", "discriminator"):
        before, now = getattr(state, net).params, getattr(after, net).params
        moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before, now)
        assert all(
            moves for path, moves in jax.tree.leaves_with_path(moved)
            if "norm" in str(path) or "kernel" in str(path)
        )  # fmt: skip
    assert "completion_loss" not in metrics
    assert metrics["adversarial_loss"] > 0 and metrics["adversarial_gradient_norm"] > 0


def test_a_code_follows_from_the_examples_key_alone(dcgan):
    _, parts, state = dcgan
    images = np.zeros((4, 16, 16, 3), np.uint8)
    setup = set_up(parts, GREY)
    examples = examples_of(setup, state, images, jax.random.key(0), None)
    codes = parts.inputs(examples.codes, examples.images, examples.holes.mask, GREY)
    assert codes.shape == (4, 100)
    assert codes.min() < -0.9 and codes.max() > 0.9 and abs(codes.mean()) < 0.2
    alone = parts.inputs(examples.codes[2:3], examples.images, None, GREY)
    np.testing.assert_array_equal(alone[0], codes[2])


def test_samples_are_the_generators_images(dcgan):
    config, parts, state = dcgan
    photographs = np.zeros((3, 16, 16, 3), np.uint8)
    validation = Validation(parts, config, GREY, photographs, jax.devices()[0])
    variables = {
        "params": state.completion.params,
        "batch_stats": state.completion.batch_stats,
    }
    samples = validation.samples(variables, 3)
    assert (samples.mask == 1).all()
    np.testing.assert_array_equal(samples.completed, samples.composite)
    assert (samples.completed[0] != samples.completed[1]).any()
