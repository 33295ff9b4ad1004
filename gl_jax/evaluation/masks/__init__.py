"""The masks of an evaluation, the same for every method and at every call.

A kind of mask is a function (count, height, width, seed) to bool [count, height, width],
true for missing pixels. Mask i depends on (seed, i) and the size alone, so a longer list
begins with the shorter one. A kind raises ValueError for a size that it does not have.
"""

import functools
from collections.abc import Callable

from gl_jax.evaluation.masks import published
from gl_jax.evaluation.masks.own import Masks, box, center, freeform

Kind = Callable[[int, int, int, int], Masks]

KINDS: dict[str, Kind] = {
    "center": center,
    "box": box,
    "freeform": freeform,
    "random": published.random,
    "pattern": published.pattern,
    "half": published.half,
} | {
    f"{project}-{name}": functools.partial(draw, name)
    for project, draw, names in (
        ("lama", published.lama, ("thin", "medium", "thick")),
        ("mat", published.mat, ("small", "large")),
    )
    for name in names
}  # fmt: skip
"""The kinds by their names in `--masks`."""


def kind(name: str) -> Kind | None:
    """Returns the kind of this name, or None if it is unknown.

    `random:0.25` has masks of a quarter of all pixels; see `published.random`.
    """
    first, colon, share = name.partition(":")
    if first != "random" or not colon:
        return KINDS.get(name)
    try:
        return functools.partial(published.random, share=float(share))
    except ValueError:
        return None
