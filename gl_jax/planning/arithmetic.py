"""The work and memory of a traced step by arithmetic, without a compiler or a chip."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var

MATRICES = ("conv_general_dilated", "dot_general")


class Work(NamedTuple):
    """The matrix products and convolutions of a step; the rest is small in comparison."""

    flops: float
    """Multiplications and additions, without those of zero padding."""
    traffic: float
    """Bytes of operands and results, each read or written once."""


class Line(NamedTuple):
    """One operation of a step, with its inputs and outputs."""

    equation: Any
    reads: list[Any]
    makes: list[Any]


def traced(step: Callable[..., Any], *arguments: Any) -> Jaxpr:
    """Traces a step for arguments of these shapes."""
    return jax.make_jaxpr(step)(*arguments).jaxpr


def work_of(jaxpr: Jaxpr) -> Work:
    """Returns the work of all products, with the largest branch of each condition."""
    flops = traffic = 0.0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name in MATRICES:
            flops += _convolution(equation) if name == MATRICES[0] else _dot(equation)
            traffic += sum(_bytes(v) for v in (*equation.invars, *equation.outvars))
            continue
        inner = [work_of(part) for part in _parts(equation)]
        if name == "cond":
            inner = [max(inner)]
        times = equation.params["length"] if name == "scan" else 1
        flops += times * sum(work.flops for work in inner)
        traffic += times * sum(work.traffic for work in inner)
    return Work(flops, traffic)


def kept_bytes(jaxpr: Jaxpr) -> float:
    """Returns the most bytes of activations and gradients that exist at once.

    Operations run in the order of the trace. Operands and results of products, sums and
    slices are counted. An elementwise operation counts as fused into its neighbours, so
    its inputs stay alive instead of its output. A compiler may need more, for copies or
    another order, or less, if it computes some arrays twice.
    """
    names: dict[Any, Any] = {}
    lines = list(_flat(jaxpr, names))
    made = {var for line in lines for var in line.makes}
    stored = {
        var
        for line in lines
        for var in line.makes
        if _name(line) in (*MATRICES, "scan") or _is_smaller(line)
    }
    stored |= {
        var
        for line in lines
        if _name(line) in MATRICES
        for var in line.reads
        if var in made
    }
    roots: dict[Any, frozenset[Any]] = {}
    last: dict[Any, int] = {}
    inner = {}
    for place, line in enumerate(lines):
        read: frozenset[Any] = frozenset().union(
            *(roots.get(v, ()) for v in line.reads)
        )
        last |= dict.fromkeys(read, place)
        for var in line.makes:
            roots[var] = frozenset([var]) if var in stored else read
        if _name(line) in ("scan", "while", "cond"):
            inner[place] = max(map(kept_bytes, _parts(line.equation)), default=0.0)
    for var in jaxpr.outvars:
        if isinstance(var, Var):
            last |= dict.fromkeys(roots.get(names.get(var, var), ()), len(lines))
    alive = most = 0.0
    ends: dict[int, float] = {}
    for place, line in enumerate(lines):
        for var in line.makes:
            if var in stored and var in last:
                alive += _bytes(var)
                ends[last[var]] = ends.get(last[var], 0.0) + _bytes(var)
        most = max(most, alive + inner.get(place, 0.0))
        alive -= ends.get(place, 0.0)
    return most


def _flat(jaxpr: Jaxpr, names: dict[Any, Any]) -> Iterator[Line]:
    """Yields the operations in order, with the bodies of called functions inlined."""
    for equation in jaxpr.eqns:
        arguments = [
            v if isinstance(v, Literal) else names.get(v, v) for v in equation.invars
        ]
        reads = [v for v in arguments if not isinstance(v, Literal)]
        parts = list(_parts(equation))
        if equation.primitive.name in ("scan", "while", "cond") or len(parts) != 1:
            yield Line(equation, reads, list(equation.outvars))
            continue
        (called,) = parts
        # A function called twice is one jaxpr, so its arrays get new names in each call.
        inside: dict[Any, Any] = {
            var: _Named(var) for inner in called.eqns for var in inner.outvars
        }
        inside |= dict(
            zip(called.invars, arguments[-len(called.invars) :], strict=False)
        )
        for line in _flat(called, inside):
            makes = [inside.get(var, var) for var in line.makes]
            yield line._replace(makes=makes)
        results = [
            v if isinstance(v, Literal) else inside.get(v, v) for v in called.outvars
        ]
        names |= dict(zip(equation.outvars, results, strict=True))


class _Named:
    """An array in one call of a function."""

    def __init__(self, var: Any) -> None:
        self.aval = var.aval


def _parts(equation: Any) -> Iterator[Jaxpr]:
    """Yields the jaxprs inside an operation: of a function, a loop, each branch."""
    for value in equation.params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, Jaxpr):
                yield part


def _name(line: Line) -> str:
    return str(line.equation.primitive.name)


def _is_smaller(line: Line) -> bool:
    """Returns whether an operation sums or slices, so that its results are smaller."""
    most = max((v.aval.size for v in line.reads if hasattr(v, "aval")), default=0)
    return bool(sum(v.aval.size for v in line.makes) < 0.6 * most)


def _bytes(var: Any) -> float:
    if not hasattr(var, "aval") or not hasattr(var.aval, "shape"):
        return 0.0
    return float(np.prod(var.aval.shape) * getattr(var.aval.dtype, "itemsize", 4))


def _dot(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    inner = np.prod([shape[axis] for axis in contracted])
    return float(2 * np.prod(equation.outvars[0].aval.shape) * inner)


def _convolution(equation: Any) -> float:
    images, kernel = (var.aval.shape for var in equation.invars)
    result = equation.outvars[0].aval.shape
    params = equation.params
    axes = params["dimension_numbers"]
    products = result[axes.out_spec[0]] * result[axes.out_spec[1]]
    products *= kernel[axes.rhs_spec[1]]
    for axis in range(len(images) - 2):
        products *= _taps(
            images[axes.lhs_spec[2 + axis]],
            kernel[axes.rhs_spec[2 + axis]],
            result[axes.out_spec[2 + axis]],
            stride=params["window_strides"][axis],
            before=params["padding"][axis][0],
            spread=params["lhs_dilation"][axis],
            dilation=params["rhs_dilation"][axis],
        )
    return float(2 * products)


def _taps(
    size: int,
    kernel: int,
    result: int,
    *,
    stride: int,
    before: int,
    spread: int,
    dilation: int,
) -> int:
    """Counts the pairs of an output and a kernel tap that multiply a value, on one axis.

    Other pairs multiply a zero: of the padding, or between values `spread` apart.
    """
    at = np.arange(result)[:, None] * stride + np.arange(kernel) * dilation - before
    inside = (at >= 0) & (at <= (size - 1) * spread) & (at % spread == 0)
    return int(inside.sum())
