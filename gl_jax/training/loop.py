"""A training run from top to bottom."""

import contextlib
import errno
import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from gl_jax.checkpoint import NonFiniteStateError, SaveFailedError
from gl_jax.config import Config, Phase, UsageError
from gl_jax.experiment import Experiment
from gl_jax.files import reason
from gl_jax.training import initial
from gl_jax.training.interruption import Interrupted, Interruption
from gl_jax.training.preparation import Run, prepare
from gl_jax.training.report import FULL, Progress, Report, say
from gl_jax.training.state import (
    TrainState,
    create_state,
    inference_variables,
    state_shapes,
)
from gl_jax.training.watchdog import Watchdog
from gl_jax.training.workdir import (
    require_same_length,
    require_same_photographs,
    require_same_run,
)


class NotFiniteError(RuntimeError):
    """A loss became NaN or infinite."""


class StorageError(RuntimeError):
    """The workdir cannot be written, so the run can neither begin nor end properly."""


class Start(NamedTuple):
    """The point from which a run goes on."""

    state: TrainState
    """Replicated."""
    rollbacks: int
    """The number of rollbacks before it."""
    order: str
    """Hash of all photographs shown until there, in their order."""
    progress: Progress
    """The training until there, of all lives of the run."""


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
    RuntimeError if training fails, and Interrupted (a SystemExit with code 143)
    after a request to stop, the state saved.
    """
    try:
        with contextlib.ExitStack() as at_end:
            _run(prepare(config, workdir, experiment, log, at_end))
    except OSError as error:
        if error.errno not in (*FULL, errno.EROFS, errno.EACCES, errno.EIO):
            raise
        raise StorageError(
            f"{error.filename or workdir} cannot be written: {reason(error)}. Mend it "
            "and run the same command to resume."
        ) from error


def _run(run: Run) -> None:
    settings, rollbacks, begun = run.config.run, 0, False
    try:
        while True:
            start = _restored_or_new(run, rollbacks)
            rollbacks = start.rollbacks
            # Not before, so that a command that is refused leaves the folder as it is.
            run.write_config()
            run.write_status("running", started=start.progress.started)
            begun = True
            try:
                last_step = _train(run, start)
                break
            except (NotFiniteError, NonFiniteStateError) as error:
                rollbacks += 1
                if settings.on_nan == "stop" or rollbacks > settings.max_rollbacks:
                    raise
                run.log(f"{error} Going back to the last checkpoint, with other holes.")
    except Interrupted as interrupted:
        step = interrupted.step
        run.write_status("preempted", step, "stopped on request")
        run.log(f"Stopped after step {step}, saved. The same command resumes.")
        raise
    except BaseException as error:
        if isinstance(error, UsageError) and not begun:
            raise
        explanation = f"{type(error).__name__}: {error}"
        with contextlib.suppress(OSError):
            run.write_status("failed", None, explanation)
        # Again, with the save under way, which may never end if another host is gone.
        with contextlib.suppress(Exception):
            run.checkpoints.wait()
            run.write_status("failed", None, explanation)
        raise
    finally:
        run.checkpoints.close()
    run.write_status("finished", last_step)


def _restored_or_new(run: Run, rollbacks: int) -> Start:
    """Returns the state of the newest whole checkpoint, or that of step 0."""
    size, settings = run.config.data.image_size, run.config.run
    ema = settings.ema_decay is not None
    template = state_shapes(run.parts, size, ema=ema)
    restored = run.checkpoints.restore_newest(template)
    if restored is None:
        state = create_state(run.parts, size, seed=settings.seed, ema=ema)
        beginning = "at random"
        if run.initial is not None:
            state = initial.begin_with(state, run.initial)
            beginning = f"with {settings.initial_weights}"
        run.log(f"Starting {run.config.name} in {run.workdir}, {beginning}.")
        state = run.devices.replicate(state)
        return Start(state, rollbacks, "", Progress(run.started))
    address = run.config.checkpoints_of(run.workdir)
    stored, extra = Config.from_json(restored.config_json), restored.extra
    require_same_run(run.config, stored, address)
    require_same_length(run.config, stored, restored.step, address)
    how = require_same_photographs(run.config, stored, run.photographs, extra)
    if how is not None:
        run.log(
            f"THE PHOTOGRAPHS CHANGED since checkpoint {restored.step}: {how}. The run goes "
            "on with those that are there, in another order than an unbroken one. To keep "
            "it exact, stop it, put the photographs back, and run the same command again."
        )
    total = run.config.schedule.total_steps
    run.log(
        f"Resuming {run.config.name} in {run.workdir} at step {restored.step} of {total}."
    )
    # A checkpoint of an older version does not say.
    progress = Progress(**extra.get("progress", {"started": run.started}))
    return Start(
        run.devices.replicate(restored.state),
        max(rollbacks, extra["rollbacks"]),
        extra.get("order", ""),
        progress,
    )


def _train(run: Run, begin: Start) -> int:
    """Trains from the state's own step to the last one, and returns that."""
    config, devices = run.config, run.devices
    state, rollbacks, order, progress = begin
    shown: deque[np.ndarray] = deque()
    start = int(jax.device_get(devices.first(state.step)))
    total = config.schedule.total_steps
    key = jax.random.fold_in(jax.random.key(config.run.seed), rollbacks)
    key = devices.replicate(key)
    batches = devices.prefetch(
        run.photographs.train_batches(
            start,
            host_index=jax.process_index(),
            host_count=jax.process_count(),
            shown=shown,
        )
    )
    left_at_once = partial(
        run.write_status, "failed", None, "left at once, on a second Ctrl-C"
    )
    # Each update that is compiled, with its seconds at the devices' peak.
    compiled: dict[Phase, float] = {}
    previous: Any = None
    # The newest value of each metric since the last line of the log.
    newest: dict[Phase, dict[str, Any]] = {phase: {} for phase in Phase}
    with (
        closing(_open_report(run, start, progress)) as report,
        Interruption(left_at_once) as interruption,
        Watchdog(config.run.hang_limit) as watchdog,
    ):
        for step in range(start + 1, total + 1):
            phase, update = config.phase_at(step - 1), config.update_at(step - 1)
            # Every thread's stack is printed if a step, a save or another host hangs.
            watchdog.beat()
            _profile(run, step, "first")
            first = update not in compiled
            with _compiling(report, update) if first else contextlib.nullcontext():
                if first:
                    compiled[update] = run.seconds_at_peak(update)
                with report.part("data"):
                    images = next(batches)
                order = _order(order, run.photographs.fingerprint(), shown.popleft())
                with report.part("device", at_peak=compiled[update]):
                    state, metrics = run.steps[update](state, images, key)
                    # At most one step runs ahead of the host, on CPU none (see Devices).
                    wait = first or devices.wait_each_step
                    jax.block_until_ready(metrics if wait else previous)
            previous = metrics
            newest[phase] |= _measured(run, step, metrics)
            _profile(run, step, "last", metrics)
            report.progress(step, phase)

            stop = interruption.requested(step)
            last = step == total or stop
            if step % config.run.log_every == 0 or last:
                _log(run, report, step, phase, newest[phase], order)
            measured: dict[str, float] = {}
            if step % config.run.eval_every == 0 or step == total:
                with report.pause():
                    measured = run.validation.metrics(devices.first(state), phase)
                    report.validation(step, phase, measured)
            if step % config.run.sample_every == 0 or step == total:
                _sample(run, report, step, state)
            if step % config.run.save_every == 0 or last:
                passed = {
                    "rollbacks": rollbacks,
                    "order": order,
                    "progress": report.progress_made()._asdict(),
                }
                with report.pause():
                    _save(run, step, state, measured, passed, last=last)
            if stop:
                raise Interrupted(step)
    return max(start, total)


def _open_report(run: Run, start: int, progress: Progress) -> Report:
    return Report(
        run.workdir,
        config=run.config,
        start_step=start,
        progress=progress,
        enabled=jax.process_index() == 0,
    )


def _log(
    run: Run,
    report: Report,
    step: int,
    phase: Phase,
    newest: dict[str, Any],
    order: str,
) -> None:
    """Logs the newest value of each metric, and forgets them."""
    with report.part("device"):
        scalars = jax.device_get(newest)
    values = {name: float(value) for name, value in scalars.items()}
    newest.clear()
    _require_finite(run, step, values)
    report.scalars(
        step,
        phase,
        values,
        peak_memory=run.devices.peak_memory(),
        order_hash=order[:16],
    )


def _sample(run: Run, report: Report, step: int, state: TrainState) -> None:
    """Draws completed validation photographs and the curves."""
    with report.pause():
        variables = run.devices.first(inference_variables(state))
        samples = run.validation.samples(variables, run.config.run.sample_images)
        report.samples(step, *samples)
        report.curves()


def _measured(run: Run, step: int, metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics without a penalty that was not due in this step."""
    if step % run.parts.objective.penalty_every == 0:
        return metrics
    return {name: value for name, value in metrics.items() if name != "penalty"}


@contextlib.contextmanager
def _compiling(report: Report, phase: Phase) -> Iterator[None]:
    """Announces a phase's first step, and leaves its time out of the speed."""
    report.message(f"Compiling the {phase} step.")
    with report.pause(steps=1):
        yield


def _profile(
    run: Run, step: int, end: Literal["first", "last"], metrics: Any = None
) -> None:
    """Starts or ends the profile if `step` is that end of `run.profile_steps`."""
    first, last = run.config.run.profile_steps or (0, 0)
    if end == "first" and step == first:
        jax.profiler.start_trace(run.workdir / "tensorboard")
    elif end == "last" and step == last:
        jax.block_until_ready(metrics)
        jax.profiler.stop_trace()


def _save(
    run: Run,
    step: int,
    state: TrainState,
    measured: dict[str, float],
    passed: dict[str, Any],
    *,
    last: bool,
) -> None:
    """Saves in the background; the last time waits, and tries twice."""
    photographs = run.photographs
    extra = {
        **passed,
        **run.remembered,
        "photographs": photographs.fingerprint(),
        "validation_photographs": photographs.validation_fingerprint,
        "inventory": photographs.inventory,
    }
    for _ in range(2 if last else 1):
        run.checkpoints.save(
            step,
            run.devices.first(state),
            measured=measured,
            config_json=run.config.to_json(),
            extra=extra,
        )
        if not last or run.checkpoints.wait():
            with contextlib.suppress(OSError):
                run.write_status("running")
            return
    raise SaveFailedError(
        f"Step {step}, the last one, could not be saved, twice; the reason is above. "
        "The same command resumes before it."
    )


def _require_finite(run: Run, step: int, metrics: dict[str, float]) -> None:
    """Raises NotFiniteError, with the step to go back to, if a metric is not finite."""
    bad = [f"{name} is {v}" for name, v in metrics.items() if not math.isfinite(v)]
    if not bad:
        return
    saved = run.checkpoints.steps()
    good = (
        f"the last checkpoint is step {saved[-1]}" if saved else "nothing is saved yet"
    )
    first = max(1, step - run.config.run.log_every + 1)
    raise NotFiniteError(
        f"Within steps {first} to {step}: {', '.join(bad)}; {good}. Lower the learning rate, "
        "clip the gradient (clip_norm), or resume with --run.on-nan rollback."
    )


def _order(before: str, photographs: str, records: np.ndarray) -> str:
    """Returns the hash of all photographs shown, one batch later than `before`."""
    shown = f"{before} {photographs} ".encode() + records.astype("<i8").tobytes()
    return hashlib.sha256(shown).hexdigest()
