"""A hundred thousand damaged files for each reader: each is read or refused, nothing else.

Nothing may crash, run, or take memory beyond what the file is large.
"""

import dataclasses
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gl_jax.config import UsageError
from gl_jax.weights import conversion, native, pytorch, torch7

COUNT = 100_000
LARGEST_GROWTH = 400 * 2**20
"""Bytes of memory that a whole run may add; its files have kilobytes."""

EXTREMES = [
    bytes.fromhex(text)
    for text in "ffffff7f ffffffff 00000000 00000080 ffffffffffffff7f 0000000000000080"
    " 2e 28 52 51 62 93 95 8e".split()
]

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]


@dataclasses.dataclass
class Outcome:
    """How many of the damaged files were read, and how many refused."""

    read: int = 0
    refused: int = 0


def mutate(data: bytes, stream: np.random.Generator) -> bytes:
    """The bytes with one to six places changed, cut out, repeated or blown up."""
    content = bytearray(data)
    for _ in range(int(stream.integers(1, 7))):
        at = int(stream.integers(0, len(content) + 1))
        length = int(stream.integers(1, 33))
        kind = stream.integers(0, 6)
        if kind == 0 and at < len(content):
            content[at] ^= 1 << int(stream.integers(0, 8))
        elif kind == 1 and at < len(content):
            content[at] = int(stream.integers(0, 256))
        elif kind == 2:
            del content[at : at + length]
        elif kind == 3:
            start = int(stream.integers(0, len(content) + 1))
            content[at:at] = content[start : start + length]
        elif kind == 4:
            extreme = EXTREMES[int(stream.integers(0, len(EXTREMES)))]
            content[at : at + len(extreme)] = extreme
        else:
            del content[at + int(stream.integers(0, 1 + len(content) // 2)) :]
    return bytes(content)


def soak(
    seeds: list[bytes],
    path: Path,
    read: Callable[[Path], Any],
    *,
    count: int = COUNT,
    head: int | None = None,
) -> Outcome:
    """Reads `count` mutations of the seeds; of every second one only the head changes."""
    stream = np.random.default_rng(20170720)
    outcome = Outcome()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for index in range(count):
        seed = seeds[index % len(seeds)]
        changed = head if index % 2 else None
        rest = b"" if changed is None else seed[changed:]
        path.write_bytes(mutate(seed[:changed], stream) + rest)
        try:
            read(path)
            outcome.read += 1
        except UsageError as error:
            outcome.refused += 1
            message = str(error)
            if "\n" in message or len(message) > 2000:
                raise AssertionError(f"no single line: {message[:200]!r}") from error
    growth = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    print(f"{path.suffix}: {outcome}, memory grew by {growth / 2**20:.0f} MB")
    assert growth < LARGEST_GROWTH
    assert outcome.read + outcome.refused == count
    # Where nearly all were refused at once, the inner checks were not reached.
    assert outcome.refused > count / 2
    return outcome


def parts(tree: Any, path: Path) -> Any:
    """The whole way: a tree that could be read is laid out as ours too."""
    return conversion.read_parts(tree, str(path))


TREE = {
    "state_dict": {
        "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.arange(4, dtype=np.float16),
        "c": np.arange(2, dtype=np.int64),
    },
    "meta": {"epoch": 3, "names": ["x", ("y", 2.5, None, True)]},
}


def test_pytorch_files(tmp_path, archives):
    saved = [p.read_bytes() for p in sorted(Path(__file__).parent.glob("torch_*.pth"))]
    seeds = [archives.zip_archive(TREE), archives.stream(TREE), *saved]
    outcome = soak(seeds, tmp_path / "mutated.pth", pytorch.read)
    assert outcome.read > COUNT / 100


def test_torch7_files(tmp_path, archives):
    modules = [
        archives.LuaObject("nn.ReLU", {"weight": TREE["state_dict"]["a.weight"]})
    ]
    tree = {
        "model": archives.LuaObject("nn.Sequential", {"modules": modules}),
        "x": 2.5,
    }
    tree["self"] = tree
    seeds = [archives.t7(tree, 8), archives.t7(tree, 4), archives.t7({"a": [1, True]})]
    outcome = soak(seeds, tmp_path / "mutated.t7", torch7.read)
    assert outcome.read > COUNT / 100


def test_files_of_ours(tmp_path, tiny):
    path = tmp_path / "seed.safetensors"
    signature = native.save(tiny, path)

    def read(path: Path) -> None:
        assert native.load(path).sha256 == signature

    content = path.read_bytes()
    # The header is where a change can do anything; the numbers are many, and hashed.
    head = 8 + int.from_bytes(content[:8], "little")
    soak([content], tmp_path / "mutated.safetensors", read, head=head)


def test_whole_networks_through_every_layout(tmp_path, archives, foreign):
    sequential = foreign.sequential()
    seeds = [
        archives.t7(archives.authors(sequential, foreign.MEAN)),
        archives.stream({"state_dict": foreign.mmediting()}),
        archives.zip_archive(foreign.glcic_completion()),
        archives.stream(foreign.glcic_discriminator("celeba")),
    ]
    count = COUNT // 5
    outcome = soak(
        seeds,
        tmp_path / "mutated.net",
        lambda path: parts(conversion.open_tree(path), path),
        count=count,
    )
    assert outcome.read > count / 100
