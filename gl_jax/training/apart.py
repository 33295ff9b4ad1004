"""Compiles a step in a process of its own, on processors.

Compiling a joint step of the paper's size leaves 0.2 GB in pieces of pages that no allocator
can hand back, for as long as the process lives. The other process puts the program into
JAX's compilation cache, where this one finds it, and so does a run that is resumed.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable

import jax

from gl_jax.compilation import use_compilation_cache
from gl_jax.config import Config, Phase
from gl_jax.training.parallel import AXIS, Devices
from gl_jax.training.state import TrainState, create_state
from gl_jax.training.steps import make_steps

LEAST_VALUES = 2**24
"""With smaller states, and so for smaller networks, a compiler leaves little behind."""


def compile_apart(
    config: Config,
    phase: Phase,
    log: Callable[[str], None],
    state: TrainState,
    *_: jax.Array,
) -> None:
    """Compiles the step of a phase, which is then called with `state` and others, apart.

    Of small networks it does nothing. The configuration has its mean colour. A process
    that fails is reported, and costs memory and nothing else: the step is then compiled
    here.
    """
    if sum(leaf.size for leaf in jax.tree.leaves(state)) < LEAST_VALUES:
        return
    use_compilation_cache()
    log(f"Compiling the {phase} step, a minute or two.")
    fault = _fault_of_compiling(config, phase)
    if fault is not None:
        log(
            f"The compiler's own process failed ({fault}): compiling in this one, which "
            "needs more memory."
        )


def _fault_of_compiling(config: Config, phase: Phase) -> str | None:
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=json.dumps({"config": config.to_json(), "phase": phase}),
            env=os.environ | _settings(),
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,  # Ctrl+C is for this process, which ends it in order.
        )
    except OSError as error:
        return str(error)
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines() or ["it said nothing"]
    return f"exit {done.returncode}, {lines[-1]}"


def _settings() -> dict[str, str]:
    """The environment that gives another process this one's code, devices and cache."""
    kept = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_num_cpu_devices",
    )
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "JAX_PLATFORMS": "cpu",
        **{name.upper(): str(jax.config.values[name]) for name in kept},
    }


def main() -> None:
    """Compiles the step that standard input describes."""
    asked = json.load(sys.stdin)
    config = Config.from_json(asked["config"])
    devices = Devices(config.run.device_count)
    mean_color = config.data.mean_color
    assert mean_color is not None
    steps = make_steps(config, mean_color, axis_name=AXIS)
    state, key = devices.replicated_shapes(
        jax.eval_shape(lambda: (create_state(config), jax.random.key(0)))
    )
    side = config.data.image_size
    images = devices.sharded_shape((config.data.batch_size, side, side, 3))
    devices.compile(steps[Phase(asked["phase"])], state, images, key)


if __name__ == "__main__":
    main()
