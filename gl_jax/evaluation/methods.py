"""Methods by the words that name them: `patchmatch`, or `semantic=WEIGHTS`.

Ours, `gl`, is not among them; `compare` and `evaluate` complete with it themselves.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gl_jax.config import UsageError, did_you_mean
from gl_jax.evaluation.baselines import BASELINES, Baseline, fair

if TYPE_CHECKING:
    from gl_jax.weights.native import Model

OURS = "gl"


class Learned(NamedTuple):
    """A method with a network of one size."""

    experiment: str
    """File that trains one."""
    blends: bool = False
    """The method includes blending."""


LEARNED: Mapping[str, Learned] = {
    "context_encoder": Learned("experiments/context_encoder.py"),
    "semantic": Learned("experiments/dcgan.py", blends=True),
}


def known() -> tuple[str, ...]:
    """Returns the names of all methods."""
    return (OURS, *BASELINES, *LEARNED)


def is_named(word: str) -> bool:
    """Returns whether this is NAME or NAME=WEIGHTS of a method other than ours."""
    return word.partition("=")[0] in (*BASELINES, *LEARNED)


@dataclass(frozen=True)
class Method:
    """A method ready for use."""

    name: str
    fill: Baseline
    seamless: bool = True
    """If set, its pictures want no blending: it copies, continues, or blends by itself."""
    model: "Model | None" = None
    side: int | None = None
    """Side in pixels of the squares that its network sees."""


def parse(word: str) -> tuple[str, str]:
    """Returns the name and the weights of `NAME` or `NAME=WEIGHTS`; loads nothing.

    Raises UsageError for an unknown name, and weights that are missing or not wanted.
    """
    name, _, weights = word.partition("=")
    if not is_named(word):
        raise UsageError(
            f"method {name!r} is unknown.{did_you_mean(name, known())} "
            f"Known: {', '.join(known())}, or in a comparison the path of a model."
        )
    if name in BASELINES and weights:
        raise UsageError(f"method {name} has no weights; leave out ={weights}.")
    if name in LEARNED and not weights:
        raise UsageError(
            f"method {name} needs weights: {name}=FILE, a .safetensors file or the folder "
            f"of a training run; {LEARNED[name].experiment} trains one."
        )
    if weights and not Path(weights).exists():
        raise UsageError(f"method {name}: there is no file or folder {weights!r}.")
    return name, weights


def load(word: str) -> Method:
    """Returns the method that `parse` understands, with its weights if it has some.

    Raises UsageError, also if the file holds another kind of network.
    """
    name, weights = parse(word)
    if name in BASELINES:
        return Method(name, BASELINES[name])
    from gl_jax.inpainting.loading import load_model
    from gl_jax.weights import export

    path = Path(weights)
    if export.is_run(path):
        model = export.from_run(path, discriminators=name == "semantic")
    else:
        model = load_model(weights)
    method = of_model(model)
    if method is None or method.name != name:
        raise UsageError(
            f"method {name}: {weights} holds a {model.architecture.module}, another "
            f"network than it needs; {LEARNED[name].experiment} trains one."
        )
    return method


def of_model(model: "Model") -> Method | None:
    """Returns the method that a model is the network of; None for one like ours."""
    from gl_jax.weights.architectures import METHODS

    name = METHODS.get(type(model.architecture))
    if name is None:
        return None
    room = importlib.import_module(f"gl_jax.evaluation.baselines.{name}")
    fill = fair(getattr(room, name)(model))
    side = model.architecture.size  # type: ignore[union-attr]
    return Method(name, fill, LEARNED[name].blends, model, side)


def measured(
    word: str,
    model: str | Path | None,
    experiment: Path | None,
    loaded: "Model | None" = None,
) -> tuple["Model | None", Method | None]:
    """Returns the model, and the method if it is not our network.

    `word` is `gl` for the model that `model` and `experiment` name (`loaded`, if it is
    loaded already), or one of `parse`.
    """
    if word == OURS:
        from gl_jax.inpainting.loading import load_model

        loaded = loaded or load_model(model, experiment)
        return loaded, of_model(loaded)
    parse(word)
    if model is not None or experiment is not None:
        raise UsageError(
            f"--model and --experiment are of the method gl, not of {word}; leave them out."
        )
    method = load(word)
    return method.model, method


def fingerprint_of(model: "Model | None", method: Method | None) -> str:
    """Returns a text that identifies the model or method, for the journal of results."""
    from gl_jax.evaluation.measures.scorer import fingerprint

    name = f"{method.name} " if method else ""
    return name + (fingerprint(model) if model else "")


def notes(method: Method, side: int) -> list[str]:
    """Returns a line on what a method does with squares of `side` pixels, if there is one."""
    if method.side in (None, side):
        return []
    return [
        f"{method.name} completes {method.side}x{method.side} pixels only: a square around "
        "each hole, resized to that if it is larger, and the result resized back."
    ]
