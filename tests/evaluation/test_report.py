"""Several training runs on one page, from nothing but their folders."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from gl_jax.config import (
    Config,
    DataConfig,
    HolesConfig,
    ModelConfig,
    RunConfig,
    ScheduleConfig,
    UsageError,
)
from gl_jax.evaluation import report as page
from gl_jax.training.report import Report

SIDE = 32


def write_run(
    folder: Path,
    discriminators: str = "both",
    *,
    seed: int = 0,
    steps: int = 40,
    name="test",
) -> Path:
    """A folder as a training run leaves it."""
    config = Config(
        name=name,
        model=ModelConfig(width=0.0625, discriminators=discriminators),
        data=DataConfig(batch_size=2, image_size=SIDE, resize=(SIDE, SIDE)),
        holes=HolesConfig(min_size=8, max_size=12, local_size=16),
        schedule=ScheduleConfig(20, 5, 60),
        run=RunConfig(seed=seed),
    )
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config.to_json())
    (folder / "run_status.json").write_text(json.dumps({"status": "preempted"}))
    rng = np.random.default_rng(seed)
    photographs = rng.integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)
    mask = np.zeros((3, SIDE, SIDE, 1), np.float32)
    mask[:, 8:20, 4:16] = 1
    report = Report(folder, config=config, start_step=0)
    for step in range(10, steps + 1, 10):
        phase = config.phase_at(step - 1)
        report.scalars(step, phase, {"completion_loss": 1 / step})
        report.validation(step, phase, {"val_psnr": 10 + step / 10, "val_l1": 0.1})
        completed = np.full((3, SIDE, SIDE, 3), step / 100, np.float32)
        composite = np.where(mask > 0, completed, photographs / 255)
        report.samples(step, photographs, mask, completed, composite)
    report.close()
    return folder


def drawn_sheets(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list, list]]:
    """Titles and rows of every sheet drawn from here on."""
    sheets: list[tuple[list, list]] = []

    def keep(titles, rows, **_):
        sheets.append((titles, rows))
        return b""

    monkeypatch.setattr(page, "draw_sheet", keep)
    return sheets


@pytest.fixture
def log() -> list[str]:
    return []


def test_a_page_holds_its_pictures_and_needs_nothing_else(tmp_path, log):
    folder = write_run(tmp_path / "a")
    file = page.report([folder], tmp_path / "out", log=log.append)
    text = file.read_text()
    assert text.count("data:image/png;base64,") == 3
    outside = re.findall(r'\b(?:src|href)=(?!"data:)\S*', text)
    assert outside == []
    assert "preempted" in text
    assert "14.00" in text  # the best PSNR


def test_runs_of_one_name_are_told_apart_and_their_differences_named(tmp_path, log):
    folders = [write_run(tmp_path / n, seed=i) for i, n in enumerate("ab")]
    text = page.report(folders, tmp_path / "out", log=log.append).read_text()
    assert "test (a)" in text
    assert "test (b)" in text
    assert "run.seed" in text
    assert {p.name for p in (tmp_path / "out").glob("film_*")} == {
        "film_test__a_.png",
        "film_test__b_.png",
    }


def test_the_ablation_figure_stands_in_the_papers_order(tmp_path, log, monkeypatch):
    order = ("both", "none", "local", "global")
    folders = [write_run(tmp_path / j, j, name=f"ablation-{j}") for j in order]
    sheets = drawn_sheets(monkeypatch)
    page.report(folders, tmp_path / "out", log=log.append)
    titles, rows = sheets[-1]
    kinds = ["MSE", "MSE + global", "MSE + local", "MSE + both"]
    assert titles == ["input", *kinds, "photo"]
    assert len(rows) == 3
    assert rows[0][1].caption == "step 40"


def test_runs_of_other_photographs_make_no_ablation_figure(tmp_path, log):
    folders = [
        write_run(tmp_path / "a", "none"),
        write_run(tmp_path / "b", "both", seed=1),
    ]
    text = page.report(folders, tmp_path / "out", log=log.append).read_text()
    assert not (tmp_path / "out" / "ablation.png").exists()
    assert "no ablation figure" in text
    assert any("no ablation figure" in line for line in log)


def test_a_film_strip_begins_with_the_hole_and_ends_with_the_photo(
    tmp_path, log, monkeypatch
):
    folder = write_run(tmp_path / "a", steps=200)
    sheets = drawn_sheets(monkeypatch)
    page.report([folder], tmp_path / "out", log=log.append)
    ((titles, (row,)),) = sheets
    assert titles[:2] == ["hole", "step 10"]
    assert titles[-2:] == ["step 200", "photo"]
    assert len(row) == page.FRAMES + 2
    assert (row[0].image[8:20, 4:16] == 255).all()
    assert (row[1].image[8:20, 4:16] == round(0.1 * 255)).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder.mkdir(), "no config.json"),
        (lambda folder: None, "no config.json"),
        (
            lambda folder: (write_run(folder) / "metrics.jsonl").unlink(),
            "no line in metrics.jsonl",
        ),
        (
            lambda folder: (
                write_run(folder) / "samples" / "step_00000010.npz"
            ).write_bytes(b"no arrays"),
            "cannot be read",
        ),
        *(
            (
                lambda folder, content=content: (
                    write_run(folder) / "config.json"
                ).write_bytes(content),
                r"run/config\.json is damaged: ",
            )
            for content in (b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"run": 3}')
        ),
    ],
)
def test_what_is_no_run_is_refused_in_one_line(make, words, tmp_path, log):
    make(tmp_path / "run")
    with pytest.raises(UsageError, match=words) as refusal:
        page.report([tmp_path / "run"], tmp_path / "out", log=log.append)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("place", [110, 900, -30])
def test_damaged_arrays_are_refused_by_name(place, tmp_path, log):
    file = write_run(tmp_path / "run") / "samples" / "step_00000010.npz"
    content = bytearray(file.read_bytes())
    content[place] ^= 0x10
    for damaged in (content, content[: place % len(content)]):
        file.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"step_00000010\.npz cannot be read"):
            page.report([tmp_path / "run"], tmp_path / "out", log=log.append)


def test_a_run_that_was_broken_off_is_reported_on(tmp_path, log):
    """A line cut off, a status cut off, one validation, values that are not finite."""
    folder = write_run(tmp_path / "run", steps=10)
    (folder / "run_status.json").write_text('{"status": "runn')
    with (folder / "metrics.jsonl").open("a") as file:
        for step in range(11, 300):
            values = {"completion_loss": None, "images_per_second": None}
            line = {"step": step, "phase": "completion"} | values
            file.write(json.dumps(line) + "\n")
        file.write('{"step": 300, "pha')
    text = page.report([folder], tmp_path / "out", log=log.append).read_text()
    assert "<td>299<td>60<td>unknown<td>11.00<td>10<td>11.00" in text


def test_a_run_without_a_validation_is_reported_on(tmp_path, log):
    folder = write_run(tmp_path / "run", steps=20)
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if "val_psnr" not in line]
    (folder / "metrics.jsonl").write_text("".join(kept))
    page.report([folder], tmp_path / "out", log=log.append)
    assert not (tmp_path / "out" / "validation.png").exists()


def test_nothing_to_report_on_is_a_mistake(tmp_path):
    with pytest.raises(UsageError, match="at least one folder"):
        page.report([], tmp_path)


def test_a_run_without_arrays_of_samples_has_no_film_strip(tmp_path, log):
    folder = write_run(tmp_path / "a")
    for arrays in (folder / "samples").glob("*.npz"):
        arrays.unlink()
    page.report([folder], tmp_path / "out", log=log.append)
    assert any("no film strip" in line for line in log)
