"""Reads the photographs users have, whatever their format, into plain upright RGB.

Everything that decodes an image in this project goes through this file, so a network
sees a photograph in use exactly as it saw photographs in training. A decoded image is
uint8 [h, w, 3], RGB, turned upright after its EXIF tag. Alpha is dropped and the colour
under it kept; grey becomes three equal channels; CMYK and palettes become RGB; of an
animation the first frame counts. Deeper images are scaled to 8 bits, never clipped.
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from gl_jax.config import UsageError

RgbImage = UInt8[np.ndarray, "h w 3"]

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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
) -> UInt8[np.ndarray, "side side 3"]:
    """A square of `side` pixels of the image resized to a shortest side of `shortest`.

    The image is made smaller or larger with its proportions kept; `shortest` is at
    least `side`. `place` is the square's (y, x) in [0, 1]: at 0 it touches the top or
    left edge, at 1 the bottom or right one, by default it is in the middle. Only the
    pixels of the square are resized, and a JPEG is decoded at a half, a quarter or an
    eighth of its size where that still is no smaller than the resized image.

    Raises UsageError as `read_rgb` does, ValueError where `side` exceeds `shortest`.
    """
    if side > shortest:
        raise ValueError(f"side (={side}) must be at most shortest (={shortest}).")
    with _opened(data, name) as image:
        image.draft(None, _resized(image, shortest))  # does nothing but for a JPEG
        upright = _upright_rgb(image)
        width, height = _resized(upright, shortest)
        top = min(int(place[0] * (height - side + 1)), height - side)
        left = min(int(place[1] * (width - side + 1)), width - side)
        across, down = upright.width / width, upright.height / height
        box = (left * across, top * down, (left + side) * across, (top + side) * down)
        # Pillow widens the bilinear filter with the reduction, so nothing aliases.
        crop = upright.resize((side, side), Image.Resampling.BILINEAR, box=box)
        return np.array(crop)


def _resized(image: Image.Image, shortest: int) -> tuple[int, int]:
    scale = shortest / min(image.size)
    width, height = image.size
    return max(shortest, round(width * scale)), max(shortest, round(height * scale))


@contextlib.contextmanager
def _opened(data: bytes | Path, name: str) -> Iterator[Image.Image]:
    """The image, not decoded yet; what goes wrong inside becomes one line about it."""
    try:
        if isinstance(data, bytes) and not data:
            raise UsageError(f"{name} is empty: it has no bytes.")
        with Image.open(data if isinstance(data, Path) else io.BytesIO(data)) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise Image.DecompressionBombError
            yield image
    except (UsageError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise UsageError(f"{name} does not exist.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UsageError(
            f"{name} has more than {Image.MAX_IMAGE_PIXELS:,} pixels, the most that "
            "are decoded; make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS."
        ) from error
    except UnidentifiedImageError as error:
        if isinstance(data, Path) and data.stat().st_size == 0:
            raise UsageError(f"{name} is empty: it has no bytes.") from error
        raise UsageError(f"{name} is not an image in a known format.") from error
    except Exception as error:
        # A damaged file leads a decoder to any exception there is: OSError,
        # SyntaxError, struct.error, IndexError and more are all known from Pillow.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"{name} cannot be decoded: {reason}.") from error


def _upright_rgb(image: Image.Image) -> Image.Image:
    image.load()
    # Asked for after loading: a PNG may carry its tags behind the pixels.
    turn = _turn(image)
    rgb = _rgb(image)
    return rgb if turn is None else rgb.transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        # Damaged tags of a photograph whose pixels are whole: taken as having none.
        return None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        # The upper byte, as Pillow itself reads the three channels of 16-bit colour.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        image = Image.fromarray(_eight_bits(np.asarray(image)))
    # Only alpha can be lost with it; a palette's would make Pillow warn about that.
    image.info.pop("transparency", None)
    return image.convert("RGB")


def _eight_bits(values: np.ndarray) -> UInt8[np.ndarray, "h w"]:
    """Grey whose white is the least usual one that no value exceeds, as 8 bits."""
    if not np.isfinite(values).all():
        raise ValueError("it holds values that are not finite")
    whites = (65535, 2**31 - 1) if values.dtype.kind == "i" else (1, 255, 65535)
    white = next((w for w in whites if values.max() <= w), None)
    if white is None:
        raise ValueError(f"its values reach {values.max():g}, above {whites[-1]}")
    scaled = np.clip(values, 0, white) * (255 / white)
    return np.asarray(np.rint(scaled), np.uint8)
