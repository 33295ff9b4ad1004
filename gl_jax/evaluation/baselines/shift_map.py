"""The statistics of patch offsets (He and Sun 2012), as OpenCV's shift-map inpainting.

Patches that resemble each other lie apart by a few offsets again and again. The 60
commonest of these shift the photograph over itself, and a graph cut joins the shifted
copies in the hole where their seams show least.
"""

import cv2
import numpy as np
from jaxtyping import UInt8

from gl_jax.evaluation.baselines import Hole, Image, paint_mean


def shift_map(image: Image, mask: Hole) -> Image:
    """The hole as a montage of the shifted photograph.

    A pixel that every shift takes from the hole, or from beyond the border, is asked for
    again with what has been filled counted as known. What can be reached in no such
    round is left in the mean colour of the known pixels, as in a hole too wide or an
    image too small for the statistics.
    """
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2Lab)
    left = mask
    while left.any():
        lab, before = _montage(lab, left), left
        # OpenCV leaves it at (0, 0, 0), which is no colour: black is (0, 128, 128).
        left = before & (lab == 0).all(axis=2)
        if left.sum() == before.sum():
            break
    return np.where(
        left[..., None], paint_mean(image, mask), cv2.cvtColor(lab, cv2.COLOR_Lab2RGB)
    )


def _montage(lab: UInt8[np.ndarray, "h w 3"], mask: Hole) -> UInt8[np.ndarray, "h w 3"]:
    # Here 255 is a known pixel, and only 255: other values come out black.
    known = np.where(mask, 0, 255).astype(np.uint8)
    filled = np.zeros_like(lab)
    cv2.xphoto.inpaint(lab, known, filled, cv2.xphoto.INPAINT_SHIFTMAP)
    return np.where(mask[..., None], filled, lab)
