"""A plan as a text table."""

import math
import textwrap
from collections.abc import Callable, Sequence

from gl_jax.parallel import PREFETCH
from gl_jax.planning.bounds import DECODE_SECONDS, EFFICIENCIES, PhasePlan, Plan
from gl_jax.planning.search import Attempt

TPU = (
    "FLOP are those of matrix products. From and to memory: the arrays of every operation "
    "of the program, except those that the compiler keeps on the chip. The least times "
    "include neither padding nor the latency of messages."
)
GPU = (
    "By arithmetic, without compilation: FLOP and traffic are those of matrix products, "
    "temporaries are the arrays that exist at once in the order of the trace, and the "
    "collectives' arrays are the gradients. A real program needs more of each."
)

Row = tuple[str, Callable[[PhasePlan], str]]


def of_plan(plan: Plan, attempts: Sequence[Attempt], largest: int | None) -> str:
    """Returns the plan as text: a column for each phase, then the whole run."""
    topology, chip = plan.topology, plan.topology.chip
    pieces = f" in {plan.accumulate} pieces" if plan.accumulate > 1 else ""
    peaks = ", ".join(f"{si(v, 'FLOP/s')} in {name}" for name, v in chip.peak.items())
    paragraphs = [
        f"{plan.name} on {topology.name}: {topology.count} chip(s) on {topology.hosts} "
        f"host(s), batch {plan.batch_size}, {plan.batch_size // topology.count} a chip"
        f"{pieces}. By {plan.source}.",
        "\n".join(_columns(plan)),
        *_whole(plan),
        *_search(plan, attempts, largest),
        f"Chip: {si(chip.memory, 'B')} for programs, {si(chip.bandwidth, 'B/s')}, {peaks}, "
        f"{si(chip.interconnect, 'B/s')} to others ({chip.source}).",
        GPU if chip.platform == "gpu" else TPU,
    ]
    return "\n\n".join(p if "\n" in p else textwrap.fill(p, 88) for p in paragraphs)


def _columns(plan: Plan) -> list[str]:
    size = plan.batch_size / plan.topology.count
    rows: list[Row] = [
        ("updates", lambda p: f"{p.steps:,}"),
        ("fits into a chip", lambda p: "yes" if p.fits else "NO"),
        ("memory of a chip", lambda p: si(p.need.memory, "B")),
        ("  state", lambda p: si(p.need.state, "B")),
        (f"  photographs, {1 + PREFETCH} batches", lambda p: si(p.need.batches, "B")),
        ("  temporaries", lambda p: si(p.need.temporaries, "B")),
        ("  program", lambda p: si(p.need.program, "B")),
        ("FLOP a chip and step", lambda p: si(p.need.flops, "")),
        ("FLOP a photograph", lambda p: si(p.need.flops / size, "")),
        ("from and to memory", lambda p: si(p.need.traffic, "B")),
        ("collectives", lambda p: str(p.need.collectives or "unknown")),
        ("  their arrays", lambda p: si(p.need.collective_bytes, "B")),
        ("least time: matrices", lambda p: si(p.bounds.matrices, "s")),
        ("  memory", lambda p: si(p.need.traffic and p.bounds.memory, "s")),
        (
            "  interconnect",
            lambda p: si(p.need.collective_bytes and p.bounds.interconnect, "s"),
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
    paragraphs = []
    if attempts:
        lines = ["Tried instead (memory of the phase that needs the most):"]
        for attempt in attempts:
            word = "fits" if attempt.fits else "does not fit"
            lines.append(f"  {attempt.options}: {si(attempt.memory, 'B')}, {word}")
        paragraphs.append("\n".join(lines))
    if largest:
        each = largest // plan.topology.count
        paragraphs.append(f"Largest batch that fits: {largest} ({each} a chip).")
    elif largest is not None:
        unit = plan.topology.count * plan.accumulate
        paragraphs.append(f"No batch fits, not even {unit}.")
    return paragraphs


def si(value: float | None, unit: str) -> str:
    """Formats a value with three digits and an SI prefix: 1.93 T, 614 MB, 47.5 ms."""
    if value is None:
        return "unknown"
    if value == 0:
        return f"0 {unit}".rstrip()
    power = min(max(math.floor(math.log10(abs(value)) / 3), -3), 5)
    prefix = "nµm kMGTP"[power + 3].strip()
    digits = value / 1000.0**power
    return f"{digits:.{2 if digits < 10 else 1 if digits < 100 else 0}f} {prefix}{unit}".rstrip()
