"""gl_jax's side of every task: the functions that training and completion run.

Networks alone need JAX, Flax, Optax and jaxtyping; what reads photographs and files is
imported by the tasks that do.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

import gl_jax
from benchmarks import machine, tasks
from benchmarks.exchange import torch_arrays
from benchmarks.tasks import FIRST, MEAN_COLOR, Arrays, Settings, flattened
from gl_jax import compilation
from gl_jax.config import Config, DataConfig, HolesConfig, ModelConfig, Phase
from gl_jax.holes import HOLES, REAL_PATCHES, composite, example_keys
from gl_jax.models import inference
from gl_jax.models.completion import LAYERS, layer_name
from gl_jax.models.ops import NATIVE
from gl_jax.parallel import AXIS, Devices
from gl_jax.training import (
    NetState,
    TrainState,
    create_state,
    default_parts,
    make_steps,
    state_shapes,
)
from gl_jax.training.state import inference_variables
from gl_jax.weights.convention import Convention

METRICS = {
    "loss.completion": "completion_loss",
    "loss.discriminator": "discriminator_loss",
    "adversarial.loss": "adversarial_loss",
    "adversarial.gradient": "adversarial_gradient_norm",
}
"""The metrics of a step that are compared, by the names of their tolerances."""


def start(settings: Settings) -> None:
    """Starts JAX on the device of the case, with as many of them as it asks for."""
    platform = {"cpu": "cpu", "gpu": "cuda"}[settings["device"]]
    jax.config.update("jax_platforms", platform)
    if platform == "cpu":
        jax.config.update("jax_num_cpu_devices", settings["devices"])
    jax.devices()
    if "photograph" in settings:
        from gl_jax.data.tfds import tensorflow

        tensorflow()


def versions() -> dict[str, str]:
    """Returns the versions of the libraries that do the work."""
    libraries = (jax, jaxlib, flax)
    return {library.__name__: library.__version__ for library in libraries}


def peak_bytes(at_start: int) -> int:
    """Returns the peak memory: the GPU's if there is one, else the process's."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return machine.peak() - at_start
    return int(device.memory_stats()["peak_bytes_in_use"])


def configuration(settings: Settings, **data: Any) -> Config:
    """Returns the paper's configuration at the sizes of a case."""
    side = settings["image_size"]
    low, high = settings["holes"]
    return Config(
        model=ModelConfig(
            width=settings["width"],
            compute_dtype=settings["precision"],
            discriminators="both" if settings.get("phase") == "joint" else "none",
        ),
        data=DataConfig(
            batch_size=settings["batch"],
            image_size=side,
            resize=(side, side + side // 2),
            mean_color=MEAN_COLOR,
            **data,
        ),
        holes=HolesConfig(
            min_size=low, max_size=high, local_size=settings["local_size"]
        ),
    )


class Training(tasks.Training):
    """A training step, pmapped, its state donated, as `training.loop` runs it."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        config = configuration(settings)
        self._devices = Devices(settings["devices"])
        self._devices.check_batch(settings["batch"], 1)
        self._parts = default_parts(config)
        steps = make_steps(self._parts, MEAN_COLOR, axis_name=AXIS)
        self._step = self._devices.pmap(steps[Phase(settings["phase"])])
        self._key = self._devices.replicate(jax.random.key(FIRST))
        state = create_state(self._parts, settings["image_size"])
        self._state = self._devices.replicate(randomized(state))

    def export(self, folder: Path) -> None:
        state = self._devices.first(self._state)
        arrays = _weights("completion", state.completion)
        if state.discriminator is not None:
            arrays |= _weights("discriminator", state.discriminator)
        key = jax.random.fold_in(jax.random.key(FIRST), state.step)
        side, batch = self.settings["image_size"], self.settings["batch"]
        fake, real = (
            self._parts.sample_holes(example_keys(key, stream, 0, batch), (side, side))
            for stream in (HOLES, REAL_PATCHES)
        )
        arrays |= {"mask": fake.mask, "corner": fake.corner, "real_corner": real.corner}
        np.savez(folder / "exchange.npz", **jax.device_get(arrays))

    def outcome(self, folder: Path) -> Arrays:
        before = jax.device_get(self._devices.first(self._state))
        values = jax.device_get(self.work(*self.inputs(FIRST)))
        after = jax.device_get(self._devices.first(self._state))
        results = {
            name: np.asarray(values[key])
            for name, key in METRICS.items()
            if key in values
        }
        for name in ("completion", "discriminator"):
            nets = [getattr(state, name) for state in (before, after)]
            if nets[0] is not None:
                old, new = (flattened(torch_arrays(net.params, {})) for net in nets)
                results[f"update.{name}"] = new - old
        return results

    def work(self, images: np.ndarray) -> Any:
        sharded = self._devices.shard(images)
        self._state, metrics = self._step(self._state, sharded, self._key)
        if self._devices.wait_each_step:
            jax.block_until_ready(metrics)
        return metrics

    def wait(self, results: Any) -> None:
        jax.block_until_ready((self._state, results))

    def flops(self) -> float:
        parts = default_parts(configuration(self.settings), ops=NATIVE)
        step = make_steps(parts, MEAN_COLOR)[Phase(self.settings["phase"])]
        shapes = state_shapes(parts, self.settings["image_size"])
        return counted(step, shapes, *self.inputs(FIRST), jax.random.key(FIRST))


class Inference(tasks.Inference):
    """The network with batch normalisation folded in, as the Completer runs it."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        network, self._state = random_completion(settings)
        folded, weights = inference.fold(network, inference_variables(self._state))
        size = jnp.asarray((settings["side"], settings["side"]), jnp.int32)

        def complete(weights: Any, photograph: jax.Array, mask: jax.Array) -> Any:
            images = photograph.astype(jnp.float32) / 255
            inputs = Convention.gl_jax(MEAN_COLOR).encode(images, mask)
            completed = inference.complete(folded, weights, inputs, size)
            return completed, composite(completed, images, mask)

        self._weights = jax.device_put(weights)
        self._complete = complete
        self._program = compilation.jit(complete)

    def export(self, folder: Path) -> None:
        arrays = _weights("completion", self._state.completion)
        np.savez(folder / "exchange.npz", **arrays)

    def outcome(self, folder: Path) -> Arrays:
        completed, pasted = self.work(*self.inputs(FIRST))
        return {"completed": np.asarray(completed), "composite": np.asarray(pasted)}

    def work(self, photograph: np.ndarray, mask: np.ndarray) -> Any:
        return self._program(self._weights, photograph, mask)

    def wait(self, results: Any) -> None:
        jax.block_until_ready(results)

    def flops(self) -> float:
        return counted(self._complete, self._weights, *self.inputs(FIRST))


class LargePhoto(tasks.LargePhoto):
    """The Completer, with a model loaded from a file."""

    def export(self, folder: Path) -> None:
        from gl_jax.weights import native
        from gl_jax.weights.architectures import Architecture

        _, state = random_completion(self.settings)
        np.savez(folder / "exchange.npz", **_weights("completion", state.completion))
        model = native.Model(
            variables=inference_variables(state),
            architecture=Architecture(width=self.settings["width"]),
            convention=Convention.gl_jax(MEAN_COLOR),
        )
        native.save(model, folder / "model.safetensors")
        self._completer = gl_jax.load(folder / "model.safetensors")

    def work(self, photograph: np.ndarray, mask: np.ndarray) -> Any:
        return self._completer(photograph, mask, blend="none")


class Pipeline(tasks.Pipeline):
    """`data.pipeline`, as training reads photographs."""

    def crop(
        self, path: Path, shortest: int, side: int, top: float, left: float
    ) -> np.ndarray:
        from gl_jax.images import read_crop

        return read_crop(
            path,
            path.name,
            shortest=shortest,
            side=side,
            place=(top, left),
            exact=False,
        )

    def batches(self, seed: int) -> Iterator[np.ndarray]:
        from gl_jax.data.pipeline import Photographs

        config = configuration(self.settings, source=self.settings["folder"])
        return Photographs(config.data, seed=seed).train_batches()


def counted(function: Any, *arguments: Any) -> float:
    """Returns the floating-point operations of a program, before it is compiled."""
    return float(jax.jit(function).lower(*arguments).cost_analysis()["flops"])


def random_completion(settings: Settings) -> tuple[nn.Module, TrainState]:
    """Returns a random completion network, and a state of numpy arrays."""
    parts = default_parts(configuration(settings))
    state = create_state(parts, settings["image_size"])
    return parts.completion, jax.device_get(randomized(state))


def randomized(state: TrainState) -> TrainState:
    """Returns the state with random BatchNorm arrays: those of a new one hide mistakes.

    The last layer is made smaller, so that its colours are seldom 0 or 1.
    """
    random = np.random.default_rng(FIRST)
    ranges = {"scale": (0.6, 1.4), "bias": (-0.2, 0.2)}
    ranges |= {"mean": (-0.3, 0.3), "var": (0.3, 0.6)}
    last = [layer_name(len(LAYERS) - 1), "kernel"]

    def change(path: Any, leaf: Any) -> Any:
        keys = [getattr(key, "key", getattr(key, "name", None)) for key in path]
        if "opt_state" in keys:
            return leaf
        if keys[-2:] == last:
            return 0.1 * leaf
        if keys[-2:-1] == ["norm"]:
            return jnp.asarray(
                random.uniform(*ranges[keys[-1]], leaf.shape), leaf.dtype
            )
        return leaf

    return jax.tree_util.tree_map_with_path(change, state)


def _weights(name: str, net: NetState) -> Arrays:
    arrays = torch_arrays(net.params, net.batch_stats)
    return {f"{name}.{key}": array for key, array in arrays.items()}


TASKS: dict[str, type[tasks.Task]] = {
    "training": Training,
    "inference": Inference,
    "large_photo": LargePhoto,
    "pipeline": Pipeline,
}
