"""Semantic image inpainting (Yeh et al., CVPR 2017): the nearest image of a generator.

Gradient descent moves codes of a DCGAN until the generated image agrees with the known
pixels and looks real to the discriminator. Its pixels in the hole are blended into the
photograph.
`experiments/dcgan.py` trains the two networks.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import ndimage

from gl_jax import compilation
from gl_jax.config import UsageError
from gl_jax.evaluation.baselines import Baseline, Hole, Image
from gl_jax.evaluation.baselines.windows import in_windows
from gl_jax.models import inference
from gl_jax.weights.architectures import (
    GeneratorArchitecture,
    PlainDiscriminatorArchitecture,
)
from gl_jax.weights.native import Model

WINDOW = 7
"""Side in pixels of the square whose missing share is the weight of a known pixel."""
PRIOR = 0.1
"""Weight of the prior loss."""
UPDATES = 1_000
"""Updates of the codes."""
RATE = 0.01
"""Learning rate of the codes."""
MOMENTUM = 0.9
STARTS = 4
"""Codes that are optimised at once; the best one is kept."""


def importance(mask: Hole) -> Float[np.ndarray, "h w"]:
    """Returns the weight of each pixel in the context loss.

    A known pixel has the missing share of the WINDOW x WINDOW pixels around it; pixels
    beyond the image are not missing. A missing pixel has 0.
    """
    missing = mask.astype(np.float32)
    share = ndimage.uniform_filter(missing, WINDOW, mode="constant")
    return np.where(mask, 0, share).astype(np.float32)


def semantic(model: Model, *, updates: int = UPDATES, starts: int = STARTS) -> Baseline:
    """Returns the method with the generator and discriminator of `model`.

    Raises UsageError if the file has no discriminator.
    """
    architecture = model.architecture
    assert isinstance(architecture, GeneratorArchitecture)
    discriminator_model = model.discriminator
    if discriminator_model is None or not isinstance(
        discriminator_model.architecture, PlainDiscriminatorArchitecture
    ):
        raise UsageError(
            f"{model.name or 'the model'} has no discriminator, which semantic inpainting "
            "needs beside the generator: write it with gl-jax export --discriminators."
        )
    ops = compilation.ops()
    generator = inference.fold(model.network(ops), model.variables)
    discriminator = inference.fold(
        discriminator_model.network(ops), discriminator_model.variables
    )
    networks = _Networks(
        generator[0], discriminator[0], discriminator_model.architecture.convention
    )
    weights = jax.device_put((generator[1], discriminator[1]))
    search = jax.jit(partial(nearest, networks, architecture.codes, updates, starts))

    def complete(image: Image, mask: Hole) -> Image:
        completed = search(weights, image.astype(np.float32) / 255, importance(mask))
        return np.rint(255 * np.asarray(completed)).astype(np.uint8)

    return in_windows(architecture.size, complete, blend=True)


class _Networks(NamedTuple):
    generator: Any
    discriminator: Any
    convention: Any
    """The encoding of images for the discriminator."""


class _Search(NamedTuple):
    codes: Float[Array, "starts n"]
    velocity: Float[Array, "starts n"]
    best: Float[Array, "starts n"]
    least: Float[Array, " starts"]
    """The loss of the best codes."""


def nearest(
    networks: _Networks,
    size: int,
    updates: int,
    starts: int,
    weights: Any,
    image: Float[Array, "s s 3"],
    important: Float[Array, "s s"],
) -> Float[Array, "s s 3"]:
    """Returns the generator's image of least loss to the known pixels of `image`, in [0, 1].

    The loss is the sum of |important * (G(z) - y)|, colours y in [-1, 1], plus PRIOR times
    log(1 - D(G(z))). Codes z of `size` numbers start in [-1, 1], descend with Nesterov's
    momentum and are clipped to that range.
    """
    generator, discriminator = weights

    def images_of(codes: Float[Array, "starts n"]) -> Float[Array, "starts s s 3"]:
        return networks.generator.apply(generator, codes, train=False)

    def losses(codes: Float[Array, "starts n"]) -> Float[Array, " starts"]:
        generated = images_of(codes)
        context = jnp.abs(important[None, ..., None] * 2 * (generated - image[None]))
        shown = {"images": networks.convention.encode_image(generated)}
        logits = networks.discriminator.apply(discriminator, shown, train=False)
        prior = -jax.nn.softplus(logits)
        return jnp.sum(context, axis=(1, 2, 3)) + PRIOR * prior

    def total(
        codes: Float[Array, "starts n"],
    ) -> tuple[Float[Array, ""], Float[Array, " starts"]]:
        each = losses(codes)
        return jnp.sum(each), each

    def update(_: Array, search: _Search) -> _Search:
        slopes, loss = jax.grad(total, has_aux=True)(search.codes)
        better = loss < search.least
        best = jnp.where(better[:, None], search.codes, search.best)
        velocity = MOMENTUM * search.velocity - RATE * slopes
        codes = search.codes + MOMENTUM * velocity - RATE * slopes
        codes = jnp.clip(codes, -1.0, 1.0)
        return _Search(codes, velocity, best, jnp.minimum(loss, search.least))

    first = jax.random.uniform(jax.random.key(0), (starts, size), minval=-1.0)
    begin = _Search(first, jnp.zeros_like(first), first, jnp.full(starts, jnp.inf))
    end = jax.lax.fori_loop(0, updates + 1, update, begin)
    return images_of(end.best[jnp.argmin(end.least)][None])[0]
