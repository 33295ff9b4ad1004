"""Every experiment file: its story, its numbers, and that its steps fit together."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from gl_jax import cli
from gl_jax.config import Config, Phase, differences
from gl_jax.experiment import Experiment, load_experiment
from gl_jax.training import make_steps, state_shapes
from gl_jax.training.own_parts import parts_of

FOLDER = Path(__file__).parents[1] / "experiments"
FILES = sorted(FOLDER.glob("*.py"))
ABLATION = ("mse", "global", "local", "both")
REFERENCES = [str(file) for file in FILES if file.stem != "ablation"]
REFERENCES += [f"{FOLDER / 'ablation.py'}:{name}" for name in ABLATION]
REFERENCES += [
    f"{FOLDER / 'context_encoder.py'}:{name}" for name in ("center", "random")
]
REFERENCES += [
    f"{FOLDER / 'demo_model.py'}:{name}"
    for name in ("tuned", "larger", "annealed", "textured", "sharp")
]


# One of each kind of networks and steps; the others differ from them in numbers only.
TRACED = ("places2", "glcic_pytorch", "mmediting", "quickstart")


@pytest.fixture(params=TRACED)
def experiment(request: pytest.FixtureRequest) -> Experiment:
    return load_experiment(str(FOLDER / f"{request.param}.py"))


def test_every_experiment_has_a_name_of_its_own():
    names = [load_experiment(reference).config.name for reference in REFERENCES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_opens_with_command_hardware_and_cost(file):
    story = file.read_text(encoding="utf-8").split('"""')[1]
    assert f"    gl-jax train experiments/{file.name}" in story
    assert "--workdir" in story
    assert re.search("Hardware", story)
    assert re.search("[Cc]ost|days", story)


def test_its_steps_can_be_traced_at_full_size(experiment):
    """Shapes, types and optimizers fit in all phases; nothing is computed."""
    config = experiment.config
    size = config.data.image_size
    parts = parts_of(config, experiment)
    ema = config.run.ema_decay is not None
    state = state_shapes(parts, size, ema=ema)
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.uint8)
    steps = make_steps(parts, (0.5, 0.5, 0.5), ema_decay=config.run.ema_decay)
    phases = {config.phase_at(s) for s in range(config.schedule.total_steps)}
    assert set(steps) == (set(Phase) if Phase.JOINT in phases else phases)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        for step in steps.values():
            after, metrics = jax.eval_shape(step, state, images, jax.random.key(0))
            assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
            assert all(value.shape == () for value in metrics.values())


def test_places2_is_the_paper():
    places2 = load_experiment(str(FOLDER / "places2.py")).config
    changed = {name.partition(".")[0] for name, _, _ in differences(places2, Config())}
    assert changed == {"name", "data", "run"}
    assert [
        n for n, _, _ in differences(places2, Config()) if n.startswith("data")
    ] == ["data.source"]


def test_the_ablation_differs_in_the_discriminators_only():
    configs = [
        load_experiment(f"{FOLDER / 'ablation.py'}:{name}").config for name in ABLATION
    ]
    for config in configs[1:]:
        changed = [name for name, _, _ in differences(config, configs[0])]
        assert changed == ["name", "model.discriminators"]


def test_the_large_batch_sees_as_many_photographs_as_the_paper():
    large = load_experiment(str(FOLDER / "large_batch.py")).config
    for name in ("completion_steps", "discriminator_steps", "total_steps"):
        seen = getattr(large.schedule, name) * large.data.batch_size
        assert seen == getattr(Config().schedule, name) * 96
    warmup = large.discriminator_optimizer.warmup_steps
    assert warmup < large.schedule.discriminator_steps


def test_the_quickstart_goes_through_all_phases():
    quickstart = load_experiment(str(FOLDER / "quickstart.py")).config
    steps = range(quickstart.schedule.total_steps)
    assert {quickstart.phase_at(step) for step in steps} == set(Phase)
    assert quickstart.data.source == "bundled"


@pytest.mark.timeout(600)  # it traces each step, on a machine that may be busy
@pytest.mark.slow
def test_the_demo_in_small(tmp_path, monkeypatch, capsys):
    """What `make demo` does: train, resume, compare; every file it promises is there."""
    monkeypatch.chdir(FOLDER.parent)

    def gl_jax(*words: str) -> str:
        assert cli.main(words) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    words = ["train", "experiments/quickstart.py", "--workdir", str(tmp_path)]
    words += "--model.width 0.0625 --data.image-size 32 --data.resize 32 48".split()
    words += "--holes.local-size 16 --holes.min-size 8 --holes.max-size 12".split()
    words += "--schedule.completion-steps 1 --schedule.discriminator-steps 1".split()
    words += "--data.batch-size 2 --run.log-every 1 --run.validation-images 2".split()
    # A learning rate that falls to a run's end allows no other end.
    words += "--run.device-count 1 --completion-optimizer.decay constant".split()
    words += "--run.initial-weights none".split()
    first = gl_jax(*words, "--schedule.total-steps", "2")
    assert "Starting quickstart" in first
    second = gl_jax(*words, "--schedule.total-steps", "3")
    assert "Resuming quickstart" in second
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [
        phase for phase in Phase if any(f'"{phase}"' in line for line in lines)
    ] == [*Phase]
    for name in (
        "config.json",
        "run_status.json",
        "curves.png",
        "samples",
        "checkpoints",
    ):
        assert (tmp_path / name).exists(), name

    output = tmp_path / "comparison"
    words = ["compare", "--model", str(tmp_path), "--output", str(output)]
    gl_jax(*words, "--methods", "gl,mean,telea")
    table = (output / "comparison.md").read_text()
    assert all(method in table for method in ("gl", "mean", "telea"))
    for ending in ("md", "csv", "json", "png"):
        assert (output / f"comparison.{ending}").is_file(), ending
