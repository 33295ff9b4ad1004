"""Models by their file, run or name, and the sizes that they were trained on."""

import os
import textwrap
from pathlib import Path
from typing import NamedTuple

from gl_jax.config import UsageError, did_you_mean, is_bucket
from gl_jax.experiment import Experiment, load_experiment
from gl_jax.weights import native
from gl_jax.weights.description import describe
from gl_jax.weights.native import Model

DEFAULT_MODEL = "demo"
HOW_TO_GET = (
    "Train one with `gl-jax train experiments/quickstart.py --workdir runs/first` and "
    "use it as --model runs/first (in Python gl_jax.load('runs/first')), or make one "
    "from other people's weights with `gl-jax convert`."
)
_started = _forked = False
"""True once a Completer uses JAX, and in forks of such a process. JAX's threads are not
forked, so a program in the fork would never end."""


def _remember_fork() -> None:
    global _forked
    _forked = _started


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_remember_fork)


def require_no_fork() -> None:
    """Raises UsageError in a fork of a process that uses JAX."""
    if _forked:
        raise UsageError(
            "this process is a fork of one with a loaded model, where JAX hangs; start "
            "processes with multiprocessing.get_context('spawn'), and load the model in "
            "each."
        )


def mark_started() -> None:
    """Notes that this process uses JAX, for its forks."""
    global _started
    _started = True


class Sizes(NamedTuple):
    """Image and hole sizes of a model's training, in pixels; by default the paper's."""

    image: int = 256
    hole: int = 128


def load_model(
    source: str | Path | None = None, experiment: str | Path | None = None
) -> Model:
    """Loads the model of a Completer; the arguments are those of `load`."""
    require_no_fork()
    own = load_experiment(str(experiment)) if experiment is not None else None
    return _load_model(source, own)


def _load_model(source: str | Path | None, own: Experiment | None) -> Model:
    shipped = native.shipped()
    if source is None and DEFAULT_MODEL not in shipped:
        raise UsageError(
            f"no model is given, and this version ships none. {HOW_TO_GET}"
        )
    name = DEFAULT_MODEL if source is None else str(source)
    path = Path(name)
    if is_bucket(name) or path.is_dir():
        from gl_jax.weights import export

        if is_bucket(name) or export.is_run(path) or not any(path.iterdir()):
            return export.from_run(name, experiment=own)
    if path.suffix == ".safetensors" and path.is_file():
        return native.load(path, own)
    if path.exists():
        from gl_jax.weights import conversion

        return conversion.convert(path)
    if name in shipped:
        return native.load(shipped[name])
    near = did_you_mean(name, shipped)
    known = f" Shipped: {', '.join(shipped)}." if shipped else ""
    raise UsageError(
        f"model {name!r} is not a file, the folder of a training run or a shipped model."
        f"{near}{known}"
    )


def describe_available() -> str:
    """Describes the shipped models, and how to get others, as text."""
    shipped = native.shipped()
    if not shipped:
        return f"This version ships no model. {HOW_TO_GET}"
    about = [
        f"{name}  ({path.stat().st_size / 1e6:.1f} MB)\n"
        + textwrap.indent(describe(native.load(path)), "  ")
        for name, path in shipped.items()
    ]
    return "\n\n".join([*about, HOW_TO_GET.replace("one", "another", 1)])


def trained_sizes(model: Model) -> Sizes:
    """Returns the sizes that the model was trained on, by default the paper's."""
    default, summary = Sizes(), model.training
    image = summary.get("image size", default.image)
    *_, hole = str(summary.get("holes", default.hole)).split()
    usable = isinstance(image, int) and image >= 16 and hole.isdigit() and int(hole) > 0
    return Sizes(image, int(hole)) if usable else default
