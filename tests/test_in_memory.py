"""Training on photographs in memory: what is drawn, what is planned, what is saved."""

import functools
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import gl_jax
from gl_jax.config import Phase, UsageError
from gl_jax.holes import example_keys

ROOT = Path(__file__).parents[1]
# Experiments are no part of the package, and are run from the repository.
sys.path.insert(0, str(ROOT))
budget, command, crops, photographs, recipe, training, weights = (
    importlib.import_module(f"experiments.in_memory.{name}")
    for name in "budget __main__ crops photographs recipe training weights".split()
)

KEY = jax.random.key(3)
SIDE = 32
# Not rich: Flax itself imports it.
ABSENT = "tensorflow orbax matplotlib PIL cv2 safetensors tyro tensorboardX".split()


def noise(count: int, side: int = SIDE) -> np.ndarray:
    random = np.random.default_rng(count)
    return random.integers(0, 256, (count, side, side, 3), np.uint8)


# ---- crops, drawn on the device --------------------------------------------------------


@functools.cache
def drawing(count: int, **changes: Any) -> Any:
    wanted = crops.Crops(SIDE, **changes)
    return jax.jit(lambda images, step: crops.draw(images, KEY, step, count, wanted))


def drawn(images: np.ndarray, step: int, count: int, **changes: Any) -> np.ndarray:
    return np.asarray(drawing(count, **changes)(images, jnp.int32(step)))


def flat_colors(count: int) -> np.ndarray:
    """Photographs of one grey each: 10, 20, ..."""
    grey = 10 * (1 + np.arange(count, dtype=np.uint8))
    return np.broadcast_to(grey[:, None, None, None], (count, SIDE, SIDE, 3))


def test_each_photograph_is_seen_once_an_epoch_in_another_order():
    images = flat_colors(6)
    seen = [drawn(images, step, 4, jitter=0.0)[:, 0, 0, 0] for step in range(6)]
    epochs = np.concatenate(seen).reshape(4, 6)
    for epoch in epochs:
        assert sorted(epoch) == [10, 20, 30, 40, 50, 60]
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_a_batch_may_hold_more_than_all_photographs():
    seen = drawn(flat_colors(3), 0, 7, jitter=0.0)[:, 0, 0, 0]
    assert sorted(seen[:3]) == sorted(seen[3:6]) == [10, 20, 30]


def test_an_example_is_the_same_in_a_batch_of_any_size():
    images = noise(5)
    # Examples 4 to 7 are step 1 of batches of 4, and in step 0 of batches of 8.
    np.testing.assert_array_equal(drawn(images, 1, 4), drawn(images, 0, 8)[4:])


def test_unchanged_photographs_come_as_they_are_or_mirrored():
    images = noise(4)
    for crop in drawn(images, 0, 8, enlarged=1.0, jitter=0.0):
        variants = [v for image in images for v in (image, image[:, ::-1])]
        assert any(np.array_equal(crop, variant) for variant in variants)


def test_an_enlarged_crop_is_a_part_of_its_photograph():
    # Brightness is the column: a crop enlarged by at most 2 spans at least half of them.
    ramp = np.broadcast_to(
        np.arange(SIDE, dtype=np.uint8)[:, None] * 8, (1, SIDE, SIDE, 3)
    )
    spans = []
    for step in range(16):
        (crop,) = drawn(ramp, step, 1, enlarged=2.0, jitter=0.0)
        line = crop[0, :, 0].astype(int)
        spans.append(abs(line[-1] - line[0]))
        assert (np.diff(line) >= 0).all() or (np.diff(line) <= 0).all()
    assert max(spans) == 8 * (SIDE - 1)
    assert 8 * SIDE * 0.4 < min(spans) < 8 * SIDE * 0.9


def test_jitter_changes_brightness_contrast_and_saturation_by_no_more():
    grey = np.full((1, SIDE, SIDE, 3), 100, np.uint8)
    values = [int(drawn(grey, step, 1, jitter=0.2)[0, 0, 0, 0]) for step in range(16)]
    assert 80 <= min(values) < 95
    assert 105 < max(values) <= 120


# ---- holes -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def holes() -> Any:
    sample = functools.partial(
        crops.mixed_holes, min_size=4, max_size=16, local_size=16
    )
    keys = example_keys(KEY, 0, 0, 200)
    return jax.device_get(jax.jit(sample, static_argnums=1)(keys, (SIDE, SIDE)))


def test_every_hole_lies_in_its_window(holes):
    for mask, (y, x) in zip(holes.mask[..., 0], holes.corner, strict=True):
        assert mask.sum() > 0
        assert mask[y : y + 16, x : x + 16].sum() == mask.sum()


def test_holes_are_rectangles_of_all_sizes_and_some_strokes(holes):
    sides, strokes = [], 0
    for mask in holes.mask[..., 0] > 0:
        height, width = mask.any(1).sum(), mask.any(0).sum()
        if mask.sum() == height * width:
            sides += [height, width]
        else:
            strokes += 1
    assert 0.15 < strokes / 200 < 0.35
    assert (min(sides), max(sides)) == (4, 16)


# ---- the time --------------------------------------------------------------------------


def test_phases_share_the_time():
    clocks = budget.ends(100.0, 300.0)
    assert clocks[Phase.COMPLETION] == pytest.approx(200)
    assert clocks[Phase.DISCRIMINATOR] == pytest.approx(206)
    assert clocks[Phase.JOINT] == pytest.approx(300)


def test_a_phase_that_is_left_out_leaves_its_time():
    shares = {Phase.DISCRIMINATOR: 0.1, Phase.JOINT: 0.3}
    assert budget.ends(0.0, 80.0, shares)[Phase.DISCRIMINATOR] == pytest.approx(20)


@pytest.mark.parametrize(
    ("done", "left", "seconds", "total"),
    [(0, 10.0, 0.5, 20), (7, 1.2, 0.5, 9), (7, 0.1, 0.5, 8), (7, 0.0, 0.5, 7)],
)
def test_steps_follow_from_the_time_that_is_left(done, left, seconds, total):
    assert budget.planned(done, left, seconds) == total


def test_the_learning_rate_rises_and_falls_to_its_end():
    rates = [budget.rate(done, 100, 10) for done in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(0.91)
    assert rates[99] == pytest.approx(0.01)
    assert rates[100] == 0


def test_the_structural_term_comes_last():
    assert [budget.tuned(done, 8) for done in (0, 5, 6, 7)] == [0, 0, 1, 1]


def test_a_learning_rate_in_the_state_multiplies_the_update():
    optimizer, gradients = recipe.led(), {"a": jnp.array([2.0, -4.0])}
    updates, factor = optimizer.update(gradients, jnp.float32(0.25))
    np.testing.assert_array_equal(updates["a"], [0.5, -1.0])
    assert factor == 0.25


# ---- files -----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index, image in enumerate(noise(5, 64)):
        smooth = Image.fromarray(image).resize((8, 8)).resize((64, 48))
        smooth.save(tmp_path / f"{index}.png")
    return tmp_path


@pytest.mark.parametrize("quality", ["0", "95"])
def test_photographs_come_back_from_their_file(folder, quality, capsys):
    file = folder / "all.npz"
    words = f"pack --train {folder}:3 --validation {folder} --side {SIDE}".split()
    assert command.main([*words, "--quality", quality, "--output", str(file)]) == 0
    assert "3 train, 5 validation" in capsys.readouterr().out
    packed = photographs.load(file)
    assert packed.train.shape == (3, SIDE, SIDE, 3)
    assert packed.validation.shape == (5, SIDE, SIDE, 3)
    # The same photographs in both: nothing but the JPEG may lie between them and pixels.
    pixels = folder / "pixels.npz"
    command.main([*words, "--quality", "0", "--output", str(pixels)])
    apart = np.abs(packed.train.astype(int) - photographs.load(pixels).train)
    assert apart.mean() < 3


@pytest.mark.parametrize("content", [b"", b"no file of arrays", b"PK\x03\x04"])
def test_a_file_that_is_none_is_one_line(tmp_path, content, capsys):
    file = tmp_path / "photographs.npz"
    file.write_bytes(content)
    words = ["train", str(file), "--minutes", "1", "--output", str(tmp_path)]
    assert command.main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    ["train x.npz --minutes 0 --output y", "train x.npz --minutes 1 --output y"],
)
def test_a_mistake_is_one_line(words, capsys):
    assert command.main(words.split()) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    file = tmp_path / "weights.npz"
    assert weights.save(file, {"params": {"a": np.ones(2)}}, {"width": 1})
    assert not weights.save(file, {"params": {"a": np.full(2, np.nan)}}, {})
    tree, about = weights.load(file)
    np.testing.assert_array_equal(tree["params"]["a"], [1, 1])
    assert about == {"width": 1}


# ---- a whole run, with nothing but JAX installed -----------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(900)  # three steps are compiled
def test_a_run_ends_in_a_model_that_completes(tmp_path):
    packed, out = tmp_path / "photographs.npz", tmp_path / "out"
    images = noise(12, 8).repeat(8, axis=1).repeat(8, axis=2)
    np.savez(packed, train=images[:10], validation=images[10:])
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({ABSENT})); "
        "from experiments.in_memory.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["train", packed, "--size", "tiny", "--minutes", "0.01", "--output", out]
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == 0, run.stderr
    text = (out / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    # Compiling took longer than all of the time: of each phase there is a step.
    assert [line["phase"] for line in lines if "done" in line] == [
        *("completion", "discriminator", "joint")
    ]
    assert sorted(file.name for file in out.iterdir()) == [
        *("completed.npz", "completion.npz", "joint_3.npz", "metrics.jsonl")
    ]

    model = tmp_path / "model.safetensors"
    assert command.main(["convert", f"{out}/joint_3.npz", "--output", str(model)]) == 0
    with np.load(out / "completed.npz") as file:
        photograph, mask, completed = (
            file[name][0] for name in ("photographs", "mask", "joint_3")
        )
    again = gl_jax.load(model)(photograph, mask[..., 0], blend="none")
    # Kernels in float16, and pixels that are rounded.
    assert np.abs(again.astype(int) - completed).max() <= 2
    sheet = tmp_path / "sheet.png"
    shown = ["sheet", f"{out}/completed.npz", "--output", str(sheet)]
    assert command.main(shown) == 0
    with Image.open(sheet) as drawn:
        assert drawn.width > 4 * 64


def test_photographs_of_another_size_are_refused(tmp_path):
    images = photographs.Photographs(noise(2), noise(2))
    with pytest.raises(UsageError, match=re.escape("64 pixels a side")):
        training.train(recipe.tiny(), images, tmp_path, minutes=1, say=str)
