"""A training run, told from top to bottom."""

import contextlib
import errno
import hashlib
import json
import math
import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from gl_jax.compilation import use_compilation_cache
from gl_jax.config import Config, Phase, UsageError, differences, values_by_name
from gl_jax.data.pipeline import Photographs
from gl_jax.data.sources import changes
from gl_jax.experiment import Experiment, require_same_text
from gl_jax.parallel import AXIS, Devices, require_same
from gl_jax.training import initial
from gl_jax.training.checkpoint import (
    Checkpoints,
    NonFiniteStateError,
    SaveFailedError,
    StorageUnreachableError,
    peek,
    require_writable,
)
from gl_jax.training.interruption import Interrupted, Interruption
from gl_jax.training.own_parts import parts_of
from gl_jax.training.parts import Parts
from gl_jax.training.report import FULL, Report, say, write_whole
from gl_jax.training.state import (
    TrainState,
    create_state,
    inference_variables,
    state_shapes,
)
from gl_jax.training.steps import Step, make_steps
from gl_jax.training.validation import Validation
from gl_jax.training.watchdog import Watchdog
from gl_jax.version import __version__
from gl_jax.weights import architectures
from gl_jax.weights.native import Model

# What may differ between a run and its resumption: none of it changes what is learned.
FREE = (
    "data.data_dir data.workers data.max_corrupt_share schedule.total_steps "
    "run.device_count run.log_every run.save_every run.eval_every run.sample_every "
    "run.validation_images run.sample_images run.checkpoints run.keep_newest "
    "run.keep_best run.keep_every run.max_failed_saves run.on_nan run.max_rollbacks "
    "run.hang_limit run.profile_steps"
).split()

ELSEWHERE = (
    "Another run needs another --workdir, and another --run.checkpoints if it has one."
)

# What may differ between the hosts of a run.
OF_A_HOST = ("data.data_dir", "data.workers")

EXPERIMENT = "experiment.py"
"""Holds the text of an experiment with parts of its own, in the workdir."""

Status = Literal["running", "finished", "preempted", "failed"]


class NotFiniteError(RuntimeError):
    """A loss became NaN or infinite."""


class StorageError(RuntimeError):
    """The workdir cannot be written, so the run can neither begin nor end properly."""


class Run(NamedTuple):
    """What a run works with, made once at its start."""

    config: Config
    workdir: Path
    devices: Devices
    photographs: Photographs
    parts: Parts
    steps: dict[Phase, Step]
    validation: Validation
    checkpoints: Checkpoints
    initial: Model | None
    """What it begins with, if not at random."""
    remembered: dict[str, Any]
    """What its checkpoints remember of its networks, and of an experiment's own parts."""


class Start(NamedTuple):
    """Where a run goes on from."""

    state: TrainState
    """Replicated."""
    rollbacks: int
    """How many led to it."""
    order: str
    """Hash of all photographs shown until there, in their order."""


def run(
    config: Config,
    workdir: Path,
    *,
    experiment: Experiment | None = None,
    log: Callable[[str], None] = say,
) -> None:
    """Trains until `schedule.total_steps`, from the workdir's newest checkpoint on.

    The parts of the run are those that the `experiment` defines, else the paper's.
    Raises UsageError for what the caller can mend, NotFiniteError or another
    RuntimeError where training fails, and Interrupted (a SystemExit with code 143)
    after a request to stop, the state saved.
    """
    try:
        _run(_prepare(config, workdir, experiment, log), log)
    except OSError as error:
        if error.errno not in (*FULL, errno.EROFS, errno.EACCES, errno.EIO):
            raise
        raise StorageError(
            f"{error.filename or workdir} cannot be written: {error.strerror}. Mend it "
            "and run the same command to resume."
        ) from error


def _run(this: Run, log: Callable[[str], None]) -> None:
    settings, rollbacks = this.config.run, 0
    try:
        _write_status(this, "running")
        while True:
            start = _restored_or_new(this, rollbacks, log)
            rollbacks = start.rollbacks
            try:
                last_step = _train(this, start)
                break
            except (NotFiniteError, NonFiniteStateError) as error:
                rollbacks += 1
                if settings.on_nan == "stop" or rollbacks > settings.max_rollbacks:
                    raise
                log(f"{error} Going back to the last checkpoint, with other holes.")
    except Interrupted as interrupted:
        _write_status(this, "preempted", interrupted.step, "stopped on request")
        log(f"Stopped after step {interrupted.step}, saved. The same command resumes.")
        raise
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"
        with contextlib.suppress(OSError):
            _write_status(this, "failed", None, reason)
        # Again, with the save under way, which may never end where another host is gone.
        with contextlib.suppress(Exception):
            this.checkpoints.wait()
            _write_status(this, "failed", None, reason)
        raise
    finally:
        this.checkpoints.close()
    _write_status(this, "finished", last_step)


def _prepare(
    config: Config,
    workdir: Path,
    experiment: Experiment | None,
    log: Callable[[str], None],
) -> Run:
    """Opens all that a run needs; whatever can be refused is refused here."""
    facts: dict[str, Any] = {}
    fault = None
    try:
        devices = Devices(config.run.device_count)
        devices.check_batch(config.data.batch_size, config.run.accumulate)
        parts = parts_of(config, experiment)
        config = _claimed(workdir, config, experiment, log)
        photographs = Photographs(
            config.data, seed=config.run.seed, cache_dir=workdir / "cache", log=log
        )
        completion, discriminator = _architectures(parts, config, experiment)
        model = initial.load(config, completion, discriminator, experiment)
        mean_color = config.data.mean_color or (
            model.mean_color if model else photographs.mean_color()
        )
        config = replace(config, data=replace(config.data, mean_color=mean_color))
        checkpoints = _checkpoints(config, workdir, log)
        remembered = _remembered(completion, discriminator, experiment)
        facts = _facts(config, photographs, model, remembered)
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
        axis_name=AXIS,
    )
    validation = Validation(
        parts,
        config,
        mean_color,
        photographs.validation_images(config.run.validation_images),
        devices.local[0],
    )
    if jax.process_index() == 0:
        write_whole(workdir / "config.json", config.to_json().encode())
        if "experiment" in remembered:
            write_whole(workdir / EXPERIMENT, remembered["experiment"].encode())
    # Over several hosts JAX lets only the first keep programs, and the others compile.
    if jax.process_count() == 1:
        use_compilation_cache()
    pmapped = {phase: devices.pmap(step) for phase, step in steps.items()}
    return Run(
        config, workdir, devices, photographs, parts, pmapped, validation, checkpoints,
        model, remembered,
    )  # fmt: skip


def _architectures(
    parts: Parts, config: Config, experiment: Experiment | None
) -> tuple[Any, Any]:
    """The architectures of the run's networks; the second is None if it has one alone."""
    name = experiment.name if experiment else ""
    completion = architectures.of_network(parts.completion, "completion", config, name)
    if parts.discriminator is None:
        return completion, None
    return completion, architectures.of_network(
        parts.discriminator, "discriminator", config, name
    )


def _remembered(
    completion: Any, discriminator: Any, experiment: Experiment | None
) -> dict[str, Any]:
    networks = {"completion": completion, "discriminator": discriminator}
    known: dict[str, Any] = {
        "networks": {
            name: made and architectures.to_json(made)
            for name, made in networks.items()
        }
    }
    if experiment is not None and experiment.make_parts is not None:
        known["experiment"] = experiment.text
    return known


def _facts(
    config: Config,
    photographs: Photographs,
    model: Model | None,
    remembered: dict[str, Any],
) -> dict[str, Any]:
    """What has to be the same on all hosts of a run, by name."""
    values = values_by_name(config)
    return {name: value for name, value in values.items() if name not in OF_A_HOST} | {
        "the version of gl_jax": __version__,
        "the version of jax": jax.__version__,
        "the number of photographs": len(photographs.training),
        "the hash of their names and sizes": photographs.fingerprint()[:16],
        "the hash of the experiment's parts": _hash(remembered.get("experiment", "")),
        "the hash of the initial weights": model.sha256[:16] if model else "none",
    }


def _checkpoints(
    config: Config, workdir: Path, log: Callable[[str], None]
) -> Checkpoints:
    """The run's checkpoints; refuses where the run had some, and nothing is there."""
    address, primary = config.checkpoints_of(workdir), jax.process_index() == 0
    checkpoints = Checkpoints(
        address,
        keep_newest=config.run.keep_newest,
        keep_best=config.run.keep_best,
        keep_every=config.run.keep_every,
        max_failed_saves=config.run.max_failed_saves,
        log=log,
        primary=primary,
    )
    last_step = 0
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        status = json.loads((workdir / "run_status.json").read_text(encoding="utf-8"))
        last_step = int(status["last_step"] or 0)
    if primary and last_step and checkpoints.empty():
        raise UsageError(
            f"{address} is empty, and run_status.json says that step {last_step} was "
            "saved. Bring the checkpoints back, give the --run.checkpoints that they were "
            "saved to, or choose another workdir to start anew."
        )
    return checkpoints


def _restored_or_new(this: Run, rollbacks: int, log: Callable[[str], None]) -> Start:
    """The state to go on from: of the newest whole checkpoint, or that of step 0."""
    template = state_shapes(
        this.parts,
        this.config.data.image_size,
        ema=this.config.run.ema_decay is not None,
    )
    restored = this.checkpoints.restore_newest(template)
    if restored is None:
        state, beginning = _created(this), "at random"
        if this.initial is not None:
            state = initial.begin_with(state, this.initial)
            beginning = f"with {this.config.run.initial_weights}"
        log(f"Starting {this.config.name} in {this.workdir}, {beginning}.")
        return Start(this.devices.replicate(state), rollbacks, "")
    address = this.config.checkpoints_of(this.workdir)
    _require_same_run(this.config, Config.from_json(restored.config_json), address)
    extra = restored.extra
    if extra["photographs"] != this.photographs.fingerprint():
        how = "other names, sizes or number"
        if "inventory" in extra:
            how = changes(extra["inventory"], this.photographs.inventory)
        log(
            f"THE PHOTOGRAPHS CHANGED since checkpoint {restored.step}: {how}. The run goes "
            "on with those that are there, in another order than an unbroken one. To keep "
            "it exact, stop it, put the photographs back, and run the same command again."
        )
    total = this.config.schedule.total_steps
    log(
        f"Resuming {this.config.name} in {this.workdir} at step {restored.step} of {total}."
    )
    state = this.devices.replicate(restored.state)
    return Start(state, max(rollbacks, extra["rollbacks"]), extra.get("order", ""))


def _created(this: Run) -> TrainState:
    run = this.config.run
    size, ema = this.config.data.image_size, run.ema_decay is not None
    return create_state(this.parts, size, seed=run.seed, ema=ema)


def _train(this: Run, begin: Start) -> int:
    """Steps from the state's own step to the last one, which is returned."""
    config, devices = this.config, this.devices
    state, rollbacks, order = begin
    shown: deque[np.ndarray] = deque()
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
            shown=shown,
        )
    )
    compiled: set[Phase] = set()
    previous: Any = None
    primary = jax.process_index() == 0
    with (
        closing(
            Report(this.workdir, config=config, start_step=start, enabled=primary)
        ) as report,
        Interruption(lambda: _write_left(this)) as interruption,
        Watchdog(config.run.hang_limit) as watchdog,
    ):
        for step in range(start + 1, total + 1):
            phase = config.phase_at(step - 1)
            # What hangs, a step, a save or a host that never comes, is shown with its place.
            watchdog.beat()
            _profile(this, step, "first")
            first = phase not in compiled
            with _compiling(report, phase) if first else contextlib.nullcontext():
                images = next(batches)
                order = _order(order, this.photographs.fingerprint(), shown.popleft())
                state, metrics = this.steps[phase](state, images, key)
                # At most one step runs ahead of the host, on CPU none (see Devices).
                wait = first or devices.wait_each_step
                jax.block_until_ready(metrics if wait else previous)
            compiled.add(phase)
            previous = metrics
            _profile(this, step, "last", metrics)
            report.progress(step, phase)

            stop = interruption.requested(step)
            last = step == total or stop
            if step % config.run.log_every == 0 or last:
                values = {name: float(v) for name, v in jax.device_get(metrics).items()}
                _require_finite(this, step, values)
                report.scalars(step, phase, values, order_hash=order[:16])
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
                    passed = {"rollbacks": rollbacks, "order": order}
                    _save(this, step, state, psnr, passed, last=last)
            if stop:
                raise Interrupted(step)
    return max(start, total)


@contextlib.contextmanager
def _compiling(report: Report, phase: Phase) -> Iterator[None]:
    """Around a phase's first step, which compiles, and in a run waits for photographs.

    Its time says nothing of the speed.
    """
    report.message(f"Compiling the {phase} step.")
    with report.pause(steps=1):
        yield


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
    passed: dict[str, Any],
    *,
    last: bool,
) -> None:
    """Saves in the background; the last time waits, and tries twice."""
    extra = (
        passed
        | this.remembered
        | {
            "photographs": this.photographs.fingerprint(),
            "inventory": this.photographs.inventory,
        }
    )
    for _ in range(2 if last else 1):
        this.checkpoints.save(
            step,
            this.devices.first(state),
            psnr=psnr,
            config_json=this.config.to_json(),
            extra=extra,
        )
        if not last or this.checkpoints.wait():
            with contextlib.suppress(OSError):
                _write_status(this, "running")
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


def _claimed(
    workdir: Path,
    config: Config,
    experiment: Experiment | None,
    log: Callable[[str], None],
) -> Config:
    """The run's configuration, after making sure that the workdir is this run's own."""
    if scheme := re.match(r"[a-z0-9]+:/+", str(workdir)):
        address = f"{scheme[0].rstrip('/')}//{str(workdir)[scheme.end() :]}"
        raise UsageError(
            f"--workdir {workdir} is a bucket, and has to be a folder. Keep the "
            f"checkpoints alone in the bucket: --run.checkpoints {address}"
        )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"--workdir {workdir} cannot be written: {reason}.") from error
    stored, text = _stored(workdir, config)
    if stored is None:
        return config
    _require_same_parts(experiment, text, f"--workdir {workdir}")
    if config.data.mean_color is None:
        config = replace(
            config, data=replace(config.data, mean_color=stored.data.mean_color)
        )
    _require_same_run(config, stored, f"--workdir {workdir}")
    changed = ", ".join(
        f"{name} {then} -> {now}" for name, now, then in differences(config, stored)
    )
    if changed:
        log(f"Resuming with other settings: {changed}.")
    return config


def _require_same_run(config: Config, stored: Config, holder: str) -> None:
    """Refuses what `holder` has where it is of another run than `config`."""
    if stored.name != config.name:
        raise UsageError(
            f"{holder} holds a run of the experiment {stored.name!r}, not of "
            f"{config.name!r}. {ELSEWHERE}"
        )
    fixed = [
        f"{name} is {now} and was {then}"
        for name, now, then in differences(config, stored)
        if name not in FREE
    ]
    if fixed:
        raise UsageError(
            f"{holder} holds a run that differs in what it learns: {'; '.join(fixed)}. "
            f"Give the same values. {ELSEWHERE}"
        )


def _require_same_parts(
    experiment: Experiment | None, known: str | None, holder: str
) -> None:
    """Refuses parts of another text than those that the run was begun with."""
    own = experiment is not None and experiment.make_parts is not None
    if experiment is not None and known is not None:
        require_same_text(experiment, known, holder)
    elif known is not None or own:
        defines = "defines" if own else "does not define"
        was = "without" if own else "with"
        raise UsageError(
            f"{holder} holds a run {was} parts of an experiment's own, and the experiment "
            f"{defines} parts(config). {ELSEWHERE}"
        )


def _stored(workdir: Path, config: Config) -> tuple[Config | None, str | None]:
    """The configuration that the run has had so far, and the text of its own parts.

    None where the run only begins. A machine that is new to a run finds both in the
    bucket of the run's checkpoints.
    """
    file = workdir / "config.json"
    if file.exists():
        source = workdir / EXPERIMENT
        text = source.read_text(encoding="utf-8") if source.exists() else None
        return Config.from_json(file.read_text(encoding="utf-8")), text
    if jax.process_index() == 0:
        # An empty bucket and one that does not answer look alike to a reader.
        require_writable(config.checkpoints_of(workdir))
        newest = peek(config.checkpoints_of(workdir))
        if newest is not None:
            known = newest.extra.get("experiment")
            return Config.from_json(newest.config_json), known
    return None, None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _order(before: str, photographs: str, records: np.ndarray) -> str:
    """The hash of all photographs shown, one batch later than `before`."""
    shown = f"{before} {photographs} ".encode() + records.astype("<i8").tobytes()
    return hashlib.sha256(shown).hexdigest()


def _write_status(
    this: Run, status: Status, step: int | None = None, reason: str = ""
) -> None:
    """run_status.json: what an operator or a scheduler reads to learn how the run stands.

    `step` is by default the newest on disk, from which the same command goes on.
    """
    if jax.process_index() != 0:
        return
    if step is None:
        with contextlib.suppress(OSError):
            step = max(this.checkpoints.steps(), default=None)
    record = {"status": status, "last_step": step, "reason": reason[:500]}
    content = (json.dumps(record) + "\n").encode()
    file = this.workdir / "run_status.json"
    try:
        write_whole(file, content)
    except OSError:
        # On a full disk the room that the file has already is enough.
        with file.open("r+b") as opened:
            opened.write(content.ljust(os.path.getsize(file)))


def _write_left(this: Run) -> None:
    _write_status(this, "failed", None, "left at once, on a second Ctrl-C")
