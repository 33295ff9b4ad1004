"""A hole filled by any method, its colours blended and faded into the photo."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8

from gl_jax.config import UsageError
from gl_jax.images import Photo
from gl_jax.inpainting import blending, inputs, masks
from gl_jax.inpainting.inputs import Notify

Blend = Literal["poisson", "none"]
Mask = Bool[np.ndarray, "h w"]
Colors = Float[np.ndarray, "h w 3"]
Fill = Callable[[UInt8[np.ndarray, "h w 3"], Mask], UInt8[np.ndarray, "h w 3"]]
"""Completes an RGB image where the mask is true."""

MARGIN = 8
"""Pixels around the holes that blending looks at."""


def fill_hole(
    photo: Photo,
    hole: Mask,
    complete: Callable[[Mask, Mask], Colors],
    *,
    blend: Blend,
    feather: int,
    opaque: bool,
    notify: Notify,
) -> Photo:
    """The photo with its hole in the colours that `complete(unknown, region)` gives.

    Those are RGB in [0, 1], [h, w, 3], and count inside the region: the hole, or with
    `feather` pixels more around it, over which they fade into the photo. `unknown` are the
    pixels without colours, among them those that are wholly transparent, and outside the
    hole stay so. An empty hole is the photo unchanged. Raises UsageError if nothing but
    hole is left.
    """
    if blend not in ("poisson", "none"):
        raise UsageError(f"blend (={blend!r}) must be 'poisson' or 'none'.")
    inputs.require_hole(photo, hole, notify)
    if not hole.any():
        return photo
    void = inputs.transparent(photo) & ~hole
    weight = np.where(void, 0, masks.feathered(hole, feather))
    region = weight > 0
    box = masks.around(region, margin=MARGIN)
    colors = photo.unit(box)
    completed = complete(hole | void, region)[box]
    inner = region[box]
    if blend == "poisson" and not (inner | void[box]).all():
        completed = blending.blend(completed, colors, inner, void[box])
    share = weight[box][inner][:, None]
    mixed = share * completed[inner] + (1 - share) * colors[inner]
    return photo.fill(region, mixed, opaque=opaque)


class Filler:
    """A method beside ours with the face of a Completer; it fills in 8 bits."""

    def __init__(self, name: str, fill: Fill, default_blend: Blend) -> None:
        """Takes a method with its name for messages."""
        self.name = name
        self.default_blend = default_blend
        self._fill = fill

    def complete_photo(
        self,
        photo: Photo,
        hole: Mask,
        *,
        blend: Blend,
        feather: int = 0,
        opaque: bool = False,
        notify: Notify = inputs.warn,
        **of_networks: Any,
    ) -> Photo:
        """The photo with its hole filled; options are those of `Completer.complete_photo`.

        Raises UsageError, one line, if the method cannot: it misses a library, or does not
        take such a hole.
        """
        del of_networks

        def complete(unknown: Mask, region: Mask) -> Colors:
            levels = np.rint(255 * photo.unit()).astype(np.uint8)
            try:
                filled = self._fill(levels, unknown | region)
            except (ImportError, ValueError) as error:
                reason = " ".join(str(error).split())
                raise UsageError(f"{photo.name}: {self.name}: {reason}") from error
            return filled.astype(np.float32) / 255

        return fill_hole(
            photo, hole, complete, blend=blend, feather=feather, opaque=opaque,
            notify=notify,
        )  # fmt: skip
