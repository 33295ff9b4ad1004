"""Transposes and renames the arrays of a foreign layout.

In the foreign layouts kernels are (out, in, y, x), or (in, out, y, x) for transposed
convolutions, and dense layers flatten channels first. Ours are (y, x, in, out) and
flatten channels last. All normalisations have an epsilon of 1e-5.
"""

from collections.abc import Callable

import numpy as np

from gl_jax.config import UsageError
from gl_jax.models.completion import LAYERS, layer_name
from gl_jax.models.discriminators import depth
from gl_jax.weights.architectures import Architecture, DiscriminatorArchitecture
from gl_jax.weights.arrays import Arrays, Tree, nested, refuse_misfits
from gl_jax.weights.layouts import DiscriminatorLayout, Layout


class Source:
    """Foreign arrays by name; collects the missing, mis-shaped and unused ones."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays
        self.used: set[str] = set()
        self.misfits: dict[str, list[str]] = {"missing": [], "mis-shaped": []}

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Returns the array, or a scalar if it is missing; records a misfit."""
        array = self.arrays.get(name)
        self.used.add(name)
        if array is None:
            self.misfits["missing"].append(name)
            return np.zeros(())
        # Torch7's SpatialConvolutionMM stores a kernel as a matrix.
        matrix = (shape[0], int(np.prod(shape[1:])))
        if array.shape != shape and not (len(shape) == 4 and array.shape == matrix):
            self.misfits["mis-shaped"].append(
                f"{name} {'x'.join(map(str, array.shape))} instead of "
                f"{'x'.join(map(str, shape))}"
            )
        return array

    def length(self, name: str, default: int) -> int:
        """Returns the length of an array's first dimension, `default` if missing."""
        array = self.arrays.get(name)
        return array.shape[0] if array is not None and array.ndim else default

    def require_all_used(self, name: str) -> None:
        """Raises UsageError if arrays were missing, mis-shaped, or left over."""
        left = [
            key
            for key, array in self.arrays.items()
            if key not in self.used
            and array.ndim
            and not key.endswith(".num_batches_tracked")
        ]
        refuse_misfits({**self.misfits, "unexpected": left}, name)


Makers = dict[str, Callable[[], np.ndarray]]
"""A function for each array, so that nothing is copied before all shapes fit."""


def make(makers: Makers) -> Tree:
    """Makes the arrays and nests them."""
    return nested({name: maker() for name, maker in makers.items()})


def completion(source: Source, layout: Layout) -> tuple[Makers, Architecture]:
    """Returns a maker for each array of the completion network, and its architecture."""
    # A wide layer, because rounding its channels distorts the width least.
    width = source.length(f"{layout.convs[4]}.weight", 256) / 256
    architecture = Architecture(min(width, 8.0), layout.norm_order, layout.output)
    shapes = architecture.shapes()
    makers: Makers = {}
    for index, (row, conv) in enumerate(zip(LAYERS, layout.convs, strict=True)):
        name = layer_name(index)
        norm = None if index == len(LAYERS) - 1 else layout.norms[index]
        shape = shapes[f"params/{name}/kernel"]
        makers |= _conv(source, name, conv, norm, shape, deconv=row.kind == "deconv")
    return makers, architecture


def _conv(
    source: Source,
    name: str,
    conv: str,
    norm: str | None,
    kernel: tuple[int, ...],
    *,
    deconv: bool = False,
) -> Makers:
    """Returns makers of a convolution and its normalisation.

    The bias may be absent before a normalisation, which would remove it.
    """
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


def discriminator(
    source: Source, layout: DiscriminatorLayout
) -> tuple[Makers, DiscriminatorArchitecture]:
    """Returns a maker for each array of the discriminators, and their architecture."""
    first = layout.conv.format(1, side=next(iter(layout.columns.values())))
    width = min(source.length(f"{first}.weight", 64) / 64, 8.0)
    counts = {column: _depth(source, layout, column) for column in layout.columns}
    sizes = {
        column: _input_size(source, layout, column, count)
        for column, count in counts.items()
    }
    architecture = DiscriminatorArchitecture(
        sizes["global"], sizes["local"], "both", width, layout.norm_order,
        layout.encoding.discriminator,
    )  # fmt: skip
    shapes = architecture.shapes()
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
    # Our fusion layer has the columns in the order local, global.
    swap = next(iter(layout.columns)) == "global"
    makers["params/fusion/kernel"] = lambda: _own(
        (np.roll(fusion, fused // 2, axis=1) if swap else fusion).T
    )
    makers["params/fusion/bias"] = _vector(source, f"{layout.fusion}.bias", 1)
    return makers, architecture


def _depth(source: Source, layout: DiscriminatorLayout, column: str) -> int:
    """Returns the number of convolutions in a column of the foreign discriminator."""
    side, count = layout.columns[column], 0
    while f"{layout.conv.format(count + 1, side=side)}.weight" in source.arrays:
        count += 1
    return count


def _input_size(
    source: Source, layout: DiscriminatorLayout, column: str, count: int
) -> int:
    """Returns the side of a column's images in pixels, from its dense layer."""
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
            f"{size} pixels, but ours has {depth(size)}."
        )
    return size


def _dense(
    source: Source, name: str, shape: tuple[int, int], channels: int
) -> Callable[[], np.ndarray]:
    """Returns a maker of a dense layer over a square map of `channels` channels."""
    weight = source.take(name, shape)
    features, length = shape
    side = round((length / channels) ** 0.5)

    def make() -> np.ndarray:
        maps = weight.reshape(features, channels, side, side)
        return _own(maps.transpose(2, 3, 1, 0).reshape(-1, features))

    return make


def _vector(source: Source, name: str, length: int) -> Callable[[], np.ndarray]:
    array = source.take(name, (length,))
    return lambda: _own(array)


def _own(array: np.ndarray) -> np.ndarray:
    # A number beyond float32 becomes infinity, which `require_finite` refuses.
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=np.float32)
