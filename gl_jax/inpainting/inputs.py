"""Makes a photo and a hole of what a caller gives: paths, Pillow images, arrays."""

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
"""Whatever NumPy takes for an array counts as one, JAX's arrays too."""
Notify = Callable[[str], None]
Mask = Bool[np.ndarray, "h w"]


def is_one(value: object) -> bool:
    """Whether it is one image rather than several."""
    return isinstance(value, str | Path) or images.is_pillow(value) or _is_array(value)


def _is_array(value: object) -> bool:
    return hasattr(value, "__array__") and not images.is_pillow(value)


def photo_of(image: ImageLike, name: str = "the image") -> Photo:
    """The photo; UsageError, one line, for what is none."""
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
    """The hole that a mask marks, at the photo's size; warns of what may be mistaken."""
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
            f"{name} is a masked array, of which some values do not count; say what is "
            "there instead: array.filled(0)."
        )
    return np.asarray(value)


def like(image: ImageLike, done: Photo) -> Any:
    """The completed photo as the kind of thing that was given."""
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
    """The mask at the photo's size, with a notice.

    Raises UsageError if the sizes differ and `strict`, and if the mask lies on its side.
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
    """Whether two lengths or areas are the same but for rounding to pixels."""
    return abs(one - other) <= 0.03 * max(one, other)


def require_hole(photo: Photo, hole: Mask, notify: Notify) -> None:
    """UsageError where the hole is all of the photo; a notice where it is nothing."""
    if hole.shape != photo.size:
        raise ValueError(f"the mask is {hole.shape}, {photo.name} is {photo.size}.")
    if hole.all():
        raise UsageError(
            f"{photo.name}: the mask covers the whole photo, so there is nothing to "
            "continue from; leave unmarked what is to stay."
        )
    if (hole | transparent(photo)).all() and hole.any():
        raise UsageError(
            f"{photo.name}: all that the mask leaves is transparent, so there is nothing "
            "to continue from."
        )
    if not hole.any():
        notify(f"{photo.name}: nothing is marked as missing, so it stays unchanged.")


def transparent(photo: Photo) -> Mask:
    """The pixels without a colour of their own: those whose alpha is 0."""
    if photo.alpha is None:
        return np.zeros(photo.size, bool)
    return np.asarray(photo.alpha == 0)


def warn(text: str) -> None:
    """Gives a line as a Python warning."""
    warnings.warn(text, stacklevel=2)
