"""The configuration tree: the paper's defaults, refusals, JSON, experiment files."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gl_jax.config import (
    OPTIMIZERS,
    AugmentConfig,
    Config,
    DataConfig,
    HolesConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    Phase,
    RunConfig,
    ScheduleConfig,
    UsageError,
    did_you_mean,
    differences,
)
from gl_jax.experiment import load_experiment
from gl_jax.fields import describe, field_names
from gl_jax.options import override, suggest_option


def test_the_defaults_are_the_papers():
    config = Config()
    schedule = config.schedule
    assert (schedule.completion_steps, schedule.discriminator_steps) == (90_000, 10_000)
    assert schedule.total_steps == 500_000
    assert (config.data.batch_size, config.data.image_size) == (96, 256)
    assert config.data.resize == (256, 384)
    assert (config.holes.min_size, config.holes.max_size) == (96, 128)
    assert config.holes.local_size == 128
    assert config.loss.alpha == 0.0004
    assert config.completion_optimizer == config.discriminator_optimizer
    assert config.completion_optimizer == OptimizerConfig("adadelta", 1.0)


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: ModelConfig(width=0), r"model.width \(=0\) must be in \(0, 8\]"),
        (lambda: ModelConfig(batch_norm_momentum=1), "batch_norm_momentum"),
        (lambda: DataConfig(image_size=250), "a multiple of 4"),
        (lambda: DataConfig(resize=(200, 384)), "at least data.image_size"),
        (lambda: DataConfig(resize=(384, 256)), "two sizes in order"),
        (lambda: DataConfig(mean_color=(0, 0, 2)), "three numbers in"),
        (lambda: DataConfig(batch_size=0), "data.batch_size"),
        (lambda: DataConfig(encoding="mmediting", mean_color=(0, 0, 0)), "are grey"),
        (lambda: DataConfig(validation_share=0), "data.validation_share"),
        (lambda: DataConfig(source=""), "data.source"),
        (lambda: HolesConfig(max_size=129), "has to see the whole hole"),
        (lambda: HolesConfig(min_size=100, max_size=99), "at least holes.min_size"),
        (lambda: HolesConfig(max_count=0), "holes.max_count"),
        (lambda: LossConfig(alpha=-1), "loss.alpha"),
        (lambda: LossConfig(adversarial_ratio=0), "loss.adversarial_ratio"),
        (
            lambda: LossConfig(adversarial="relativistc"),
            r"^loss.adversarial \(='relativistc'\) must be one of non_saturating, .*\. "
            r"Did you mean 'relativistic'\?$",
        ),
        (
            lambda: LossConfig(fakes="hole"),
            "loss.fakes .* must be one of composite, raw",
        ),
        (lambda: LossConfig(r1=-1.0), r"^loss.r1 \(=-1.0\) must be at least 0.$"),
        (lambda: LossConfig(r2=-1.0), r"^loss.r2 \(=-1.0\) must be at least 0.$"),
        (
            lambda: LossConfig(gradient_penalty=-1),
            "^loss.gradient_penalty .*at least 0",
        ),
        (lambda: LossConfig(feature_weight=-1), "^loss.feature_weight .*at least 0"),
        (lambda: LossConfig(penalty_every=0), "^loss.penalty_every .*at least 1.$"),
        (
            lambda: LossConfig(completion_weight=0),
            "^loss.completion_weight .*above 0.$",
        ),
        (
            lambda: LossConfig(joint_completion_weight=-1),
            "^loss.joint_completion_weight .* must be above 0.$",
        ),
        (
            lambda: LossConfig(joint_discriminator_weight=-0.1),
            "^loss.joint_discriminator_weight .* must be above 0.$",
        ),
        (
            lambda: AugmentConfig(adaptive_target=0.6),
            r"^augment.adaptive_target \(=0.6\) must be left out without augment.color",
        ),
        (
            lambda: AugmentConfig(color=True, adaptive_target=2),
            r"^augment.adaptive_target .*in \[-1, 1\]",
        ),
        (
            lambda: AugmentConfig(color=True, adaptive_target=0, adaptive_images=0),
            "^augment.adaptive_images .*at least 1.$",
        ),
        (lambda: AugmentConfig(translation=0.6), r"^augment.translation .*\[0, 0.5\]"),
        (lambda: AugmentConfig(cutout=-0.5), r"^augment.cutout .* must be in \[0, 1\]"),
        (
            lambda: ScheduleConfig(discriminator_updates=0),
            "^schedule.discriminator_updates .*at least 1.$",
        ),
        (
            lambda: LossConfig(discriminator_noise=0.1, discriminator_noise_end=0.2),
            r"noise_end \(=0.2\) must be above 0 and at most .* \(=0.1\)",
        ),
        (lambda: OptimizerConfig("adm"), "Did you mean 'adam'"),
        (lambda: OptimizerConfig("adam", 0), "learning_rate"),
        (lambda: OptimizerConfig("adam", 1, {"b_1": 0.5}), "Did you mean 'b1'"),
        (lambda: ScheduleConfig(total_steps=0), "schedule.total_steps"),
        (lambda: RunConfig(log_every=0), "run.log_every"),
        (lambda: RunConfig(ema_decay=1), "run.ema_decay"),
        (lambda: RunConfig(ema_decay=0.9, ema_ramp=0), "run.ema_ramp"),
        (lambda: RunConfig(ema_ramp=0.05), "left out without run.ema_decay"),
        (lambda: RunConfig(profile_steps=(3, 1)), "two steps in order"),
        (lambda: RunConfig(seed=-1), "run.seed"),
    ],
)
def test_what_cannot_work_is_refused_with_its_rule(make, rule):
    with pytest.raises(UsageError, match=rule):
        make()


def test_a_window_larger_than_the_image_is_refused():
    data = DataConfig(image_size=64, resize=(64, 64))
    with pytest.raises(UsageError, match="the local window lies inside the image"):
        Config(data=data)


def test_a_hole_as_large_as_the_image_is_refused():
    data = DataConfig(image_size=128, resize=(128, 128))
    with pytest.raises(UsageError, match="something has to remain"):
        Config(data=data)


def test_phases_follow_algorithm_1():
    config = Config(schedule=ScheduleConfig(2, 1, 5))
    phases = [config.phase_at(step) for step in range(5)]
    assert phases == [
        Phase.COMPLETION,
        Phase.COMPLETION,
        Phase.DISCRIMINATOR,
        Phase.JOINT,
        Phase.JOINT,
    ]


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("loss", "r1", 1.0),
        ("loss", "r2", 1.0),
        ("loss", "gradient_penalty", 10.0),
        ("loss", "feature_weight", 1.0),
        ("loss", "discriminator_noise", 0.1),
        ("augment", "color", True),
        ("augment", "translation", 0.125),
        ("augment", "cutout", 0.5),
        ("model", "spectral_norm", True),
    ],
)
def test_what_acts_on_discriminators_is_refused_without_them(section, name, value):
    message = (
        rf"^{section}\.{name} \(={value}\) .* with model.discriminators none: .*act on"
    )
    with pytest.raises(UsageError, match=message):
        override(
            Config(),
            {"model.discriminators": ["none"], f"{section}.{name}": [str(value)]},
        )


def test_a_joint_weight_is_refused_beside_updates_of_the_discriminators_alone():
    loss = LossConfig(joint_discriminator_weight=0.5)
    with pytest.raises(
        UsageError,
        match=r"^loss.joint_discriminator_weight \(=0.5\) must be left out with "
        "schedule.discriminator_updates above 1: .*loss.discriminator_weight.$",
    ):
        Config(loss=loss, schedule=ScheduleConfig(discriminator_updates=2))
    assert Config(loss=loss).loss.joint_discriminator_weight == 0.5


BAD_SHELVES = """
import sys
from gl_jax.config import Config
from gl_jax.options import override
from gl_jax.fields import UsageError

try:
    override(Config(), {"loss.adversarial": ["hing"]})
except UsageError as error:
    print(error)
print(sorted({"jax", "flax", "optax", "numpy", "tensorflow"} & set(sys.modules)))
"""


def test_a_bad_name_is_refused_before_jax_loads():
    run = subprocess.run(
        [sys.executable, "-c", BAD_SHELVES],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    message, loaded = run.stdout.splitlines()
    assert message.endswith("wasserstein, relativistic. Did you mean 'hinge'?")
    assert loaded == "[]"


D, J = Phase.DISCRIMINATOR, Phase.JOINT


@pytest.mark.parametrize(
    ("updates", "joint"),
    [(1, [J] * 6), (2, [D, J] * 3), (3, [D, D, J] * 2), (4, [D, D, D, J, D, D])],
)
def test_discriminators_may_have_several_updates_for_one_of_the_completion_network(
    updates, joint
):
    schedule = ScheduleConfig(1, 2, 9, discriminator_updates=updates)
    config = Config(schedule=schedule)
    assert [config.update_at(step) for step in range(9)] == [
        Phase.COMPLETION, D, D, *joint
    ]  # fmt: skip
    assert [config.phase_at(step) for step in range(3, 9)] == [J] * 6
    alone = Config(schedule=schedule, model=ModelConfig(discriminators="none"))
    assert {alone.update_at(step) for step in range(9)} == {Phase.COMPLETION}


def test_without_discriminators_there_is_one_phase():
    config = Config(model=ModelConfig(discriminators="none"))
    assert config.phase_at(499_999) is Phase.COMPLETION


@given(
    st.floats(0.01, 8),
    st.integers(0, 2**31 - 1),
    st.one_of(st.none(), st.tuples(*[st.floats(0, 1)] * 3)),
    st.dictionaries(st.sampled_from(["b1", "b2"]), st.floats(0, 1)),
)
def test_json_gives_the_tree_back(width, seed, mean_color, options):
    config = Config(
        model=ModelConfig(width=width),
        data=DataConfig(mean_color=mean_color),
        completion_optimizer=OptimizerConfig("adam", 1e-3, options),
        run=RunConfig(seed=seed, profile_steps=(1, 2)),
    )
    assert Config.from_json(config.to_json()) == config


def test_the_file_of_an_earlier_version_says_the_same():
    text = (Path(__file__).parent / "golden" / "0.1.0" / "config.json").read_text()
    assert Config.from_json(text) == Config()
    read = json.loads(Config().to_json())
    for section, values in json.loads(text).items():
        if section != "name":  # a later version may have more fields
            assert {name: read[section][name] for name in values} == values


@pytest.mark.parametrize(
    ("section", "name", "value", "message"),
    [
        ("data", "batch_siz", 8, "unknown field data.batch_siz. Did you mean"),
        ("data", "batch_size", "8", r"data.batch_size \(='8'\) must be a whole number"),
        ("data", "batch_size", True, "must be a whole number"),
        ("data", "resize", [256], "must be 2 whole numbers"),
        ("data", "flip", 1, "must be true or false"),
        ("loss", "normalizer", "imag", "Did you mean 'image'"),
        ("model", "width", None, "must be a number"),
        ("discriminator_optimizer", "learning_rate", -1, "^discriminator_optimizer.l"),
    ],
)
def test_json_that_does_not_fit_is_refused(section, name, value, message):
    tree = json.loads(Config().to_json())
    tree[section][name] = value
    with pytest.raises(UsageError, match=message):
        Config.from_json(json.dumps(tree))


@pytest.mark.parametrize("text", ["{", "[]", '{"data": 3}'])
def test_what_is_not_a_tree_is_refused(text):
    with pytest.raises(UsageError):
        Config.from_json(text)


def test_differences_name_every_field_that_differs():
    ours = override(Config(), {"data.batch-size": ["8"], "loss.alpha": ["0"]})
    assert list(differences(ours, Config())) == [
        ("data.batch_size", 8, 96),
        ("loss.alpha", 0.0, 0.0004),
    ]


def words_for(hint: Any) -> list[str]:
    """Words that a field of this type takes."""
    kind = describe(hint)
    examples = {
        "a whole number": ["1"],
        "a number": ["0.5"],
        "text": ["word"],
        "true or false": ["true"],
        "names with numbers": ["rho", "0.5"],
        "2 whole numbers": ["256", "256"],
        "3 numbers": ["0", "0.5", "1"],
    }
    kind = kind.removesuffix(", or none")
    return examples.get(kind) or [kind.removeprefix("one of ").split(", ")[0]]


FITTING = {
    "data.image_size": ["132"],
    "data.batch_size": ["8"],
    "holes.min_size": ["64"],
    "holes.max_size": ["100"],
    "holes.local_size": ["128"],
    "run.checkpoints": ["gs://bucket/run"],
    "completion_optimizer.name": ["adam"],
    "discriminator_optimizer.name": ["adam"],
}


def test_every_field_can_be_overridden_in_both_spellings():
    # With noise to become less, colour whose probability can be led, and an average.
    noisy = Config(
        loss=LossConfig(discriminator_noise=1.0),
        augment=AugmentConfig(color=True),
        run=RunConfig(ema_decay=0.5),
    )
    for name, hint in field_names(Config).items():
        words = FITTING.get(name) or words_for(hint)
        snake = override(noisy, {name: words})
        assert override(noisy, {name.replace("_", "-"): words}) == snake, name
        value: Any = snake
        for part in name.split("."):
            value = getattr(value, part)
        listed = list(value) if isinstance(value, tuple) else [value]
        if isinstance(value, dict):
            listed = [part for pair in value.items() for part in pair]
        assert [str(v).lower() for v in listed] == [
            str(type(v)(w) if isinstance(v, int | float) else w).lower()
            for v, w in zip(listed, words, strict=True)
        ], name


def test_a_field_that_may_be_empty_takes_none():
    hints = field_names(Config).items()
    optional = [name for name, hint in hints if describe(hint)[-9:] == ", or none"]
    assert len(optional) > 10
    for name in optional:
        changed = override(Config(), {name: ["none"]})
        assert list(differences(changed, Config())) == [], name


def test_fields_that_belong_together_change_together():
    small = override(
        Config(),
        {
            "data.image-size": ["64"],
            "data.resize": ["64", "96"],
            "holes.local-size": ["32"],
            "holes.min-size": ["16"],
            "holes.max-size": ["32"],
        },
    )
    assert small.data.image_size == 64


def test_suggestions_find_a_field_whose_section_is_missing_or_wrong():
    known = ["run.seed", "schedule.total-steps", "completion-optimizer.name"]
    assert suggest_option("seed", known) == " Did you mean --run.seed?"
    assert suggest_option("total-stps", known).endswith("--schedule.total-steps?")
    assert suggest_option("data.total-steps", known).endswith("--schedule.total-steps?")
    assert suggest_option("zzz", known) == ""
    assert did_you_mean("zzz", known) == ""


def test_the_table_of_optimizers_is_optaxs():
    # Muon has constants of its iteration besides.
    constants = {"muon": {"ns_coeffs", "ns_steps", "preconditioning"}}
    for name, options in OPTIMIZERS.items():
        home = optax.contrib if name == "muon" else optax
        parameters = inspect.signature(getattr(home, name)).parameters
        listed = set(options.split())
        assert listed <= set(parameters), name
        # What is not listed is no number: a mask, a type, a switch of numerical detail.
        known = {"learning_rate"} | listed | constants.get(name, set())
        for parameter in {*parameters} - known:
            default = parameters[parameter].default
            assert isinstance(default, bool) or default is None, (name, parameter)


def write(tmp_path: Path, text: str) -> str:
    file = tmp_path / "run.py"
    file.write_text("from gl_jax.config import Config\n" + text)
    return str(file)


def test_an_experiment_file_gives_its_config(tmp_path):
    assert (
        load_experiment(write(tmp_path, "config = Config(name='a')")).config.name == "a"
    )


def test_one_of_several_is_chosen_by_name(tmp_path):
    path = write(tmp_path, "configs = {n: Config(name=n) for n in ('mse', 'both')}")
    assert load_experiment(f"{path}:both").config.name == "both"


@pytest.mark.parametrize(
    ("text", "suffix", "message"),
    [
        ("configs = {'mse': Config(), 'both': Config()}", "", "run.py:mse .*mse, both"),
        ("configs = {'mse': Config()}", ":mze", "Did you mean 'mse'"),
        ("config = Config()", ":mse", "no experiment 'mse': it defines only `config`"),
        ("", "", "neither `config` nor `configs`"),
        ("config = 3", "", "holds no Config"),
        ("config = Config(", "", "cannot be read as an experiment"),
        ("import nothing_so_named", "", "nothing_so_named"),
        ("config = Config(name=1 / 0)", "", "ZeroDivisionError"),
    ],
)
def test_a_file_without_the_experiment_is_refused(tmp_path, text, suffix, message):
    path = write(tmp_path, text)
    with pytest.raises(UsageError, match=message):
        load_experiment(path + suffix)


def test_a_mistake_inside_an_experiment_names_the_file(tmp_path):
    path = write(
        tmp_path,
        "from gl_jax.config import ModelConfig\nconfig = Config(ModelConfig(width=9))",
    )
    with pytest.raises(UsageError, match=r"run.py: model.width \(=9\)"):
        load_experiment(path)


def test_a_missing_file_names_the_nearest_one(tmp_path):
    path = write(tmp_path, "config = Config()")
    with pytest.raises(
        UsageError, match=r"no experiment file .*Did you mean '.*run.py'"
    ):
        load_experiment(path.replace("run.py", "rum.py"))
