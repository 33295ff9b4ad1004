"""The bench without its peer: everything but what PyTorch itself does."""

import importlib
import json
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
cases, command, contest, exchange, inputs, memory, ours, photographs, report = (
    importlib.import_module(f"benchmarks.{name}")
    for name in (
        "cases __main__ contest exchange inputs memory ours photographs report"
    ).split()
)

golden = SimpleNamespace(
    **runpy.run_path(str(ROOT / "tests" / "golden" / "weights.py"))
)


# ---- which cases -------------------------------------------------------------------


def known(size: str = "full", device: str = "cpu", precision: str = "float32") -> list:
    return list(cases.all_cases(size, device, precision))


def names(found: list) -> list[str]:
    return [case.name for case in found]


@pytest.mark.parametrize("size", ["tiny", "full"])
@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_case_is_a_task_with_settings_that_travel(size, device, precision):
    for case in known(size, device, precision):
        assert case.task in ours.TASKS
        assert case.baselines
        assert json.loads(json.dumps(case.settings))


def test_a_name_stands_for_all_cases_that_begin_with_it():
    found = names(cases.chosen(known(), ["inference", "joint_step"]))
    sides = [f"inference_{side}" for side in (256, 512, 768, 1024)]
    assert found == [*sides, "joint_step"]


def test_an_unknown_case_is_refused_with_the_nearest_one():
    with pytest.raises(UsageError, match="Did you mean 'joint_step'"):
        cases.chosen(known(), ["joint_stp"])


def test_the_usual_baselines_are_the_configurations_in_use():
    step = cases.chosen(cases.against(known(), [], "full"), ["joint_step"])[0]
    assert [b.name for b in step.baselines] == list(cases.CONFIGURATIONS["float32"])


def test_nothing_compiles_for_a_minute_at_the_tiny_size():
    for case in cases.against(known("tiny"), [], "tiny"):
        assert not any("compile" in baseline.name for baseline in case.baselines)


def test_cases_without_the_wanted_baseline_are_left_out():
    found = cases.against(known(), ["pmap over 1 device"], "full")
    assert names(found) == ["devices"]


def test_all_stands_for_every_baseline():
    assert cases.against(known(), ["all"], "tiny") == known()


def test_an_unknown_baseline_is_refused():
    with pytest.raises(UsageError, match="--against: there is no 'tensorflow'"):
        cases.against(known(), ["tensorflow"], "full")


def test_the_paper_s_network_has_32_billion_multiplications():
    assert sum(ours.completion_macs(256, 256, 1.0)) / 1e9 == pytest.approx(
        32.55, abs=0.01
    )


def test_the_multiplications_of_the_global_discriminator():
    # 25 * cin * cout * side^2 of six layers, and 8192 * 1024 of the dense one.
    first = 25 * 3 * 64 * 128**2
    columns = ((64, 128, 64), (128, 256, 32), (256, 512, 16), (512, 512, 8))
    rest = sum(25 * i * o * side**2 for i, o, side in columns)
    rest += 25 * 512 * 512 * 4**2 + 8192 * 1024
    assert ours.discriminator_macs(256, 1.0) == (first, rest)


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
    vector = exchange.flattened(arrays | {"a.running_mean": np.full(3, 7.0)})
    assert vector.tolist() == [0, 1, 1, 1, 1]


def results(**changes: Any) -> dict[str, np.ndarray]:
    image = np.linspace(0.4, 0.6, 48, dtype=np.float32).reshape(1, 4, 4, 3)
    return {"loss.total": np.float32(0.5), "completed": image} | changes


def test_equal_results_agree():
    assert set(contest.agreed(results(), results(), "float32", "x").values()) == {0.0}


def test_another_loss_does_not_agree():
    other = results(**{"loss.total": np.float32(0.501)})
    with pytest.raises(contest.ContestError, match=r"who: loss.total differs by 0.002"):
        contest.agreed(results(), other, "float32", "who")


def test_a_constant_image_does_not_pass_for_a_completed_one():
    flat = np.full((1, 4, 4, 3), 0.5, np.float32)
    with pytest.raises(contest.ContestError, match="completed differs"):
        contest.agreed(results(completed=flat), results(), "float32", "who")


def test_not_a_number_does_not_agree():
    other = results(**{"loss.total": np.float32("nan")})
    with pytest.raises(contest.ContestError, match="differs by nan"):
        contest.agreed(results(), other, "float32", "who")


def test_results_of_other_names_do_not_agree():
    with pytest.raises(contest.ContestError, match="beside"):
        contest.agreed(results(), results(extra=np.ones(1)), "float32", "who")


# ---- clock, memory and photographs -----------------------------------------------------


def test_processor_seconds_count_only_what_comes_after_the_buffers(monkeypatch):
    clock, taken = iter([10.0, 14.0]), []
    monkeypatch.setattr(inputs.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(inputs, "processors", lambda: 2)
    seconds = inputs.processor_seconds(lambda: taken.append(1), 4, 16)
    assert seconds == 4.0 * 2 / 16
    assert len(taken) == 2 + 2 * 2 + 4


def test_a_large_photograph_has_its_hole_somewhere_else_in_every_turn():
    (photograph, mask), (_, other) = (
        photographs.large_turn(seed, 80, 60, hole=8) for seed in (1, 2)
    )
    assert (photograph.shape, photograph.dtype) == ((60, 80, 3), np.uint8)
    assert mask.sum() == other.sum() == 64
    assert (mask != other).any()


@pytest.mark.skipif(not memory.LINUX, reason="elsewhere the mark cannot be set back")
def test_the_peak_is_what_was_held_since_the_reset():
    memory.reset_peak()
    before = memory.peak()
    held = np.ones(10_000_000)  # 80 MB
    del held
    assert memory.peak() - before > 70e6
    memory.reset_peak()
    assert memory.peak() - before < 40e6


def test_the_jpegs_have_the_wanted_size_and_differ(tmp_path):
    photographs.write_jpegs(tmp_path, 7, height=48, width=64)
    files = sorted(tmp_path.glob("*.jpg"))
    assert len({file.read_bytes() for file in files}) == 7
    for file in files:
        with Image.open(file) as image:
            assert (image.format, image.size) == ("JPEG", (64, 48))


def test_random_photographs_depend_on_the_turn_only():
    first, again, other = (inputs.random_images(seed, 1, 8, 8) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


# ---- taking turns ------------------------------------------------------------------------


def a_case(**settings: Any) -> Any:
    everything = {"device": "cpu", "precision": "float32", "size": "tiny", **settings}
    baselines = tuple(cases.Contestant(name, "jax") for name in ("plain", "better"))
    return cases.Case("product", "matrix_product", everything, baselines, repeats=3)


def test_records_hold_medians_ratios_and_the_best():
    times = {"ours": [2.0, 9.0, 1.0], "plain": [8.0, 6.0, 7.0], "better": [3.0] * 3}
    peaks = {"ours": 10.0, "plain": 20.0, "better": 30.0}
    leads = {"ours": [4.0], "plain": [6.0], "better": [8.0]}
    facts = {"repeats": 3, "leads": leads}
    plain, better = contest.records(a_case(), times, peaks, facts)
    assert plain["ratio"] == 3.5
    assert (plain["ours_seconds"], plain["baseline_seconds"]) == (2.0, 7.0)
    assert (plain["ours_peak_mb"], plain["baseline_peak_mb"]) == (10.0, 20.0)
    assert [plain["best"], better["best"]] == [False, True]
    assert [plain["lead_ratio"], better["lead_ratio"]] == [1.5, 2.0]


def test_a_contestant_that_fails_says_why():
    runner = contest.Runner(cases.Contestant("someone", "numpy"))
    try:
        with pytest.raises(contest.ContestError, match=r"someone, at start: KeyError"):
            runner.ask("start", library="numpy", task="training", settings={})
    finally:
        runner.close()


def test_a_contestant_that_dies_ends_the_case(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    runner = contest.Runner(cases.Contestant("someone", "jax"))
    try:
        with pytest.raises(contest.ContestError, match="ended with code 1"):
            runner.ask("peak")
    finally:
        runner.close()


def test_the_runs_that_a_turn_begins_with_do_not_count(monkeypatch):
    asked: list[tuple[str, Any]] = []

    class Recorder:
        def __init__(self, name: str) -> None:
            self.name = name

        def ask(self, request: str, seed: Any = None) -> float:
            asked.append((self.name, seed))
            return float(seed or 0)

    monkeypatch.setattr(contest, "PAUSE", 0)
    times, leads = contest._turns([Recorder("ours"), Recorder("eager")], 2, 1)
    assert asked[2:] == [
        (name, seed)
        for seeds in ((10, 11), (12, 13))
        for name in times
        for seed in seeds
    ]
    assert times == {"ours": [11.0, 13.0], "eager": [11.0, 13.0]}
    assert leads == {"ours": [10.0, 12.0], "eager": [10.0, 12.0]}
    assert contest._turns([Recorder("ours")], 2, 0) == (
        {"ours": [10.0, 11.0]},
        {"ours": []},
    )


@pytest.mark.slow
def test_contestants_agree_and_take_turns(capfd):
    case = a_case(side=64, steps=1)
    case = cases.replace(case, baselines=case.baselines[:1])
    (record,) = contest.measure(case, 2, print)
    assert record["case"] == "product"
    assert record["largest_differences"] == {"completed": 0.0}
    assert len(record["ours_times"]) == len(record["baseline_times"]) == 2
    assert record["lead_ratio"] is None
    assert record["ratio"] > 0
    assert record["flop"] == 2 * 64**3
    assert record["ours_peak_mb"] > 0
    json.dumps(record)


# ---- the page ----------------------------------------------------------------------------


def a_record(case: str = "joint_step", **changes: Any) -> dict[str, Any]:
    return {
        "case": case,
        "baseline": "eager",
        "ratio": 2.0,
        "ours_seconds": 0.5,
        "baseline_seconds": 1.0,
        "ours_peak_mb": 80.0,
        "baseline_peak_mb": 100.0,
        "best": True,
        "precision": "float32",
        "device": "cpu",
        "size": "full",
        "flop": None,
        "settings": {},
        "versions": {"jax": "1"},
        "revision": "abc",
        "machine": {
            "processor": "a processor",
            "processors": 2,
            "memory_gb": 8,
            "system": "a system",
            "python": "3",
            "peak_mb": "the peak",
        },
    } | changes


def curve(kind: str = "batch", power: float = 1.0) -> list[dict[str, Any]]:
    return [
        a_record(
            f"{kind}_curve_{n}",
            settings={"batch": n, "side": 256 * n},
            ours_seconds=0.1 * float(n) ** power,
            baseline_seconds=0.3 * float(n) ** power,
        )
        for n in (4, 1, 2)
    ]


def test_the_table_holds_ratio_goal_and_memory():
    text = report.markdown([a_record()], plotted=False)
    row = next(line for line in text.splitlines() if line.startswith("| joint_step"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2:7] == ["**eager**", "2.00", "1.30 reached", "500 ms", "1 s"]
    assert cells[7] == "80 / 100 MB = 0.80 (goal 0.80 reached)"


def test_goals_of_memory_are_the_processors() -> None:
    def text(**changes: Any) -> str:
        return report.markdown([a_record(**changes)], plotted=False)

    assert "= 0.81 (goal 0.80 not reached)" in text(ours_peak_mb=81.0)
    assert "(goal" not in text(device="gpu")
    assert "(goal" not in text(case="inference_512")


def test_a_goal_that_is_not_reached_is_said():
    text = report.markdown([a_record(ratio=1.2, lead_ratio=1.31)], plotted=False)
    assert "| 1.20 (1.31) | 1.30 not reached |" in text


def test_a_tiny_bench_reaches_no_goal():
    assert "reached" not in report.markdown([a_record(size="tiny")], plotted=False)


def test_what_has_to_be_said_stands_beside_the_case():
    text = report.markdown([a_record("large_photo", note="half of it")], plotted=False)
    assert "| large_photo (half of it) |" in text


def test_shares_are_of_the_faster_matrix_product():
    product = a_record("matrix_product", flop=1e12, ours_seconds=2.0)
    text = report.markdown([product, a_record(flop=1e11)], plotted=False)
    row = next(line for line in text.splitlines() if line.startswith("| joint_step"))
    assert row.endswith("| 20% (10%) |")


def test_the_page_around_the_tables_stays(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# Speed\n{report.BEGIN}\nstale\n{report.END}\nThe end.\n")
    report.write(page, [a_record(), *curve()])
    text = page.read_text()
    assert text.startswith(f"# Speed\n{report.BEGIN}\n")
    assert text.endswith(f"{report.END}\nThe end.\n")
    assert "stale" not in text
    assert f"({report.PLOT})" in text
    report.write(page, [a_record(ratio=7.77)])
    assert page.read_text().count("joint_step") == 1


def test_a_page_without_marks_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Speed\n")
    with pytest.raises(UsageError, match="needs the lines"):
        report.write(page, [a_record()])


def test_the_page_of_the_project_has_its_marks():
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert text.index(report.BEGIN) < text.index(report.END)


def test_of_two_files_the_later_one_counts(tmp_path):
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    files[0].write_text(json.dumps([a_record(), a_record(baseline="other")]))
    files[1].write_text(json.dumps([a_record(ratio=3.0)]))
    assert [record["ratio"] for record in report.read(files)] == [3.0, 2.0]


@pytest.mark.parametrize("content", ["not JSON", "{}", '[{"case": 1}]', "[]"])
def test_a_file_that_is_not_the_bench_s_is_refused(tmp_path, content):
    file = tmp_path / "a.json"
    file.write_text(content)
    with pytest.raises(UsageError):
        report.read([file])


@pytest.mark.parametrize("power", [1.0, 1.5])
def test_the_power_of_a_cost_is_told(power):
    text = report.markdown(curve(power=power), plotted=False)
    assert f"the power {power:.2f} of the size (PyTorch: {power:.2f})" in text


def test_curves_are_drawn_side_by_side(tmp_path):
    assert report.plot(tmp_path / "one.png", curve())
    assert report.plot(tmp_path / "two.png", [*curve(), *curve("area")])
    sizes = []
    for name in ("one.png", "two.png"):
        with Image.open(tmp_path / name) as image:
            sizes.append(image.width)
    assert sizes[1] == 2 * sizes[0]


def test_without_curves_nothing_is_drawn(tmp_path):
    assert not report.plot(tmp_path / "none.png", [a_record()])
    assert not (tmp_path / "none.png").exists()


# ---- the command -------------------------------------------------------------------------


def test_the_command_lists_its_cases(capsys):
    assert command.main(["--list", "--cases", "joint_step,inference_512"]) == 0
    assert capsys.readouterr().out.split() == ["joint_step", "inference_512"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--cases", "nothing"], "there is no 'nothing'"),
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


def test_what_was_measured_is_on_disk_when_a_later_case_fails(
    tmp_path, monkeypatch, capsys
):
    def measure(case: Any, repeats: int, log: Any) -> list[dict[str, Any]]:
        if case.name == "joint_step":
            raise contest.ContestError("it broke")
        return [a_record(case.name)]

    monkeypatch.setattr(contest, "measure", measure)
    file = tmp_path / "runs" / "bench.json"
    words = ["--cases", "completion_step,joint_step", "--json", str(file)]
    assert command.main([*words, "--device", "cpu"]) == 1
    assert [r["case"] for r in json.loads(file.read_text())] == ["completion_step"]
    assert "joint_step: not measured: it broke" in capsys.readouterr().err
