"""A training run, told from top to bottom."""

import faulthandler
import json
import math
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax

from gl_jax.config import Config, Phase, UsageError, differences
from gl_jax.data.pipeline import Photographs
from gl_jax.training.checkpoint import (
    Checkpoints,
    NonFiniteStateError,
    SaveFailedError,
)
from gl_jax.training.interruption import Interrupted, Interruption
from gl_jax.training.parallel import AXIS, Devices
from gl_jax.training.report import Report
from gl_jax.training.state import (
    TrainState,
    build_networks,
    create_state,
    inference_variables,
)
from gl_jax.training.steps import Step, make_steps
from gl_jax.training.validation import Validation

# What may differ between a run and its resumption: none of it changes what is learned.
FREE = (
    "data.data_dir data.workers data.max_corrupt_share schedule.total_steps "
    "run.device_count run.log_every run.save_every run.eval_every run.sample_every "
    "run.validation_images run.sample_images run.keep_newest run.keep_best run.keep_every "
    "run.max_failed_saves run.on_nan run.max_rollbacks run.hang_limit run.profile_steps"
).split()

Status = Literal["running", "finished", "preempted", "failed"]


class NotFiniteError(RuntimeError):
    """A loss became NaN or infinite."""


class Run(NamedTuple):
    """What a run works with, made once at its start."""

    config: Config
    workdir: Path
    devices: Devices
    photographs: Photographs
    steps: dict[Phase, Step]
    validation: Validation
    checkpoints: Checkpoints


def run(config: Config, workdir: Path, *, log: Callable[[str], None] = print) -> None:
    """Trains until `schedule.total_steps`, from the workdir's newest checkpoint on.

    Raises UsageError for what the caller can mend, NotFiniteError or another
    RuntimeError where training fails, and Interrupted (a SystemExit with code 143)
    after a request to stop, the state saved.
    """
    this = _prepare(config, workdir, log)
    rollbacks = 0
    try:
        _write_status(workdir, "running", None)
        while True:
            state, rollbacks = _restored_or_new(this, rollbacks, log)
            try:
                last_step = _train(this, state, rollbacks)
                break
            except (NotFiniteError, NonFiniteStateError) as error:
                rollbacks += 1
                if config.run.on_nan == "stop" or rollbacks > config.run.max_rollbacks:
                    raise
                log(f"{error} Going back to the last checkpoint, with other holes.")
    except Interrupted as interrupted:
        _write_status(workdir, "preempted", interrupted.step, "stopped on request")
        log(f"Stopped after step {interrupted.step}, saved. The same command resumes.")
        raise
    except BaseException as error:
        _write_status(workdir, "failed", None, f"{type(error).__name__}: {error}")
        raise
    finally:
        faulthandler.cancel_dump_traceback_later()
        this.checkpoints.close()
    _write_status(workdir, "finished", last_step)


def _prepare(config: Config, workdir: Path, log: Callable[[str], None]) -> Run:
    """Opens all that a run needs; whatever can be refused is refused here."""
    primary = jax.process_index() == 0
    devices = Devices(config.run.device_count)
    devices.check_batch(config.data.batch_size, config.run.accumulate)
    config = _claimed(workdir, config, log)
    photographs = Photographs(
        config.data, seed=config.run.seed, cache_dir=workdir / "cache", log=log
    )
    mean_color = config.data.mean_color or photographs.mean_color()
    config = replace(config, data=replace(config.data, mean_color=mean_color))
    steps = make_steps(config, mean_color, axis_name=AXIS)
    validation = Validation(
        build_networks(config).completion,
        config,
        mean_color,
        photographs.validation_images(config.run.validation_images),
        devices.local[0],
    )
    checkpoints = Checkpoints(
        workdir / "checkpoints",
        keep_newest=config.run.keep_newest,
        keep_best=config.run.keep_best,
        keep_every=config.run.keep_every,
        max_failed_saves=config.run.max_failed_saves,
        log=log,
        primary=primary,
    )
    if primary:
        (workdir / "config.json").write_text(config.to_json(), encoding="utf-8")
    pmapped = {phase: devices.pmap(step) for phase, step in steps.items()}
    return Run(config, workdir, devices, photographs, pmapped, validation, checkpoints)


def _restored_or_new(
    this: Run, rollbacks: int, log: Callable[[str], None]
) -> tuple[TrainState, int]:
    """The replicated state to go on from, and how many rollbacks led to it."""
    template = jax.eval_shape(lambda: create_state(this.config))
    restored = this.checkpoints.restore_newest(template)
    if restored is None:
        log(f"Starting {this.config.name} in {this.workdir}.")
        return this.devices.replicate(create_state(this.config)), rollbacks
    known = restored.extra["photographs"]
    if known != this.photographs.fingerprint():
        log(
            "The photographs changed since the checkpoint was written (other names, sizes "
            "or number): the order of the rest of the run is not that of an unbroken one."
        )
    total = this.config.schedule.total_steps
    log(
        f"Resuming {this.config.name} in {this.workdir} at step {restored.step} of {total}."
    )
    state = this.devices.replicate(restored.state)
    return state, max(rollbacks, restored.extra["rollbacks"])


def _train(this: Run, state: TrainState, rollbacks: int) -> int:
    """Steps from the state's own step to the last one, which is returned."""
    config, devices = this.config, this.devices
    start, total = (
        int(jax.device_get(devices.first(state.step))),
        config.schedule.total_steps,
    )
    key = jax.random.fold_in(jax.random.key(config.run.seed), rollbacks)
    key = devices.replicate(key)
    batches = devices.prefetch(
        this.photographs.train_batches(
            start,
            host_index=jax.process_index(),
            host_count=jax.process_count(),
        )
    )
    compiled: set[Phase] = set()
    previous: Any = None
    primary = jax.process_index() == 0
    with (
        closing(
            Report(this.workdir, config=config, start_step=start, enabled=primary)
        ) as report,
        Interruption() as interruption,
    ):
        for step in range(start + 1, total + 1):
            phase = config.phase_at(step - 1)
            # What hangs, a step, a save or a host that never comes, is shown with its place.
            faulthandler.dump_traceback_later(config.run.hang_limit)
            _profile(this, step, "first")
            images = next(batches)
            if phase in compiled:
                state, metrics = this.steps[phase](state, images, key)
            else:
                # The first call of a phase compiles; its time says nothing of the speed.
                with report.pause():
                    state, metrics = this.steps[phase](state, images, key)
                    jax.block_until_ready(metrics)
                compiled.add(phase)
            # At most one step runs ahead of the host, on CPU none (see Devices).
            jax.block_until_ready(metrics if devices.wait_each_step else previous)
            previous = metrics
            _profile(this, step, "last", metrics)
            report.progress(step, phase)

            stop = interruption.requested(step)
            last = step == total or stop
            if step % config.run.log_every == 0 or last:
                values = {name: float(v) for name, v in jax.device_get(metrics).items()}
                _require_finite(this, step, values)
                report.scalars(step, phase, values)
            psnr = None
            if step % config.run.eval_every == 0 or step == total:
                with report.pause():
                    values = this.validation.metrics(
                        devices.first(inference_variables(state))
                    )
                    report.validation(step, phase, values)
                    psnr = values["val_psnr"]
            if step % config.run.sample_every == 0 or step == total:
                with report.pause():
                    variables = devices.first(inference_variables(state))
                    samples = this.validation.samples(
                        variables, config.run.sample_images
                    )
                    report.samples(step, *samples)
                    report.curves()
            if step % config.run.save_every == 0 or last:
                with report.pause():
                    _save(this, step, state, psnr, rollbacks, last=last)
            if stop:
                raise Interrupted(step)
    return max(start, total)


def _profile(
    this: Run, step: int, end: Literal["first", "last"], metrics: Any = None
) -> None:
    """Starts or ends the profile where `step` is that end of `run.profile_steps`."""
    first, last = this.config.run.profile_steps or (0, 0)
    if end == "first" and step == first:
        jax.profiler.start_trace(this.workdir / "tensorboard")
    elif end == "last" and step == last:
        jax.block_until_ready(metrics)
        jax.profiler.stop_trace()


def _save(
    this: Run,
    step: int,
    state: TrainState,
    psnr: float | None,
    rollbacks: int,
    *,
    last: bool,
) -> None:
    """Saves in the background; the last time waits, and tries twice."""
    extra = {"photographs": this.photographs.fingerprint(), "rollbacks": rollbacks}
    for _ in range(2 if last else 1):
        this.checkpoints.save(
            step,
            this.devices.first(state),
            psnr=psnr,
            config_json=this.config.to_json(),
            extra=extra,
        )
        if not last or this.checkpoints.wait():
            return
    raise SaveFailedError(
        f"Step {step}, the last one, could not be saved, twice; the reason is above. "
        "The same command resumes before it."
    )


def _require_finite(this: Run, step: int, metrics: dict[str, float]) -> None:
    bad = [
        f"{name} is {value}"
        for name, value in metrics.items()
        if not math.isfinite(value)
    ]
    if not bad:
        return
    saved = this.checkpoints.steps()
    good = (
        f"the last checkpoint is step {saved[-1]}"
        if saved
        else "there is no checkpoint yet"
    )
    first = max(1, step - this.config.run.log_every + 1)
    raise NotFiniteError(
        f"Within steps {first} to {step}: {', '.join(bad)}; {good}. Lower the learning rate, "
        "clip the gradient (clip_norm), or resume with --run.on-nan rollback."
    )


def _claimed(workdir: Path, config: Config, log: Callable[[str], None]) -> Config:
    """The run's configuration, after making sure that the workdir is this run's own."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"--workdir {workdir} cannot be written: {reason}.") from error
    file = workdir / "config.json"
    if not file.exists():
        return config
    stored = Config.from_json(file.read_text(encoding="utf-8"))
    if stored.name != config.name:
        raise UsageError(
            f"--workdir {workdir} holds a run of the experiment {stored.name!r}, not of "
            f"{config.name!r}. Choose another folder."
        )
    if config.data.mean_color is None:
        config = replace(
            config, data=replace(config.data, mean_color=stored.data.mean_color)
        )
    changed = {name: (now, then) for name, now, then in differences(config, stored)}
    fixed = [
        f"{name} is {now} and was {then}"
        for name, (now, then) in changed.items()
        if name not in FREE
    ]
    if fixed:
        raise UsageError(
            f"--workdir {workdir} holds a run that differs in what it learns: "
            f"{'; '.join(fixed)}. Give the same values, or choose another folder."
        )
    if changed:
        listed = ", ".join(
            f"{name} {then} -> {now}" for name, (now, then) in changed.items()
        )
        log(f"Resuming with other settings: {listed}.")
    return config


def _write_status(
    workdir: Path, status: Status, step: int | None, reason: str = ""
) -> None:
    """run_status.json: what an operator or a scheduler reads to learn how the run stands."""
    if jax.process_index() != 0:
        return
    file = workdir / "run_status.json"
    partial = file.with_suffix(".json.partial")
    record = {"status": status, "last_step": step, "reason": reason}
    partial.write_text(json.dumps(record) + "\n", encoding="utf-8")
    os.replace(partial, file)
