"""Pickles read without Python's pickle: numbers, texts, containers and tensors, no calls.

A pickle is a program for a small stack machine that may call anything. This machine
knows how to build data, and there is nothing else that it could run. Its results take
memory in proportion to the file.
"""

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

LARGEST_PICKLE = 16 * 2**20
"""Bytes: the pickle of a large network's state takes a hundredth of this."""
MOST_DIMENSIONS = 8

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
"""From a storage's dtype, key and length to its numbers; None while unknown."""


class Refused(Exception):
    """The file is refused; says why, in one line."""


class _Global(NamedTuple):
    """A name that the pickle refers to; it stays a name."""

    name: str


class _Mark:
    """Marks the first item of a list, tuple or dictionary under construction."""


class Machine:
    """Builds the one object that a pickle describes, of data alone."""

    def __init__(self, data: bytes, find: FindStorage, at: int = 0) -> None:
        self.data = data
        self.at = at
        self.find = find
        self.end = min(len(data), at + LARGEST_PICKLE)
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Executes the pickle to its end and returns the object; `at` is then behind it."""
        try:
            while True:
                code = self.take(1)
                if code == b".":
                    (found,) = self.stack
                    return found
                if code not in _STEPS:
                    raise Refused(f"the instruction {code!r} is not one of torch's")
                _STEPS[code](self)
        except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
            # Too little on the stack, an unknown memo, text that is no UTF-8, ...
            raise Refused(f"its pickle is damaged ({type(error).__name__})") from error

    def take(self, count: int) -> bytes:
        """Returns the next bytes."""
        found = self.data[self.at : self.at + count]
        if len(found) != count or self.at + count > self.end:
            raise Refused("its pickle is truncated or too long")
        self.at += count
        return found

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
        """Pops everything above the last mark, and the mark."""
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
            raise Refused("it appends to something that is no list")
        self.stack[-1].extend(items)

    def fill(self, items: list[Any]) -> None:
        """Sets pairs of the dictionary on top of the stack."""
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise Refused("it sets items of something that is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            _set(target, key, value)

    def remember(self, index: int) -> None:
        """Stores the top of the stack in the memo."""
        self.memo[index] = self.stack[-1]

    def name(self, module: Any, name: Any) -> None:
        """Refers to a name of a module; only the known ones may be used."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise Refused("its pickle is damaged (a name is no text)")
        full = f"{module}.{name}"
        if full not in _CALLS and full not in _STORAGES:
            printable = full if full.isprintable() else ascii(full)
            raise Refused(f"it asks for {printable[:100]}, which is no data")
        self.push(_Global(full))

    def call(self) -> None:
        """Calls the builder of a known name."""
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
            raise Refused("it sets the attributes of something that is no dictionary")

    def storage(self) -> None:
        """Looks up the numbers that a persistent name stands for."""
        name = self.stack.pop()
        if (
            not isinstance(name, tuple)
            or len(name) not in (5, 6)
            or name[0] != "storage"
        ):
            raise Refused("it refers to something outside that is no storage")
        _, kind, key, _, count = name[:5]
        if not isinstance(kind, _Global) or kind.name not in _STORAGES:
            raise Refused("a storage has an unknown type")
        if not isinstance(key, str) or type(count) is not int or count < 0:
            raise Refused("a storage has no proper name or size")
        if len(name) == 6 and name[5] is not None:
            raise Refused("a storage is a view of another one; save it with torch 1.6+")
        self.push(_Storage(self.find(_STORAGES[kind.name], key, count)))


class _Storage(NamedTuple):
    numbers: np.ndarray | None


def _rebuild_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, *_: Any
) -> np.ndarray | None:
    """Returns a tensor as a view of its storage; None while the numbers are unknown."""
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
        raise Refused("a tensor has no proper shape")
    return strided_view(storage.numbers, offset, shape, strides)


def strided_view(
    numbers: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> np.ndarray:
    """Returns a read-only view of flat `numbers` with strides counted in elements.

    All arguments are at least 0. Raises ValueError if an element would lie outside, or
    if there are more elements than numbers.
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
            raise Refused("an OrderedDict is made of something that is no pairs")
        _set(items, *pair)
    return items


def _set(target: dict[Any, Any], key: Any, value: Any) -> None:
    # A tuple as a key may be nested so deeply that hashing it would crash.
    if not isinstance(key, str | int | float | bytes | None):
        raise Refused(f"a dictionary has a {type(key).__name__} as a key")
    target[key] = value


def _size(numbers: Any) -> tuple[Any, ...]:
    # Bounded, for a long list could be copied again and again.
    if not isinstance(numbers, tuple | list) or len(numbers) > MOST_DIMENSIONS:
        raise Refused("a torch.Size has no proper numbers")
    return tuple(numbers)


# Everything that a pickle may call: functions of this file, by the names torch writes.
_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch.Size": _size,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
}


def _proto(machine: Machine) -> None:
    if machine.number(1) > 5:
        raise Refused("its pickle is of an unknown protocol")


def _frame(machine: Machine) -> None:
    machine.take(8)  # the size of a frame, of use to streams only


def _long(machine: Machine, size: int) -> None:
    count = machine.number(size)
    if count > 64:
        raise Refused("it holds a number of absurd length")
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


# The instructions of pickle protocols 2 to 5 that data needs.
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
