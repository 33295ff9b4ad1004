"""Exemplar-based inpainting after Criminisi, Perez and Toyama (IEEE TIP 2004).

The hole is filled from its border inwards, a patch at a time. The next patch is that of
highest priority, the product of two terms: how much of it is known for certain, and how
strongly an edge runs into the hole there. It is filled from the patch of the photograph
that differs least from it, over the pixels that both have. So edges grow into the hole
before the textures around them close in.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.lib.stride_tricks import sliding_window_view

from gl_jax.evaluation.baselines import Hole, Image

RADIUS = 4
"""Pixels around a patch's centre: 9x9 patches, the paper's."""
SIDE = 2 * RADIUS + 1

ALPHA = 255
"""The paper's normaliser of the data term, for brightness 0 to 255; moves no order."""

STEPS = 2.5
"""Levels per unit of CIELab, in which patches are compared.

The finest at which every sum of squares below is a whole number that float32 holds
exactly: 81 (250^2 + 246^2 + 270^2) < 2^24, with the ends of sRGB's gamut in L, a, b. So
no tie is decided by rounding. (Where OpenCV filters by Fourier transforms, as it may for
9x9 pixels on processors other than x86, it can be.)
"""

REACH = 2 * RADIUS + 1
"""Pixels from a new patch to the farthest priority that it changes: a gradient just
outside it, seen from the far end of a patch."""


def criminisi(image: Image, mask: Hole) -> Image:
    """Fills the hole with whole patches of the photograph around it.

    Sources contain only pixels known at the start. Among equal priorities the more
    certain one comes first, then the upper, then the left; among equal sources the
    nearest is taken. Raises ValueError if no 9x9 pixels without a hole exist.
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
    """The picture while it is being filled, with a margin so that patches fit anywhere.

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
                f"{mask.shape[0]}x{mask.shape[1]}: there is nothing to copy from."
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
        """The confidence term C(p): the mean confidence of the patch around each point."""
        corner = y - RADIUS, x - RADIUS
        total = _patches(self.confidence)[corner].sum((1, 2))
        return total / _patches(self.inside)[corner].sum((1, 2))

    def _edges(self, y: Points, x: Points) -> Float[np.ndarray, " n"]:
        """The data term D(p): the isophote's strength across the border of the hole.

        The isophote is the largest gradient of the patch, turned by a right angle.
        """
        patches = _patches(self.gradient)[y - RADIUS, x - RADIUS]
        patches = patches.reshape(len(y), 2, SIDE * SIDE)
        strongest = (patches**2).sum(1).argmax(1)
        along_y, along_x = patches[np.arange(len(y)), :, strongest].T
        normal_y, normal_x = self._normals(y, x)
        return np.abs(along_y * normal_x - along_x * normal_y) / ALPHA

    def _normals(self, y: Points, x: Points) -> Float[np.ndarray, "2 n"]:
        """Unit vectors across the border of the hole; zero in a hole of one pixel."""
        steps = np.arange(-1, 2)
        height, width = self.hole.shape
        # Beyond the photograph the hole goes on as it is at its border.
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
    """CIELab in whole steps, as float32."""
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    return np.rint(lab * np.float32(STEPS))


def _gradient(
    lightness: Float[np.ndarray, "h w"], known: Bool[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w 2"]:
    """Central differences in levels of 255; zero where one of the four is unknown."""
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
    """The array with a margin of zeros, as wide as a patch reaches."""
    margin = ((RADIUS, RADIUS), (RADIUS, RADIUS), (0, 0))
    return np.pad(array, margin[: array.ndim])


def _patches(array: np.ndarray) -> np.ndarray:
    """All patches by their upper left corner, as a view: [y, x, ..., SIDE, SIDE]."""
    return sliding_window_view(array, (SIDE, SIDE), axis=(0, 1))


def _window(center: Point, reach: int) -> tuple[slice, slice]:
    y, x = center
    return slice(y - reach, y + reach + 1), slice(x - reach, x + reach + 1)
