"""Looks at a device: does it compute the same, how fast does it multiply, what takes long.

    python -m benchmarks.checks parity --size tiny
    python -m benchmarks.checks matrix_peak

Each prints one line of JSON. They need JAX, Flax, Optax and jaxtyping alone.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import ours
from benchmarks.driver import TOLERANCE
from benchmarks.exchange import torch_arrays
from benchmarks.tasks import FIRST, MEAN_COLOR, flattened, random_images
from gl_jax import compilation
from gl_jax.config import (
    Config,
    DataConfig,
    HolesConfig,
    ModelConfig,
    OptimizerConfig,
    Phase,
)
from gl_jax.models.ops import NATIVE, Ops
from gl_jax.training import TrainState, create_state, default_parts, make_steps

SIZES: dict[str, dict[str, Any]] = {
    "full": {"width": 1.0, "side": 256, "batch": 2, "matrix": 8192},
    "tiny": {"width": 0.125, "side": 64, "batch": 2, "matrix": 256},
}
MATRIX_TURNS = 10


def parity(size: str) -> list[dict[str, Any]]:
    """Compares a step of each phase with the same step on the host, in float32.

    The device computes in float32 with full products, and in bfloat16 as in training; the
    host in float32 with JAX's own operations. The optimizer is plain gradient descent,
    whose update is the gradient. Differences are norms over norms.
    """
    host, device = jax.devices("cpu")[0], jax.devices()[0]
    where = {
        "host": ("float32", host, NATIVE),
        "float32": ("float32", device, compilation.ops()),
        "bfloat16": ("bfloat16", device, compilation.ops()),
    }
    tasks = {
        (name, phase): (size, phase, *place)
        for name, place in where.items()
        for phase in Phase
    }
    # Nearly all of the time is compiling, which threads do side by side.
    with ThreadPoolExecutor(len(tasks)) as threads:
        futures = {key: threads.submit(_stepped, *task) for key, task in tasks.items()}
    results = {key: future.result() for key, future in futures.items()}
    return [
        _compared(phase, name, results[name, phase], results["host", phase])
        for name in ("float32", "bfloat16")
        for phase in Phase
    ]


def _compared(
    phase: Phase,
    precision: str,
    here: dict[str, np.ndarray],
    right: dict[str, np.ndarray],
) -> dict[str, Any]:
    differences = {
        name: float(np.linalg.norm(value - right[name]))
        / (float(np.linalg.norm(right[name])) or 1.0)
        for name, value in here.items()
    }
    limits = TOLERANCE[precision]
    return {
        "phase": str(phase),
        "precision": precision,
        "differences": differences,
        "agrees": all(d <= limits[n.partition(".")[0]] for n, d in differences.items()),
    }


def matrix_peak(size: str) -> dict[str, float]:
    """Returns the FLOP/s of a large matrix product, by the type of its random factors."""
    side = SIZES[size]["matrix"]
    peak = {}
    for precision in ("bfloat16", "float32"):
        a, b = (
            jax.random.normal(jax.random.key(seed), (side, side), jnp.dtype(precision))
            for seed in range(2)
        )
        product = jax.jit(jnp.matmul)
        for _ in range(3):
            jax.block_until_ready(product(a, b))
        times = []
        for _ in range(MATRIX_TURNS):
            start = time.perf_counter()
            # Several behind one another, so that the launch does not count.
            jax.block_until_ready([product(a, b) for _ in range(4)])
            times.append((time.perf_counter() - start) / 4)
        peak[precision] = 2 * side**3 / statistics.median(times)
    return peak


def longest(work: Callable[[], Any], count: int) -> list[dict[str, Any]]:
    """Returns the kernels that take longest, with their share of all kernels' time.

    On a processor these are the operations that XLA names.
    """
    with tempfile.TemporaryDirectory(prefix="profile-") as folder:
        with jax.profiler.trace(folder):
            work()
        (file,) = Path(folder).rglob("*.xplane.pb")
        profile = jax.profiler.ProfileData.from_file(str(file))
    seconds: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for plane in profile.planes:
        for line in plane.lines:
            if not _holds_kernels(plane.name, line.name):
                continue
            for event in line.events:
                seconds[event.name] += event.duration_ns / 1e9
                calls[event.name] += 1
    total = sum(seconds.values())
    return [
        {"name": name, "seconds": value, "calls": calls[name], "share": value / total}
        for name, value in seconds.most_common(count)
    ]


def _holds_kernels(plane: str, line: str) -> bool:
    if jax.default_backend() == "cpu":
        return plane == "/host:CPU" and "XLA" in line
    return plane.startswith("/device:") and line.startswith("Stream")


def _stepped(
    size: str, phase: Phase, precision: Any, device: jax.Device, ops: Ops
) -> dict[str, np.ndarray]:
    """Returns the losses of a step and the changes that it makes, on a device."""
    numbers = SIZES[size]
    side = numbers["side"]
    descent = OptimizerConfig("sgd", 1.0)
    config = Config(
        model=ModelConfig(width=numbers["width"], compute_dtype=precision),
        data=DataConfig(
            batch_size=numbers["batch"], image_size=side, resize=(side, side)
        ),
        holes=HolesConfig(side * 3 // 8, side // 2, side // 2),
        completion_optimizer=descent,
        discriminator_optimizer=descent,
    )
    parts = default_parts(config, ops=ops)
    images = random_images(FIRST, numbers["batch"], side, side)
    products = "highest" if precision == "float32" else None
    with jax.default_device(device), jax.default_matmul_precision(products):
        before = jax.device_get(ours.randomized(create_state(parts, side)))
        step = jax.jit(
            make_steps(parts, MEAN_COLOR)[phase],
            compiler_options=compilation.options(device.platform),
        )
        given = jax.device_put((before, images, jax.random.key(FIRST)), device)
        after, metrics = jax.device_get(step(*given))
    results = {
        name: np.asarray(metrics[key])
        for name, key in ours.METRICS.items()
        if key in metrics
    }
    for name in _trained(phase):
        old, new = (_weights(state, name) for state in (before, after))
        results[f"update.{name}"] = new - old
    return results


def _trained(phase: Phase) -> list[str]:
    return {
        Phase.COMPLETION: ["completion"],
        Phase.DISCRIMINATOR: ["discriminator"],
        Phase.JOINT: ["completion", "discriminator"],
    }[phase]


def _weights(state: TrainState, name: str) -> np.ndarray:
    return flattened(torch_arrays(getattr(state, name).params, {}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checks")
    parser.add_argument("check", choices=("parity", "matrix_peak"))
    parser.add_argument("--size", choices=tuple(SIZES), default="full")
    options = parser.parse_args()
    json.dump(globals()[options.check](options.size), sys.stdout)
