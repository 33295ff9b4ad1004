"""Every kind of source gives the same bytes at the same index, or says what is wrong."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gl_jax.config import DataConfig, UsageError
from gl_jax.data.records import LISTED, Source, changes, inventory
from gl_jax.data.sources import FileSource, open_source
from gl_jax.images import read_rgb

Folder = Callable[..., Path]
Jpeg = Callable[..., bytes]
Prepare = Callable[[Path, str], Path]


def names(source: Source, root: Path) -> list[str]:
    return [
        Path(source.name(i)).relative_to(root).as_posix() for i in range(len(source))
    ]


def open_both(config: DataConfig) -> tuple[Source, Source]:
    return open_source(config), open_source(config, validation=True)


def test_bundled_photographs_are_real_and_disjoint() -> None:
    training, validation = open_both(DataConfig())
    every = [s.name(i) for s in (training, validation) for i in range(len(s))]
    assert len(set(every)) == len(every) == 12
    for source in (training, validation):
        for i in range(len(source)):
            photo = read_rgb(source.read(i), source.name(i))
            assert min(photo.shape[:2]) >= 256
            assert photo.std() > 10  # and something is to be seen on it


def test_an_unknown_bundled_split_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'train'"):
        open_source(DataConfig(split="trian"))


def test_a_folder_is_read_deep_sorted_and_without_hidden_files(
    folder: Folder, jpeg: Jpeg
) -> None:
    root = folder(names=["b/2.JPG", "a.png", "b/c/d.webp", "é/1.jpeg", ".t/x.jpg"])
    (root / "b" / "._2.JPG").write_bytes(b"resource fork")
    (root / "notes.txt").write_text("no photograph")
    source = open_source(DataConfig(source=str(root), validation_source="bundled"))
    assert names(source, root) == ["a.png", "b/2.JPG", "b/c/d.webp", "é/1.jpeg"]
    assert source.read(1) == jpeg(0)


def test_a_circle_of_links_ends(folder: Folder) -> None:
    root = folder(3)
    os.symlink(root, root / "again")
    source = open_source(DataConfig(source=str(root), validation_source="bundled"))
    assert len(source) == 3


def test_a_share_of_a_folder_is_held_back_by_name(folder: Folder) -> None:
    root = folder(200)
    config = DataConfig(source=str(root), validation_share=0.2)
    training, validation = (set(names(s, root)) for s in open_both(config))
    assert not training & validation
    assert len(training | validation) == 200
    assert 20 <= len(validation) <= 60
    folder(names=[f"new{i}.jpg" for i in range(50)])
    more_training, more_validation = (set(names(s, root)) for s in open_both(config))
    assert training <= more_training
    assert validation <= more_validation


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_each_side_of_a_small_folder_has_a_photograph(
    folder: Folder, share: float
) -> None:
    config = DataConfig(source=str(folder(5)), validation_share=share)
    training, validation = open_both(config)
    assert sorted([len(training), len(validation)]) == [1, 4]


def test_a_single_photograph_is_trained_and_validated_on(folder: Folder) -> None:
    training, validation = open_both(DataConfig(source=str(folder(1))))
    assert training.name(0) == validation.name(0)


@pytest.mark.parametrize("held_back", ["val", "validation"])
def test_train_and_val_folders_are_used_as_they_are(
    folder: Folder, held_back: str
) -> None:
    root = folder(names=["train/a.jpg", "train/x/b.jpg", f"{held_back}/c.jpg", "d.jpg"])
    training, validation = open_both(DataConfig(source=str(root)))
    assert names(training, root) == ["train/a.jpg", "train/x/b.jpg"]
    assert names(validation, root) == [f"{held_back}/c.jpg"]


def test_with_a_validation_source_nothing_is_held_back(folder: Folder) -> None:
    config = DataConfig(
        source=str(folder(30)), validation_source=str(folder(7, root="v"))
    )
    training, validation = open_both(config)
    assert (len(training), len(validation)) == (30, 7)


def test_a_missing_folder_is_named_with_its_neighbour(folder: Folder) -> None:
    missing = str(folder(1)) + "s"
    with pytest.raises(UsageError, match=r"does not exist.*Did you mean '.*set'"):
        open_source(DataConfig(source=missing))


def test_a_folder_without_photographs_names_the_patterns(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no photograph")
    with pytest.raises(
        UsageError, match=r"no photograph in .*\*\.jpg, \*\.jpeg, \*\.png"
    ):
        open_source(DataConfig(source=str(tmp_path)))


def test_the_fingerprint_changes_with_names_and_sizes(
    folder: Folder, jpeg: Jpeg
) -> None:
    root = folder(5)

    def fingerprint() -> str:
        config = DataConfig(source=str(root), validation_source="bundled")
        return open_source(config).fingerprint()

    before = fingerprint()
    assert fingerprint() == before
    (root / "000.jpg").write_bytes(jpeg(7, height=80))
    resized = fingerprint()
    (root / "001.jpg").rename(root / "001b.jpg")
    assert len({before, resized, fingerprint()}) == 3


def tiny(data_dir: Path, **options: str) -> DataConfig:
    options = {"validation_split": "test", **options}
    return DataConfig(source="tfds:tiny_photos", data_dir=str(data_dir), **options)


def test_prepared_tfds_gives_the_encoded_bytes(
    prepared: Path, tmp_path: Path, jpeg: Jpeg
) -> None:
    import tensorflow_datasets as tfds

    source = open_source(tiny(prepared), cache_dir=tmp_path)
    assert len(source) == 23
    builder = tfds.builder("tiny_photos", data_dir=str(prepared))
    encoded = {"image": tfds.decode.SkipDecoding()}
    if builder.info.file_format.value == "array_record":
        rows = iter(builder.as_data_source("train", decoders=encoded))
    else:
        in_order = tfds.ReadConfig(interleave_cycle_length=1)
        stored = builder.as_dataset("train", decoders=encoded, read_config=in_order)
        rows = stored.as_numpy_iterator()
    expected = [bytes(row["image"]) for row in rows]
    assert [source.read(i) for i in range(23)] == expected
    assert sorted(expected) == sorted(jpeg(i) for i in range(23))
    assert source.name(17) == "tiny_photos/1.2.0/train[17]"


def test_tfds_slices_and_splits(prepared: Path, jpeg: Jpeg) -> None:
    whole = open_source(tiny(prepared))
    part = open_source(tiny(prepared, split="train[9:18]"))
    assert [part.read(i) for i in range(len(part))] == [
        whole.read(i) for i in range(9, 18)
    ]
    held_back = open_source(tiny(prepared), validation=True)
    assert {held_back.read(i) for i in range(4)} == {jpeg(i) for i in range(40, 44)}
    every = {whole.fingerprint(), part.fingerprint(), held_back.fingerprint()}
    assert len(every) == 3


def test_an_unknown_tfds_split_names_the_others(prepared: Path) -> None:
    with pytest.raises(UsageError, match=r"no split 'validation'.*Known: .*train"):
        open_source(tiny(prepared, validation_split="validation"), validation=True)


@pytest.fixture(scope="module")
def tfrecords(tmp_path_factory: pytest.TempPathFactory, prepare_tfds: Prepare) -> Path:
    return prepare_tfds(tmp_path_factory.mktemp("tfrecords"), "tfrecord")


def test_the_index_of_tfrecords_is_cached_and_mended(
    tfrecords: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_source(tiny(tfrecords), cache_dir=tmp_path)
    (index,) = tmp_path.glob("tiny_photos-1.2.0-train-*.npy")
    whole = index.read_bytes()
    index.write_bytes(whole[: len(whole) // 2])
    mended = open_source(tiny(tfrecords), cache_dir=tmp_path)
    assert mended.read(11) == first.read(11)
    assert index.read_bytes() == whole

    def not_again(*_: object) -> None:
        raise AssertionError("the files were walked although the index is cached")

    monkeypatch.setattr("gl_jax.data.tfds._places", not_again)
    cached = open_source(tiny(tfrecords), cache_dir=tmp_path)
    assert [cached.read(i) for i in range(23)] == [first.read(i) for i in range(23)]


def test_a_shortened_tfrecord_is_refused_by_name(
    tmp_path: Path, prepare_tfds: Prepare
) -> None:
    data_dir = prepare_tfds(tmp_path, "tfrecord")
    file = sorted(data_dir.rglob("*train.tfrecord*"))[0]
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(UsageError, match=f"{file.name} is damaged"):
        open_source(tiny(data_dir))


def test_a_damaged_record_is_an_error_of_reading(
    tmp_path: Path, prepare_tfds: Prepare
) -> None:
    data_dir = prepare_tfds(tmp_path, "tfrecord")
    file = sorted(data_dir.rglob("*train.tfrecord*"))[0]
    whole = file.read_bytes()
    file.write_bytes(whole[:12] + b"\xff" * 40 + whole[52:])
    source = open_source(tiny(data_dir))
    with pytest.raises(OSError, match=r"train\[0\] cannot be read"):
        source.read(0)
    assert source.read(1).startswith(b"\xff\xd8")


def test_an_unknown_tfds_name_names_the_nearest(tmp_path: Path) -> None:
    config = DataConfig(source="tfds:places365_smal", data_dir=str(tmp_path))
    with pytest.raises(UsageError, match="Did you mean 'places365_small'"):
        open_source(config)


def test_tfds_without_photographs_is_refused(
    tfrecords: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow_datasets as tfds

    class Other:
        pass

    monkeypatch.setattr(tfds.features, "Image", Other)
    with pytest.raises(
        UsageError, match="no photographs; its features are image, label"
    ):
        open_source(tiny(tfrecords))


def test_a_failed_preparation_says_how_to_do_it_by_hand(tmp_path: Path) -> None:
    # CelebA-HQ is downloaded by hand in any case, so nothing is asked of the network.
    config = DataConfig(source="tfds:celeb_a_hq/256", data_dir=str(tmp_path))
    with pytest.raises(
        UsageError, match="by hand: tfds build celeb_a_hq/256 --data_dir"
    ):
        open_source(config)


def sized(**sizes: int) -> dict[str, Any]:
    """The inventory of a source with these records."""
    return {"count": len(sizes), "sizes": sizes}


def test_changes_are_told_in_numbers_and_names() -> None:
    said = changes(sized(a=1, b=2, c=3), sized(b=2, c=4, d=5, e=6))
    assert said == ("4 instead of 3; 1 gone (a); 2 new (d, e); 1 of another size (c)")


def test_of_many_changes_three_names_are_told() -> None:
    then = sized(**{f"p{i}": i for i in range(9)})
    assert changes(then, sized(p8=8)) == ("1 instead of 9; 8 gone (p0, p1, p2, ...)")


def test_of_a_large_set_a_fair_sample_is_compared() -> None:
    """Names that only the one or the other list had no room for are no change."""
    names = [f"{i}.jpg" for i in range(5 * LISTED)]

    def listed(names: list[str]) -> dict[str, Any]:
        return inventory(FileSource(names, lambda name: Path("/dev/null")))

    assert changes(listed(names), listed(names)) == "5000 instead of 5000"
    said = changes(listed(names), listed(names[: 4 * LISTED]))
    assert said.startswith("4000 instead of 5000; ")
    counted = re.search(r"(\d+) of the (\d+) compared ones gone", said)
    assert counted is not None
    assert "new" not in said
    assert int(counted[2]) == pytest.approx(LISTED, rel=0.05)
    assert int(counted[1]) == pytest.approx(LISTED / 5, rel=0.3)
