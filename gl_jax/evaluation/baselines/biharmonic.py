"""scikit-image's biharmonic inpainting: the smoothest surface through the border."""

import numpy as np
from skimage.restoration import inpaint_biharmonic

from gl_jax.evaluation.baselines import Hole, Image


def biharmonic(image: Image, mask: Hole) -> Image:
    """The hole as a thin plate that is bent by the colours and slopes around it.

    No texture and no sharp edge survives; in smooth places it is hard to beat.
    """
    # Apart from each other the holes are smaller systems, with the same solution
    # as long as they do not touch.
    smooth = inpaint_biharmonic(
        image / 255, mask, split_into_regions=True, channel_axis=-1
    )
    levels: Image = np.rint(np.clip(smooth, 0, 1) * 255).astype(np.uint8)
    return levels
