"""Converts a caller's paths, Pillow images and arrays to photos and holes."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from gl_jax import images
from gl_jax.config import UsageError
from gl_jax.images import Photo, PillowImage
from gl_jax.inpainting import masks

ImageLike = str | Path | PillowImage | np.ndarray
"""A path, a Pillow image, or an array (anything with `__array__`, such as JAX's)."""
Notify = Callable[[str], None]
Mask = Bool[np.ndarray, "h w"]


def is_one(value: object) -> bool:
    """Returns whether a value is one image rather than several."""
    return isinstance(value, str | Path) or images.is_pillow(value) or _is_array(value)


def _is_array(value: object) -> bool:
    return hasattr(value, "__array__") and not images.is_pillow(value)


def photo_of(image: ImageLike, name: str = "the image") -> Photo:
    """Returns the photo; raises UsageError if `image` is of another type."""
    if isinstance(image, str | Path):
        return images.read(Path(image))
    if isinstance(image, PillowImage):
        return images.from_pillow(image, name)
    if _is_array(image):
        return images.from_array(_array(image, name), name)
    raise UsageError(
        f"{name} must be a path, a Pillow image or an array, not "
        f"{type(image).__name__}."
    )


def hole_of(mask: ImageLike, photo: Photo, *, strict: bool) -> Mask:
    """Returns the hole of a mask at the photo's size; warns of likely mistakes."""
    name = "the mask"
    if _is_array(mask):
        hole = masks.from_array(_array(mask, name))
    else:
        picture = photo_of(mask, name)
        name = picture.name if isinstance(mask, PillowImage) else f"mask {picture.name}"
        hole, notices = masks.from_picture(picture, name)
        for notice in notices:
            warn(notice)
    return fitted(hole, photo, name, strict=strict, notify=warn)


def _array(value: Any, name: str) -> np.ndarray:
    if isinstance(value, np.ma.MaskedArray):
        raise UsageError(
            f"{name} is a masked array, whose masked values are undefined; fill them, "
            "for example array.filled(0)."
        )
    return np.asarray(value)


def like(image: ImageLike, done: Photo) -> Any:
    """Converts the completed photo to an array for an array, else to a Pillow image."""
    if not _is_array(image):
        return images.to_pillow(done)
    shape = np.asarray(image).shape
    if len(shape) == 2 or shape[2] == 1:
        return done.pixels[..., :1].reshape(shape)
    if done.alpha is None:
        return done.pixels
    return np.concatenate([done.pixels, done.alpha[..., None]], axis=-1)


def fitted(
    mask: Mask, photo: Photo, name: str, *, strict: bool, notify: Notify
) -> Mask:
    """Returns the mask at the photo's size, with a notice if it was resized.

    Raises UsageError if the sizes differ and `strict`, or if the mask is rotated.
    """
    if mask.shape == photo.size:
        return mask
    (height, width), (tall, wide) = mask.shape, photo.size
    if strict:
        raise UsageError(
            f"{name} is {width}x{height} pixels and {photo.name} {wide}x{tall}; resize "
            "one of them, or leave out --strict-size."
        )
    if _close(height * tall, width * wide) and not _close(height, width):
        raise UsageError(
            f"{name} is {width}x{height} pixels and {photo.name} {wide}x{tall}: it lies "
            "on its side; turn it upright."
        )
    alike = _close(height * wide, width * tall)
    notify(
        f"{name} is {'resized' if alike else 'stretched'} from {width}x{height} to "
        f"{wide}x{tall} pixels."
    )
    return masks.resized(mask, photo.size)


def _close(one: int, other: int) -> bool:
    """Returns whether two lengths or areas are equal up to rounding to pixels."""
    return abs(one - other) <= 0.03 * max(one, other)


def require_hole(photo: Photo, hole: Mask, notify: Notify) -> None:
    """Raises UsageError if the hole leaves no colours; gives a notice if it is empty."""
    if hole.shape != photo.size:
        raise ValueError(f"the mask is {hole.shape}, {photo.name} is {photo.size}.")
    if hole.all():
        raise UsageError(
            f"{photo.name}: the mask covers the whole photo, so there is nothing to "
            "continue from; leave the part to keep unmarked."
        )
    if (hole | transparent(photo)).all() and hole.any():
        raise UsageError(
            f"{photo.name}: everything outside the mask is transparent, so there is "
            "nothing to continue from."
        )
    if not hole.any():
        notify(f"{photo.name}: nothing is marked as missing, so it stays unchanged.")


def transparent(photo: Photo) -> Mask:
    """Returns the mask of the pixels without a colour: their alpha is 0."""
    if photo.alpha is None:
        return np.zeros(photo.size, bool)
    return np.asarray(photo.alpha == 0)


def warn(text: str) -> None:
    """Issues a Python warning."""
    warnings.warn(text, stacklevel=2)
