"""`Photo`: upright pixels in their original depth, with the file's metadata."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from gl_jax.colors import LUMA
from gl_jax.config import UsageError

RgbImage = UInt8[np.ndarray, "h w 3"]
PillowImage = Image.Image


# Formats that can be written: their suffixes and the Pillow modes they hold.
FORMATS = {
    "PNG": (".png .apng", "1 L LA RGB RGBA"),
    "JPEG": (".jpg .jpeg .jpe .jfif", "L RGB CMYK"),
    "WEBP": (".webp", "RGB RGBA"),
    "TIFF": (".tif .tiff", "1 L LA RGB RGBA CMYK"),
    "AVIF": (".avif", "RGB RGBA"),
    "GIF": (".gif", "P"),
    "BMP": (".bmp", "1 L RGB RGBA"),
    "PPM": (".ppm .pgm .pbm .pnm", "1 L I RGB"),
    "JPEG2000": (".jp2 .j2k .jpx", "L LA I;16 RGB RGBA"),
    "TGA": (".tga", "L LA RGB RGBA"),
}
SUFFIXES = {s: f for f, (row, _) in FORMATS.items() for s in row.split()}
ALWAYS_LOSSY = ("JPEG", "AVIF")
GREY = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")

Box = tuple[slice, slice]
EVERYWHERE: Box = (slice(None), slice(None))


@dataclass(frozen=True, eq=False)
class Metadata:
    """A file's metadata without the orientation, which is already applied.

    It holds no thumbnails or other pictures of the original photograph.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    """EXIF tags, beginning with the `Exif` marker."""
    xmp: bytes | None = None
    photoshop: bytes | None = None
    """Photoshop resources, which include IPTC: caption, author, place."""
    comment: bytes | None = None
    dpi: tuple[float, float] | None = None
    png_chunks: tuple[tuple[bytes, bytes], ...] = ()
    """Unchanged text and colour chunks of a PNG, as (type, content)."""
    encoding: dict[str, Any] = field(default_factory=dict)
    """The file's compression, as options of Pillow's writer."""


@dataclass(frozen=True, eq=False)
class Photo:
    """An upright photograph in its original depth, with everything that is written back."""

    name: str
    pixels: np.ndarray
    """[h, w, 3] RGB: uint8, uint16, int32 or float32; grey in three equal channels."""
    white: float
    """The value of a full channel: 255, 65535, 1.0, ..."""
    alpha: np.ndarray | None = None
    """[h, w] in the same units: 0 is transparent, `white` is opaque."""
    mode: str = "RGB"
    """Pillow's mode of the file; RGB for 16-bit colour too."""
    format: str | None = None
    """A key of `FORMATS`; None for other formats and for arrays."""
    lossless: bool = True
    metadata: Metadata = field(default_factory=Metadata)
    notices: tuple[str, ...] = ()
    """Messages to the user about the reading of the file, one line each."""
    inks: Image.Image | None = None
    """The original samples if RGB cannot represent them: CMYK, Lab, YCbCr."""
    filled: Bool[np.ndarray, "h w"] | None = None
    """The pixels that `fill` has replaced."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def deep(self) -> bool:
        """True if a channel has more than 8 bits."""
        return self.pixels.dtype != np.uint8

    def unit(self, box: Box = EVERYWHERE) -> Float[np.ndarray, "y x 3"]:
        """Returns the colours as float32 in [0, 1]; brighter floats are clipped."""
        pixels = self.pixels[box]
        if pixels.dtype == np.uint8:
            return _UNIT[pixels]
        return np.clip(pixels / self.white, 0, 1).astype(np.float32)

    def fill(
        self,
        hole: Bool[np.ndarray, "h w"],
        colors: Float[np.ndarray, "n 3"],
        *,
        opaque: bool = False,
    ) -> "Photo":
        """Returns the photo with new `colors`, RGB in [0, 1], in the pixels of `hole`.

        All other pixels stay bit for bit. A grey photo stays grey. Alpha is unchanged,
        or fully opaque inside the hole with `opaque`.
        """
        new = np.clip(colors, 0, 1).astype(np.float64)
        if self.mode in GREY:
            new = np.repeat((new @ LUMA)[:, None], 3, axis=1)
        if self.mode == "1":
            new = np.rint(new)
        pixels = self.pixels.copy()
        pixels[hole] = self._levels(new)
        alpha, inks = self.alpha, self.inks
        if opaque and alpha is not None:
            alpha = alpha.copy()
            alpha[hole] = self.white
        if inks is not None:
            rgb = Image.fromarray(np.rint(new * 255).astype(np.uint8)[None])
            samples = np.array(inks)
            samples[hole] = np.asarray(rgb.convert(inks.mode))[0]
            inks = Image.fromarray(samples, inks.mode)
        return dataclasses.replace(
            self, pixels=pixels, alpha=alpha, inks=inks, filled=hole
        )

    def layer(self, weight: Float[np.ndarray, "h w"]) -> "Photo":
        """Returns the colours with `weight` in [0, 1] as alpha, to lay over the photo."""
        alpha = self._levels(weight)
        if self.alpha is not None:
            alpha = np.minimum(alpha, self.alpha)
        colors = np.where(weight[..., None] > 0, self.pixels, 0)
        return dataclasses.replace(
            self, pixels=colors.astype(self.pixels.dtype), alpha=alpha,
            mode="RGBA", inks=None, filled=None,
        )  # fmt: skip

    def _levels(self, values: np.ndarray) -> np.ndarray:
        levels = values * self.white
        if self.pixels.dtype.kind != "f":
            levels = np.rint(levels)
        return levels.astype(self.pixels.dtype)


_UNIT = (np.arange(256) / 255).astype(np.float32)


def side_by_side(photo: Photo, hole: Bool[np.ndarray, "h w"], result: Photo) -> Photo:
    """Joins the input, the input with a white hole, and the result from left to right."""
    white = np.asarray(photo.white, photo.pixels.dtype)
    holed = np.where(hole[..., None], white, photo.pixels)
    return dataclasses.replace(
        photo, pixels=np.concatenate([photo.pixels, holed, result.pixels], axis=1),
        alpha=None, mode=photo.mode if photo.mode in GREY else "RGB",
        metadata=Metadata(icc=photo.metadata.icc, encoding=photo.metadata.encoding),
        inks=None, filled=None,
    )  # fmt: skip


def from_array(pixels: np.ndarray, name: str = "the image") -> Photo:
    """Returns a photo from an array of uint8, or of floats in [0, 1].

    Floats become float32. The shape must be [h, w], [h, w, 1], [h, w, 3] or [h, w, 4]
    (RGB, alpha). Raises UsageError for any other array.
    """
    shape, floats = pixels.shape, pixels.dtype.kind == "f"
    fits = pixels.ndim == 2 or (pixels.ndim == 3 and shape[2] in (1, 3, 4))
    if (pixels.dtype != np.uint8 and not floats) or not fits or 0 in shape:
        raise UsageError(
            f"{name} must be a uint8 array [h, w, 3] or [h, w, 4] in RGB order, "
            f"or [h, w] for grey, or floats in [0, 1], not {pixels.dtype} {list(shape)}."
        )
    if floats and not ((pixels >= 0) & (pixels <= 1)).all():
        raise UsageError(
            f"{name} must be a uint8 array or floats in [0, 1], not floats from "
            f"{pixels.min():g} to {pixels.max():g}."
        )
    white = 1.0 if floats else 255.0
    pixels = pixels.astype(np.float32) if floats else pixels
    if pixels.ndim == 2 or shape[2] == 1:
        grey = pixels.reshape(*shape[:2], 1)
        return Photo(name, np.repeat(grey, 3, axis=2), white, mode="L")
    alpha = pixels[..., 3] if shape[2] == 4 else None
    mode = "RGB" if alpha is None else "RGBA"
    return Photo(name, pixels[..., :3], white, alpha, mode)


def resized(
    pixels: Float[np.ndarray, "h w 3"], height: int, width: int
) -> Float[np.ndarray, "y x 3"]:
    """Resizes an image: averages pixels to shrink it, bicubic to enlarge it."""
    smaller = height * width < pixels.shape[0] * pixels.shape[1]
    method = Image.Resampling.BOX if smaller else Image.Resampling.BICUBIC
    channels = [
        Image.fromarray(np.ascontiguousarray(pixels[..., c])).resize(
            (width, height), method
        )
        for c in range(3)
    ]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)


def eight_bits(values: np.ndarray) -> UInt8[np.ndarray, "*shape"]:
    """Returns values scaled from [0, `white_of(values)`] to 8 bits."""
    white = white_of(values)
    scaled = np.clip(values, 0, white) * (255 / white)
    return np.asarray(np.rint(scaled), np.uint8)


def white_of(values: np.ndarray) -> float:
    """Returns the value of white: the smallest usual maximum that no value exceeds.

    Raises ValueError if values exceed all of them or are not finite.
    """
    if values.dtype in (np.uint8, np.uint16):
        return float(np.iinfo(values.dtype).max)
    if not np.isfinite(values).all():
        raise ValueError("it holds values that are not finite")
    whites = (65535, 2**31 - 1) if values.dtype.kind == "i" else (1, 255, 65535)
    white = next((w for w in whites if values.max() <= w), None)
    if white is None:
        raise ValueError(f"its values reach {values.max():g}, above {whites[-1]}")
    return float(white)
