"""The page's methods to complete a photo: networks and classical methods."""

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
"""Least margin around the hole that a classical method sees, in pixels."""


@dataclass(frozen=True)
class Watch:
    """Callbacks of a running method; `progress` and `check` raise to stop it."""

    notify: Callable[[str], None]
    """Gets messages to the user."""
    progress: Callable[[int, int], None]
    """Gets the numbers of finished and of all windows."""
    check: Callable[[], None]


class Method(Protocol):
    """A method to complete a photo."""

    def about(self) -> dict[str, Any]:
        """Returns facts for the page, as JSON: `kind` is "network" or "classical"."""
        ...

    def __call__(self, photo: Photo, hole: Hole, look: Look, watch: Watch) -> Photo:
        """Returns the photo with its hole, bool [h, w], completed.

        Raises UsageError if the hole leaves no context.
        """
        ...


class Network:
    """A completion network, used as by `gl-jax complete`."""

    def __init__(self, completer: "Completer") -> None:
        """Uses the completer and its compiled programs for all calls."""
        self._completer = completer

    def about(self) -> dict[str, Any]:
        """Returns the sizes that the network was trained on, in pixels."""
        trained = self._completer.trained
        return {"kind": "network", "image": trained.image, "hole": trained.hole}

    def __call__(self, photo: Photo, hole: Hole, look: Look, watch: Watch) -> Photo:
        """Returns the completed photo, bit for bit that of `gl-jax complete`."""
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
    """A method of `BASELINES`, applied to the surroundings of the hole in 8 bits."""

    def __init__(self, name: str, process: Process) -> None:
        """Runs in `process`, which several methods may share."""
        self._name, self._process = name, process

    def about(self) -> dict[str, Any]:
        """Returns the kind of the method."""
        return {"kind": "classical"}

    def __call__(self, photo: Photo, hole: Hole, look: Look, watch: Watch) -> Photo:
        """Returns the completed photo; `look` is ignored."""
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
