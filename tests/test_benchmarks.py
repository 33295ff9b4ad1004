"""The bench without its peer: everything but what PyTorch itself does."""

import importlib
import json
import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gl_jax.config import UsageError

ROOT = Path(__file__).parents[1]
# The bench is no part of the package, and is run from the repository.
sys.path.insert(0, str(ROOT))
cases, command, driver, exchange, machine, ours, photographs, report, tasks = (
    importlib.import_module(f"benchmarks.{name}")
    for name in (
        "cases __main__ driver exchange machine ours photographs report tasks"
    ).split()
)

golden = SimpleNamespace(
    **runpy.run_path(str(ROOT / "tests" / "golden" / "weights.py"))
)


# ---- which cases -------------------------------------------------------------------


def known(size: str = "full", device: str = "cpu", precision: str = "float32") -> list:
    return list(cases.all_cases(size, device, precision))


def names(items: list) -> list[str]:
    return [item.name for item in items]


@pytest.mark.parametrize("size", ["tiny", "full"])
@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_case_is_a_task_with_settings_that_travel(size, device, precision):
    for case in known(size, device, precision):
        assert case.task in ours.TASKS
        assert case.baselines
        assert json.loads(json.dumps(case.settings))


def test_a_name_stands_for_all_cases_that_begin_with_it():
    selected = names(cases.select(known(), ["inference", "joint_step"]))
    sides = [f"inference_{side}" for side in (256, 512, 1024)]
    assert selected == [*sides, "joint_step"]


def test_nothing_compiles_for_a_minute_at_the_tiny_size():
    (step,) = cases.select(cases.select_baselines(known(), [], "full"), ["joint_step"])
    assert "channels_last+compile" in names(step.baselines)
    for case in cases.select_baselines(known("tiny"), [], "tiny"):
        assert not any("compile" in name for name in names(case.baselines))


def test_cases_without_the_wanted_baseline_are_left_out():
    selected = cases.select_baselines(known(), ["pmap over 1 device"], "full")
    assert names(selected) == ["devices"]


def test_the_smoke_bench_runs_every_task():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    listed = re.search(r"bench-smoke\.json --cases \\\n\t\t(\S+)", text)[1].split(",")
    assert {case.task for case in cases.select(known("tiny"), listed)} == {*ours.TASKS}


# ---- the same weights, the same results ----------------------------------------------


@pytest.mark.parametrize("network", ["completion", "discriminator"])
def test_weights_reach_torch_in_its_own_layout(network):
    arrays = getattr(golden, network)()
    variables = golden.flax_variables(arrays)
    back = exchange.torch_arrays(variables["params"], variables["batch_stats"])
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array, err_msg=name)


def test_running_statistics_are_no_weights():
    arrays = {"b.weight": np.ones((2, 2)), "a.bias": np.zeros(1)}
    vector = tasks.flattened(arrays | {"a.running_mean": np.full(3, 7.0)})
    assert vector.tolist() == [0, 1, 1, 1, 1]


def results(**changes: Any) -> dict[str, np.ndarray]:
    image = np.linspace(0.4, 0.6, 48, dtype=np.float32).reshape(1, 4, 4, 3)
    return {"loss.total": np.float32(0.5), "completed": image} | changes


def test_equal_results_agree():
    same = driver.compare(results(), results(), "float32", "x")
    assert set(same.values()) == {0.0}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"loss.total": np.float32(0.501)}, r"who: loss.total differs by 0.002"),
        ({"loss.total": np.float32("nan")}, "differs by nan"),
        # Subtracting the mean keeps a constant image from passing for a completed one.
        ({"completed": np.full((1, 4, 4, 3), 0.5, np.float32)}, "completed differs"),
        ({"completed": np.ones((1, 2, 2, 3), np.float32)}, "is .* beside"),
        ({"extra": np.ones(1)}, "beside"),
    ],
)
def test_other_results_do_not_agree(changes, reason):
    with pytest.raises(driver.MeasurementError, match=reason):
        driver.compare(results(**changes), results(), "float32", "who")


# ---- clock, memory and photographs -----------------------------------------------------


def test_a_turn_is_timed_from_its_inputs_to_its_last_result(monkeypatch):
    events: list[Any] = []

    class Recorder(tasks.Task):
        def inputs(self, seed: int) -> tuple[int]:
            events.append(f"inputs {seed}")
            return (seed,)

        def work(self, seed: int) -> int:
            events.append(f"work {seed}")
            return seed

        def wait(self, results: Any) -> None:
            events.append(f"wait {results}")

    clock = iter([10.0, 14.0])
    monkeypatch.setattr(
        tasks.time, "perf_counter", lambda: events.append("clock") or next(clock)
    )
    assert Recorder({"steps": 2}).run(3) == 2.0
    assert events == [
        *("inputs 6", "inputs 7", "wait [(6,), (7,)]", "clock"),
        *("work 6", "work 7", "wait 7", "clock"),
    ]


def test_processor_seconds_count_only_what_comes_after_the_buffers(monkeypatch):
    clock, taken = iter([10.0, 14.0]), []
    monkeypatch.setattr(tasks.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(tasks, "processors", lambda: 2)
    seconds = tasks.processor_seconds(lambda: taken.append(1), 4, 16)
    assert seconds == 4.0 * 2 / 16
    assert len(taken) == 2 + 2 * 2 + 4


def test_a_large_photograph_has_its_hole_somewhere_else_in_every_turn():
    (photograph, mask), (_, other) = (
        photographs.large_with_hole(seed, 80, 60, hole=8) for seed in (1, 2)
    )
    assert (photograph.shape, photograph.dtype) == ((60, 80, 3), np.uint8)
    assert mask.sum() == other.sum() == 64
    assert (mask != other).any()


@pytest.mark.skipif(not machine.LINUX, reason="elsewhere the mark cannot be set back")
def test_the_peak_is_what_was_held_since_the_reset():
    machine.reset_peak()
    before = machine.peak()
    held = np.ones(10_000_000)  # 80 MB
    del held
    assert machine.peak() - before > 70e6
    machine.reset_peak()
    assert machine.peak() - before < 40e6


def test_the_jpegs_have_the_wanted_size_and_differ(tmp_path):
    photographs.write_jpegs(tmp_path, 7, height=48, width=64)
    files = sorted(tmp_path.glob("*.jpg"))
    assert len({file.read_bytes() for file in files}) == 7
    for file in files:
        with Image.open(file) as image:
            assert (image.format, image.size) == ("JPEG", (64, 48))


def test_random_photographs_depend_on_the_turn_only():
    first, again, other = (tasks.random_images(seed, 1, 8, 8) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


# ---- taking turns ------------------------------------------------------------------------


def a_case(**settings: Any) -> Any:
    (case, *_) = cases.select(known("tiny"), ["inference"])
    baselines = tuple(cases.Candidate(name, "jax") for name in ("plain", "better"))
    return cases.replace(case, settings=case.settings | settings, baselines=baselines)


def test_records_hold_medians_ratios_and_the_best():
    times = {"ours": [2.0, 9.0, 1.0], "plain": [8.0, 6.0, 7.0], "better": [3.0] * 3}
    first = {"ours": [4.0], "plain": [6.0], "better": [8.0]}
    peaks = {"ours": 10.0, "plain": 20.0, "better": 30.0}
    plain, better = driver.records(a_case(), times, first, peaks)
    assert plain["ratio"] == 3.5
    assert (plain["ours_seconds"], plain["baseline_seconds"]) == (2.0, 7.0)
    assert (plain["ours_peak_mb"], plain["baseline_peak_mb"]) == (10.0, 20.0)
    assert [plain["best"], better["best"]] == [False, True]
    assert [r["ratio_of_uncounted"] for r in (plain, better)] == [1.5, 2.0]


def test_a_library_that_fails_says_why():
    process = driver.Process(cases.Candidate("someone", "numpy"))
    try:
        with pytest.raises(
            driver.MeasurementError, match=r"someone, at start: KeyError"
        ):
            process.ask("start", library="numpy", task="training", settings={})
    finally:
        process.close()


def test_a_library_that_dies_ends_the_case(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    process = driver.Process(cases.Candidate("someone", "jax"))
    try:
        with pytest.raises(driver.MeasurementError, match="ended with code 1"):
            process.ask("peak")
    finally:
        process.close()


def test_the_runs_that_a_turn_begins_with_do_not_count(monkeypatch):
    asked: list[tuple[str, Any]] = []

    class Recorder:
        def __init__(self, name: str) -> None:
            self.name = name

        def ask(self, request: str, seed: Any = None) -> float:
            asked.append((self.name, seed))
            return float(seed or 0)

    monkeypatch.setattr(driver, "PAUSE", 0)
    times, first = driver.take_turns([Recorder("ours"), Recorder("eager")], 2, 1)
    assert asked[2:] == [
        (name, seed)
        for seeds in ((10, 11), (12, 13))
        for name in times
        for seed in seeds
    ]
    assert times == {"ours": [11.0, 13.0], "eager": [11.0, 13.0]}
    assert first == {"ours": [10.0, 12.0], "eager": [10.0, 12.0]}
    assert driver.take_turns([Recorder("ours")], 2, 0) == (
        {"ours": [10.0, 11.0]},
        {"ours": []},
    )


@pytest.mark.slow
def test_both_sides_agree_and_take_turns(capfd):
    case = a_case(side=16)
    case = cases.replace(case, baselines=case.baselines[:1])
    (record,) = driver.measure(case, print)
    assert record["case"] == "inference_256"
    assert record["largest_differences"] == {"completed": 0.0, "composite": 0.0}
    assert len(record["ours_times"]) == len(record["baseline_times"]) == 2
    assert record["ratio_of_uncounted"] is None
    assert record["ratio"] > 0
    assert record["ours_peak_mb"] > 0
    json.dumps(record)


# ---- the page ----------------------------------------------------------------------------


def a_record(case: str = "joint_step", **changes: Any) -> dict[str, Any]:
    return {
        "case": case,
        "baseline": "eager",
        "ratio": 2.0,
        "ratio_of_uncounted": None,
        "ours_seconds": 0.5,
        "baseline_seconds": 1.0,
        "ours_peak_mb": 80.0,
        "baseline_peak_mb": 100.0,
        "best": True,
        "precision": "float32",
        "device": "cpu",
        "size": "full",
        "versions": {"jax": "1"},
        "revision": "abc",
        "machine": {
            "processor": "a processor",
            "processors": 2,
            "memory_gb": 8,
            "gpu": "",
            "system": "a system",
            "python": "3",
        },
    } | changes


def test_the_table_holds_ratio_times_and_memory():
    text = report.markdown([a_record(ratio_of_uncounted=1.31)])
    assert (
        "| joint_step | float32 | **eager** | 2.00 (1.31) | 500 ms | 1 s "
        "| 80 / 100 MB = 0.80 |"
    ) in text


def test_the_machine_and_the_revision_stand_above_the_tables_once():
    text = report.markdown([a_record(), a_record("inference_512")])
    machine_line = (
        "- a processor, 2 processors, 8 GB, a system, Python 3, jax 1; "
        "revision abc, size full."
    )
    assert text.startswith(f"{machine_line}\n\n### Processors")
    assert text.count(machine_line) == 1


def test_each_kind_of_device_has_a_table_of_its_own():
    text = report.markdown([a_record(), a_record(device="gpu", ratio=9.0)])
    processors, gpus = text.split("### GPUs")
    assert "### Processors" in processors
    assert "| 2.00 |" in processors
    assert "| 9.00 |" in gpus
    assert "### GPUs" not in report.markdown([a_record()])


def test_the_page_around_the_tables_stays(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# Speed\n{report.BEGIN}\nstale\n{report.END}\nThe end.\n")
    report.write(page, [a_record()])
    text = page.read_text()
    assert text.startswith(f"# Speed\n{report.BEGIN}\n")
    assert text.endswith(f"{report.END}\nThe end.\n")
    assert "stale" not in text
    report.write(page, [a_record(ratio=7.77)])
    assert page.read_text().count("joint_step") == 1


def test_a_page_without_marks_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Speed\n")
    with pytest.raises(UsageError, match="needs the lines"):
        report.write(page, [a_record()])


def test_the_page_of_the_project_holds_tables_like_these():
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    measured = text[text.index(report.BEGIN) : text.index(report.END)]
    assert f"| {' | '.join(report.COLUMNS)} |" in measured


def test_of_two_files_the_later_one_counts(tmp_path):
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    files[0].write_text(json.dumps([a_record(), a_record(baseline="other")]))
    files[1].write_text(json.dumps([a_record(ratio=3.0)]))
    assert [record["ratio"] for record in report.read(files)] == [3.0, 2.0]


@pytest.mark.parametrize("content", ["not JSON", "1", "[1]", '[{"case": 1}]', "[]"])
def test_a_file_that_is_not_the_bench_s_is_refused(tmp_path, content):
    file = tmp_path / "a.json"
    file.write_text(content)
    with pytest.raises(UsageError):
        report.read([file])


# ---- the command -------------------------------------------------------------------------


def test_the_command_lists_its_cases(capsys):
    assert command.main(["--list", "--cases", "joint_step,inference_512"]) == 0
    assert capsys.readouterr().out.split() == ["joint_step", "inference_512"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--cases", "joint_stp"], "Did you mean 'joint_step'"),
        (["--against", "tensorflow"], "--against: there is no 'tensorflow'"),
        (["--repeats", "0"], "--repeats (=0) must be at least 1"),
        (["--report", "missing.json"], "missing.json cannot be read"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(words, reason, capsys):
    assert command.main(words) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1


def test_the_command_writes_the_page(tmp_path, capsys):
    page, file = tmp_path / "page.md", tmp_path / "a.json"
    page.write_text(f"{report.BEGIN}\n{report.END}\n")
    file.write_text(json.dumps([a_record()]))
    assert command.main(["--report", str(file), "--page", str(page)]) == 0
    assert "| joint_step |" in page.read_text()


def test_a_later_failure_loses_no_measurement(tmp_path, monkeypatch, capsys):
    def measure(case: Any, log: Any, repeats: int | None) -> list[dict[str, Any]]:
        if case.name == "joint_step":
            raise driver.MeasurementError("it broke")
        return [a_record(case.name)]

    monkeypatch.setattr(driver, "measure", measure)
    file = tmp_path / "runs" / "bench.json"
    words = ["--cases", "completion_step,joint_step", "--json", str(file)]
    assert command.main([*words, "--device", "cpu"]) == 1
    assert [r["case"] for r in json.loads(file.read_text())] == ["completion_step"]
    assert "joint_step: not measured: it broke" in capsys.readouterr().err
