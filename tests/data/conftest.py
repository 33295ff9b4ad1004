"""Small sets of real files for the data room: folders, and TFDS data prepared on disk."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


def photograph(number: int, *, height: int = 48, width: int = 64) -> Image.Image:
    """Plain but for a bright left edge; its red is four times its number (at most 60)."""
    pixels = np.full((height, width, 3), (4 * number, 250 - number, number), np.uint8)
    pixels[:, : width // 8] = 255
    return Image.fromarray(pixels)


def encoded(number: int, **size: int) -> bytes:
    """`photograph` as a JPEG of full quality."""
    buffer = io.BytesIO()
    photograph(number, **size).save(buffer, "JPEG", quality=100, subsampling=0)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def jpeg() -> Callable[..., bytes]:
    """The bytes of a photograph: `jpeg(number)`, `jpeg(number, height=, width=)`."""
    return encoded


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of JPEGs: `folder(count)`, or `folder(names=[...])`."""

    def make(count: int = 0, names: list[str] | None = None, root: str = "set") -> Path:
        for i, name in enumerate(names or [f"{i:03d}.jpg" for i in range(count)]):
            path = tmp_path / root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(i))
        return tmp_path / root

    return make


@pytest.fixture(scope="session", params=["tfrecord", "array_record"])
def prepared(request: Any, tmp_path_factory: Any) -> Path:
    """A data_dir with the real TFDS dataset `tiny_photos`, unknown to TFDS by name."""
    return _prepare(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="session")
def prepare_tfds() -> Callable[[Path, str], Path]:
    """Makes such a data_dir: `prepare_tfds(folder, file_format)`."""
    return _prepare


def _prepare(data_dir: Path, file_format: str) -> Path:
    """`tiny_photos` as TFDS prepares it: 23 in two files to train on, 4 in `test`."""
    from gl_jax.data.tfds import tensorflow

    tensorflow()
    import tensorflow_datasets as tfds

    with tfds.core.registered.skip_registration():

        class TinyPhotos(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc]
            VERSION = tfds.core.Version("1.2.0")
            pkg_dir_path = data_dir

            def _info(self) -> Any:
                image = tfds.features.Image(
                    shape=(None, None, 3), encoding_format="jpeg"
                )
                features = {"image": image, "label": tfds.features.Scalar(np.int64)}
                return tfds.core.DatasetInfo(
                    builder=self, features=tfds.features.FeaturesDict(features)
                )

            def _split_generators(self, dl_manager: Any) -> Any:
                return {"train": self._make(0, 23), "test": self._make(40, 44)}

            def _generate_examples(self) -> Any:
                raise NotImplementedError

            def _make(self, start: int, stop: int) -> Any:
                for i in range(start, stop):
                    yield i, {"image": io.BytesIO(encoded(i)), "label": i}

    builder = TinyPhotos(data_dir=str(data_dir), file_format=file_format)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=2)
    )
    return data_dir
