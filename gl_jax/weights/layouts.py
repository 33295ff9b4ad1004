"""Layouts of other projects' weights, and the recognition of a file's layout.

A layout lists the names of the convolutions and the normalisations, in the order of the
paper's table, with its project's conventions, such as the encoding of photographs.
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np

from gl_jax.config import GREY, UsageError
from gl_jax.models.completion import layer_name
from gl_jax.weights import torch7, torch7_modules
from gl_jax.weights.arrays import Arrays, listed
from gl_jax.weights.convention import ENCODINGS, Color, Encoding

NormOrder = Literal["norm_activation", "activation_norm"]


class Layout(NamedTuple):
    """Names in a completion network, and its project's conventions."""

    project: str
    convs: tuple[str, ...]
    norms: tuple[str, ...]
    norm_order: NormOrder
    output: Literal["sigmoid", "signed_clamp"]
    encoding: Encoding
    mean: Color | None
    """The mean colour of all files of this layout; None if each has its own."""
    licence: str


class DiscriminatorLayout(NamedTuple):
    """Names in a context discriminator; `{}` is the layer, `{side}` the column."""

    conv: str
    norm: str
    features: str
    fusion: str
    columns: dict[str, str]
    """Our name of a column -> theirs, in the order of the fusion layer."""
    norm_order: NormOrder
    encoding: Encoding


def _numbered(template: str, last: int) -> list[str]:
    return [template.format(index) for index in range(1, last + 1)]


_BLOCKS = (
    _numbered("generator.encoder.enc{}", 6)
    + [f"generator.dilation_neck.dilation_convs.{index}" for index in range(4)]
    + _numbered("generator.decoder.dec{}", 7)
)

LAYOUTS: dict[str, Layout] = {
    "sequential": Layout(
        "the authors' network",
        tuple(str(3 * index) for index in range(17)),
        tuple(str(3 * index + 1) for index in range(16)),
        "norm_activation",
        "sigmoid",
        ENCODINGS["centred"],
        None,
        "that of the source; the authors' own weights are CC BY-NC-SA 4.0",
    ),
    "nested sequential": Layout(
        "the authors' network",
        (*(f"{index}.0" for index in range(16)), "16"),
        tuple(f"{index}.1" for index in range(16)),
        "norm_activation",
        "sigmoid",
        ENCODINGS["centred"],
        None,
        "that of the source; the authors' own weights are CC BY-NC-SA 4.0",
    ),
    "mmediting": Layout(
        "mmediting",
        tuple(f"{block}.conv" for block in _BLOCKS),
        tuple(f"{block}.bn" for block in _BLOCKS[:-1]),
        "norm_activation",
        "signed_clamp",
        ENCODINGS["mmediting"],
        GREY,
        "that of the source; mmediting's own weights are Apache-2.0",
    ),
    "glcic_pytorch": Layout(
        "GLCIC-PyTorch",
        tuple(layer_name(index) for index in range(17)),
        tuple(f"bn{index}" for index in range(1, 17)),
        "activation_norm",
        "sigmoid",
        ENCODINGS["plain"],
        None,
        "that of the source; GLCIC-PyTorch's own weights are MIT",
    ),
}

DISCRIMINATOR_LAYOUTS: dict[str, DiscriminatorLayout] = {
    "mmediting": DiscriminatorLayout(
        conv="disc.{side}.conv{}.conv",
        norm="disc.{side}.conv{}.bn",
        features="disc.{side}.fc.linear",
        fusion="disc.fc",
        columns={"global": "global_disc", "local": "local_disc"},
        norm_order="norm_activation",
        encoding=ENCODINGS["mmediting"],
    ),
    "glcic_pytorch": DiscriminatorLayout(
        conv="{side}.conv{}",
        norm="{side}.bn{}",
        features="{side}.linear{}",
        fusion="linear1",
        columns={"local": "model_ld", "global": "model_gd"},
        norm_order="activation_norm",
        encoding=ENCODINGS["plain"],
    ),
}


def recognise(tree: Any, name: str = "the file") -> tuple[str, Arrays]:
    """Returns the layout's name and its arrays from the contents of a file.

    Half of a layout's names are enough, so that the missing ones can be listed later.
    Raises UsageError, with `name` in its message, if no layout reaches half.
    """
    best: tuple[float, str, Arrays] = (0.0, "", {})
    first_names: list[str] = []
    for arrays in _candidates(tree):
        first_names = first_names or list(arrays)
        shares = [(share(table, arrays), key) for key, table in LAYOUTS.items()]
        for key, known in DISCRIMINATOR_LAYOUTS.items():
            names = discriminator_names(known)
            shares.append((len(names & set(arrays)) / len(names), key))
        most, layout = max(shares, key=lambda pair: pair[0])
        if most > best[0]:
            best = most, layout, arrays
    if best[0] < 0.5:
        holds = (
            f"it holds {listed(first_names)}"
            if first_names
            else "it holds no named arrays"
        )
        raise UsageError(
            f"{name} has none of the layouts that can be converted "
            f"({', '.join(LAYOUTS)}): {holds}."
        )
    return best[1], best[2]


def share(layout: Layout, arrays: Arrays) -> float:
    """Returns the fraction of the layout's names that the arrays have, in [0, 1]."""
    names = {f"{conv}.weight" for conv in layout.convs}
    names |= {f"{norm}.running_var" for norm in layout.norms}
    return len(names & set(arrays)) / len(names)


def discriminator_names(layout: DiscriminatorLayout) -> set[str]:
    """Returns the names of the first five kernels of each column."""
    return {
        f"{layout.conv.format(index, side=side)}.weight"
        for side in layout.columns.values()
        for index in range(1, 6)
    }


def _candidates(tree: Any) -> Iterator[Arrays]:
    """Yields every group of named arrays, at most three dictionaries deep."""
    if isinstance(tree, dict):
        sequential = tree.get("model")
        tree = sequential if isinstance(sequential, torch7.Object) else tree
    if isinstance(tree, torch7.Object):
        yield torch7_modules.named_arrays(tree)
    levels = [tree]
    for _ in range(3):
        groups = [level for level in levels if isinstance(level, dict)]
        for group in groups:
            named = {
                key.replace("module.", ""): value
                for key, value in group.items()
                if isinstance(key, str) and isinstance(value, np.ndarray)
            }
            if len(named) > 1:
                yield named
        # Wrappers around a state_dict have few entries, so 64 are enough.
        levels = [value for group in groups for value in list(group.values())[:64]][:64]
