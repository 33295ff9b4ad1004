"""Decodes the photographs users have, whatever their format."""

import contextlib
import functools
import io
from collections.abc import Callable, Iterator
from math import ceil, floor
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from gl_jax.config import UsageError
from gl_jax.files import reason
from gl_jax.images.metadata import orientation_of, read_metadata
from gl_jax.images.photo import (
    ALWAYS_LOSSY,
    FORMATS,
    GREY,
    Photo,
    RgbImage,
    eight_bits,
    white_of,
)

# An image made larger is faster resized as a whole, up to so many times the square's pixels.
_MOST_ENLARGED = 4

# Of a square made smaller, so many pixels are made before it at most, to begin at a whole one.
_MOST_BEFORE = 16

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_UPRIGHT_ARRAY: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def allow_pixels(limit: int) -> None:
    """Decodes images of up to `limit` pixels from now on, in the whole process."""
    Image.MAX_IMAGE_PIXELS = limit


@functools.cache
def readable_suffixes() -> frozenset[str]:
    """The suffixes of all the formats that are read, in lower case, with their dot."""
    Image.init()
    readable = (s for s, f in Image.EXTENSION.items() if f in Image.OPEN)
    # Pillow opens them too, but they are no photographs.
    return frozenset(readable) - {".pdf", ".mpg", ".mpeg", ".h5", ".hdf", ".eps", ".ps"}


def read(path: Path, name: str | None = None) -> Photo:
    """The photograph in a file, in its own depth, with its metadata.

    Raises UsageError, one line that starts with `name` (by default the path), where
    the file cannot be read, `PIL.Image.MAX_IMAGE_PIXELS` is exceeded, or the image is
    no photograph.
    """
    name = str(path) if name is None else name
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"{name} does not exist.") from error
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {reason(error)}.") from error
    with _opened(data, name) as image:
        return _photo(image, data, name)


def from_pillow(image: Image.Image, name: str = "the image") -> Photo:
    """A Pillow image as a photo; UsageError where it cannot be decoded."""
    info = dict(image.info)
    try:
        with _reported(name):
            return _photo(image, b"", name)
    finally:
        # Decoding takes the transparency out; a copy would lose a TIFF's tags.
        image.info = info


def is_pillow(image: object) -> bool:
    """Whether it is an image of Pillow's."""
    return isinstance(image, Image.Image)


def read_rgb(data: bytes | Path, name: str) -> RgbImage:
    """The image in a file, or in its bytes, as upright RGB.

    Of 16-bit values the upper byte is kept. Floating point is scaled from the smallest
    of the ranges [0, 1], [0, 255] and [0, 65535] that holds it. An image of more than
    `PIL.Image.MAX_IMAGE_PIXELS` (89 million) is refused before it takes the memory.

    Raises UsageError, one line that starts with `name`, where nothing can be read.
    """
    with _opened(data, name) as image:
        return np.array(_upright_rgb(image))


def read_crop(
    data: bytes | Path,
    name: str,
    *,
    shortest: int,
    side: int,
    place: tuple[float, float] = (0.5, 0.5),
    exact: bool = True,
) -> UInt8[np.ndarray, "side side 3"]:
    """A square of `side` pixels of the image resized to a shortest side of `shortest`.

    The image is made smaller or larger with its proportions kept; `shortest` is at
    least `side`. `place` is the square's (y, x) in [0, 1]: at 0 it touches the top or
    left edge, at 1 the bottom or right one, by default it is in the middle. No more is
    resized than the square needs, and a JPEG is decoded at a half, a quarter or an eighth
    of its size where that still is no smaller than the resized image.

    Where it need not be `exact`, as in training, OpenCV decodes and resizes it in half the
    time: colours then are 0.2 to 1.5 grey levels off on average, the most in fine texture
    made smaller.

    Raises UsageError as `read_rgb` does, ValueError where `side` exceeds `shortest`.
    """
    if side > shortest:
        raise ValueError(f"side (={side}) must be at most shortest (={shortest}).")
    with _opened(data, name) as image:
        stored = image.size
        image.draft(None, _resized(image.size, shortest))  # only a JPEG is made smaller
        if exact:
            upright = _upright_rgb(image)
            resized = _resized(upright.size, shortest)
            box, _ = _square(upright.size, resized, side, place)
            # Pillow widens the bilinear filter with the reduction, so nothing aliases.
            crop = upright.resize((side, side), Image.Resampling.BILINEAR, box=box)
            return np.array(crop)
        pixels = _upright_pixels(image, data, stored)
        size = (pixels.shape[1], pixels.shape[0])
        width, height = _resized(size, shortest)
        box, (left, top) = _square(size, (width, height), side, place)
        larger = width >= size[0] and height >= size[1]
        if larger and width * height <= _MOST_ENLARGED * side**2:
            whole = _enlarged(pixels, width, height)
            return whole[top : top + side, left : left + side]
        if 1 < size[0] / width < 2 and 1 < size[1] / height < 2:
            return _reduced(pixels, box, side)
        return _warped(pixels, box, side)


def _resized(size: tuple[int, int], shortest: int) -> tuple[int, int]:
    """Width and height with the proportions of those in `size`."""
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
    """What the square shows of an image of that size, and its left and top in the resized."""
    width, height = resized
    top = min(int(place[0] * (height - side + 1)), height - side)
    left = min(int(place[1] * (width - side + 1)), width - side)
    across, down = size[0] / width, size[1] / height
    box = (left * across, top * down, (left + side) * across, (top + side) * down)
    return box, (left, top)


def _upright_pixels(
    image: Image.Image, data: bytes | Path, stored: tuple[int, int]
) -> RgbImage:
    """What `_upright_rgb` gives; a JPEG in colour is decoded by OpenCV.

    Both use the same library for it, but Pillow's way into an array takes two copies.
    `stored` is the size before the draft.
    """
    if image.format == "JPEG" and image.mode == "RGB":
        jpeg = data.read_bytes() if isinstance(data, Path) else data
        pixels = _jpeg(jpeg, round(stored[0] / image.width))
        # Of what is damaged Pillow says more.
        if pixels is not None and pixels.shape[:2] == (image.height, image.width):
            return _UPRIGHT_ARRAY.get(orientation_of(image), np.asarray)(pixels)
    return np.asarray(_upright_rgb(image))


def _jpeg(data: bytes, reduction: int) -> RgbImage | None:
    """The JPEG by OpenCV, not turned, its size divided by 1, 2, 4 or 8."""
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
    """The whole image at that size, by OpenCV: in half the time of `_warped`."""
    import cv2

    return cv2.resize(pixels, (width, height))


def _warped(
    pixels: RgbImage, box: _Corners, side: int
) -> UInt8[np.ndarray, "side side 3"]:
    """The part of the image in the box as a square, by OpenCV."""
    import cv2

    # What the box cuts, and a pixel more to interpolate with.
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
    # Where among the part's pixels the first one of the square lies, middle to middle.
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
    """What `_warped` gives, by OpenCV's `resize`, which takes a third of the time.

    It begins at a whole pixel: so what is resized begins a few of the square's pixels
    before the box, where one nearly is.
    """
    import cv2

    across, down = (box[2] - box[0]) / side, (box[3] - box[1]) / side
    before, left = _beginning(box[0], across)
    above, top = _beginning(box[1], down)
    right = left + round((side + before) * across)
    bottom = top + round((side + above) * down)
    blurred = _blurred(pixels[top:bottom, left:right], across, down)
    # Factors, because a size would round them: half a pixel more or less gives as many.
    resized = cv2.resize(blurred, None, fx=1 / across, fy=1 / down)
    return resized[above:, before:]


def _beginning(edge: float, scale: float) -> tuple[int, int]:
    """How many of the square's pixels are made before the edge, and where the first begins."""
    counts = range(min(_MOST_BEFORE, int(edge / scale)) + 1)
    starts = [edge - count * scale for count in counts]
    before = min(counts, key=lambda count: abs(starts[count] - round(starts[count])))
    return before, round(starts[before])


def _blurred(pixels: RgbImage, across: float, down: float) -> RgbImage:
    """What can be made smaller by these factors, below 2, by OpenCV's bilinear filter.

    That stays a pixel wide: without a blur that makes it as wide (of the same variance) as
    Pillow's, pixels would go unseen.
    """
    import cv2

    taps = ((max(1.0, scale) ** 2 - 1) / 12 for scale in (across, down))
    row, column = (np.array([tap, 1 - 2 * tap, tap]) for tap in taps)
    return cv2.sepFilter2D(pixels, -1, row, column, borderType=cv2.BORDER_REPLICATE)


@contextlib.contextmanager
def _opened(data: bytes | Path, name: str) -> Iterator[Image.Image]:
    """The image, not decoded yet; what goes wrong inside becomes one line about it."""
    with _reported(name):
        if isinstance(data, bytes) and not data:
            raise UsageError(f"{name} is empty: it has no bytes.")
        opened: Image.Image
        try:
            opened = Image.open(data if isinstance(data, Path) else io.BytesIO(data))
        except UnidentifiedImageError:
            if isinstance(data, Path) and data.stat().st_size == 0:
                raise UsageError(f"{name} is empty: it has no bytes.") from None
            deep = _floating_tiff(data)
            if deep is None:
                raise
            opened = deep
        with opened as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise Image.DecompressionBombError
            yield image


@contextlib.contextmanager
def _reported(name: str) -> Iterator[None]:
    """Whatever Pillow raises inside becomes a UsageError of one line."""
    try:
        yield
    except (UsageError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise UsageError(f"{name} does not exist.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UsageError(
            f"{name} has more than {Image.MAX_IMAGE_PIXELS:,} pixels, the most that "
            "are decoded; make it smaller, or raise the limit: --max-pixels of "
            "`gl-jax complete`, PIL.Image.MAX_IMAGE_PIXELS in Python."
        ) from error
    except UnidentifiedImageError as error:
        raise UsageError(f"{name} is not an image in a known format.") from error
    except Exception as error:
        # A damaged file leads a decoder to any exception there is: OSError,
        # SyntaxError, struct.error, IndexError and more are all known from Pillow.
        fault = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"{name} cannot be decoded: {fault}.") from error


def _upright_rgb(image: Image.Image) -> Image.Image:
    image.load()
    # Asked for after loading: a PNG may carry its tags behind the pixels.
    turn = _UPRIGHT.get(orientation_of(image))
    rgb = _rgb(image)
    return rgb if turn is None else rgb.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        # The upper byte, as Pillow itself reads the three channels of 16-bit colour.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        image = Image.fromarray(eight_bits(np.asarray(image)))
    # Only alpha can be lost with it; a palette's would make Pillow warn about that.
    image.info.pop("transparency", None)
    return image.convert("RGB")


def _floating_tiff(data: bytes | Path) -> Image.Image | None:
    """Colour in floating point, which Pillow does not open, as 8 bits; None if it is not.

    The orientation is applied already.
    """
    stored = data.read_bytes() if isinstance(data, Path) else data
    if stored[:4] not in (b"II*\0", b"MM\0*"):
        return None
    deep = _opencv(stored)
    if deep is None or deep.ndim != 3 or deep.shape[2] not in (3, 4):
        return None
    image = Image.fromarray(eight_bits(deep[..., :3]))
    image.format = "TIFF"
    return image


def _opencv(data: bytes) -> np.ndarray | None:
    """What OpenCV decodes, in RGB(A) order; None where it cannot."""
    import cv2

    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    finally:
        cv2.utils.logging.setLogLevel(level)
    if samples is None or samples.ndim == 2:
        return samples
    order = [2, 1, 0, 3][: samples.shape[2]]
    return np.ascontiguousarray(samples[..., order])


def _photo(image: Image.Image, data: bytes, name: str) -> Photo:
    notices = []
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        notices.append(f"{name} has {frames} frames: the first one is taken.")
    stored = image.format
    # Pillow turns a TIFF when it loads it, and forgets the tag.
    sideways = stored == "TIFF" and orientation_of(image) >= 5
    image.load()
    metadata = read_metadata(image, data, name, notices, sideways=sideways)
    orientation = orientation_of(image)
    mode, inks = image.mode, None
    deep = _deep(image, data)
    if deep is not None:
        pixels, alpha = deep[..., :3], deep[..., 3] if deep.shape[2] == 4 else None
    elif mode.startswith("I;16") or mode in ("I", "F"):
        values = np.asarray(image)
        if mode.startswith("I;16"):
            values = values.astype(np.uint16)
        pixels, alpha = np.repeat(values[..., None], 3, axis=2), _key_alpha(image)
    else:
        alpha = None
        if image.has_transparency_data:
            alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        if mode not in (*GREY, "P", "PA", "RGB", "RGBA", "RGBX", "RGBa"):
            inks = image.copy()
        pixels = np.asarray(_rgb(image))
    if deep is None or stored == "PNG":
        # OpenCV turns a TIFF by itself.
        turn = _UPRIGHT_ARRAY.get(orientation, np.asarray)
        pixels, alpha = turn(pixels), None if alpha is None else turn(alpha)
        if inks is not None and orientation in _UPRIGHT:
            inks = inks.transpose(_UPRIGHT[orientation])
    kind = {"MPO": "JPEG"}.get(stored or "", stored)
    return Photo(
        name=name,
        pixels=np.ascontiguousarray(pixels),
        white=white_of(pixels),
        alpha=None if alpha is None else np.ascontiguousarray(alpha),
        mode=mode,
        format=kind if kind in FORMATS else None,
        lossless=_is_lossless(kind, data),
        metadata=metadata,
        notices=tuple(notices),
        inks=inks,
    )


def _deep(image: Image.Image, data: bytes) -> np.ndarray | None:
    """Colour of more than 8 bits, or grey with alpha, which Pillow would cut to 8 bits."""
    if image.format == "PNG":
        deep = data[24:25] == b"\x10" and data[25:26] != b"\0"
    else:
        tags = getattr(image, "tag_v2", {})
        bits = tags.get(258, (1,)) if tags else (1,)
        # Without tags it comes from `_floating_tiff`.
        deep = image.format == "TIFF" and (
            not tags or (len(bits) > 1 and max(bits) > 8 and image.mode != "CMYK")
        )
    if not deep or not data:
        return None
    samples = _opencv(data)
    if samples is None or samples.ndim != 3 or samples.dtype == np.uint8:
        return None
    return samples


def _key_alpha(image: Image.Image) -> np.ndarray | None:
    """Alpha of deep grey in which one value stands for transparent."""
    key = image.info.pop("transparency", None)
    if not isinstance(key, int):
        return None
    values = np.asarray(image)
    return np.where(values == key, 0, 65535).astype(np.uint16)


def _is_lossless(kind: str | None, data: bytes) -> bool:
    if kind == "WEBP":
        # The first chunk of pixels: VP8L, or VP8 with its losses.
        return b"VP8L" in data[:64] or b"VP8L" in data[: data.find(b"VP8 ")]
    return kind not in ALWAYS_LOSSY
