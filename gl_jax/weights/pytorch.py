"""A restricted reader of PyTorch files (.pth, .pt) that does not need torch.

It reads the zip archive of torch 1.6 and later, and the older single stream, in which
mmediting and GLCIC-PyTorch have published their weights. The pickles inside are read by
`unpickling`, which can only build data.
"""

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from gl_jax.config import UsageError
from gl_jax.files import reading
from gl_jax.weights.unpickling import FindStorage, Machine, Refused

ZIP_START = b"PK\x03\x04"
"""The first bytes of a zip archive."""
LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of the older stream: the pickle of its magic number."""
LEGACY_PROTOCOL = 1001
"""Version of the older stream; there is no other."""


def read(path: str | Path) -> Any:
    """Reads a PyTorch file into nested dictionaries, lists and numpy arrays.

    The arrays are read-only views with the strides of the file's tensors; tensors that
    share storage still do. An OrderedDict becomes a dictionary, a Parameter an array.
    Raises UsageError if the file is damaged, truncated, of an unknown kind, or refers
    to anything but data.
    """
    path = Path(path)
    with reading(path):
        data = path.read_bytes()
    try:
        if data.startswith(ZIP_START):
            return _read_zip(data)
        if data.startswith(LEGACY_START):
            return _read_stream(data)
        raise Refused("it begins neither as torch's zip archive nor as its old stream")
    except Refused as refusal:
        # The reason may quote zipfile, whose messages quote the file's bytes.
        reason = " ".join(str(refusal).split())[:300]
        raise UsageError(
            f"{path} is refused as a PyTorch file: {reason}. Nothing in it was run."
        ) from None


# --- the zip archive


def _read_zip(data: bytes) -> Any:
    with _opened(data) as archive:
        listed = archive.infolist()
        entries = {info.filename: info for info in listed}
        pickles = [name for name in entries if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1 or pickles[0].count("/") > 1:
            raise Refused("the archive does not have exactly one data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}constants.pkl" in entries:
            raise Refused("it is a TorchScript program; save its state_dict() instead")
        # Guards against zip bombs: torch stores its entries uncompressed and disjoint.
        compressed = any(i.compress_type != zipfile.ZIP_STORED for i in listed)
        total = sum(info.file_size for info in listed)
        if compressed or total > len(data):
            raise Refused("its entries are compressed or overlap, unlike torch's")

        def content(name: str) -> bytes:
            if name not in entries:
                raise Refused(f"the archive has no {name[-60:]!r}")
            try:
                content_ = archive.read(name)
            except (
                zipfile.BadZipFile, struct.error, EOFError, ValueError, OSError,
                RuntimeError,
            ) as error:  # fmt: skip
                raise Refused(f"{name[-60:]!r} is damaged ({error})") from error
            if len(content_) != entries[name].file_size:
                raise Refused(f"{name[-60:]!r} is truncated")
            return content_

        if f"{root}byteorder" in entries and content(f"{root}byteorder") != b"little":
            raise Refused("its numbers are not little-endian")
        storages: dict[str, bytes] = {}

        def storage(dtype: Any, key: str, count: int) -> np.ndarray:
            if key not in storages:
                storages[key] = content(f"{root}data/{key}")
            if len(storages[key]) != count * np.dtype(dtype).itemsize:
                raise Refused(f"the storage {key[:20]!r} has the wrong size")
            return np.frombuffer(storages[key], dtype)

        return Machine(content(pickles[0]), storage).run()


def _opened(data: bytes) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except (
        zipfile.BadZipFile, struct.error, ValueError, OSError, NotImplementedError
    ) as error:  # fmt: skip
        raise Refused(f"the archive is damaged or truncated ({error})") from error


# --- the older stream


def _read_stream(data: bytes) -> Any:
    """Reads five pickles (magic, version, machine, object, keys) and the storages."""
    at = len(LEGACY_START)
    version, at = _run(data, at, _no_storage)
    system, at = _run(data, at, _no_storage)
    if version != LEGACY_PROTOCOL:
        raise Refused("it is of an unknown version of torch's old stream")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Refused("its numbers are not little-endian")
    declared: dict[str, tuple[Any, int]] = {}

    def declare(dtype: Any, key: str, count: int) -> None:
        if declared.setdefault(key, (dtype, count)) != (dtype, count):
            raise Refused(f"the storage {key[:20]!r} is declared twice")

    # The storages follow the object, so the object is built twice: first to collect
    # their types and lengths, then with their numbers.
    start = at
    _, at = _run(data, start, declare)
    keys, at = _run(data, at, _no_storage)
    named = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not named or sorted(keys) != sorted(declared):
        raise Refused("its list of storages does not match its tensors")
    storages: dict[str, np.ndarray] = {}
    for key in keys:
        dtype, count = declared[key]
        length = count * np.dtype(dtype).itemsize
        numbers = data[at + 8 : at + 8 + length]
        if int.from_bytes(data[at : at + 8], "little") != count:
            raise Refused(f"the storage {key[:20]!r} has the wrong size")
        if len(numbers) != length:
            raise Refused("it is truncated")
        storages[key] = np.frombuffer(numbers, dtype)
        at += 8 + length
    return _run(data, start, lambda dtype, key, count: storages[key])[0]


def _run(data: bytes, at: int, find: FindStorage) -> tuple[Any, int]:
    machine = Machine(data, find, at)
    return machine.run(), machine.at


def _no_storage(dtype: Any, key: str, count: int) -> None:
    raise Refused("it has a storage outside its object")
