"""The models that come with the package: there, whole, small, documented, and at work."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gl_jax
from gl_jax import cli
from gl_jax.inpainting import completer as room
from gl_jax.weights import native

GOLDEN = Path(__file__).parent / "golden"  # see its README.md
KEEP = 3
CARDS = {
    "demo": native.ASSETS / "MODEL_CARD.md",
    "demo-sharp": native.ASSETS / "MODEL_CARD_SHARP.md",
}
SECTIONS = (
    "Data", "Training", "What it reaches", "Intended use", "Limits", "Licence",
)  # fmt: skip


def test_the_models_are_small_and_say_where_they_come_from():
    files = native.shipped()
    assert set(files) == set(CARDS)
    assert sum(file.stat().st_size for file in files.values()) <= 20e6
    for name, experiment in (("demo", "demo_annealed"), ("demo-sharp", "demo_sharp")):
        model = native.load(files[name])
        assert model.licence == "CC BY 4.0"
        assert model.training["experiment"] == experiment
        assert not Path(model.training["data"]).is_absolute()
    assert room.load_model().sha256 == native.load(files["demo"]).sha256


@pytest.mark.parametrize("name", CARDS)
def test_a_card_describes_its_file(name):
    model = native.load(native.shipped()[name])
    text = CARDS[name].read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == list(SECTIONS)
    assert model.sha256 in text
    assert f"{model.training['steps']:,} steps" in text
    assert (native.ASSETS / "ATTRIBUTION.txt").is_file()


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_the_pictures_of_a_card_are_there(card):
    root = Path(gl_jax.__file__).parent.parent
    pictures = re.findall(r"\]\((\.\./\.\./docs/[^)]+)\)", card.read_text())
    assert pictures
    for picture in pictures:
        assert (card.parent / picture).resolve().is_relative_to(root)
        assert (card.parent / picture).is_file(), picture


def test_the_first_command_completes_a_photograph(tmp_path, capsys):
    ramp = np.linspace(30, 220, 96, dtype=np.uint8)
    photo = np.stack([np.tile(ramp, (80, 1))] * 3, axis=-1)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    mask = np.zeros((80, 96), np.uint8)
    mask[30:50, 40:60] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    words = ["--image", "photo.png", "--mask", "mask.png", "--output", "out.png"]
    words = [str(tmp_path / w) if "." in w else w for w in words]
    assert cli.main(["complete", *words]) == 0
    completed = np.asarray(Image.open(tmp_path / "out.png"))
    np.testing.assert_array_equal(completed[mask == 0], photo[mask == 0])
    # A smooth ramp: nobody who has learnt anything is 40 levels off on average.
    error = completed[mask > 0].astype(float) - photo[mask > 0]
    assert np.abs(error).mean() < 40


@pytest.mark.parametrize("size", ["small", "square"])
@pytest.mark.parametrize("model", CARDS)
def test_their_pictures_stay_what_they_are(model, size):
    with np.load(GOLDEN / "0.1.0" / "pictures.npz") as stored:
        image, mask = stored[f"{size}.image"], stored[f"{size}.mask"]
    with np.load(GOLDEN / "shipped.npz") as stored:
        output, hole = (
            stored[f"{model}.{size}.raw"],
            stored[f"{model}.{size}.completed"],
        )
    completer = gl_jax.load(model)
    raw = completer.raw(image, mask)
    np.testing.assert_allclose(raw[::KEEP, ::KEEP], output, rtol=0, atol=1e-5)
    completed = completer(image, mask)
    np.testing.assert_array_equal(completed[~mask], image[~mask])
    # A value halfway between two levels may be rounded to either.
    assert np.abs(completed[mask].astype(int) - hole).max() <= 1


def test_they_are_listed_with_their_hashes(capsys):
    assert cli.main(["models"]) == 0
    text = capsys.readouterr().out
    for file in native.shipped().values():
        assert native.load(file).sha256 in text
