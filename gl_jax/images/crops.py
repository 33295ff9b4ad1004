"""Decodes square crops of photographs quickly, at the size of a network's input."""

from math import ceil, floor
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from gl_jax.images.metadata import orientation_of
from gl_jax.images.photo import RgbImage
from gl_jax.images.reading import UPRIGHT_ARRAY, opened, require_opaque, upright_rgb

# Up to this many times the square's pixels, enlarging the whole image is faster.
_MOST_ENLARGED = 4

# Most extra pixels computed before the square, to begin near a whole source pixel.
_MOST_BEFORE = 16


def read_crop(
    data: bytes | Path,
    name: str,
    *,
    shortest: int,
    side: int,
    place: tuple[float, float] = (0.5, 0.5),
    exact: bool = True,
    opaque: bool = False,
) -> UInt8[np.ndarray, "side side 3"]:
    """Resizes an image to a shortest side of `shortest` and returns a square of it.

    The square's sides are `side`, at most `shortest`; the proportions are kept. `place`
    is its (y, x) in [0, 1]: 0 is the top or left edge, 1 the bottom or right one, and
    the default is the centre. Only pixels of the square are resized. A JPEG is decoded
    at 1/2, 1/4 or 1/8 of its size if that is no smaller than the resized image.

    Without `exact`, as in training, OpenCV decodes and resizes in half the time; colours
    differ by 0.2 to 1.5 grey levels on average, most in reduced fine texture.

    Raises UsageError like `read_rgb`, and ValueError if `side` exceeds `shortest`.
    """
    if side > shortest:
        raise ValueError(f"side (={side}) must be at most shortest (={shortest}).")
    with opened(data, name) as image:
        if opaque:
            require_opaque(image, name)
        stored = image.size
        image.draft(None, _resized(image.size, shortest))  # affects JPEGs only
        if exact:
            upright = upright_rgb(image)
            resized = _resized(upright.size, shortest)
            box, _ = _square(upright.size, resized, side, place)
            # Pillow widens the bilinear filter with the reduction, which avoids aliasing.
            crop = upright.resize((side, side), Image.Resampling.BILINEAR, box=box)
            return np.array(crop)
        pixels = _upright_pixels(image, data, stored)
        size = (pixels.shape[1], pixels.shape[0])
        width, height = _resized(size, shortest)
        box, (left, top) = _square(size, (width, height), side, place)
        larger = width >= size[0] and height >= size[1]
        if larger and width * height <= _MOST_ENLARGED * side**2:
            enlarged = _enlarged(pixels, width, height)
            return enlarged[top : top + side, left : left + side]
        if 1 < size[0] / width < 2 and 1 < size[1] / height < 2:
            return _reduced(pixels, box, side)
        return _warped(pixels, box, side)


def _resized(size: tuple[int, int], shortest: int) -> tuple[int, int]:
    """Returns (width, height) for this shortest side, with the proportions of `size`."""
    scale = shortest / min(size)
    width, height = (max(shortest, round(length * scale)) for length in size)
    return width, height


_Corners = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels."""


def _square(
    size: tuple[int, int],
    resized: tuple[int, int],
    side: int,
    place: tuple[float, float],
) -> tuple[_Corners, tuple[int, int]]:
    """Returns the square's box in the image, and its (left, top) in the resized image."""
    width, height = resized
    top = min(int(place[0] * (height - side + 1)), height - side)
    left = min(int(place[1] * (width - side + 1)), width - side)
    across, down = size[0] / width, size[1] / height
    box = (left * across, top * down, (left + side) * across, (top + side) * down)
    return box, (left, top)


def _upright_pixels(
    image: Image.Image, data: bytes | Path, stored: tuple[int, int]
) -> RgbImage:
    """Returns the pixels of `upright_rgb`, with OpenCV decoding colour JPEGs.

    Both use the same JPEG library, but Pillow copies the pixels twice. `stored` is the
    size before the draft.
    """
    if image.format == "JPEG" and image.mode == "RGB":
        jpeg = data.read_bytes() if isinstance(data, Path) else data
        pixels = _jpeg(jpeg, round(stored[0] / image.width))
        # Pillow decodes damaged files again, as its messages say more.
        if pixels is not None and pixels.shape[:2] == (image.height, image.width):
            return UPRIGHT_ARRAY.get(orientation_of(image), np.asarray)(pixels)
    return np.asarray(upright_rgb(image))


def _jpeg(data: bytes, reduction: int) -> RgbImage | None:
    """Decodes a JPEG by OpenCV at 1 / `reduction` of its size, without turning it.

    Returns None for reductions other than 1, 2, 4 and 8 and for damaged files.
    """
    import cv2

    flags = {
        1: cv2.IMREAD_COLOR_RGB,
        2: cv2.IMREAD_REDUCED_COLOR_2,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        8: cv2.IMREAD_REDUCED_COLOR_8,
    }.get(reduction)
    if flags is None:
        return None
    try:
        pixels = cv2.imdecode(
            np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except cv2.error:
        return None
    if pixels is None or reduction == 1:
        return pixels
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _enlarged(pixels: RgbImage, width: int, height: int) -> RgbImage:
    """Enlarges the whole image by OpenCV, in half the time of `_warped`."""
    import cv2

    return cv2.resize(pixels, (width, height))


def _warped(
    pixels: RgbImage, box: _Corners, side: int
) -> UInt8[np.ndarray, "side side 3"]:
    """Resizes the part of the image in the box to a square, by OpenCV."""
    import cv2

    # A pixel more on each side, for the interpolation.
    left, top = (max(0, floor(edge) - 1) for edge in box[:2])
    right, bottom = ceil(box[2]) + 1, ceil(box[3]) + 1
    pixels = pixels[top:bottom, left:right]
    across, down = (box[2] - box[0]) / side, (box[3] - box[1]) / side
    reduction = max(1, int(min(across, down)))
    if reduction > 1:
        pixels = np.asarray(Image.fromarray(pixels).reduce(reduction))
    across, down = across / reduction, down / reduction
    if max(across, down) > 1:
        pixels = _blurred(pixels, across, down)
    # The centre of the square's first pixel, in pixels of the part.
    x = (box[0] - left) / reduction + across / 2 - 0.5
    y = (box[1] - top) / reduction + down / 2 - 0.5
    return cv2.warpAffine(
        pixels,
        np.array([[across, 0, x], [0, down, y]]),
        (side, side),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _reduced(
    pixels: RgbImage, box: _Corners, side: int
) -> UInt8[np.ndarray, "side side 3"]:
    """Does the same as `_warped` by OpenCV's `resize`, in a third of the time.

    `resize` begins at a whole pixel, but the box may not. The resized part therefore
    begins some of the square's pixels earlier, close to a whole pixel.
    """
    import cv2

    across, down = (box[2] - box[0]) / side, (box[3] - box[1]) / side
    before, left = _beginning(box[0], across)
    above, top = _beginning(box[1], down)
    right = left + round((side + before) * across)
    bottom = top + round((side + above) * down)
    blurred = _blurred(pixels[top:bottom, left:right], across, down)
    # Factors instead of a size, because a size would round them.
    resized = cv2.resize(blurred, None, fx=1 / across, fy=1 / down)
    return resized[above:, before:]


def _beginning(edge: float, scale: float) -> tuple[int, int]:
    """Returns the number of pixels to add before the edge, and the first source pixel."""
    counts = range(min(_MOST_BEFORE, int(edge / scale)) + 1)
    starts = [edge - count * scale for count in counts]
    before = min(counts, key=lambda count: abs(starts[count] - round(starts[count])))
    return before, round(starts[before])


def _blurred(pixels: RgbImage, across: float, down: float) -> RgbImage:
    """Blurs an image before OpenCV's bilinear filter reduces it by factors below 2.

    That filter is always one pixel wide and would skip pixels. Blur and filter together
    have the variance of Pillow's wider filter.
    """
    import cv2

    taps = ((max(1.0, scale) ** 2 - 1) / 12 for scale in (across, down))
    row, column = (np.array([tap, 1 - 2 * tap, tap]) for tap in taps)
    return cv2.sepFilter2D(pixels, -1, row, column, borderType=cv2.BORDER_REPLICATE)
