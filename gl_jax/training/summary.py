"""The networks of an experiment as tables, in the manner of the paper's."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gl_jax.config import Config
from gl_jax.experiment import Experiment
from gl_jax.models.layers import ConvBlock, Dense, UpBlock
from gl_jax.training.own_parts import parts_of

LAYERS = (ConvBlock, Dense, nn.Dense, nn.Conv, nn.ConvTranspose)
HEADER = ("layer", "type", "kernel", "dilation", "stride", "output", "parameters")


def summarize(config: Config, experiment: Experiment | None = None) -> str:
    """A table of every network: type, kernel, dilation, stride, output shape, parameters."""
    parts = parts_of(config, experiment)
    inputs, views = jax.eval_shape(lambda: parts.example_inputs(config.data.image_size))
    tables = [_table("Completion network", parts.completion, inputs)]
    if parts.discriminator is not None:
        title = f"Discriminators ({', '.join(parts.views)})"
        tables.append(_table(title, parts.discriminator, views))
    return "\n\n".join(tables)


def _table(title: str, network: nn.Module, shown: Any) -> str:
    modules: dict[tuple[str, ...], nn.Module] = {}

    def is_layer(module: nn.Module, _: str) -> bool:
        layer = isinstance(module, LAYERS)
        if layer:
            modules[module.path] = module
        return layer

    def trace() -> tuple[Any, Any]:
        inputs = jax.tree.map(lambda array: jnp.zeros(array.shape), shown)
        variables = network.init(jax.random.key(0), inputs, train=False)
        _, captured = network.apply(variables, inputs, capture_intermediates=is_layer)
        return variables["params"], captured["intermediates"]

    params, outputs = jax.eval_shape(trace)
    rows = [HEADER]
    total = 0
    for path, module in modules.items():
        output = _at(outputs, path)["__call__"][0]
        count = sum(leaf.size for leaf in jax.tree.leaves(_at(params, path)))
        total += count
        shape = " x ".join(str(side) for side in output.shape[1:])
        rows.append(("/".join(path), *_numbers(module), shape, f"{count:,}"))
    return f"{title}\n{_aligned(rows)}\n{total:,} parameters"


def _numbers(module: nn.Module) -> tuple[str, str, str, str]:
    if isinstance(module, UpBlock):
        return "deconv", f"{module.kernel_size} x {module.kernel_size}", "1", "1/2"
    if isinstance(module, ConvBlock):
        kind = "dilated conv" if module.dilation > 1 else "conv"
        kernel = f"{module.kernel_size} x {module.kernel_size}"
        return kind, kernel, str(module.dilation), str(module.stride)
    return "dense", "", "", ""


def _at(tree: Any, path: Sequence[str]) -> Any:
    for name in path:
        tree = tree[name]
    return tree


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if index >= 5 else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
