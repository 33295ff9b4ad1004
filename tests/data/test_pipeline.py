"""Order, crops and colours are functions of (seed, position); damage is survived."""

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gl_jax.config import DataConfig, UsageError
from gl_jax.data import pipeline
from gl_jax.data.pipeline import Photographs
from gl_jax.data.readable import CorruptDataError

Folder = Callable[..., Path]
Jpeg = Callable[..., bytes]


def open_photographs(root: Path, *, seed: int = 3, **options: Any) -> Photographs:
    """All of `root` to train on, in crops of 32 pixels."""
    shared = {
        "log": options.pop("log", print),
        "cache_dir": options.pop("cache_dir", None),
    }
    defaults = {"batch_size": 4, "image_size": 32, "resize": (32, 48), "workers": 2}
    config = DataConfig(
        source=str(root), **{"validation_source": str(root), **defaults, **options}
    )
    return Photographs(config, seed=seed, **shared)


def take(batches: Iterator[np.ndarray], count: int) -> np.ndarray:
    return np.concatenate(list(itertools.islice(batches, count)))


def numbers(crops: np.ndarray) -> list[int]:
    """Which photograph each crop shows: a quarter of its red away from the bright edge."""
    return [round(float(np.median(crop[..., 0])) / 4) for crop in crops]


def test_batches_have_the_promised_shape_and_type(folder: Folder) -> None:
    batch = next(open_photographs(folder(6)).train_batches())
    assert batch.shape == (4, 32, 32, 3)
    assert batch.dtype == np.uint8


def test_each_epoch_is_another_permutation(folder: Folder) -> None:
    count = 10
    crops = take(open_photographs(folder(count)).train_batches(), 3 * count // 4 + 1)
    order = numbers(crops)
    epochs = [order[i * count : (i + 1) * count] for i in range(3)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_the_seed_decides_the_order(folder: Folder) -> None:
    root = folder(12)
    first, again, other = (
        take(open_photographs(root, seed=seed).train_batches(), 3) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert numbers(first) != numbers(other)


def test_a_resumed_run_sees_what_an_unbroken_one_sees(folder: Folder) -> None:
    options = {"flip": True, "color_jitter": 0.2}
    root = folder(7)
    unbroken = take(open_photographs(root, **options).train_batches(), 6)
    resumed = take(open_photographs(root, **options).train_batches(start_step=4), 2)
    np.testing.assert_array_equal(resumed, unbroken[16:])


def test_a_far_step_is_reached_at_once(folder: Folder) -> None:
    batch = next(open_photographs(folder(7)).train_batches(start_step=10**12))
    assert batch.shape[0] == 4


@pytest.mark.parametrize("host_count", [2, 4])
def test_hosts_share_the_same_global_batch(folder: Folder, host_count: int) -> None:
    root = folder(7)
    alone = next(open_photographs(root).train_batches(start_step=5))
    shares = [
        next(
            open_photographs(root).train_batches(
                5, host_index=host, host_count=host_count
            )
        )
        for host in range(host_count)
    ]
    np.testing.assert_array_equal(np.concatenate(shares), alone)


def test_hosts_that_cannot_share_a_batch_are_refused(folder: Folder) -> None:
    photographs = open_photographs(folder(3))
    with pytest.raises(UsageError, match=r"batch_size \(=4\) must be a multiple of"):
        photographs.train_batches(host_count=3)


def test_the_number_of_workers_changes_nothing(folder: Folder) -> None:
    root = folder(9)
    one, four = (
        take(open_photographs(root, workers=workers).train_batches(), 4)
        for workers in (1, 4)
    )
    np.testing.assert_array_equal(one, four)


def test_tensorflow_takes_a_batch_over_without_a_copy(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[np.ndarray] = []
    aligned = pipeline._aligned

    def kept(shape: tuple[int, ...]) -> np.ndarray:
        made.append(aligned(shape))
        return made[-1]

    monkeypatch.setattr(pipeline, "_aligned", kept)
    batch = next(open_photographs(folder(3)).train_batches())
    assert any(np.shares_memory(batch, array) for array in made)


def test_crops_vary_in_place_and_size(folder: Folder) -> None:
    crops = take(open_photographs(folder(1)).train_batches(), 10)
    edges = {int((crop[16, :, 1] == 255).sum()) for crop in crops}
    assert len(edges) > 3  # pixels of the bright edge in view
    assert 0 in edges


def test_flip_mirrors_about_half_of_the_crops(folder: Folder, jpeg: Jpeg) -> None:
    root = folder(1)
    # The whole width is in view, so the bright edge tells the side.
    config = {"resize": (32, 32), "flip": True, "batch_size": 32}
    path = root / "000.jpg"
    path.write_bytes(jpeg(0, height=64, width=64))
    crops = take(open_photographs(root, **config).train_batches(), 2)
    mirrored = int((crops[:, 16, -2, 0] > 200).sum())
    assert 16 <= mirrored <= 48
    config["flip"] = False
    crops = take(open_photographs(root, **config).train_batches(), 1)
    assert (crops[:, 16, 1, 0] > 200).all()


def test_color_jitter_changes_colours_within_its_limit(folder: Folder) -> None:
    root = folder(1)
    plain = take(open_photographs(root).train_batches(), 4).astype(int)
    bright = take(open_photographs(root, color_jitter=0.1).train_batches(), 4)
    difference = np.abs(bright.astype(int) - plain).max(axis=(1, 2, 3))
    assert (difference > 0).all()
    assert difference.max() <= 255 * 0.35


def test_validation_images_are_fixed_central_and_spread(folder: Folder) -> None:
    root = folder(12)
    images = open_photographs(root, seed=1).validation_images(4)
    np.testing.assert_array_equal(
        images, open_photographs(root, seed=2).validation_images(4)
    )
    assert images.shape == (4, 32, 32, 3)
    assert numbers(images) == [0, 3, 6, 9]
    # 48 x 64 at a shortest side of 32 is 32 x 43; the edge ends before the middle 32.
    assert (images[:, :, 1, 2] < 200).all()


def test_fewer_validation_images_than_asked_for_are_all(folder: Folder) -> None:
    assert len(open_photographs(folder(3)).validation_images(32)) == 3


def test_tfds_feeds_the_same_pipeline(prepared: Path) -> None:
    config = DataConfig(
        source="tfds:tiny_photos",
        data_dir=str(prepared),
        validation_split="test",
        batch_size=23,
        image_size=32,
        resize=(32, 48),
        workers=4,
    )
    photographs = Photographs(config, seed=0)
    assert sorted(numbers(next(photographs.train_batches()))) == list(range(23))
    assert sorted(numbers(photographs.validation_images(9))) == [40, 41, 42, 43]


def test_mean_color_is_that_of_the_photographs(folder: Folder, tmp_path: Path) -> None:
    root = folder(5)
    middles = open_photographs(root).validation_images(5)
    mean = open_photographs(root).mean_color()
    np.testing.assert_allclose(mean, middles.mean((0, 1, 2)) / 255, atol=0.01)
    assert open_photographs(root, mean_color=(0.1, 0.2, 0.3)).mean_color() == (
        0.1,
        0.2,
        0.3,
    )


def test_mean_color_is_kept_until_the_set_changes(
    folder: Folder, tmp_path: Path, jpeg: Jpeg
) -> None:
    root, cache_dir = folder(5), tmp_path / "cache"

    def mean_color() -> tuple[float, float, float]:
        return open_photographs(root, cache_dir=cache_dir).mean_color()

    measured = mean_color()
    (file,) = cache_dir.glob("mean-color-*.json")
    file.write_text('{"mean_color": [0.5, 0.25, 0.125]}')
    assert mean_color() == (0.5, 0.25, 0.125)
    file.write_text('{"mean_co')
    assert mean_color() == measured
    (root / "another.jpg").write_bytes(jpeg(60))
    assert mean_color() not in (measured, (0.5, 0.25, 0.125))


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_corrupt_photograph_gives_way_to_the_next(
    folder: Folder, damage: str, jpeg: Jpeg
) -> None:
    root = folder(6)
    damaged = {"truncated": jpeg(3)[:-300], "empty": b"", "text": b"<html>404</html>"}
    (root / "003.jpg").write_bytes(damaged[damage])
    log: list[str] = []
    photographs = open_photographs(root, log=log.append, batch_size=6)
    crops = take(photographs.train_batches(), 4)
    for epoch in range(4):
        order = sorted(numbers(crops[6 * epoch : 6 * epoch + 6]))
        assert order == [0, 1, 2, 4, 4, 5]
    assert len(log) == 1
    assert "003.jpg" in log[0]
    resumed = open_photographs(root, log=log.append, batch_size=6)
    np.testing.assert_array_equal(next(resumed.train_batches(3)), crops[18:])


def test_a_photograph_that_vanishes_gives_way_too(folder: Folder) -> None:
    root = folder(6)
    log: list[str] = []
    photographs = open_photographs(root, log=log.append, batch_size=6)
    assert sorted(numbers(next(photographs.train_batches()))) == [0, 1, 2, 3, 4, 5]
    (root / "002.jpg").unlink()
    crops = next(photographs.train_batches(100))
    assert sorted(numbers(crops)) == [0, 1, 3, 3, 4, 5]
    assert len(log) == 1


def test_too_many_corrupt_photographs_stop_the_run(folder: Folder) -> None:
    root = folder(20)
    for i in range(5):
        (root / f"{4 * i:03d}.jpg").write_bytes(b"damaged")
    batches = open_photographs(root, max_corrupt_share=0.2).train_batches()
    with pytest.raises(
        CorruptDataError, match=r"^5 of \d+ photographs cannot be read.*0.2"
    ):
        take(batches, 10)


def test_a_tolerated_share_of_corrupt_photographs_does_not(folder: Folder) -> None:
    root = folder(20)
    for i in range(5):
        (root / f"{4 * i:03d}.jpg").write_bytes(b"damaged")
    log: list[str] = []
    photographs = open_photographs(root, max_corrupt_share=0.25, log=log.append)
    assert len(take(photographs.train_batches(), 10)) == 40
    assert len(log) == 5


def test_with_a_share_of_zero_the_first_corrupt_photograph_stops(
    folder: Folder,
) -> None:
    root = folder(5)
    (root / "001.jpg").write_bytes(b"damaged")
    batches = open_photographs(root, max_corrupt_share=0.0).train_batches()
    with pytest.raises(CorruptDataError, match=r"^1 of"):
        take(batches, 2)


def test_a_set_without_a_readable_photograph_is_refused(folder: Folder) -> None:
    root = folder(3)
    for path in root.iterdir():
        path.write_bytes(b"damaged")
    photographs = open_photographs(root)
    with pytest.raises(UsageError, match=r"3 of 3 photographs cannot be read: .*known"):
        next(photographs.train_batches())
    with pytest.raises(UsageError, match="3 of 3 photographs cannot be read"):
        photographs.mean_color()


def test_tensorflow_loads_only_when_data_is_read_and_takes_no_accelerator() -> None:
    script = (
        "import sys; from gl_jax.data.pipeline import Photographs;"
        "from gl_jax.config import DataConfig;"
        "photographs = Photographs(DataConfig(batch_size=1), seed=0);"
        "assert 'tensorflow' not in sys.modules and 'jax' not in sys.modules;"
        "next(photographs.train_batches()); tf = sys.modules['tensorflow'];"
        "assert [d.device_type for d in tf.config.get_visible_devices()] == ['CPU']"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)


def test_the_process_ends_while_batches_are_still_open() -> None:
    script = (
        "import threading; from gl_jax.data.pipeline import Photographs;"
        "from gl_jax.config import DataConfig;"
        "photographs = Photographs(DataConfig(batch_size=2, workers=4), seed=0);"
        "here = photographs.train_batches(); there = photographs.train_batches();"
        "next(here); next(there); read = lambda: [None for _ in there];"
        "threading.Thread(target=read, daemon=True).start()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], check=True, timeout=60, stderr=subprocess.PIPE
    )
    assert b"Exception" not in ended.stderr


def test_batches_that_are_closed_leave_no_threads(folder: Folder) -> None:
    photographs = open_photographs(folder(8), workers=3)
    for _ in range(3):
        batches = photographs.train_batches()
        next(batches)
        batches.close()  # type: ignore[attr-defined]
    for thread in threading.enumerate():
        if thread.name == "reader":
            thread.join(timeout=10)
            assert not thread.is_alive()


def test_the_records_shown_are_told(folder: Folder) -> None:
    shown: list[np.ndarray] = []
    crops = take(open_photographs(folder(7)).train_batches(shown=shown), 4)
    # The batches that are still on their way are not told yet.
    assert [int(n) for batch in shown for n in batch] == numbers(crops)


def test_the_record_that_replaces_an_unreadable_one_is_told(folder: Folder) -> None:
    root = folder(6)
    (root / "002.jpg").write_bytes(b"")
    shown: list[np.ndarray] = []
    photographs = open_photographs(root, max_corrupt_share=1.0)
    take(photographs.train_batches(shown=shown), 6)
    told = [int(n) for batch in shown for n in batch]
    assert 2 not in told
    assert told.count(3) == 2 * told.count(4)


def test_a_photograph_that_goes_during_the_run_leaves_its_fingerprint(
    folder: Folder,
) -> None:
    root = folder(4)
    photographs = open_photographs(root)
    before = photographs.fingerprint()
    (root / "001.jpg").unlink()
    assert photographs.fingerprint() == before


@pytest.mark.parametrize("link", ["nowhere.jpg", "broken.jpg"])
def test_a_link_that_leads_nowhere_is_an_unreadable_photograph(
    folder: Folder, link: str
) -> None:
    root = folder(3)
    os.symlink("nowhere.jpg", root / link)  # to itself, or to what is not there
    photographs = open_photographs(root)
    assert photographs.fingerprint()
    crops = take(photographs.train_batches(), 4)
    assert set(numbers(crops)) == {0, 1, 2}


def test_a_bomb_among_the_photographs_gives_way_to_the_next(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder(5)
    Image.new("L", (400, 400)).save(root / "002.jpg", "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100 * 100)
    messages: list[str] = []
    photographs = open_photographs(root, log=messages.append)
    crops = take(photographs.train_batches(), 5)
    assert set(numbers(crops)) == {0, 1, 3, 4}
    (said,) = messages
    assert "more than 10,000 pixels" in said
