"""Augmentations in front of the discriminators: (key, images, step) -> images.

The same function is applied to photographs and to completions, whole images before the
views are cut out of them. `key` holds one key for each image, so what is drawn for one
does not depend on the others of its batch; `step` counts the updates done.
"""

from collections.abc import Callable

import jax
from jaxtyping import Array, Int, Key

from gl_jax.holes import Images

Augment = Callable[[Key[Array, " b"], Images, Int[Array, ""]], Images]


def normal_noise(deviation: Callable[[Int[Array, ""]], Array | float]) -> Augment:
    """Adds normal noise whose standard deviation is a function of the step.

    On few photographs it keeps the discriminators from winning (Arjovsky and Bottou
    2017, "Towards Principled Methods for Training GANs", section 3).
    """

    def augment(key: Key[Array, " b"], images: Images, step: Int[Array, ""]) -> Images:
        shape = images.shape[1:]
        noise = jax.vmap(lambda one: jax.random.normal(one, shape, images.dtype))(key)
        return images + deviation(step) * noise

    return augment
