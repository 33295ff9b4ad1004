"""The same photographs with the same holes, completed again and again during a run."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from gl_jax import compilation
from gl_jax.config import Config
from gl_jax.holes import HOLES, batch_key, composite, example_keys
from gl_jax.metrics import l1, psnr
from gl_jax.training.parts import Parts

# Validation holes come from a key of their own, the same in every run of one size.
SEED = 2017


class Completed(NamedTuple):
    """Photographs with what the network made of them; all float RGB in [0, 1]."""

    photographs: UInt8[np.ndarray, "n s s 3"]
    mask: Float[np.ndarray, "n s s 1"]
    completed: Float[np.ndarray, "n s s 3"]
    composite: Float[np.ndarray, "n s s 3"]


class Validation:
    """Completes fixed validation photographs with running statistics, on one device."""

    def __init__(
        self,
        parts: Parts,
        config: Config,
        mean_color: tuple[float, float, float],
        photographs: UInt8[np.ndarray, "n s s 3"],
        device: jax.Device,
    ) -> None:
        convention = parts.encoding.completion(mean_color)
        self._photographs = photographs
        self._device = device
        # As many at a time as one device trains on, so that validation fits where training does.
        self._batch = max(
            1, config.data.batch_size // (jax.device_count() * config.run.accumulate)
        )

        def complete(
            variables: Any, photographs: UInt8[Array, "b s s 3"], first: Array
        ) -> tuple[Any, dict[str, Float[Array, " b"]]]:
            images = photographs.astype(jnp.float32) / 255
            keys = example_keys(jax.random.key(SEED), HOLES, first, images.shape[0])
            of_all = batch_key(jax.random.key(SEED), HOLES)
            mask = parts.sample_holes(keys, images.shape[1:3], of_all).mask
            inputs = convention.encode(images, mask)
            outputs = parts.completion.apply(variables, inputs, train=False)
            completed = jnp.asarray(convention.decode(outputs))
            pasted = composite(completed, images, mask)
            metrics = {
                "val_l1": l1(pasted, images, mask),
                "val_psnr": psnr(pasted, images, mask),
            }
            return (mask, completed, pasted), metrics

        self._complete = compilation.jit(complete)

    def metrics(self, variables: Any) -> dict[str, float]:
        """Mean hole L1 (`val_l1`, share of the range) and hole PSNR (`val_psnr`, dB)."""
        values: dict[str, list[np.ndarray]] = {}
        for first in range(0, len(self._photographs), self._batch):
            _, metrics = self._run(variables, first, self._batch)
            for name, value in metrics.items():
                values.setdefault(name, []).append(value)
        return {
            name: float(np.mean(np.concatenate(value)))
            for name, value in values.items()
        }

    def samples(self, variables: Any, count: int) -> Completed:
        """The first `count` validation photographs, completed."""
        (mask, completed, pasted), _ = self._run(variables, 0, count)
        return Completed(self._photographs[:count], mask, completed, pasted)

    def _run(self, variables: Any, first: int, count: int) -> Any:
        photographs = self._photographs[first : first + count]
        place = (photographs, np.int32(first))
        return jax.device_get(
            self._complete(variables, *jax.device_put(place, self._device))
        )
