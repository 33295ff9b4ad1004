"""gl_jax's side of every case: the same functions that training and completion run."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import gl_jax
from benchmarks import cold, memory
from benchmarks.exchange import Arrays, flattened, torch_arrays
from benchmarks.inputs import (
    FIRST,
    MEAN_COLOR,
    processor_seconds,
    random_images,
    random_mask,
)
from benchmarks.photographs import large, large_turn
from gl_jax import compilation
from gl_jax.config import (
    Config,
    DataConfig,
    HolesConfig,
    ModelConfig,
    Phase,
    UsageError,
)
from gl_jax.data.pipeline import Photographs
from gl_jax.data.sources import tensorflow
from gl_jax.holes import (
    HOLES,
    REAL_PATCHES,
    composite,
    example_keys,
    network_input,
)
from gl_jax.inpainting.images import read_crop
from gl_jax.models import inference
from gl_jax.models.completion import LAYERS, layer_name, scaled
from gl_jax.models.discriminators import CHANNELS, FEATURES, depth
from gl_jax.parallel import AXIS, Devices
from gl_jax.training import (
    NetState,
    TrainState,
    create_state,
    default_parts,
    make_steps,
)
from gl_jax.training.state import inference_variables
from gl_jax.weights import native
from gl_jax.weights.architectures import Architecture

Settings = dict[str, Any]

# The metrics of a step that are compared, by the names of their tolerances.
COMPARED = {
    "loss.completion": "completion_loss",
    "loss.discriminator": "discriminator_loss",
    "adversarial.loss": "adversarial_loss",
    "adversarial.gradient": "adversarial_gradient_norm",
}


def start(settings: Settings) -> None:
    """Starts JAX on the device of the case, with as many of them as it wants."""
    platform = {"cpu": "cpu", "gpu": "cuda"}[settings["device"]]
    jax.config.update("jax_platforms", platform)
    if platform == "cpu":
        jax.config.update("jax_num_cpu_devices", settings.get("devices", 1))
    wanted, found = settings.get("devices", 1), len(jax.devices())
    if found < wanted:
        raise UsageError(f"{wanted} devices are needed, this machine has {found}.")
    if "photograph" in settings:
        tensorflow()


def versions() -> dict[str, str]:
    """The libraries that do the work, and the device."""
    import flax
    import jaxlib

    return {
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "flax": flax.__version__,
        "jax device": jax.devices()[0].device_kind,
    }


def peak_bytes(at_start: int) -> int:
    """The most memory used: the device's if it has its own, else the process's."""
    statistics = jax.devices()[0].memory_stats()
    if jax.devices()[0].platform != "cpu" and statistics:
        return int(statistics["peak_bytes_in_use"])
    return memory.peak() - at_start


def configuration(settings: Settings, **data: Any) -> Config:
    """The paper's configuration at the sizes of a case."""
    side = settings.get("image_size", 64)
    low, high = settings.get("holes", (1, 8))
    return Config(
        model=ModelConfig(
            width=settings["width"],
            compute_dtype=settings["precision"],
            discriminators="both" if settings.get("phase") == "joint" else "none",
        ),
        data=DataConfig(
            **{
                "batch_size": settings.get("batch", 1),
                "image_size": side,
                "resize": (side, side + side // 2),
                "mean_color": MEAN_COLOR,
            }
            | data
        ),
        holes=HolesConfig(
            min_size=low, max_size=high, local_size=settings.get("local_size", high)
        ),
    )


class Training:
    """A training step, pmapped, its state donated, as `training.loop` runs it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._config = configuration(settings)
        self._devices = Devices(settings["devices"])
        self._devices.check_batch(settings["batch"], 1)
        self._parts = default_parts(self._config)
        steps = make_steps(self._parts, MEAN_COLOR, axis_name=AXIS)
        self._step = self._devices.pmap(steps[Phase(settings["phase"])])
        self._key = self._devices.replicate(jax.random.key(FIRST))
        state = create_state(self._parts, self._config.data.image_size)
        self._state = self._devices.replicate(lively(state))

    def flop(self) -> float:
        """Floating point operations of the products in one step, two for each."""
        side, width = self._config.data.image_size, self._settings["width"]
        first, rest = completion_macs(side, side, width)
        macs = 2 * first + 3 * rest
        if self._settings["phase"] == "joint":
            for size in (side, self._config.holes.local_size):
                first, rest = discriminator_macs(size, width)
                # Fake and real forward and back to the weights, and once more forward
                # and back to the image. The first layer's inputs need no gradient.
                macs += 2 * (2 * first + 3 * rest) + 2 * (first + rest)
        return 2.0 * macs * self._settings["batch"]

    def export(self, folder: Path) -> None:
        """Writes the weights, and the holes that the first step draws."""
        state = self._devices.first(self._state)
        arrays = _weights("completion", state.completion)
        if state.discriminator is not None:
            arrays |= _weights("discriminator", state.discriminator)
        key = jax.random.fold_in(jax.random.key(FIRST), state.step)
        data = self._config.data
        fake, real = (
            self._parts.sample_holes(
                example_keys(key, stream, 0, data.batch_size),
                (data.image_size, data.image_size),
            )
            for stream in (HOLES, REAL_PATCHES)
        )
        np.savez(
            folder / "exchange.npz",
            **arrays,
            mask=np.asarray(fake.mask),
            corner=np.asarray(fake.corner),
            real_corner=np.asarray(real.corner),
        )

    def outcome(self, folder: Path) -> Arrays:
        """The losses of the first step, and how it moved each network's weights."""
        del folder
        before = jax.device_get(self._devices.first(self._state))
        values = jax.device_get(self._dispatch(self._images(FIRST)))
        after = jax.device_get(self._devices.first(self._state))
        results = {
            name: np.asarray(values[key])
            for name, key in COMPARED.items()
            if key in values
        }
        for name in ("completion", "discriminator"):
            nets = [getattr(state, name) for state in (before, after)]
            if nets[0] is not None:
                old, new = (flattened(torch_arrays(net.params, {})) for net in nets)
                results[f"update.{name}"] = new - old
        return results

    def run(self, seed: int) -> float:
        """Seconds for one step, photographs brought to the device included."""
        count = self._settings["steps"]
        batches = [self._images(seed * count + i) for i in range(count)]
        began = time.perf_counter()
        for images in batches:
            metrics = self._dispatch(images)
        jax.block_until_ready((self._state, metrics))
        return (time.perf_counter() - began) / count

    def _images(self, seed: int) -> np.ndarray:
        side = self._config.data.image_size
        return random_images(seed, self._config.data.batch_size, side, side)

    def _dispatch(self, images: np.ndarray) -> Any:
        sharded = self._devices.shard(images)
        self._state, metrics = self._step(self._state, sharded, self._key)
        if self._devices.wait_each_step:
            jax.block_until_ready(metrics)
        return metrics


class Inference:
    """One photograph completed by the network alone, in one piece, as the Completer does."""

    def __init__(self, settings: Settings) -> None:
        self._side, self._steps = settings["side"], settings["steps"]
        self._width = settings["width"]
        network, state = random_completion(settings)
        self._variables = inference_variables(state)
        folded, weights = inference.fold(network, self._variables)
        size = jnp.asarray((self._side, self._side), jnp.int32)

        def complete(weights: Any, photograph: jax.Array, mask: jax.Array) -> Any:
            images = photograph.astype(jnp.float32) / 255
            inputs = network_input(images, mask, jnp.asarray(MEAN_COLOR))
            completed = inference.complete(folded, weights, inputs, size)
            return completed, composite(completed, images, mask)

        self._weights = jax.device_put(weights)
        self._complete = compilation.jit(complete)

    def flop(self) -> float:
        """Floating point operations of the products, two for each."""
        return 2.0 * sum(completion_macs(self._side, self._side, self._width))

    def export(self, folder: Path) -> None:
        """Writes the weights."""
        variables = self._variables
        arrays = torch_arrays(variables["params"], variables["batch_stats"])
        named = {f"completion.{name}": array for name, array in arrays.items()}
        np.savez(folder / "exchange.npz", **named)

    def outcome(self, folder: Path) -> Arrays:
        """The network's whole output and the completed photograph."""
        del folder
        completed, pasted = self._complete(self._weights, *self._inputs(FIRST))
        return {"completed": np.asarray(completed), "composite": np.asarray(pasted)}

    def run(self, seed: int) -> float:
        """Seconds for one photograph, the way to the device included."""
        inputs = [self._inputs(seed * self._steps + i) for i in range(self._steps)]
        began = time.perf_counter()
        results = [self._complete(self._weights, *pair) for pair in inputs]
        jax.block_until_ready(results)
        return (time.perf_counter() - began) / self._steps

    def _inputs(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        side = self._side
        return random_images(seed, 1, side, side), random_mask(seed, side, side)


class LargePhoto:
    """A large photograph completed by the Completer, without blending."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._completer: Any = None

    def export(self, folder: Path) -> None:
        """Writes the weights in both layouts, and loads ours as a user does."""
        write_model(self._settings, folder)
        self._completer = gl_jax.load(folder / "model.safetensors")

    def outcome(self, folder: Path) -> Arrays:
        """The completed hole, in grey levels."""
        del folder
        photograph, mask = large_turn(FIRST, *self._settings["large"])
        completed = self._completer(photograph, mask, blend="none")
        return {"hole": np.asarray(completed)[mask].astype(np.float32)}

    def run(self, seed: int) -> float:
        """Seconds for one photograph, from uint8 to uint8."""
        photograph, mask = large_turn(seed, *self._settings["large"])
        began = time.perf_counter()
        self._completer(photograph, mask, blend="none")
        return time.perf_counter() - began


class StartUp:
    """A new process that loads a model and completes one photograph."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = Path()

    def export(self, folder: Path) -> None:
        """Writes the weights in both layouts, and the photograph."""
        self._folder = folder
        write_model(self._settings, folder)
        width, height, _ = self._settings["large"]
        side = min(512, width // 8 * 4, height // 8 * 4)
        cold.write_inputs(folder, large(side, side), self._settings["width"])

    def outcome(self, folder: Path) -> Arrays:
        """The completed hole, in grey levels."""
        self.run(FIRST)
        return {"hole": cold.hole(folder)}

    def run(self, seed: int) -> float:
        """Seconds from the start of the process to its end."""
        del seed
        return cold.seconds("gl_jax", self._folder)

    def peak_bytes(self) -> int:
        """All that the process held."""
        return cold.peak_bytes()


def write_model(settings: Settings, folder: Path) -> None:
    """Writes a random completion network: exchange.npz, and ours as model.safetensors."""
    _, state = random_completion(settings)
    np.savez(folder / "exchange.npz", **_weights("completion", state.completion))
    model = native.Model(
        variables=inference_variables(state),
        architecture=Architecture(width=settings["width"]),
        convention=native.Convention.gl_jax(MEAN_COLOR),
    )
    native.save(model, folder / "model.safetensors")


def random_completion(settings: Settings) -> tuple[nn.Module, TrainState]:
    """A random completion network, and a state of numpy arrays with its weights."""
    config = configuration(settings | {"phase": "completion"})
    parts = default_parts(config)
    state = create_state(parts, config.data.image_size)
    return parts.completion, jax.device_get(lively(state))


class MatrixProduct:
    """The product of two square matrices: the most that the machine computes."""

    def __init__(self, settings: Settings) -> None:
        self._side, self._steps = settings["side"], settings["steps"]
        dtype = jnp.dtype(settings["precision"])
        shape = (self._side, self._side)
        self._factor = jax.random.normal(jax.random.key(FIRST), shape, dtype)
        self._work = jax.jit(self.work)

    def work(self, matrix: jax.Array, factor: jax.Array) -> jax.Array:
        """The product that is timed."""
        return matrix @ factor

    def flop(self) -> float:
        """Floating point operations of the product, two for each multiplication."""
        return 2.0 * self._side**3

    def export(self, folder: Path) -> None:
        """Writes the matrix."""
        matrix = np.asarray(self._factor, np.float32)
        np.savez(folder / "exchange.npz", matrix=matrix)

    def outcome(self, folder: Path) -> Arrays:
        """The result."""
        del folder
        result = self._work(self._factor, self._factor)
        return {"completed": np.asarray(result, np.float32)}

    def run(self, seed: int) -> float:
        """Seconds for one of them."""
        matrix = jax.block_until_ready(self._factor + seed)
        began = time.perf_counter()
        results = [self._work(matrix, self._factor) for _ in range(self._steps)]
        jax.block_until_ready(results)
        return (time.perf_counter() - began) / self._steps


class MemoryCopy(MatrixProduct):
    """A large array plus one, into another: the most that the memory moves."""

    def work(self, matrix: jax.Array, factor: jax.Array) -> jax.Array:
        """The copy that is timed: one array read, one written."""
        del factor
        return matrix + 1

    def flop(self) -> None:
        """It is not computing that takes the time."""


class Pipeline:
    """JPEG files to uint8 batches by `data.pipeline`, with all processors."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = Path(settings["folder"])

    def export(self, folder: Path) -> None:
        """The photographs are in their folder already."""

    def outcome(self, folder: Path) -> Arrays:
        """The same crops of the first photographs, in grey levels."""
        del folder
        side = self._settings["image_size"]
        crops = [
            read_crop(
                path,
                path.name,
                shortest=side * 5 // 4,
                side=side,
                place=(0.3, 1),
                exact=False,
            )
            for path in sorted(self._folder.glob("*.jpg"))[:4]
        ]
        return {"crops": np.stack(crops).astype(np.float32)}

    def run(self, seed: int) -> float:
        """Processor-seconds for one photograph, once the pipeline is under way."""
        config = configuration(self._settings, source=str(self._folder)).data
        batches = Photographs(config, seed=seed).train_batches()
        return processor_seconds(
            lambda: next(batches), config.batch_size, self._settings["loaded"]
        )


def lively(state: TrainState) -> TrainState:
    """The state with random BatchNorm arrays: those of a new one hide half of the mistakes.

    The last layer is made smaller, so that its colours are seldom 0 or 1.
    """
    random = np.random.default_rng(FIRST)
    low_high = {"scale": (0.6, 1.4), "bias": (-0.2, 0.2), "mean": (-0.3, 0.3)}
    low_high["var"] = (0.3, 0.6)

    def changed(path: Any, leaf: jax.Array) -> jax.Array:
        if (path[-2].key, path[-1].key) == (layer_name(len(LAYERS) - 1), "kernel"):
            return 0.1 * leaf
        if path[-2].key != "norm":
            return leaf
        values = random.uniform(*low_high[path[-1].key], leaf.shape)
        return jnp.asarray(values, leaf.dtype)

    def net(net: NetState | None) -> NetState | None:
        if net is None:
            return None
        trees = (net.params, net.batch_stats)
        return NetState(
            *(jax.tree_util.tree_map_with_path(changed, tree) for tree in trees),
            net.opt_state,
        )

    return replace(
        state, completion=net(state.completion), discriminator=net(state.discriminator)
    )


def completion_macs(height: int, width: int, multiplier: float) -> tuple[int, int]:
    """Multiplications of the first layer, and of all others, in one forward pass."""
    counts, inputs = [], 4
    for index, row in enumerate(LAYERS):
        last = index == len(LAYERS) - 1
        outputs = row.outputs if last else scaled(row.outputs, multiplier)
        if row.kind == "conv":
            height, width = -(-height // row.stride), -(-width // row.stride)
        counts.append(row.kernel**2 * inputs * outputs * height * width)
        if row.kind == "deconv":
            height, width = height * row.stride, width * row.stride
        inputs = outputs
    return counts[0], sum(counts[1:])


def discriminator_macs(side: int, multiplier: float) -> tuple[int, int]:
    """Multiplications of the first layer, and of all others, in one forward pass."""
    counts, inputs = [], 3
    layers = depth(side)
    for features in CHANNELS[:layers]:
        side, outputs = -(-side // 2), scaled(features, multiplier)
        counts.append(25 * inputs * outputs * side * side)
        inputs = outputs
    dense = side * side * inputs * scaled(FEATURES, multiplier)
    return counts[0], sum(counts[1:]) + dense


def _weights(name: str, net: NetState) -> Arrays:
    arrays = torch_arrays(net.params, net.batch_stats)
    return {f"{name}.{key}": array for key, array in arrays.items()}


TASKS: dict[str, Callable[[Settings], Any]] = {
    "training": Training,
    "inference": Inference,
    "large_photo": LargePhoto,
    "start_up": StartUp,
    "matrix_product": MatrixProduct,
    "memory_copy": MemoryCopy,
    "pipeline": Pipeline,
}
