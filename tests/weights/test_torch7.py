"""The reader of Torch7 files, against a writer made from the format's description."""

import contextlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gl_jax.config import UsageError
from gl_jax.weights import torch7

COUNTED = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "net.t7"


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(UsageError) as caught:
        torch7.read(path)
    message = str(caught.value)
    assert "\n" not in message and "Nothing in it was run" in message
    return message


def read(path: Path, data: bytes) -> Any:
    path.write_bytes(data)
    return torch7.read(path)


def integers(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}i", *numbers)


@pytest.mark.parametrize("long_size", [8, 4])
def test_plain_values_are_read(long_size, path, archives):
    tree = {"a": 1, "b": 2.5, "c": "ü", "d": True, "f": [1, [2]], 7: "seven"}
    found = read(path, archives.t7(tree, long_size))
    assert found == {**tree, "f": {1: 1, 2: {1: 2}}}


@pytest.mark.parametrize("long_size", [8, 4])
@pytest.mark.parametrize("prefix", ["", "Cuda"])
def test_tensors_of_every_type_are_read(long_size, prefix, path, archives):
    for dtype in "float32 float64 float16 int32 int16 int8 uint8".split():
        array = COUNTED.astype(dtype)
        found = read(path, archives.t7({"x": array}, long_size, prefix))["x"]
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


def test_longs_have_the_size_of_the_files_own(path, archives):
    found = read(path, archives.t7({"x": COUNTED.astype(np.int64)}))["x"]
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, COUNTED)
    found = torch7._Reader(
        integers(4, 1) + archives.T7(4).text("torch.LongStorage") + integers(2, 5, 6), 4
    ).read()
    np.testing.assert_array_equal(found, [5, 6])


def test_strides_are_kept(path, archives):
    found = read(path, archives.t7({"t": COUNTED.T, "part": COUNTED[:, ::2]}))
    np.testing.assert_array_equal(found["t"], COUNTED.T)
    np.testing.assert_array_equal(found["part"], COUNTED[:, ::2])
    assert not found["t"].flags.writeable


def test_objects_keep_their_class_and_fields(path, archives):
    found = read(path, archives.t7(archives.LuaObject("nn.ReLU", {"inplace": True})))
    assert (found.name, found.fields) == ("nn.ReLU", {"inplace": True})


def test_a_class_without_a_version_is_read(path):
    # torch of 2012 and earlier
    name = b"nn.ReLU"
    found = read(path, integers(4, 1, len(name)) + name + integers(3, 2, 0))
    assert found.name == "nn.ReLU"


def test_a_table_may_contain_itself(path, archives):
    tree: dict[str, Any] = {}
    tree["self"] = tree
    found = read(path, archives.t7(tree))
    assert found["self"] is found


def test_an_array_referred_to_twice_is_one(path, archives):
    found = read(path, archives.t7({"a": COUNTED, "b": COUNTED}))
    assert found["a"] is found["b"]


@pytest.mark.parametrize("long_size", [8, 4])
def test_every_truncation_is_refused(long_size, path, archives):
    data = archives.t7({"x": COUNTED, "y": [1, "two", False]}, long_size)
    for length in range(len(data)):
        refused(path, data[:length])


def test_what_follows_the_end_is_refused(path, archives):
    assert "after its end" in refused(path, archives.t7({}) + b"\0")


@pytest.mark.parametrize("kind", [6, 7, 8])
def test_functions_are_refused(kind, path):
    assert "function" in refused(path, integers(kind, 1, 0))


def test_a_graph_of_nngraph_is_refused_by_name(path, archives):
    message = refused(path, archives.t7({"model": archives.LuaObject("nn.gModule")}))
    assert "nn.gModule" in message and "nn.Sequential" in message


def test_the_text_format_is_refused_by_name(path):
    assert "text format" in refused(path, b"4\n1\n3\nV 1\n")


def test_deep_nesting_is_refused(path):
    data = b"".join(integers(3, index, 1, 5, 1) for index in range(1, 100_000))
    assert "more than 60 levels" in refused(path, data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (integers(3, 1, 2**31 - 1), "2147483647 entries"),
        (integers(3, 1, -1), "-1 entries"),
        (integers(2, 2**31 - 1), "truncated"),
        (integers(2, -5), "truncated"),
        (integers(9), "not a binary .t7"),
        (integers(3, 1, 1, 3, 2, 0, 5, 1), "a dict as a key"),
        (integers(3, 1, 1, 0, 5, 1), "a NoneType as a key"),
        (b"\x89PNG\r\n\x1a\n" * 9, "not a binary .t7"),
    ],
)
def test_absurd_records_are_refused(data, reason, path):
    assert reason in refused(path, data + bytes(12) * (len(data) < 24))


def tensor(shape: Any, strides: Any, first: int, count: int, archives: Any) -> bytes:
    """A FloatTensor of these numbers, over a storage said to have `count` floats."""
    writer = archives.T7()
    head = writer.text("V 1") + writer.text("torch.FloatTensor") + integers(len(shape))
    storage = writer.text("V 1") + writer.text("torch.FloatStorage")
    return (
        integers(4, 1) + head + writer.longs(*shape) + writer.longs(*strides)
        + writer.longs(first) + integers(4, 2) + storage + writer.longs(count)
        + bytes(16)
    )  # fmt: skip


def test_a_tensor_inside_its_storage_is_read(path, archives):
    assert read(path, tensor((2,), (2,), 2, 4, archives)).shape == (2,)


@pytest.mark.parametrize(
    ("shape", "strides", "first", "count"),
    [
        ((5,), (1,), 1, 4),
        ((4,), (1,), 2, 4),
        ((2, 2), (3, 1), 1, 4),
        ((1 << 40,), (0,), 1, 4),
        ((1 << 62, 1 << 62), (0, 0), 1, 4),
        ((2,), (1 << 62,), 1, 4),
        ((1,), (1,), 0, 4),
        ((1,), (1,), 1 << 62, 4),
        ((-1,), (1,), 1, 4),
        ((2,), (-1,), 2, 4),
        ((4,), (1,), 1, 1 << 40),
        ((4,), (1,), 1, -1),
        ((1,) * 9, (1,) * 9, 1, 4),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(
    shape, strides, first, count, path, archives
):
    refused(path, tensor(shape, strides, first, count, archives))


@given(data=st.data())
def test_a_mutated_file_is_read_or_refused(data, archives, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "mutated.t7"
    modules = [archives.LuaObject("nn.ReLU", {"weight": COUNTED}), 2.5, "text"]
    content = bytearray(
        archives.t7({"model": modules}, data.draw(st.sampled_from([8, 4])))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(1, 8))] = data.draw(
            st.binary(max_size=8)
        )
    path.write_bytes(content)
    with contextlib.suppress(UsageError):
        torch7.read(path)
