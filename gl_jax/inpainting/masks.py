"""Masks from pictures, transparency, colours, rectangles and seeds.

A mask is bool [h, w], true in the hole. White (above 127 of 255) marks the hole, which
is the field's convention.
"""

import re
import zlib
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy import ndimage

from gl_jax.colors import LUMA
from gl_jax.config import UsageError
from gl_jax.images.photo import Photo

Mask = Bool[np.ndarray, "h w"]
Pixels = Shaped[np.ndarray, "h w 3"]
Alpha = Shaped[np.ndarray, "h w"]

THRESHOLD = 127 / 255
"""Brightness, of [0, 1], above which a pixel is white."""
_DARK, _LIGHT = 16, 239
"""Levels of 255 between which a pixel is neither black nor white."""
_PHOTOGRAPH = 64
"""Number of different grey levels that make a mostly grey picture a photograph."""


def from_white(
    pixels: Pixels, white: float, alpha: Alpha | None = None, *, exact: bool = True
) -> Mask:
    """Returns the mask of the white pixels: brighter than 127 of 255 and not transparent.

    `white` is the value of a full channel. An integer picture with no value above 1 is
    taken as 0 and 1, unless it is not `exact`, like a noisy black JPEG.
    """
    mask = _brightness(pixels) > THRESHOLD * _full(pixels, white, exact)
    if alpha is not None:
        mask &= alpha > THRESHOLD * white
    return mask


def _full(pixels: Pixels, white: float, exact: bool) -> float:
    integers = pixels.dtype.kind in "iu"
    return 1.0 if exact and integers and pixels.max(initial=0) <= 1 else white


def from_picture(picture: Photo, name: str) -> tuple[Mask, list[str]]:
    """Returns the mask of the white pixels, and notices of likely mistakes.

    Raises UsageError if the picture cannot be such a mask: a photograph, or a picture
    without white that is not black either.
    """
    pixels, white, alpha = picture.pixels, picture.white, picture.alpha
    mask = from_white(pixels, white, alpha, exact=picture.lossless)
    if not mask.any():
        if reason := why_empty(pixels, white, alpha, exact=picture.lossless):
            raise UsageError(f"{name} has no white. {reason}")
        return mask, [f"{name} is entirely black; white marks the missing pixels."]
    levels = _brightness(pixels) * (255 / _full(pixels, white, picture.lossless))
    between = levels[(levels > _DARK) & (levels < _LIGHT)]
    share, shades = between.size / levels.size, len(np.unique(np.rint(between)))
    if share > 1 / 2 and shades >= _PHOTOGRAPH:
        raise UsageError(
            f"{name} looks like a photograph: {share:.0%} of it is neither black nor "
            "white. White marks the missing pixels, black those to keep."
        )
    if share > 1 / 10:
        return mask, [
            f"{name} is neither black nor white in {share:.0%} of its pixels; those "
            f"brighter than 127 of 255 count as missing ({mask.mean():.0%} of all)."
        ]
    return mask, []


def doubt(hole: Mask, name: str, *, inverted: bool = False) -> str | None:
    """Returns a notice if a mask marks more than half, so that it may be inverted."""
    if hole.all() or hole.mean() <= 1 / 2:
        return None
    if inverted:
        return f"{name}, inverted, marks {hole.mean():.0%} of the photo as missing."
    return (
        f"{name} marks {hole.mean():.0%} of the photo as missing; if that is the part to "
        "keep, invert it (--invert-mask)."
    )


def from_alpha(alpha: Alpha, white: float) -> Mask:
    """Returns the mask of the transparent pixels: alpha of at most 127 of 255."""
    return np.asarray(alpha <= THRESHOLD * white)


def from_color(pixels: Pixels, white: float, color: str, tolerance: int = 0) -> Mask:
    """Returns the mask of the pixels with `color`, hexadecimal RGB such as #ff0000.

    Each channel may differ by up to `tolerance`, in levels of 255. Raises UsageError for
    other colours and tolerances.
    """
    match = re.fullmatch(r"#?([0-9a-fA-F]{6})", color)
    if match is None:
        raise UsageError(f"mask_color (={color!r}) must be like '#ff0000'.")
    if not 0 <= tolerance <= 255:
        raise UsageError(f"mask_tolerance (={tolerance}) must be in [0, 255].")
    target = np.array(list(bytes.fromhex(match[1])))
    # Half a level more, because 16-bit and floating-point colours lie between levels.
    distance = np.abs(pixels * (255 / white) - target).max(axis=-1)
    return np.asarray(distance < tolerance + 0.5)


def from_rectangles(size: tuple[int, int], rectangles: Iterable[str]) -> Mask:
    """Returns the mask of rectangles `x,y,width,height`, in pixels from the top left.

    Parts beyond the image are cut off. Raises UsageError if a rectangle has another form
    or lies outside the image.
    """
    height, width = size
    mask = np.zeros(size, bool)
    for text in rectangles:
        words = re.fullmatch(
            r"\s*(-?\d+)\s*,\s*(-?\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*", text
        )
        if words is None:
            raise UsageError(
                f"rect (={text!r}) must be x,y,width,height in pixels, like 40,30,64,64."
            )
        x, y, across, down = map(int, words.groups())
        inside = mask[max(y, 0) : max(y + down, 0), max(x, 0) : max(x + across, 0)]
        if not inside.size:
            raise UsageError(
                f"rect (={text!r}) has no pixel inside the image of {width}x{height}."
            )
        inside[:] = True
    return mask


def from_seed(size: tuple[int, int], seed: int, name: str = "") -> Mask:
    """Returns a random rectangle with sides of 3/8 to 1/2 of the shorter side.

    It depends only on the seed, the size and `name`: each photo of a folder has its own
    hole and keeps it if others are added or removed.
    """
    rng = np.random.default_rng((seed, zlib.crc32(name.encode(errors="surrogatepass"))))
    return random_rectangle(rng, size, (min(size), min(size)))


def random_rectangle(
    generator: np.random.Generator, size: tuple[int, int], scale: tuple[int, int]
) -> Mask:
    """Returns a random rectangle of the paper's training, in a mask of this size.

    Its height and width are drawn independently from 3/8 to 1/2 of those in `scale`,
    both ends included: 96 to 128 of 256 pixels.
    """
    height, width = (
        int(generator.integers(max(1, side * 3 // 8), max(1, side // 2), endpoint=True))
        for side in scale
    )
    top = int(generator.integers(size[0] - height, endpoint=True))
    left = int(generator.integers(size[1] - width, endpoint=True))
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def from_array(values: np.ndarray) -> Mask:
    """Returns the mask of an array's white pixels.

    The array is [h, w], [h, w, 1], [h, w, 3] or [h, w, 4], of bool or of numbers from 0.
    White is the smallest of 1, 255 and 65,535 that no value exceeds. Raises UsageError
    for other arrays, and for one without white that is not black either.
    """
    shape = values.shape
    fits = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))
    if not fits or values.dtype.kind not in "buif" or 0 in shape:
        raise UsageError(
            f"the mask must be an array [h, w] of bool, of 0 and 255, or of 0 and 1, not "
            f"{values.dtype} {list(shape)}."
        )
    channels = values.reshape(*shape[:2], -1)
    numbers = channels.astype(np.uint8) if values.dtype == bool else channels
    lowest, highest = numbers.min(), numbers.max()
    if not (lowest >= 0 and highest <= 65535):
        raise UsageError(
            "the mask must be an array of numbers from 0 to 1, 255 or 65535, not from "
            f"{lowest:g} to {highest:g}."
        )
    white = next(white for white in (1.0, 255.0, 65535.0) if highest <= white)
    alpha = numbers[..., 3] if channels.shape[2] == 4 else None
    colors = numbers[..., :3] if channels.shape[2] > 2 else numbers.repeat(3, axis=2)
    mask = from_white(colors, white, alpha)
    if not mask.any() and (reason := why_empty(colors, white, alpha)):
        raise UsageError(f"the mask has no white. {reason}")
    return mask


def resized(mask: Mask, size: tuple[int, int]) -> Bool[np.ndarray, "y x"]:
    """Resizes a mask to (height, width) by its nearest pixels."""
    rows, columns = (
        (np.arange(new) * 2 + 1) * old // (2 * new)
        for new, old in zip(size, mask.shape, strict=True)
    )
    return mask[rows[:, None], columns[None, :]]


def dilated(mask: Mask, radius: int) -> Mask:
    """Dilates a mask to all pixels within `radius` pixels of it."""
    if radius < 0:
        raise UsageError(f"dilate (={radius}) must be at least 0.")
    if not radius or not mask.any():
        return mask
    grown = mask.copy()
    box = around(mask, margin=radius)
    grown[box] = ndimage.distance_transform_edt(~mask[box]) <= radius
    return grown


def feathered(mask: Mask, radius: int) -> Float[np.ndarray, "h w"]:
    """Returns the weight of the completion: 1 in the hole, 0 beyond `radius` pixels.

    The ramp lies outside the hole, because the photo has no colours inside.
    """
    if radius < 0:
        raise UsageError(f"feather (={radius}) must be at least 0.")
    weight = mask.astype(np.float32)
    if radius and mask.any():
        box = around(mask, margin=radius + 1)
        distance = ndimage.distance_transform_edt(~mask[box])
        weight[box] = np.clip(1 - distance / (radius + 1), 0, 1)
    return weight


def why_empty(
    pixels: Pixels, white: float, alpha: Alpha | None, *, exact: bool = True
) -> str:
    """Returns advice for a picture without white; "" if it is entirely black.

    A picture that is not `exact`, such as a JPEG, may be black with some noise.
    """
    clear = np.zeros(pixels.shape[:2], bool)
    if alpha is not None:
        clear = from_alpha(alpha, white)
    brightest = pixels[~clear].max(initial=0)
    if clear.any() and not clear.all():
        drawn = " --invert-mask" if clear.mean() > 1 / 2 else ""
        meant = "drawn" if drawn else "transparent"
        return (
            "It has transparency but no white: white marks the missing pixels; for "
            f"{meant} = missing use --mask-from alpha{drawn}."
        )
    if brightest <= (0 if exact else _DARK * white / 255):
        return ""
    if (pixels != pixels[..., :1]).any():
        saturated = pixels.max(axis=-1).astype(float) - pixels.min(axis=-1)
        row, column = np.unravel_index(saturated.argmax(), saturated.shape)
        levels = np.rint(pixels[row, column] * (255 / white)).astype(int)
        color = "".join(f"{level:02x}" for level in levels)
        return (
            "It has colours but no white: white marks the missing pixels; for a colour "
            f"use --mask-color, here perhaps '#{color}'."
        )
    level = round(float(brightest) * 255 / white)
    color = f", here perhaps '#{level:02x}{level:02x}{level:02x}'" if level else ""
    return (
        f"Its brightest value is {brightest:g} of {white:g}: white marks the missing "
        f"pixels; for the pixels of one grey, or of one label, use --mask-color{color}."
    )


def around(mask: Mask, margin: int = 0) -> tuple[slice, slice]:
    """Returns the rows and columns of the smallest box around the mask, plus `margin`.

    They may end beyond the image. The mask must not be empty.
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + margin + 1),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + margin + 1),
    )


def _brightness(pixels: Pixels) -> np.ndarray:
    first = pixels[..., 0]
    if (pixels == first[..., None]).all():
        return first
    return np.asarray(pixels @ LUMA)
