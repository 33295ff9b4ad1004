"""Converts other projects' weights, recognised by their content, to a `Model`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gl_jax.config import UsageError
from gl_jax.files import read_start, reading
from gl_jax.weights import arrangement, description, layouts, native, pytorch, torch7
from gl_jax.weights.architectures import Architecture
from gl_jax.weights.arrays import Tree, flat, require_finite
from gl_jax.weights.convention import Color
from gl_jax.weights.layouts import DISCRIMINATOR_LAYOUTS, LAYOUTS
from gl_jax.weights.native import Discriminator, Model


@dataclass(frozen=True)
class Parts:
    """Networks and mean colour from one file, or from the files of one folder."""

    layout: str
    variables: Tree | None = None
    architecture: Architecture | None = None
    discriminator: Discriminator | None = None
    mean: Color | None = None


def convert(source: str | Path, config: str | Path | None = None) -> Model:
    """Returns the model in another project's file, or in a folder of its files.

    `config` is a JSON file with the mean colour as `mpv` or `mean_color`, RGB in [0, 1];
    by default `config.json` beside the weights, as in GLCIC-PyTorch. A folder may hold
    a completion network and its discriminators in separate files. Raises UsageError if
    no layout is recognised or the arrays do not fit it.
    """
    source = Path(source)
    parts = find(source)
    if parts.variables is None or parts.architecture is None:
        raise UsageError(
            f"{source} holds discriminators without a completion network. Convert the "
            "folder that has both (GLCIC-PyTorch: model_cn and model_cd)."
        )
    mean = _mean_of(parts, source, config)
    if mean is None:
        raise UsageError(
            f"{source} does not say which colour fills the hole. Put its config.json "
            'beside it, or pass --config with {"mpv": [red, green, blue]}, in [0, 1].'
        )
    return _model(parts, mean, source.stem)


def describe(source: str | Path, config: str | Path | None = None) -> str:
    """Describes a weights file of gl_jax or of another project, one fact per line."""
    source = Path(source)
    if source.is_file() and _is_safetensors(source):
        return description.describe(native.load(source))
    parts = find(source)
    if parts.variables is None or parts.architecture is None:
        assert parts.discriminator is not None
        numbers = description.numbers_of(parts.discriminator.architecture)
        return (
            f"came as         {parts.layout}\n"
            f"discriminators  {numbers}; no completion network"
        )
    mean = _mean_of(parts, source, config)
    model = _model(parts, mean or (0.0, 0.0, 0.0), source.stem)
    unknown = "" if mean else "\nmean colour unknown: `gl-jax convert` needs --config"
    return description.describe(model) + unknown


def _model(parts: Parts, mean: Color, name: str) -> Model:
    assert parts.variables is not None and parts.architecture is not None
    layout = LAYOUTS[parts.layout]
    return Model(
        parts.variables,
        parts.architecture,
        layout.encoding.completion(mean),
        parts.discriminator,
        name=name,
        licence=layout.licence,
        source=parts.layout,
    )


def find(source: Path) -> Parts:
    """Returns the network, discriminators and mean colour in a file or a folder."""
    if not source.is_dir():
        return read_parts(open_tree(source), str(source))
    networks: dict[str, Parts] = {}
    for file in sorted(source.iterdir()):
        if file.is_file() and file.suffix not in (".json", ".md", ".txt"):
            parts = read_parts(open_tree(file), str(file))
            for kind in ("variables", "discriminator"):
                if getattr(parts, kind) is None:
                    continue
                if kind in networks:
                    raise UsageError(
                        f"{source} holds more than one model. Convert one of its files."
                    )
                networks[kind] = parts
    if not networks:
        raise UsageError(f"{source} holds no weights.")
    parts = next(iter(networks.values()))
    if len({other.layout for other in networks.values()}) > 1:
        raise UsageError(f"{source} holds parts of different projects.")
    if len(networks) == 2:
        discriminator = networks["discriminator"].discriminator
        parts = replace(networks["variables"], discriminator=discriminator)
    return parts


def open_tree(path: Path) -> Any:
    """Reads a foreign file; its first bytes select the reader."""
    start = read_start(path, 16)
    if start.startswith((pytorch.ZIP_START, b"\x80")):
        return pytorch.read(path)
    if _is_safetensors(path):
        raise UsageError(
            f"{path} is already a safetensors file; `gl-jax inspect` shows its contents."
        )
    return torch7.read(path)


def read_parts(tree: Any, name: str) -> Parts:
    """Returns the networks in the contents of a file, converted to gl_jax's layout.

    Raises UsageError, with `name` in its message, if arrays do not fit.
    """
    mean = _color(tree.get("mean")) if isinstance(tree, dict) else None
    layout, arrays = layouts.recognise(tree, name)
    source = arrangement.Source(arrays)
    makers = discriminator_makers = architecture = made = None
    if layout in LAYOUTS and layouts.share(LAYOUTS[layout], arrays) >= 0.5:
        makers, architecture = arrangement.completion(source, LAYOUTS[layout])
    known = DISCRIMINATOR_LAYOUTS.get(layout)
    if known is not None and layouts.discriminator_names(known) & set(arrays):
        discriminator_makers, made = arrangement.discriminator(source, known)
    source.require_all_used(f"{name} (layout {layout})")
    variables = discriminator = None
    if makers:
        variables = arrangement.make(makers)
        require_finite(flat(variables), name)
    if discriminator_makers and made:
        discriminator = Discriminator(arrangement.make(discriminator_makers), made)
        require_finite(flat(discriminator.variables), name)
    return Parts(layout, variables, architecture, discriminator, mean)


# --- the mean colour


def _mean_of(parts: Parts, source: Path, config: str | Path | None) -> Color | None:
    """Returns the mean colour of the layout, `config`, the weights or config.json."""
    layout_mean = LAYOUTS[parts.layout].mean
    if layout_mean is not None:
        return layout_mean
    if config is not None:
        mean = _stated_mean(Path(config))
        if mean is None:
            raise UsageError(f"{config} has no `mpv` of three numbers in [0, 1].")
        return mean
    default = (source if source.is_dir() else source.parent) / "config.json"
    if parts.mean is not None or not default.is_file():
        return parts.mean
    return _stated_mean(default)


def _stated_mean(path: Path) -> Color | None:
    with reading(path):
        data = path.read_bytes()
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error}.") from error
    if not isinstance(values, Mapping):
        return None
    return _color(values.get("mpv", values.get("mean_color")))


def _color(value: Any) -> Color | None:
    if isinstance(value, np.ndarray) and value.shape == (3,):
        value = value.tolist()
    if not isinstance(value, list | tuple) or len(value) != 3:
        return None
    numbers = all(isinstance(channel, int | float) for channel in value)
    if not numbers or not all(0 <= channel <= 1 for channel in value):
        return None
    red, green, blue = (float(channel) for channel in value)
    return red, green, blue


def _is_safetensors(path: Path) -> bool:
    start = read_start(path, 9)
    length = int.from_bytes(start[:8], "little")
    return start[8:9] == b"{" and length <= path.stat().st_size
