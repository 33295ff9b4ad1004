"""Evaluation of a training run's checkpoints as they are saved: `evaluate --follow`.

It runs in a process beside the training, or on a machine that shares the run's folder. The
results of a checkpoint go into evaluations/ in that folder, and a line into
evaluations.jsonl, which curves.png and `run.keep_best_by` use.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from gl_jax.checkpoint import NoWholeCheckpointError, saved_steps
from gl_jax.config import Config, UsageError
from gl_jax.evaluation import evaluate
from gl_jax.evaluation.photographs import Selection
from gl_jax.evaluation.results import Evaluation
from gl_jax.experiment import load_experiment, read_config
from gl_jax.files import writing
from gl_jax.training.report import evaluations_by_step, write_curves
from gl_jax.training.report.log import EVALUATIONS, append
from gl_jax.training.workdir import read_status
from gl_jax.weights import export

POLL_SECONDS = 10.0
"""Seconds between two checks for new checkpoints."""
ENDED = ("finished", "failed")
"""Statuses that end a run; one that was stopped may be resumed."""


def run(
    workdir: Path,
    selection: Selection,
    *,
    experiment: Path | None = None,
    log: Callable[[str], None] = print,
    **options: Any,
) -> None:
    """Measures each checkpoint of a run that is not measured yet, until the run ends.

    `options` are those of `evaluate.run`. A checkpoint that the run removes before it is
    measured is skipped. Raises UsageError if the folder is no run, or its run has ended.
    """
    config = _running(workdir)
    own = load_experiment(str(experiment)) if experiment is not None else None
    skipped: set[int] = set()
    ended = False
    while not ended:
        # Read before the checkpoints, so that the last one of a run is not missed.
        ended = read_status(workdir).get("status") in ENDED
        done = {*evaluations_by_step(workdir), *skipped}
        for step in saved_steps(config.checkpoints_of(workdir)):
            if step in done:
                continue
            try:
                model = export.from_run(workdir, step=step, experiment=own)
            except (UsageError, NoWholeCheckpointError) as error:
                if step in saved_steps(config.checkpoints_of(workdir)):
                    raise
                log(f"Checkpoint {step} was removed before it was measured: {error}")
                skipped.add(step)
                continue
            output = workdir / "evaluations" / f"step_{step:08d}"
            result = evaluate.run(
                f"{workdir}, step {step}", selection, output, loaded=model, log=log,
                **options,
            )  # fmt: skip
            _record(workdir, config, step, result)
        if not ended:
            time.sleep(POLL_SECONDS)
    log(f"The run has ended: {read_status(workdir).get('status')}.")


def _running(workdir: Path) -> Config:
    """Returns the configuration of a run; raises UsageError if it has ended."""
    status = read_status(workdir).get("status")
    if status is None or not (workdir / "config.json").is_file():
        raise UsageError(
            f"--follow {workdir} is no folder of a training run: it has no config.json "
            "or no run_status.json (yet)."
        )
    if status in ENDED:
        raise UsageError(
            f"--follow {workdir}: the run has ended ({status}). Measure its newest "
            f"checkpoint with --model {workdir}."
        )
    if jax.process_count() > 1:
        raise UsageError("--follow measures on one host; start it there alone.")
    return read_config(workdir / "config.json")


def _record(workdir: Path, config: Config, step: int, result: Evaluation) -> None:
    """Adds a line; raises UsageError if earlier ones are of other photographs or holes."""
    own = ("model", "model_label", "rerun")
    common = {name: value for name, value in result.settings.items() if name not in own}
    settings = hashlib.sha256(json.dumps(common, sort_keys=True).encode()).hexdigest()
    before = {line["settings"] for line in evaluations_by_step(workdir).values()}
    if before - {settings[:16]}:
        raise UsageError(
            f"{workdir / EVALUATIONS} holds measures with other photographs, holes or "
            "weights, which are not comparable. Give the same options, or rename that file "
            "to begin anew."
        )
    line = {
        "step": step,
        "phase": config.phase_at(step - 1),
        **{k: v for k, v in result.means().items() if math.isfinite(v)},
        "time": round(time.time(), 3),
        "settings": settings[:16],
    }
    with writing(workdir / EVALUATIONS):
        append(workdir / EVALUATIONS, (json.dumps(line) + "\n").encode())
        write_curves(workdir, config)
