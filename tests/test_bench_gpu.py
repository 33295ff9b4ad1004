"""The bench of one GPU, rehearsed on a processor at a tiny size."""

import importlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from gl_jax.config import UsageError

ROOT = Path(__file__).parents[1]
# The bench is no part of the package, and is run from the repository.
sys.path.insert(0, str(ROOT))
accelerators, cases, checks, driver, gpu = (
    importlib.import_module(f"benchmarks.{name}")
    for name in "accelerators cases checks driver gpu".split()
)
# Not rich: Flax itself imports it.
ABSENT = "tensorflow orbax matplotlib PIL cv2 safetensors tyro tensorboardX".split()


def measured(**changes: Any) -> dict[str, Any]:
    record = {
        "case": "joint_step",
        "precision": "bfloat16",
        "baseline": "eager",
        "ratio": 2.0,
        "ratio_of_uncounted": None,
        "ours_seconds": 0.5,
        "baseline_seconds": 1.0,
        "ours_peak_mb": 80.0,
        "baseline_peak_mb": 100.0,
        "best": True,
        "flops": 2e14,
        "versions": {"jax": "1"},
    }
    machine = {
        "processor": "a processor",
        "processors": 16,
        "memory_gb": 128,
        "gpu": "a card",
        "system": "a system",
        "python": "3",
    }
    return {
        "machine": machine,
        "revision": "abc",
        "size": "full",
        "device": "gpu",
        "matrix_peak": {"bfloat16": 8e14},
        "parity": [
            {
                "phase": "joint",
                "precision": "float32",
                "differences": {"loss.completion": 2e-5},
                "agrees": False,
            }
        ],
        "kernels": [{"name": "a_kernel", "seconds": 0.1, "calls": 3, "share": 0.25}],
        "kernels_of": "bfloat16",
        "records": [record],
        "left_out": ["steps, float32, eager: no time was left"],
    } | changes


# ---- the page --------------------------------------------------------------------------


def test_the_tables_hold_the_share_of_the_peak_and_all_that_was_looked_at():
    text = accelerators.markdown(measured())
    assert "| GPU | joint_step | bfloat16 | **eager** | 2.00 | 500 ms | 1 s |" in text
    assert "| 50 % |" in text
    assert "| joint | float32 | loss.completion 2e-05 | **no** |" in text
    assert "| `a_kernel` | 25.0 % | 3 |" in text
    assert "- steps, float32, eager: no time was left" in text
    assert "a card" in text


def test_a_run_that_was_cut_off_makes_a_page():
    text = accelerators.markdown(
        {k: measured()[k] for k in ("machine", "revision", "size", "device")}
        | {"records": [], "left_out": []}
    )
    assert "| GPU | not measured |" in text


def test_the_page_of_the_project_says_that_nothing_was_measured():
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    begin, end = accelerators.BEGIN, accelerators.END
    assert text[text.index(begin) : text.index(end)].count("| not measured |") >= 1


def test_the_command_writes_the_page(tmp_path):
    page, file = tmp_path / "page.md", tmp_path / "gpu.json"
    page.write_text(f"Before.\n{accelerators.BEGIN}\n{accelerators.END}\nAfter.\n")
    file.write_text(json.dumps(measured()))
    assert gpu.main(["--report", str(file), "--page", str(page)]) == 0
    assert page.read_text().startswith("Before.\n")
    assert page.read_text().endswith("After.\n")
    assert "joint_step" in page.read_text()


@pytest.mark.parametrize("content", ["", "[]", '{"records": []}'])
def test_a_file_that_is_not_the_bench_s_is_refused(tmp_path, content):
    file = tmp_path / "gpu.json"
    file.write_text(content)
    with pytest.raises(UsageError):
        accelerators.read(file)


# ---- what is measured --------------------------------------------------------------------


def test_the_full_size_is_the_paper_s():
    of = {(g.name, g.precision): g.cases for g in gpu.groups("full", "gpu")}
    for precision, batch in (("bfloat16", 96), ("float32", 32)):
        for case in of["steps", precision]:
            assert (case.settings["batch"], case.settings["image_size"]) == (batch, 256)
        sides = [case.settings["side"] for case in of["inference", precision]]
        assert sides == [256, 512, 1024, 2048]
    names = [case.name for case in of["steps", "bfloat16"]]
    assert names == ["completion_step", "joint_step"]


def test_a_worker_is_ended_when_its_time_is_up():
    case = gpu.groups("tiny", "cpu")[0].cases[0]
    start = time.monotonic()
    with (
        pytest.raises(driver.MeasurementError, match="ended"),
        gpu._process(case.ours, 0.1) as process,
    ):
        gpu._start(process, case, case.ours)
    assert time.monotonic() - start < 20


def test_the_longest_kernels_are_those_of_the_work():
    product = jax.jit(lambda a: jnp.tanh(a @ a))
    a = jnp.ones((256, 256))
    jax.block_until_ready(product(a))
    kernels = checks.longest(lambda: jax.block_until_ready(product(a)), 3)
    assert 1 <= len(kernels) <= 3
    assert [k["share"] for k in kernels] == sorted(
        (k["share"] for k in kernels), reverse=True
    )
    assert 0 < sum(k["share"] for k in kernels) <= 1 + 1e-6


def test_a_matrix_product_has_a_rate():
    peak = checks.matrix_peak("tiny")
    assert set(peak) == {"bfloat16", "float32"}
    assert min(peak.values()) > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_our_side_needs_jax_alone(tmp_path):
    """A step is compared, counted and timed, without what is not there."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({ABSENT})); "
        "from benchmarks.worker import serve; serve()"
    )
    case = gpu.groups("tiny", "cpu")[2].cases[0]
    requests = [
        {"do": "start", "library": "jax", "task": case.task, "settings": case.settings},
        {"do": "export", "folder": str(tmp_path)},
        {"do": "outcome", "folder": str(tmp_path), "name": "ours"},
        {"do": "flops"},
        {"do": "run", "seed": 1},
        {"do": "kernels", "count": 10},
        {"do": "peak"},
    ]
    worker = subprocess.run(
        [sys.executable, "-c", code],
        input="".join(json.dumps(request) + "\n" for request in requests),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    answers = [json.loads(line) for line in worker.stdout.splitlines()]
    assert not [answer for answer in answers if "error" in answer], worker.stderr
    *_, flops, seconds, kernels, peak = (answer["answer"] for answer in answers)
    assert flops > 1e8
    assert seconds > 0
    assert 1 <= len(kernels) <= 10
    assert peak > 0


def test_the_target_of_the_makefile_runs_it():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^bench-gpu:\n\tpython3 -m benchmarks.gpu ", text, re.M)
