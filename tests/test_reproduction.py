"""The figures and the table of docs/reproduction.md, from logs made up here."""

import importlib.util
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gl_jax.experiment import load_experiment

FOLDER = Path(__file__).parents[1] / "docs" / "reproduction"
EXPERIMENT = FOLDER.parents[1] / "experiments" / "reproduction.py"


@pytest.fixture(scope="module")
def report():
    spec = importlib.util.spec_from_file_location("report", FOLDER / "report.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_run(folder: Path, psnr: float, status: str = "finished") -> None:
    folder.mkdir(parents=True)
    (folder / "run_status.json").write_text(json.dumps({"status": status}))
    lines = []
    for step in range(100, 700, 100):
        line = {"step": step, "phase": "joint"}
        lines.append(line | {"real_accuracy": 0.7, "fake_accuracy": 0.5 + step / 1000})
        measures = {"val_psnr": psnr + step / 1000, "val_l1": 0.1, "val_grid": 0.05}
        measures |= {"val_swd_fine": 20.0, "val_swd_coarse": 10.0}
        lines.append(line | measures | {"val_grid_photographs": 0.2})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    (folder / "samples").mkdir()
    mask = np.zeros((3, 32, 32, 1), bool)
    mask[:, 4:24, 4:24] = True
    photo = np.full((3, 32, 32, 3), 90, np.uint8)
    arrays = {"photo": photo, "mask": mask, "completed": photo + np.uint8(psnr)}
    np.savez(folder / "samples" / "step_00000600.npz", **arrays)


def test_the_page_gets_its_table_and_its_figures(report, tmp_path, monkeypatch):
    runs = tmp_path / "runs"
    for seed, psnr in enumerate((15.0, 16.0)):
        write_run(runs / f"seed{seed}" / "completion", 14.0)
        write_run(runs / f"seed{seed}" / "both", psnr)
    write_run(runs / "seed0" / "local", 17.0, status="running")
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table -->\nold\n<!-- end of table -->\nafter\n")
    monkeypatch.setattr(report, "PAGE", page)
    monkeypatch.setattr(report, "HERE", tmp_path)
    report.main(runs)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n")
    assert "old" not in text and "local" not in text
    (row,) = re.findall(r"^\| \+ both \|.*", text, re.M)
    # Means at the last step, and the standard error of two seeds 1 dB apart.
    assert "| 2 | 16.10 ± 0.50 | 0.100 ± 0.000 | 20.0 ± 0.0 |" in row
    assert "| 0.70 ± 0.00 | 0.85 ± 0.00 |" in row
    assert "The photographs' own grid energy is 0.200." in text
    for name in ("curves.png", "pictures.png", "spectra.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_without_a_finished_run_it_says_so(report, tmp_path):
    write_run(tmp_path / "seed0" / "both", 15.0, status="running")
    with pytest.raises(SystemExit, match="holds no finished run"):
        report.main(tmp_path)


def test_its_settings_are_those_of_the_experiment_and_of_the_script(report):
    text = (FOLDER / "run.sh").read_text()
    (settings,) = re.findall(r"SETTINGS:-(.*?)}", text)
    assert {"completion", *settings.split()} == set(report.SETTINGS)
    for setting in settings.split():
        assert load_experiment(f"{EXPERIMENT}:{setting}").config.name == setting
    subprocess.run(["bash", "-n", FOLDER / "run.sh"], check=True)


def test_stripes_are_power_along_the_axes_and_others_are_not(report):
    mask = np.zeros((1, 32, 32, 1), bool)
    mask[:, 8:24, 8:24] = True
    rows, columns = np.mgrid[:32, :32]
    for wave, more in ((columns, 0), (rows, 0), (rows + columns, 1)):
        image = 128 + 80 * np.cos(2 * np.pi * wave / 4)
        spectrum = report.power(np.repeat(image[None, ..., None], 3, 3), mask)
        assert np.nansum(spectrum[more]) > 100 * np.nansum(spectrum[1 - more])
        # Four waves in 16 pixels; along the diagonal 4 in each direction, together 6.
        assert np.nanargmax(spectrum[more]) + 2 == (6 if more else 4)
