"""The learned comparators as methods: of `compare`, `evaluate` and `complete`."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from gl_jax import cli
from gl_jax.config import UsageError
from gl_jax.evaluation import methods
from gl_jax.evaluation.baselines import semantic
from gl_jax.evaluation.baselines.windows import in_windows
from gl_jax.weights import architectures, native
from gl_jax.weights.architectures import (
    ContextEncoderArchitecture,
    GeneratorArchitecture,
    PlainDiscriminatorArchitecture,
)
from gl_jax.weights.convention import Convention
from gl_jax.weights.description import describe
from gl_jax.weights.native import Discriminator, Model

SIDE = 32
GREY = (0.5, 0.5, 0.5)
SIGNED = Convention(scale=2.0, offset=GREY, fill=GREY)


def variables_of(architecture: Any) -> Any:
    """Random ones, variances among them."""
    generator = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: generator.uniform(0.1, 0.9, leaf.shape).astype(np.float32),
        architecture.tree(),
    )


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small networks with random weights, as files by name."""
    folder = tmp_path_factory.mktemp("methods")
    models = {}
    for name, predicted in (("whole", SIDE), ("middle", SIDE // 2)):
        made = ContextEncoderArchitecture(SIDE, predicted, 8, 0.02)
        models[name] = Model(variables_of(made), made, SIGNED, name=name)
    made = GeneratorArchitecture(16, 4, 0.02)
    plain = PlainDiscriminatorArchitecture(16, 0.02, convention=SIGNED)
    of_plain = Discriminator(variables_of(plain), plain)
    of_generator = variables_of(made)
    models["alone"] = Model(of_generator, made, SIGNED, name="alone")
    models["prior"] = Model(of_generator, made, SIGNED, of_plain, name="prior")
    files = {name: folder / f"{name}.safetensors" for name in models}
    for name, model in models.items():
        native.save(model, files[name])
    return files


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for index in range(2):
        Image.fromarray(picture(index)).save(folder / f"photo{index}.png")
    return folder


def picture(index: int, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    generator = np.random.default_rng(index)
    return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)


# --- the networks as files


@pytest.mark.parametrize("name", ["whole", "middle", "prior"])
def test_networks_are_loaded_as_they_were_saved(weights, name, tmp_path) -> None:
    model = native.load(weights[name])
    again = tmp_path / "again.safetensors"
    native.save(model, again)
    assert again.read_bytes() == weights[name].read_bytes()
    assert model.architecture.module in describe(model)
    described = architectures.to_json(model.architecture)
    assert architectures.from_json(described, "completion") == model.architecture


# --- semantic inpainting


def test_a_known_pixel_is_as_important_as_many_pixels_around_it_are_missing() -> None:
    mask = np.zeros((12, 12), bool)
    mask[4:6, 4:6] = True
    weights = semantic.importance(mask)
    assert (weights[mask] == 0).all()
    # 7x7 windows: (4, 3) sees all four, (1, 3) only row 4, (1, 1) one pixel, (0, 0) none.
    places = ((4, 3), (1, 3), (1, 1), (0, 0), (11, 11))
    seen = [weights[place] for place in places]
    np.testing.assert_allclose(seen, [4 / 49, 2 / 49, 1 / 49, 0, 0], atol=1e-7)


class Line:
    """A generator of flat grey images, as bright as the code says, in [-1, 1]."""

    def apply(self, weights: Any, codes: Any, *, train: bool) -> Any:
        flat = (codes[:, :, None, None] + 1) / 2
        return jnp.broadcast_to(flat, (len(codes), 4, 4, 3))


class Indifferent:
    """A discriminator that takes nothing for real or false."""

    def apply(self, weights: Any, views: Any, *, train: bool) -> Any:
        return jnp.zeros(len(views["images"]))


def test_the_code_of_least_loss_is_found_and_lies_in_its_range() -> None:
    networks = semantic._Networks(Line(), Indifferent(), SIGNED)
    important = jnp.full((4, 4), 0.1)
    for brightness in (0.3, 1.0):
        image = jnp.full((4, 4, 3), brightness)
        found = semantic.nearest(networks, 1, 200, 3, (None, None), image, important)
        np.testing.assert_allclose(found, brightness, atol=0.01)


# --- windows


def test_an_image_of_another_size_is_completed_in_squares_around_its_holes() -> None:
    seen = []

    def complete(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        seen.append((image.shape, np.argwhere(mask).min(0), int(mask.sum())))
        return np.full_like(image, 200)

    image = np.full((64, 48, 3), 50, np.uint8)
    mask = np.zeros((64, 48), bool)
    mask[2:6, 40:46] = True  # at the corner: the window is moved into the image
    mask[20:44, 10:20] = True  # 24 pixels high: a window of 48, made half as large
    filled = in_windows(16, complete, blend=False)(image, mask)
    assert (filled[mask] == 200).all() and (filled[~mask] == 50).all()
    (_, corner, count), (shape, *_) = seen
    assert (*corner, count) == (2, 8, 24)
    assert shape == (16, 16, 3)
    mask[:60, 0] = True
    with pytest.raises(ValueError, match="hole of 1x60 pixels does not fit"):
        in_windows(16, complete, blend=False)(image, mask)


def test_the_middle_alone_is_refused_for_other_holes(weights) -> None:
    fill = methods.load(f"context_encoder={weights['middle']}").fill
    mask = np.zeros((SIDE, SIDE), bool)
    mask[10:20, 10:20] = True
    filled = fill(picture(0), mask)
    assert (filled[mask] != picture(0)[mask]).any()
    mask[4, 10] = True
    with pytest.raises(
        ValueError, match="reaches beyond the middle 16x16 of the 32x32"
    ):
        fill(picture(0), mask)


# --- words


@pytest.mark.parametrize(
    ("word", "rule"),
    [
        ("patchmatc", "method 'patchmatc' is unknown. Did you mean 'patchmatch'"),
        ("semantic", "method semantic needs weights: semantic=FILE"),
        ("telea=x.safetensors", "method telea has no weights"),
        ("context_encoder=nowhere", "there is no file or folder 'nowhere'"),
        ("context_encoder={prior}", "needs another network than the Generator in"),
        ("semantic={alone}", "alone has no discriminator, which semantic"),
    ],
)
def test_a_word_that_is_no_method_is_refused_in_one_line(weights, word, rule) -> None:
    with pytest.raises(UsageError, match=rule) as caught:
        methods.load(word.format(**weights))
    assert "\n" not in str(caught.value)


# --- verbs


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """A hole in the middle of the first photograph, and one at the edge of the second."""
    folder = tmp_path / "masks"
    folder.mkdir()
    for index, top in enumerate((12, 0)):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[top : top + 8, 14:22] = 255
        Image.fromarray(mask).save(folder / f"photo{index}.png")
    return folder


def test_they_are_compared_and_a_failure_loses_its_photograph_only(
    weights, photographs, masks, tmp_path, capsys
) -> None:
    words = ["compare", "--data", str(photographs), "--masks", str(masks)]
    words += ["--image-size", str(SIDE), "--output", str(tmp_path / "compared")]
    named = f"mean,semantic={weights['prior']},context_encoder={weights['middle']}"
    assert cli.main([*words, "--methods", named]) == 0, capsys.readouterr().err
    result = json.loads((tmp_path / "compared" / "comparison.json").read_text())
    scored = [(s["method"], s["photograph"]) for s in result["scores"]]
    assert sorted(scored) == [
        ("context_encoder", "photo0.png"),
        ("mean", "photo0.png"), ("mean", "photo1.png"),
        ("semantic", "photo0.png"), ("semantic", "photo1.png"),
    ]  # fmt: skip
    assert "reaches beyond the middle" in result["failures"][0]["reason"]
    assert any("semantic completes 16x16 pixels only" in n for n in result["notes"])


def test_one_is_evaluated_without_the_photographs_it_fails_on(
    weights, photographs, masks, tmp_path
) -> None:
    words = ["evaluate", "--data", str(photographs), "--masks", str(masks)]
    words += ["--image-size", str(SIDE), "--batch-size", "1"]
    words += ["--output", str(tmp_path / "evaluated")]
    assert cli.main([*words, "--method", f"context_encoder={weights['middle']}"]) == 0
    with (tmp_path / "evaluated" / "per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    text = (tmp_path / "evaluated" / "evaluation.md").read_text()
    assert [row["photograph"] for row in rows] == ["photo0.png"]
    assert text.count("reaches beyond the middle") == 1
    assert "method context_encoder" in text


@pytest.fixture
def complete(tmp_path, monkeypatch, capsys):
    """Runs `complete` on a photo with a hole; gives exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(picture(0, 40, 48)).save("photo.png")

    def run(*words: str, rect: str = "16,16,12,12") -> tuple[int, str, str]:
        given = ["--image", "photo.png", "--rect", rect, "--output", "done.png"]
        code = cli.main(["complete", *given, *words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.mark.parametrize("word", ["telea", "context_encoder={whole}"])
def test_a_photo_is_completed_by_another_method(complete, weights, word) -> None:
    code, _, err = complete("--method", word.format(**weights))
    assert code == 0, err
    done, photo = np.asarray(Image.open("done.png")), picture(0, 40, 48)
    hole = np.zeros((40, 48), bool)
    hole[16:28, 16:28] = True
    np.testing.assert_array_equal(done[~hole], photo[~hole])
    assert (done[hole] != photo[hole]).mean() > 0.5
    if word == "telea":
        expected = methods.load("telea").fill(photo, hole)
        np.testing.assert_array_equal(done, expected)


@pytest.mark.parametrize(
    ("words", "code", "rule"),
    [
        ("--method pathmatch", 2, "Did you mean 'patchmatch'"),
        ("--method telea --model demo", 2, "--resize-to apply to the method gl only"),
        ("--model {whole}", 2, "give it as --method context_encoder=FILE"),
        ("--method context_encoder={middle} --dilate 20", 1, "does not fit into the square"),
    ],
)  # fmt: skip
def test_a_photo_that_cannot_be_completed_so_is_one_line(
    complete, weights, words, code, rule
) -> None:
    found, _, err = complete(*words.format(**weights).split(), rect="4,4,20,20")
    assert (found, err.count("\n")) == (code, 1)
    assert rule in err
    assert not os.path.exists("done.png")
