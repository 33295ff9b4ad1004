"""scikit-image's biharmonic inpainting: the smoothest surface through the border."""

import numpy as np
from skimage.restoration import inpaint_biharmonic

from gl_jax.evaluation.baselines import Hole, Image


def biharmonic(image: Image, mask: Hole) -> Image:
    """Fills the hole with the smooth surface that continues colours and slopes around it.

    The result has neither texture nor sharp edges.
    """
    # A system for each hole is smaller, with the same solution if holes do not touch.
    smooth = inpaint_biharmonic(
        image / 255, mask, split_into_regions=True, channel_axis=-1
    )
    levels: Image = np.rint(np.clip(smooth, 0, 1) * 255).astype(np.uint8)
    return levels
