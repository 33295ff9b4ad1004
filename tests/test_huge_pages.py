"""Huge pages: asked for once, and only where Linux gives them on request."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gl_jax import huge_pages

ASKED = "glibc.malloc.hugetlb=1"


@pytest.fixture
def mode(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file in which Linux says who gets huge pages; by default who asks."""
    file = tmp_path / "enabled"
    file.write_text("always [madvise] never\n")
    monkeypatch.setattr(huge_pages, "_MODE", file)
    return file


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ASKED),
        ({"GLIBC_TUNABLES": ""}, ASKED),
        (
            {"GLIBC_TUNABLES": "glibc.malloc.check=1"},
            f"glibc.malloc.check=1:{ASKED}",
        ),
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, "glibc.malloc.hugetlb=0"),
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=2"}, "glibc.malloc.hugetlb=2"),
    ],
)
@pytest.mark.usefixtures("mode")
def test_what_was_told_stays(given, expected) -> None:
    found = huge_pages.environment(given | {"HOME": "somewhere"})
    assert found == {"HOME": "somewhere", "GLIBC_TUNABLES": expected}


@pytest.mark.parametrize(
    "text", ["[always] madvise never\n", "always madvise [never]\n", None]
)
def test_nothing_is_asked_where_nothing_is_gained(text, mode) -> None:
    mode.unlink() if text is None else mode.write_text(text)
    assert huge_pages.environment({"HOME": "somewhere"}) == {"HOME": "somewhere"}


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """The processes that were begun; none of them runs."""
    found: list[tuple] = []
    monkeypatch.setattr(os, "execve", lambda *arguments: found.append(arguments))
    return found


@pytest.mark.usefixtures("mode")
def test_a_process_begins_again_once(begun, monkeypatch) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "gl_jax", "models"])
    huge_pages.begin_again()
    ((program, words, environment),) = begun
    assert program == sys.executable
    assert words == [sys.executable, "-m", "gl_jax", "models"]
    assert environment == dict(os.environ) | {"GLIBC_TUNABLES": ASKED}
    monkeypatch.setenv("GLIBC_TUNABLES", environment["GLIBC_TUNABLES"])
    huge_pages.begin_again()
    assert len(begun) == 1


@pytest.mark.usefixtures("mode")
def test_a_process_that_cannot_begin_again_goes_on(monkeypatch) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(arguments)

    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(os, "execve", refuse)
    huge_pages.begin_again()


@pytest.mark.parametrize(
    "way", [["-m", "gl_jax"], [str(Path(sys.executable).parent / "gl-jax")]]
)
def test_the_command_line_has_them(way, tmp_path) -> None:
    """An experiment is Python: it sees what its process was begun with."""
    experiment = tmp_path / "telling.py"
    experiment.write_text(
        "import os\nfrom gl_jax.config import Config\n"
        "print('told:', os.environ.get('GLIBC_TUNABLES'))\nconfig = Config()\n"
    )
    free = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    run = subprocess.run(
        [sys.executable, *way, "summary", str(experiment), "--run.seed", "3.5"],
        capture_output=True, text=True, env=free,
    )  # fmt: skip
    told = huge_pages.environment(free).get("GLIBC_TUNABLES")
    assert run.stdout.splitlines() == [f"told: {told}"]
    assert run.returncode == 2
