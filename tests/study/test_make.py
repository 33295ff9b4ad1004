"""The folder of a study: alike for all pictures, the same each time, or refused."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gl_jax import cli, images
from gl_jax.study import Kind
from gl_jax.study.key import Key

Studies = dict[Kind, tuple[Key, Path]]


def test_every_picture_is_the_one_of_its_name(studies: Studies, pictures: Path) -> None:
    key, folder = studies["single"]
    page = folder / "page"
    files = {path.stem: path for path in (page / "pictures").iterdir()}
    assert files.keys() == key.pictures.keys()
    for name, picture in key.pictures.items():
        shown = images.read_rgb(files[name], name)
        kind = picture.method or "truth"
        source = images.read_rgb(pictures / kind / f"{picture.photograph}.png", name)
        if picture.kind == "check":
            assert (shown != source).any(axis=-1).mean() > 0.2
        else:
            np.testing.assert_array_equal(shown, source)


def test_the_page_is_one_file_and_tells_nothing(studies: Studies) -> None:
    for key, folder in studies.values():
        page = (folder / "page" / "index.html").read_text()
        assert not re.search(
            r"https?:|<link(?! rel=\"icon\" href=\"data:)|\bsrc=", page
        )
        assert not re.search(r"@[a-z]+@", page)
        data = re.search(r'id="study-data">(.*?)</script>', page)
        assert data is not None
        for word in (*key.methods, *key.photographs, "truth", "check"):
            assert f'"{word}"' not in data[1]


def command(pictures: Path, output: Path, *more: str) -> list[str]:
    results = [str(pictures / name) for name in ("gl", "mean")]
    truth = ["--truth", str(pictures / "truth"), "--output", str(output)]
    return ["study", *results, *truth, "--participants", "2", *more]


def test_the_same_command_makes_the_same_study_and_another_is_refused(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def files() -> dict[Path, bytes]:
        return {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    assert cli.main(command(pictures, tmp_path, "--resize-to", "16")) == 0
    first = files()
    assert (
        max(images.read_rgb(p, "").shape[1] for p in first if p.suffix == ".png") == 16
    )
    assert cli.main(command(pictures, tmp_path, "--resize-to", "16")) == 0
    assert files() == first
    assert cli.main(command(pictures, tmp_path, "--seed", "1")) == 2
    assert "holds another study" in capsys.readouterr().err
    assert files() == first


def lacking(folder: Path) -> None:
    (folder / "gl" / "album" / "2.png").unlink()


def additional(folder: Path) -> None:
    shutil.copy(folder / "gl/album/2.png", folder / "gl/album/more.png")


def doubled(folder: Path) -> None:
    shutil.copy(folder / "truth/album/2.png", folder / "truth/album/2.jpg")


def another_size(folder: Path) -> None:
    shutil.copy(folder / "gl/album/2.png", folder / "gl/album/3.png")


def not_completed(folder: Path) -> None:
    shutil.copy(folder / "truth/album/2.png", folder / "mean/album/2.png")


def no_picture(folder: Path) -> None:
    (folder / "gl" / "album" / "2.png").write_bytes(b"GIF89a")


def no_folder(folder: Path) -> None:
    shutil.rmtree(folder / "mean")


def nothing(_: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "more", "words"),
    [
        (lacking, [], "gl lacks 1 of 6 pictures, the first"),
        (additional, [], "truth lacks 1 of 7 pictures, the first"),
        (doubled, [], "2.jpg and 2.png, which differ in the suffix alone"),
        (another_size, [], "3.png is 26x24 pixels and"),
        (not_completed, [], ".png, so nothing in it is completed"),
        (no_picture, [], "2.png is not an image in a known format"),
        (no_folder, [], "mean is no folder"),
        (nothing, ["--checks", "7"], "checks (=7) must be at most the number of"),
        (nothing, ["--participants", "10001"], "must be from 1 to 10,000"),
        (nothing, ["--seconds", "0"], "seconds (=0.0) must be above 0"),
        (nothing, ["--kind", "triple"], "must be one of single, pair"),
        (nothing, ["--evaluate", "x"], "leave out RESULTS and --truth"),
    ],
)
def test_mistakes_are_refused_in_one_line(
    change: Callable[[Path], None],
    more: list[str],
    words: str,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(pictures, tmp_path / "in")
    change(tmp_path / "in")
    assert cli.main(command(tmp_path / "in", tmp_path / "study", *more)) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "study").exists()
