"""`gl-jax plan`: prints the plan of a run on a topology."""

import dataclasses
import json
import sys
from typing import Any

import jax

from gl_jax.config import Config, Phase, UsageError
from gl_jax.experiment import Experiment
from gl_jax.parallel import check_batch
from gl_jax.planning import compiling, search, table
from gl_jax.planning.bounds import (
    EFFICIENCIES,
    PhasePlan,
    Plan,
    bounds_of,
    updates_of,
)
from gl_jax.planning.needs import Need, need_of
from gl_jax.planning.search import Attempt
from gl_jax.planning.topologies import Topology, topology_of


class DoesNotFitError(RuntimeError):
    """A step needs more memory than a chip has."""


def run(
    experiment: Experiment, topology_name: str, *, largest_batch: bool, as_json: bool
) -> None:
    """Prints the plan of a run.

    Raises DoesNotFitError if a step does not fit into a chip, and UsageError for an
    unknown topology, a missing compiler, a batch that does not divide evenly, or a run
    that fits with no option.
    """
    topology, config = topology_of(topology_name), experiment.config
    check_batch(config.data.batch_size, topology.count, config.run.accumulate)
    source = "arithmetic"
    if topology.chip.platform == "tpu":
        source = f"libtpu {compiling.require_libtpu()}"
    # Nothing is computed, so no accelerator needs to start.
    jax.config.update("jax_platforms", "cpu")
    planner = Planner(experiment, topology, source)
    plan = planner.plan(config)
    largest = planner.largest_batch(config) if largest_batch else None
    attempts = [] if plan.fits else planner.attempts(config)
    if as_json:
        print(json.dumps(as_dictionary(plan, attempts, largest), indent=2))
    else:
        print(table.of_plan(plan, attempts, largest))
    if not plan.fits:
        raise DoesNotFitError(f"{config.name} does not fit into {topology.name}.")


def as_dictionary(
    plan: Plan, attempts: list[Attempt], largest: int | None
) -> dict[str, Any]:
    """Returns the plan as JSON values, in bytes, FLOP, seconds and hours."""
    values = dataclasses.asdict(plan)
    for part, phase in zip(values["phases"], plan.phases, strict=True):
        part["photographs_per_second"] = plan.speed(phase) if phase.fits else None
    hours = {str(share): plan.hours(share) for share in EFFICIENCIES}
    return values | {
        "hosts": plan.topology.hosts,
        "fits": plan.fits,
        "hours": hours if plan.fits else None,
        "photographs_per_second_of_a_host": plan.input_rate() if plan.fits else None,
        "attempts": [attempt._asdict() for attempt in attempts],
        "largest_batch": largest,
    }


class Planner:
    """Measures the steps of one experiment, with or without changes, on one topology."""

    def __init__(self, experiment: Experiment, topology: Topology, source: str) -> None:
        self.experiment = experiment
        self.topology = topology
        self.source = source
        self._needs: dict[str, Need] = {}

    def plan(self, config: Config) -> Plan:
        """Returns the plan of the experiment with this configuration."""
        phases = []
        for phase, steps in updates_of(config).items():
            need = self.need(config, phase)
            bounds = bounds_of(need, self.topology, config.model.compute_dtype)
            phases.append(PhasePlan(phase, steps, need, self.fits(need), bounds))
        data, run = config.data, config.run
        return Plan(
            config.name, self.topology, self.source, data.batch_size, run.accumulate,
            tuple(phases),
        )  # fmt: skip

    def need(self, config: Config, phase: Phase) -> Need:
        """Returns the need of a phase's step, which is measured only once."""
        known = phase + config.to_json()
        if known not in self._needs:
            if self.topology.chip.platform == "tpu":
                batch = config.data.batch_size
                text = (
                    f"Compiling the {phase} step of {batch} for {self.topology.name}."
                )
                print(text, file=sys.stderr, flush=True)
            self._needs[known] = need_of(self.experiment, config, self.topology, phase)
        return self._needs[known]

    def fits(self, need: Need) -> bool:
        """Returns whether a chip has enough memory."""
        return need.memory <= self.topology.chip.memory

    def largest_batch(self, config: Config) -> int:
        """Returns the largest batch for which all steps fit; 0 if there is none.

        The phase that needs the most is searched first, which limits the others.
        """
        unit = self.topology.count * config.run.accumulate
        start, most = config.data.batch_size // unit, None
        phases = sorted(updates_of(config), key=lambda p: -self.need(config, p).memory)
        for phase in phases:

            def memory_of(units: int, phase: Phase = phase) -> float:
                data = dataclasses.replace(config.data, batch_size=units * unit)
                return self.need(dataclasses.replace(config, data=data), phase).memory

            available = self.topology.chip.memory
            most = search.largest(memory_of, available, start, most)
            start = most
        return (most or 0) * unit

    def attempts(self, config: Config) -> list[Attempt]:
        """Tries each memory-saving option alone, then all together, until the run fits.

        Raises UsageError if it fits with none of them.
        """
        per_chip = config.data.batch_size // self.topology.count
        tried = [self._attempt(*change) for change in search.alone(config, per_chip)]
        for change in search.together(config, per_chip):
            if any(attempt.fits for attempt in tried):
                break
            tried.append(self._attempt(*change))
        if not any(attempt.fits for attempt in tried):
            least = min(attempt.memory for attempt in tried)
            raise UsageError(
                f"{config.name} never fits into {self.topology.name}: with every option "
                f"that saves memory a chip needs {least / 1e9:.1f} GB and has "
                f"{self.topology.chip.memory / 1e9:.1f}. Choose a chip with more memory, "
                "more chips, or a smaller model.width or data.image_size."
            )
        return tried

    def _attempt(self, options: str, changed: Config) -> Attempt:
        needs = [self.need(changed, phase) for phase in reversed(updates_of(changed))]
        memory = max(need.memory for need in needs)
        return Attempt(options, memory, all(map(self.fits, needs)))
