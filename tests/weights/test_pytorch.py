"""The reader of PyTorch files: torch's own archives, and everything bad."""

import contextlib
import struct
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gl_jax.config import UsageError
from gl_jax.weights import pytorch

HERE = Path(__file__).parent
TREE = {
    "state_dict": {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3)},
    "meta": {"epoch": 3, "names": ["x", ("y", 2.5, None, True)]},
}


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(UsageError) as caught:
        pytorch.read(path)
    message = str(caught.value)
    assert "\n" not in message and "Nothing in it was run" in message
    return message


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "weights.pth"


@pytest.fixture(params=["torch_zip.pth", "torch_stream.pth"])
def held(request) -> dict[str, Any]:
    """What torch itself has saved; see make_foreign.py."""
    return pytorch.read(HERE / request.param)


def test_tensors_of_every_type_and_stride_are_read(held):
    counted = np.arange(24, dtype=np.float32).reshape(4, 6)
    expected = {
        "float": counted,
        "transposed": counted.T,
        "part": counted[1:3, ::2],
        "half": counted.ravel().astype(np.float16) / np.float16(8),
        "bfloat": (counted.ravel() / 8).astype(ml_dtypes.bfloat16),
        "double": counted.ravel().astype(np.float64),
        "long": np.arange(5),
        "bool": np.asarray([True, False]),
        "scalar": np.asarray(2.5, np.float32),
        "parameter": np.ones(2, np.float32),
    }
    for name, array in expected.items():
        assert held[name].dtype == array.dtype, name
        np.testing.assert_array_equal(held[name], array)


def test_tensors_that_share_a_storage_share_it(held):
    assert np.shares_memory(held["float"], held["transposed"])
    assert not held["float"].flags.writeable


def test_plain_data_is_read(held):
    assert held["meta"] == {
        "epoch": 3, "name": "ü", "lr": 0.5, "sizes": [(1, 2)], "big": 2**40,
        "none": None, "nested": ({"a": (1, 2, 3, 4)},),
    }  # fmt: skip
    assert held["state_dict"]["num_batches_tracked"].shape == ()
    assert set(held["state_dict"]) >= {"weight", "bias", "running_mean", "running_var"}


@pytest.mark.parametrize("container", ["zip_archive", "stream"])
def test_our_own_archives_are_read(container, path, archives):
    path.write_bytes(getattr(archives, container)(TREE))
    found = pytorch.read(path)
    assert found["meta"] == TREE["meta"]
    np.testing.assert_array_equal(
        found["state_dict"]["a.weight"], TREE["state_dict"]["a.weight"]
    )


@pytest.mark.parametrize("container", ["zip_archive", "stream"])
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"), ("posix", "system"), ("builtins", "eval"),
        ("torch", "load"), ("torch.serialization", "load"), ("numpy", "load"),
        ("gl_jax.weights.pytorch", "read"),
    ],
)  # fmt: skip
def test_nothing_is_ever_called(container, module, name, path, archives, tmp_path):
    trap = tmp_path / "ran"
    evil = archives.Evil(module, name, (f"touch {trap}",))
    message = refused(path, getattr(archives, container)({"a": evil}))
    assert f"asks for {module}.{name}, which is not data" in message
    assert not trap.exists()


@pytest.mark.parametrize("name", ["torch._utils._rebuild_tensor_v2", "torch.Size"])
def test_allowed_names_take_no_nonsense(name, path, archives):
    module, _, last = name.rpartition(".")
    for arguments in ((), (1, 2, 3, 4), ({}, 0, (1,), (1,)), (list(range(99)),)):
        evil = archives.Evil(module, last, arguments)
        refused(path, archives.zip_archive({"a": evil}))


def tensor(offset: int, shape: Any, strides: Any, archives: Any) -> bytes:
    """An archive of one tensor of these numbers, over a storage of 4 floats."""
    pickler = archives.Pickler()
    whole = pickler.item(np.zeros(4, np.float32))
    head, _, _ = whole.partition(pickler.item(0) + pickler.item((4,)))
    numbers = pickler.item(offset) + pickler.item(shape) + pickler.item(strides)
    tail = b"\x89ccollections\nOrderedDict\n)RtR."
    return archives.zipped(b"\x80\x02" + head + numbers + tail, pickler.storages)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (1, (4,), (1,)),
        (0, (5,), (1,)),
        (0, (2, 2), (3, 1)),
        (-1, (1,), (1,)),
        (0, (2,), (-1,)),
        (0, (1 << 40,), (0,)),
        (0, (1 << 62, 1 << 62), (0, 0)),
        (0, (2,), (1 << 62,)),
        (1 << 62, (1,), (1,)),
        (0, (2, 2), (1,)),
        (0, (1,) * 60, (1,) * 60),
        (0, [2], (1,)),
        (0, ("2",), (1,)),
        (0, (True,), (1,)),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(
    offset, shape, strides, path, archives
):
    refused(path, tensor(offset, shape, strides, archives))


def test_a_tensor_inside_its_storage_is_read(path, archives):
    path.write_bytes(tensor(1, (2,), (2,), archives))
    assert pytorch.read(path).shape == (2,)


def test_a_storage_shorter_than_said_is_refused(path, archives):
    pickler = archives.Pickler()
    data = pickler.dump({"a": np.zeros(1000, np.float32)})
    message = refused(path, archives.zipped(data, [np.zeros(10, np.float32)]))
    assert "has the wrong size" in message


def test_a_compressed_archive_is_refused_before_it_is_unpacked(path, archives):
    bomb = {"a": np.zeros(10**6, np.float32)}
    data = archives.zip_archive(bomb, compression=zipfile.ZIP_DEFLATED)
    assert "compressed or overlap" in refused(path, data)


def test_entries_that_overlap_are_refused(path, archives):
    data = archives.zip_archive({"a": np.zeros(10**4, np.float32)})
    end = data.rindex(b"PK\x05\x06")
    start = struct.unpack("<I", data[end + 16 : end + 20])[0]
    directory = data[start:end]
    # Every entry a hundred times, all over the same bytes.
    entries = directory.count(b"PK\x01\x02") * 100
    tail = data[end : end + 8] + struct.pack(
        "<HHIIH", entries, entries, len(directory) * 100, start, 0
    )
    assert "overlap" in refused(path, data[:start] + directory * 100 + tail)


@pytest.mark.parametrize(
    "pickle",
    [
        b"\x80\x02.",  # nothing on the stack
        b"\x80\x02]" + b"q\x00h\x01.",  # an unknown memo
        b"\x80\x09N.",  # an unknown protocol
        b"\x80\x02I12\n.",  # an instruction of protocol 0
        b"\x80\x02X\xff\xff\xff\x7fabc.",  # a text of 2 GB
        b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.",  # bytes of 9 EB
        b"\x80\x02\x8b\xff\xff\xff\x7f.",  # a number of 2 GB
        b"\x80\x02Nr\xff\xff\xff\xff.",  # a memo of 4 billion, harmless
        b"\x80\x02)" + b"\x85" * 90_000 + b"q\x00}h\x00Ns.",  # a key nested deeply
        b"\x80\x02(N.",
        b"\x80\x02Ne.",
        b"\x80\x02ctorch\nFloatStorage\n)R.",
        b"\x80\x02NQ.",
        b"\x80\x02" + b"ctorch" * 99,
    ],
    ids=range(14),
)
def test_damaged_pickles_do_no_harm(pickle, path, archives):
    path.write_bytes(archives.zipped(pickle, []))
    if pickle.endswith(b"\xff\xff\xff\xff."):
        assert pytorch.read(path) is None
        return
    refused(path, path.read_bytes())


def test_a_torchscript_program_is_refused_by_name(path, archives):
    data = archives.zip_archive(TREE)
    path.write_bytes(data)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model/constants.pkl", b"")
    assert "TorchScript" in refused(path, path.read_bytes())


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x80\x02N.", bytes(range(99))])
def test_what_is_no_pytorch_file_is_refused(data, path):
    refused(path, data)


@pytest.mark.parametrize("container", ["zip_archive", "stream"])
def test_every_truncation_is_refused(container, path, archives):
    data = getattr(archives, container)(TREE)
    for length in range(0, len(data), 7):
        refused(path, data[:length])


def mutated(data: bytes, draw: Any) -> bytes:
    """The bytes with a few changed, cut out, repeated, or blown up."""
    content = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        kind = draw(st.integers(0, 3))
        if kind == 0 and content:
            content[at] = draw(st.integers(0, 255))
        elif kind == 1:
            del content[at : at + draw(st.integers(1, 64))]
        elif kind == 2:
            content[at:at] = content[at : at + draw(st.integers(1, 64))]
        else:
            content[at : at + 4] = draw(st.sampled_from(EXTREMES))
    return bytes(content)


EXTREMES = (b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\x80")


@given(data=st.data())
def test_a_mutated_file_is_read_or_refused(data, archives, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "mutated.pth"
    container = data.draw(st.sampled_from(["zip_archive", "stream"]))
    path.write_bytes(mutated(getattr(archives, container)(TREE), data.draw))
    with contextlib.suppress(UsageError):
        pytorch.read(path)


def test_what_a_damaged_archive_says_stays_on_one_short_line(path, archives):
    data = archives.zip_archive(TREE)
    damaged = data.replace(b"model/byteorder", b"\xff\n" * 7 + b"\xff", 1)
    assert len(refused(path, damaged)) < 1000
