"""Distribution over devices and hosts.

State is replicated without a leading device axis; images have one, [devices, per_device,
height, width, 3]. The rest of the project is written for one device and an optional axis
name.
"""

import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from gl_jax import compilation
from gl_jax.config import UsageError

AXIS = "devices"

Tree = TypeVar("Tree")
Value = TypeVar("Value")

# Batches that wait on the device while one is computed.
PREFETCH = 2

# Most bytes sent between hosts at once.
BROADCAST_BYTES = 32 * 2**20

# Seconds without a sign of a host after which the other hosts end.
HEARTBEAT = 100


def initialize(
    coordinator: str | None,
    process_count: int | None,
    process_id: int | None,
    *,
    heartbeat: int = HEARTBEAT,
) -> None:
    """Connects this process with the run's other processes.

    Without arguments the addresses come from the environment (TPU pod, Slurm, Open MPI).
    If a host dies, JAX ends the other hosts' processes after about `heartbeat` seconds,
    by SIGABRT and without clean-up.
    """
    if heartbeat < 1:
        raise UsageError(f"--heartbeat (={heartbeat}) must be at least 1 second.")
    given = (coordinator, process_count, process_id)
    if any(value is None for value in given) and any(
        value is not None for value in given
    ):
        raise UsageError(
            "--coordinator, --process-count and --process-id belong together: "
            f"{coordinator}, {process_count}, {process_id} given."
        )
    try:
        jax.distributed.initialize(
            coordinator, process_count, process_id, heartbeat_timeout_seconds=heartbeat
        )
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"this host could not join the run: {error}") from error


def from_every_host(text: str) -> list[str]:
    """Returns each host's text, in host order; every host must call it."""
    return [data.decode() for data in bytes_from_every_host(text.encode())]


def bytes_from_every_host(data: bytes) -> list[bytes]:
    """Returns each host's data, of any length; every host must call it."""
    if jax.process_count() == 1:
        return [data]
    received = [bytearray() for _ in range(jax.process_count())]
    size, start = BROADCAST_BYTES, 0
    while size == BROADCAST_BYTES:
        piece = np.frombuffer(data[start : start + BROADCAST_BYTES], np.uint8)
        sizes = multihost_utils.process_allgather(np.asarray(piece.size, np.int32))
        size = int(sizes.max())
        if not size:
            break
        padded = np.zeros(size, np.uint8)
        padded[: piece.size] = piece
        rows = multihost_utils.process_allgather(padded)
        for host, row, length in zip(received, rows, sizes, strict=True):
            host += row[:length].tobytes()
        start += BROADCAST_BYTES
    return [bytes(host) for host in received]


def from_first_host(
    work: Callable[[], Value], errors: Iterable[type[Exception]]
) -> Value:
    """Runs `work` on the first host; returns its JSON value, or raises, on every host.

    The other hosts raise one of these `errors` as the same type, any other as
    RuntimeError. Every host must call it.
    """
    if jax.process_count() == 1:
        return work()
    report: dict[str, Any] = {"value": None, "error": None}
    raised: Exception | None = None
    if jax.process_index() == 0:
        try:
            report["value"] = work()
        except Exception as error:
            raised, report["error"] = error, [type(error).__name__, str(error)]
    # The others wait here, so the first host must get here even if its work failed.
    data = np.frombuffer(json.dumps(report).encode(), np.uint8)
    size = multihost_utils.broadcast_one_to_all(np.asarray(data.size, np.int32))
    data = broadcast(data, jax.ShapeDtypeStruct((int(size),), np.uint8))
    if raised is not None:
        raise raised
    report = json.loads(data.tobytes())
    if report["error"] is not None:
        name, message = report["error"]
        raise {kind.__name__: kind for kind in errors}.get(name, RuntimeError)(message)
    return report["value"]


def broadcast(array: np.ndarray | None, like: jax.ShapeDtypeStruct) -> np.ndarray:
    """Returns the first host's array, of this shape and type, on every host.

    The other hosts' `array` is ignored. Every host must call it.
    """
    if jax.process_count() == 1:
        assert array is not None
        return array
    received = np.empty(like.shape, like.dtype)
    # As bytes, because a sum over hosts would turn -0.0 into 0.0.
    flat = received.reshape(-1).view(np.uint8)
    if jax.process_index() == 0:
        flat[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    for start in range(0, flat.size, BROADCAST_BYTES):
        piece = flat[start : start + BROADCAST_BYTES]
        piece[:] = multihost_utils.broadcast_one_to_all(piece)
    return received


def require_same(facts: dict[str, Any], fault: str | None) -> None:
    """Raises the same UsageError on every host if one differs or has a `fault`.

    `facts` maps names to JSON values. `fault` describes an error on this host; the others
    raise it too, because they would wait for this host forever.
    """
    here = json.dumps({"facts": facts, "fault": fault})
    first, *others = (json.loads(text) for text in from_every_host(here))
    for index, host in enumerate([first, *others]):
        if host["fault"] is not None:
            raise UsageError(f"host {index}: {host['fault']}")
    wrong = [
        f"{name} is {host['facts'].get(name)} on host {index} and {value} on host 0"
        for index, host in enumerate(others, 1)
        for name, value in first["facts"].items()
        if host["facts"].get(name) != value
    ]
    if wrong:
        more = f"; and {len(wrong) - 5} more differences" if len(wrong) > 5 else ""
        raise UsageError(
            f"the hosts of the run differ: {'; '.join(wrong[:5])}{more}. Start every "
            "host with the same command, code and photographs."
        )


def check_batch(batch_size: int, count: int, accumulate: int) -> None:
    """Raises UsageError unless the batch divides over `count` devices and the pieces."""
    pieces = count * accumulate
    if batch_size % pieces:
        below, above = batch_size // pieces * pieces, -(-batch_size // pieces) * pieces
        sizes = f"{below} or {above}" if below else f"{above}"
        raise UsageError(
            f"data.batch_size (={batch_size}) must divide over {count} device(s) "
            f"times run.accumulate (={accumulate}): use {sizes}."
        )


def over_devices(step: Callable[..., Any], devices: Sequence[jax.Device] | None) -> Any:
    """Maps a step over devices: (state, images, key) -> (state, metrics).

    State and key are replicated, images sharded. The old state is donated: its buffers
    cannot be used after the call. `devices` None means all devices of all hosts.
    """
    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, 0, None),
        out_axes=(None, None),
        donate_argnums=(0,),
        devices=devices,
    )


class Devices:
    """This host's devices, and the transfer of arrays to and from them."""

    def __init__(self, count: int | None = None) -> None:
        available = jax.local_devices()
        if count is not None and count > len(available):
            raise UsageError(
                f"run.device_count (={count}) is more than this host has: "
                f"{len(available)} {available[0].platform} device(s)."
            )
        self.local = available[:count]
        if count is not None and jax.process_count() > 1 and count != len(available):
            raise UsageError(
                "run.device_count must be left out in a run over several hosts."
            )
        counts = Counter(device.process_index for device in jax.devices())
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{n} on host {i}" for i, n in sorted(counts.items()))
            raise UsageError(
                f"every host must have the same number of devices: {listed}."
            )
        self.count = len(self.local) * jax.process_count()
        # On CPU, more fake devices than cores deadlock if steps are queued (rendezvous of
        # the all-reduce threads), so the loop waits for every step.
        self.wait_each_step = self.local[0].platform == "cpu"
        mesh = Mesh(np.array(self.local), (AXIS,))
        self._replicated = NamedSharding(mesh, PartitionSpec())
        self._sharded = NamedSharding(mesh, PartitionSpec(AXIS))

    def check_batch(self, batch_size: int, accumulate: int) -> None:
        """Raises UsageError unless the batch divides over devices and pieces."""
        check_batch(batch_size, self.count, accumulate)

    def replicate(self, tree: Tree) -> Tree:
        """Copies the tree to every device of this host, into new buffers."""
        return jax.device_put(tree, self._replicated, may_alias=False)

    def shard(self, images: np.ndarray) -> jax.Array:
        """Splits this host's share of the batch, [b, h, w, 3], over its devices."""
        n = len(self.local)
        return jax.device_put(images.reshape(n, -1, *images.shape[1:]), self._sharded)

    def first(self, tree: Tree) -> Tree:
        """Returns the first device's copy of a replicated tree, without a transfer."""
        return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)

    def pmap(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Maps a step over all devices of the run; see `over_devices`."""
        mapped = over_devices(step, self.local if jax.process_count() == 1 else None)
        options = compilation.options(self.local[0].platform)
        # Options need ahead-of-time compilation. Over several hosts a pmap compiled so
        # would expect the images of all hosts from each.
        if not options or jax.process_count() > 1:
            return mapped
        programs: list[Callable[..., Any]] = []

        def run(*arguments: Any) -> Any:
            if not programs:
                lowered = mapped.lower(*arguments)
                programs.append(lowered.compile(compiler_options=options))
            return programs[0](*arguments)

        return run

    def prefetch(self, batches: Iterator[np.ndarray]) -> Iterator[jax.Array]:
        """Yields the batches, sharded, and starts the transfer of the next two."""
        waiting: deque[jax.Array] = deque()
        for batch in batches:
            waiting.append(self.shard(batch))
            if len(waiting) > PREFETCH:
                yield waiting.popleft()
        yield from waiting


def pmean(tree: Tree, axis_name: str | None) -> Tree:
    """Averages over all devices inside a step; returns the tree without an axis."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def local(tree: Tree, axis_name: str | None) -> Tree:
    """Marks replicated arrays as varying over devices, inside a step.

    A gradient with respect to them is then that of this device's share of the batch.
    Under `shard_map`, which checks replication, a gradient with respect to replicated
    arrays would be a sum over all devices. Elsewhere this has no effect.
    """
    if axis_name is None:
        return tree
    return jax.lax.pcast(tree, axis_name, to="varying")


def gathered(values: Float[Array, " b"], axis_name: str | None) -> Float[Array, " n"]:
    """Gathers the values of all devices' images on every device, inside a step.

    Every device then computes the same loss of them. The mean over devices of its
    gradients is the gradient of that loss.
    """
    if axis_name is None:
        return values
    return jax.lax.all_gather(values, axis_name, tiled=True)


def axis_size(axis_name: str | None) -> int:
    """Returns the number of devices of the axis; 1 without one."""
    return 1 if axis_name is None else jax.lax.axis_size(axis_name)


def axis_index(axis_name: str | None) -> jax.Array | int:
    """Returns this device's index on the axis, over all hosts; 0 without one."""
    return 0 if axis_name is None else jax.lax.axis_index(axis_name)
