"""Checkpoints of a run: save, verify, and restore the newest intact one.

A checkpoint is a folder named by its step. Orbax writes it under a temporary name and
renames it when it is complete, so a folder with a step's name is complete. Orbax does not
detect flipped bits, so the manifest has the SHA-256 of every array and of itself, and
only matching arrays are restored.

    checkpoints/
      12000/state/      the arrays, by path: completion/params/conv1/kernel
      12000/manifest/   type, shape, SHA-256 of each; configuration; its own SHA-256
      11000.corrupt/    set aside by a restore, never read again and never deleted

The digests are of arrays, not of files: they are computed before orbax encodes anything,
hold in a bucket and in a copy, and an error can name the array. Damage to bytes that no
array uses is not detected, as it changes nothing. (Earlier versions also wrote
`files.json`, which is ignored.)

A bucket has no rename: orbax writes under the final name and marks the step complete
with `commit_success.txt` at the end. A bucket that does not answer is not treated as a
damaged checkpoint.

Only the first host reads and writes the storage and sends the arrays to the others. The
hosts therefore cannot disagree because of a slow or failing disk, and need no shared
file system.
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
