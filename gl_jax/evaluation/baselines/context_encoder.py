"""The Context Encoder as a method; `experiments/context_encoder.py` trains it."""

from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from gl_jax import compilation
from gl_jax.evaluation.baselines import Baseline, Hole, Image
from gl_jax.evaluation.baselines.windows import in_windows
from gl_jax.models import inference
from gl_jax.models.context_encoder import middle_of
from gl_jax.weights.architectures import ContextEncoderArchitecture
from gl_jax.weights.native import Model


def context_encoder(model: Model) -> Baseline:
    """Returns the network's own output in 8 bits; it sees squares of its own size.

    One that predicts the middle alone raises ValueError for a hole that reaches further.
    """
    made = model.architecture
    assert isinstance(made, ContextEncoderArchitecture)
    network, variables = inference.fold(
        model.network(compilation.ops()), model.variables
    )
    run = jax.jit(partial(_run, network, model.convention))
    variables = jax.device_put(variables)
    middle = middle_of(made.size, made.predicted)

    def complete(image: Image, mask: Hole) -> Image:
        outside = mask.copy()
        outside[middle, middle] = False
        if outside.any():
            raise ValueError(
                f"the hole reaches beyond the middle {made.predicted}x{made.predicted} of "
                f"the {made.size}x{made.size} pixels that this context encoder sees, and "
                "it predicts that alone."
            )
        completed = run(variables, image[None], mask[None, ..., None])
        return np.rint(255 * np.asarray(completed[0])).astype(np.uint8)

    return in_windows(made.size, complete, blend=False)


def _run(
    network: Any,
    convention: Any,
    variables: Any,
    images: Float[Array, "b s s 3"],
    mask: Bool[Array, "b s s 1"],
) -> Float[Array, "b s s 3"]:
    inputs = convention.encode(images.astype(np.float32) / 255, mask)
    outputs = network.apply(variables, inputs, train=False)
    return jax.numpy.asarray(convention.decode(outputs))
