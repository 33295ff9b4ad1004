"""How long a run takes at least on chips that keep to their data sheet."""

from dataclasses import dataclass

from gl_jax.config import Config, Phase
from gl_jax.planning.needs import Need
from gl_jax.planning.topologies import Topology

EFFICIENCIES = (1.0, 0.4, 0.2)
"""Shares of the bounds' speed for which the run's hours are given."""

DECODE_SECONDS = 0.002
"""Time of one core from a JPEG of 640x480 to its crop (docs/performance.md)."""


@dataclass(frozen=True)
class Bounds:
    """Seconds that a step takes at least, for each of a chip's limits."""

    matrices: float
    memory: float
    interconnect: float

    @property
    def seconds(self) -> float:
        """The longest of them, as if all went on at once."""
        return max(self.matrices, self.memory, self.interconnect)


@dataclass(frozen=True)
class PhasePlan:
    """One kind of update of a run."""

    phase: Phase
    steps: int
    need: Need
    fits: bool
    bounds: Bounds


@dataclass(frozen=True)
class Plan:
    """A run on a topology."""

    name: str
    topology: Topology
    source: str
    """The compiler that says so, or arithmetic."""
    batch_size: int
    accumulate: int
    phases: tuple[PhasePlan, ...]

    @property
    def fits(self) -> bool:
        """Whether all steps do."""
        return all(phase.fits for phase in self.phases)

    def speed(self, part: PhasePlan) -> float:
        """Returns a phase's photographs a second at its bound, over all chips."""
        return self.batch_size / part.bounds.seconds

    def hours(self, efficiency: float) -> float:
        """Returns the whole run's hours at a share of the bounds' speed."""
        seconds = sum(part.steps * part.bounds.seconds for part in self.phases)
        return seconds / efficiency / 3600

    def input_rate(self) -> float:
        """Returns the photographs a second that each host has to deliver at the bounds."""
        return max(map(self.speed, self.phases)) / self.topology.hosts


def bounds_of(need: Need, topology: Topology, dtype: str) -> Bounds:
    """Returns the least seconds of a step on chips that keep to their data sheet.

    Of n chips each sends (n - 1) / n of what is summed, twice: once to sum up its part,
    once to tell the others. The time until a message arrives does not count.
    """
    chip, n = topology.chip, topology.count
    sent = 2 * (n - 1) / n * (need.collective_bytes or 0.0)
    return Bounds(
        need.flops / chip.peak[dtype],
        (need.traffic or 0.0) / chip.bandwidth,
        sent / chip.interconnect,
    )


def updates_of(config: Config) -> dict[Phase, int]:
    """Returns how many updates of each kind a run makes."""
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
