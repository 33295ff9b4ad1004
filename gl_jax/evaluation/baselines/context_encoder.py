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
    """Returns the network's output as a method, by square windows of the network's size.

    If the network predicts the middle alone, the method raises ValueError for a hole that
    reaches beyond it.
    """
    architecture = model.architecture
    assert isinstance(architecture, ContextEncoderArchitecture)
    network, variables = inference.fold(
        model.network(compilation.ops()), model.variables
    )
    run = jax.jit(partial(_run, network, model.convention))
    variables = jax.device_put(variables)
    size, predicted = architecture.size, architecture.predicted
    middle = middle_of(size, predicted)

    def complete(image: Image, mask: Hole) -> Image:
        outside = mask.copy()
        outside[middle, middle] = False
        if outside.any():
            raise ValueError(
                f"the hole reaches beyond the middle {predicted}x{predicted} of the "
                f"{size}x{size} pixels, all that this context encoder predicts."
            )
        completed = run(variables, image[None], mask[None, ..., None])
        return np.rint(255 * np.asarray(completed[0])).astype(np.uint8)

    return in_windows(size, complete, blend=False)


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
