"""Everything measured at a validation, with networks whose answers are known."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gl_jax.config import (
    Config,
    DataConfig,
    HolesConfig,
    Phase,
    RunConfig,
    UsageError,
)
from gl_jax.training import Parts, TrainState, create_state, default_parts
from gl_jax.training.state import state_shapes
from gl_jax.training.validation import Validation

SIZE = 32
CONFIG = Config(
    data=DataConfig(image_size=SIZE, resize=(SIZE, SIZE), batch_size=4),
    holes=HolesConfig(min_size=8, max_size=12, local_size=16),
)
# Three white photographs and three black ones.
PHOTOGRAPHS = np.repeat(np.uint8([255, 255, 255, 0, 0, 0]), SIZE**2 * 3)
PHOTOGRAPHS = PHOTOGRAPHS.reshape(6, SIZE, SIZE, 3)


class Grey(nn.Module):
    """Fills every hole with one grey, black at the start."""

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        grey = self.param("grey", nn.initializers.zeros_init(), ())
        return jnp.full((*inputs.shape[:3], 3), grey)


class Brightness(nn.Module):
    """Takes an image for a photograph if it has no hole, a white one, in it."""

    @nn.compact
    def __call__(self, views: Any, train: bool = False) -> jax.Array:
        assert train or self.is_initializing(), "by batch statistics, as in training"
        least = self.param("least", nn.initializers.constant(0.99), ())
        return views["global"].mean((1, 2, 3)) - least


class AboveOthers(nn.Module):
    """Takes an image for a photograph if it is brighter than its batch."""

    @nn.compact
    def __call__(self, views: Any, train: bool = False) -> jax.Array:
        least = self.param("least", nn.initializers.constant(0.01), ())
        bright = views["global"].mean((1, 2, 3))
        return bright - bright.mean() - least


class InPairs(nn.Module):
    """Sees images two by two, as a minibatch's standard deviation does."""

    @nn.compact
    def __call__(self, views: Any, train: bool = False) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones_init(), ())
        means = views["global"].mean((1, 2, 3))
        if self.is_initializing():  # of one image
            return scale * means
        return scale * means.reshape(-1, 2).reshape(-1)


@pytest.mark.parametrize("count", [4, 3])
def test_discriminators_that_fail_on_its_photographs_are_refused_untrained(count):
    parts = parts_with(InPairs())
    photographs = PHOTOGRAPHS[:count]
    validation = Validation(
        parts, CONFIG, (0.5, 0.5, 0.5), photographs, jax.devices()[0]
    )
    state = state_shapes(parts, SIZE)
    if count % 2 == 0:
        validation.require_shown(state)
        return
    with pytest.raises(UsageError, match="fail on 3 validation photographs: "):
        validation.require_shown(state)


def refused(*arguments: Any) -> Any:
    raise AssertionError("validation photographs are not augmented")


def parts_with(discriminator: nn.Module | None) -> Parts:
    return dataclasses.replace(
        default_parts(CONFIG),
        completion=Grey(),
        discriminator=discriminator,
        augment=refused,
    )


def measured(
    discriminator: nn.Module | None, phase: Phase = Phase.JOINT, grey: float = 0.0
) -> dict[str, float]:
    """The metrics after the completion network, not its average, has learned `grey`."""
    parts = parts_with(discriminator)
    validation = Validation(
        parts, CONFIG, (0.5, 0.5, 0.5), PHOTOGRAPHS, jax.devices()[0]
    )
    state: TrainState = create_state(parts, SIZE, ema=True)
    net = state.completion.replace(params={"grey": jnp.asarray(grey)})
    return validation.metrics(state.replace(completion=net), phase)


def test_the_share_that_the_discriminator_is_right_about_is_told():
    """White photographs are recognised, black ones not; no completion is taken for one."""
    values = measured(Brightness())
    assert values["val_real_accuracy"] == pytest.approx(0.5)
    assert values["val_fake_accuracy"] == pytest.approx(1)


def test_it_sees_the_completions_of_the_network_in_training():
    """Which paints white now, so that white photographs look as if they had no hole."""
    values = measured(Brightness(), grey=1.0)
    assert values["val_fake_accuracy"] == pytest.approx(0.5)
    # The average still paints black: an error of 1 in three of six photographs.
    assert values["val_l1"] == pytest.approx(0.5)


def test_discriminators_that_have_not_learned_are_not_asked():
    assert "val_l1" in (values := measured(Brightness(), Phase.COMPLETION))
    assert not [name for name in values if "accuracy" in name]


def test_a_run_without_discriminators_has_the_rest():
    assert set(measured(None, Phase.COMPLETION)) == {"val_l1", "val_psnr"}


def test_metrics_are_the_same_on_any_number_of_devices(monkeypatch):
    """Also if a logit depends on the others of its batch."""
    ends = []
    for count in (1, 2, 4):
        monkeypatch.setattr(jax, "device_count", lambda count=count: count)
        ends.append(measured(AboveOthers()))
    assert ends[1] == pytest.approx(ends[0]) and ends[2] == pytest.approx(ends[0])
    # Two batches of three, each of one brightness: none is above its batch.
    assert ends[0]["val_real_accuracy"] == 0


def test_accumulation_makes_the_batches_that_training_has():
    accumulated = dataclasses.replace(
        CONFIG,
        data=dataclasses.replace(CONFIG.data, batch_size=12),
        run=RunConfig(accumulate=2),
    )
    parts = parts_with(AboveOthers())
    validation = Validation(
        parts, accumulated, (0.5, 0.5, 0.5), PHOTOGRAPHS, jax.devices()[0]
    )
    values = validation.metrics(create_state(parts, SIZE), Phase.JOINT)
    # One batch of six: the white photographs are above its mean.
    assert values["val_real_accuracy"] == pytest.approx(0.5)
