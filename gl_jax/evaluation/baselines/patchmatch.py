"""PatchMatch (Barnes et al. 2009) with the votes of Wexler et al. (2007): PyPatchMatch.

From coarse to fine, each patch of the hole is matched with its nearest neighbour among the
known patches, and each pixel becomes the mean of its values in the matches of the patches
that contain it.
"""

import patchmatch as library

from gl_jax.evaluation.baselines import Hole, Image

RADIUS = 3
"""Pixels around a patch's centre: 7x7 patches, the paper's. (The library's
default of 15 copies entire objects into the hole.)"""

SEED = 0
"""Seed of the random search; the library has one generator per process."""


def patchmatch(image: Image, mask: Hole) -> Image:
    """Fills the hole with patches from outside it, the same at every call.

    Raises ImportError if the package was installed without its native library.
    """
    if not library.patchmatch_available:
        raise ImportError(
            "PyPatchMatch is installed without its native library: it has no wheel for "
            "this platform."
        )
    library.set_random_seed(SEED)
    library.set_verbose(False)
    filled: Image = library.inpaint(image, mask, patch_size=RADIUS)
    return filled
