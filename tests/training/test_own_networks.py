"""An experiment with a network that is none of ours, through every command."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gl_jax import cli
from gl_jax.config import UsageError
from gl_jax.experiment import load_experiment
from gl_jax.training.own_parts import parts_of
from gl_jax.weights import native

HEAD = """
import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from gl_jax.config import *

config = Config(
    name="unet",
    model=ModelConfig(width=0.0625),
    data=DataConfig(
        source={source!r}, batch_size=2, image_size=32, resize=(32, 40), workers=1
    ),
    holes=HolesConfig(min_size=8, max_size=12, local_size=16),
    completion_optimizer=OptimizerConfig("adam", 1e-3),
    schedule=ScheduleConfig(1, 1, 4),
    run=RunConfig(
        device_count=1, log_every=1, save_every=2, eval_every=4, sample_every=4,
        validation_images=2, sample_images=2,
    ),
)


def paper(config):
    from gl_jax.training import default_parts

    return default_parts(config)
"""

UNET = (
    HEAD
    + """

class UNet(nn.Module):
    features: int = 6

    @nn.compact
    def __call__(self, inputs, train):
        fine = nn.relu(nn.Conv(self.features, (3, 3))(inputs))
        coarse = nn.relu(nn.Conv(2 * self.features, (3, 3), strides=(2, 2))(fine))
        up = nn.relu(nn.ConvTranspose(self.features, (4, 4), strides=(2, 2))(coarse))
        return nn.sigmoid(nn.Conv(3, (3, 3))(jnp.concatenate([fine, up], axis=-1)))


def parts(config):
    return dataclasses.replace(paper(config), completion=UNet())
"""
)


def photographs(folder: Path) -> Path:
    folder.mkdir()
    stream = np.random.default_rng(0)
    for index in range(6):
        small = stream.integers(0, 256, (6, 6, 3), np.uint8)
        image = Image.fromarray(small).resize((48, 48), Image.Resampling.BICUBIC)
        image.save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the experiment and its run, trained in two lives."""
    folder = tmp_path_factory.mktemp("unet")
    source = str(photographs(folder / "photographs"))
    (folder / "unet.py").write_text(UNET.format(source=source))
    command = ["train", str(folder / "unet.py"), "--workdir", str(folder / "run")]
    assert cli.main([*command, "--schedule.total-steps", "2"]) == 0
    assert cli.main(command) == 0
    return folder


@pytest.mark.slow
def test_it_trains_and_resumes(trained):
    lines = (trained / "run" / "metrics.jsonl").read_text().splitlines()
    phases = [
        record["phase"]
        for line in lines
        if "val_psnr" not in (record := json.loads(line))
    ]
    assert phases == ["completion", "discriminator", "joint", "joint"]
    text = (trained / "run" / "experiment.py").read_text()
    assert text == (trained / "unet.py").read_text()


@pytest.mark.slow
def test_resuming_with_another_text_shows_the_difference(trained, tmp_path, capsys):
    other = tmp_path / "unet.py"
    other.write_text((trained / "unet.py").read_text().replace("int = 6", "int = 8"))
    assert cli.main(["train", str(other), "--workdir", str(trained / "run")]) == 2
    message = capsys.readouterr().err
    assert "was trained with another text of unet.py" in message
    assert "-    features: int = 6\n+    features: int = 8" in message


@pytest.mark.slow
def test_resuming_without_its_parts_is_refused(trained, tmp_path, capsys):
    plain = tmp_path / "unet.py"
    plain.write_text(HEAD.format(source=str(trained / "photographs")))
    assert cli.main(["train", str(plain), "--workdir", str(trained / "run")]) == 2
    assert "was trained with another text of unet.py" in capsys.readouterr().err


@pytest.mark.slow
def test_it_is_exported_with_and_without_its_file(trained, tmp_path, capsys):
    command = ["export", "--workdir", str(trained / "run"), "--discriminators"]
    file = tmp_path / "unet.safetensors"
    assert cli.main([*command, "--output", str(file)]) == 0
    assert "UNet of unet.py" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"--experiment unet\.py"):
        native.load(file).network()
    experiment = load_experiment(str(trained / "unet.py"))
    model = native.load(file, experiment)
    assert model.network() == experiment.parts(experiment.config).completion
    assert model.discriminator is not None
    named = ["--experiment", str(trained / "unet.py")]
    program = str(tmp_path / "unet.stablehlo")
    stablehlo = ["--format", "stablehlo", "--output", program]
    assert cli.main([*command[:3], *named, *stablehlo]) == 0
    assert Path(program).stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize("source", ["run", "file"])
def test_it_completes_photographs(source, trained, tmp_path, capsys):
    model = trained / "run"
    if source == "file":
        model = tmp_path / "unet.safetensors"
        run = str(trained / "run")
        assert cli.main(["export", "--workdir", run, "--output", str(model)]) == 0
    photo, output = trained / "photographs" / "0.png", tmp_path / "out.png"
    command = ["complete", "--image", str(photo), "--output", str(output)]
    command += ["--model", str(model), "--rect", "10,10,9,9", "--blend", "none"]
    assert cli.main(command) == 2
    assert re.search(r"UNet of unet\.py.*--experiment", capsys.readouterr().err)
    assert cli.main([*command, "--experiment", str(trained / "unet.py")]) == 0
    before, after = (np.asarray(Image.open(path)) for path in (photo, output))
    changed = (before != after).any(axis=-1)
    assert changed[10:19, 10:19].mean() > 0.9
    changed[10:19, 10:19] = False
    assert not changed.any()


@pytest.mark.slow
def test_it_is_evaluated(trained, tmp_path):
    command = ["evaluate", "--model", str(trained / "run"), "--masks", "center"]
    command += ["--experiment", str(trained / "unet.py"), "--count", "2"]
    command += ["--data", str(trained / "photographs"), "--output", str(tmp_path / "e")]
    assert cli.main(command) == 0
    lines = (tmp_path / "e" / "per_image.csv").read_text().splitlines()
    assert len(lines) == 3


# --- parts that do not fit ----------------------------------------------------------------

MISTAKES: dict[str, tuple[str, str]] = {
    "returns something else": (
        "def parts(config): return {'a': 1}",
        r"returned dict of int \(1\) but must return gl_jax\.training\.Parts",
    ),
    "returns nothing": ("def parts(config): pass", "returned None but must return"),
    "fails": ("def parts(config): raise KeyError('x')", r"failed: KeyError\('x'\)"),
    "is no function": ("parts = 3", "must be a function of a Config"),
    "is no module": (
        "def parts(config): return dataclasses.replace(paper(config), completion=3)",
        r"int \(3\) as its completion network but must have a Flax module",
    ),
    "takes no train": (
        "def parts(config):\n"
        "    return dataclasses.replace(paper(config), completion=nn.Conv(3, (3, 3)))",
        "completion network fails: TypeError.*train",
    ),
    "four colours": (
        "class N(nn.Module):\n"
        "    @nn.compact\n"
        "    def __call__(self, x, train): return nn.Conv(4, (3, 3))(x)\n"
        "def parts(config): return dataclasses.replace(paper(config), completion=N())",
        r"network N returned float32\[2,32,32,4\].*must return images "
        r"float32\[2,32,32,3\]",
    ),
    "another type": (
        "class N(nn.Module):\n"
        "    @nn.compact\n"
        "    def __call__(self, x, train):\n"
        "        return nn.Conv(3, (3, 3))(x).astype(jnp.bfloat16)\n"
        "def parts(config): return dataclasses.replace(paper(config), completion=N())",
        r"returned bfloat16\[2,32,32,3\]",
    ),
    "a view outside": (
        "def parts(config):\n"
        "    views = {'middle': lambda images, holes: images[:, 40:60, 40:60]}\n"
        "    return dataclasses.replace(paper(config), views=paper(config).views | views)",
        r"view 'middle' returned float32\[2,0,0,3\].*must return a part inside",
    ),
    "a window too large": (
        "def parts(config):\n"
        "    from gl_jax.training import window\n"
        "    views = paper(config).views | {'local': window(64)}\n"
        "    return dataclasses.replace(paper(config), views=views)",
        r"view 'local' of images float32\[2,32,32,3\] fails",
    ),
    "two logits": (
        "class D(nn.Module):\n"
        "    @nn.compact\n"
        "    def __call__(self, views, train): return nn.Dense(2)(views['global'][:, 0, 0])\n"
        "def parts(config): return dataclasses.replace(paper(config), discriminator=D())",
        r"discriminator D returned float32\[2,2\].*one logit each, float32\[2\]",
    ),
    "an augmentation of images": (
        "def parts(config):\n"
        "    old = lambda key, images, step: images\n"
        "    return dataclasses.replace(paper(config), augment=old)",
        r"augment\(keys, views, step, probability\) fails: TypeError: .*takes 3 pos",
    ),
    "an augmentation that crops": (
        "def parts(config):\n"
        "    def crop(keys, views, step, probability):\n"
        "        return {n: view[:, 1:, 1:] for n, view in views.items()}\n"
        "    return dataclasses.replace(paper(config), augment=crop)",
        r"augment returned (local|global) float32\[2,\d+,\d+,3\].* for views .*"
        r"float32\[2,32,32,3\].* the same names, shapes and types",
    ),
    "an augmentation of one view": (
        "def parts(config):\n"
        "    def one(keys, views, step, probability): return {'local': views['local']}\n"
        "    return dataclasses.replace(paper(config), augment=one)",
        r"augment returned local float32\[2,16,16,3\] for views .*the same names",
    ),
    "nothing to adapt": (
        "def parts(config):\n"
        "    from gl_jax.training.augment import Adaptive\n"
        "    return dataclasses.replace(paper(config), adaptive=Adaptive())",
        "has adaptive but no augment: there is no probability",
    ),
    "a penalty without keys": (
        "def parts(config):\n"
        "    def old(logits_of, real, fake): return logits_of(real).mean()\n"
        "    objective = dataclasses.replace(paper(config).objective, penalty=old)\n"
        "    return dataclasses.replace(paper(config), objective=objective)",
        r"objective.penalty\(logits_of, real_views, fake_views, keys\) fails: "
        r"TypeError: .*old\(\) takes 3 positional arguments but 4 were given",
    ),
    "a penalty for each image": (
        "def parts(config):\n"
        "    each = lambda logits_of, real, fake, keys: logits_of(real)\n"
        "    objective = dataclasses.replace(paper(config).objective, penalty=each)\n"
        "    return dataclasses.replace(paper(config), objective=objective)",
        r"objective.penalty returned float32\[2\] but must return one number",
    ),
    "no features to match": (
        "class D(nn.Module):\n"
        "    @nn.compact\n"
        "    def __call__(self, views, train):\n"
        "        return nn.Dense(1)(views['global'].mean((1, 2)))[:, 0]\n"
        "def parts(config):\n"
        "    from gl_jax.training.objectives import feature_loss\n"
        "    made = paper(config)\n"
        "    objective = dataclasses.replace(made.objective, matching=feature_loss)\n"
        "    return dataclasses.replace(made, objective=objective, discriminator=D())",
        "the joint step fails: ValueError: objective.matching compares .*'features', "
        "but D sows none",
    ),
    "holes without a key of the batch": (
        "def parts(config):\n"
        "    def old(key, shape): return paper(config).sample_holes(key, shape)\n"
        "    return dataclasses.replace(paper(config), sample_holes=old)",
        r"sample_holes\(keys, \(height, width\), batch_key\) fails: TypeError: "
        ".*takes 2 positional arguments but 3 were given",
    ),
    "a loss for each image": (
        "def parts(config):\n"
        "    objective = paper(config).objective\n"
        "    objective = dataclasses.replace(objective, adversarial=lambda fake: fake)\n"
        "    return dataclasses.replace(paper(config), objective=objective)",
        "the joint step fails: ",
    ),
}


@pytest.fixture
def refused(tmp_path, capsys) -> Callable[[str], str]:
    """Trains an experiment that is refused before anything is written: its message."""

    def train(text: str) -> str:
        file, workdir = tmp_path / "mistaken.py", tmp_path / "run"
        file.write_text(text)
        assert cli.main(["train", str(file), "--workdir", str(workdir)]) == 2
        assert not workdir.exists()
        return capsys.readouterr().err

    return train


@pytest.mark.parametrize("mistake", MISTAKES)
def test_parts_that_do_not_fit_are_refused_in_one_line(mistake, refused):
    text, message = MISTAKES[mistake]
    printed = refused(HEAD.format(source="bundled") + text)
    assert printed.count("\n") == 1 and "mistaken.py" in printed
    assert re.search(message, printed), printed


def test_an_experiment_without_a_config_is_refused(refused):
    printed = refused(UNET.format(source="bundled").replace("config = ", "settings = "))
    assert "mistaken.py holds no Config: it defines neither `config`" in printed


def test_without_parts_of_its_own_an_experiment_has_the_papers(tmp_path):
    file = tmp_path / "plain.py"
    file.write_text(HEAD.format(source="bundled"))
    experiment = load_experiment(str(file))
    parts = parts_of(experiment.config, experiment)
    assert parts.completion == parts_of(experiment.config).completion
