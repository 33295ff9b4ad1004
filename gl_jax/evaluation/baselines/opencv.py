"""OpenCV's three inpainting methods.

`telea` and `navier_stokes` continue the border, `shift_map` shifts the photograph. Telea's
result is a few levels of 255 too dark or bright even in one flat colour (OpenCV 5.0: up to
3, and up to 7 if the hole touches the left or top border).
"""

import cv2
import numpy as np
from jaxtyping import UInt8

from gl_jax.evaluation.baselines import Hole, Image, mean_fill

RADIUS = 3
"""Pixels around a filled one that determine it, as in OpenCV's tutorial."""


def telea(image: Image, mask: Hole) -> Image:
    """Fills by weighted means of known pixels, from the border inwards (Telea 2004)."""
    return _inpaint(image, mask, cv2.INPAINT_TELEA)


def navier_stokes(image: Image, mask: Hole) -> Image:
    """Continues lines of equal brightness as a fluid flows (Bertalmio et al. 2001)."""
    return _inpaint(image, mask, cv2.INPAINT_NS)


def _inpaint(image: Image, mask: Hole, method: int) -> Image:
    # The order of the channels does not matter: each is filled by itself.
    filled: Image = cv2.inpaint(image, mask.astype("uint8"), RADIUS, method)
    return filled


def shift_map(image: Image, mask: Hole) -> Image:
    """Fills the hole with shifted copies of the photograph (He and Sun 2012).

    A graph cut joins copies that are shifted by the 60 commonest offsets between similar
    patches, along their least visible seams.

    Pixels for which every shift leads into the hole or beyond the image are filled in a
    further round, in which the new pixels are known. Pixels that no round reaches get the
    mean colour of the known ones, as in a hole too wide or an image too small for the
    statistics.
    """
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2Lab)
    left = mask
    while left.any():
        lab, before = _montage(lab, left), left
        # OpenCV leaves unfilled pixels at (0, 0, 0), not a colour: black is (0, 128, 128).
        left = before & (lab == 0).all(axis=2)
        if left.sum() == before.sum():
            break
    return np.where(
        left[..., None], mean_fill(image, mask), cv2.cvtColor(lab, cv2.COLOR_Lab2RGB)
    )


def _montage(lab: UInt8[np.ndarray, "h w 3"], mask: Hole) -> UInt8[np.ndarray, "h w 3"]:
    # Only 255 marks a known pixel here; other values come out black.
    known = np.where(mask, 0, 255).astype(np.uint8)
    filled = np.zeros_like(lab)
    cv2.xphoto.inpaint(lab, known, filled, cv2.xphoto.INPAINT_SHIFTMAP)
    return np.where(mask[..., None], filled, lab)
