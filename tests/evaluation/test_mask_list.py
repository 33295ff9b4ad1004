"""Mask lists: from kinds and folders to a file and back."""

import hashlib
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from PIL import Image

from gl_jax.config import UsageError
from gl_jax.evaluation import mask_list
from gl_jax.evaluation.masks import KINDS

NAMES, POSITIONS = ["a/x.png", "a/y.png", "a/z.png"], [0, 2, 4]


def save(folder: Path, name: str, mask: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * 255).save(folder / name)


@pytest.fixture
def masks() -> np.ndarray:
    generator = np.random.default_rng(1)
    return generator.random((3, 16, 16)) < 0.3


@pytest.mark.parametrize("kind", ["center", "box"])
def test_holes_are_those_of_their_kind_and_seed(kind: str) -> None:
    entries = mask_list.make_entries(kind, NAMES, POSITIONS, (3, 4), 32)
    assert [(e.photograph, e.position, e.seed, e.index) for e in entries[2:4]] == [
        ("z.png", 4, 3, 2),
        ("x.png", 0, 4, 0),
    ]
    expected = KINDS[kind](3, 32, 32, 4)
    np.testing.assert_array_equal([e.mask() for e in entries[3:]], expected)


def test_a_file_brings_back_every_kind_of_entry(
    masks: np.ndarray, tmp_path: Path
) -> None:
    for name, mask in zip("xyz", masks, strict=True):
        save(tmp_path / "masks", f"{name}.png", mask)
    for entries in (
        mask_list.from_folder(tmp_path / "masks", NAMES, POSITIONS, 16),
        mask_list.mmediting(NAMES, POSITIONS, (0, 1)),
    ):
        digest = mask_list.write(entries, tmp_path / "list.jsonl")
        assert mask_list.read(tmp_path / "list.jsonl") == entries
        assert digest == mask_list.digest(entries)
        data = (tmp_path / "list.jsonl").read_bytes()
        assert digest == hashlib.sha256(data).hexdigest()


@given(arrays(np.bool_, (4, 5)))
def test_any_mask_survives_its_line(mask: np.ndarray) -> None:
    entry = mask_list._entry("x.png", 0, 0, 0, mask)
    np.testing.assert_array_equal(entry.mask(), mask)
    record = json.loads(entry.to_json())
    np.testing.assert_array_equal(mask_list._parsed(record).mask(), mask)


def test_masks_of_a_folder_belong_to_the_photograph_of_their_stem(
    masks: np.ndarray, tmp_path: Path
) -> None:
    for name, mask in zip(["z", "y", "x"], masks, strict=True):
        save(tmp_path / "masks", f"{name}.png", mask)
    save(tmp_path / "masks", "another.png", ~masks[0])
    entries = mask_list.from_folder(tmp_path / "masks", NAMES, POSITIONS, 16)
    np.testing.assert_array_equal([e.mask() for e in entries], masks[::-1])


def test_masks_are_never_paired_by_their_order(
    masks: np.ndarray, tmp_path: Path
) -> None:
    for name, mask in zip(("x", "y", "another"), masks, strict=True):
        save(tmp_path / "masks", f"{name}.png", mask)
    message = (
        r"1 of 3 photographs have no mask of their name among the 3 in .*masks, the "
        r"first z.png \(looked for z.\* and z_mask\*\)"
    )
    with pytest.raises(UsageError, match=message):
        mask_list.from_folder(tmp_path / "masks", NAMES, POSITIONS, 16)
    save(tmp_path / "masks", "z_mask.png", masks[2])
    entries = mask_list.from_folder(tmp_path / "masks", NAMES, POSITIONS, 16)
    np.testing.assert_array_equal([e.mask() for e in entries], masks)


def test_photographs_of_one_name_need_masks_in_folders(
    masks: np.ndarray, tmp_path: Path
) -> None:
    names, positions = ["/p/one/x.png", "/p/two/x.png"], [0, 1]
    save(tmp_path / "masks", "x.png", masks[0])
    with pytest.raises(UsageError, match=r"fits /p/one/x.png and /p/two/x.png;"):
        mask_list.from_folder(tmp_path / "masks", names, positions, 16)
    save(tmp_path / "masks" / "two", "x.png", masks[1])
    entries = mask_list.from_folder(tmp_path / "masks", names, positions, 16)
    np.testing.assert_array_equal([e.mask() for e in entries], masks[:2])


def test_two_masks_of_one_photograph_are_one_too_many(
    masks: np.ndarray, tmp_path: Path
) -> None:
    for name in ("x.bmp", "x.tif"):
        save(tmp_path / "masks", name, masks[0])
    with pytest.raises(UsageError, match=r"has 2 masks in .*: x.bmp, x.tif; keep one"):
        mask_list.from_folder(tmp_path / "masks", NAMES[:1], [0], 16)


def test_names_that_look_the_same_pair(masks: np.ndarray, tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(f, "é.png") for f in ("NFC", "NFD"))
    save(tmp_path / "masks", apart, masks[0])
    (entry,) = mask_list.from_folder(tmp_path / "masks", [composed], [0], 16)
    np.testing.assert_array_equal(entry.mask(), masks[0])


def test_mistaken_masks_are_refused_as_for_completing(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    for levels, message in (
        (np.arange(256).reshape(16, 16), "x.png looks like a photograph"),
        (np.eye(16) * 4, "x.png has no white. Its brightest value is 4 of 255"),
    ):
        Image.fromarray(levels.astype(np.uint8)).save(tmp_path / "masks" / "x.png")
        with pytest.raises(UsageError, match=message):
            mask_list.from_folder(tmp_path / "masks", NAMES[:1], [0], 16)
    with pytest.raises(
        UsageError, match=r"x.png is no mask list, .* to give pictures of"
    ):
        mask_list.read(tmp_path / "masks" / "x.png")


def test_of_a_mask_of_another_size_the_middle_square_is_taken(tmp_path: Path) -> None:
    mask = np.zeros((32, 48), bool)
    mask[8:16, 16:24] = True
    save(tmp_path / "masks", "x.png", mask)
    (entry,) = mask_list.from_folder(tmp_path / "masks", NAMES[:1], [0], 16)
    assert entry.box == (4, 4, 4, 4)


def test_other_numbers_of_masks_and_photographs_are_both_named(
    masks: np.ndarray, tmp_path: Path
) -> None:
    for number in range(2):
        save(tmp_path / "masks", f"{number}.png", masks[number])
    with pytest.raises(UsageError, match=r"3 of 3 photographs .* among the 2"):
        mask_list.from_folder(tmp_path / "masks", NAMES, POSITIONS, 16)


@pytest.mark.parametrize(("value", "what"), [(False, "nothing"), (True, "everything")])
def test_masks_without_anything_to_do_or_to_see_are_refused(
    value: bool, what: str, tmp_path: Path
) -> None:
    save(tmp_path / "masks", "x.png", np.full((16, 16), value))
    with pytest.raises(UsageError, match=f"x.png marks {what} as missing"):
        mask_list.from_folder(tmp_path / "masks", NAMES[:1], [0], 16)


def test_an_unknown_kind_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'boxes' are unknown. Did you mean 'box'"):
        mask_list.make_entries("boxes", NAMES, POSITIONS, (0,), 16)


LINE = mask_list.make_entries("box", NAMES, POSITIONS, (0,), 32)[0].to_json()


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "is empty"),
        ("no JSON\n", "line 1 of mask list .* is no entry"),
        ("{}\n", "line 1 .*KeyError"),
        ("[]\n", "line 1"),
        (LINE.replace('"seed": 0', '"seed": "0"') + "\n", "whole numbers"),
        (LINE.replace('"box": [', '"box": [1, '), "line 1"),
        (LINE.replace('"height": 32', '"height": 99999999'), "16384"),
        (LINE.replace('"height": 32', '"height": 36'), "does not fit its sha256"),
        (f"{LINE}\n{LINE}\n", "twice"),
    ],
)
def test_damaged_lists_are_refused_in_one_line(
    text: str, rule: str, tmp_path: Path
) -> None:
    (tmp_path / "list.jsonl").write_text(text)
    with pytest.raises(UsageError, match=rule) as caught:
        mask_list.read(tmp_path / "list.jsonl")
    assert "\n" not in str(caught.value)


def test_masks_that_are_not_read_are_named_where_one_is_missing(
    masks: np.ndarray, tmp_path: Path
) -> None:
    save(tmp_path / "masks", "x.png", masks[0])
    (tmp_path / "masks" / "y.heic").write_bytes(b"\0")
    with pytest.raises(UsageError, match=r"\(left out of .*masks: 1 HEIC; convert"):
        mask_list.from_folder(tmp_path / "masks", NAMES, POSITIONS, 16)
