"""The pieces of a run, opened and checked before its first step."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax

from gl_jax.checkpoint import (
    Checkpoints,
    StorageUnreachableError,
    require_writable,
)
from gl_jax.compilation import use_compilation_cache
from gl_jax.config import Config, Phase, UsageError, is_bucket
from gl_jax.data.pipeline import Photographs
from gl_jax.experiment import Experiment
from gl_jax.parallel import AXIS, Devices, require_same
from gl_jax.training import initial
from gl_jax.training.own_parts import parts_of
from gl_jax.training.parts import Parts
from gl_jax.training.state import state_shapes
from gl_jax.training.steps import Step, make_steps
from gl_jax.training.validation import Validation
from gl_jax.training.workdir import (
    Status,
    claim,
    last_saved_step,
    locked,
    remembered_of,
    require_workdir,
    shared_facts,
    write_config,
    write_status,
)
from gl_jax.weights import architectures
from gl_jax.weights.native import Model


class Run(NamedTuple):
    """The pieces of a run, made once at its start."""

    config: Config
    workdir: Path
    devices: Devices
    photographs: Photographs
    parts: Parts
    steps: dict[Phase, Step]
    validation: Validation
    checkpoints: Checkpoints
    initial: Model | None
    """Weights to begin with instead of random ones."""
    remembered: dict[str, Any]
    """The architectures and the experiment's text, for its checkpoints."""
    log: Callable[[str], None]

    def write_config(self) -> None:
        """Writes config.json on the first host."""
        if jax.process_index() == 0:
            write_config(self.workdir, self.config, self.remembered)

    def write_status(
        self, status: Status, step: int | None = None, explanation: str = ""
    ) -> None:
        """Writes run_status.json on the first host, by default with the newest step saved."""
        if jax.process_index() != 0:
            return
        if step is None:
            with contextlib.suppress(OSError):
                step = max(self.checkpoints.steps(), default=None)
        write_status(self.workdir, status, step, explanation)


def prepare(
    config: Config,
    workdir: Path,
    experiment: Experiment | None,
    log: Callable[[str], None],
    at_end: contextlib.ExitStack,
) -> Run:
    """Opens all that a run needs, and refuses a run that cannot work.

    `at_end` lets go of the run's folder. Raises UsageError, on every host the same.
    """
    facts: dict[str, Any] = {}
    fault = None
    try:
        devices = Devices(config.run.device_count)
        devices.check_batch(config.data.batch_size, config.run.accumulate)
        parts = parts_of(config, experiment)
        require_workdir(workdir)
        if jax.process_index() == 0:  # it writes the folder for all hosts
            at_end.enter_context(locked(workdir, "--workdir", log))
        config = claim(workdir, config, experiment, log)
        photographs = Photographs(
            config.data,
            seed=config.run.seed,
            cache_dir=workdir / "cache",
            workdir=workdir,
            log=log,
        )
        if jax.process_index() == 0:
            log(photographs.summary())
        completion, discriminator = architectures.of_networks(
            parts.completion, parts.discriminator, config, experiment, parts.encoding
        )
        model = initial.load(
            config, completion, discriminator, experiment, parts.encoding
        )
        mean_color = config.data.hole_color or (
            model.mean_color if model else photographs.mean_color()
        )
        config = replace(config, data=replace(config.data, mean_color=mean_color))
        checkpoints = _checkpoints(config, workdir, log, at_end)
        convention = parts.encoding.completion(mean_color)
        remembered = remembered_of(completion, discriminator, convention, experiment)
        facts = shared_facts(config, photographs, model, remembered)
    except (UsageError, StorageUnreachableError) as error:
        if jax.process_count() == 1:
            raise
        fault = str(error)
    require_same(facts, fault)
    steps = make_steps(
        parts,
        mean_color,
        accumulate=config.run.accumulate,
        ema_decay=config.run.ema_decay,
        ema_ramp=config.run.ema_ramp,
        axis_name=AXIS,
    )
    images = photographs.validation_images(config.run.validation_images)
    validation = Validation(parts, config, mean_color, images, devices.local[0])
    validation.require_shown(state_shapes(parts, config.data.image_size))
    # Over several hosts JAX lets only the first keep programs, and the others compile.
    if jax.process_count() == 1:
        use_compilation_cache()
    pmapped = {phase: devices.pmap(step) for phase, step in steps.items()}
    return Run(
        config, workdir, devices, photographs, parts, pmapped, validation, checkpoints,
        model, remembered, log,
    )  # fmt: skip


def _checkpoints(
    config: Config,
    workdir: Path,
    log: Callable[[str], None],
    at_end: contextlib.ExitStack,
) -> Checkpoints:
    """Opens the run's checkpoints; refuses if the run had some, and nothing is there."""
    address, primary = config.checkpoints_of(workdir), jax.process_index() == 0
    if primary and not is_bucket(str(address)):
        require_writable(address)
        if not workdir.samefile(address):
            at_end.enter_context(locked(Path(address), "--run.checkpoints", log))
    checkpoints = Checkpoints(
        address,
        keep_newest=config.run.keep_newest,
        keep_best=config.run.keep_best,
        keep_every=config.run.keep_every,
        max_failed_saves=config.run.max_failed_saves,
        log=log,
        primary=primary,
    )
    last_step = last_saved_step(workdir)
    if primary and last_step and checkpoints.empty():
        raise UsageError(
            f"{address} is empty, and run_status.json says that step {last_step} was "
            "saved. Bring the checkpoints back, give the --run.checkpoints that they were "
            "saved to, or choose another workdir to start anew."
        )
    return checkpoints
