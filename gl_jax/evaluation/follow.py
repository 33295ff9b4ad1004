"""A training run that is watched: each new checkpoint is measured as it lands.

The story of `gl-jax evaluate --follow`, in a process or on a machine beside the run, with
which it has the run's folder in common. Results of a checkpoint go into evaluations/ in
that folder, and a line for it into evaluations.jsonl, from which curves.png is drawn and
`run.keep_best_by` is served.
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
"""Seconds between two looks at the run's folder."""
ENDED = ("finished", "failed")
"""Statuses of a run that nobody is expected to resume; one that was stopped may go on."""


def run(
    workdir: Path,
    selection: Selection,
    *,
    experiment: Path | None = None,
    log: Callable[[str], None] = print,
    **options: Any,
) -> None:
    """Measures every checkpoint of a run that is not measured yet, until the run ends.

    `options` are those of `evaluate.run`. A checkpoint that the run removes too soon is
    passed over. Raises UsageError if the folder is no run, or if its run has ended.
    """
    config = _running(workdir)
    own = load_experiment(str(experiment)) if experiment is not None else None
    passed_over: set[int] = set()
    ended = False
    while not ended:
        # In this order, so that the last checkpoint of a run that ends is not missed.
        ended = read_status(workdir).get("status") in ENDED
        done = {*evaluations_by_step(workdir), *passed_over}
        for step in saved_steps(config.checkpoints_of(workdir)):
            if step in done:
                continue
            try:
                model = export.from_run(workdir, step=step, experiment=own)
            except (UsageError, NoWholeCheckpointError) as error:
                if step in saved_steps(config.checkpoints_of(workdir)):
                    raise
                log(f"Checkpoint {step} was removed before it was measured: {error}")
                passed_over.add(step)
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
    """Returns the configuration of the run in a folder, which has not ended."""
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
        raise UsageError("--follow measures on one host: leave the others out.")
    return read_config(workdir / "config.json")


def _record(workdir: Path, config: Config, step: int, result: Evaluation) -> None:
    """Adds a line; UsageError if those before it are of other photographs or holes."""
    own = ("model", "model_label", "rerun")
    common = {name: value for name, value in result.settings.items() if name not in own}
    settings = hashlib.sha256(json.dumps(common, sort_keys=True).encode()).hexdigest()
    before = {line["settings"] for line in evaluations_by_step(workdir).values()}
    if before - {settings[:16]}:
        raise UsageError(
            f"{workdir / EVALUATIONS} holds measures with other photographs, holes or "
            "weights, which these cannot be compared with. Give the same options, or "
            "rename that file to begin anew."
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
