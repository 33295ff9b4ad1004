"""OpenCV's two inpainting methods, which continue colours and edges from the border.

Both look RADIUS pixels around each pixel they fill. Telea's result is a few levels of
255 too dark or bright even in one flat colour (OpenCV 5.0: up to 3, and up to 7 where
the hole touches the left or top border).
"""

import cv2

from gl_jax.evaluation.baselines import Hole, Image

RADIUS = 3
"""Pixels; the value of OpenCV's own tutorial."""


def telea(image: Image, mask: Hole) -> Image:
    """Fast marching: weighted means of what is known, from the border inwards (2004)."""
    return _inpaint(image, mask, cv2.INPAINT_TELEA)


def navier_stokes(image: Image, mask: Hole) -> Image:
    """Lines of equal brightness continued as a fluid flows (Bertalmio et al. 2001)."""
    return _inpaint(image, mask, cv2.INPAINT_NS)


def _inpaint(image: Image, mask: Hole, method: int) -> Image:
    # The order of the channels does not matter: each is filled for itself.
    filled: Image = cv2.inpaint(image, mask.astype("uint8"), RADIUS, method)
    return filled
