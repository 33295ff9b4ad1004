"""The native weights file: a safetensors file that says everything about its network.

Its tensors are the network's variables by their place: `params/conv1/kernel`,
`batch_stats/conv1/norm/mean`, and with `discriminator/` before it those of the context
discriminator. Its metadata is one JSON object under `gl_jax`: architecture, input
convention, licence, training summary, and a SHA-256 over all of it and every tensor.
The same model is the same file, byte for byte.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

import ml_dtypes
import numpy as np
import safetensors
from safetensors.numpy import save as to_bytes

from gl_jax.config import UsageError, build
from gl_jax.models.completion import LAYERS, CompletionNetwork, layer_name, scaled
from gl_jax.models.discriminators import CHANNELS, FEATURES, Variant, depth

ASSETS = Path(__file__).parent.parent / "assets"
"""Where the shipped models lie."""
FORMAT = 1
"""Version of the metadata; a reader refuses the versions it does not know."""
LISTED = 4
"""How many wrong arrays a message names before it only counts them."""

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

Tree = dict[str, Any]
Arrays = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]
Color = tuple[float, float, float]


@dataclass(frozen=True)
class Convention:
    """How photographs are shown to a network, and how its output is read.

    The network sees `scale * (colour - offset)` in its own order of channels, the hole
    painted in `fill` before that, and the mask (1 = missing) as the fourth channel. Its
    output lies in [0, 1] in the same order of channels. Colours here are RGB in [0, 1].

    The methods take numpy and jax arrays and return the same kind.
    """

    channels: Literal["RGB", "BGR"] = "RGB"
    scale: float = 1.0
    offset: Color = (0.0, 0.0, 0.0)
    fill: Color = (0.0, 0.0, 0.0)

    @classmethod
    def gl_jax(cls, mean_color: Color) -> "Convention":
        """Ours and the authors': colours less the mean, so that the hole holds 0."""
        return cls(offset=mean_color, fill=mean_color)

    def encode(self, image: Any, mask: Any) -> Any:
        """What the network sees, [..., h, w, 4], of a photograph and its hole.

        `image` is float RGB in [0, 1], [..., h, w, 3]; `mask` is [..., h, w] or
        [..., h, w, 1] with 1 = missing.
        """
        xp = image.__array_namespace__()
        if mask.ndim < image.ndim:
            mask = mask[..., None]
        mask = xp.astype(mask, image.dtype)
        filled = image * (1 - mask) + mask * _color(xp, self.fill, image)
        return xp.concat([self.encode_image(filled), mask], axis=-1)

    def encode_image(self, image: Any) -> Any:
        """A photograph without a hole, [..., h, w, 3]: what a discriminator sees."""
        xp = image.__array_namespace__()
        shifted = self.scale * (image - _color(xp, self.offset, image))
        return self._ordered(shifted)

    def decode(self, output: Any) -> Any:
        """The network's output [..., h, w, 3] as RGB in [0, 1]."""
        return self._ordered(output)

    def _ordered(self, image: Any) -> Any:
        return image[..., ::-1] if self.channels == "BGR" else image


@dataclass(frozen=True)
class Architecture:
    """The numbers a completion network is built from; see `config.ModelConfig`."""

    width: float = 1.0
    norm_order: Literal["norm_activation", "activation_norm"] = "norm_activation"
    output_activation: Literal["sigmoid", "clamp"] = "sigmoid"


@dataclass(frozen=True)
class JudgeArchitecture:
    """The numbers a context discriminator is built from, and how it sees photographs."""

    image_size: int = 256
    local_size: int = 128
    variant: Literal["both", "global", "local"] = "both"
    width: float = 1.0
    norm_order: Literal["norm_activation", "activation_norm"] = "norm_activation"
    convention: Convention = field(default_factory=Convention)


@dataclass(frozen=True, eq=False)
class Discriminator:
    """A context discriminator: {"params", "batch_stats"} and what they belong to."""

    variables: Tree
    architecture: JudgeArchitecture


@dataclass(frozen=True, eq=False)
class Model:
    """A completion network ready for use: numpy arrays and all that explains them."""

    variables: Tree
    """{"params": ..., "batch_stats": ...} of `CompletionNetwork`, float32."""
    architecture: Architecture
    convention: Convention
    discriminator: Discriminator | None = None
    name: str = ""
    licence: str = ""
    source: str = "gl_jax"
    """The layout that the weights came in."""
    training: dict[str, Any] = field(default_factory=dict)
    """A summary of the training: names to texts and numbers."""
    sha256: str = ""
    """Of the file that this was loaded from; empty before that."""

    @property
    def mean_color(self) -> Color:
        """RGB in [0, 1] that the hole is painted with."""
        return self.convention.fill

    def network(self) -> CompletionNetwork:
        """The module to `apply` with `variables`."""
        return CompletionNetwork(**dataclasses.asdict(self.architecture))


def save(
    model: Model,
    path: str | Path,
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
) -> str:
    """Writes the model and returns the SHA-256 that it carries; whole or not at all.

    `dtype` is that of the kernels. All else, a hundredth of the whole, stays float32:
    a small variance would be lost in half precision. Raises UsageError where arrays are
    missing, mis-shaped, not finite, or too large for float16.
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype (={dtype!r}) must be one of {', '.join(DTYPES)}.")
    arrays = _flat_model(model)
    require_fit(arrays, _expected(model.architecture, model.discriminator), str(path))
    tensors = {name: _stored(name, arrays[name], dtype) for name in sorted(arrays)}
    require_finite(tensors, f"{path} is not written: as {dtype}")
    about = {
        "format": FORMAT,
        "name": model.name,
        "licence": model.licence,
        "source": model.source,
        "training": model.training,
        "dtype": dtype,
        "architecture": dataclasses.asdict(model.architecture),
        "convention": dataclasses.asdict(model.convention),
        "discriminator": model.discriminator
        and dataclasses.asdict(model.discriminator.architecture),
    }
    # Through JSON once, so that what is hashed is what will be read.
    about = json.loads(json.dumps(about))
    about["sha256"] = _digest(about, tensors)
    # One entry, because safetensors writes several in an order that changes.
    data = to_bytes(tensors, metadata={"gl_jax": json.dumps(about)})
    write_whole(path, data)
    return str(about["sha256"])


def load(path: str | Path) -> Model:
    """The model in a file that `save` wrote, its arrays in float32.

    Raises UsageError, one line, where the file is no such file, is damaged, comes from a
    newer gl_jax, or its arrays are not those of its architecture (all wrong ones are
    named); nothing is loaded in part.
    """
    path = Path(path)
    tensors, about = _read(path)
    try:
        discriminator = about["discriminator"]
        judge = discriminator and build(JudgeArchitecture, discriminator, "")
        model = Model(
            variables={},
            architecture=build(Architecture, about["architecture"], ""),
            convention=build(Convention, about["convention"], ""),
            discriminator=judge and Discriminator({}, judge),
            **{key: str(about[key]) for key in ("name", "licence", "source", "sha256")},
            training=dict(about["training"]),
        )
    except (UsageError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} describes no network of gl_jax: {error}") from error
    require_fit(tensors, _expected(model.architecture, model.discriminator), str(path))
    require_finite(tensors, str(path))
    tree = nested({name: array.astype(np.float32) for name, array in tensors.items()})
    if model.discriminator is not None:
        judged = dataclasses.replace(
            model.discriminator, variables=tree.pop("discriminator")
        )
        model = dataclasses.replace(model, discriminator=judged)
    return dataclasses.replace(model, variables=tree)


def shipped() -> dict[str, Path]:
    """The models that come with gl_jax, by name."""
    return {file.stem: file for file in sorted(ASSETS.glob("*.safetensors"))}


def describe(model: Model) -> str:
    """What a model is, a fact a line: architecture, convention, counts, licence."""
    order = {"norm_activation": "conv-BN-ReLU", "activation_norm": "conv-ReLU-BN"}
    made, shown = model.architecture, model.convention
    lines = {
        "name": model.name,
        "came as": model.source,
        "licence": model.licence,
        "network": f"width {made.width:g}, {order[made.norm_order]}, "
        f"{made.output_activation}, {_parameters(model.variables):,} parameters",
        "input": f"{shown.channels} in [0, 1] less {_rounded(shown.offset)}, times "
        f"{shown.scale:g}; hole painted {_rounded(shown.fill)}",
    }
    if model.discriminator is not None:
        judge = model.discriminator.architecture
        lines["judges"] = (
            f"{judge.variant}, image {judge.image_size}, window {judge.local_size}, "
            f"{order[judge.norm_order]}, "
            f"{_parameters(model.discriminator.variables):,} parameters"
        )
    lines |= {name: str(value) for name, value in model.training.items()}
    lines["sha256"] = model.sha256
    wide = max(map(len, lines))
    return "\n".join(f"{name:{wide}}  {text}" for name, text in lines.items() if text)


# --- what belongs to an architecture


def completion_shapes(width: float) -> Shapes:
    """Every array of a completion network of this width, by its place."""
    shapes: Shapes = {}
    inputs = 4
    for index, row in enumerate(LAYERS):
        last = index == len(LAYERS) - 1
        outputs = row.outputs if last else scaled(row.outputs, width)
        kernel = (row.kernel, row.kernel, inputs, outputs)
        shapes |= _block(layer_name(index), kernel, norm=not last)
        inputs = outputs
    return shapes


def discriminator_shapes(
    image_size: int, local_size: int, variant: Variant, width: float
) -> Shapes:
    """Every array of a context discriminator, by its place."""
    sizes = {"local": local_size, "global": image_size}
    columns = [name for name in sizes if variant in (name, "both")]
    features = scaled(FEATURES, width)
    shapes: Shapes = {}
    for column in columns:
        inputs, side = 3, sizes[column]
        for index in range(depth(side)):
            outputs = scaled(CHANNELS[min(index, len(CHANNELS) - 1)], width)
            name = f"{column}/conv{index + 1}"
            shapes |= _block(name, (5, 5, inputs, outputs), norm=True)
            inputs, sizes[column] = outputs, -(-sizes[column] // 2)
        flat = sizes[column] ** 2 * inputs
        shapes |= _block(f"{column}/features", (flat, features), norm=False)
    return shapes | _block("fusion", (features * len(columns), 1), norm=False)


def require_fit(arrays: Mapping[str, Any], expected: Shapes, name: str) -> None:
    """Raises UsageError with every missing, unexpected and mis-shaped array."""
    misfits = {
        "missing": [key for key in expected if key not in arrays],
        "unexpected": [key for key in arrays if key not in expected],
        "mis-shaped": [
            f"{key} {_times(arrays[key].shape)} instead of {_times(shape)}"
            for key, shape in expected.items()
            if key in arrays and tuple(arrays[key].shape) != shape
        ],
    }
    refuse_misfits(misfits, name)


def refuse_misfits(misfits: Mapping[str, Sequence[str]], name: str) -> None:
    """Raises UsageError that lists the misfits of each kind, where there are any."""
    parts = [f"{kind} {listed(keys)}" for kind, keys in misfits.items() if keys]
    if parts:
        raise UsageError(
            f"{name} does not hold the arrays of its network: {'; '.join(parts)}. "
            "Nothing was loaded."
        )


def require_finite(arrays: Mapping[str, np.ndarray], name: str) -> None:
    """Raises UsageError with the arrays that hold NaN or infinity."""
    bad = [key for key, array in arrays.items() if not np.isfinite(array).all()]
    if bad:
        raise UsageError(f"{name}: {listed(bad)} would hold NaN or infinity.")


def listed(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    # Names from a damaged file may be any bytes, of any length.
    printable = [
        "".join(c if c.isprintable() else "?" for c in name[:80]) for name in names
    ]
    more = len(printable) - LISTED
    text = ", ".join(printable[:LISTED])
    return f"{text} and {more} more" if more > 0 else text


def flat(tree: Tree, prefix: str = "") -> Arrays:
    """A nested dictionary of arrays by place: `params/conv1/kernel`."""
    arrays: Arrays = {}
    for key, value in tree.items():
        place = f"{prefix}{key}"
        if isinstance(value, Mapping):
            arrays |= flat(dict(value), f"{place}/")
        else:
            arrays[place] = np.asarray(value)
    return arrays


def nested(arrays: Mapping[str, Any]) -> Tree:
    """The inverse of `flat`."""
    tree: Tree = {}
    for place, array in arrays.items():
        *parents, last = place.split("/")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = array
    return tree


def write_whole(path: str | Path, data: bytes) -> None:
    """Writes a file that appears whole, or raises UsageError and leaves what was there."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                beside.unlink()
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror or error}."
        ) from error


def read_start(path: Path, count: int) -> bytes:
    """The first bytes of a file; UsageError where there is none that can be read."""
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror or error}."
        ) from error


# --- private


def _read(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """The tensors and the description of a native file, checked against its SHA-256."""

    def refuse(reason: str) -> NoReturn:
        raise UsageError(
            f"{path} is no whole weights file of gl_jax: {reason}. `gl-jax convert` "
            "makes one of other projects' weights, `gl-jax export` of a training run."
        )

    length = int.from_bytes(read_start(path, 8), "little")
    if not 2 <= length <= path.stat().st_size - 8:
        refuse("it does not begin as a safetensors file does")
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
            f"{path} has format {about['format']}, this gl_jax reads format {FORMAT}: "
            "it comes from a newer version. Update gl_jax."
        )
    tensors = {}
    for name, entry in entries:
        if entry["dtype"] not in _SAFETENSORS_DTYPES:
            refuse(f"{listed([name])} has the type {entry['dtype']}")
        dtype = _SAFETENSORS_DTYPES[entry["dtype"]]
        tensors[name] = np.frombuffer(entry["data"], dtype).reshape(entry["shape"])
    if about.get("sha256") != _digest(about, tensors):
        refuse("it does not match its own SHA-256, so it was damaged or edited")
    return tensors, about


def _digest(about: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    content = {key: value for key, value in about.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"\n{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _stored(name: str, array: np.ndarray, dtype: str) -> np.ndarray:
    kind = DTYPES[dtype] if name.endswith("/kernel") else np.float32
    # A number too large for float16 becomes infinity, which is refused by name.
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array).astype(kind)


def _flat_model(model: Model) -> Arrays:
    arrays = flat(model.variables)
    if model.discriminator is not None:
        arrays |= flat(model.discriminator.variables, "discriminator/")
    return arrays


def _expected(made: Architecture, discriminator: Discriminator | None) -> Shapes:
    _require_sane(made.width)
    shapes = completion_shapes(made.width)
    if discriminator is not None:
        judge = discriminator.architecture
        _require_sane(judge.width, judge.image_size, judge.local_size)
        judged = discriminator_shapes(
            judge.image_size, judge.local_size, judge.variant, judge.width
        )
        shapes |= {f"discriminator/{name}": shape for name, shape in judged.items()}
    return shapes


def _require_sane(width: float, *sizes: int) -> None:
    if not 0 < width <= 8:
        raise UsageError(f"width (={width}) must be in (0, 8].")
    for size in sizes:
        if not 8 <= size <= 4096:
            raise UsageError(f"a discriminator's size (={size}) must be in [8, 4096].")


def _block(name: str, kernel: tuple[int, ...], *, norm: bool) -> Shapes:
    channels = kernel[-1:]
    shapes: Shapes = {
        f"params/{name}/kernel": kernel,
        f"params/{name}/bias": channels,
    }
    if norm:
        shapes |= {f"params/{name}/norm/{key}": channels for key in ("scale", "bias")}
        shapes |= {
            f"batch_stats/{name}/norm/{key}": channels for key in ("mean", "var")
        }
    return shapes


def _color(xp: Any, color: Color, image: Any) -> Any:
    shape = (1,) * (image.ndim - 1) + (3,)
    return xp.reshape(xp.asarray(color, dtype=image.dtype), shape)


def _parameters(variables: Tree) -> int:
    return sum(math.prod(array.shape) for array in flat(variables["params"]).values())


def _rounded(color: Color) -> str:
    return f"({', '.join(f'{channel:.4g}' for channel in color)})"


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a number"
