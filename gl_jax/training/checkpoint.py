"""The run on disk: save, verify, restore the newest whole checkpoint. The one orbax.

A checkpoint is a folder named by its step. Orbax writes it beside its final name and
renames it when it is complete, so a step that can be seen was written to its end. Orbax
does not notice a flipped bit, so each checkpoint carries the SHA-256 of every array and,
on a local disk, of every file; nothing is restored that does not match.

    checkpoints/
      12000/state/      the arrays, by their place: completion/params/conv1/kernel
      12000/manifest/   type, shape, SHA-256 of each; configuration; its own SHA-256
      12000/files.json  SHA-256 of every file above
      11000.corrupt/    set aside by a restore, never read again and never deleted

In a bucket there is no rename: orbax writes under the final name and marks the step
complete with `commit_success.txt`, last. What cannot be read there for the moment is not
taken for damaged.

Only the primary process touches the storage; the others receive what it has read. A
slow or failing disk on one host can therefore not make the hosts disagree, and the
hosts need not share a file system.
"""

import concurrent.futures
import contextlib
import dataclasses
import errno
import hashlib
import importlib.util
import json
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from gl_jax.config import UsageError, is_bucket

SEAL = "files.json"
"""Lists the files of a checkpoint with their SHA-256, written before its last rename."""
UNSEALED = ("_CHECKPOINT_METADATA", "commit_success.txt")
"""Notes of orbax's on the commit, written after the seal; on a disk nobody reads them."""
FORMAT = 1
"""Version of the manifest; a reader refuses the versions it does not know."""
SAVE_TIMEOUT = 1200
"""Seconds after which orbax gives a save up."""
DAMAGE = (
    *"NOT_FOUND OUT_OF_RANGE DATA_LOSS FAILED_PRECONDITION".split(),
    "Error decoding",
)
"""Tensorstore's words for what is missing, cut short or misformed in a bucket."""
BROADCAST_BYTES = 32 * 2**20
"""Piece in which a restored state travels to the other hosts."""

Leaves = dict[str, np.ndarray]
Manifest = dict[str, Any]


class NonFiniteStateError(RuntimeError):
    """The state to save holds NaN or infinity, so the checkpoint would be worthless."""


class SaveFailedError(RuntimeError):
    """Too many saves in a row have failed."""


class NoWholeCheckpointError(RuntimeError):
    """There are checkpoints, and not one of them can be restored."""


class StorageUnreachableError(RuntimeError):
    """A bucket does not answer, or not as it should; its checkpoints may be whole."""


class CheckpointMismatchError(UsageError):
    """A whole checkpoint of another configuration, or of a newer gl_jax."""


class _DamagedError(Exception):
    """One checkpoint cannot be used; says why, in one line."""


@dataclasses.dataclass(frozen=True)
class Restored:
    """What a checkpoint held."""

    step: int
    state: Any
    """The template's tree, or for `restore_subtree` one nested dictionary per name."""
    config_json: str
    extra: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class _Best:
    """Orbax preservation policy: the `count` steps of highest validation PSNR."""

    count: int
    psnr: Mapping[int, float | None]

    def should_preserve(
        self,
        checkpoints: Sequence[policies.PolicyCheckpointInfo],
        *,
        context: policies.PreservationContext,
    ) -> Sequence[bool]:
        del context
        measured = [
            (psnr, info.step)
            for info in checkpoints
            if (psnr := self.psnr.get(info.step)) is not None
        ]
        best = {step for _, step in sorted(measured, reverse=True)[: self.count]}
        return [info.step in best for info in checkpoints]


class _Manager(ocp.CheckpointManager):  # type: ignore[misc]
    def reached_preemption(self, step: int) -> bool:
        # The loop asks JAX once per step. Orbax would ask again from its background
        # thread, with an older step, and could make the hosts miss the agreed one.
        del step
        return False


class Checkpoints:
    """The checkpoints of one run, in a local folder or a bucket (`gs://...` as a str).

    Kept are the `keep_newest` newest, the `keep_best` of highest validation PSNR and
    all at multiples of `keep_every`; the newest is always among them. Every process of
    a run makes one and calls `save` and `restore_newest` at the same steps; `primary`
    is true on process 0 only. Raises UsageError where the folder cannot be written.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        keep_newest: int,
        keep_best: int,
        keep_every: int | None,
        max_failed_saves: int,
        log: Callable[[str], None],
        primary: bool = True,
    ) -> None:
        self._directory = _absolute(directory)
        self._max_failed_saves = max_failed_saves
        self._log = log
        self._psnr: dict[int, float | None] = {}
        self._saving: tuple[int, int] | None = None
        self._seen: list[int] = []
        self._failures = 0
        self._manager: _Manager | None = None
        if not primary:
            return
        require_writable(self._directory)
        for step in _steps(self._directory):
            try:
                self._psnr[step] = _read_manifest(self._directory, step)["psnr"]
            except _DamagedError:
                self._psnr[step] = None  # a restore reports it, and sets it aside
        preserved: list[policies.PreservationPolicy] = [
            policies.LatestN(keep_newest),
            _Best(keep_best, self._psnr),
        ]
        if keep_every is not None:
            preserved.append(policies.EveryNSteps(keep_every))
        here = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(),
            active_processes={jax.process_index()},
            barrier_sync_key_prefix="gl_jax",
        )
        self._manager = _Manager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                create=False,
                save_root_metadata=False,
                # Metrics live in the manifest: orbax's own metrics file would stop the
                # run at its start where it is damaged.
                lightweight_initialize=True,
                preservation_policy=policies.AnyPreservationPolicy(preserved),
                multiprocessing_options=here,
                # Made in the background, a folder that cannot be made would leave threads
                # waiting for it, and the process could not exit, until the timeout.
                async_options=ocp.options.AsyncOptions(
                    timeout_secs=SAVE_TIMEOUT,
                    create_directories_asynchronously=False,
                    post_finalization_callback=self._seal,
                ),
            ),
        )

    def save(
        self,
        step: int,
        state: Any,
        *,
        psnr: float | None,
        config_json: str,
        extra: dict[str, Any],
    ) -> bool:
        """True where the save of `state` has begun; it ends in the background.

        The arrays of `state` are copied before this returns, so it may be donated. They
        are replicated jax arrays or numpy arrays in their natural shapes. `psnr` ranks
        the checkpoint (None or NaN: not measured); `extra` has to be JSON.

        False where the step, or a later one, is already there, and where the save
        failed; on a process that is not primary always True. A failure, also one of the
        save before, is logged with its reason. Raises SaveFailedError at the
        `max_failed_saves`-th in a row and NonFiniteStateError (on every process) where
        the state holds NaN or infinity.
        """
        leaves = _leaves(jax.device_get(state))
        rank = None if psnr is None or math.isnan(psnr) else float(psnr)
        content = {
            "format": FORMAT,
            "step": step,
            "psnr": rank,
            "config_json": config_json,
            "extra": extra,
            "leaves": _describe(leaves, step),
            "sealed": _is_local(self._directory),
        }
        if self._manager is None:
            return True
        # Through JSON once, so that what is hashed is what will be read.
        manifest: Manifest = json.loads(json.dumps(content))
        manifest["sha256"] = _manifest_digest(manifest)
        self.wait()
        if not self._manager.should_save(step):
            return False
        size = sum(leaf.nbytes for leaf in leaves.values())
        # The policy decides inside orbax's save what goes once this step is on disk.
        self._psnr[step] = rank
        try:
            self._remove_left_overs()
            _require_room(self._directory, size)
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(leaves),
                    manifest=ocp.args.JsonSave(manifest),
                ),
            )
        except Exception as error:
            self._failed(step, size, error)
            return False
        self._saving = (step, size)
        return True

    def wait(self) -> bool:
        """Blocks until the save under way is on disk; False where it has failed.

        Raises SaveFailedError at the `max_failed_saves`-th failure in a row.
        """
        if self._manager is None or self._saving is None:
            return True
        (step, size), self._saving = self._saving, None
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            return self._failed(step, size, error)
        self._failures = 0
        return True

    def restore_newest(
        self, template: Any, sharding: jax.sharding.Sharding | None = None
    ) -> Restored | None:
        """The newest whole checkpoint, or None where there never was one.

        The state has `template`'s tree, node types included; `template` holds arrays or
        `jax.ShapeDtypeStruct`. Its leaves are numpy arrays, or with `sharding` jax
        arrays placed so. A checkpoint that cannot be read or does not match its
        checksums is logged, renamed to `<step>.corrupt`, and the one before is tried.
        All processes call this, and all return the step process 0 has found.

        Raises NoWholeCheckpointError where every checkpoint is damaged (also where
        earlier restores have set them all aside: a run never starts anew silently) and
        CheckpointMismatchError where one is whole but of another configuration.
        """
        expected = _expected(template)
        found = _from_primary(lambda: self._read_newest(expected))
        if found is None:
            return None
        manifest, leaves = found
        structure = jax.tree.structure(template)
        state = jax.tree.unflatten(structure, [leaves[name] for name in expected])
        if sharding is not None:
            # On CPU jax lends numpy's memory to every device at once, and what is lent
            # cannot be donated to the step.
            state = jax.device_put(state, sharding, may_alias=False)
        return _restored(manifest, state)

    def steps(self) -> list[int]:
        """The steps on disk in ascending order; none where this is not primary.

        Where a bucket does not answer, those it had when it last did.
        """
        if self._manager is not None:
            with contextlib.suppress(StorageUnreachableError):
                self._seen = _steps(self._directory)
        return self._seen

    def empty(self) -> bool:
        """Whether the primary finds no checkpoint, not even one set aside."""
        return (
            self._manager is not None
            and not _steps(self._directory)
            and not _set_aside(self._directory)
        )

    def close(self) -> None:
        """Waits for the save under way, as `wait` does, and frees orbax's threads."""
        if self._manager is not None:
            try:
                self.wait()
            finally:
                self._manager.close()

    def _read_newest(
        self, expected: Mapping[str, tuple[str, list[int]]]
    ) -> tuple[Manifest, Leaves] | None:
        self.wait()
        steps = _steps(self._directory)
        for step in reversed(steps):
            try:
                manifest = _read_manifest(self._directory, step)
                _require_match(manifest, expected, self._directory)
                damage = _damaged_file(self._directory, manifest)
                # First, because a damaged array should be called by its name.
                leaves = _read_leaves(
                    self._directory, manifest, expected, one_by_one=damage is not None
                )
                if damage is not None:
                    raise _DamagedError(damage)
                return manifest, leaves
            except _DamagedError as damage:
                self._rename(step, damage)
        aside = _set_aside(self._directory)
        if not steps and not aside:
            return None
        raise NoWholeCheckpointError(
            f"no checkpoint in {self._directory} is whole ({len(aside)} set aside as "
            "<step>.corrupt). Copy a good one back into it under its step, or begin a "
            "new run in another place."
        )

    def _seal(self) -> None:
        """Within a save, all of its files written and the step not yet visible."""
        if not _is_local(self._directory):
            return  # a bucket has checksums of its own, and reading back is slow
        for folder in self._directory.glob("*.orbax-checkpoint-tmp*"):
            seal = json.dumps(_file_digests(folder), indent=0) + "\n"
            (folder / SEAL).write_text(seal)

    def _rename(self, step: int, damage: _DamagedError) -> None:
        folder = self._directory / str(step)
        taken, name, count = _set_aside(self._directory), f"{step}.corrupt", 1
        while name in taken:
            count += 1
            name = f"{step}.corrupt-{count}"
        try:
            folder.rename(self._directory / name)
            fate = f"set aside as {name}"
        except Exception as error:  # a bucket's client raises whatever it meets
            fate = f"and cannot be set aside ({_one_line(error)})"
        self._log(
            f"checkpoint {step} is damaged: {damage}; {fate}, trying the one before"
        )
        assert self._manager is not None
        self._manager.reload()

    def _failed(self, step: int, size: int, error: Exception) -> bool:
        """Reports a failed save; True where only removing an old one has failed."""
        assert self._manager is not None
        reason = _save_reason(error, size, self._directory)
        try:
            # Orbax still lists the step and would refuse to save it again.
            self._manager.reload()
            steps = _steps(self._directory)
        except Exception:  # the storage does not answer; the reason is reported below
            steps = []
        if step in steps:
            self._log(
                f"checkpoint {step} is saved, but older ones were not removed: {reason}"
            )
            self._failures = 0
            return True
        self._failures += 1
        limit = self._max_failed_saves
        if self._failures >= limit:
            newest = max(steps, default=None)
            raise SaveFailedError(
                f"checkpoint {step} could not be saved: {reason}. That is failure "
                f"{self._failures} in a row (run.max_failed_saves={limit}); the newest "
                f"checkpoint is {newest}. Mend it and run the same command to resume."
            ) from error
        self._log(
            f"CHECKPOINT {step} COULD NOT BE SAVED: {reason}. Training goes on and "
            f"saves again at the next interval (failure {self._failures} of {limit})."
        )
        return False

    def _remove_left_overs(self) -> None:
        """Deletes what a killed or failed save left; no save is under way here."""
        for path in self._directory.glob("*.orbax-checkpoint-tmp*"):
            path.rmtree(missing_ok=True)


def peek(directory: str | Path) -> Restored | None:
    """The newest checkpoint that can be read, without its state; None if there is none."""
    for step in reversed(_steps(_absolute(directory))):
        try:
            return _restored(_read_manifest(_absolute(directory), step), None)
        except _DamagedError:
            continue
    return None


def restore_subtree(
    directory: str | Path,
    names: Sequence[str] = ("completion/params", "completion/batch_stats", "ema"),
    *,
    step: int | None = None,
    log: Callable[[str], None] | None = None,
) -> Restored:
    """Parts of the newest whole checkpoint, or of `step`, as dictionaries of numpy.

    `Restored.state` maps each name that the checkpoint has to its subtree, so `ema` is
    absent where the run kept none. Only these arrays are read and verified, and nothing
    is renamed: a folder that belongs to a running training is safe.
    Raises UsageError where there is no such checkpoint or it has none of the names,
    NoWholeCheckpointError where the arrays are damaged in all of them.
    """
    root = _absolute(directory)
    steps = _steps(root)
    if not steps or (step is not None and step not in steps):
        wanted = "no checkpoint" if step is None else f"no checkpoint of step {step}"
        there = f"; there are steps {', '.join(map(str, steps))}" if steps else ""
        raise UsageError(
            f"{root} holds {wanted}{there}. Give the folder of a run's steps."
        )
    for candidate in reversed(steps) if step is None else [step]:
        try:
            manifest = _read_manifest(root, candidate)
            wanted_leaves = [
                leaf
                for leaf in manifest["leaves"]
                if any(leaf == name or leaf.startswith(f"{name}/") for name in names)
            ]
            if not wanted_leaves:
                raise UsageError(
                    f"checkpoint {candidate} in {root} has none of {', '.join(names)}; "
                    f"its parts are {', '.join(_first_parts(manifest['leaves']))}."
                )
            damaged = _damaged_file(root, manifest) is not None
            leaves = _read_leaves(root, manifest, wanted_leaves, one_by_one=damaged)
        except _DamagedError as damage:
            if log is not None:
                log(f"checkpoint {candidate} is damaged: {damage}; not used")
            continue
        state = {name: _nested(leaves, name) for name in names}
        present = {name: tree for name, tree in state.items() if tree is not None}
        return _restored(manifest, present)
    raise NoWholeCheckpointError(
        f"{', '.join(names)} cannot be read from any checkpoint in {root}"
        f"{'' if step is None else f' of step {step}'}: all are damaged. "
        "Copy a good one back, or use another run."
    )


# --- folders


def _absolute(directory: str | Path) -> epath.Path:
    text = str(directory)
    if not is_bucket(text):
        return epath.Path(os.path.abspath(text))  # tensorstore takes no others
    if importlib.util.find_spec("gcsfs") is None:
        raise UsageError(
            f"{text} is a bucket, which needs gcsfs: pip install 'gcsfs>=2026.9'."
        )
    # TensorFlow's client, epath's own choice, answers that a step is not there where it
    # could not ask.
    os.environ["EPATH_USE_TF"] = "false"
    return epath.Path(text)


def _is_local(path: epath.Path) -> bool:
    return not is_bucket(os.fspath(path))


def _steps(directory: epath.Path) -> list[int]:
    """Committed steps in ascending order; unfinished and set-aside folders are none."""
    names = _names(directory)
    try:
        found = set(ocp.utils.checkpoint_steps(directory)) if names else set()
    except Exception as error:
        if _is_local(directory):
            raise
        raise _unreachable(directory, error) from error
    # Orbax takes backup_5 for a step too, were it not for the name.
    return sorted(step for step in found if str(step) in names)


def _set_aside(directory: epath.Path) -> set[str]:
    return {name for name in _names(directory) if ".corrupt" in name}


def _names(directory: epath.Path) -> set[str]:
    """What lies in the folder, which need not exist."""
    try:
        # Asked whether the folder is there, gcsfs says no where it has no answer.
        return {path.name for path in directory.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except Exception as error:
        if _is_local(directory):
            raise
        raise _unreachable(directory, error) from error


def require_writable(directory: str | Path | epath.Path) -> None:
    """Makes the folder; raises where it, or the bucket, cannot be written."""
    directory = _absolute(directory)
    probe = directory / f".probe-{uuid.uuid4().hex}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe.write_text("writable")
        probe.unlink()
    except Exception as error:
        if not _is_local(directory):
            raise _unreachable(directory, error) from error
        if not isinstance(error, OSError):
            raise
        raise UsageError(
            f"checkpoints cannot be written to {directory}: {_one_line(error)}. "
            "Choose another place (--workdir, --run.checkpoints) or make this one "
            "writable."
        ) from error


def _room(size: int) -> float:
    """Bytes that a state of `size` bytes takes on a disk, its descriptions included."""
    return 1.05 * size + 2**20


def _require_room(directory: epath.Path, size: int) -> None:
    """Raises OSError where a state of so many bytes will not fit on a local disk.

    Told before, because tensorstore reports a disk that fills up under its hands with
    a traceback for each array.
    """
    if not _is_local(directory) or not directory.exists():
        return
    if shutil.disk_usage(directory).free < _room(size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))


def _is_damage(path: epath.Path, error: Exception) -> bool:
    """Whether a failure to read says that the checkpoint is not whole.

    On a disk every failure does. Out of a bucket only what is missing or misformed: a
    network that is down must not have good checkpoints set aside.
    """
    if _is_local(path):
        return True
    kinds = (FileNotFoundError, KeyError, UnicodeDecodeError, json.JSONDecodeError)
    return isinstance(error, kinds) or any(sign in str(error) for sign in DAMAGE)


def _unreachable(path: epath.Path, error: Exception) -> StorageUnreachableError:
    return StorageUnreachableError(
        f"{path} cannot be reached: {_one_line(error)}. Check the address, the network and "
        "the permissions, then run the same command again."
    )


# --- manifest and arrays


def _leaves(state: Any) -> Leaves:
    """The arrays of a tree by their place: completion/params/conv1/kernel."""
    leaves: Leaves = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name in leaves:
            raise ValueError(
                f"two arrays of the state are both called {name}; rename one."
            )
        leaves[name] = np.asarray(leaf)
    return leaves


def _expected(template: Any) -> dict[str, tuple[str, list[int]]]:
    """Type and shape of each leaf of a template, by the names of `_leaves`."""
    expected = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(template):
        array = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        expected[name] = (str(array.dtype), list(array.shape))
    return expected


def _describe(leaves: Leaves, step: int) -> dict[str, dict[str, Any]]:
    """Type, shape and SHA-256 of every leaf; refuses numbers that are not finite."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        bad = dict(
            zip(leaves, pool.map(_count_not_finite, leaves.values()), strict=True)
        )
        digests = list(pool.map(_digest, leaves.values()))
    for name, count in bad.items():
        if count:
            others = sum(1 for other in bad.values() if other) - 1
            raise NonFiniteStateError(
                f"checkpoint {step} is refused: {name} holds {count} values that are "
                f"not finite{f', as do {others} other arrays' if others else ''}. "
                "Resume from the last checkpoint with a lower learning rate."
            )
    return {
        name: {"dtype": str(leaf.dtype), "shape": list(leaf.shape), "sha256": digest}
        for (name, leaf), digest in zip(leaves.items(), digests, strict=True)
    }


def _count_not_finite(leaf: np.ndarray) -> int:
    # bfloat16 and its kin are no subtype of np.floating, hence jax's own question.
    if not jax.numpy.issubdtype(leaf.dtype, np.inexact):
        return 0
    return int(leaf.size - np.count_nonzero(np.isfinite(leaf)))


def _digest(leaf: np.ndarray) -> str:
    return hashlib.sha256(_bytes(leaf).data).hexdigest()


def _bytes(leaf: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(leaf).reshape(-1).view(np.uint8)


def _manifest_digest(manifest: Manifest) -> str:
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_manifest(directory: epath.Path, step: int) -> Manifest:
    folder = directory / str(step) / "manifest"
    try:
        manifest = ocp.JsonCheckpointHandler().restore(folder)
    except PermissionError as error:
        # Not damage: renaming would hide a good checkpoint.
        raise UsageError(
            f"{folder} cannot be read: {_one_line(error)}. Grant this user access."
        ) from error
    except Exception as error:
        if not _is_damage(folder, error):
            raise _unreachable(folder, error) from error
        if not isinstance(error, OSError | ValueError | KeyError):
            raise
        raise _DamagedError(
            f"its manifest cannot be read ({_one_line(error)})"
        ) from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise _DamagedError("its manifest is not one of gl_jax")
    if manifest.get("sha256") != _manifest_digest(manifest):
        raise _DamagedError("its manifest does not match its own SHA-256")
    if manifest["format"] != FORMAT:
        raise CheckpointMismatchError(
            f"checkpoint {step} in {directory} has format {manifest['format']}, this "
            f"gl_jax reads {FORMAT}. Use the version of gl_jax that wrote it."
        )
    if manifest["step"] != step:
        raise _DamagedError(f"the folder holds step {manifest['step']}")
    return manifest


def _file_digests(folder: epath.Path) -> dict[str, str]:
    """SHA-256 of the files that are sealed, by their path in a local checkpoint."""
    digests = {}
    for path in sorted(Path(folder).rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in (SEAL, *UNSEALED):
            with path.open("rb") as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _damaged_file(directory: epath.Path, manifest: Manifest) -> str | None:
    """Which file is missing or not as it was sealed; None where all of them are."""
    if not manifest.get("sealed", False):
        return None  # in a bucket, or of a version that did not seal
    folder = directory / str(manifest["step"])
    try:
        listed = json.loads((folder / SEAL).read_text())
        found = _file_digests(folder)
    except (OSError, ValueError) as error:
        return f"{SEAL} cannot be read ({_one_line(error)})"
    if not isinstance(listed, dict):
        return f"{SEAL} is no list of files"
    for name in sorted(listed.keys() | found.keys()):
        if name not in found:
            return f"its file {name} is missing"
        if listed.get(name) != found[name]:
            return f"its file {name} is not what {SEAL} says"
    return None


def _read_leaves(
    directory: epath.Path,
    manifest: Manifest,
    names: Iterable[str],
    *,
    one_by_one: bool,
) -> Leaves:
    """These arrays of a checkpoint, each checked against the manifest.

    One request for all takes a tenth of the time. Where one of them may be damaged, a
    request for each names it, and orbax does not leave the reads of the others behind,
    which end in tracebacks on a closed event loop. (In a bucket nothing is sealed.)
    """
    folder = directory / str(manifest["step"]) / "state"
    names = list(names)
    one_by_one |= not manifest.get("sealed", False)
    leaves: Leaves = {}
    if not one_by_one:
        try:
            leaves = _request(folder, names)
        except MemoryError:
            raise
        except Exception:  # the disk, after its files were whole a moment ago
            one_by_one = True

    def checked(name: str) -> np.ndarray:
        """Raises _DamagedError where the array is not the one that was saved."""
        try:
            leaf = _request(folder, [name])[name] if one_by_one else leaves[name]
        except MemoryError:
            raise
        except Exception as error:  # orbax and tensorstore raise whatever they meet
            if not _is_damage(folder, error):
                raise _unreachable(folder, error) from error
            raise _DamagedError(
                f"{name} cannot be read ({_one_line(error)})"
            ) from error
        entry = manifest["leaves"][name]
        if [str(leaf.dtype), list(leaf.shape)] != [entry["dtype"], entry["shape"]]:
            raise _DamagedError(f"{name} has another type or shape than was saved")
        if _digest(leaf) != entry["sha256"]:
            raise _DamagedError(f"{name} does not match its SHA-256")
        return np.asarray(leaf)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        return dict(zip(names, pool.map(checked, names), strict=True))


def _request(folder: epath.Path, names: Sequence[str]) -> Leaves:
    """What orbax has saved under these names; raises whatever it meets."""
    request = ocp.args.PyTreeRestore(
        item=dict.fromkeys(names, 0),
        restore_args={name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names},
        partial_restore=True,
    )
    found: Leaves = ocp.PyTreeCheckpointHandler().restore(folder, args=request)
    return found


def _require_match(
    manifest: Manifest,
    expected: Mapping[str, tuple[str, list[int]]],
    directory: epath.Path,
) -> None:
    """Refuses a whole checkpoint that is of another configuration than the run."""
    saved = manifest["leaves"]
    found = {name: (leaf["dtype"], leaf["shape"]) for name, leaf in saved.items()}
    wrong = [f"it has no {name}" for name in expected if name not in found]
    wrong += [f"the run has no {name}" for name in found if name not in expected]
    wrong += [
        f"{name} is {_signature(found[name])} in it, {_signature(expected[name])} here"
        for name in expected
        if name in found and found[name] != expected[name]
    ]
    if wrong:
        more = f" (and {len(wrong) - 1} more differences)" if len(wrong) > 1 else ""
        raise CheckpointMismatchError(
            f"checkpoint {manifest['step']} in {directory} is of another "
            f"configuration: {wrong[0]}{more}. Resume with the config.json of its run, "
            "or begin a new run in another place."
        )


def _signature(leaf: tuple[str, list[int]]) -> str:
    return f"{leaf[0]}[{','.join(map(str, leaf[1]))}]"


def _first_parts(names: Iterable[str]) -> list[str]:
    return sorted({"/".join(name.split("/")[:2]) for name in names})


def _nested(leaves: Leaves, prefix: str) -> Any:
    """The subtree below a name: a dictionary, one array, or None."""
    if prefix in leaves:
        return leaves[prefix]
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        if name.startswith(f"{prefix}/"):
            *parents, last = name.removeprefix(f"{prefix}/").split("/")
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = leaf
    return tree or None


def _restored(manifest: Manifest, state: Any) -> Restored:
    return Restored(manifest["step"], state, manifest["config_json"], manifest["extra"])


# --- hosts


def _from_primary(
    read: Callable[[], tuple[Manifest, Leaves] | None],
) -> tuple[Manifest, Leaves] | None:
    """What `read` returns, or raises, on process 0: the same on every process."""
    if jax.process_count() == 1:
        return read()
    found, error = None, None
    if jax.process_index() == 0:
        try:
            found = read()
        except Exception as raised:
            error = raised
    report = {
        "error": None if error is None else [type(error).__name__, str(error)],
        "manifest": None if found is None else found[0],
    }
    # The others wait for process 0 here, so it has to get here whatever has happened.
    header = json.loads(_broadcast(json.dumps(report).encode()))
    if error is not None:
        raise error
    if header["error"] is not None:
        name, message = header["error"]
        known: dict[str, type[Exception]] = {
            kind.__name__: kind
            for kind in (
                NoWholeCheckpointError,
                CheckpointMismatchError,
                SaveFailedError,
                StorageUnreachableError,
                UsageError,
            )
        }
        raise known.get(name, RuntimeError)(message)
    if header["manifest"] is None:
        return None
    leaves = {}
    for name, entry in header["manifest"]["leaves"].items():
        data = b"" if found is None else _bytes(found[1][name]).tobytes()
        flat = np.frombuffer(_broadcast(data), dtype=jax.numpy.dtype(entry["dtype"]))
        leaves[name] = flat.reshape(entry["shape"])
    return header["manifest"], leaves


def _broadcast(data: bytes) -> bytes:
    """Process 0's bytes on every process; what the others pass does not count."""
    # As bytes, because a sum over hosts would turn -0.0 into 0.0.
    size = int(multihost_utils.broadcast_one_to_all(np.asarray(len(data), np.int32)))
    pieces = []
    for start in range(0, size, BROADCAST_BYTES):
        length = min(BROADCAST_BYTES, size - start)
        piece = np.zeros(length, np.uint8)
        given = np.frombuffer(data[start : start + length], np.uint8)
        piece[: given.size] = given
        pieces.append(multihost_utils.broadcast_one_to_all(piece).tobytes())
    return b"".join(pieces)


# --- messages


def _save_reason(error: Exception, size: int, directory: epath.Path) -> str:
    """Why a save failed; for a full disk, what it needs and what there is."""
    text = str(error)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or "No space left" in text or "RESOURCE_EXHAUSTED" in text:
        free = ""
        if _is_local(directory) and directory.exists():
            free = f", {shutil.disk_usage(directory).free / 1e6:.1f} MB are free"
        needed = _room(size) / 1e6
        return f"the disk is full: it needs {needed:.1f} MB{free} in {directory}"
    return _one_line(error)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."
