"""Other people's weights: recognised by their content, and laid out as ours.

Each layout is two tables of names, the convolutions and the normalisations in the order
of the paper's table, and the convention of its home project: how photographs are shown
to the network. What is common to all: kernels are (out, in, y, x), those of the deconvs
(in, out, y, x), and dense layers flatten channels first, where ours are (y, x, in, out)
and flatten channels last. Normalisation has an epsilon of 1e-5 everywhere.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from gl_jax.config import GREY, UsageError
from gl_jax.files import reading
from gl_jax.models.completion import LAYERS, layer_name
from gl_jax.models.discriminators import depth
from gl_jax.models.layers import BATCH_NORM_EPSILON
from gl_jax.weights import native, pytorch, torch7
from gl_jax.weights.architectures import Architecture, DiscriminatorArchitecture
from gl_jax.weights.convention import ENCODINGS, Color, Encoding
from gl_jax.weights.native import Arrays, Discriminator, Model, Tree

NormOrder = Literal["norm_activation", "activation_norm"]

# The authors' nn.Sequential: convolution, normalisation, ReLU, 16 times; the last one.
MODULES = 50


class Layout(NamedTuple):
    """The names of a completion network, and what its home project does with it."""

    project: str
    convs: tuple[str, ...]
    norms: tuple[str, ...]
    norm_order: NormOrder
    output: Literal["sigmoid", "signed_clamp"]
    encoding: Encoding
    mean: Color | None
    """Of all files of this layout; None where each has its own."""
    licence: str


class DiscriminatorLayout(NamedTuple):
    """The names of a context discriminator; `{}` is the layer, `{side}` the column."""

    conv: str
    norm: str
    features: str
    fusion: str
    columns: dict[str, str]
    """Our name of a column to theirs, in the order that the fusion layer has them in."""
    norm_order: NormOrder
    encoding: Encoding


def _numbered(template: str, last: int) -> list[str]:
    return [template.format(index) for index in range(1, last + 1)]


_BLOCKS = (
    _numbered("generator.encoder.enc{}", 6)
    + [f"generator.dilation_neck.dilation_convs.{index}" for index in range(4)]
    + _numbered("generator.decoder.dec{}", 7)
)

LAYOUTS: dict[str, Layout] = {
    "sequential": Layout(
        "the authors' network",
        tuple(str(3 * index) for index in range(17)),
        tuple(str(3 * index + 1) for index in range(16)),
        "norm_activation",
        "sigmoid",
        ENCODINGS["centred"],
        None,
        "that of the source; the authors' own weights are CC BY-NC-SA 4.0",
    ),
    "nested sequential": Layout(
        "the authors' network",
        (*(f"{index}.0" for index in range(16)), "16"),
        tuple(f"{index}.1" for index in range(16)),
        "norm_activation",
        "sigmoid",
        ENCODINGS["centred"],
        None,
        "that of the source; the authors' own weights are CC BY-NC-SA 4.0",
    ),
    "mmediting": Layout(
        "mmediting",
        tuple(f"{block}.conv" for block in _BLOCKS),
        tuple(f"{block}.bn" for block in _BLOCKS[:-1]),
        "norm_activation",
        "signed_clamp",
        ENCODINGS["mmediting"],
        GREY,
        "that of the source; mmediting's own weights are Apache-2.0",
    ),
    "glcic_pytorch": Layout(
        "GLCIC-PyTorch",
        tuple(layer_name(index) for index in range(17)),
        tuple(f"bn{index}" for index in range(1, 17)),
        "activation_norm",
        "sigmoid",
        ENCODINGS["plain"],
        None,
        "that of the source; GLCIC-PyTorch's own weights are MIT",
    ),
}

DISCRIMINATOR_LAYOUTS: dict[str, DiscriminatorLayout] = {
    "mmediting": DiscriminatorLayout(
        conv="disc.{side}.conv{}.conv",
        norm="disc.{side}.conv{}.bn",
        features="disc.{side}.fc.linear",
        fusion="disc.fc",
        columns={"global": "global_disc", "local": "local_disc"},
        norm_order="norm_activation",
        encoding=ENCODINGS["mmediting"],
    ),
    "glcic_pytorch": DiscriminatorLayout(
        conv="{side}.conv{}",
        norm="{side}.bn{}",
        features="{side}.linear{}",
        fusion="linear1",
        columns={"local": "model_ld", "global": "model_gd"},
        norm_order="activation_norm",
        encoding=ENCODINGS["plain"],
    ),
}


@dataclass(frozen=True)
class Parts:
    """What was found in one file, or in several that belong together."""

    layout: str
    variables: Tree | None = None
    architecture: Architecture | None = None
    discriminator: Discriminator | None = None
    mean: Color | None = None


def convert(source: str | Path, config: str | Path | None = None) -> Model:
    """The model in another project's file, or in a folder of files that belong together.

    `config` is a JSON file that names the mean colour as `mpv` or `mean_color`, RGB in
    [0, 1]; by default `config.json` beside the weights, where GLCIC-PyTorch has it. Of
    a folder every file is looked into, so that a network and its discriminators come
    together. Raises UsageError where nothing is recognised, or something does not fit.
    """
    source = Path(source)
    parts = find(source)
    if parts.variables is None or parts.architecture is None:
        raise UsageError(
            f"{source} holds discriminators without a completion network. Convert the "
            "folder that has both (GLCIC-PyTorch: model_cn and model_cd)."
        )
    mean = _mean_of(parts, source, config)
    if mean is None:
        raise UsageError(
            f"{source} does not say which colour fills the hole. Put its config.json "
            'beside it, or give one by --config: {"mpv": [red, green, blue]}, in [0, 1].'
        )
    return _model(parts, mean, source.stem)


def describe(source: str | Path, config: str | Path | None = None) -> str:
    """What a weights file of ours or of another project holds, a fact a line."""
    source = Path(source)
    if source.is_file() and _is_safetensors(source):
        return native.describe(native.load(source))
    parts = find(source)
    if parts.variables is None or parts.architecture is None:
        assert parts.discriminator is not None
        numbers = native.numbers_of(parts.discriminator.architecture)
        return (
            f"came as         {parts.layout}\n"
            f"discriminators  {numbers}; no completion network"
        )
    mean = _mean_of(parts, source, config)
    model = _model(parts, mean or (0.0, 0.0, 0.0), source.stem)
    unknown = "" if mean else "\nmean colour unknown: `gl-jax convert` needs --config"
    return native.describe(model) + unknown


def _model(parts: Parts, mean: Color, name: str) -> Model:
    assert parts.variables is not None and parts.architecture is not None
    layout = LAYOUTS[parts.layout]
    return Model(
        parts.variables,
        parts.architecture,
        layout.encoding.completion(mean),
        parts.discriminator,
        name=name,
        licence=layout.licence,
        source=parts.layout,
    )


def find(source: Path) -> Parts:
    """The network, the discriminators and the mean colour in a file or a folder."""
    if not source.is_dir():
        return read_parts(open_tree(source), str(source))
    found: dict[str, Parts] = {}
    for file in sorted(source.iterdir()):
        if file.is_file() and file.suffix not in (".json", ".md", ".txt"):
            parts = read_parts(open_tree(file), str(file))
            for kind in ("variables", "discriminator"):
                if getattr(parts, kind) is None:
                    continue
                if kind in found:
                    raise UsageError(
                        f"{source} holds more than one model. Convert a file of it."
                    )
                found[kind] = parts
    if not found:
        raise UsageError(f"{source} holds no weights.")
    parts = next(iter(found.values()))
    if len({other.layout for other in found.values()}) > 1:
        raise UsageError(f"{source} holds parts of different projects.")
    if len(found) == 2:
        discriminator = found["discriminator"].discriminator
        parts = replace(found["variables"], discriminator=discriminator)
    return parts


def open_tree(path: Path) -> Any:
    """What a foreign file holds, read by the reader that its first bytes call for."""
    start = native.read_start(path, 16)
    if start.startswith((pytorch.ZIP_START, b"\x80")):
        return pytorch.read(path)
    if _is_safetensors(path):
        raise UsageError(
            f"{path} is a safetensors file already; `gl-jax inspect` says what is in it."
        )
    return torch7.read(path)


def recognise(tree: Any) -> str:
    """The layout's name, told by the arrays that are there; UsageError where none fits.

    A layout is recognised by half of its names: what then is missing can be listed.
    """
    return _recognised(_candidates(tree), "the file")[0]


def read_parts(tree: Any, name: str) -> Parts:
    """The networks in what a reader has read, laid out as ours; `name` is for messages."""
    mean = None
    if isinstance(tree, dict):
        mean = _color(tree.get("mean"))
    layout, arrays = _recognised(_candidates(tree), name)
    source = _Source(arrays)
    variables = architecture = discriminators = None
    if layout in LAYOUTS and _share(LAYOUTS[layout], arrays) >= 0.5:
        variables, architecture = _completion(source, LAYOUTS[layout])
    known = DISCRIMINATOR_LAYOUTS.get(layout)
    if known is not None and _discriminator_names(known) & set(arrays):
        discriminators = _discriminator(source, known)
    source.require_all_used(f"{name} (layout {layout})")
    built = variables and native.nested(
        {key: make() for key, make in variables.items()}
    )
    discriminator = None
    if discriminators is not None:
        makers, made = discriminators
        discriminator = Discriminator(
            native.nested({key: make() for key, make in makers.items()}), made
        )
    for part in (built, discriminator and discriminator.variables):
        if part:
            native.require_finite(native.flat(part), name)
    return Parts(layout, built or None, architecture, discriminator, mean)


# --- finding the arrays


def _candidates(tree: Any) -> Iterator[Arrays]:
    """The groups of named arrays in a tree: a state_dict, perhaps wrapped in others."""
    if isinstance(tree, dict):
        sequential = tree.get("model")
        tree = sequential if isinstance(sequential, torch7.Object) else tree
    if isinstance(tree, torch7.Object):
        yield _modules(tree)
    levels = [tree]
    for _ in range(3):
        groups = [level for level in levels if isinstance(level, dict)]
        for group in groups:
            named = {
                key.replace("module.", ""): value
                for key, value in group.items()
                if isinstance(key, str) and isinstance(value, np.ndarray)
            }
            if len(named) > 1:
                yield named
        # Wrappers have a few entries; more of them are no state_dict.
        levels = [value for group in groups for value in list(group.values())[:64]][:64]


def _recognised(candidates: Iterator[Arrays], name: str) -> tuple[str, Arrays]:
    best: tuple[float, str, Arrays] = (0.0, "", {})
    seen: list[str] = []
    for arrays in candidates:
        seen = seen or list(arrays)
        for layout, table in LAYOUTS.items():
            best = max(
                best, (_share(table, arrays), layout, arrays), key=lambda b: b[0]
            )
        for layout, known in DISCRIMINATOR_LAYOUTS.items():
            names = _discriminator_names(known)
            share = len(names & set(arrays)) / len(names)
            best = max(best, (share, layout, arrays), key=lambda b: b[0])
    if best[0] < 0.5:
        holds = (
            f"it holds {native.listed(seen)}" if seen else "it holds no named arrays"
        )
        raise UsageError(
            f"{name} has none of the layouts that can be converted "
            f"({', '.join(LAYOUTS)}): {holds}."
        )
    return best[1], best[2]


def _share(layout: Layout, arrays: Arrays) -> float:
    names = {f"{conv}.weight" for conv in layout.convs}
    names |= {f"{norm}.running_var" for norm in layout.norms}
    return len(names & set(arrays)) / len(names)


def _discriminator_names(layout: DiscriminatorLayout) -> set[str]:
    return {
        f"{layout.conv.format(index, side=side)}.weight"
        for side in layout.columns.values()
        for index in range(1, 6)
    }


def _modules(model: torch7.Object) -> Arrays:
    """The arrays of a Torch7 nn.Sequential by the names PyTorch would give them."""
    modules = model.fields.get("modules")
    if model.name != "nn.Sequential" or not isinstance(modules, dict):
        raise UsageError(
            f"the Torch7 file holds a {model.name}; only a plain nn.Sequential can be "
            "converted."
        )
    arrays: Arrays = {}
    for index in range(len(modules)):
        module = modules.get(index + 1)
        if not isinstance(module, torch7.Object):
            raise UsageError(f"module {index + 1} of the Torch7 network is missing.")
        _require_kind(index, module, len(modules))
        fields = dict(module.fields)
        epsilon = fields.get("eps", BATCH_NORM_EPSILON)
        if not isinstance(epsilon, int | float) or not 0 < epsilon < 1:
            raise UsageError(f"module {index + 1} has the epsilon {epsilon!r:.40}.")
        std = fields.get("running_std")
        if isinstance(std, np.ndarray) and "running_var" not in fields:
            # Files of 2015 and earlier hold 1 / sqrt(var + eps).
            with np.errstate(divide="ignore", over="ignore"):
                fields["running_var"] = std.astype(np.float64) ** -2 - epsilon
        var = fields.get("running_var")
        if isinstance(var, np.ndarray) and epsilon != BATCH_NORM_EPSILON:
            fields["running_var"] = var + (epsilon - BATCH_NORM_EPSILON)
        for key in ("weight", "bias", "running_mean", "running_var"):
            if isinstance(fields.get(key), np.ndarray):
                arrays[f"{index}.{key}"] = fields[key]
    return arrays


def _require_kind(index: int, module: torch7.Object, count: int) -> None:
    """Refuses a module that is not what the authors' network has at this place."""
    kind = module.name.rpartition(".")[2]
    place, row = index % 3, LAYERS[min(index // 3, len(LAYERS) - 1)]
    if count != MODULES:
        raise UsageError(
            f"the Torch7 network has {count} modules, and the authors' has {MODULES}."
        )
    if index == MODULES - 1:
        expected, fits = "Sigmoid", kind == "Sigmoid"
    elif place == 0:
        expected = (
            "SpatialFullConvolution" if row.kind == "deconv" else "SpatialConvolution"
        )
        fits = kind == expected
        if row.kind == "conv":
            fits = kind in (
                "SpatialConvolution", "SpatialConvolutionMM", "SpatialDilatedConvolution"
            )  # fmt: skip
        wanted = {"kW": row.kernel, "dW": row.stride, "dilationW": row.dilation}
        for key, number in wanted.items():
            default = 1 if key == "dilationW" else number
            if module.fields.get(key, default) != number:
                raise UsageError(
                    f"module {index + 1} of the Torch7 network has "
                    f"{key} = {module.fields.get(key, default)!r:.20} and not {number}."
                )
    else:
        expected = "SpatialBatchNormalization" if place == 1 else "ReLU"
        fits = kind == expected
    if not fits:
        raise UsageError(
            f"module {index + 1} of the Torch7 network is a {module.name} and no "
            f"{expected}."
        )


# --- laying the arrays out as ours


class _Source:
    """Foreign arrays by name, and what was wrong with those asked for."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays
        self.used: set[str] = set()
        self.misfits: dict[str, list[str]] = {"missing": [], "mis-shaped": []}

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """The array, or nothing of use where it is missing: `require_all_used` tells."""
        array = self.arrays.get(name)
        self.used.add(name)
        if array is None:
            self.misfits["missing"].append(name)
            return np.zeros(())
        # SpatialConvolutionMM of Torch7 keeps a kernel as a matrix.
        matrix = (shape[0], int(np.prod(shape[1:])))
        if array.shape != shape and not (len(shape) == 4 and array.shape == matrix):
            self.misfits["mis-shaped"].append(
                f"{name} {'x'.join(map(str, array.shape))} instead of "
                f"{'x'.join(map(str, shape))}"
            )
        return array

    def length(self, name: str, default: int) -> int:
        """The first side of an array, to learn the width of a network from."""
        array = self.arrays.get(name)
        return array.shape[0] if array is not None and array.ndim else default

    def require_all_used(self, name: str) -> None:
        """Refuses the file where arrays were missing, mis-shaped, or left over."""
        left = [
            key
            for key, array in self.arrays.items()
            if key not in self.used
            and array.ndim
            and not key.endswith(".num_batches_tracked")
        ]
        native.refuse_misfits({**self.misfits, "unexpected": left}, name)


# Nothing is copied before all shapes are known to fit, so arrays wait as functions.
Makers = dict[str, Callable[[], np.ndarray]]


def _completion(source: _Source, layout: Layout) -> tuple[Makers, Architecture]:
    # The widest layers tell the width best.
    width = source.length(f"{layout.convs[4]}.weight", 256) / 256
    made = Architecture(min(width, 8.0), layout.norm_order, layout.output)
    shapes = made.shapes()
    makers: Makers = {}
    for index, (row, conv) in enumerate(zip(LAYERS, layout.convs, strict=True)):
        name = layer_name(index)
        norm = None if index == len(LAYERS) - 1 else layout.norms[index]
        shape = shapes[f"params/{name}/kernel"]
        makers |= _conv(source, name, conv, norm, shape, deconv=row.kind == "deconv")
    return makers, made


def _conv(
    source: _Source,
    name: str,
    conv: str,
    norm: str | None,
    kernel: tuple[int, ...],
    *,
    deconv: bool = False,
) -> Makers:
    """A convolution and its normalisation; a bias that it absorbs may be absent."""
    side, _, inputs, outputs = kernel
    shape = (*((inputs, outputs) if deconv else (outputs, inputs)), side, side)
    weight = source.take(f"{conv}.weight", shape)
    axes = (2, 3, 0, 1) if deconv else (2, 3, 1, 0)
    makers: Makers = {
        f"params/{name}/kernel": lambda: _own(weight.reshape(shape).transpose(axes))
    }
    if norm is not None and f"{conv}.bias" not in source.arrays:
        makers[f"params/{name}/bias"] = lambda: np.zeros(outputs, np.float32)
    else:
        makers[f"params/{name}/bias"] = _vector(source, f"{conv}.bias", outputs)
    if norm is not None:
        for place, key in {
            f"params/{name}/norm/scale": "weight",
            f"params/{name}/norm/bias": "bias",
            f"batch_stats/{name}/norm/mean": "running_mean",
            f"batch_stats/{name}/norm/var": "running_var",
        }.items():
            makers[place] = _vector(source, f"{norm}.{key}", outputs)
    return makers


def _discriminator(
    source: _Source, layout: DiscriminatorLayout
) -> tuple[Makers, DiscriminatorArchitecture]:
    first = layout.conv.format(1, side=next(iter(layout.columns.values())))
    width = min(source.length(f"{first}.weight", 64) / 64, 8.0)
    counts = {column: _depth(source, layout, column) for column in layout.columns}
    sizes = {
        column: _input_size(source, layout, column, count)
        for column, count in counts.items()
    }
    made = DiscriminatorArchitecture(
        sizes["global"], sizes["local"], "both", width, layout.norm_order,
        layout.encoding.discriminator,
    )  # fmt: skip
    shapes = made.shapes()
    makers: Makers = {}
    for column, side in layout.columns.items():
        for index in range(1, counts[column] + 1):
            name = f"{column}/conv{index}"
            conv = layout.conv.format(index, side=side)
            norm = layout.norm.format(index, side=side)
            kernel = shapes[f"params/{name}/kernel"]
            makers |= _conv(source, name, conv, norm, kernel)
        dense = layout.features.format(counts[column] + 1, side=side)
        length, features = shapes[f"params/{column}/features/kernel"]
        channels = shapes[f"params/{column}/conv{counts[column]}/kernel"][3]
        makers[f"params/{column}/features/kernel"] = _dense(
            source, f"{dense}.weight", (features, length), channels
        )
        makers[f"params/{column}/features/bias"] = _vector(
            source, f"{dense}.bias", features
        )
    fused, _ = shapes["params/fusion/kernel"]
    fusion = source.take(f"{layout.fusion}.weight", (1, fused))
    # Ours has the columns in the order local, global.
    swap = next(iter(layout.columns)) == "global"
    makers["params/fusion/kernel"] = lambda: _own(
        (np.roll(fusion, fused // 2, axis=1) if swap else fusion).T
    )
    makers["params/fusion/bias"] = _vector(source, f"{layout.fusion}.bias", 1)
    return makers, made


def _depth(source: _Source, layout: DiscriminatorLayout, column: str) -> int:
    """How many convolutions a column of the foreign discriminator has."""
    side, count = layout.columns[column], 0
    while f"{layout.conv.format(count + 1, side=side)}.weight" in source.arrays:
        count += 1
    return count


def _input_size(
    source: _Source, layout: DiscriminatorLayout, column: str, count: int
) -> int:
    """The side of the images that a column sees, told by its dense layer."""
    side = layout.columns[column]
    last = layout.conv.format(count, side=side)
    channels = max(1, source.length(f"{last}.weight", 512))
    dense = layout.features.format(count + 1, side=side)
    array = source.arrays.get(f"{dense}.weight")
    flat = array.shape[1] if array is not None and array.ndim == 2 else 16 * channels
    size = max(1, round((flat / channels) ** 0.5)) << count
    if depth(size) != count:
        raise UsageError(
            f"the {column} discriminator has {count} convolutions for an image of "
            f"{size} pixels, and ours has {depth(size)}."
        )
    return size


def _dense(
    source: _Source, name: str, shape: tuple[int, int], channels: int
) -> Callable[[], np.ndarray]:
    """A dense layer over a square map of so many channels."""
    weight = source.take(name, shape)
    features, length = shape
    side = round((length / channels) ** 0.5)

    def make() -> np.ndarray:
        maps = weight.reshape(features, channels, side, side)
        return _own(maps.transpose(2, 3, 1, 0).reshape(-1, features))

    return make


def _vector(source: _Source, name: str, length: int) -> Callable[[], np.ndarray]:
    array = source.take(name, (length,))
    return lambda: _own(array)


def _own(array: np.ndarray) -> np.ndarray:
    # A number beyond float32 becomes infinity, which is refused by name.
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=np.float32)


# --- the mean colour


def _mean_of(parts: Parts, source: Path, config: str | Path | None) -> Color | None:
    """The layout's own mean, or that of the file given, the weights, or a file beside."""
    fixed = LAYOUTS[parts.layout].mean
    if fixed is not None:
        return fixed
    if config is not None:
        mean = _stated_mean(Path(config))
        if mean is None:
            raise UsageError(f"{config} has no `mpv` of three numbers in [0, 1].")
        return mean
    beside = (source if source.is_dir() else source.parent) / "config.json"
    if parts.mean is not None or not beside.is_file():
        return parts.mean
    return _stated_mean(beside)


def _stated_mean(path: Path) -> Color | None:
    with reading(path):
        data = path.read_bytes()
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON: {error}.") from error
    if not isinstance(found, Mapping):
        return None
    return _color(found.get("mpv", found.get("mean_color")))


def _color(value: Any) -> Color | None:
    if isinstance(value, np.ndarray) and value.shape == (3,):
        value = value.tolist()
    if not isinstance(value, list | tuple) or len(value) != 3:
        return None
    numbers = all(isinstance(channel, int | float) for channel in value)
    if not numbers or not all(0 <= channel <= 1 for channel in value):
        return None
    red, green, blue = (float(channel) for channel in value)
    return red, green, blue


def _is_safetensors(path: Path) -> bool:
    start = native.read_start(path, 9)
    length = int.from_bytes(start[:8], "little")
    return start[8:9] == b"{" and length <= path.stat().st_size
