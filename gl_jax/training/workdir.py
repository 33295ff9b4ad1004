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

from gl_jax.checkpoint import peek, require_writable
from gl_jax.config import Config, UsageError, differences
from gl_jax.data.pipeline import Photographs
from gl_jax.data.records import changes
from gl_jax.data.sources import RUN_STATUS
from gl_jax.experiment import Experiment, read_config, require_same_text
from gl_jax.fields import Mark, marked, values_by_name
from gl_jax.files import reason, require_utf8, write_whole
from gl_jax.training.parts import falling
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
LOCK = ".lock"
"""Locked while a training writes the folder."""
EXPERIMENT = "experiment.py"
"""Holds the text of an experiment with parts of its own."""

Status = Literal["running", "finished", "preempted", "failed"]


# --- claiming a folder


def require_workdir(workdir: Path) -> None:
    """Makes the folder; UsageError for a bucket or one that cannot be written."""
    require_utf8(workdir)
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


@contextlib.contextmanager
def locked(folder: Path, option: str, log: Callable[[str], None]) -> Iterator[None]:
    """Keeps a second training out of the folder: raises UsageError if one is there.

    The kernel lets go of the lock, also after a crash. Over NFS it holds between
    machines, too; on a file system without locks a line says that there is none.
    """
    with (folder / LOCK).open("a+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read(200).decode(errors="replace").strip()
            raise UsageError(
                f"{option} {folder} is in use by another training, "
                f"{holder or 'which has just begun'}. Wait for it or stop it. {ELSEWHERE}"
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
            log(
                f"{folder} is on a file system without locks: see to it that no second "
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
            f"{holder} holds a run with other settings that change the result: {'; '.join(fixed)}. "
            f"Give the same values. {ELSEWHERE}"
        )


def require_same_length(config: Config, stored: Config, step: int, holder: str) -> None:
    """Refuses another number of steps if a decayed value would jump at `step`."""
    now, then = (one.schedule.total_steps for one in (config, stored))
    if now == then:
        return
    planned = falling(config, step)
    fallen = [
        name for name, value in falling(stored, step).items() if planned[name] != value
    ]
    if fallen:
        raise UsageError(
            f"{holder} holds a run of {then} steps, by which the {' and the '.join(fallen)} "
            f"has fallen so far: with schedule.total_steps (={now}) it would jump. Give "
            f"{then}. To train a finished run further, export it (gl-jax export) and begin "
            "another one with --run.initial-weights."
        )


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
            photographs.validation_fingerprint,
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
    """Returns the values that must be the same on all hosts of a run, by name."""
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
    step = read_status(workdir).get("last_step")
    return step if isinstance(step, int) else 0


def read_status(workdir: Path) -> dict[str, Any]:
    """Returns the content of run_status.json; empty if it is missing or damaged."""
    with contextlib.suppress(OSError, ValueError):
        status = json.loads((workdir / RUN_STATUS).read_bytes())
        if isinstance(status, dict):
            return status
    return {}


def write_status(
    workdir: Path,
    status: Status,
    step: int | None,
    explanation: str = "",
    *,
    started: float | None = None,
) -> None:
    """Writes run_status.json, which tells an operator or a scheduler how a run stands.

    `step` is the newest one on disk, from which the same command goes on. `started` is
    the Unix time of the run's first start, by default the one that the file has.
    """
    if started is None:
        started = read_status(workdir).get("started")
    record = {
        "status": status,
        "last_step": step,
        "reason": explanation[:500],
        "started": started,
    }
    content = (json.dumps(record) + "\n").encode()
    file = workdir / RUN_STATUS
    try:
        write_whole(file, content)
    except OSError:
        # On a full disk the room that the file has already is enough.
        with file.open("r+b") as opened:
            opened.write(content.ljust(os.path.getsize(file)))
