"""PatchMatch (Barnes et al. 2009) with the votes of Wexler et al. (2007): PyPatchMatch.

From a coarse picture to the fine one, every patch of the hole looks for its nearest
neighbour in the known pixels, and every pixel becomes the mean of its values in the
neighbours of the patches around it.
"""

import patchmatch as library

from gl_jax.evaluation.baselines import Hole, Image

RADIUS = 3
"""Pixels around a patch's centre: 7x7 patches, the paper's. (The library's own default
of 15 copies whole objects into the hole.)"""

SEED = 0
"""Seed of the random search, which the library keeps for the whole process."""


def patchmatch(image: Image, mask: Hole) -> Image:
    """Composes the hole of patches that occur outside it, the same at every call.

    Raises ImportError if the package was installed without its native library.
    """
    if not library.patchmatch_available:
        raise ImportError(
            "PyPatchMatch is installed without its native library, there is no wheel "
            "for this platform."
        )
    library.set_random_seed(SEED)
    library.set_verbose(False)
    filled: Image = library.inpaint(image, mask, patch_size=RADIUS)
    return filled
