"""Inpainting methods to compare with ours, all functions (image, mask) to image.

Each library has a file, imported at the first call of a method, so a missing library
affects its own methods only. Every call passes through `fair`: no method can see the pixels
in the hole, or change those around it.
"""

import importlib
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, UInt8

Image = UInt8[np.ndarray, "h w 3"]
Hole = Bool[np.ndarray, "h w"]
Baseline = Callable[[Image, Hole], Image]
"""Completes an image where the mask is true; raises ImportError without its library."""


def fair(method: Baseline) -> Baseline:
    """Returns `method` unable to see the pixels in the hole or to change others.

    The hole is first filled with the mean colour of the known pixels (OpenCV's methods
    read it at the left and top border), and the known pixels are put back exactly. Without
    a hole the method is not called. The result is a new array. Raises ValueError if no
    pixel is known, or the method returns another size or type.
    """

    def complete(image: Image, mask: Hole) -> Image:
        if mask.all():
            raise ValueError("the mask covers the whole image: no pixel is known.")
        if not mask.any():
            return image.copy()
        result = method(mean_fill(image, mask), mask)
        if result.shape != image.shape or result.dtype != np.uint8:
            raise ValueError(
                f"the method returned {result.dtype} {result.shape} for an image "
                f"uint8 {image.shape}."
            )
        return np.where(mask[..., None], result, image)

    return complete


def mean_fill(image: Image, mask: Hole) -> Image:
    """Returns a copy with the hole in the mean colour of the known pixels."""
    mean = np.rint(image[~mask].mean(axis=0)).astype(np.uint8)
    return np.where(mask[..., None], mean, image)


def _imported_late(module: str, function: str) -> Baseline:
    def complete(image: Image, mask: Hole) -> Image:
        method: Baseline = getattr(
            importlib.import_module(f"{__name__}.{module}"), function
        )
        return method(image, mask)

    return fair(complete)


BASELINES: dict[str, Baseline] = {
    "mean": fair(mean_fill),
    "telea": _imported_late("opencv", "telea"),
    "ns": _imported_late("opencv", "navier_stokes"),
    "biharmonic": _imported_late("biharmonic", "biharmonic"),
    "patchmatch": _imported_late("patchmatch", "patchmatch"),
    "shift_map": _imported_late("opencv", "shift_map"),
    "criminisi": _imported_late("criminisi", "criminisi"),
}
"""The methods by their names in `--methods`."""
