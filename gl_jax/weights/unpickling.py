"""Reads pickles of plain data and tensors without Python's pickle.

A pickle is a program for a small stack machine that may call any function. This machine
implements only the instructions that build data. Its results take memory in proportion
to the file.
"""

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

LARGEST_PICKLE = 16 * 2**20
"""Largest pickle in bytes; that of a large network's state takes 1 % of this."""
MOST_DIMENSIONS = 8
"""Most dimensions of a tensor."""

_STORAGES: dict[str, Any] = {
    "torch.FloatStorage": np.float32,
    "torch.DoubleStorage": np.float64,
    "torch.HalfStorage": np.float16,
    "torch.BFloat16Storage": ml_dtypes.bfloat16,
    "torch.LongStorage": np.int64,
    "torch.IntStorage": np.int32,
    "torch.ShortStorage": np.int16,
    "torch.CharStorage": np.int8,
    "torch.ByteStorage": np.uint8,
    "torch.BoolStorage": np.bool_,
}

FindStorage = Callable[[Any, str, int], np.ndarray | None]
"""(dtype, key, length) of a storage -> its numbers, or None while unknown."""


class Refused(Exception):
    """The file is refused; the message is the reason, in one line."""


class _Global(NamedTuple):
    """The name of a class or function in the pickle; it is never imported."""

    name: str


class _Mark:
    """Marks the first item of a list, tuple or dictionary under construction."""


class Machine:
    """A stack machine that builds the object a pickle describes, from data alone."""

    def __init__(self, data: bytes, find: FindStorage, at: int = 0) -> None:
        self.data = data
        self.at = at
        self.find = find
        self.end = min(len(data), at + LARGEST_PICKLE)
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Executes the pickle, moves `at` behind it, and returns the object."""
        try:
            while True:
                code = self.take(1)
                if code == b".":
                    (result,) = self.stack
                    return result
                if code not in _STEPS:
                    raise Refused(f"the instruction {code!r} is not one of torch's")
                _STEPS[code](self)
        except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
            # A short stack, an unknown memo, invalid UTF-8, ...
            raise Refused(f"its pickle is damaged ({type(error).__name__})") from error

    def take(self, count: int) -> bytes:
        """Returns the next bytes."""
        data = self.data[self.at : self.at + count]
        if len(data) != count or self.at + count > self.end:
            raise Refused("its pickle is truncated or too long")
        self.at += count
        return data

    def number(self, count: int, *, signed: bool = False) -> int:
        """Returns the next integer, of `count` bytes."""
        return int.from_bytes(self.take(count), "little", signed=signed)

    def line(self) -> str:
        """Returns the next line of text."""
        end = self.data.find(b"\n", self.at, min(self.end, self.at + 200))
        if end < 0:
            raise Refused("a name in its pickle does not end")
        return self.take(end + 1 - self.at)[:-1].decode("utf-8")

    def push(self, item: Any) -> None:
        """Puts an item on the stack."""
        self.stack.append(item)

    def items(self) -> list[Any]:
        """Pops the last mark and the items above it; returns the items."""
        at = len(self.stack) - 1
        while not isinstance(self.stack[at], _Mark):
            at -= 1
            if at < 0:
                raise Refused("its pickle is damaged (no mark)")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def extend(self, items: list[Any]) -> None:
        """Appends to the list on top of the stack."""
        if not isinstance(self.stack[-1], list):
            raise Refused("it appends to something other than a list")
        self.stack[-1].extend(items)

    def fill(self, items: list[Any]) -> None:
        """Sets pairs of the dictionary on top of the stack."""
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise Refused("it sets items of something other than a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            _set(target, key, value)

    def remember(self, index: int) -> None:
        """Stores the top of the stack in the memo."""
        self.memo[index] = self.stack[-1]

    def name(self, module: Any, name: Any) -> None:
        """Pushes the name of a class or function; raises Refused unless it is known."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise Refused("its pickle is damaged (a name is not text)")
        full = f"{module}.{name}"
        if full not in _CALLS and full not in _STORAGES:
            printable = full if full.isprintable() else ascii(full)
            raise Refused(f"it asks for {printable[:100]}, which is not data")
        self.push(_Global(full))

    def call(self) -> None:
        """Calls this file's builder for a known name."""
        arguments, target = self.stack.pop(), self.stack.pop()
        if (
            not isinstance(target, _Global)
            or target.name not in _CALLS
            or not isinstance(arguments, tuple)
        ):
            raise Refused("it calls something that cannot be called")
        self.push(_CALLS[target.name](*arguments))

    def describe(self) -> None:
        """Drops attributes of a dictionary, such as the `_metadata` of a state_dict."""
        self.stack.pop()
        if not isinstance(self.stack[-1], dict):
            raise Refused("it sets attributes of something other than a dictionary")

    def storage(self) -> None:
        """Pushes the storage that a persistent id refers to."""
        name = self.stack.pop()
        if (
            not isinstance(name, tuple)
            or len(name) not in (5, 6)
            or name[0] != "storage"
        ):
            raise Refused("it refers to something outside other than a storage")
        _, kind, key, _, count = name[:5]
        if not isinstance(kind, _Global) or kind.name not in _STORAGES:
            raise Refused("a storage has an unknown type")
        if not isinstance(key, str) or type(count) is not int or count < 0:
            raise Refused("a storage has an invalid name or size")
        if len(name) == 6 and name[5] is not None:
            raise Refused("a storage is a view of another; save it with torch 1.6+")
        self.push(_Storage(self.find(_STORAGES[kind.name], key, count)))


class _Storage(NamedTuple):
    numbers: np.ndarray | None


def _rebuild_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, *_: Any
) -> np.ndarray | None:
    """Returns a tensor as a view of its storage, or None while that is unknown."""
    if not isinstance(storage, _Storage):
        raise Refused("a tensor has no storage")
    if storage.numbers is None:
        return None
    if (
        not isinstance(shape, tuple)
        or not isinstance(strides, tuple)
        or not len(shape) == len(strides) <= MOST_DIMENSIONS
        or not all(
            type(number) is int and number >= 0 for number in (offset, *shape, *strides)
        )
    ):
        raise Refused("a tensor has an invalid shape")
    return strided_view(storage.numbers, offset, shape, strides)


def strided_view(
    numbers: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> np.ndarray:
    """Returns a read-only view of flat `numbers`, with offset and strides in elements.

    All arguments must be at least 0. Raises ValueError if the view reaches outside
    `numbers` or has more elements.
    """
    count = 1
    for length in shape:
        count *= length
    if count == 0:
        return np.zeros(tuple(min(length, 1) for length in shape), numbers.dtype)
    steps = zip(shape, strides, strict=True)
    last = offset + sum((length - 1) * stride for length, stride in steps)
    if last >= numbers.size or count > numbers.size:
        raise ValueError("a tensor reaches beyond its storage")
    size = numbers.itemsize
    return np.lib.stride_tricks.as_strided(
        numbers[offset:], shape, [stride * size for stride in strides], writeable=False
    )


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


def _ordered_dict(pairs: Any = ()) -> dict[Any, Any]:
    items: dict[Any, Any] = {}
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise Refused("an OrderedDict is made of something other than pairs")
        _set(items, *pair)
    return items


def _set(target: dict[Any, Any], key: Any, value: Any) -> None:
    # Hashing a deeply nested tuple would crash.
    if not isinstance(key, str | int | float | bytes | None):
        raise Refused(f"a dictionary has a {type(key).__name__} as a key")
    target[key] = value


def _size(numbers: Any) -> tuple[Any, ...]:
    # Bounded, because a pickle could copy a long list many times.
    if not isinstance(numbers, tuple | list) or len(numbers) > MOST_DIMENSIONS:
        raise Refused("a torch.Size is invalid")
    return tuple(numbers)


# Everything that a pickle may call, by the names that torch writes.
_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch.Size": _size,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
}


def _proto(machine: Machine) -> None:
    if machine.number(1) > 5:
        raise Refused("its pickle has an unknown protocol")


def _frame(machine: Machine) -> None:
    machine.take(8)  # the frame's size, needed only for reading from a stream


def _long(machine: Machine, size: int) -> None:
    count = machine.number(size)
    if count > 64:
        raise Refused("it holds an integer of more than 64 bytes")
    machine.push(machine.number(count, signed=True))


def _text(size: int, encoding: str = "utf-8") -> Callable[[Machine], None]:
    def step(machine: Machine) -> None:
        raw = machine.take(machine.number(size))
        machine.push(raw.decode(encoding, "surrogatepass"))

    return step


def _bytes(size: int) -> Callable[[Machine], None]:
    return lambda machine: machine.push(machine.take(machine.number(size)))


def _integer(size: int, *, signed: bool = False) -> Callable[[Machine], None]:
    return lambda machine: machine.push(machine.number(size, signed=signed))


def _constant(value: Any) -> Callable[[Machine], None]:
    return lambda machine: machine.push(value)


def _tuple(count: int) -> Callable[[Machine], None]:
    def step(machine: Machine) -> None:
        if len(machine.stack) < count:
            raise Refused("its pickle is damaged (a tuple is too short)")
        items = tuple(machine.stack[-count:])
        del machine.stack[-count:]
        machine.push(items)

    return step


def _new_dict(machine: Machine) -> None:
    items = machine.items()
    machine.push({})
    machine.fill(items)


def _global_on_stack(machine: Machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.name(module, name)


# The instructions of pickle protocols 2 to 5 that build data.
_STEPS: dict[bytes, Callable[[Machine], None]] = {
    b"\x80": _proto,
    b"\x95": _frame,
    b"N": _constant(None),
    b"\x88": _constant(True),
    b"\x89": _constant(False),
    b"J": _integer(4, signed=True),
    b"K": _integer(1),
    b"M": _integer(2),
    b"\x8a": lambda m: _long(m, 1),
    b"\x8b": lambda m: _long(m, 4),
    b"G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    b"X": _text(4),
    b"\x8c": _text(1),
    b"\x8d": _text(8),
    b"T": _text(4, "latin-1"),
    b"U": _text(1, "latin-1"),
    b"B": _bytes(4),
    b"C": _bytes(1),
    b"\x8e": _bytes(8),
    b"(": lambda m: m.push(_Mark()),
    b"]": lambda m: m.push([]),
    b"a": lambda m: m.extend([m.stack.pop()]),
    b"e": lambda m: m.extend(m.items()),
    b"l": lambda m: m.push(m.items()),
    b")": _constant(()),
    b"\x85": _tuple(1),
    b"\x86": _tuple(2),
    b"\x87": _tuple(3),
    b"t": lambda m: m.push(tuple(m.items())),
    b"}": lambda m: m.push({}),
    b"s": lambda m: m.fill([m.stack.pop(-2), m.stack.pop()]),
    b"u": lambda m: m.fill(m.items()),
    b"d": _new_dict,
    b"q": lambda m: m.remember(m.number(1)),
    b"r": lambda m: m.remember(m.number(4)),
    b"\x94": lambda m: m.remember(len(m.memo)),
    b"h": lambda m: m.push(m.memo[m.number(1)]),
    b"j": lambda m: m.push(m.memo[m.number(4)]),
    b"c": lambda m: m.name(m.line(), m.line()),
    b"\x93": _global_on_stack,
    b"R": Machine.call,
    b"b": Machine.describe,
    b"Q": Machine.storage,
}
