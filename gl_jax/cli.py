"""The command line: finds the verb, reads its words, and returns an exit code.

Nothing heavy is imported here. A mistake of the caller's is refused before JAX loads.
Exit codes: 0 done, 1 a run failed, 2 a mistake of the caller's, 130 Ctrl-C before
training, 141 nobody reads the output, 143 stopped on request with the state saved. An
unexpected exception is a bug and keeps its traceback.
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
    """Runs one verb and returns its exit code; see the head of this file."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file's name need not be text in the terminal's encoding.
        sys.stdout.reconfigure(errors="backslashreplace")
    # Everything here is float32; JAX would make float64 of some of it.
    os.environ["JAX_ENABLE_X64"] = "0"
    try:
        _run(words)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has left, as `head` does. Python would complain once
        # more when it closes stdout.
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
        # JAX and the standard library raise RuntimeErrors too; those are bugs here.
        if not type(error).__module__.startswith("gl_jax."):
            raise
        print(f"gl-jax: error: {error}", file=sys.stderr)
        return 1
    return 0


def _missing_platform() -> str | None:
    """Returns a sentence if the platform that JAX_PLATFORMS names is not to be had."""
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
    """Calls the verb's function with the values of the words, or prints its help."""
    function, prog = VERBS[verb], f"gl-jax {verb}"
    own = options.of_function(function, without=Experiment)
    asks_help = "-h" in words or "--help" in words
    experiment = None
    if len(own) < len(inspect.signature(function).parameters):
        reference, words = _take_experiment(prog, words, required=not asks_help)
        experiment = load_experiment(reference) if reference else Experiment(Config())
        prog = f"{prog} {reference or 'EXPERIMENT.py'}"
    config = experiment and experiment.config
    if asks_help:
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
    """The first word that names an experiment file, and the other words."""
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
