"""The least time of a run, from the chips' data sheets."""

from dataclasses import dataclass

from gl_jax.config import Config, Phase
from gl_jax.planning.needs import Need
from gl_jax.planning.topologies import Topology

EFFICIENCIES = (1.0, 0.4, 0.2)
"""Fractions of the bounds' speed for which the run's hours are given."""

DECODE_SECONDS = 0.002
"""Seconds of one core to decode a JPEG of 640x480 to a crop (docs/performance.md)."""


@dataclass(frozen=True)
class Bounds:
    """Least seconds of a step for each of a chip's limits."""

    matrices: float
    memory: float
    interconnect: float

    @property
    def seconds(self) -> float:
        """The longest of them: all three may run at the same time."""
        return max(self.matrices, self.memory, self.interconnect)


@dataclass(frozen=True)
class PhasePlan:
    """The plan of one kind of update."""

    phase: Phase
    steps: int
    need: Need
    fits: bool
    bounds: Bounds


@dataclass(frozen=True)
class Plan:
    """The plan of a run on a topology."""

    name: str
    topology: Topology
    source: str
    """The compiler with its version, or "arithmetic"."""
    batch_size: int
    accumulate: int
    phases: tuple[PhasePlan, ...]

    @property
    def fits(self) -> bool:
        """True if all steps fit."""
        return all(phase.fits for phase in self.phases)

    def speed(self, part: PhasePlan) -> float:
        """Returns a phase's photographs per second at its bound, over all chips."""
        return self.batch_size / part.bounds.seconds

    def hours(self, efficiency: float) -> float:
        """Returns the whole run's hours at a fraction of the bounds' speed."""
        seconds = sum(part.steps * part.bounds.seconds for part in self.phases)
        return seconds / efficiency / 3600

    def input_rate(self) -> float:
        """Returns the photographs per second that each host must deliver at the bounds."""
        return max(map(self.speed, self.phases)) / self.topology.hosts


def bounds_of(need: Need, topology: Topology, dtype: str) -> Bounds:
    """Returns the least seconds of a step from the chip's data sheet.

    An all-reduce over n chips sends (n - 1) / n of the summed bytes twice from each chip:
    to reduce, and to gather the result. Latency does not count.
    """
    chip, n = topology.chip, topology.count
    sent = 2 * (n - 1) / n * (need.collective_bytes or 0.0)
    return Bounds(
        need.flops / chip.peak[dtype],
        (need.traffic or 0.0) / chip.bandwidth,
        sent / chip.interconnect,
    )


def updates_of(config: Config) -> dict[Phase, int]:
    """Returns a run's number of updates of each kind."""
    schedule = config.schedule
    total = schedule.total_steps
    if config.model.discriminators == "none":
        return {Phase.COMPLETION: total}
    first = min(schedule.completion_steps, total)
    second = min(schedule.discriminator_steps, total - first)
    joint = total - first - second
    both = joint // schedule.discriminator_updates
    counts = {
        Phase.COMPLETION: first,
        Phase.DISCRIMINATOR: second + joint - both,
        Phase.JOINT: both,
    }
    return {phase: count for phase, count in counts.items() if count}
