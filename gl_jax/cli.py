"""The command line: finds the verb, reads its options, and returns an exit code.

Nothing heavy is imported here; a user's mistake is refused before JAX loads. Exit codes:
0 done, 1 a run failed, 2 a user's mistake, 130 Ctrl-C before training, 141 stdout was
closed by its reader, 143 stopped on request with the state saved. An unexpected exception
is a bug and keeps its traceback.
"""

import dataclasses
import inspect
import io
import os
import sys
from collections.abc import Callable, Sequence

from gl_jax import options
from gl_jax.config import Config, UsageError, did_you_mean
from gl_jax.experiment import Experiment, load_experiment
from gl_jax.verbs import VERBS
from gl_jax.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb and returns its exit code, one of those at the head of this file.

    `arguments` are the words after `gl-jax`, by default those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The terminal's encoding may lack characters of a file's name.
        sys.stdout.reconfigure(errors="backslashreplace")
    # All computations are float32; if this were set to 1, JAX would use float64 in some.
    os.environ["JAX_ENABLE_X64"] = "0"
    try:
        _run(words)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of stdout has ended, as `head` does. Without this, Python would fail
        # once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except UsageError as error:
        print(f"gl-jax: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("gl-jax: interrupted", file=sys.stderr)
        return 130
    except (RuntimeError, AssertionError) as error:
        if platform := _missing_platform():
            print(f"gl-jax: error: {platform}", file=sys.stderr)
            return 2
        # RuntimeErrors of JAX or the standard library are bugs and keep their traceback.
        if not type(error).__module__.startswith("gl_jax."):
            raise
        print(f"gl-jax: error: {error}", file=sys.stderr)
        return 1
    return 0


def _missing_platform() -> str | None:
    """Returns an error message if the platform that JAX_PLATFORMS names is missing."""
    wanted = os.environ.get("JAX_PLATFORMS")
    if not wanted or "jax" not in sys.modules:
        return None
    try:
        sys.modules["jax"].devices()
    except (RuntimeError, AssertionError):
        return (
            f"JAX_PLATFORMS (={wanted}) must name a platform that JAX finds here: leave "
            "it out, or install the platform's plugin (pip install '.[cuda]', '.[tpu]')."
        )
    return None


def _run(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
    elif words[0] == "--version":
        print(f"gl-jax {__version__}")
    elif words[0] in VERBS:
        _call(words[0], words[1:])
    else:
        near = did_you_mean(words[0], VERBS)
        raise UsageError(f"unknown verb {words[0]!r}.{near} Known: {', '.join(VERBS)}.")


def _overview() -> str:
    lines = [f"  {verb:10}{_first_line(VERBS[verb])}" for verb in VERBS]
    return "\n".join(
        [
            "usage: gl-jax VERB ...",
            "",
            "Globally and locally consistent image completion (GLCIC) in JAX.",
            "",
            *lines,
            "",
            "`gl-jax VERB --help` explains a verb and all of its options;",
            "`gl-jax --version` prints the version.",
        ]
    )


def _first_line(function: Callable[..., None]) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0]


def _call(verb: str, words: list[str]) -> None:
    """Calls the verb's function with the values of its options, or prints its help."""
    function, prog = VERBS[verb], f"gl-jax {verb}"
    own = options.of_function(function, without=Experiment)
    wants_help = "-h" in words or "--help" in words
    experiment = None
    if len(own) < len(inspect.signature(function).parameters):
        reference, words = _take_experiment(prog, words, required=not wants_help)
        experiment = load_experiment(reference) if reference else Experiment(Config())
        prog = f"{prog} {reference or 'EXPERIMENT.py'}"
    config = experiment and experiment.config
    if wants_help:
        print(options.help_text(prog, inspect.getdoc(function) or "", own, config))
        return
    fields = options.of_tree(config) if config else []
    given = options.split([*own, *fields], words)
    experiments = []
    if experiment is not None:
        names = {option.name for option in own}
        changes = {name: given.pop(name) for name in [*given] if name not in names}
        config = options.override(experiment.config, changes)
        experiments = [dataclasses.replace(experiment, config=config)]
    values, named = options.arguments(own, given, prog)
    function(*experiments, *values, **named)


def _take_experiment(
    prog: str, words: list[str], *, required: bool
) -> tuple[str | None, list[str]]:
    """Returns the first word that names an experiment file, and the other words."""
    for index, word in enumerate(words):
        if word.endswith(".py") or ".py:" in word:
            return word, words[:index] + words[index + 1 :]
    if not required:
        return None, words
    given = "" if not words or words[0].startswith("-") else f", not {words[0]!r}"
    raise UsageError(
        f"{prog} needs an experiment file{given}; for example: "
        f"{prog} experiments/quickstart.py"
    )
