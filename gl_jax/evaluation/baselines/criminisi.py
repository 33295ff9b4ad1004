"""Exemplar-based inpainting after Criminisi, Perez and Toyama (IEEE TIP 2004).

The hole is filled from its border inwards, a patch at a time. The patch of highest priority
is next: the product of a confidence term, the reliably known share of the patch, and a data
term, the strength of the edge that runs into the hole. It is filled from the patch of the
photograph that differs least over the target's known pixels. Edges therefore grow into the
hole before the textures around them close in.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.lib.stride_tricks import sliding_window_view

from gl_jax.evaluation.baselines import Hole, Image

RADIUS = 4
"""Pixels around a patch's centre: 9x9 patches, the paper's."""
SIDE = 2 * RADIUS + 1
"""Side of a patch in pixels."""

ALPHA = 255
"""The paper's divisor of the data term, for brightness 0 to 255; no effect on the order."""

STEPS = 2.5
"""Levels per unit of CIELab, in which patches are compared.

The finest for which float32 holds every sum of squares below exactly, so that rounding
decides no tie: 81 (250^2 + 246^2 + 270^2) < 2^24, with the ends of sRGB's gamut in L, a, b.
The exception is OpenCV filtering by Fourier transforms, as it may for 9x9 pixels on
processors other than x86.
"""

REACH = 2 * RADIUS + 1
"""Pixels from the centre of a filled patch to the farthest priority that it changes: a
gradient just outside it, at the end of another patch."""


def criminisi(image: Image, mask: Hole) -> Image:
    """Fills the hole with patches copied from the photograph around it.

    Source patches have no pixel of the hole. Of equal priorities the higher confidence
    comes first, then the upper patch, then the left one; of equal sources the nearest.
    Raises ValueError if no 9x9 pixels without a hole exist.
    """
    filling = _Filling(image, mask)
    while filling.hole.any():
        target = filling.most_urgent()
        filling.copy(filling.best_source(target), target)
    return filling.image[RADIUS:-RADIUS, RADIUS:-RADIUS].copy()


Point = tuple[int, int]
"""Row and column of a patch's centre, in the padded picture."""
Points = Int[np.ndarray, " n"]


class _Filling:
    """The partly filled picture, with a margin so that patches fit anywhere.

    The margin is neither known nor hole. Every array has the padded size.
    """

    def __init__(self, image: Image, mask: Hole) -> None:
        self.image = _pad(image)
        self.lab = _pad(_lab(image))
        self.hole = _pad(mask)
        self.known = _pad(~mask)
        self.inside = self.hole | self.known
        self.confidence = self.known.astype(np.float64)
        self.gradient = np.zeros((*self.hole.shape, 2))  # of the brightness: y, x
        # On the fill front only; elsewhere -1.
        self.priority = np.full(self.hole.shape, -1.0)
        self.certainty = np.full(self.hole.shape, -1.0)

        self.sources = cv2.split(self.lab)
        self.squares = (self.lab**2).sum(axis=2)
        self.usable = np.zeros(self.hole.shape, bool)
        self.usable[RADIUS:-RADIUS, RADIUS:-RADIUS] = _patches(self.known).all((2, 3))
        if not self.usable.any():
            raise ValueError(
                f"no {SIDE}x{SIDE} pixels without a hole exist in this image of "
                f"{mask.shape[1]}x{mask.shape[0]}: there is nothing to copy from."
            )
        center = (mask.shape[0] // 2 + RADIUS, mask.shape[1] // 2 + RADIUS)
        self._update(center, reach=max(self.hole.shape))

    def most_urgent(self) -> Point:
        """Returns the centre of the patch to fill next, on the border of the hole."""
        first = np.flatnonzero(self.priority == self.priority.max())
        return self._point(first[np.argmax(self.certainty.flat[first])])

    def best_source(self, target: Point) -> Point:
        """Returns the centre of the known patch that differs least from the target's."""
        window = _window(target, RADIUS)
        weights = self.known[window].astype(np.float32)
        wanted = self.lab[window] * weights[..., None]
        # Up to a constant, sum w (s - t)^2 = sum w s^2 - 2 sum w s t for all s at once.
        difference: np.ndarray = cv2.filter2D(self.squares, cv2.CV_32F, weights)
        for source, channel in zip(self.sources, cv2.split(wanted), strict=True):
            difference -= 2 * cv2.filter2D(source, cv2.CV_32F, channel)
        difference[~self.usable] = np.inf
        best = np.flatnonzero(difference == difference.min())
        y, x = np.unravel_index(best, self.hole.shape)
        return self._point(best[np.argmin((y - target[0]) ** 2 + (x - target[1]) ** 2)])

    def copy(self, source: Point, target: Point) -> None:
        """Fills the missing pixels of the target's patch, and updates all priorities."""
        there, here = _window(source, RADIUS), _window(target, RADIUS)
        missing = self.hole[here].copy()
        self.image[here][missing] = self.image[there][missing]
        self.lab[here][missing] = self.lab[there][missing]
        self.confidence[here][missing] = self.certainty[target]
        self.hole[here][missing] = False
        self.known[here][missing] = True
        self._update(target, reach=REACH)

    def _update(self, center: Point, *, reach: int) -> None:
        """Updates gradients and priorities up to `reach` pixels from a changed patch."""
        (top, left), (bottom, right) = (
            np.clip(np.add(center, step), 1, np.subtract(self.hole.shape, 1))
            for step in (-reach, reach + 1)
        )
        window = slice(top, bottom), slice(left, right)
        # One pixel more on each side, for the neighbours.
        wider = slice(top - 1, bottom + 1), slice(left - 1, right + 1)
        inner = slice(1, -1), slice(1, -1)
        known, lightness = self.known[wider], self.lab[wider][..., 0]
        self.gradient[window] = _gradient(lightness, known)[inner]
        self.priority[window] = self.certainty[window] = -1
        y, x = np.nonzero(self.hole[window] & _any_neighbour(known)[inner])
        y, x = y + top, x + left
        certainty = self._certainty(y, x)
        self.certainty[y, x] = certainty
        self.priority[y, x] = certainty * self._edges(y, x)

    def _certainty(self, y: Points, x: Points) -> Float[np.ndarray, " n"]:
        """Returns the confidence term C(p), the mean confidence of the patch around p."""
        corner = y - RADIUS, x - RADIUS
        total = _patches(self.confidence)[corner].sum((1, 2))
        return total / _patches(self.inside)[corner].sum((1, 2))

    def _edges(self, y: Points, x: Points) -> Float[np.ndarray, " n"]:
        """Returns the data term D(p), the isophote's strength across the hole's border.

        The isophote is the largest gradient of the patch, turned by a right angle.
        """
        patches = _patches(self.gradient)[y - RADIUS, x - RADIUS]
        patches = patches.reshape(len(y), 2, SIDE * SIDE)
        strongest = (patches**2).sum(1).argmax(1)
        along_y, along_x = patches[np.arange(len(y)), :, strongest].T
        normal_y, normal_x = self._normals(y, x)
        return np.abs(along_y * normal_x - along_x * normal_y) / ALPHA

    def _normals(self, y: Points, x: Points) -> Float[np.ndarray, "2 n"]:
        """Returns unit vectors across the hole's border; zero in a hole of one pixel."""
        steps = np.arange(-1, 2)
        height, width = self.hole.shape
        # Beyond the photograph the hole continues as at the border.
        rows = np.clip(y[:, None] + steps, RADIUS, height - RADIUS - 1)
        columns = np.clip(x[:, None] + steps, RADIUS, width - RADIUS - 1)
        around = self.hole[rows[:, :, None], columns[:, None, :]].astype(np.float64)
        sobel = np.outer([-1.0, 0.0, 1.0], [1.0, 2.0, 1.0])
        normal = np.stack([(around * s).sum((1, 2)) for s in (sobel, sobel.T)])
        length = np.hypot(*normal)
        return normal / np.where(length > 0, length, 1)

    def _point(self, index: np.intp) -> Point:
        y, x = np.unravel_index(index, self.hole.shape)
        return int(y), int(x)


def _lab(image: Image) -> Float[np.ndarray, "h w 3"]:
    """Returns CIELab rounded to 1 / STEPS, in these steps, as float32."""
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    return np.rint(lab * np.float32(STEPS))


def _gradient(
    lightness: Float[np.ndarray, "h w"], known: Bool[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w 2"]:
    """Returns central differences in levels of 255; zero beside unknown pixels."""
    gradient = np.zeros((*known.shape, 2))
    inner = (slice(1, -1), slice(1, -1))
    gradient[inner][..., 0] = (lightness[2:, 1:-1] - lightness[:-2, 1:-1]) / 2
    gradient[inner][..., 1] = (lightness[1:-1, 2:] - lightness[1:-1, :-2]) / 2
    gradient[~known | _any_neighbour(~known)] = 0
    return gradient * (255 / (100 * STEPS))


def _any_neighbour(pixels: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Returns whether any of the four neighbours is true."""
    result = np.zeros_like(pixels)
    result[1:] |= pixels[:-1]
    result[:-1] |= pixels[1:]
    result[:, 1:] |= pixels[:, :-1]
    result[:, :-1] |= pixels[:, 1:]
    return result


def _pad(array: np.ndarray) -> np.ndarray:
    """Returns the array with a margin of RADIUS zeros."""
    margin = ((RADIUS, RADIUS), (RADIUS, RADIUS), (0, 0))
    return np.pad(array, margin[: array.ndim])


def _patches(array: np.ndarray) -> np.ndarray:
    """Returns all patches by upper left corner, as a view [y, x, ..., SIDE, SIDE]."""
    return sliding_window_view(array, (SIDE, SIDE), axis=(0, 1))


def _window(center: Point, reach: int) -> tuple[slice, slice]:
    y, x = center
    return slice(y - reach, y + reach + 1), slice(x - reach, x + reach + 1)
