"""A bounds-checked reader of Torch7's binary files (.t7).

The format is a tree of typed records. Each begins with its type as a 4-byte integer;
tables and objects continue with an index by which later records can refer to them.
Sizes inside tensors are C longs: 4 bytes on Windows, 8 elsewhere. Nothing in a file is
executed; stored functions are refused.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gl_jax.config import UsageError
from gl_jax.files import reading
from gl_jax.weights.unpickling import MOST_DIMENSIONS, strided_view

DEEPEST = 60
"""Deepest nesting of tables and objects; a nn.Sequential of convolutions has 8."""
LONGEST_NAME = 200
"""Longest name of a class, in characters."""

NIL, NUMBER, STRING, TABLE, OBJECT, BOOLEAN = range(6)
FUNCTIONS = (6, 7, 8)

# Bytes of the smallest entry of a table: a boolean key and nil.
_SMALLEST_ENTRY = 12

_ELEMENTS = {
    "Float": "<f4", "Double": "<f8", "Half": "<f2", "Byte": "u1", "Char": "i1",
    "Short": "<i2", "Int": "<i4", "Long": "",
    "Cuda": "<f4", "CudaDouble": "<f8", "CudaHalf": "<f2", "CudaByte": "u1",
    "CudaChar": "i1", "CudaShort": "<i2", "CudaInt": "<i4", "CudaLong": "",
}  # fmt: skip


class _Refused(Exception):
    """The file is refused; the message is the reason, in one line."""


@dataclass
class Object:
    """An instance of a Torch class, such as nn.Sequential: its name and fields."""

    name: str
    fields: dict[Any, Any] = field(default_factory=dict)


def read(path: str | Path) -> Any:
    """Reads a .t7 file into dictionaries, numpy arrays, texts, numbers and `Object`s.

    Tables become dictionaries with the keys they have in Lua: a list is {1: ..., 2: ...}.
    They may contain themselves. Whole numbers become int. Tensors become read-only views
    with the file's strides, so memory stays in proportion to the file.
    Raises UsageError if the file is damaged, truncated, nested too deeply, or holds
    functions or a graph of nngraph.
    """
    path = Path(path)
    with reading(path):
        data = path.read_bytes()
    reasons = []
    for long_size in (8, 4):
        try:
            return _Reader(data, long_size).read()
        except _Refused as reason:
            reasons.append(reason)
    raise UsageError(
        f"{path} is refused as a Torch7 file: {reasons[0]}. Nothing in it was run."
    )


class _Reader:
    """Reads the file's bytes once, assuming one size of a C long."""

    def __init__(self, data: bytes, long_size: int) -> None:
        self.data = data
        self.at = 0
        self.long_size = long_size
        self.known: dict[int, Any] = {}

    def read(self) -> Any:
        """Returns the file's single record."""
        if re.match(rb"[0-8]\n", self.data):
            raise _Refused(
                "it is in Torch7's text format; save it again in Torch as 'binary'"
            )
        record = self.record(0)
        if self.at != len(self.data):
            raise _Refused("it has bytes after its end")
        return record

    def take(self, count: int) -> bytes:
        """Returns the next bytes."""
        if not 0 <= count <= len(self.data) - self.at:
            raise _Refused(f"it is truncated or damaged at byte {self.at}")
        data = self.data[self.at : self.at + count]
        self.at += count
        return data

    def integer(self) -> int:
        """Returns the next 4-byte integer."""
        return int.from_bytes(self.take(4), "little", signed=True)

    def longs(self, count: int) -> tuple[int, ...]:
        """Returns the next C longs; raises _Refused if one is negative."""
        if not 0 <= count <= MOST_DIMENSIONS:
            raise _Refused(f"a tensor has {count} dimensions")
        format_ = f"<{count}{'q' if self.long_size == 8 else 'i'}"
        numbers = struct.unpack(format_, self.take(count * self.long_size))
        if any(number < 0 for number in numbers):
            raise _Refused("a tensor has a negative size or stride")
        return numbers

    def text(self) -> str:
        """Returns the next string; invalid UTF-8 becomes lone surrogates."""
        return self.take(self.integer()).decode("utf-8", "surrogateescape")

    def record(self, depth: int) -> Any:
        """Returns the next record, of any type."""
        if depth > DEEPEST:
            raise _Refused(f"it is nested more than {DEEPEST} levels deep")
        kind = self.integer()
        if kind == NIL:
            return None
        if kind == NUMBER:
            number = struct.unpack("<d", self.take(8))[0]
            return int(number) if number.is_integer() else number
        if kind == STRING:
            return self.text()
        if kind == BOOLEAN:
            return self.integer() != 0
        if kind == TABLE:
            return self.shared(lambda index: self.table(index, depth))
        if kind == OBJECT:
            return self.shared(lambda index: self.object(index, depth))
        if kind in FUNCTIONS:
            raise _Refused("it holds a function, which is not data")
        raise _Refused(f"it is not a binary .t7 file, or damaged at byte {self.at - 4}")

    def shared(self, build: Callable[[int], Any]) -> Any:
        """Reads an index and returns its table or object, built at its first use."""
        index = self.integer()
        return self.known[index] if index in self.known else build(index)

    def table(self, index: int, depth: int) -> dict[Any, Any]:
        """Returns the entries of a table."""
        count = self.integer()
        if not 0 <= count <= (len(self.data) - self.at) // _SMALLEST_ENTRY:
            raise _Refused(f"a table claims to have {count} entries")
        entries: dict[Any, Any] = {}
        # Stored before it is complete, because it may contain itself.
        self.known[index] = entries
        for _ in range(count):
            key = self.record(depth + 1)
            if not isinstance(key, str | int | float):
                raise _Refused(f"a table has a {type(key).__name__} as a key")
            entries[key] = self.record(depth + 1)
        return entries

    def object(self, index: int, depth: int) -> Any:
        """Returns a tensor or storage as an array, any other class as an `Object`."""
        name = self.text()
        if re.fullmatch(r"V \d+", name):  # files of 2012 and earlier have no version
            name = self.text()
        if len(name) > LONGEST_NAME or not name.isprintable():
            raise _Refused("an object has an invalid class name")
        if name == "nn.gModule":
            raise _Refused(
                "it holds a graph of nngraph (nn.gModule); only a plain nn.Sequential "
                "can be converted"
            )
        kind = re.fullmatch(r"torch\.(\w+?)(Tensor|Storage)", name)
        if kind and kind[1] in _ELEMENTS:
            dtype = np.dtype(_ELEMENTS[kind[1]] or f"<i{self.long_size}")
            tensor = kind[2] == "Tensor"
            array = self.tensor(dtype, depth) if tensor else self.storage(dtype)
            self.known[index] = array
            return array
        instance = Object(name)
        # Stored before it is complete, because its fields may refer to it.
        self.known[index] = instance
        fields = self.record(depth + 1)
        if not isinstance(fields, dict):
            raise _Refused(f"an object of {name} has no fields")
        instance.fields = fields
        return instance

    def storage(self, dtype: np.dtype[Any]) -> np.ndarray:
        """Returns a storage as a flat array."""
        (count,) = self.longs(1)
        return np.frombuffer(self.take(count * dtype.itemsize), dtype)

    def tensor(self, dtype: np.dtype[Any], depth: int) -> np.ndarray:
        """Returns a tensor as a view of its storage, after checking its bounds."""
        dimensions = self.integer()
        shape, strides = self.longs(dimensions), self.longs(dimensions)
        (first,) = self.longs(1)  # counted from 1
        numbers = self.record(depth + 1)
        if dimensions == 0:
            return np.zeros(0, dtype)
        if not isinstance(numbers, np.ndarray) or numbers.dtype != dtype:
            raise _Refused("a tensor has no storage of its own type")
        # Empty tensors have no dimensions, so a side of 0 shows the wrong `long_size`.
        if numbers.ndim != 1 or first < 1 or 0 in shape:
            raise _Refused("a tensor has an invalid storage")
        try:
            return strided_view(numbers, first - 1, shape, strides)
        except (ValueError, OverflowError) as error:
            raise _Refused("a tensor reaches beyond its storage") from error
