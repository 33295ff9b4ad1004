"""The manifest of a checkpoint, and the reading of arrays verified against it."""

import asyncio
import concurrent.futures
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax.traverse_util import unflatten_dict

from gl_jax.checkpoint import folders
from gl_jax.config import UsageError

FORMAT = 1
"""Version of the manifest; `read` refuses any other."""

Leaves = dict[str, np.ndarray]
"""Arrays by their path in the state: completion/params/conv1/kernel."""
Signatures = dict[str, tuple[str, list[int]]]
"""Type and shape of each array."""
Manifest = dict[str, Any]


class NonFiniteStateError(RuntimeError):
    """The state to save holds NaN or infinity."""


class NoWholeCheckpointError(RuntimeError):
    """There are checkpoints, but none of them can be restored."""


class CheckpointMismatchError(UsageError):
    """An intact checkpoint has another configuration or comes from a newer gl_jax."""


class DamagedError(Exception):
    """A checkpoint is damaged; the message is the reason, in one line."""


@dataclass(frozen=True)
class Restored:
    """The content of a checkpoint."""

    step: int
    state: Any
    """The template's tree, or for `restore_subtree` one nested dictionary per name."""
    config_json: str
    extra: dict[str, Any]


def restored(manifest: Manifest, state: Any) -> Restored:
    """Returns a state together with the rest of its manifest."""
    return Restored(manifest["step"], state, manifest["config_json"], manifest["extra"])


def peek(directory: str | Path) -> Restored | None:
    """Returns the newest readable checkpoint without its state; None if there is none."""
    root = folders.absolute(directory)
    for step in reversed(folders.steps(root)):
        try:
            return restored(read(root, step), None)
        except DamagedError:
            continue
    return None


def restore_subtree(
    directory: str | Path,
    names: Sequence[str] = ("completion/params", "completion/batch_stats", "ema"),
    *,
    step: int | None = None,
    log: Callable[[str], None] | None = None,
) -> Restored:
    """Reads parts of the newest intact checkpoint, or of that of `step`.

    `Restored.state` maps each of `names` in the checkpoint to nested dictionaries of
    numpy arrays; `ema` is absent if the run had no moving average. Only these arrays are
    read and verified. Nothing is renamed, so the run may still be training.
    Raises UsageError if there is no such checkpoint or it has none of the names,
    NoWholeCheckpointError if the arrays are damaged in every checkpoint.
    """
    root = folders.absolute(directory)
    steps = folders.steps(root)
    if not steps or (step is not None and step not in steps):
        missing = "no checkpoint" if step is None else f"no checkpoint of step {step}"
        present = f"; it holds steps {', '.join(map(str, steps))}" if steps else ""
        raise UsageError(
            f"{root} holds {missing}{present}. Give the folder of a run's checkpoints."
        )
    for candidate in reversed(steps) if step is None else [step]:
        try:
            manifest = read(root, candidate)
            chosen = [
                leaf
                for leaf in manifest["leaves"]
                if any(leaf == name or leaf.startswith(f"{name}/") for name in names)
            ]
            if not chosen:
                parts = sorted({"/".join(n.split("/")[:2]) for n in manifest["leaves"]})
                raise UsageError(
                    f"checkpoint {candidate} in {root} has none of {', '.join(names)}; "
                    f"its parts are {', '.join(parts)}."
                )
            leaves = read_leaves(root, manifest, chosen)
        except DamagedError as damage:
            if log is not None:
                log(f"checkpoint {candidate} is damaged: {damage}; not used")
            continue
        tree = unflatten_dict(leaves, sep="/")  # type: ignore[no-untyped-call]
        state = {name: _subtree(tree, name) for name in names}
        state = {name: part for name, part in state.items() if part is not None}
        return restored(manifest, state)
    raise NoWholeCheckpointError(
        f"{', '.join(names)} cannot be read from any checkpoint in {root}"
        f"{'' if step is None else f' of step {step}'}: all are damaged. "
        "Copy an intact one back, or use another run."
    )


# --- describing a state


def named(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a tree by their path: completion/params/conv1/kernel."""
    leaves: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name in leaves:
            raise ValueError(
                f"two arrays of the state are both called {name}; rename one."
            )
        leaves[name] = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return leaves


def signatures(template: Any) -> Signatures:
    """Returns type and shape of each leaf of a tree, by the names of `named`."""
    return {
        name: (str(leaf.dtype), list(leaf.shape))
        for name, leaf in named(template).items()
    }


def describe(leaves: Leaves) -> dict[str, dict[str, Any]]:
    """Returns type, shape and SHA-256 of every array."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        digests = list(pool.map(_array_digest, leaves.values()))
    return {
        name: {"dtype": str(leaf.dtype), "shape": list(leaf.shape), "sha256": digest}
        for (name, leaf), digest in zip(leaves.items(), digests, strict=True)
    }


def require_finite(leaves: Mapping[str, np.ndarray | jax.Array], step: int) -> None:
    """Raises NonFiniteStateError if an array holds NaN or infinity.

    Values are counted on the arrays' device; only the counts are fetched.
    """
    counts: Mapping[str, Any]
    if all(isinstance(leaf, np.ndarray) for leaf in leaves.values()):
        with concurrent.futures.ThreadPoolExecutor() as pool:
            numbers = pool.map(_count_not_finite, leaves.values())
            counts = dict(zip(leaves, numbers, strict=True))
    else:
        counts = jax.device_get(_count_on_device(leaves))
    bad = [(name, count) for name, count in counts.items() if count]
    if bad:
        (name, count), others = bad[0], len(bad) - 1
        raise NonFiniteStateError(
            f"checkpoint {step} is refused: {name} holds {count} values that are "
            f"not finite{f', as do {others} other arrays' if others else ''}. "
            "Resume from the last checkpoint with a lower learning rate."
        )


def _count_not_finite(leaf: Any) -> Any:
    # NumPy does not count bfloat16 as floating, JAX does.
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return 0
    module = np if isinstance(leaf, np.ndarray) else jnp
    return leaf.size - module.count_nonzero(module.isfinite(leaf))


_count_on_device = jax.jit(partial(jax.tree.map, _count_not_finite))


def _array_digest(leaf: np.ndarray) -> str:
    flat = np.ascontiguousarray(leaf).reshape(-1).view(np.uint8)
    return hashlib.sha256(flat.data).hexdigest()


def digest(manifest: Manifest) -> str:
    """Returns the SHA-256 of a manifest without its entry `sha256`."""
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


# --- reading


def read(directory: epath.Path, step: int) -> Manifest:
    """Reads and verifies the manifest of one checkpoint.

    Raises DamagedError if it is damaged, CheckpointMismatchError if its format is newer,
    UsageError if this user may not read it.
    """
    folder = directory / str(step) / "manifest"
    try:
        manifest = ocp.JsonCheckpointHandler().restore(folder)
    except PermissionError as error:
        # Not damage: renaming would hide an intact checkpoint.
        raise UsageError(
            f"{folder} cannot be read: {folders.one_line(error)}. Grant this user access."
        ) from error
    except Exception as error:
        if not folders.is_damage(folder, error):
            raise folders.unreachable(folder, error) from error
        if not isinstance(error, OSError | ValueError | KeyError):
            raise
        raise DamagedError(
            f"its manifest cannot be read ({folders.one_line(error)})"
        ) from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise DamagedError("its manifest is not one of gl_jax")
    if manifest.get("sha256") != digest(manifest):
        raise DamagedError("its manifest does not match its own SHA-256")
    if manifest["format"] != FORMAT:
        raise CheckpointMismatchError(
            f"checkpoint {step} in {directory} has format {manifest['format']}, but this "
            f"gl_jax reads {FORMAT}. Use the version of gl_jax that wrote it."
        )
    if manifest["step"] != step:
        raise DamagedError(f"the folder holds step {manifest['step']}")
    return manifest


def read_leaves(
    directory: epath.Path, manifest: Manifest, names: Iterable[str]
) -> Leaves:
    """Reads these arrays of a checkpoint and verifies each against the manifest.

    Raises DamagedError, which names the array, if one differs from the saved one.
    """
    folder = directory / str(manifest["step"]) / "state"
    names = list(names)
    try:
        results = _request(folder, names)
    except Exception as error:
        raise _unreadable(folder, "its list of arrays", error) from error

    def verified(name: str) -> np.ndarray:
        leaf, entry = results.get(name), manifest["leaves"][name]
        if isinstance(leaf, Exception):
            raise _unreadable(folder, name, leaf) from leaf
        if not isinstance(leaf, np.ndarray | np.generic):
            raise DamagedError(f"{name} is not among its arrays")
        if [str(leaf.dtype), list(leaf.shape)] != [entry["dtype"], entry["shape"]]:
            raise DamagedError(f"{name} has another type or shape than was saved")
        if _array_digest(np.asarray(leaf)) != entry["sha256"]:
            raise DamagedError(f"{name} does not match its SHA-256")
        return np.asarray(leaf)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        return dict(zip(names, pool.map(verified, names), strict=True))


class _SeparateReads(ocp.type_handlers.NumpyHandler):  # type: ignore[misc]
    """Reads all arrays at once; the result of a failed read is its error.

    Orbax's own handler raises the first error while other reads still run, which then
    print tracebacks about a closed event loop.
    """

    async def deserialize(
        self, infos: Sequence[Any], args: Sequence[Any] | None = None
    ) -> Sequence[Any]:
        assert args is not None
        each = [
            super(_SeparateReads, self).deserialize([info], [arg])
            for info, arg in zip(infos, args, strict=True)
        ]
        results = await asyncio.gather(*each, return_exceptions=True)
        return [r if isinstance(r, BaseException) else r[0] for r in results]


def _request(folder: epath.Path, names: Sequence[str]) -> dict[str, Any]:
    """Returns the array, or the error of its read, for each name."""
    registry = ocp.type_handlers.create_type_handler_registry(
        (np.ndarray, _SeparateReads()),
        (jax.Array, ocp.type_handlers.ArrayHandler()),  # orbax warns if it is missing
    )
    request = ocp.args.PyTreeRestore(
        item=dict.fromkeys(names, 0),
        restore_args={name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names},
        partial_restore=True,
    )
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=registry)
    results: dict[str, Any] = handler.restore(folder, args=request)
    return results


def _unreadable(folder: epath.Path, part: str, error: Exception) -> Exception:
    """Returns the error to raise if a part of a checkpoint cannot be read."""
    if isinstance(error, MemoryError):
        return error
    if not folders.is_damage(folder, error):
        return folders.unreachable(folder, error)
    return DamagedError(f"{part} cannot be read ({folders.one_line(error)})")


def require_match(
    manifest: Manifest, expected: Signatures, directory: epath.Path
) -> None:
    """Raises CheckpointMismatchError if a checkpoint has another configuration."""
    leaves = manifest["leaves"].items()
    saved = {name: (leaf["dtype"], leaf["shape"]) for name, leaf in leaves}
    wrong = [f"it has no {name}" for name in expected if name not in saved]
    wrong += [f"the run has no {name}" for name in saved if name not in expected]
    wrong += [
        f"{name} is {_signature(saved[name])} in it, {_signature(expected[name])} here"
        for name in expected
        if name in saved and saved[name] != expected[name]
    ]
    if wrong:
        more = f" (and {len(wrong) - 1} more differences)" if len(wrong) > 1 else ""
        raise CheckpointMismatchError(
            f"checkpoint {manifest['step']} in {directory} has another "
            f"configuration: {wrong[0]}{more}. Resume with the config.json of its run, "
            "or begin a new run in another place."
        )


def _signature(leaf: tuple[str, list[int]]) -> str:
    return f"{leaf[0]}[{','.join(map(str, leaf[1]))}]"


def _subtree(tree: Any, name: str) -> Any:
    """Returns the part of nested dictionaries at a path; None if absent."""
    for part in name.split("/"):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree
