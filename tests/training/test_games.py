"""Games in whole steps: written out, on several devices, and in a run."""

import dataclasses
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from gl_jax.checkpoint import restore_subtree
from gl_jax.config import (
    AugmentConfig,
    Config,
    DataConfig,
    HolesConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
)
from gl_jax.experiment import Experiment
from gl_jax.holes import composite, crop
from gl_jax.parallel import AXIS, Devices
from gl_jax.training import (
    Drawn,
    Phase,
    create_state,
    default_parts,
    loop,
    make_gradients,
    make_steps,
    state_shapes,
)
from gl_jax.training.augment import Adaptive, color

MEAN, KEY = (0.5, 0.4, 0.3), jax.random.key(7)


def assert_close(actual: Any, expected: Any, tolerance: float = 1e-4) -> None:
    """Two trees, leaf by leaf, to this share of the largest value."""
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    assert largest > 0
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest),
        actual,
        expected,
    )


def identical(one: Any, other: Any) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))


# --- the joint step, written out ------------------------------------------------------------

SIZE, LOCAL, BATCH = 32, 16, 4
PAPERS = Config(
    model=ModelConfig(width=0.0625),
    data=DataConfig(image_size=SIZE, resize=(SIZE, SIZE), batch_size=BATCH),
    holes=HolesConfig(min_size=8, max_size=12, local_size=LOCAL),
    loss=LossConfig(
        adversarial="relativistic",
        alpha=0.5,
        feature_weight=0.75,
        completion="absolute",
        completion_weight=3.0,
        joint_completion_weight=0.25,
    ),
)


def judged(
    net: Any, params: Any, stats: Any, views: Any
) -> tuple[jax.Array, list[Any]]:
    """Logits, and what each convolution of the columns gives, seen from outside."""
    logits, captured = net.apply(
        {"params": params, "batch_stats": stats},
        views,
        train=True,
        capture_intermediates=lambda module, method: (
            method == "__call__" and "conv" in (module.name or "")
        ),
        mutable=["batch_stats", "intermediates"],
    )
    return logits, jax.tree.leaves(captured["intermediates"])


def test_relativistic_logits_and_features_are_in_the_joint_gradient():
    """With all the weights that a configuration has for them."""
    parts, state = default_parts(PAPERS), create_state(default_parts(PAPERS), SIZE)
    coarse = np.random.RandomState(0).randint(0, 256, (BATCH, 8, 8, 3))
    photographs = coarse.repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)
    holes, windows = (
        parts.sample_holes(
            jax.random.split(jax.random.key(n), BATCH), (SIZE, SIZE), KEY
        )
        for n in range(2)
    )
    ours = jax.jit(make_gradients(parts, MEAN)[Phase.JOINT])(
        state, photographs, KEY, Drawn(holes, windows)
    )
    images, mask = jnp.asarray(photographs, jnp.float32) / 255, holes.mask
    net = (parts.discriminator, state.discriminator.params)

    def loss(params: Any) -> tuple[jax.Array, Any]:
        centred = (1 - mask) * (images - jnp.asarray(MEAN)[None, None, None])
        completed, _ = parts.completion.apply(
            {"params": params, "batch_stats": state.completion.batch_stats},
            jnp.concatenate([centred, mask], -1),
            train=True,
            mutable=["batch_stats"],
        )
        error = jnp.mean(jnp.abs(mask * (completed - images)))
        (fake, of_fake), (real, of_real) = (
            judged(
                *net,
                state.discriminator.batch_stats,
                {"local": crop(seen, holes.corner, LOCAL), "global": seen},
            )
            for seen in (composite(completed, images, mask), images)
        )
        game = -jnp.mean(jnp.log(jax.nn.sigmoid(fake - real.mean())))
        game -= jnp.mean(jnp.log(1 - jax.nn.sigmoid(real - fake.mean())))
        # Three convolutions of the whole images and two of the windows.
        assert len(of_fake) == len(of_real) == 5
        layers = [
            jnp.mean(jnp.abs(f - r)) for f, r in zip(of_fake, of_real, strict=True)
        ]
        matching = sum(layers) / 5
        values = (error, game, matching)
        return 0.25 * 3.0 * error + 0.5 * (game + 0.75 * matching), values

    expected, values = jax.jit(jax.grad(loss, has_aux=True))(state.completion.params)
    assert_close(ours.params, expected)
    names = ("completion_loss", "adversarial_loss", "feature_loss")
    found = [float(ours.metrics[name]) for name in names]
    np.testing.assert_allclose(found, [float(value) for value in values], rtol=1e-4)
    assert float(ours.metrics["alpha"]) == 0.5


# --- weights --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def given(small_parts, small_photographs) -> tuple[Any, ...]:
    """State, photographs and key of the small networks."""
    return create_state(small_parts(), 16), small_photographs, KEY


def with_loss(config: Config, **fields: Any) -> Config:
    return dataclasses.replace(config, loss=LossConfig(**fields))


def moved(before: Any, after: Any) -> Any:
    return jax.tree.map(lambda a, b: np.asarray(a) - b, after.params, before.params)


def test_the_discriminators_weight_may_be_another_in_the_joint_phase(
    small_parts, small_config, given
):
    """The same gradient, as the completion network moves after them."""
    loss = {"discriminator_weight": 0.5, "joint_discriminator_weight": 0.125}
    steps = make_steps(small_parts(with_loss(small_config, **loss)), MEAN)
    alone, joint = (
        moved(given[0].discriminator, jax.jit(steps[phase])(*given)[0].discriminator)
        for phase in (Phase.DISCRIMINATOR, Phase.JOINT)
    )
    assert_close(joint, jax.tree.map(lambda leaf: leaf / 4, alone))


def test_the_completion_terms_weight_counts_before_the_joint_phase_too(
    small_parts, small_config, given
):
    weighted = {"completion_weight": 3.0, "joint_completion_weight": 0.25}
    plain, heavy = (
        jax.jit(make_gradients(small_parts(config), MEAN)[Phase.COMPLETION])(*given)
        for config in (small_config, with_loss(small_config, **weighted))
    )
    assert_close(heavy.params, jax.tree.map(lambda leaf: 3 * leaf, plain.params))
    assert heavy.metrics["completion_loss"] == plain.metrics["completion_loss"]


def test_fakes_may_be_the_raw_output(small_parts, small_config, given):
    """Then the discriminators' gradient comes to the known pixels too."""
    raw = small_parts(with_loss(small_config, fakes="raw"))
    completed, images = (jnp.full((1, 2, 2, 3), value) for value in (0.1, 0.9))
    mask = jnp.zeros((1, 2, 2, 1)).at[:, 0].set(1.0)
    np.testing.assert_array_equal(raw.fakes(completed, images, mask), completed)
    expected = composite(completed, images, mask)
    np.testing.assert_array_equal(
        small_parts().fakes(completed, images, mask), expected
    )


# --- on several devices ---------------------------------------------------------------------

# Batch normalisation, power iteration, features: all that devices may have to share.
CRITIC = {"batch_norm": True, "spectral_norm": True}


def of_all(parts: Any, axis: str | None) -> Callable[..., Any]:
    """The gradients of both networks and the discriminators' statistics."""
    made = make_gradients(parts, MEAN, axis_name=axis)

    def gradients(*given: Any) -> Any:
        phases = (Phase.DISCRIMINATOR, Phase.JOINT)
        return [made[phase](*given)._asdict() for phase in phases]

    return gradients


def over_devices(function: Any, given: tuple[Any, ...], count: int) -> Any:
    devices = Devices(count)
    mapped = jax.pmap(
        function,
        AXIS,
        in_axes=(None, 0, None),
        out_axes=None,
        devices=devices.local,
    )
    state, images, key = given
    return jax.device_get(mapped(state, devices.shard(images), key))


@pytest.fixture(scope="module")
def relativistic(small_parts, small_config) -> Any:
    loss = {"adversarial": "relativistic", "feature_weight": 0.5, "alpha": 0.5}
    return small_parts(with_loss(small_config, **loss), CRITIC)


@pytest.fixture(scope="module")
def relativistic_given(relativistic, small_photographs) -> tuple[Any, ...]:
    return create_state(relativistic, 16), small_photographs, KEY


@pytest.fixture(scope="module")
def on_one_device(relativistic, relativistic_given) -> Any:
    return jax.device_get(jax.jit(of_all(relativistic, None))(*relativistic_given))


def test_relativistic_logits_count_from_the_mean_of_all_devices(
    relativistic, relativistic_given, on_one_device
):
    for count in (2, 4):
        found = over_devices(of_all(relativistic, AXIS), relativistic_given, count)
        assert_close(found, on_one_device)


def test_what_devices_share_is_the_same_on_all_for_shard_map(
    relativistic, relativistic_given, on_one_device
):
    """Which checks it: losses, statistics and the vectors of spectral normalisation."""
    over = jax.shard_map(
        of_all(relativistic, AXIS),
        mesh=Mesh(np.array(jax.devices()[:4]), (AXIS,)),
        in_specs=(P(), P(AXIS), P()),
        out_specs=P(),
        check_vma=True,
    )
    assert_close(jax.device_get(jax.jit(over)(*relativistic_given)), on_one_device)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_our_discriminators_with_spectral_norm_are_traced_under_shard_map(accumulate):
    model = ModelConfig(width=0.0625, discriminator_norm="none", spectral_norm=True)
    parts = default_parts(dataclasses.replace(PAPERS, model=model))
    step = make_steps(parts, MEAN, accumulate=accumulate, axis_name=AXIS)
    over = jax.shard_map(
        step[Phase.DISCRIMINATOR],
        mesh=Mesh(np.array(jax.devices()[:2]), (AXIS,)),
        in_specs=(P(), P(AXIS), P()),
        out_specs=(P(), P()),
        check_vma=True,
    )
    images = jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), np.uint8)
    before = state_shapes(parts, SIZE)
    after, _ = jax.eval_shape(over, before, images, KEY)
    assert jax.tree.structure(after) == jax.tree.structure(before)


# --- the adaptive probability ---------------------------------------------------------------

ADAPTIVE = Adaptive(target=0.5, images=40, every=2)


@pytest.fixture(scope="module")
def led_parts(small_parts, small_config) -> Any:
    """Discriminators that are right and wrong in turn, as they learn too fast."""
    config = dataclasses.replace(
        small_config, discriminator_optimizer=OptimizerConfig("adam", 0.03)
    )
    return small_parts(config, augment=color, adaptive=ADAPTIVE)


def led(parts: Any, count: int, images: np.ndarray, accumulate: int = 1) -> Any:
    """The states and metrics of eight updates of the discriminators."""
    steps = make_steps(parts, MEAN, accumulate=accumulate, axis_name=AXIS)
    devices = Devices(count)
    program = devices.pmap(steps[Phase.DISCRIMINATOR])
    state, key = devices.replicate(create_state(parts, 16)), devices.replicate(KEY)
    states, metrics = [], []
    for _ in range(8):
        state, logged = program(state, devices.shard(images), key)
        states.append(jax.device_get(state.adaptive))
        metrics.append(jax.device_get(logged))
    return states, metrics


@pytest.fixture(scope="module")
def led_on_one_device(led_parts, small_photographs) -> Any:
    return led(led_parts, 1, small_photographs)


def test_the_probability_in_a_step_follows_the_share_that_is_right(led_on_one_device):
    states, metrics = led_on_one_device
    probability, signs, expected = 0.0, [], []
    for each in metrics:
        assert float(each["augment_probability"]) == pytest.approx(probability)
        signs.append(2 * float(each["real_accuracy"]) - 1)
        if len(signs) % 2 == 0:
            r = (signs[-2] + signs[-1]) / 2
            probability += np.sign(r - 0.5) * 8 * 2 / 40
            probability = min(max(probability, 0.0), 1.0)
        expected.append(probability)
    found = [float(state.probability) for state in states]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert set(np.sign(np.diff(found))) == {-1, 0, 1}


@pytest.mark.parametrize(("count", "accumulate"), [(2, 1), (4, 1), (1, 2), (2, 2)])
def test_the_probability_is_the_same_on_any_number_of_devices(
    count, accumulate, led_parts, small_photographs, led_on_one_device
):
    """Bit for bit, though the sums that lead to it are of another order."""
    states, _ = led(led_parts, count, small_photographs, accumulate)
    assert identical(states, led_on_one_device[0])


class Lightness(nn.Module):
    """Takes light images for photographs."""

    @nn.compact
    def __call__(self, views: Any, train: bool = False) -> jax.Array:
        threshold = self.param("threshold", nn.initializers.constant(0.5), ())
        return views["global"].mean((1, 2, 3)) - threshold


def test_a_mean_sign_at_the_target_moves_nothing_on_any_number_of_devices(small_parts):
    """Of ten photographs three and four are light: the mean of 0.6 and 0.8 is not 0.7f."""
    images = np.zeros((10, 16, 16, 3), np.uint8)
    images[[0, 1, 2, 5, 6, 7, 8]] = 255
    adaptive = Adaptive(target=0.4, images=100, every=1)
    parts = small_parts(
        discriminator=Lightness(),
        augment=lambda keys, views, step, probability: views,
        adaptive=adaptive,
    )
    steps = make_steps(parts, MEAN, axis_name=AXIS)
    for count in (1, 2):
        devices = Devices(count)
        state = create_state(parts, 16)
        led = state.adaptive.replace(probability=jnp.full((), 0.5))
        state = devices.replicate(state.replace(adaptive=led))
        program = devices.pmap(steps[Phase.DISCRIMINATOR])
        state, metrics = program(state, devices.shard(images), devices.replicate(KEY))
        assert float(metrics["real_accuracy"]) == pytest.approx(0.7)
        assert float(state.adaptive.probability) == 0.5


# --- a run ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def experiment(small_parts, small_config) -> Experiment:
    """Every other update of the joint phase is of the discriminators alone."""
    config = dataclasses.replace(
        small_config,
        data=dataclasses.replace(small_config.data, workers=1),
        loss=LossConfig(r1=1.0, penalty_every=3, adversarial="hinge"),
        augment=AugmentConfig(
            color=True, cutout=0.5, adaptive_target=0.0, adaptive_images=64
        ),
        schedule=ScheduleConfig(1, 2, 9, discriminator_updates=2),
        run=RunConfig(
            device_count=1, log_every=1, save_every=1, eval_every=9, sample_every=9,
            keep_newest=9, validation_images=2, sample_images=1,
        ),
    )  # fmt: skip
    return Experiment(
        config, "games.py", "", lambda config: small_parts(config, CRITIC)
    )


@pytest.fixture(scope="module")
def unbroken(experiment, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("unbroken")
    loop.run(experiment.config, workdir, experiment=experiment, log=lambda text: None)
    return workdir


def saved(workdir: Path, step: int) -> dict[str, Any]:
    names = ("step", "completion", "discriminator", "adaptive")
    return restore_subtree(workdir / "checkpoints", names, step=step).state


def logged(workdir: Path) -> list[dict[str, Any]]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [
        {key: value for key, value in record.items() if key != "images_per_second"}
        for record in records
        if "val_psnr" not in record
    ]


@pytest.mark.slow
def test_a_resumed_run_leads_the_probability_as_an_unbroken_one(
    experiment, unbroken, tmp_path
):
    """Its state is a part of the checkpoint: the run breaks off between two changes."""
    workdir = tmp_path / "resumed"
    shutil.copytree(unbroken, workdir)
    for later in range(7, 10):
        shutil.rmtree(workdir / "checkpoints" / str(later))
    loop.run(experiment.config, workdir, experiment=experiment, log=lambda text: None)
    assert identical(saved(workdir, 9), saved(unbroken, 9))
    assert logged(workdir) == logged(unbroken)
    updates = [int(saved(unbroken, n)["adaptive"]["updates"]) for n in range(1, 10)]
    assert updates == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    changes = [float(saved(unbroken, n)["adaptive"]["probability"]) for n in (4, 5, 9)]
    assert changes[:2] == [0, 0.5] and changes[2] in (0, 1)


@pytest.mark.slow
def test_between_its_updates_the_completion_network_is_bitwise_unchanged(unbroken):
    states = [saved(unbroken, step) for step in range(1, 10)]
    pairs = list(itertools.pairwise(states))
    stays = [identical(a["completion"], b["completion"]) for a, b in pairs]
    # Steps 2 and 3 are the discriminators' phase, of the joint one every other is theirs.
    assert stays == [True, True, True, False, True, False, True, False]
    assert not any(identical(a["discriminator"], b["discriminator"]) for a, b in pairs)
    lines = logged(unbroken)
    assert ["adversarial_loss" in line for line in lines[1:]] == [
        not stay for stay in stays
    ]
    assert [line["phase"] for line in lines[3:]] == ["joint"] * 6


@pytest.mark.slow
def test_a_penalty_every_three_steps_is_logged_in_those(unbroken):
    penalties = [line.get("penalty") for line in logged(unbroken)]
    assert penalties[0] is None
    assert [bool(penalty) for penalty in penalties[1:]] == [
        False, True, False, False, True, False, False, True
    ]  # fmt: skip


def test_learning_rates_count_each_networks_own_updates():
    """From 1 to 0: over 1 + 3 updates of the completion network, and 2 + 7 of the others."""
    falling = OptimizerConfig("sgd", 1.0, decay="linear")
    config = Config(
        completion_optimizer=falling,
        discriminator_optimizer=falling,
        schedule=ScheduleConfig(1, 2, 10, discriminator_updates=2),
    )
    for optimizer, updates in zip(
        default_parts(config).optimizers, (4, 9), strict=True
    ):
        value, sizes = jnp.zeros(()), []
        state = optimizer.init(value)
        for _ in range(updates + 1):
            update, state = optimizer.update(jnp.ones(()), state, value)
            sizes.append(-float(update))
        expected = 1 - np.arange(updates + 1) / updates
        np.testing.assert_allclose(sizes, expected, atol=1e-6)


def test_discriminators_without_batch_normalisation_keep_no_statistics():
    model = ModelConfig(width=0.0625, discriminator_norm="none")
    state = state_shapes(default_parts(dataclasses.replace(PAPERS, model=model)), SIZE)
    assert state.discriminator.batch_stats == {}
    paths, _ = zip(*jax.tree.leaves_with_path(state.discriminator.params), strict=True)
    assert not any("norm" in jax.tree_util.keystr(path) for path in paths)
    assert state.completion.batch_stats
