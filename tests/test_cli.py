"""The command line: what it takes, what it refuses, and how it leaves."""

import inspect
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from gl_jax import cli
from gl_jax.config import Config, UsageError
from gl_jax.fields import field_names
from gl_jax.version import __version__

EXPERIMENT = """
from gl_jax.config import Config, ScheduleConfig
config = Config(name="tiny", schedule=ScheduleConfig(total_steps=7))
"""


@pytest.fixture
def experiment(tmp_path: Path) -> str:
    file = tmp_path / "tiny.py"
    file.write_text(EXPERIMENT)
    return str(file)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Config, Path]]:
    """The runs that were started; none of them trains."""
    started: list[tuple[Config, Path]] = []
    loop = types.ModuleType("gl_jax.training.loop")
    loop.run = lambda config, workdir, *, experiment: started.append((config, workdir))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gl_jax.training.loop", loop)
    monkeypatch.setattr("gl_jax.training.loop", loop, raising=False)
    return started


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def verb() -> None:
        """Fails."""
        raise error

    monkeypatch.setitem(cli.VERBS, "fail", verb)


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line with which the words are refused, without its prefix."""
    assert cli.main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("gl-jax: error: ")
    return printed.err.removeprefix("gl-jax: error: ").rstrip()


def test_train_hands_config_and_workdir_to_the_loop(experiment, runs):
    assert cli.main(["train", experiment, "--workdir", "some/where"]) == 0
    ((config, workdir),) = runs
    assert (config.name, config.schedule.total_steps) == ("tiny", 7)
    assert workdir == Path("some/where")


def test_options_replace_fields_in_either_spelling(experiment, runs):
    words = (
        "--schedule.total-steps 9 --data.batch_size=8 --data.resize 256 300 --data.flip"
    )
    assert cli.main(["train", *words.split(), experiment, "--workdir", "w"]) == 0
    ((config, _),) = runs
    assert config.schedule.total_steps == 9
    assert config.data.batch_size == 8
    assert config.data.resize == (256, 300)
    assert config.data.flip


def test_a_switch_can_be_turned_off(tmp_path, runs):
    file = tmp_path / "flipped.py"
    file.write_text(
        "from gl_jax.config import Config, DataConfig\n"
        "config = Config(data=DataConfig(flip=True))\n"
    )
    assert cli.main(["train", str(file), "--data.no-flip", "--workdir", "w"]) == 0
    assert not runs[0][0].data.flip


def test_another_optimizer_starts_without_the_options_of_the_last(tmp_path, runs):
    file = tmp_path / "adam.py"
    file.write_text(
        "from gl_jax.config import Config, OptimizerConfig\n"
        "adam = OptimizerConfig('adam', 1e-3, {'b1': 0.5})\n"
        "config = Config(completion_optimizer=adam)\n"
    )
    words = (
        "--completion-optimizer.name sgd --completion-optimizer.options.momentum 0.9"
    )
    assert cli.main(["train", str(file), *words.split(), "--workdir", "w"]) == 0
    assert runs[0][0].completion_optimizer.options == {"momentum": 0.9}


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("--distributed", (None, None, None, 100)),
        (
            "--coordinator host:1234 --process-count 2 --process-id 1 --heartbeat 20",
            ("host:1234", 2, 1, 20),
        ),
    ],
)
def test_several_hosts_join_before_the_run(
    experiment, runs, monkeypatch, words, options
):
    joined = []
    parallel = types.ModuleType("gl_jax.parallel")
    parallel.initialize = lambda *given, heartbeat: joined.append(  # type: ignore[attr-defined]
        ((*given, heartbeat), len(runs))
    )
    monkeypatch.setitem(sys.modules, "gl_jax.parallel", parallel)
    monkeypatch.setattr("gl_jax.parallel", parallel, raising=False)
    assert cli.main(["train", experiment, "--workdir", "w", *words.split()]) == 0
    assert joined == [(options, 0)]
    assert len(runs) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--schedule.total-stps 3", "Did you mean --schedule.total-steps?"),
        ("--total-steps 3", "Did you mean --schedule.total-steps?"),
        ("--wrkdir w", "Did you mean --workdir?"),
        (
            "--data.batch-size 2.5",
            "data.batch_size (=2.5) must be a whole number.",
        ),
        ("--data.batch-size", "data.batch_size takes a whole number, and got none."),
        ("--data.resize 256", "data.resize takes 2 whole numbers, not 1: 256."),
        ("--model.width 9", "model.width (=9.0) must be in (0, 8]."),
        ("--model.discriminators gloabl", "Did you mean 'global'?"),
        ("--loss.alpha nan", "loss.alpha (=nan) must be a number."),
        ("--discriminator-optimizer.name adm", "Did you mean 'adam'?"),
        (
            "--completion-optimizer.options.bet 1",
            "completion_optimizer.options.bet is no option of adadelta.",
        ),
        ("--completion-optimizer.learning-rate 0", "completion_optimizer.learning"),
        (
            "--workdir w --process-count two",
            "--process-count (='two') must be a whole number, or none.",
        ),
        ("--workdir", "--workdir takes a path, and got none."),
        ("--workdir w stray", "--workdir takes a path, not 2: w stray."),
        ("stray --workdir w", "no option takes the word 'stray'."),
        ("--no-workdir w", "unknown option --no-workdir. Did you mean --workdir?"),
        ("--data.flip=true", "needs --workdir"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(
    experiment, runs, capsys, words, message
):
    assert message in refusal(capsys, "train", experiment, *words.split())
    assert runs == []


def test_unknown_verbs_and_missing_experiments_are_refused(capsys, tmp_path):
    assert "Did you mean 'train'?" in refusal(capsys, "trian")
    assert "needs an experiment file" in refusal(capsys, "train", "--workdir", "w")
    missing = str(tmp_path / "none.py")
    assert "there is no experiment file" in refusal(capsys, "train", missing)


def test_a_failed_run_is_one_line_and_exit_code_1(monkeypatch, capsys):
    class DivergedError(RuntimeError):
        __module__ = "gl_jax.training.loop"

    raising(monkeypatch, DivergedError("the loss is NaN at step 3."))
    assert cli.main(["fail"]) == 1
    assert capsys.readouterr().err == "gl-jax: error: the loss is NaN at step 3.\n"


def test_a_usage_error_found_during_the_run_is_exit_code_2(monkeypatch, capsys):
    raising(monkeypatch, UsageError("the folder is empty."))
    assert refusal(capsys, "fail") == "the folder is empty."


@pytest.mark.parametrize("bug", [RuntimeError("in a library"), ValueError("ours")])
def test_a_bug_keeps_its_traceback(monkeypatch, bug):
    raising(monkeypatch, bug)
    with pytest.raises(type(bug), match=str(bug)):
        cli.main(["fail"])


def test_ctrl_c_is_130_and_a_saved_stop_143(monkeypatch, capsys):
    raising(monkeypatch, KeyboardInterrupt())
    assert cli.main(["fail"]) == 130
    assert capsys.readouterr().err == "gl-jax: interrupted\n"
    raising(monkeypatch, SystemExit(143))
    with pytest.raises(SystemExit, match="143"):
        cli.main(["fail"])


def test_version_and_overview(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"gl-jax {__version__}\n"
    assert cli.main([]) == 0
    overview = capsys.readouterr().out
    assert all(f"  {verb}" in overview for verb in cli.VERBS)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_the_help_of_every_verb_explains_every_option(verb, capsys):
    assert cli.main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: gl-jax {verb}")
    entries = re.findall(r"^  (\S.*)\n((?: {6}.*\n)*)", text, re.MULTILINE)
    assert len(entries) >= len(inspect.signature(cli.VERBS[verb]).parameters)
    for option, explained in entries:
        assert len(explained.rpartition(" (")[0].split()) > 2, option


def test_the_help_of_train_names_every_field_with_the_experiments_default(
    experiment, capsys
):
    assert cli.main(["train", experiment, "--help"]) == 0
    text = capsys.readouterr().out
    for name in field_names(Config):
        assert f"--{name.replace('_', '-')}" in text
    facts = "(a whole number; default: 7; at least 1; may change on resume)"
    assert facts in " ".join(text.split())


def run_python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


HEAVY = "[m for m in ('jax', 'tensorflow', 'numpy', 'orbax') if m in sys.modules]"


def test_help_and_refusals_load_no_heavy_library(experiment):
    code = f"""
import sys
from gl_jax.cli import main
assert main(["train", {experiment!r}, "--workdir", "w", "--model.width", "x"]) == 2
assert main(["train", {experiment!r}, "--help"]) == 0
print({HEAVY})
"""
    assert run_python(code).splitlines()[-1] == "[]"


def test_the_package_loads_no_heavy_library():
    code = f"import sys, gl_jax; print(gl_jax.__version__, {HEAVY})"
    assert run_python(code) == f"{__version__} []\n"


def test_the_package_has_no_other_names():
    import gl_jax

    with pytest.raises(AttributeError, match="no attribute 'compleet'"):
        _ = gl_jax.compleet
    for name in ("load", "complete", "Completer", "use_compilation_cache"):
        assert name in dir(gl_jax) and callable(getattr(gl_jax, name))
