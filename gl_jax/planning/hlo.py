"""Figures from the text of a compiled program (HLO)."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

COLLECTIVES = (
    "all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute",
)  # fmt: skip

# Operations without memory traffic of their own: names, control flow, ends of copies.
STILL = frozenset(
    "parameter constant tuple get-tuple-element bitcast while conditional call after-all "
    "partition-id replica-id copy-done".split()
)

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_INSTRUCTION = re.compile(
    r"^\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<type>\(.*?\)|\S+) (?P<operation>[\w\-]+)\("
    r"(?P<operands>[^)]*)\)(?P<rest>.*)$"
)
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\](\{[^}]*\})?")
_CALLED = re.compile(r"(?:body|calls|to_apply)=%?([\w.\-]+)")
_TRIPS = re.compile(r'known_trip_count":\{"n":"(\d+)"')


class Instruction(NamedTuple):
    """One line of a program."""

    name: str
    type: str
    operation: str
    operands: tuple[str, ...]
    rest: str


class Figures(NamedTuple):
    """Figures of one run of a program on one chip."""

    collectives: int
    """Number of collective operations with the other chips."""
    collective_bytes: int
    """Bytes of their operands, each array once."""
    traffic: int
    """Bytes between the chip and its memory: each operation's arrays, read or written
    once, except those that the compiler keeps on the chip."""


def figures(text: str, *, pieces: int = 1) -> Figures:
    """Returns the figures of a program, from its entry and the bodies of its loops.

    A loop of unknown length counts `pieces` times if it has collectives, else once.
    """
    computations, entry = _computations(text)
    return _of(entry, computations, pieces)


def size_of(text: str, *, everywhere: bool = True) -> int:
    """Returns the bytes of a type or tuple of types: `(f32[2,4]{1,0}, bf16[8]{0})`.

    Without `everywhere`, arrays kept on the chip, in a memory space S(n), do not count.
    Padding never counts.
    """
    total = 0
    for kind, sides, layout in _ARRAY.findall(text):
        if everywhere or not re.search(r"S\([1-9]", layout):
            elements = 1
            for side in filter(None, sides.split(",")):
                elements *= int(side)
            bits = re.search(r"\d+", kind)
            total += elements * max(int(bits[0]) // 8, 1) if bits else elements
    return total


def _computations(text: str) -> tuple[dict[str, list[Instruction]], str]:
    computations: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    entry = ""
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current = computations.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif match := _INSTRUCTION.match(line):
            operands = tuple(re.findall(r"%([\w.\-]+)", match["operands"]))
            current.append(
                Instruction(
                    match["name"], match["type"], match["operation"], operands,
                    match["rest"],
                )
            )  # fmt: skip
    return computations, entry


def _of(
    name: str, computations: Mapping[str, list[Instruction]], pieces: int
) -> Figures:
    types = {line.name: line.type for line in computations[name]}
    count = size = traffic = 0
    for line in computations[name]:
        kind = line.operation.removesuffix("-start")
        if kind in COLLECTIVES:
            count += 1
            # The type of an asynchronous start includes the results, so its operands count.
            arrays = types[line.operands[0]] if kind != line.operation else line.type
            size += size_of(arrays)
        traffic += _traffic(line, types)
        for body in _bodies(line):
            inner = _of(body, computations, pieces)
            known = _TRIPS.search(line.rest)
            trips = int(known[1]) if known else pieces if inner.collectives else 1
            count += trips * inner.collectives
            size += trips * inner.collective_bytes
            traffic += trips * inner.traffic
    return Figures(count, size, traffic)


def _bodies(line: Instruction) -> Iterator[str]:
    """Yields the computations of loops, calls and branches, whose operations run singly."""
    if line.operation in ("while", "call"):
        yield from _CALLED.findall(line.rest)
    elif line.operation == "conditional":
        branches = re.search(r"branch_computations=\{([^}]*)\}", line.rest)
        yield from re.findall(r"%?([\w.\-]+)", branches[1]) if branches else ()


def _traffic(line: Instruction, types: Mapping[str, str]) -> int:
    if line.operation in STILL or line.operation.endswith("-done"):
        return 0
    if line.operation == "copy-start":
        # Its type holds both ends of the copy, and a flag in a separate memory.
        return size_of(line.type, everywhere=False)
    arrays = [line.type, *(types.get(name, "") for name in line.operands)]
    return sum(size_of(array, everywhere=False) for array in arrays)
