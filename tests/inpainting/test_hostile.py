"""Pictures and folders made to do harm: bombs, links, names."""

import io
import os
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from gl_jax import cli, compilation
from gl_jax.config import UsageError
from gl_jax.images import read, read_crop, read_rgb
from gl_jax.weights import native

NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def png(width: int, height: int, *chunks: tuple[bytes, bytes], data: bytes) -> bytes:
    """A PNG that says what it likes about its size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def bomb() -> bytes:
    """A hundred million pixels in 400 kilobytes."""
    rows = zlib.compressobj(9)
    row = bytes(1 + 3 * 10_000)
    data = b"".join(rows.compress(row) for _ in range(10_000)) + rows.flush()
    return png(10_000, 10_000, data=data)


@pytest.fixture(scope="module")
def bomb_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bomb") / "bomb.png"
    path.write_bytes(bomb())
    return path


READERS = {
    "crop": lambda path: read_crop(path.read_bytes(), "bomb", shortest=32, side=32),
    "rgb": lambda path: read_rgb(path, "bomb"),
    "photo": lambda path: read(path, "bomb"),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_bomb_is_refused_before_it_is_decoded(reader, bomb_file, monkeypatch) -> None:
    def decoded(*_: object) -> None:
        raise AssertionError("the bomb is being decoded")

    monkeypatch.setattr(PngImageFile, "load", decoded)
    with pytest.raises(UsageError, match="bomb has more than 89,478,485 pixels"):
        READERS[reader](bomb_file)


@pytest.mark.parametrize("side", [2**31 - 1, 2**20])
def test_an_absurd_size_is_refused(side: int) -> None:
    data = png(side, side, data=zlib.compress(bytes(100)))
    with pytest.raises(UsageError):
        read_rgb(data, "absurd.png")


def test_compressed_text_does_not_unfold() -> None:
    """200 MB of text in a chunk of 200 kB: refused, or left folded."""
    text = b"comment\0\0" + zlib.compress(bytes(200 * 2**20), 9)
    rows = zlib.compress((b"\0" + bytes(3 * 8)) * 8)
    data = png(8, 8, (b"zTXt", text), data=rows)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UsageError, match="cannot be decoded"):
        read_rgb(data, "text.png")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < 100 * 2**20


# --- folders


@pytest.fixture
def here(model, tmp_path, monkeypatch) -> Path:
    """A working folder with weights, a mask, and a photo outside of it."""
    monkeypatch.setattr(compilation, "use_compilation_cache", lambda: None)
    folder = tmp_path / "work"
    (folder / "in").mkdir(parents=True)
    monkeypatch.chdir(folder)
    native.save(model, Path("tiny.safetensors"))
    mask = np.zeros((48, 64), np.uint8)
    mask[10:20, 10:30] = 255
    Image.fromarray(mask).save("mask.png")
    Image.fromarray(NOISE).save(tmp_path / "outside.png")
    return folder


def complete(*words: str) -> int:
    given = ("--mask", "mask.png", "--model", "tiny.safetensors", "--blend", "none")
    return cli.main(["complete", *words, *given])


def everything(folder: Path) -> dict[str, bytes]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and not p.is_symlink())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_result_of_a_link_stays_in_the_output(here) -> None:
    os.symlink(here.parent / "outside.png", here / "in" / "link.png")
    outside = (here.parent / "outside.png").read_bytes()
    before = set(everything(here.parent))
    assert complete("--image", "in", "--output", "out") == 0
    assert set(everything(here.parent)) - before == {"work/out/link.png"}
    assert (here.parent / "outside.png").read_bytes() == outside


def test_links_in_a_circle_end(here) -> None:
    Image.fromarray(NOISE).save(here / "in" / "a.png")
    os.symlink(here / "in", here / "in" / "again")
    os.symlink("self.png", here / "in" / "self.png")
    assert complete("--image", "in", "--output", "out") == 1  # self.png is no photo
    assert [p.name for p in (here / "out").rglob("*") if p.is_file()] == ["a.png"]


def test_a_link_in_the_output_is_replaced_and_not_followed(here) -> None:
    victim = here.parent / "victim.txt"
    victim.write_text("mine")
    Image.fromarray(NOISE).save(here / "in" / "a.png")
    (here / "out").mkdir()
    os.symlink(victim, here / "out" / "a.png")
    assert complete("--image", "in", "--output", "out") == 0
    assert victim.read_text() == "mine"
    assert not (here / "out" / "a.png").is_symlink()


@pytest.mark.parametrize("linked", ["folder", "file"])
def test_an_output_that_leads_to_an_input_is_refused(here, linked) -> None:
    Image.fromarray(NOISE).save(here / "in" / "a.png")
    before = (here / "in" / "a.png").read_bytes()
    if linked == "folder":
        os.symlink(here / "in", here / "out")
    else:
        (here / "out").mkdir()
        os.symlink(here / "in" / "a.png", here / "out" / "a.png")
    assert complete("--image", "in", "--output", "out") == 2
    assert (here / "in" / "a.png").read_bytes() == before


@pytest.mark.parametrize(
    "name", ["%2f..%2fup.png", "a\nb.png", "-rf.png", "$(touch x).png", "é ü.png"]
)
def test_a_strange_name_is_only_a_name(here, name: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, "PNG")
    (here / "in" / name).write_bytes(buffer.getvalue())
    before = set(everything(here.parent))
    assert complete("--image", "in", "--output", "out") == 0
    assert set(everything(here.parent)) - before == {f"work/out/{name}"}


def test_a_mask_is_looked_for_in_its_folder_only(here) -> None:
    """A photo named after a path leads to no mask outside the folder of masks."""
    (here / "masks").mkdir()
    (here / "in" / "sub").mkdir()
    Image.fromarray(NOISE).save(here / "in" / "sub" / "mask.png")
    words = ("--image", "in", "--output", "out", "--mask", "masks")
    code = cli.main(["complete", *words, "--model", "tiny.safetensors"])
    assert code == 1
    assert not (here / "out").exists()


def test_a_bomb_as_a_mask_is_refused(here, bomb_file, capsys) -> None:
    Image.fromarray(NOISE).save("a.png")
    words = ["--image", "a.png", "--output", "b.png", "--mask", str(bomb_file)]
    assert cli.main(["complete", *words, "--model", "tiny.safetensors"]) == 1
    assert "more than 89,478,485 pixels" in capsys.readouterr().err
    assert not Path("b.png").exists()
