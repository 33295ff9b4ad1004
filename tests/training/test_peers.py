"""The recipes of other projects: their gradients, and going on from their weights."""

import dataclasses
import runpy
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gl_jax.config import Config, UsageError
from gl_jax.experiment import load_experiment
from gl_jax.holes import Holes
from gl_jax.models.ops import NATIVE
from gl_jax.options import override
from gl_jax.training import (
    Drawn,
    NetState,
    Parts,
    Phase,
    TrainState,
    initial,
    make_gradients,
)
from gl_jax.training.own_parts import parts_of
from gl_jax.training.state import inference_variables
from gl_jax.training.validation import Validation
from gl_jax.weights import architectures, conversion, export, native

ROOT = Path(__file__).parents[2]
FOREIGN = SimpleNamespace(
    **runpy.run_path(str(ROOT / "tests" / "weights" / "foreign.py"))
)
KEEP = 7  # as in golden/make_peers.py

SMALL = {
    "model.width": ["0.0625"],
    "data.image_size": ["32"],
    "data.resize": ["32", "32"],
    "data.batch_size": ["4"],
    "holes.local_size": ["16"],
    "holes.min_size": ["8"],
    "holes.max_size": ["12"],
}


class Peer(NamedTuple):
    """A recipe in small, and the weights of its networks under their names at home."""

    config: Config
    parts: Parts
    completion: dict[str, np.ndarray]
    discriminator: dict[str, np.ndarray]


@cache
def peer(name: str) -> Peer:
    experiment = load_experiment(str(ROOT / "experiments" / f"{name}.py"))
    changes = dict(SMALL)
    if name == "glcic_pytorch":
        changes["data.mean_color"] = [*map(str, FOREIGN.MEAN)]
        completion = FOREIGN.glcic_completion()
        discriminator = FOREIGN.glcic_discriminator("small")
    else:
        both = FOREIGN.mmediting("small")
        completion, discriminator = (
            {key: array for key, array in both.items() if key.startswith(start)}
            for start in ("generator.", "disc.")
        )
    config = override(experiment.config, changes)
    return Peer(config, parts_of(config, experiment), completion, discriminator)


def read(arrays: dict[str, np.ndarray]) -> tuple[Any, Any]:
    """The variables of both networks, of arrays under their names at home."""
    found = conversion.read_parts(arrays, "the golden weights")
    return found.variables, found.discriminator.variables


def state_of(recipe: Peer) -> TrainState:
    nets = [
        NetState(net["params"], net["batch_stats"], ())
        for net in read(recipe.completion | recipe.discriminator)
    ]
    return TrainState(jnp.zeros((), jnp.int32), *nets, None)


@cache
def golden() -> dict[str, np.ndarray]:
    with np.load(ROOT / "tests" / "golden" / "peers.npz") as file:
        return dict(file)


def drawn(name: str) -> Drawn:
    mask, fake, real = (
        jnp.asarray(golden()[f"{name}.{key}"]) for key in ("mask", "fake", "real")
    )
    mask = mask.astype(jnp.float32)
    return Drawn(Holes(mask, fake), Holes(jnp.zeros_like(mask), real))


@cache
def found(name: str, phase: Phase) -> Any:
    """The gradient that the recipe takes of the golden photographs."""
    recipe = peer(name)
    mean_color = recipe.config.data.hole_color
    take = jax.jit(make_gradients(recipe.parts, mean_color)[phase])
    photographs, key = golden()["photographs"], jax.random.key(0)
    return take(state_of(recipe), photographs, key, drawn(name)).params


def stored(name: str, phase: Phase) -> tuple[Any, Any]:
    """The golden gradient in our layout, and which of its values are known."""
    recipe = peer(name)
    role = "discriminator" if phase is Phase.DISCRIMINATOR else "completion"
    own, kept = getattr(recipe, role), golden()[f"{name}.{phase}"]
    values, known, start = {}, {}, 0
    for key in sorted(key for key in own if key.endswith((".weight", ".bias"))):
        values[key], known[key] = np.zeros((2, *own[key].shape), np.float32)
        count = len(known[key].flat[::KEEP])
        values[key].flat[::KEEP] = kept[start : start + count]
        known[key].flat[::KEEP] = 1
        start += count
    assert start == len(kept)
    both = recipe.completion | recipe.discriminator
    trees = [read(both | changed) for changed in (values, known)]
    return tuple(tree[role == "discriminator"]["params"] for tree in trees)


def apart(ours: Any, theirs: Any, known: Any) -> float:
    """The largest difference, as a share of the largest value of the peer's array."""
    if not known.any():  # a bias that the peer does not have
        return float(abs(ours).max())
    return float((abs(ours - theirs) * known).max() / abs(theirs).max())


def furthest(ours: Any, theirs: Any, known: Any) -> tuple[float, str]:
    """The array that is furthest apart, and how far."""
    errors = jax.tree.map(apart, ours, theirs, known)
    leaves = jax.tree_util.tree_leaves_with_path(errors)
    return max((value, jax.tree_util.keystr(path)) for path, value in leaves)


# What float32 and batch normalisation leave of each recipe's agreement with float64.
AGREEMENT = {"glcic_pytorch": 2e-4, "mmediting": 3e-5}


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("name", AGREEMENT)
def test_a_recipes_gradient_is_that_of_the_peer(name, phase):
    worst = furthest(found(name, phase), *stored(name, phase))
    assert worst[0] < AGREEMENT[name], worst


@pytest.mark.parametrize("name", AGREEMENT)
def test_its_adversarial_part_alone_is_that_of_the_peer(name):
    """A thousandth of mmediting's joint gradient, where an error of it would not show."""
    weight = peer(name).parts.objective.joint_completion_weight
    both = [stored(name, phase) for phase in (Phase.JOINT, Phase.COMPLETION)]
    (joint, known), (completion, _) = both

    def adversarial(joint: Any, completion: Any) -> Any:
        return jax.tree.map(lambda j, c: j - weight * c, joint, completion)

    ours = adversarial(*(found(name, p) for p in (Phase.JOINT, Phase.COMPLETION)))
    worst = furthest(ours, adversarial(joint, completion), known)
    assert worst[0] < 4e-4, worst


# --- mmediting's boxes --------------------------------------------------------------------


def test_boxes_lie_as_mmeditings_do():
    """In a 32 x 32 image a box of 12 has its top left in [2, 18), and then gives up 0 to 4."""
    keys = jax.random.split(jax.random.key(0), 2000)
    masks, corners = jax.device_get(
        peer("mmediting").parts.sample_holes(keys, (32, 32), keys[0])
    )
    ends = {"rows": [], "columns": []}
    for mask, corner in zip(masks, corners, strict=True):
        sides = mask.any(axis=(1, 2)), mask.any(axis=(0, 2))
        assert mask.sum() == sides[0].sum() * sides[1].sum()
        for axis, side, at in zip(ends, sides, corner, strict=True):
            first, *_, last = np.flatnonzero(side)
            ends[axis].append((last + 1, last + 1 - first))
            assert at == max(0, first - (16 - (last + 1 - first)) // 2)
    for pairs in ends.values():
        # 80 places and sizes of 2,000 draws: 25 of each, and none is missed.
        assert set(pairs) == {(e, s) for e in range(14, 30) for s in range(8, 13)}


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"holes.local_size": ["32"], "holes.max_size": ["28"]}, "must be below 28"),
        ({"holes.max_count": ["2"]}, "one box"),
        ({"holes.shared_window": []}, "one box"),
    ],
)
def test_boxes_that_cannot_be_are_refused(changes, rule):
    experiment = load_experiment(str(ROOT / "experiments" / "mmediting.py"))
    with pytest.raises(UsageError, match=rule):
        experiment.parts(override(experiment.config, SMALL | changes))


# --- going on from their weights ----------------------------------------------------------


@pytest.mark.parametrize("name", AGREEMENT)
def test_fine_tuning_begins_with_the_completions_of_the_converted_model(name, tmp_path):
    recipe, file = peer(name), tmp_path / "converted.safetensors"
    found = conversion.read_parts(recipe.completion | recipe.discriminator, "weights")
    encoding = recipe.parts.encoding
    native.save(
        native.Model(
            found.variables,
            found.architecture,
            encoding.completion(FOREIGN.MEAN),
            found.discriminator,
            source=name,
        ),
        file,
    )
    config = override(recipe.config, {"run.initial_weights": [str(file)]})
    parts = recipe.parts
    own = parts.completion, parts.discriminator, config, None, encoding
    model = initial.load(config, *architectures.of_networks(*own))
    nothing = jax.tree.map(jnp.zeros_like, state_of(recipe))
    state = initial.begin_with(nothing, model)
    # Of the same operations: only the last bit is left to the two programs.
    parts = dataclasses.replace(parts, completion=parts.completion.clone(ops=NATIVE))
    validation = Validation(
        parts, config, model.mean_color, golden()["photographs"], jax.devices()[0]
    )
    begun = validation.samples(inference_variables(state), count=2)
    images = jnp.asarray(begun.photographs, jnp.float32) / 255
    expected = jax.jit(export.program(model))(images, jnp.asarray(begun.mask))
    np.testing.assert_allclose(begun.completed, expected, rtol=0, atol=5e-7)
    assert begun.completed.std() > 0.05
    assert jax.tree.all(
        jax.tree.map(
            np.array_equal,
            state.discriminator.params,
            model.discriminator.variables["params"],
        )
    )
