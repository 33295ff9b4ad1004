"""The native weights file: a safetensors file that fully describes its network.

Its tensors are the network's variables, named by their path: `params/conv1/kernel`,
`batch_stats/conv1/norm/mean`. Those of the context discriminator begin with
`discriminator/`. Its metadata is one JSON object under `gl_jax`: architecture, input
convention, licence, training summary, and a SHA-256 over the metadata and every tensor.
Saving the same model twice gives the same bytes.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

import flax.linen as nn
import ml_dtypes
import numpy as np
import safetensors
from safetensors.numpy import save as to_bytes

from gl_jax.config import UsageError
from gl_jax.experiment import Experiment
from gl_jax.fields import build
from gl_jax.files import read_start, write_output
from gl_jax.models.ops import NATIVE, Ops
from gl_jax.weights import architectures
from gl_jax.weights.architectures import (
    AnyArchitecture,
    OfCompletion,
    OfDiscriminator,
    OwnArchitecture,
    Shapes,
)
from gl_jax.weights.arrays import (
    Arrays,
    Tree,
    flat,
    listed,
    nested,
    require_finite,
    require_fit,
)
from gl_jax.weights.convention import Color, Convention

ASSETS = Path(__file__).parent.parent / "assets"
"""Folder of the shipped models."""
FORMAT = 1
"""Version of the metadata; `load` refuses any other."""
DTYPES: dict[str, Any] = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}
_SAFETENSORS_DTYPES: dict[str, Any] = {
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
}


@dataclass(frozen=True, eq=False)
class Discriminator:
    """A context discriminator: its variables and its architecture."""

    variables: Tree
    """{"params": ..., "batch_stats": ...}"""
    architecture: OfDiscriminator

    def network(self, ops: Ops = NATIVE) -> nn.Module:
        """Returns the module to `apply` with `variables`: views to logits."""
        return self.architecture.network(ops)


@dataclass(frozen=True, eq=False)
class Model:
    """A completion network ready for use: its arrays and their description."""

    variables: Tree
    """{"params": ..., "batch_stats": ...} of the network, numpy, float32."""
    architecture: OfCompletion
    convention: Convention
    discriminator: Discriminator | None = None
    name: str = ""
    licence: str = ""
    source: str = "gl_jax"
    """The layout of the original file."""
    training: dict[str, Any] = field(default_factory=dict)
    """A summary of the training: names to texts and numbers."""
    sha256: str = ""
    """SHA-256 of the file that the model was loaded from; empty for a new model."""

    @property
    def mean_color(self) -> Color:
        """The hole's fill colour, RGB in [0, 1]."""
        return self.convention.fill

    def network(self, ops: Ops = NATIVE) -> nn.Module:
        """Returns the module to `apply` with `variables`."""
        return self.architecture.network(ops)


def save(
    model: Model,
    path: str | Path,
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
) -> str:
    """Writes the model atomically and returns the SHA-256 stored in the file.

    `dtype` applies to the kernels. The other arrays, 1 % of the file, stay float32:
    half precision would lose small variances. Raises UsageError if arrays are missing,
    mis-shaped, not finite, or too large for float16.
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype (={dtype!r}) must be one of {', '.join(DTYPES)}.")
    arrays = _flat_model(model)
    _require_fit(arrays, _trees(model), str(path))
    tensors = {name: _stored(name, arrays[name], dtype) for name in sorted(arrays)}
    require_finite(tensors, f"{path} is not written: as {dtype}")
    about = {
        "format": FORMAT,
        "name": model.name,
        "licence": model.licence,
        "source": model.source,
        "training": model.training,
        "dtype": dtype,
        "architecture": architectures.to_json(model.architecture),
        "convention": dataclasses.asdict(model.convention),
        "discriminator": model.discriminator
        and architectures.to_json(model.discriminator.architecture),
    }
    # A round trip through JSON, because `load` hashes the parsed JSON.
    about = json.loads(json.dumps(about))
    about["sha256"] = _digest(about, tensors)
    # A single entry, because safetensors writes several in random order.
    data = to_bytes(tensors, metadata={"gl_jax": json.dumps(about)})
    write_output(path, data)
    return str(about["sha256"])


def load(path: str | Path, experiment: Experiment | None = None) -> Model:
    """Returns the model in a file written by `save`, with float32 arrays.

    `experiment` builds a network that is not one of gl_jax's own. Raises UsageError if
    the file is of another kind, damaged, or from a newer gl_jax, or if its arrays do
    not fit its architecture.
    """
    path = Path(path)
    tensors, about = _read(path)
    try:
        described = about["discriminator"]
        discriminator = described and Discriminator(
            {}, _architecture(described, "discriminator", experiment)
        )
        model = Model(
            variables={},
            architecture=_architecture(about["architecture"], "completion", experiment),
            convention=build(Convention, about["convention"], ""),
            discriminator=discriminator,
            **{key: str(about[key]) for key in ("name", "licence", "source", "sha256")},
            training=dict(about["training"]),
        )
    except (UsageError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} describes no network of gl_jax: {error}") from error
    tensors = {name: array.astype(np.float32) for name, array in tensors.items()}
    model = with_arrays(model, tensors, str(path))
    require_finite(tensors, str(path))
    return model


def with_arrays(model: Model, arrays: Arrays, name: str) -> Model:
    """Returns the model with these arrays.

    Names of the discriminator's arrays begin with `discriminator/`. Raises UsageError,
    which begins with `name`, if the arrays do not fit the networks.
    """
    trees = _trees(model)
    _require_fit(arrays, trees, name)
    variables = {prefix: _arranged(arrays, trees[prefix], prefix) for prefix in trees}
    discriminator = model.discriminator and dataclasses.replace(
        model.discriminator, variables=variables["discriminator/"]
    )
    return dataclasses.replace(
        model, variables=variables[""], discriminator=discriminator
    )


def shipped() -> dict[str, Path]:
    """Returns the files of the models that come with gl_jax, by name."""
    return {file.stem: file for file in sorted(ASSETS.glob("*.safetensors"))}


def _architecture(values: Any, role: Any, experiment: Experiment | None) -> Any:
    architecture = architectures.from_json(values, role)
    if isinstance(architecture, OwnArchitecture):
        return dataclasses.replace(architecture, source=experiment)
    return architecture


def _read(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Returns the tensors and metadata of a native file after checking its SHA-256."""

    def refuse(reason: str) -> NoReturn:
        raise UsageError(
            f"{path} is not an intact weights file of gl_jax: {reason}. `gl-jax "
            "convert` makes one from other projects' weights, `gl-jax export` from a "
            "training run."
        )

    length = int.from_bytes(read_start(path, 8), "little")
    if not 2 <= length <= path.stat().st_size - 8:
        refuse("it does not begin like a safetensors file")
    data = path.read_bytes()
    try:
        entries = safetensors.deserialize(data)  # type: ignore[no-untyped-call]
        header = json.loads(data[8 : 8 + length])
        about = json.loads(header.get("__metadata__", {}).get("gl_jax", "null"))
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        refuse(f"it is damaged ({' '.join(str(error).split())[:200]})")
    if not isinstance(about, dict) or type(about.get("format")) is not int:
        refuse("its metadata has no description of a gl_jax model")
    if about["format"] != FORMAT:
        raise UsageError(
            f"{path} has format {about['format']}, but this gl_jax reads format "
            f"{FORMAT}: the file comes from a newer version. Update gl_jax."
        )
    tensors = {}
    for name, entry in entries:
        if entry["dtype"] not in _SAFETENSORS_DTYPES:
            refuse(f"{listed([name])} has the type {entry['dtype']}")
        dtype = _SAFETENSORS_DTYPES[entry["dtype"]]
        tensors[name] = np.frombuffer(entry["data"], dtype).reshape(entry["shape"])
    if about.get("sha256") != _digest(about, tensors):
        refuse("it does not match its own SHA-256: it was damaged or edited")
    return tensors, about


def _digest(about: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    content = {key: value for key, value in about.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name in sorted(tensors):
        array = np.asarray(tensors[name], order="C")
        digest.update(f"\n{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _stored(name: str, array: np.ndarray, dtype: str) -> np.ndarray:
    kind = DTYPES[dtype] if name.endswith("/kernel") else np.float32
    # A number too large for float16 becomes infinity, which `save` refuses.
    with np.errstate(over="ignore"):
        return array.astype(kind, order="C")


def _flat_model(model: Model) -> Arrays:
    arrays = flat(model.variables)
    if model.discriminator is not None:
        arrays |= flat(model.discriminator.variables, "discriminator/")
    return arrays


def _trees(model: Model) -> dict[str, Tree | None]:
    """Returns the tree of each network by the prefix of its arrays.

    It is None for a network whose experiment file is not given: only that file can
    build the network.
    """
    made: dict[str, AnyArchitecture] = {"": model.architecture}
    if model.discriminator is not None:
        made["discriminator/"] = model.discriminator.architecture
    return {
        prefix: None
        if isinstance(architecture, OwnArchitecture) and architecture.source is None
        else architecture.tree()
        for prefix, architecture in made.items()
    }


def _prefix_of(place: str) -> str:
    return "discriminator/" if place.startswith("discriminator/") else ""


def _require_fit(arrays: Arrays, trees: Mapping[str, Tree | None], name: str) -> None:
    """Raises UsageError if the arrays do not fit the networks whose tree is known."""
    expected: Shapes = {}
    for prefix, tree in trees.items():
        if tree is not None:
            expected |= architectures.shapes_in(tree, prefix)
    checked = {
        place: array
        for place, array in arrays.items()
        if trees.get(_prefix_of(place), {}) is not None
    }
    require_fit(checked, expected, name)


def _arranged(arrays: Arrays, like: Mapping[str, Any] | None, prefix: str) -> Tree:
    """Returns the arrays whose path begins with `prefix`, nested like their network.

    The paths alone are ambiguous, because Flax's SpectralNorm has slashes in its names.
    They are used only if the network is unknown (`like` is None).
    """
    if like is None:
        own = {p: array for p, array in arrays.items() if _prefix_of(p) == prefix}
        return nested({p.removeprefix(prefix): array for p, array in own.items()})
    return {
        key: _arranged(arrays, value, f"{prefix}{key}/")
        if isinstance(value, Mapping)
        else arrays[f"{prefix}{key}"]
        for key, value in like.items()
    }
