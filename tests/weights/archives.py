"""Writes PyTorch and Torch7 files byte by byte, from the formats' descriptions.

Trees are dictionaries, lists, tuples, texts, numbers and numpy arrays; an `Evil` calls
what it names.
"""

import io
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

STORAGES = {"float32": "Float", "float64": "Double", "float16": "Half", "int64": "Long"}
MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."


@dataclass
class Evil:
    """A call of `module.name(*arguments)` that a pickle asks for."""

    module: str
    name: str
    arguments: tuple[Any, ...] = ()


class Pickler:
    """Pickles a tree as torch does, and collects the storages of its arrays."""

    def __init__(self) -> None:
        self.storages: list[np.ndarray] = []

    def dump(self, tree: Any) -> bytes:
        return b"\x80\x02" + self.item(tree) + b"."

    def item(self, value: Any) -> bytes:
        if value is None or isinstance(value, bool):
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        if isinstance(value, int):
            return b"\x8a\x08" + struct.pack("<q", value)
        if isinstance(value, float):
            return b"G" + struct.pack(">d", value)
        if isinstance(value, str):
            data = value.encode()
            return b"X" + struct.pack("<I", len(data)) + data
        if isinstance(value, dict):
            pairs = [self.item(x) for pair in value.items() for x in pair]
            return b"ccollections\nOrderedDict\n)R(" + b"".join(pairs) + b"u"
        if isinstance(value, list):
            return b"](" + b"".join(map(self.item, value)) + b"e"
        if isinstance(value, tuple):
            return b"(" + b"".join(map(self.item, value)) + b"t"
        if isinstance(value, Evil):
            call = f"c{value.module}\n{value.name}\n".encode()
            return call + self.item(value.arguments) + b"R"
        return self.tensor(value)

    def tensor(self, array: np.ndarray) -> bytes:
        key = str(len(self.storages))
        self.storages.append(np.ascontiguousarray(array))
        kind = f"ctorch\n{STORAGES[str(array.dtype)]}Storage\n".encode()
        name = b"(" + self.item("storage") + kind + self.item(key) + self.item("cpu")
        strides = tuple(
            s // array.itemsize for s in np.ascontiguousarray(array).strides
        )
        return (
            b"ctorch._utils\n_rebuild_tensor_v2\n("
            + name + self.item(array.size) + b"tQ"
            + self.item(0) + self.item(array.shape) + self.item(strides[: array.ndim])
            + b"\x89" + b"ccollections\nOrderedDict\n)R" + b"tR"
        )  # fmt: skip


def zip_archive(tree: Any, *, compression: int = zipfile.ZIP_STORED) -> bytes:
    """The zip archive of torch 1.6 and later."""
    pickler = Pickler()
    data = pickler.dump(tree)
    return zipped(data, pickler.storages, compression=compression)


def zipped(
    data: bytes,
    storages: Sequence[np.ndarray],
    *,
    compression: int = zipfile.ZIP_STORED,
) -> bytes:
    """A zip archive of a pickle and its storages."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("model/data.pkl", data)
        archive.writestr("model/byteorder", "little")
        for key, array in enumerate(storages):
            archive.writestr(f"model/data/{key}", array.tobytes())
        archive.writestr("model/version", "3\n")
    return file.getvalue()


def stream(tree: Any) -> bytes:
    """The single stream of torch before 1.6."""
    pickler = Pickler()
    data = pickler.dump(tree)
    keys = [str(key) for key in range(len(pickler.storages))]
    system = {"protocol_version": 1001, "little_endian": True}
    parts = [MAGIC, Pickler().dump(1001), Pickler().dump(system), data]
    parts.append(Pickler().dump(keys))
    for array in pickler.storages:
        parts += [struct.pack("<q", array.size), array.tobytes()]
    return b"".join(parts)


@dataclass
class LuaObject:
    """An instance of a Torch class."""

    name: str
    fields: dict[Any, Any] = field(default_factory=dict)


TENSORS = {"float32": "Float", "float64": "Double", "float16": "Half", "int64": "Long",
           "int32": "Int", "int16": "Short", "int8": "Char", "uint8": "Byte"}  # fmt: skip


class T7:
    """Writes a tree as torch.save does in Lua, with C longs of 8 or 4 bytes."""

    def __init__(self, long_size: int = 8, prefix: str = "") -> None:
        self.long = "q" if long_size == 8 else "i"
        self.prefix = prefix  # "Cuda" writes torch.CudaTensor and its like
        self.seen: dict[int, int] = {}
        self.kept: list[Any] = []

    def longs(self, *numbers: int) -> bytes:
        return struct.pack(f"<{len(numbers)}{self.long}", *numbers)

    def text(self, value: str) -> bytes:
        data = value.encode()
        return struct.pack("<i", len(data)) + data

    def record(self, value: Any) -> bytes:
        if value is None:
            return struct.pack("<i", 0)
        if isinstance(value, bool):
            return struct.pack("<ii", 5, value)
        if isinstance(value, int | float):
            return struct.pack("<id", 1, value)
        if isinstance(value, str):
            return struct.pack("<i", 2) + self.text(value)
        table = isinstance(value, dict | list)
        head = struct.pack("<i", 3 if table else 4)
        if id(value) in self.seen:
            return head + struct.pack("<i", self.seen[id(value)])
        self.seen[id(value)] = index = len(self.seen) + 1
        self.kept.append(value)
        head += struct.pack("<i", index)
        if isinstance(value, list):
            value = dict(enumerate(value, 1))
        if table:
            pairs = (self.record(x) for pair in value.items() for x in pair)
            return head + struct.pack("<i", len(value)) + b"".join(pairs)
        head += self.text("V 1")
        if isinstance(value, LuaObject):
            return head + self.text(value.name) + self.record(value.fields)
        return head + self.tensor(value)

    def tensor(self, array: np.ndarray) -> bytes:
        kind = TENSORS[str(array.dtype)]
        if self.prefix:
            kind = self.prefix + (kind if kind != "Float" else "")
        flat = np.lib.stride_tricks.as_strided(
            array, (_span(array),), (array.itemsize,)
        )
        strides = [stride // array.itemsize for stride in array.strides]
        index = 100_000 + len(self.seen)
        storage = struct.pack("<ii", 4, index) + self.text("V 1")
        storage += self.text(f"torch.{kind}Storage") + self.longs(flat.size)
        return (
            self.text(f"torch.{kind}Tensor") + struct.pack("<i", array.ndim)
            + self.longs(*array.shape) + self.longs(*strides) + self.longs(1)
            + storage + flat.tobytes()
        )  # fmt: skip


def _span(array: np.ndarray) -> int:
    steps = zip(array.shape, array.strides, strict=True)
    return 1 + sum((n - 1) * (stride // array.itemsize) for n, stride in steps)


def t7(tree: Any, long_size: int = 8, prefix: str = "") -> bytes:
    """A binary .t7 file."""
    return T7(long_size, prefix).record(tree)


def authors(
    arrays: dict[str, np.ndarray],
    mean: Sequence[float],
    *,
    matrices: bool = False,
    old_norm: bool = False,
    dtype: Any = np.float32,
) -> dict[str, Any]:
    """The authors' file: {model = nn.Sequential of 50 modules, mean = a tensor}.

    `matrices` keeps kernels as SpatialConvolutionMM does, `old_norm` the statistics as
    files of 2015 do.
    """
    modules = []
    for index in range(50):
        own = {
            name.partition(".")[2]: array.astype(dtype)
            for name, array in arrays.items()
            if name.startswith(f"{index}.")
        }
        if index == 49:
            modules.append(LuaObject("nn.Sigmoid"))
        elif index % 3 == 2:
            modules.append(LuaObject("nn.ReLU", {"inplace": True, "threshold": 0}))
        elif index % 3 == 1:
            fields: dict[str, Any] = {
                **own,
                "eps": 1e-5,
                "momentum": 0.1,
                "affine": True,
            }
            if old_norm:
                var = fields.pop("running_var").astype(np.float64)
                fields["running_std"] = (1 / np.sqrt(var + 1e-5)).astype(dtype)
            modules.append(LuaObject("nn.SpatialBatchNormalization", fields))
        else:
            modules.append(_convolution(index // 3, own, matrices))
    return {
        "model": LuaObject("nn.Sequential", {"modules": modules, "train": False}),
        "mean": np.asarray(mean, dtype),
    }


def _convolution(layer: int, own: dict[str, np.ndarray], matrices: bool) -> LuaObject:
    size = own["weight"].shape[-1]
    fields: dict[str, Any] = {
        **own, "gradWeight": np.zeros_like(own["weight"]),
        "kW": size, "kH": size, "dW": 2 if layer in (1, 3, 12, 14) else 1,
    }  # fmt: skip
    if layer in (12, 14):
        return LuaObject("nn.SpatialFullConvolution", fields)
    if 4 <= layer <= 11:
        fields["dilationW"] = {6: 2, 7: 4, 8: 8, 9: 16}.get(layer, 1)
        return LuaObject("nn.SpatialDilatedConvolution", fields)
    if matrices:
        fields["weight"] = own["weight"].reshape(len(own["weight"]), -1)
        return LuaObject("nn.SpatialConvolutionMM", fields)
    return LuaObject("nn.SpatialConvolution", fields)
