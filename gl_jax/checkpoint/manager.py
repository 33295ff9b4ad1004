"""The checkpoints of one run: background saves, deletion of old ones, restore."""

import contextlib
import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from gl_jax import parallel
from gl_jax.checkpoint import folders, manifest
from gl_jax.checkpoint.folders import StorageUnreachableError
from gl_jax.checkpoint.manifest import (
    CheckpointMismatchError,
    DamagedError,
    Leaves,
    Manifest,
    NoWholeCheckpointError,
    Restored,
    Signatures,
)
from gl_jax.config import UsageError

SAVE_TIMEOUT = 1200
"""Seconds after which orbax gives up a save."""


class SaveFailedError(RuntimeError):
    """Too many saves in a row have failed."""


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
        # The loop calls JAX's check once per step. A second call from orbax's background
        # thread, with an older step, could make the hosts miss the agreed step.
        del step
        return False


class Checkpoints:
    """The checkpoints of one run, in a local folder or a bucket (`gs://...` as a str).

    It keeps the `keep_newest` newest, the `keep_best` with the highest validation PSNR
    and all at multiples of `keep_every`; the newest is never deleted. Every process of a
    run makes one and calls `save` and `restore_newest` at the same steps; `primary` is
    True on process 0 only. Raises UsageError if the folder cannot be written.
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
        self._directory = folders.absolute(directory)
        self._max_failed_saves = max_failed_saves
        self._log = log
        self._psnr: dict[int, float | None] = {}
        self._saving: tuple[int, int] | None = None
        self._seen: list[int] = []
        self._failures = 0
        self._manager: _Manager | None = None
        if not primary:
            return
        folders.require_writable(self._directory)
        for step in folders.steps(self._directory):
            try:
                self._psnr[step] = manifest.read(self._directory, step)["psnr"]
            except DamagedError:
                self._psnr[step] = None  # a restore reports it and sets it aside
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
                # Metrics are in the manifest, because a damaged metrics file of orbax's
                # would stop a run at its start.
                lightweight_initialize=True,
                preservation_policy=policies.AnyPreservationPolicy(preserved),
                multiprocessing_options=here,
                # In the background, a folder that cannot be made would keep threads
                # waiting, and the process from exiting, until the timeout.
                async_options=ocp.options.AsyncOptions(
                    timeout_secs=SAVE_TIMEOUT,
                    create_directories_asynchronously=False,
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
        """Starts saving `state` in the background; returns whether it has started.

        `state` holds replicated jax arrays or numpy arrays. They are copied before this
        returns, so it may be donated. `psnr` ranks the checkpoint (None or NaN: not
        measured); `extra` must be JSON.

        Returns False if this step or a later one is already saved, or if the save
        failed; always True on a process that is not primary. Failures, including one of
        the previous save, are logged with their reason. Raises SaveFailedError at the
        `max_failed_saves`-th consecutive failure and NonFiniteStateError (on every
        process) if the state holds NaN or infinity.
        """
        named = manifest.named(state)
        if self._manager is None:
            manifest.require_finite(named, step)
            return True
        leaves = {
            name: np.asarray(leaf) for name, leaf in jax.device_get(named).items()
        }
        manifest.require_finite(leaves, step)
        rank = None if psnr is None or math.isnan(psnr) else float(psnr)
        content = {
            "format": manifest.FORMAT,
            "step": step,
            "psnr": rank,
            "config_json": config_json,
            "extra": extra,
            "leaves": manifest.describe(leaves),
        }
        # A round trip through JSON, because the digest is checked on the parsed JSON.
        content = json.loads(json.dumps(content))
        content["sha256"] = manifest.digest(content)
        self.wait()
        if not self._manager.should_save(step):
            return False
        size = sum(leaf.nbytes for leaf in leaves.values())
        # Orbax's save asks `_Best` which older steps to delete.
        self._psnr[step] = rank
        try:
            folders.remove_unfinished(self._directory)
            folders.require_room(self._directory, size)
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(leaves),
                    manifest=ocp.args.JsonSave(content),
                ),
            )
        except Exception as error:
            self._failed(step, size, error)
            return False
        self._saving = (step, size)
        return True

    def wait(self) -> bool:
        """Waits until the running save is on disk; returns False if it failed.

        A checkpoint that cannot be read back counts as failed and is set aside. Raises
        SaveFailedError at the `max_failed_saves`-th consecutive failure.
        """
        if self._manager is None or self._saving is None:
            return True
        (step, size), self._saving = self._saving, None
        try:
            self._manager.wait_until_finished()
            content = manifest.read(self._directory, step)
            manifest.read_leaves(self._directory, content, [*content["leaves"]][:1])
        except Exception as error:
            if isinstance(error, DamagedError):
                self._set_aside(step, error)
            return self._failed(step, size, error)
        self._failures = 0
        return True

    def restore_newest(self, template: Any) -> Restored | None:
        """Restores the newest intact checkpoint; returns None if there never was one.

        The state has `template`'s tree and node types, with numpy arrays as leaves;
        `template` holds arrays or `jax.ShapeDtypeStruct`. A checkpoint that cannot be
        read or does not match its checksums is logged and renamed to `<step>.corrupt`,
        and the one before is tried. All processes call this; all return the checkpoint
        that process 0 has read.

        Raises NoWholeCheckpointError if every checkpoint is damaged, even if earlier
        restores have set them aside: a run never silently starts anew. Raises
        CheckpointMismatchError if one is intact but of another configuration.
        """
        expected = manifest.signatures(template)
        leaves: Leaves = {}

        def read() -> Manifest | None:
            content, arrays = self._read_newest(expected) or (None, {})
            leaves.update(arrays)
            return content

        errors = (
            NoWholeCheckpointError,
            CheckpointMismatchError,
            SaveFailedError,
            StorageUnreachableError,
            UsageError,
        )
        content = parallel.from_first_host(read, errors)
        if content is None:
            return None
        for name, (dtype, shape) in expected.items():
            like = jax.ShapeDtypeStruct(shape, dtype)
            leaves[name] = parallel.broadcast(leaves.get(name), like)
        structure = jax.tree.structure(template)
        state = jax.tree.unflatten(structure, [leaves[name] for name in expected])
        return manifest.restored(content, state)

    def steps(self) -> list[int]:
        """Returns the saved steps in ascending order; [] on a process not primary.

        If a bucket does not answer, returns its last answer.
        """
        if self._manager is not None:
            with contextlib.suppress(StorageUnreachableError):
                self._seen = folders.steps(self._directory)
        return self._seen

    def empty(self) -> bool:
        """Returns True on the primary if no checkpoint exists, not even one set aside."""
        return (
            self._manager is not None
            and not folders.steps(self._directory)
            and not folders.set_aside(self._directory)
        )

    def close(self) -> None:
        """Waits for the running save, like `wait`, and frees orbax's threads."""
        if self._manager is not None:
            try:
                self.wait()
            finally:
                self._manager.close()

    def _read_newest(self, expected: Signatures) -> tuple[Manifest, Leaves] | None:
        self.wait()
        steps = folders.steps(self._directory)
        for step in reversed(steps):
            try:
                content = manifest.read(self._directory, step)
                manifest.require_match(content, expected, self._directory)
                leaves = manifest.read_leaves(self._directory, content, expected)
                return content, leaves
            except DamagedError as damage:
                self._set_aside(step, damage, then=", trying the one before")
        aside = folders.set_aside(self._directory)
        if not steps and not aside:
            return None
        raise NoWholeCheckpointError(
            f"no checkpoint in {self._directory} is intact ({len(aside)} set aside as "
            "<step>.corrupt). Copy an intact one back into it under its step, or begin a "
            "new run in another place."
        )

    def _set_aside(self, step: int, damage: DamagedError, then: str = "") -> None:
        folder = self._directory / str(step)
        taken = folders.set_aside(self._directory)
        more = (f"{step}.corrupt-{count}" for count in itertools.count(2))
        names = itertools.chain([f"{step}.corrupt"], more)
        name = next(name for name in names if name not in taken)
        try:
            folder.rename(self._directory / name)
            fate = f"set aside as {name}"
        except Exception as error:  # a bucket's client may raise anything
            fate = f"and cannot be set aside ({folders.one_line(error)})"
        self._log(f"checkpoint {step} is damaged: {damage}; {fate}{then}")
        assert self._manager is not None
        self._manager.reload()

    def _failed(self, step: int, size: int, error: Exception) -> bool:
        """Reports a failed save; returns True if only deleting an old one failed."""
        assert self._manager is not None
        reason = folders.save_reason(error, size, self._directory)
        try:
            # Orbax still lists the step and would refuse to save it again.
            self._manager.reload()
            steps = folders.steps(self._directory)
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
                f"checkpoint is {newest}. Fix it and run the same command to resume."
            ) from error
        self._log(
            f"CHECKPOINT {step} COULD NOT BE SAVED: {reason}. Training continues and "
            f"saves again at the next interval (failure {self._failures} of {limit})."
        )
        return False
