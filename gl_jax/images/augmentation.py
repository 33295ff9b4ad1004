"""Image changes for random augmentation in training, by OpenCV."""

import numpy as np

from gl_jax.colors import LUMA
from gl_jax.images.photo import RgbImage


def mirrored(image: RgbImage) -> RgbImage:
    """Returns the image mirrored left to right.

    OpenCV is 40 times as fast as a copy of NumPy's mirrored view.
    """
    import cv2

    return cv2.flip(image, 1)


def jittered(
    image: RgbImage, brightness: float, contrast: float, saturation: float
) -> RgbImage:
    """Multiplies an image's brightness, contrast and saturation, in this order.

    A factor of 1 changes nothing. Contrast scales around the image's mean grey,
    saturation around each pixel's grey. Values are clipped to [0, 255] once, at the end.
    """
    import cv2

    # All three are linear in a pixel's colour, so one matrix and an offset suffice.
    mean_grey = brightness * float(np.array(cv2.mean(image)[:3]) @ LUMA)
    colours = saturation * np.eye(3) + (1 - saturation) * np.tile(LUMA, (3, 1))
    offset = np.full(3, (1 - contrast) * mean_grey)
    return cv2.transform(
        image, np.column_stack([contrast * brightness * colours, offset])
    )
