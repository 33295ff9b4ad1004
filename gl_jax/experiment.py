"""Experiment files: Python files that define one run or several.

A file defines `config`, or `configs` (a dictionary of named ones). It may define a
function `parts(config)` that returns the parts of the run (`gl_jax.training.Parts`), to
replace the paper's. Only a file that the user names is executed, never its text as stored
with a run. A run's config.json is read here too.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gl_jax.config import Config, UsageError, did_you_mean
from gl_jax.files import reading

MOST_LINES = 40
"""Most lines of a diff that are shown."""


@dataclass(frozen=True)
class Experiment:
    """A run defined by a file."""

    config: Config
    file: str = ""
    text: str = ""
    make_parts: Callable[[Config], Any] | None = None

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return Path(self.file).name

    def parts(self, config: Config) -> Any:
        """Returns the parts from the file's `parts(config)`.

        Raises UsageError if the file has no such function, or the function fails.
        """
        if self.make_parts is None:
            raise UsageError(f"{self.file} defines no function parts(config).")
        try:
            return self.make_parts(config)
        except UsageError as error:
            raise UsageError(f"{self.file}: parts(config): {error}") from error
        except Exception as error:
            raise UsageError(f"{self.file}: parts(config) failed: {error!r}") from error


def load_experiment(reference: str) -> Experiment:
    """Loads the experiment `FILE.py`, or `FILE.py:NAME` from a file with several.

    Raises UsageError if the file, the name, or a Config in it is missing.
    """
    path, separator, name = reference.partition(".py:")
    path += ".py" if separator else ""
    file = Path(path)
    if not file.is_file():
        names = (
            [str(f) for f in file.parent.glob("*.py")] if file.parent.is_dir() else []
        )
        raise UsageError(
            f"there is no experiment file {path!r}.{did_you_mean(path, names)}"
        )
    scope: dict[str, Any] = {"__name__": file.stem, "__file__": str(file)}
    try:
        text = file.read_text(encoding="utf-8")
        exec(compile(text, str(file), "exec"), scope)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    except Exception as error:
        raise UsageError(
            f"{path} cannot be read as an experiment: {error!r}"
        ) from error
    make_parts = scope.get("parts")
    if make_parts is not None and not callable(make_parts):
        raise UsageError(
            f"{path} defines `parts` as {make_parts!r:.60}; it must be a function of a "
            "Config that returns gl_jax.training.Parts."
        )
    return Experiment(_config(path, name, scope), path, text, make_parts)


def require_same_text(experiment: Experiment, known: str, holder: str) -> None:
    """Raises UsageError, with a diff, if the file's text differs from `known`."""
    if experiment.text == known:
        return
    lines = list(
        difflib.unified_diff(
            known.splitlines(), experiment.text.splitlines(),
            f"{experiment.name} of the run", experiment.file, "", "", 1, "",
        )
    )  # fmt: skip
    more = [f"... and {len(lines) - MOST_LINES} more lines"]
    shown = lines[:MOST_LINES] + (more if len(lines) > MOST_LINES else [])
    raise UsageError(
        f"{holder} was trained with another text of {experiment.name}, which defines its "
        "parts. Restore that text, or choose another --workdir.\n" + "\n".join(shown)
    )


def _config(path: str, name: str, scope: dict[str, Any]) -> Config:
    named = scope.get("configs", {})
    config = named.get(name) if name else scope.get("config")
    if isinstance(config, Config):
        return config
    if not named:
        known = (
            "only `config`" if "config" in scope else "neither `config` nor `configs`"
        )
        rule = f"no experiment {name!r}" if name else "no Config"
        raise UsageError(f"{path} holds {rule}: it defines {known}.")
    missing = f"no experiment {name!r}" if name else "several experiments"
    raise UsageError(
        f"{path} holds {missing}; choose one of them, as in {path}:{next(iter(named))} "
        f"(known: {', '.join(named)}).{did_you_mean(name, named)}"
    )


def read_config(file: Path) -> Config:
    """Reads a run's config.json; UsageError, with its name, if it is damaged."""
    with reading(file):
        content = file.read_bytes()
    try:
        return Config.from_json(content.decode())
    except (UsageError, UnicodeDecodeError) as error:
        text = str(error).rstrip(".")
        raise UsageError(
            f"{file} is damaged: {text}. Restore the original file."
        ) from error
