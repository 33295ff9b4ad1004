"""Decodes photographs in the formats that users have."""

import contextlib
import functools
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from gl_jax.config import UsageError
from gl_jax.files import reason
from gl_jax.images import tiff, unread
from gl_jax.images.metadata import orientation_of, read_metadata, tags_of
from gl_jax.images.photo import (
    ALWAYS_LOSSY,
    FORMATS,
    GREY,
    Photo,
    RgbImage,
    eight_bits,
    white_of,
)

_NO_PHOTOGRAPHS = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PDF", "WMF")

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
UPRIGHT_ARRAY: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def allow_pixels(limit: int) -> None:
    """Sets the largest number of pixels that this process decodes in one image."""
    Image.MAX_IMAGE_PIXELS = limit


@functools.cache
def readable_suffixes() -> frozenset[str]:
    """Returns the suffixes of all readable formats, in lower case, with their dot."""
    Image.init()
    formats = _formats()
    return frozenset(s for s, f in Image.EXTENSION.items() if f in formats)


def _formats() -> list[str]:
    """Returns Pillow's formats of photographs that need no external program."""
    Image.init()
    return [kind for kind in Image.ID if kind not in _NO_PHOTOGRAPHS]


def read(path: Path, name: str | None = None) -> Photo:
    """Reads the photograph in a file, in its original depth, with its metadata.

    Raises UsageError, which starts with `name` (by default the path), if the file
    cannot be read, exceeds `PIL.Image.MAX_IMAGE_PIXELS`, or is not an image.
    """
    name = str(path) if name is None else name
    return decode(read_bytes(path, name), name, path.suffix)


def read_bytes(path: Path, name: str) -> bytes:
    """Returns the bytes of a file; raises UsageError, which starts with `name`."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"{name} does not exist.") from error
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {reason(error)}.") from error


def decode(data: bytes, name: str, suffix: str = "") -> Photo:
    """Decodes a file's bytes like `read`; `suffix` is that of the file's name."""
    with opened(data, name) as image:
        return _photo(image, data, name, suffix)


def from_pillow(image: Image.Image, name: str = "the image") -> Photo:
    """Returns a Pillow image as a photo; raises UsageError if it cannot be decoded."""
    info = dict(image.info)
    if 0 in image.size:
        raise UsageError(f"{name} has no pixels: it is {image.width}x{image.height}.")
    try:
        with _reported(name):
            tiff.require_known_colors(image)
            return _photo(image, b"", name, suffix="")
    finally:
        # Decoding removes the transparency from `info`; a copy would lose TIFF tags.
        image.info = info


def is_pillow(image: object) -> bool:
    """Returns whether an object is a Pillow image."""
    return isinstance(image, Image.Image)


def read_rgb(data: bytes | Path, name: str, *, opaque: bool = False) -> RgbImage:
    """Decodes a file, or its bytes, to upright RGB of 8 bits.

    16-bit values keep their upper byte. Floating point is scaled from the smallest of
    the ranges [0, 1], [0, 255] and [0, 65535] that holds it.

    Raises UsageError, which starts with `name`, if the image cannot be read or has more
    than `PIL.Image.MAX_IMAGE_PIXELS` (89 million), or with `opaque` if a pixel is fully
    transparent, because its colour is unknown.
    """
    with opened(data, name) as image:
        if opaque:
            require_opaque(image, name)
        return np.array(upright_rgb(image))


def require_opaque(image: Image.Image, name: str) -> None:
    """Raises UsageError if a pixel of the image is fully transparent."""
    if image.has_transparency_data and not image.mode.startswith("I"):
        alpha = _unassociated(image).convert("RGBA").getchannel("A")
        if not all(alpha.getextrema()):
            raise UsageError(
                f"{name} is transparent in parts, whose colours are unknown."
            )


@contextlib.contextmanager
def opened(data: bytes | Path, name: str) -> Iterator[Image.Image]:
    """Opens an image without decoding it; errors inside the block become UsageError."""
    with _reported(name):
        if isinstance(data, bytes) and not data:
            raise UsageError(f"{name} is empty: it has no bytes.")
        image: Image.Image
        source = data if isinstance(data, Path) else io.BytesIO(data)
        try:
            image = Image.open(source, formats=_formats())
        except UnidentifiedImageError:
            stored = data.read_bytes() if isinstance(data, Path) else data
            if not stored:
                raise UsageError(f"{name} is empty: it has no bytes.") from None
            deep = _floating_tiff(stored)
            if deep is None:
                kind = unread.kind_of(name, stored[:1024])
                if kind is None and stored[:4] in tiff.STARTS:
                    raise UsageError(
                        f"{name} is a TIFF that is damaged, or whose samples are not "
                        "read; store RGB or grey of 8 or 16 bits, pixel by pixel."
                    ) from None
                if kind is None:
                    raise
                raise UsageError(
                    f"{name} is {kind.name}, which is not read; {kind.advice}."
                ) from None
            image = deep
        with image:
            tiff.require_no_raw(image, name)
            tiff.require_known_colors(image)
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise Image.DecompressionBombError
            yield image


@contextlib.contextmanager
def _reported(name: str) -> Iterator[None]:
    """Raises any error of Pillow's inside the block as a UsageError."""
    try:
        yield
    except (UsageError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise UsageError(f"{name} does not exist.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UsageError(
            f"{name} has more than {Image.MAX_IMAGE_PIXELS:,} pixels; make it smaller, "
            "or raise the limit: --max-pixels of `gl-jax complete`, "
            "PIL.Image.MAX_IMAGE_PIXELS in Python."
        ) from error
    except UnidentifiedImageError as error:
        raise UsageError(f"{name} is not an image in a known format.") from error
    except Exception as error:
        # Pillow's decoders raise OSError, SyntaxError, struct.error, IndexError and
        # more for damaged files.
        fault = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"{name} cannot be decoded: {fault}.") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """Returns the image as RGB of 8 bits, turned upright by its EXIF orientation."""
    image.load()
    # Only after loading, because a PNG's tags may follow the pixels.
    turn = _UPRIGHT.get(orientation_of(image))
    rgb = _rgb(image)
    return rgb if turn is None else rgb.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    image = _unassociated(image)
    if image.mode.startswith("I;16"):
        # The upper byte, which Pillow also keeps of 16-bit colour.
        image = Image.fromarray((tiff.deep_grey(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        image = Image.fromarray(eight_bits(tiff.deep_grey(image)))
    # Alpha is dropped anyway, and Pillow would warn about a palette's.
    image.info.pop("transparency", None)
    return image.convert("RGB")


def _unassociated(image: Image.Image) -> Image.Image:
    """Converts premultiplied colours to plain ones."""
    plain = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
    return image if plain is None else image.convert(plain)


def _floating_tiff(data: bytes) -> Image.Image | None:
    """Returns floating-point colour, which Pillow cannot open, as 8 bits.

    The orientation is already applied. Returns None for other files.
    """
    if data[:4] not in tiff.STARTS:
        return None
    tags = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
    file = io.BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    # OpenCV reads Lab and other samples as RGB, and decodes separate planes wrongly.
    rgb = tags.get(tiff.PHOTOMETRIC) == tiff.RGB
    alpha = tags.get(tiff.EXTRA_SAMPLES, (2,)) == (2,)
    if not rgb or not alpha or tags.get(tiff.PLANES) == tiff.SEPARATE:
        return None
    deep = _opencv(data)
    if deep is None or deep.ndim != 3 or deep.shape[2] not in (3, 4):
        return None
    image = Image.fromarray(eight_bits(deep[..., :3]))
    image.format = "TIFF"
    return image


def _opencv(data: bytes) -> np.ndarray | None:
    """Decodes an image by OpenCV, in RGB(A) order; None if it cannot."""
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


def _photo(image: Image.Image, data: bytes, name: str, suffix: str) -> Photo:
    notices = _other_than_its_name(image, name, suffix)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        notices.append(f"{name} has {frames} frames: the first one is taken.")
    stored = image.format
    # Pillow turns a TIFF upright in `load` and removes the tag.
    sideways = stored == "TIFF" and orientation_of(image) >= 5
    image.load()
    metadata = read_metadata(image, data, name, notices, sideways=sideways)
    orientation = orientation_of(image)
    image = _unassociated(image)
    mode, inks = image.mode, None
    if mode == "CMYK" and max(tags_of(image).get(tiff.BITS, (8,))) > 8:
        notices.append(f"{name} has inks of 16 bits: 8 of them are kept.")
    deep = _deep(image, data)
    if deep is not None:
        pixels, alpha = deep[..., :3], deep[..., 3] if deep.shape[2] == 4 else None
    elif mode.startswith("I;16") or mode in ("I", "F"):
        values = tiff.deep_grey(image)
        pixels, alpha = np.repeat(values[..., None], 3, axis=2), _key_alpha(image)
    else:
        alpha = None
        if image.has_transparency_data:
            alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        if mode not in (*GREY, "P", "PA", "RGB", "RGBA", "RGBX"):
            inks = image.copy()
            inks.info = {}  # the photo has the metadata
        pixels = np.asarray(_rgb(image))
    if deep is None or stored == "PNG":
        # OpenCV has already turned a TIFF.
        turn = UPRIGHT_ARRAY.get(orientation, np.asarray)
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


def _other_than_its_name(image: Image.Image, name: str, suffix: str) -> list[str]:
    """Returns a notice if the file's content has another format than its suffix."""
    same = {"MPO": "JPEG", "DIB": "BMP", "CUR": "ICO"}
    promised = Image.EXTENSION.get(suffix.lower(), "")
    promised, stored = (same.get(kind, kind) for kind in (promised, image.format or ""))
    if not promised or not stored or promised == stored:
        return []
    return [
        f"{name} holds {stored}, though its name says {promised}; a result has the "
        "format of its own name."
    ]


def _deep(image: Image.Image, data: bytes) -> np.ndarray | None:
    """Returns 16-bit colour or grey with alpha, which Pillow would reduce to 8 bits."""
    if image.format == "PNG":
        deep = data[24:25] == b"\x10" and data[25:26] != b"\0"
    else:
        tags = getattr(image, "tag_v2", {})
        bits = tags.get(258, (1,)) if tags else (1,)
        # A TIFF without tags comes from `_floating_tiff`.
        deep = image.format == "TIFF" and (
            not tags or (len(bits) > 1 and max(bits) > 8 and image.mode != "CMYK")
        )
    if not deep or not data:
        return None
    samples = _opencv(data)
    if samples is None or samples.ndim != 3 or samples.dtype == np.uint8:
        return None
    extra = tags_of(image).get(tiff.EXTRA_SAMPLES)
    if samples.shape[2] == 4 and extra == (0,):
        return samples[..., :3]
    if samples.shape[2] == 4 and extra == (1,):
        return tiff.divided_by_alpha(samples)
    return samples


def _key_alpha(image: Image.Image) -> np.ndarray | None:
    """Returns alpha for 16-bit grey with one value marked as transparent."""
    key = image.info.pop("transparency", None)
    if not isinstance(key, int):
        return None
    values = np.asarray(image)
    return np.where(values == key, 0, 65535).astype(np.uint16)


def _is_lossless(kind: str | None, data: bytes) -> bool:
    if kind == "WEBP":
        # The first chunk of pixels is VP8L if lossless, else VP8.
        return b"VP8L" in data[:64] or b"VP8L" in data[: data.find(b"VP8 ")]
    return kind not in ALWAYS_LOSSY
