"""Checkpoints of a run: saved, verified, and the newest whole one restored.

A checkpoint is a folder named by its step. Orbax writes it beside its final name and
renames it when it is complete, so a step that can be seen was written to its end. Orbax
does not notice a flipped bit, so the manifest carries the SHA-256 of every array and of
itself, and nothing is restored that does not match.

    checkpoints/
      12000/state/      the arrays, by their place: completion/params/conv1/kernel
      12000/manifest/   type, shape, SHA-256 of each; configuration; its own SHA-256
      11000.corrupt/    set aside by a restore, never read again and never deleted

The digests are of arrays, not of files: they are computed before orbax encodes anything,
they hold in a bucket and in a copy, and they name the array. Damage to a byte that no
array is read from is not noticed, as it changes nothing. (Earlier versions also wrote
`files.json`, which is ignored.)

In a bucket there is no rename: orbax writes under the final name and marks the step
complete with `commit_success.txt`, last. A bucket that does not answer is not taken for
a damaged checkpoint.

Only the first host touches the storage; the others receive what it has read. A slow or
failing disk on one host can therefore not make the hosts disagree, and the hosts need
not share a file system.
"""

from gl_jax.checkpoint.folders import (
    StorageUnreachableError,
    require_writable,
)
from gl_jax.checkpoint.manager import Checkpoints, SaveFailedError
from gl_jax.checkpoint.manifest import (
    CheckpointMismatchError,
    NonFiniteStateError,
    NoWholeCheckpointError,
    Restored,
    peek,
    restore_subtree,
)

__all__ = [
    "CheckpointMismatchError",
    "Checkpoints",
    "NoWholeCheckpointError",
    "NonFiniteStateError",
    "Restored",
    "SaveFailedError",
    "StorageUnreachableError",
    "peek",
    "require_writable",
    "restore_subtree",
]
