"""Validation during a run: always the same photographs with the same holes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from gl_jax import compilation
from gl_jax.config import Config, Phase, UsageError
from gl_jax.holes import (
    CODES,
    HOLES,
    REAL_PATCHES,
    Holes,
    batch_key,
    composite,
    example_keys,
)
from gl_jax.metrics import l1, psnr
from gl_jax.texture import SmallHolesError, grid_energy, swd
from gl_jax.training.gradients import game
from gl_jax.training.parts import Parts
from gl_jax.training.setup import set_up
from gl_jax.training.singular_values import singular_values
from gl_jax.training.state import TrainState, inference_variables, variables_of

# Seed of the validation holes: the same in every run of one image size.
SEED = 2017

ACCURACIES = ("real_accuracy", "fake_accuracy")


class Completed(NamedTuple):
    """Validation photographs and their completions."""

    photographs: UInt8[np.ndarray, "n s s 3"]
    mask: Float[np.ndarray, "n s s 1"]
    completed: Float[np.ndarray, "n s s 3"]
    composite: Float[np.ndarray, "n s s 3"]


class Validation:
    """Measures both networks on fixed validation photographs.

    It runs on one device, so the results do not depend on the number of devices.
    """

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
        # One device's training batch, so that validation fits into the same memory.
        self._batch = max(
            1, config.data.batch_size // (jax.device_count() * config.run.accumulate)
        )
        # The images in the discriminators' batch statistics, over all devices.
        self._shown = max(1, config.data.batch_size // config.run.accumulate)
        setup = set_up(parts, mean_color)

        def drawn(stream: int, images: Array, first: Array) -> Holes:
            key, (count, *shape) = jax.random.key(SEED), images.shape[:3]
            keys = example_keys(key, stream, first, count)
            return parts.sample_holes(keys, tuple(shape), batch_key(key, stream))

        def complete(
            variables: Any, photographs: UInt8[Array, "b s s 3"], first: Array
        ) -> tuple[Any, dict[str, Float[Array, " b"]]]:
            images = photographs.astype(jnp.float32) / 255
            mask = drawn(HOLES, images, first).mask
            keys = example_keys(jax.random.key(SEED), CODES, first, len(images))
            inputs = parts.inputs(keys, images, mask, mean_color)
            outputs = parts.completion.apply(variables, inputs, train=False)
            completed = jnp.asarray(convention.decode(outputs))
            pasted = composite(completed, images, mask)
            metrics = {
                "val_l1": l1(pasted, images, mask),
                "val_psnr": psnr(pasted, images, mask),
            }
            return (mask, completed, pasted), metrics

        def accuracy(
            variables: Any,
            photographs: UInt8[Array, "b s s 3"],
            completed: Float[Array, "b s s 3"],
            first: Array,
        ) -> dict[str, Float[Array, ""]]:
            def logits_of(images: Array, holes: Holes) -> Array:
                views = {
                    name: parts.encoding.discriminator.encode_image(view(images, holes))
                    for name, view in parts.views.items()
                }
                logits, _ = setup.parts.discriminator.apply(  # type: ignore[union-attr]
                    variables, views, train=True, mutable=["batch_stats"]
                )
                return jnp.asarray(logits)

            images = photographs.astype(jnp.float32) / 255
            holes = drawn(HOLES, images, first)
            fakes = parts.fakes(completed, images, holes.mask)
            windows = holes
            if not parts.paired_windows:
                windows = drawn(REAL_PATCHES, images, first)
            real, fake = logits_of(images, windows), logits_of(fakes, holes)
            _, metrics = game(setup, real, fake)
            return {f"val_{name}": metrics[name] for name in ACCURACIES}

        self._complete = compilation.jit(complete)
        self._accuracy = compilation.jit(accuracy)
        self._singular_values = compilation.jit(singular_values, once=True)

    def require_shown(self, state: TrainState) -> None:
        """Raises UsageError if the discriminators fail on batches of these photographs.

        They are traced now, because their first validation may come after days. `state`
        holds shapes.
        """
        if state.discriminator is None:
            return
        count, side = len(self._photographs), self._photographs.shape[1]
        first = jax.ShapeDtypeStruct((), np.int32)
        for size in {len(part) for part in self._parts(count)}:
            shape = (size, side, side, 3)
            photographs = jax.ShapeDtypeStruct(shape, np.uint8)
            completed = jax.ShapeDtypeStruct(shape, np.float32)
            variables = variables_of(state.discriminator)
            try:
                jax.eval_shape(self._accuracy, variables, photographs, completed, first)
            except Exception as error:
                reason = " ".join(str(error).split())[:300]
                raise UsageError(
                    f"the discriminators fail on {size} validation photographs: "
                    f"{type(error).__name__}: {reason}"
                ) from error

    def metrics(self, state: TrainState, phase: Phase) -> dict[str, float]:
        """Returns all measurements of this phase by their names in the log.

        For the moving average, if there is one, else for the trained network: `val_l1`
        (fraction of the range) and `val_psnr` (dB), means inside the holes; and
        `val_swd_fine`, `val_swd_coarse`, `val_grid` and `val_grid_photographs` of
        `texture`, if the holes are large enough.
        From the discriminators' phase on: `val_real_accuracy` and `val_fake_accuracy`,
        the discriminators' accuracy on these photographs and on their completions by the
        trained network (with its running statistics). Batch normalisation uses batches
        of the training's size; nothing is augmented.
        Finally, the `singular_values`.
        """
        completed, values = self._completed(inference_variables(state))
        networks = {"completion": state.completion.params}
        if state.discriminator is not None:
            networks["discriminator"] = state.discriminator.params
            if phase is not Phase.COMPLETION:
                if state.ema is not None:
                    completed, _ = self._completed(variables_of(state.completion))
                values |= self._accuracies(variables_of(state.discriminator), completed)
        singular = jax.device_get(self._singular_values(networks))
        return values | {name: float(value) for name, value in singular.items()}

    def _texture(self, runs: Sequence[Any]) -> dict[str, float]:
        """Returns sliced Wasserstein distances and grid energies of all photographs.

        Returns {} if the holes are too small for them.
        """
        mask, pasted = (
            np.concatenate([pictures[place] for pictures, _ in runs])
            for place in (0, 2)
        )
        photographs = self._photographs[: len(mask)].astype(np.float32) / 255
        try:
            fine, coarse = swd(pasted, photographs, mask)
        except SmallHolesError:
            return {}
        values = {"val_swd_fine": fine, "val_swd_coarse": coarse}
        for name, images in (("grid", pasted), ("grid_photographs", photographs)):
            energies = np.asarray(grid_energy(images, mask))
            measured = energies[~np.isnan(energies)]
            if len(measured):
                values[f"val_{name}"] = float(np.median(measured))
        return values

    def samples(self, variables: Any, count: int) -> Completed:
        """Completes the first `count` validation photographs."""
        (mask, completed, pasted), _ = self._run(variables, 0, count)
        return Completed(self._photographs[:count], mask, completed, pasted)

    def _completed(self, variables: Any) -> tuple[np.ndarray, dict[str, float]]:
        """Returns the raw completions of all photographs, and their mean errors."""
        firsts = range(0, len(self._photographs), self._batch)
        runs = [self._run(variables, first, self._batch) for first in firsts]
        errors = {
            name: float(np.mean(np.concatenate([errors[name] for _, errors in runs])))
            for name in runs[0][1]
        }
        completed = np.concatenate([completed for (_, completed, _), _ in runs])
        return completed, errors | self._texture(runs)

    def _accuracies(self, variables: Any, completed: np.ndarray) -> dict[str, float]:
        count = len(completed)
        values = dict.fromkeys((f"val_{name}" for name in ACCURACIES), 0.0)
        for part in self._parts(count):
            place = self._photographs[part], completed[part], np.int32(part[0])
            shares = self._accuracy(variables, *jax.device_put(place, self._device))
            for name, share in jax.device_get(shares).items():
                values[name] += float(share) * len(part) / count
        return values

    def _parts(self, count: int) -> list[np.ndarray]:
        # In equal parts, because a small rest would have different batch statistics.
        return np.array_split(np.arange(count), -(-count // self._shown))

    def _run(self, variables: Any, first: int, count: int) -> Any:
        photographs = self._photographs[first : first + count]
        place = (photographs, np.int32(first))
        return jax.device_get(
            self._complete(variables, *jax.device_put(place, self._device))
        )
