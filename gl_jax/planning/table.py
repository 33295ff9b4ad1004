"""A plan as a table."""

from collections.abc import Callable, Sequence

from gl_jax.parallel import PREFETCH
from gl_jax.planning.bounds import DECODE_SECONDS, EFFICIENCIES, PhasePlan, Plan
from gl_jax.planning.search import Attempt

Row = tuple[str, Callable[[PhasePlan], str]]


def of_plan(plan: Plan, attempts: Sequence[Attempt], largest: int | None) -> str:
    """Returns the plan as text: a column for each phase, then the whole run."""
    topology, chip = plan.topology, plan.topology.chip
    pieces = f" in {plan.accumulate} pieces" if plan.accumulate > 1 else ""
    lines = [
        f"{plan.name} on {topology.name}: {topology.count} chips on {topology.hosts} "
        f"host(s), batch {plan.batch_size}, {plan.batch_size // topology.count} a chip"
        f"{pieces}. By {plan.source}.",
        "",
        *_columns(plan),
        "",
        *_whole(plan),
        *_search(plan, attempts, largest),
        "",
        f"Chip: {chip.memory / 1e9:.1f} GB for programs, {chip.bandwidth / 1e9:.0f} GB/s, "
        f"{max(chip.peak.values()) / 1e12:.0f} TFLOP/s in bfloat16, "
        f"{chip.interconnect / 1e9:.0f} GB/s to others ({chip.source}).",
    ]
    return "\n".join(lines + (_by_arithmetic() if chip.platform == "gpu" else []))


def _columns(plan: Plan) -> list[str]:
    size = plan.batch_size / plan.topology.count
    rows: list[Row] = [
        ("updates", lambda p: f"{p.steps:,}"),
        ("fits into a chip", lambda p: "yes" if p.fits else "NO"),
        ("memory of a chip, GB", lambda p: _giga(p.need.memory)),
        ("  state", lambda p: _giga(p.need.state)),
        (f"  photographs, {1 + PREFETCH} batches", lambda p: _giga(p.need.batches)),
        ("  temporaries", lambda p: _giga(p.need.temporaries)),
        ("  program", lambda p: _giga(p.need.program)),
        ("TFLOP a chip and step", lambda p: f"{p.need.flops / 1e12:.3f}"),
        ("TFLOP a photograph", lambda p: f"{p.need.flops / size / 1e12:.3f}"),
        ("collectives", lambda p: _or_unknown(p.need.collectives, "{}")),
        ("  GB", lambda p: _giga(p.need.collective_bytes)),
        ("GB from and to memory", lambda p: _giga(p.need.traffic)),
        ("least ms: matrices", lambda p: f"{p.bounds.matrices * 1e3:.2f}"),
        ("  memory", lambda p: _milli(p.need.traffic, p.bounds.memory)),
        (
            "  interconnect",
            lambda p: _milli(p.need.collective_bytes, p.bounds.interconnect),
        ),
        ("photographs a second", lambda p: f"{plan.speed(p):,.0f}" if p.fits else ""),
    ]
    table = [["", *(part.phase.value for part in plan.phases)]]
    table += [[name, *map(cell, plan.phases)] for name, cell in rows]
    return [
        row[0].ljust(28) + "".join(cell.rjust(15) for cell in row[1:]) for row in table
    ]


def _whole(plan: Plan) -> list[str]:
    if not plan.fits:
        return ["It does not fit."]
    times = ", ".join(f"{plan.hours(e):,.1f} h at {e:.0%}" for e in EFFICIENCIES)
    rate, each = plan.input_rate(), 1 / DECODE_SECONDS
    return [
        f"Whole run: {times} of the bounds' speed.",
        f"Input: each host delivers up to {rate:,.0f} photographs a second at the bounds; "
        f"one core decodes about {each:.0f} (640x480), so {rate / each:,.1f} cores.",
    ]


def _search(plan: Plan, attempts: Sequence[Attempt], largest: int | None) -> list[str]:
    lines = []
    for attempt in attempts:
        word = "fits" if attempt.fits else "does not fit"
        lines.append(f"  with {attempt.options}: {attempt.memory / 1e9:.2f} GB, {word}")
    if largest is not None:
        unit = plan.topology.count * plan.accumulate
        lines.append(
            f"Largest batch that fits: {largest} ({largest // plan.topology.count} a chip)."
            if largest
            else f"No batch fits, not even {unit}."
        )
    return lines


def _by_arithmetic() -> list[str]:
    return [
        "By arithmetic alone, nothing was compiled: temporaries are what has to be kept in "
        "the order of the trace, traffic the operands and results of products, the bytes "
        "between chips the gradients. A real program needs more of each."
    ]


def _giga(size: float | None) -> str:
    return _or_unknown(None if size is None else size / 1e9, "{:.3f}")


def _milli(known: float | None, seconds: float) -> str:
    return _or_unknown(None if known is None else seconds * 1e3, "{:.2f}")


def _or_unknown(value: float | None, text: str) -> str:
    return "unknown" if value is None else text.format(value)
