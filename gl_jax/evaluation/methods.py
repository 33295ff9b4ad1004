"""Inpainting methods by name: `patchmatch`, or `semantic=WEIGHTS`.

Ours, `gl`, is not among them; `compare` and `evaluate` run it themselves.
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
    """A method whose network takes images of one size."""

    experiment: str
    """Experiment file that trains the network."""
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
    """Returns True for NAME or NAME=WEIGHTS of a method other than ours."""
    return word.partition("=")[0] in (*BASELINES, *LEARNED)


@dataclass(frozen=True)
class Method:
    """A method ready for use."""

    name: str
    fill: Baseline
    seamless: bool = True
    """Its pictures need no blending: it copies, continues the border, or blends itself."""
    model: "Model | None" = None
    side: int | None = None
    """Side in pixels of the squares that its network takes; None for any size."""


def parse(word: str) -> tuple[str, str]:
    """Returns the name and the weights of `NAME` or `NAME=WEIGHTS`; loads nothing.

    Raises UsageError for an unknown name, and weights that are missing or superfluous.
    """
    name, _, weights = word.partition("=")
    if not is_named(word):
        raise UsageError(
            f"method {name!r} is unknown.{did_you_mean(name, known())} "
            f"Known: {', '.join(known())}, or in a comparison the path or name of a model."
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
    """Loads the method of a word that `parse` accepts.

    Raises UsageError as `parse` does, and if the file holds another kind of network.
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
            f"method {name} needs another network than the {model.architecture.module} "
            f"in {weights}; {LEARNED[name].experiment} trains one."
        )
    return method


def of_model(model: "Model") -> Method | None:
    """Returns the method that a model's network belongs to; None for one like ours."""
    from gl_jax.weights.architectures import METHODS

    name = METHODS.get(type(model.architecture))
    if name is None:
        return None
    module = importlib.import_module(f"gl_jax.evaluation.baselines.{name}")
    fill = fair(getattr(module, name)(model))
    side = model.architecture.size  # type: ignore[union-attr]
    return Method(name, fill, LEARNED[name].blends, model, side)


def measured(
    word: str,
    model: str | Path | None,
    experiment: Path | None,
    loaded: "Model | None" = None,
) -> tuple["Model | None", Method | None]:
    """Returns the model and, unless it is a network like ours, its method.

    `word` is `gl` for the model that `model` and `experiment` name (`loaded`, if it is
    loaded already), or another word for `load`. Raises UsageError as `load` does, and if
    a model is named beside another method.
    """
    if word == OURS:
        from gl_jax.inpainting.loading import load_model

        loaded = loaded or load_model(model, experiment)
        return loaded, of_model(loaded)
    parse(word)
    if model is not None or experiment is not None:
        raise UsageError(
            f"--model and --experiment apply to the method gl only, not to {word}; leave "
            "them out."
        )
    method = load(word)
    return method.model, method


def fingerprint_of(model: "Model | None", method: Method | None) -> str:
    """Returns a text that identifies the model or method, for the journal of results."""
    from gl_jax.evaluation.measures.scorer import fingerprint

    name = f"{method.name} " if method else ""
    return name + (fingerprint(model) if model else "")


def notes(method: Method, side: int) -> list[str]:
    """Returns a note if the method resizes squares of `side` pixels."""
    if method.side in (None, side):
        return []
    return [
        f"{method.name} completes {method.side}x{method.side} pixels only: a larger square "
        "around a hole is resized to that, and the result back."
    ]
