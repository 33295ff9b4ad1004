"""From the JSON of a bench to the tables and the plot of docs/performance.md."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gl_jax.config import UsageError

Record = dict[str, Any]

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
PLOT = "cost-curves.png"

# Ratios to reach: of a case, against a baseline or against the fastest one.
GOALS = {
    ("completion_step", "float32", "eager"): 1.9,
    ("completion_step", "float32", "best"): 1.0,
    ("joint_step", "float32", "eager"): 1.3,
    ("joint_step", "float32", "best"): 1.1,
    ("joint_step", "bfloat16", "best"): 1.2,
    ("inference_512", "float32", "best"): 1.1,
    ("inference_1024", "float32", "best"): 1.1,
    ("large_photo", "float32", "best"): 30.0,
    ("input_pipeline_256x256", "float32", "best"): 2.0,
    ("input_pipeline_640x480", "float32", "best"): 2.0,
    # At most 5 % more time on two devices.
    ("devices", "float32", "best"): 1 / 1.05,
}
# Of memory, ours over theirs: on a processor, eager and the best.
MEMORY_GOALS = {("joint_step", "float32"): 0.8}
# The goals that are the graphics processor's; all others are the processor's.
GPU_GOALS = {("joint_step", "bfloat16", "best")}

TEXT_HEADER = (
    f"{'case':27} {'against':32} {'ratio':>6} {'ours':>10} {'theirs':>10} "
    f"{'ours MB':>8} {'theirs':>8}"
)


def text_line(record: Record) -> str:
    """One comparison for the terminal."""
    mark = "*" if record["best"] else " "
    return (
        f"{record['case']:27} {record['baseline'] + mark:32} {record['ratio']:6.2f} "
        f"{seconds(record['ours_seconds']):>10} "
        f"{seconds(record['baseline_seconds']):>10} "
        f"{record['ours_peak_mb']:8.0f} {record['baseline_peak_mb']:8.0f}"
    )


def read(paths: Iterable[Path]) -> list[Record]:
    """The records of all files; of two of the same comparison the later one counts.

    Raises UsageError where a file is missing or is not one of the bench's.
    """
    found: dict[tuple[Any, ...], Record] = {}
    for path in paths:
        try:
            records = json.loads(path.read_text(encoding="utf-8"))
            for record in records:
                names = ("device", "precision", "case", "baseline")
                found[tuple(record[name] for name in names)] = record
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(
                f"{path} is not a file of the bench: {error!r}."
            ) from error
    if not found:
        raise UsageError("there is not a single measurement in these files.")
    return list(found.values())


def write(page: Path, records: list[Record]) -> None:
    """Replaces what stands between the page's two marks, and draws the plot beside it.

    Raises UsageError where the page has no marks.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{page} cannot be read: {error.strerror}.") from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UsageError(f"{page} needs the lines {BEGIN} and {END} around its tables.")
    plotted = plot(page.with_name(PLOT), records)
    body = markdown(records, plotted)
    page.write_text(f"{before}{begin}\n\n{body}\n{end}{after}", encoding="utf-8")


def markdown(records: list[Record], plotted: bool) -> str:
    """Every comparison in tables, the machine above them."""
    parts = [_machine(records)]
    for device in ("cpu", "gpu"):
        mine = [r for r in records if r["device"] == device]
        mine = [r for r in mine if "_curve_" not in r["case"]]
        if mine:
            title = "Processor" if device == "cpu" else "GPU"
            parts.append(f"### {title}\n\n{_table(mine)}")
            parts += _limits(mine)
    curves = _curves(records)
    if curves:
        lines = [_curve_line(name, points) for name, points in curves.items()]
        parts.append("### Cost\n\n" + "\n".join(lines))
    if plotted:
        parts.append(
            f"![Seconds against batch size and against image area, ours and PyTorch's]({PLOT})"
        )
    return "\n\n".join(parts) + "\n"


def plot(path: Path, records: list[Record]) -> bool:
    """Draws the cost curves as a PNG; False if there are none to draw."""
    curves = _curves(records)
    if not curves:
        return False
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(curves), figsize=(5.2 * len(curves), 3.8), layout="constrained"
    )
    for axis, (name, points) in zip(
        figure.axes if len(curves) > 1 else [axes], curves.items(), strict=True
    ):
        sizes = [size for size, _ in points]
        for label, key, colour in (
            ("gl_jax", "ours_seconds", "#1b6ca8"),
            (f"PyTorch, {points[0][1]['baseline']}", "baseline_seconds", "#d1701f"),
        ):
            values = [record[key] for _, record in points]
            axis.plot(sizes, values, "o", color=colour, label=label)
            base, slope = line(sizes, values)
            ends = [0, max(sizes)]
            axis.plot(ends, [base + slope * x for x in ends], color=colour, alpha=0.4)
        kind, device, precision = name
        axis.set_title(f"{_CURVES[kind][0]}, {device}, {precision}", fontsize=10)
        axis.set_xlabel(_CURVES[kind][1])
        axis.set_ylabel("seconds")
        axis.set_xlim(left=0)
        axis.set_ylim(bottom=0)
        axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return True


def line(sizes: list[float], values: list[float]) -> tuple[float, float]:
    """Intercept and slope of the straight line nearest to the points."""
    middle = sum(sizes) / len(sizes)
    mean = sum(values) / len(values)
    spread = sum((size - middle) ** 2 for size in sizes)
    products = zip(sizes, values, strict=True)
    slope = sum((size - middle) * (value - mean) for size, value in products)
    slope = slope / spread if spread else 0.0
    return mean - slope * middle, slope


def exponent(sizes: list[float], values: list[float]) -> float:
    """The power of the size that the cost grows with; 1 is linear."""
    return line([math.log(s) for s in sizes], [math.log(v) for v in values])[1]


def seconds(value: float) -> str:
    """A time with three digits in the unit that fits."""
    unit, scale = ("s", 1.0) if value >= 1 else ("ms", 1e3)
    return f"{value * scale:.3g} {unit}"


_CURVES = {
    "batch": ("completion step", "photographs in the batch"),
    "area": ("inference", "megapixels"),
}


def _curves(
    records: list[Record],
) -> dict[tuple[str, str, str], list[tuple[float, Record]]]:
    """By kind, device and precision, the points of each curve in order of size."""
    curves: dict[tuple[str, str, str], list[tuple[float, Record]]] = {}
    for record in records:
        kind, _, _ = record["case"].partition("_curve_")
        if kind == record["case"]:
            continue
        settings = record["settings"]
        size = settings["batch"] if kind == "batch" else settings["side"] ** 2 / 1e6
        name = (kind, record["device"], record["precision"])
        curves.setdefault(name, []).append((size, record))
    return {
        name: sorted(points, key=lambda point: point[0])
        for name, points in curves.items()
    }


def _curve_line(name: tuple[str, str, str], points: list[tuple[float, Record]]) -> str:
    kind, device, precision = name
    sizes = [size for size, _ in points]
    powers = [
        exponent(sizes, [record[key] for _, record in points])
        for key in ("ours_seconds", "baseline_seconds")
    ]
    return (
        f"- {_CURVES[kind][0]} ({device}, {precision}), {_CURVES[kind][1]} from "
        f"{sizes[0]:.3g} to {sizes[-1]:.3g}: cost grows with the power {powers[0]:.2f} "
        f"of the size (PyTorch: {powers[1]:.2f}); 1 is linear."
    )


def _machine(records: list[Record]) -> str:
    """The machines, versions and revisions behind the records."""
    lines = []
    for record in records:
        machine, versions = record["machine"], record["versions"]
        place = [
            machine["processor"],
            f"{machine['processors']} processors",
            f"{machine['memory_gb']} GB",
            machine.get("gpu"),
            machine["system"],
            f"Python {machine['python']}",
        ]
        names = [f"{k} {v}" for k, v in versions.items() if k != "jax device"]
        text = ", ".join(part for part in place + names if part)
        lines.append(f"{text}; revision {record['revision']}, size {record['size']}.")
    definition = records[0]["machine"]["peak_mb"]
    return (
        "\n".join(f"- {text}" for text in dict.fromkeys(lines))
        + f"\n- Peak memory on the processor: {definition}. On a GPU: the library's own "
        "count of the most bytes in use."
        + "\n- Ratio: PyTorch's median time over ours, above 1 is faster. The fastest "
        "configuration at a precision is in bold. Where a number follows in brackets, it is "
        "that of each turn's first step, which does not count. Memory: ours over theirs."
    )


def _table(records: list[Record]) -> str:
    lines = [
        "| case | precision | against | ratio | goal | ours | theirs | memory "
        "| of the matrix peak |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for record in records:
        name = record["baseline"]
        best = record["best"]
        cells = [
            record["case"] + _note(record),
            record["precision"],
            f"**{name}**" if best else name,
            _ratio(record),
            _goal(record),
            seconds(record["ours_seconds"]),
            seconds(record["baseline_seconds"]),
            _memory(record),
            _share(record, _most(records, record["precision"])),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _most(records: list[Record], precision: str) -> float | None:
    """Operations a second of the faster library's matrix product, if it was measured."""
    rates = [
        record["flop"] / min(record["ours_seconds"], record["baseline_seconds"])
        for record in records
        if record["case"] == "matrix_product" and record["precision"] == precision
    ]
    return max(rates, default=None)


def _share(record: Record, most: float | None) -> str:
    """Our operations a second, and PyTorch's, as shares of the most possible."""
    flop = record.get("flop")
    if not flop or not most:
        return ""
    ours, theirs = (
        flop / record[f"{who}_seconds"] / most for who in ("ours", "baseline")
    )
    return f"{ours:.0%} ({theirs:.0%})"


def _limits(records: list[Record]) -> list[str]:
    """The limits of the machine, in a sentence for each precision."""
    sentences = []
    for precision in dict.fromkeys(record["precision"] for record in records):
        most = _most(records, precision)
        if most:
            sentences.append(
                f"The faster of both libraries multiplies matrices ({precision}) at "
                f"{most / 1e12:.3g} TFLOP/s: the matrix peak above. The shares count two "
                "operations for each multiplication of a convolution or dense layer, ours "
                "before PyTorch's in brackets."
            )
    for record in records:
        if record["case"] == "memory_copy":
            width = {"float32": 4, "bfloat16": 2}[record["precision"]]
            moved = 2 * width * record["settings"]["side"] ** 2
            least = min(record["ours_seconds"], record["baseline_seconds"])
            sentences.append(
                f"Memory moves {moved / least / 1e9:.3g} GB/s, reading and writing "
                f"together ({record['precision']})."
            )
    return [" ".join(sentences)] if sentences else []


def _note(record: Record) -> str:
    """The remark beside the name of a case."""
    if record["case"].startswith("input_pipeline"):
        ours, theirs = (1 / record[f"{who}_seconds"] for who in ("ours", "baseline"))
        return f" ({ours:.0f} and {theirs:.0f} images a second a core)"
    return f" ({record['note']})" if record.get("note") else ""


def _ratio(record: Record) -> str:
    lead = record.get("lead_ratio")
    return f"{record['ratio']:.2f}" + (f" ({lead:.2f})" if lead else "")


def _goal(record: Record) -> str:
    keys = [(record["case"], record["precision"], name) for name in _held_to(record)]
    on_gpu = record["device"] == "gpu"
    goals = [GOALS[k] for k in keys if k in GOALS and (k in GPU_GOALS) == on_gpu]
    if not goals:
        return ""
    goal = max(goals)
    return f"{goal:.2f} {'reached' if record['ratio'] >= goal else 'not reached'}"


def _memory(record: Record) -> str:
    ours, theirs = record["ours_peak_mb"], record["baseline_peak_mb"]
    ratio = ours / max(1e-9, theirs)
    text = f"{ours:.0f} / {theirs:.0f} MB = {ratio:.2f}"
    goal = MEMORY_GOALS.get((record["case"], record["precision"]))
    held = {"eager", "best"} & set(_held_to(record))
    if goal is None or not held or record["device"] == "gpu":
        return text
    return f"{text} (goal {goal:.2f} {'' if ratio <= goal else 'not '}reached)"


def _held_to(record: Record) -> list[str]:
    """The baselines whose goals a comparison is held to: none but at full size."""
    if record["size"] != "full":
        return []
    return [record["baseline"], *(["best"] if record["best"] else [])]
