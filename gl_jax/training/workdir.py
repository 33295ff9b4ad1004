"""The folder of a run, and what the lives and the hosts of one run have in common.

A run owns its folder: config.json says what it trains, experiment.py which parts of its
own it has, run_status.json how it stands. A command for another run is refused.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import jax

from gl_jax.config import Config, UsageError, differences
from gl_jax.data.pipeline import Photographs
from gl_jax.data.sources import changes
from gl_jax.experiment import Experiment, require_same_text
from gl_jax.fields import Mark, marked, values_by_name
from gl_jax.files import reason, write_whole
from gl_jax.training.checkpoint import peek, require_writable
from gl_jax.version import __version__
from gl_jax.weights import architectures
from gl_jax.weights.convention import Convention
from gl_jax.weights.native import Model

MAY_CHANGE = marked(Config, Mark.MAY_CHANGE)
"""Fields that may differ between a run and its resumption."""
PER_HOST = marked(Config, Mark.PER_HOST)
"""Fields that may differ between the hosts of a run."""

ELSEWHERE = (
    "Another run needs another --workdir, and another --run.checkpoints if it has one."
)
EXPERIMENT = "experiment.py"
"""Holds the text of an experiment with parts of its own."""

Status = Literal["running", "finished", "preempted", "failed"]


# --- claiming a folder


def require_workdir(workdir: Path) -> None:
    """Makes the folder; UsageError for a bucket or one that cannot be written."""
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
        raise UsageError(
            f"--workdir {workdir} cannot be written: {reason(error)}."
        ) from error


LOCK = ".lock"
"""Locked while a training writes the folder. The kernel lets it go, also after a crash."""


@contextlib.contextmanager
def locked(workdir: Path, log: Callable[[str], None]) -> Iterator[None]:
    """Keeps a second training out of the folder: raises UsageError if one is there.

    Over NFS the lock holds between machines, too; on a file system without locks a
    line says that there is none.
    """
    with (workdir / LOCK).open("a+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read(200).decode(errors="replace").strip()
            raise UsageError(
                f"--workdir {workdir} is being trained in by {holder or 'another process'}. "
                f"Wait for it or stop it. {ELSEWHERE}"
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
            log(
                f"{workdir} is on a file system without locks: see to it that no second "
                "training uses it."
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield


def claim(
    workdir: Path,
    config: Config,
    experiment: Experiment | None,
    log: Callable[[str], None],
) -> Config:
    """Makes sure that the folder is new or this run's own.

    Returns the configuration with the mean colour of the run so far. Raises UsageError
    for another run's folder.
    """
    stored, text = _stored(workdir, config)
    if stored is None:
        return config
    _require_same_parts(experiment, text, f"--workdir {workdir}")
    if config.data.mean_color is None:
        color = stored.data.mean_color
        config = replace(config, data=replace(config.data, mean_color=color))
    require_same_run(config, stored, f"--workdir {workdir}")
    require_same_length(
        config, stored, last_saved_step(workdir), f"--workdir {workdir}"
    )
    changed = ", ".join(
        f"{name} {then} -> {now}" for name, now, then in differences(config, stored)
    )
    if changed:
        log(f"Resuming with other settings: {changed}.")
    return config


def read_config(file: Path) -> Config:
    """Reads a config.json; UsageError, with its name, if it is damaged."""
    try:
        return Config.from_json(file.read_text(encoding="utf-8"))
    except (UsageError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{file} is damaged: {error} Put it back as it was."
        ) from error


def write_config(workdir: Path, config: Config, remembered: dict[str, Any]) -> None:
    """Writes config.json, and experiment.py for a run with parts of its own."""
    write_whole(workdir / "config.json", config.to_json().encode())
    if "experiment" in remembered:
        write_whole(workdir / EXPERIMENT, remembered["experiment"].encode())


def require_same_run(config: Config, stored: Config, holder: str) -> None:
    """Raises UsageError if `holder` has a run that `config` cannot resume."""
    if stored.name != config.name:
        raise UsageError(
            f"{holder} holds a run of the experiment {stored.name!r}, not of "
            f"{config.name!r}. {ELSEWHERE}"
        )
    fixed = [
        f"{name} is {now} and was {then}"
        for name, now, then in differences(config, stored)
        if name not in MAY_CHANGE and not _is_respelt(name, now, then)
    ]
    if fixed:
        raise UsageError(
            f"{holder} holds a run that differs in what it learns: {'; '.join(fixed)}. "
            f"Give the same values. {ELSEWHERE}"
        )


def require_same_length(config: Config, stored: Config, step: int, holder: str) -> None:
    """Refuses another number of steps if what has fallen until `step` would jump by it."""
    now, then = (one.schedule.total_steps for one in (config, stored))
    falling = ", ".join(_falling(stored, step))
    if now != then and falling:
        raise UsageError(
            f"{holder} holds a run whose {falling} falls to its end at step {then}: with "
            f"schedule.total_steps (={now}) it would jump. To go on from a finished run, "
            "export it (gl-jax export) and begin another one with --run.initial-weights."
        )


def _falling(config: Config, step: int) -> Iterator[str]:
    """The numbers that follow from a run's length, of those in use until `step`."""
    schedule = config.schedule
    joint = step > schedule.completion_steps + schedule.discriminator_steps
    for name in ("completion_optimizer", "discriminator_optimizer"):
        optimizer = getattr(config, name)
        early = step > 0 and optimizer.joint_learning_rate is None
        if optimizer.decay != "constant" and (early or joint):
            yield f"{name}'s learning rate"
    if config.loss.discriminator_noise_end is not None and joint:
        yield "discriminator noise"


def _is_respelt(name: str, now: Any, then: Any) -> bool:
    """Returns whether two values may name the same folder of photographs.

    `require_same_photographs` decides whether they do.
    """
    if name not in ("data.source", "data.validation_source"):
        return False
    return all(
        isinstance(source, str)
        and source != "bundled"
        and not source.startswith("tfds:")
        for source in (now, then)
    )


def require_same_photographs(
    config: Config, stored: Config, photographs: Photographs, extra: dict[str, Any]
) -> str | None:
    """Returns how the photographs differ from those of a checkpoint, None if they do not.

    Raises UsageError if they come from a folder of another name: these are no longer
    the run's photographs, some of which changed, but others.
    """
    for field, known, present in (
        ("source", extra["photographs"], photographs.fingerprint()),
        (
            "validation_source",
            extra.get("validation_photographs"),
            photographs.validation.source.fingerprint(),
        ),
    ):
        now, then = (getattr(one.data, field) for one in (config, stored))
        if now != then and known != present:
            raise UsageError(
                f"data.{field} (={now!r}) does not hold the photographs of the run, which "
                f"came from {then!r}: their names or sizes differ. Give the folder that "
                f"has them. {ELSEWHERE}"
            )
    if extra["photographs"] == photographs.fingerprint():
        return None
    if "inventory" in extra:
        return changes(extra["inventory"], photographs.inventory)
    return "other names, sizes or number"


def _require_same_parts(
    experiment: Experiment | None, text: str | None, holder: str
) -> None:
    """Raises UsageError if the run began with parts of another text, or of none."""
    own = experiment is not None and experiment.make_parts is not None
    if experiment is not None and text is not None:
        require_same_text(experiment, text, holder)
    elif text is not None or own:
        defines = "defines" if own else "does not define"
        was = "without" if own else "with"
        raise UsageError(
            f"{holder} holds a run {was} parts of an experiment's own, and the experiment "
            f"{defines} parts(config). {ELSEWHERE}"
        )


def _stored(workdir: Path, config: Config) -> tuple[Config | None, str | None]:
    """Returns the run's configuration so far, and the text of its own parts.

    None for a run that only begins. A machine that is new to a run finds both in the
    bucket of the run's checkpoints.
    """
    file = workdir / "config.json"
    if file.exists():
        source = workdir / EXPERIMENT
        text = source.read_text(encoding="utf-8") if source.exists() else None
        return read_config(file), text
    if jax.process_index() == 0:
        # An empty bucket and one that does not answer look alike to a reader.
        require_writable(config.checkpoints_of(workdir))
        newest = peek(config.checkpoints_of(workdir))
        if newest is not None:
            return Config.from_json(newest.config_json), newest.extra.get("experiment")
    return None, None


# --- what the lives and the hosts of a run have in common


def remembered_of(
    completion: Any,
    discriminator: Any,
    convention: Convention,
    experiment: Experiment | None,
) -> dict[str, Any]:
    """Returns what checkpoints keep of a run's architectures and its own parts.

    The `convention` is the completion network's.
    """
    networks = {"completion": completion, "discriminator": discriminator}
    record: dict[str, Any] = {
        "networks": {
            role: architecture and architectures.to_json(architecture)
            for role, architecture in networks.items()
        },
        "convention": asdict(convention),
    }
    if experiment is not None and experiment.make_parts is not None:
        record["experiment"] = experiment.text
    return record


def shared_facts(
    config: Config,
    photographs: Photographs,
    model: Model | None,
    remembered: dict[str, Any],
) -> dict[str, Any]:
    """Returns what has to be the same on all hosts of a run, by name."""
    text = remembered.get("experiment", "")
    values = values_by_name(config)
    return {name: value for name, value in values.items() if name not in PER_HOST} | {
        "the version of gl_jax": __version__,
        "the version of jax": jax.__version__,
        "the number of photographs": len(photographs.training),
        "the hash of their names and sizes": photographs.fingerprint()[:16],
        "the hash of the experiment's parts": hashlib.sha256(text.encode()).hexdigest()[
            :16
        ],
        "the hash of the initial weights": model.sha256[:16] if model else "none",
    }


# --- run_status.json


def last_saved_step(workdir: Path) -> int:
    """Returns the `last_step` of run_status.json, or 0 if there is none."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        status = json.loads((workdir / "run_status.json").read_text(encoding="utf-8"))
        return int(status["last_step"] or 0)
    return 0


def write_status(
    workdir: Path, status: Status, step: int | None, explanation: str = ""
) -> None:
    """Writes run_status.json, which tells an operator or a scheduler how a run stands.

    `step` is the newest one on disk, from which the same command goes on.
    """
    record = {"status": status, "last_step": step, "reason": explanation[:500]}
    content = (json.dumps(record) + "\n").encode()
    file = workdir / "run_status.json"
    try:
        write_whole(file, content)
    except OSError:
        # On a full disk the room that the file has already is enough.
        with file.open("r+b") as opened:
            opened.write(content.ljust(os.path.getsize(file)))
