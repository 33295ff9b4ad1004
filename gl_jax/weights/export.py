"""Exports of a training run: native weights, a StableHLO program, or ONNX.

A program maps photographs and masks to completed photographs. It contains the
convention, the weights and the network, and runs without gl_jax.
"""

import importlib
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gl_jax.config import Config, UsageError, is_bucket
from gl_jax.experiment import Experiment, read_config
from gl_jax.fields import build
from gl_jax.files import write_output
from gl_jax.models.completion import STRIDE
from gl_jax.version import __version__
from gl_jax.weights import architectures, native
from gl_jax.weights.architectures import AnyArchitecture, OwnArchitecture, Role
from gl_jax.weights.arrays import Tree, flat
from gl_jax.weights.convention import ENCODINGS, Color, Convention
from gl_jax.weights.native import Discriminator, Model

PLATFORMS = ("cpu", "cuda", "tpu")
TOLERANCE = 2e-5
"""Largest difference in colour, of [0, 1], between a program and the network."""

Complete = Callable[
    [Float[Array, "b h w 3"], Float[Array, "b h w 1"]], Float[Array, "b h w 3"]
]


class ExportMismatchError(RuntimeError):
    """The output of an exported program differs from that of its network."""


def is_run(folder: Path) -> bool:
    """Returns whether a folder is the workdir of a training run, even an unfinished one."""
    return (folder / "checkpoints").is_dir() or (folder / "run_status.json").is_file()


def from_run(
    workdir: str | Path,
    *,
    step: int | None = None,
    discriminators: bool = False,
    name: str | None = None,
    licence: str = "not stated",
    experiment: Experiment | None = None,
) -> Model:
    """Returns the completion network of a run, its moving average if there is one.

    `workdir` is the run's folder, or the bucket of its checkpoints (`gs://...`). `step`
    selects a checkpoint, by default the newest complete one. `discriminators` adds the
    discriminators. `experiment` builds a network that is not one of gl_jax's own.
    Raises UsageError if the folder is not a run, or lacks the checkpoint or networks.
    """
    from gl_jax.checkpoint import restore_subtree

    root = str(workdir).rstrip("/")
    if is_bucket(root):
        checkpoints = root
    elif is_run(Path(root)):
        file = Path(root, "config.json")
        known = read_config(file) if file.is_file() else Config()
        checkpoints = known.checkpoints_of(root)
    else:
        raise UsageError(
            f"workdir {root!r} is not the folder of a training run: it has neither "
            "`run_status.json` nor `checkpoints`."
        )
    networks = ["completion", "discriminator"] if discriminators else ["completion"]
    parts = [f"{net}/{kind}" for net in networks for kind in ("params", "batch_stats")]
    restored = restore_subtree(checkpoints, [*parts, "ema"], step=step)
    config = Config.from_json(restored.config_json)
    mean_color: Color | None = config.data.mean_color
    if mean_color is None:
        raise UsageError(
            f"the checkpoint in {root} does not say which colour fills the hole "
            "(data.mean_color); train it with this version of gl_jax."
        )
    discriminator, averaged = None, restored.state.get("ema")
    arrays = flat(averaged or _network(restored.state, "completion"))
    if discriminators:
        tensors = flat(_network(restored.state, "discriminator"))
        if not tensors:
            raise UsageError(f"the run in {root} has no discriminators to export.")
        arrays |= {f"discriminator/{place}": array for place, array in tensors.items()}
        discriminator = Discriminator(
            {}, _architecture(restored.extra, "discriminator", config, experiment)
        )
    initial = config.run.initial_weights
    model = Model(
        {},
        _architecture(restored.extra, "completion", config, experiment),
        _convention(restored.extra, config, mean_color),
        discriminator,
        name=name or config.name,
        licence=licence,
        training={
            "experiment": config.name,
            "data": config.data.source,
            "image size": config.data.image_size,
            "holes": f"{config.holes.min_size} to {config.holes.max_size}",
            "batch size": config.data.batch_size,
            "steps": restored.step,
            "began": f"with {Path(initial).name}" if initial else "at random",
            "weights": "moving average" if averaged else "last step",
            "gl_jax": __version__,
        },
    )
    return native.with_arrays(model, arrays, root)


def _network(state: dict[str, Any], role: Role) -> Tree:
    """Returns the variables of one network from a restored state."""
    kinds = ("params", "batch_stats")
    return {k: state[f"{role}/{k}"] for k in kinds if f"{role}/{k}" in state}


def select(model: Model, *, discriminators: bool) -> Model:
    """Returns the model with its discriminators or without them.

    Raises UsageError if `discriminators` is True and the model has none.
    """
    if discriminators and model.discriminator is None:
        raise UsageError(f"the model {model.name!r} has no discriminators to export.")
    return model if discriminators else replace(model, discriminator=None)


def interpolate(model: Model, other: Model, share: float) -> Model:
    """Returns a model whose arrays lie between two models': (1 - share) and share of them.

    Between a model before the joint phase and one after it lie all degrees of texture
    (Wang et al. 2018, "ESRGAN", section 3.4). This needs weights that were trained from
    each other. Raises UsageError for other networks or encodings, and for discriminators.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"share (={share}) must be from 0 to 1.")
    for name in ("architecture", "convention"):
        if getattr(model, name) != getattr(other, name):
            raise UsageError(
                f"the models {model.name!r} and {other.name!r} differ in their {name}; "
                "only weights that were trained from each other have models between them."
            )
    if model.discriminator is not None:
        raise UsageError("discriminators cannot be interpolated; leave them out.")

    def between(ours: Any, theirs: Any) -> Any:
        return (1 - share) * np.asarray(ours) + share * np.asarray(theirs)

    return replace(
        model,
        variables=jax.tree.map(between, model.variables, other.variables),
        training=model.training | {"interpolated": f"{share:g} of {other.name}"},
        sha256="",
    )


def _architecture(
    extra: dict[str, Any], role: Role, config: Config, experiment: Experiment | None
) -> Any:
    """Returns a checkpoint's architecture; older checkpoints have only the config's."""
    known: AnyArchitecture | None
    if "networks" in extra:
        known = architectures.from_json(extra["networks"][role], role)
    else:
        known = architectures.of_config(config)[role == "discriminator"]
    if isinstance(known, OwnArchitecture):
        return replace(known, source=experiment)
    return known


def _convention(extra: dict[str, Any], config: Config, mean_color: Color) -> Convention:
    """Returns a checkpoint's convention; older checkpoints have only the config's."""
    if "convention" in extra:
        known: Convention = build(Convention, extra["convention"], "")
        return known
    return ENCODINGS[config.data.encoding].completion(mean_color)


def program(model: Model) -> Complete:
    """Returns the function to export: (images, masks) -> completed images.

    Images are RGB in [0, 1], [b, h, w, 3], with sides that are multiples of 4; masks are
    [b, h, w, 1] with 1 = missing. The completed images are the raw output of the
    network, outside the hole too. All platforms have the operations used.
    """
    network = model.network()

    def complete(
        images: Float[Array, "b h w 3"], mask: Float[Array, "b h w 1"]
    ) -> Float[Array, "b h w 3"]:
        inputs = model.convention.encode(images, mask)
        output = network.apply(model.variables, inputs, train=False)
        return jnp.asarray(model.convention.decode(output))

    return complete


def to_stablehlo(model: Model, path: str | Path) -> None:
    """Writes `program` for any batch size and sides, for CPU, CUDA and TPU.

    `jax.export.deserialize` reads the file; `.call(images, mask)` runs it. Before
    writing, its output is compared with that of the network; raises ExportMismatchError
    if they differ.
    """
    from jax import export

    _require_any_size(model)
    batch, height, width = export.symbolic_shape("b, h, w")
    sides = (batch, STRIDE * height, STRIDE * width)
    shapes = [jax.ShapeDtypeStruct((*sides, count), jnp.float32) for count in (3, 1)]
    exported = export.export(jax.jit(program(model)), platforms=PLATFORMS)(*shapes)
    data = bytes(exported.serialize())
    _require_same(program(model), export.deserialize(bytearray(data)).call, (2, 48, 40))
    write_output(path, data)


def to_onnx(model: Model, path: str | Path, height: int, width: int) -> None:
    """Writes `program` as ONNX for one size of image and any batch size.

    Its inputs are `images` and `mask`, its output is `completed`. Before writing,
    onnxruntime's output for batches of 1 and 3 is compared with that of the network;
    raises ExportMismatchError if they differ. Raises UsageError for a size that is not a
    multiple of 4, or if the converter is not installed.
    """
    _require_any_size(model)
    if min(height, width) < STRIDE or height % STRIDE or width % STRIDE:
        raise UsageError(
            f"the sides of the ONNX program (={height}x{width}) must be multiples of "
            f"{STRIDE}: the network halves them twice."
        )
    try:
        jax2onnx = importlib.import_module("jax2onnx")
        onnxruntime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise UsageError(
            f"ONNX needs the package {error.name}, which is not installed: pip install "
            "'gl-jax[onnx]' and then pip install --no-deps jax2onnx (with its "
            "dependencies it would replace orbax by an older version)."
        ) from error
    complete = program(model)
    shapes = [("b", height, width, count) for count in (3, 1)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        made = jax2onnx.to_onnx(complete, inputs=shapes, input_names=["images", "mask"],
            output_names=["completed"],
        )  # fmt: skip
        data = made.SerializeToString()
        file.write_bytes(data)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

        def run(images: Any, mask: Any) -> Any:
            names = [node.name for node in session.get_inputs()]
            given = dict(
                zip(names, (np.asarray(images), np.asarray(mask)), strict=True)
            )
            return session.run(None, given)[0]

        for batch in (1, 3):
            _require_same(complete, run, (batch, height, width))
    write_output(path, data)


def _require_any_size(model: Model) -> None:
    """Refuses networks of one size, which are no method by themselves."""
    if type(model.architecture) in architectures.METHODS:
        raise UsageError(
            f"a {model.architecture.module} is written as safetensors only: it completes "
            "photographs by a method of gl_jax around it."
        )


def _require_same(ours: Complete, theirs: Any, shape: tuple[int, int, int]) -> None:
    """Raises ExportMismatchError if the two differ on noise with a hole."""
    images = np.random.default_rng(0).random((*shape, 3), np.float32)
    mask = np.zeros((*shape, 1), np.float32)
    mask[:, shape[1] // 4 : shape[1] // 2, shape[2] // 4 : shape[2] // 2] = 1
    arrays = jnp.asarray(images), jnp.asarray(mask)
    expected, actual = np.asarray(jax.jit(ours)(*arrays)), np.asarray(theirs(*arrays))
    if actual.shape != expected.shape:
        raise ExportMismatchError(
            f"the exported program's output has the shape {actual.shape}, and the "
            f"network's {expected.shape}; the file is not written."
        )
    error = float(np.max(np.abs(actual - expected)))
    if not error <= TOLERANCE:
        raise ExportMismatchError(
            f"the exported program differs from the network by {error:.2g} (allowed: "
            f"{TOLERANCE:g}); the file is not written."
        )
