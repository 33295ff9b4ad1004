"""The memory and work of a step on one chip: from a TPU's compiler, or by arithmetic."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from gl_jax import compilation
from gl_jax.config import GREY, Config, Phase
from gl_jax.experiment import Experiment
from gl_jax.parallel import AXIS, PREFETCH
from gl_jax.planning import arithmetic, compiling
from gl_jax.planning.topologies import Topology
from gl_jax.training.own_parts import parts_of
from gl_jax.training.state import TrainState, state_shapes
from gl_jax.training.steps import make_steps


@dataclass(frozen=True)
class Need:
    """Bytes and FLOP of a step on one chip; None if only a compiled program shows it."""

    memory: float
    """Bytes needed at once: the sum of the parts below."""
    flops: float
    """FLOP of matrix products and convolutions."""
    state: float
    batches: float
    """Bytes of the batch and of the prefetched ones."""
    temporaries: float | None = None
    program: float | None = None
    traffic: float | None = None
    """Bytes moved between the chip and its memory."""
    collectives: int | None = None
    collective_bytes: float | None = None


def need_of(
    experiment: Experiment, config: Config, topology: Topology, phase: Phase
) -> Need:
    """Returns the need of a phase's step; for a TPU it is compiled, which takes minutes."""
    size = config.data.image_size
    count = config.data.batch_size // topology.count
    with compilation.building_for(topology.chip.platform):
        parts = parts_of(config, experiment)
        state = state_shapes(parts, size, ema=config.run.ema_decay is not None)

        def step(axis_name: str | None) -> Callable[..., Any]:
            return make_steps(
                parts,
                config.data.hole_color or GREY,
                accumulate=config.run.accumulate,
                ema_decay=config.run.ema_decay,
                ema_ramp=config.run.ema_ramp,
                axis_name=axis_name,
            )[phase]

        images = jax.ShapeDtypeStruct((count, size, size, 3), np.uint8)
        arguments = (state, images, jax.eval_shape(lambda: jax.random.key(0)))
        operations = arithmetic.traced(step(None), *arguments)
        work = arithmetic.work_of(operations)
        batch = float(images.size)
        need = Need(
            memory=0.0,
            flops=work.flops,
            state=_bytes(state),
            batches=(1 + PREFETCH) * batch,
        )
        if topology.chip.platform == "gpu":
            temporaries = arithmetic.kept_bytes(operations)
            return replace(
                need,
                memory=need.state + need.batches + temporaries,
                temporaries=temporaries,
                traffic=work.traffic,
                collective_bytes=_gradients(state, phase),
            )
        least = need.state + need.batches
        if least > topology.chip.memory:
            return replace(need, memory=least)
        try:
            made = compiling.compiled(
                step(AXIS), topology, *arguments, pieces=config.run.accumulate
            )
        except compiling.TooLargeError as error:
            # The compiler's message rounds the bytes, maybe below the chip's memory.
            return replace(need, memory=max(error.needed, topology.chip.memory + 1))
    memory, figures = made
    return replace(
        need,
        memory=memory.total + PREFETCH * batch,
        state=memory.arguments - batch,
        temporaries=memory.temporaries + memory.results,
        program=memory.program,
        traffic=figures.traffic,
        collectives=figures.collectives,
        collective_bytes=figures.collective_bytes,
    )


def _gradients(state: TrainState, phase: Phase) -> float:
    """Returns the bytes of the gradients that the chips average."""
    completion = _bytes(state.completion.params)
    discriminator = _bytes(state.discriminator and state.discriminator.params)
    return {
        Phase.COMPLETION: completion,
        Phase.DISCRIMINATOR: discriminator,
        Phase.JOINT: completion + discriminator,
    }[phase]


def _bytes(tree: Any) -> float:
    return float(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)))
