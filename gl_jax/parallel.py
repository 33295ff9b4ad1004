"""Devices and hosts: the one place that knows there is more than one of them.

State is replicated in its natural shapes, without a leading device axis; images carry
one, [devices, per_device, height, width, 3]. Everything else in the project is written
for one device and an optional axis name.
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

# Batches waiting on the device while one is being computed.
PREFETCH = 2

# Bytes that go from one host to the others at once.
BROADCAST_BYTES = 32 * 2**20

# Seconds of silence after which a host counts as dead, and the others end.
HEARTBEAT = 100


def initialize(
    coordinator: str | None,
    process_count: int | None,
    process_id: int | None,
    *,
    heartbeat: int = HEARTBEAT,
) -> None:
    """Joins this process to the others of the run, from arguments or the environment.

    With no argument the addresses come from the environment (TPU pod, Slurm, Open MPI).
    When a host dies, JAX ends the processes of the others, with SIGABRT and without any
    clean-up, after at most about `heartbeat` seconds.
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
    """What each host of the run gave, in their order; every host has to call it."""
    return [data.decode() for data in bytes_from_every_host(text.encode())]


def bytes_from_every_host(data: bytes) -> list[bytes]:
    """Returns what each host gave, of any length; every host has to call it."""
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
    RuntimeError. Every host has to call it.
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
    # The others wait here for the first host, so it comes here even if its work failed.
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

    The arrays of the other hosts do not count. Every host has to call it.
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
    """Raises the same UsageError on every host where one differs, or has a `fault`.

    `facts` maps names to JSON values; a fault is a mistake this host has found, told to
    the others so that they need not wait for it in vain.
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
    """The step on every device at once: (state, images, key) -> (state, metrics).

    State and key are replicated, images sharded; the old state is donated, so its buffers
    are gone after the call. None stands for all devices of all hosts.
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
    """This host's devices, and the doors by which arrays come and go."""

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
                f"every host needs as many devices as the others: {listed}."
            )
        self.count = len(self.local) * jax.process_count()
        # More fake devices than cores deadlock on CPU when steps are queued (rendezvous
        # of the all-reduce threads), so there every step is waited for.
        self.wait_each_step = self.local[0].platform == "cpu"
        mesh = Mesh(np.array(self.local), (AXIS,))
        self._replicated = NamedSharding(mesh, PartitionSpec())
        self._sharded = NamedSharding(mesh, PartitionSpec(AXIS))

    def check_batch(self, batch_size: int, accumulate: int) -> None:
        """Raises UsageError unless the batch divides over devices and pieces."""
        check_batch(batch_size, self.count, accumulate)

    def replicate(self, tree: Tree) -> Tree:
        """The tree on every device of this host, the buffers its own."""
        return jax.device_put(tree, self._replicated, may_alias=False)

    def shard(self, images: np.ndarray) -> jax.Array:
        """This host's share of the batch, [b, h, w, 3], split over its devices."""
        n = len(self.local)
        return jax.device_put(images.reshape(n, -1, *images.shape[1:]), self._sharded)

    def first(self, tree: Tree) -> Tree:
        """The first device's copy of a replicated tree, without moving it."""
        return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)

    def peak_memory(self) -> int | None:
        """The most bytes that one of this host's devices has held at once.

        None if the platform does not tell, as that of processors.
        """
        stats = [device.memory_stats() or {} for device in self.local]
        peaks = [
            one["peak_bytes_in_use"] for one in stats if "peak_bytes_in_use" in one
        ]
        return max(peaks, default=None)

    def pmap(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """The step on every device of the run at once; see `over_devices`."""
        mapped = over_devices(step, self.local if jax.process_count() == 1 else None)
        options = compilation.options(self.local[0].platform)
        # Compiled by hand it takes options. Over several hosts a pmap cannot be: it would
        # ask each of them for the images of all.
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
        """The batches, sharded, two of them on their way before they are asked for."""
        waiting: deque[jax.Array] = deque()
        for batch in batches:
            waiting.append(self.shard(batch))
            if len(waiting) > PREFETCH:
                yield waiting.popleft()
        yield from waiting


def pmean(tree: Tree, axis_name: str | None) -> Tree:
    """Averages over all devices, inside a step; without an axis there is only one."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def local(tree: Tree, axis_name: str | None) -> Tree:
    """Marks what all devices share as each device's own, inside a step.

    A gradient with respect to it is then that of this device's share of the batch. Where
    JAX checks which arrays the devices share (`shard_map`), that with respect to a shared
    one is a sum over all devices; elsewhere nothing changes.
    """
    if axis_name is None:
        return tree
    return jax.lax.pcast(tree, axis_name, to="varying")


def gathered(values: Float[Array, " b"], axis_name: str | None) -> Float[Array, " n"]:
    """The values of all devices' images, in each of them, inside a step.

    A loss of them is each device's own; the mean over devices of its gradients is the
    gradient of one such loss.
    """
    if axis_name is None:
        return values
    return jax.lax.all_gather(values, axis_name, tiled=True)


def axis_size(axis_name: str | None) -> int:
    """The number of devices that share the step."""
    return 1 if axis_name is None else jax.lax.axis_size(axis_name)


def axis_index(axis_name: str | None) -> jax.Array | int:
    """This device's place among them, counted over all hosts."""
    return 0 if axis_name is None else jax.lax.axis_index(axis_name)
