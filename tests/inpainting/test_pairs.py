"""Photos of a folder and their masks: by name, in any number, with a place for each."""

import unicodedata
from pathlib import Path

import pytest

from gl_jax.inpainting import pairs, progress
from gl_jax.inpainting.pairs import Job


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def files(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def find(image: str, mask: str, log=print) -> list[Job]:
    suffix = lambda photo: photo.suffix  # noqa: E731
    return pairs.find_jobs(Path(image), Path("out"), Path(mask), suffix, log)


def test_names_that_look_the_same_pair(capsys) -> None:
    name = "fête é.png"
    composed, apart = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    assert composed != apart
    files(f"in/{composed}", f"in/{apart[0]}/{apart}", f"masks/{apart}")
    files(f"masks/{composed[0]}/{composed[:-4]}_mask1.png")
    assert [str(job.mask) for job in find("in", "masks")] == [
        f"masks/f/{composed[:-4]}_mask1.png",
        f"masks/{apart}",
    ]
    # The result is named as the photo, letter for letter.
    assert [job.target.name for job in find("in", "masks")] == [apart, composed]
    files(f"beside/{composed}", f"beside/{apart[:-4]}_mask.png")
    (job,) = find("beside", "beside")
    assert job.photo.name == composed


def test_two_masks_of_one_name_are_one_too_many() -> None:
    files("in/a.jpg", "in/b.png", "masks/a.png", "masks/a.tif", "masks/b.png")
    files("masks/b.tif")
    first, second = find("in", "masks")
    assert first.fault == "2 masks for it in masks: a.png, a.tif; keep one."
    # One of the photo's full name is meant.
    assert second.mask == Path("masks/b.png")


def test_a_hundred_thousand_pairs_are_found_by_looking_each_up_once() -> None:
    """No timing: what is done for each photo does not depend on how many there are."""
    count = 100_000
    by_name = pairs.MasksByName(Path(f"sub/{i:06d}_mask.png") for i in range(count))
    for i in range(count):
        assert by_name.of(Path(f"sub/{i:06d}.jpg")) == [Path(f"sub/{i:06d}_mask.png")]


def test_a_large_folder_gives_a_sign_of_life(monkeypatch) -> None:
    files(*(f"in/{i}.png" for i in range(3)))
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    said = []
    pairs.pictures(Path("in"), log=said.append)
    assert said[0] == "looking through in: 1 pictures so far."


def test_lines_come_at_most_every_few_seconds(monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    said = []
    say = progress.Occasionally(said.append)
    for second in range(12):
        now[0] = float(second)
        say(str(second))
    assert said == ["5", "10"]
