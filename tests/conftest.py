"""What holds for every test: four devices, strict types, no noise."""

import atexit
import os
import shutil
import tempfile

# Read when TensorFlow, Matplotlib and JAX are imported, so set before any of them.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The suite compiles hundreds of small programs once each: unoptimised, and all by the
# emitters that training steps are compiled with, they are ready three times sooner.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    + " --xla_cpu_use_fusion_emitters=false"
)
# Runs that are broken off and resumed compile the same steps again and again, and so do
# the workers of pytest-xdist and the commands that tests start, which inherit this: within
# a session every step is compiled once. With a limit of its size a cache may be shared.
if "GL_JAX_TESTS_SESSION" not in os.environ:
    _compiled = tempfile.mkdtemp(prefix="gl_jax-tests-")
    atexit.register(shutil.rmtree, _compiled, ignore_errors=True)
    os.environ |= {
        "GL_JAX_TESTS_SESSION": _compiled,
        "JAX_COMPILATION_CACHE_DIR": _compiled,
        "JAX_COMPILATION_CACHE_MAX_SIZE": str(8 * 2**30),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    }

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import jax
import numpy as np
import pytest

# Four devices in one process: what a run does on 1, 2 and 4 of them can be compared.
# With more of them than cores, steps that are queued without waiting can deadlock, so
# tests wait for the outputs of every pmapped step, as the loop does on CPU.
jax.config.update("jax_num_cpu_devices", 4)
# float32 with float64, or [b] with [b, 1], is an error here and not a silent surprise.
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# A first example compiles, on a machine that may be busy: no time limit for each one.
hypothesis.settings.register_profile(
    "gl_jax",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("gl_jax")

# A compiled program takes memory maps of the process, and Linux allows 65,530: one more
# ends it with a segmentation fault. Programs are dropped long before, every few tests.
MOST_MAPS = 15_000
_maps = Path("/proc/self/maps")
_tests = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first: at the end, one would keep a single process busy for minutes."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def programs_are_dropped_in_time() -> Iterator[None]:
    yield
    if next(_tests) % 5 or not _maps.exists():
        return
    if _maps.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()


@pytest.fixture(scope="session")
def damage() -> Callable[[Path, str], None]:
    """Spoils a file: `truncated` to half, `deleted`, or one bit in its middle `flipped`."""

    def spoil(file: Path, fault: str) -> None:
        content = bytearray(file.read_bytes())
        if fault == "deleted":
            file.unlink()
        elif fault == "truncated":
            file.write_bytes(content[: len(content) // 2])
        elif fault == "flipped":
            content[len(content) // 2] ^= 0x10
            file.write_bytes(content)
        else:
            raise ValueError(fault)

    return spoil


@pytest.fixture(scope="session")
def random_model() -> Callable[..., Any]:
    """Makes a small network with random weights, whole enough for all but good pictures."""
    from gl_jax.weights import native  # after the settings above
    from gl_jax.weights.architectures import Architecture
    from gl_jax.weights.arrays import nested
    from gl_jax.weights.convention import Convention

    def make(width: float, **about: Any) -> native.Model:
        rng = np.random.default_rng(0)
        arrays = {}
        for name, shape in Architecture(width).shapes().items():
            values = rng.normal(0, 1, shape)
            if name.endswith("kernel"):
                values *= np.sqrt(2 / np.prod(shape[:-1]))
            elif name.endswith(("var", "scale")):
                values = 1 + 0.2 * np.tanh(values)
            else:
                values *= 0.1
            arrays[name] = values.astype(np.float32)
        return native.Model(
            nested(arrays),
            Architecture(width),
            Convention.gl_jax((0.45, 0.4, 0.35)),
            **about,
        )

    return make
