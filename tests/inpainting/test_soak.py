"""A hundred thousand damaged pictures: each is read or refused in one line."""

import io
import resource
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from gl_jax.config import UsageError
from gl_jax.images import read, read_crop

COUNT = 100_000
LARGEST_GROWTH = 600 * 2**20
"""Bytes of memory that the whole run may add; pictures up to a megapixel are let in."""

KINDS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF")

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]


def seeds() -> list[bytes]:
    """A small photograph in every kind of file, and in the deeper and rarer modes."""
    from skimage import data

    photo = Image.fromarray(data.astronaut()[::16, ::16])
    pictures = [(photo, kind) for kind in KINDS]
    deep = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    pictures += [(deep, "PNG"), (deep, "TIFF"), (photo.convert("P"), "PNG")]
    pictures += [(photo.convert("LA"), "PNG"), (photo.convert("CMYK"), "JPEG")]
    made = []
    for picture, kind in pictures:
        exif = Image.Exif()
        exif[0x0112] = 6
        buffer = io.BytesIO()
        picture.save(buffer, kind, exif=exif)
        made.append(buffer.getvalue())
    return made


def mutate(data: bytes, stream: np.random.Generator) -> bytes:
    """The bytes with one to four places changed, cut out, repeated or blown up."""
    content = bytearray(data)
    for _ in range(int(stream.integers(1, 5))):
        at, length = (int(n) for n in stream.integers(0, (len(content) + 1, 32)))
        kind = stream.integers(0, 5)
        if kind == 0 and at < len(content):
            content[at] ^= 1 << int(stream.integers(0, 8))
        elif kind == 1:
            content[at : at + 4] = stream.bytes(4)
        elif kind == 2:
            del content[at : at + length]
        elif kind == 3:
            content[at:at] = content[max(0, at - length) : at]
        else:
            content[at : at + 4] = b"\xff\xff\xff\x7f"
    return bytes(content)


@pytest.mark.filterwarnings("ignore")  # decoders warn about damage; that is their right
def test_pictures(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2**20)
    stream, given, outcome = np.random.default_rng(2017), seeds(), Counter()
    path = tmp_path / "picture.jpg"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for index in range(COUNT):
        data = mutate(given[index % len(given)], stream)
        try:
            if index % 2:
                crop = read_crop(data, "picture", shortest=16, side=16)
                assert crop.shape == (16, 16, 3)
            else:
                path.write_bytes(data)
                assert read(path, "picture").pixels.size
            outcome["read"] += 1
        except UsageError as error:
            outcome["refused"] += 1
            outcome["unclear"] += "\n" in str(error) or len(str(error)) > 2000
    growth = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    print(f"pictures: {dict(outcome)}, memory grew by {growth / 2**20:.0f} MB")
    assert growth < LARGEST_GROWTH
    assert not outcome["unclear"]
    assert min(outcome["read"], outcome["refused"]) > COUNT / 10
