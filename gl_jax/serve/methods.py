"""The ways to complete a photo that the page offers: networks and classical methods."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from jaxtyping import Bool

from gl_jax.images import Photo
from gl_jax.inpainting import inputs, masks
from gl_jax.inpainting.batch import Look
from gl_jax.serve.baseline import Process

if TYPE_CHECKING:
    from gl_jax.inpainting.completer import Completer

Hole = Bool[np.ndarray, "h w"]

CONTEXT = 128
"""Least number of pixels around the hole that a classical method sees."""


@dataclass(frozen=True)
class Watch:
    """Callbacks of a method at work; `progress` and `check` raise to stop it."""

    notify: Callable[[str], None]
    progress: Callable[[int, int], None]
    check: Callable[[], None]


class Method(Protocol):
    """One way to complete a photo."""

    def about(self) -> dict[str, Any]:
        """Facts for the page, as JSON."""
        ...

    def __call__(self, photo: Photo, hole: Hole, look: Look, watch: Watch) -> Photo:
        """The completed photo."""
        ...


class Network:
    """A model, as `gl-jax complete` uses it."""

    def __init__(self, completer: "Completer") -> None:
        """Shares the model and its compiled programs among all calls."""
        self._completer = completer

    def about(self) -> dict[str, Any]:
        """Facts for the page, as JSON."""
        trained = self._completer.trained
        return {"kind": "network", "image": trained.image, "hole": trained.hole}

    def __call__(self, photo: Photo, hole: Hole, look: Look, watch: Watch) -> Photo:
        """The completed photo, to the bit that of `gl-jax complete`."""
        return self._completer.complete_photo(
            photo,
            hole,
            blend=look.blend_after(self._completer.default_blend),
            feather=look.feather,
            resize_to=look.resize_to,
            notify=watch.notify,
            progress=watch.progress,
        )


class Classical:
    """A method of `BASELINES`, which sees the surroundings of the hole in 8 bits."""

    def __init__(self, name: str, process: Process) -> None:
        """Works in the process, which several methods may share."""
        self._name, self._process = name, process

    def about(self) -> dict[str, Any]:
        """Facts for the page, as JSON."""
        return {"kind": "classical"}

    def __call__(self, photo: Photo, hole: Hole, look: Look, watch: Watch) -> Photo:
        """The completed photo; nothing of `look` has a meaning here."""
        inputs.require_hole(photo, hole, watch.notify)
        rows, columns = masks.around(hole)
        side = max(rows.stop - rows.start, columns.stop - columns.start)
        box = masks.around(hole, margin=max(CONTEXT, side))
        colors = np.rint(photo.unit(box) * 255).astype(np.uint8)
        missing = (hole | inputs.transparent(photo))[box]
        result = self._process.complete(self._name, colors, missing, watch.check)
        new = result[hole[box]].astype(np.float32) / 255
        return photo.fill(hole, new)


Methods = Mapping[str, Method]
