"""A run on photographs in memory that ends when its time is up.

The photographs lie on the device, where crops and holes are drawn inside the step. The
program compiles its steps, measures a few of each, and takes as many as the time allows.
"""

import io
import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.in_memory import budget, weights
from experiments.in_memory.crops import draw
from experiments.in_memory.photographs import Photographs
from experiments.in_memory.recipe import Recipe, at_rate
from gl_jax import compilation
from gl_jax.config import Phase, UsageError
from gl_jax.files import write_output
from gl_jax.holes import HOLES, composite, example_keys, sample_holes
from gl_jax.metrics import psnr, ssim
from gl_jax.training import TrainState, create_state, make_steps
from gl_jax.training.state import inference_variables

EMA_DECAY = 0.995
MEASURED_STEPS = 4
"""Steps that are timed before a phase begins: as many as from penalty to penalty."""
SHOWN = 8
"""Validation photographs whose completions are saved."""
VALIDATION_SEED = 2017
RESERVE = 3.0
"""Seconds for writing the last files."""
SNAPSHOTS = 3
"""Files of the joint phase: its first third goes into one, and so on."""

Clock = Callable[[], float]


class Dials(NamedTuple):
    """Factors that change from step to step, of one program."""

    rate: Any
    """Scales the learning rates."""
    structure: Any
    """Scales the structural term."""

    @classmethod
    def at(cls, rate: float, structure: float) -> "Dials":
        """Returns the factors as arrays."""
        return cls(jnp.float32(rate), jnp.float32(structure))


@dataclass
class Run:
    """A run's programs, photographs and folder."""

    recipe: Recipe
    photographs: Photographs
    folder: Path
    key: jax.Array
    say: Callable[[str], None] = print
    clock: Clock = time.monotonic
    lines: list[str] = field(default_factory=list)
    completed: dict[str, np.ndarray] = field(default_factory=dict)
    last_save: float = 0.0

    def __post_init__(self) -> None:
        data = self.recipe.completion.data
        for name, images in self.photographs._asdict().items():
            if not len(images) or images.shape[1] != data.image_size:
                raise UsageError(
                    f"photographs: {name} (= {images.shape}) must hold some, of "
                    f"{data.image_size} pixels a side; `pack --side` makes them."
                )
        self.mean_color = self.photographs.mean_color
        self.validation = jnp.asarray(self.photographs.validation)
        self.on_device = jnp.asarray(self.photographs.train)
        self.complete = jax.jit(self._completed, compiler_options=compilation.options())

    def step_of(self, phase: Phase) -> Callable[..., Any]:
        """Returns (state, photographs, key, dials) -> (state, metrics) of a phase."""
        batch = self.recipe.config(phase).data.batch_size
        crops = self.recipe.crops

        def step(
            state: TrainState, photographs: Any, key: Any, dials: Dials
        ) -> tuple[TrainState, Any]:
            parts = self.recipe.parts(phase, dials.structure)
            steps = make_steps(parts, self.mean_color, ema_decay=EMA_DECAY)
            images = draw(photographs, key, state.step, batch, crops)
            return steps[phase](at_rate(state, dials.rate), images, key)

        return step

    def measure(self, state: TrainState) -> dict[str, float]:
        """Returns the mean PSNR and SSIM in the holes of the validation photographs."""
        variables = inference_variables(state)
        count = self.recipe.completion.data.batch_size
        values = []
        for first in range(0, len(self.validation), count):
            images = self.validation[first : first + count]
            # One shape, one program: the last batch is filled up with its beginning.
            filled = jnp.resize(images, (count, *images.shape[1:]))
            _, measured = self.complete(variables, filled, first)
            values.append(np.stack(jax.device_get(measured))[:, : len(images)])
        of_all = np.concatenate(values, axis=1).mean(axis=1)
        return {"psnr": float(of_all[0]), "ssim": float(of_all[1])}

    def save(self, name: str, state: TrainState, step: int) -> None:
        """Measures the network, and writes it, its completions and the log."""
        measured = self.measure(state)
        variables = jax.device_get(inference_variables(state))
        config = self.recipe.completion
        about = {
            "width": config.model.width,
            "mean_color": self.mean_color,
            "training": {
                "experiment": "in_memory",
                "phase": name,
                "image size": config.data.image_size,
                "holes": f"{config.holes.min_size} to {config.holes.max_size}",
                "batch size": config.data.batch_size,
                "photographs": len(self.photographs.train),
                "steps": step,
                **{key: round(value, 4) for key, value in measured.items()},
            },
        }
        finite = weights.save(self.folder / f"{name}.npz", variables, about)
        self.log({"saved": name, "step": step, "finite": finite} | measured)
        if not finite:
            raise UsageError(
                f"step {step}: the weights are not finite; {name}.npz holds the last "
                "ones that were."
            )
        self._save_completions(name, variables)
        self.last_save = self.clock()

    def log(self, values: dict[str, Any]) -> None:
        """Prints the values and adds them as a line to metrics.jsonl."""
        line = json.dumps({"seconds": round(self.clock(), 1)} | values)
        self.say(line)
        self.lines.append(line + "\n")
        write_output(self.folder / "metrics.jsonl", "".join(self.lines).encode())

    def _completed(self, variables: Any, images: Any, first: Any) -> tuple[Any, Any]:
        """Completes the holes of the paper's size that every validation has."""
        config = self.recipe.completion
        parts = self.recipe.parts(Phase.COMPLETION)
        count, *shape, _ = images.shape
        keys = example_keys(jax.random.key(VALIDATION_SEED), HOLES, first, count)
        most = config.holes.max_size
        mask = sample_holes(
            keys, tuple(shape), min_size=most * 3 // 4, max_size=most, local_size=most
        ).mask
        images = images.astype(jnp.float32) / 255
        convention = parts.encoding.completion(self.mean_color)
        outputs = parts.completion.apply(
            variables, convention.encode(images, mask), train=False
        )
        pasted = composite(convention.decode(outputs), images, mask)
        measured = [measure(pasted, images, mask) for measure in (psnr, ssim)]
        return (mask, pasted), measured

    def _save_completions(self, name: str, variables: Any) -> None:
        """Writes completions of the first photographs, beside those saved before."""
        count = self.recipe.completion.data.batch_size
        shown = min(SHOWN, len(self.validation), count)
        images = jnp.resize(
            self.validation[:shown], (count, *self.validation.shape[1:])
        )
        mask, pasted = jax.device_get(self.complete(variables, images, 0)[0])
        self.completed[name] = np.rint(255 * pasted[:shown]).astype(np.uint8)
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            photographs=self.photographs.validation[:shown],
            mask=mask[:shown] > 0,
            **self.completed,
        )
        write_output(self.folder / "completed.npz", buffer.getvalue())


def train(
    recipe: Recipe,
    photographs: Photographs,
    folder: Path,
    *,
    minutes: float,
    seed: int = 0,
    begin: Path | None = None,
    started: float | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Trains until `minutes` after `started`, a monotonic clock's time, by default now.

    Writes `completion.npz`, `joint_1.npz` to `joint_3.npz`, `completed.npz` and
    `metrics.jsonl` into the folder: of the full size, 6 files of 60 MB together. From the
    weights of `begin`, the completion phase is left out.
    """
    started = time.monotonic() if started is None else started

    def clock() -> float:
        return time.monotonic() - started

    run = Run(recipe, photographs, folder, jax.random.key(seed), say, clock)
    shares = dict(budget.SHARES)
    states = {
        half: create_state(
            recipe.parts(half), run.validation.shape[1], seed=seed, ema=True
        )
        for half in (Phase.COMPLETION, Phase.JOINT)
    }
    if begin is not None:
        del shares[Phase.COMPLETION]
        variables, _ = weights.load(begin)
        states[Phase.JOINT] = _with_weights(states[Phase.JOINT], variables)
    run.log({"device": jax.devices()[0].device_kind, "photographs": len(run.on_device)})
    programs = _compiled(run, states, list(shares))
    seconds = {p: _seconds(run, programs[p], _of(states, p)) for p in shares}
    drawing = _drawing_seconds(run)
    run.log(
        {
            "seconds_per_step": {p: round(s, 4) for p, s in seconds.items()},
            "drawing": {p: round(drawing / s, 4) for p, s in seconds.items()},
        }
    )
    # The time of the last save is subtracted from the end.
    before = clock()
    run.measure(_of(states, next(iter(shares))))
    end = 60 * minutes - 2 * (clock() - before) - RESERVE
    clocks = budget.ends(clock(), end, shares)
    run.last_save = clock()
    if begin is None:
        state = _phase(run, Phase.COMPLETION, programs, states, seconds, clocks)
        run.save("completion", state, int(state.step))
        average = jax.tree.map(jnp.copy, inference_variables(state))
        joint = _with_weights(states[Phase.JOINT], average)
        states = {Phase.JOINT: joint.replace(step=state.step)}
    states[Phase.JOINT] = _phase(
        run, Phase.DISCRIMINATOR, programs, states, seconds, clocks
    )
    state = _phase(run, Phase.JOINT, programs, states, seconds, clocks)
    run.save(f"joint_{SNAPSHOTS}", state, int(state.step))


def _phase(
    run: Run,
    phase: Phase,
    programs: dict[Phase, Any],
    states: dict[Phase, TrainState],
    seconds: dict[Phase, float],
    clocks: dict[Phase, float],
) -> TrainState:
    """Takes the steps of a phase until its clock; its end is planned again as it goes."""
    state, end = _of(states, phase), clocks[phase]
    begun, done = run.clock(), 0
    total = max(1, budget.planned(0, end - begun, seconds[phase]))
    # Networks that begin at random, or a game that begins, rise to their rate.
    warmup = min(run.recipe.warmup, total // 10)
    if phase is Phase.JOINT:
        warmup = 0
    planned = begun
    run.log({"phase": str(phase), "steps": total})
    metrics: Any = None
    while done < total and (done == 0 or run.clock() < end):
        dials = Dials.at(
            1.0 if phase is Phase.DISCRIMINATOR else budget.rate(done, total, warmup),
            budget.tuned(done, total),
        )
        previous, (state, metrics) = (
            metrics,
            programs[phase](state, run.on_device, run.key, dials),
        )
        done += 1
        # The device is never more than one step behind, so that the clock is true.
        jax.block_until_ready(previous)
        now = run.clock()
        if now - planned >= run.recipe.save_seconds / 6:
            planned = now
            total = budget.planned(done, end - now, (now - begun) / done)
            _log_step(run, phase, done, total, metrics)
        # The end of the phase saves too.
        pause = run.recipe.save_seconds
        due = now - run.last_save >= pause and end - now > pause / 2
        if phase is not Phase.DISCRIMINATOR and due:
            part = min(SNAPSHOTS, 1 + SNAPSHOTS * done // total)
            name = f"joint_{part}" if phase is Phase.JOINT else str(phase)
            run.save(name, state, int(state.step))
    _log_step(run, phase, done, total, metrics)
    return state


def _log_step(run: Run, phase: Phase, done: int, total: int, metrics: Any) -> None:
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    run.log({"phase": str(phase), "done": done, "of": total} | values)
    if not all(map(math.isfinite, values.values())):
        raise UsageError(
            f"{phase} step {done}: the metrics are not finite; see the log."
        )


def _compiled(
    run: Run, states: dict[Phase, TrainState], phases: list[Phase]
) -> dict[Phase, Any]:
    """Compiles the steps of the phases and the validation, all at once."""

    def compiled(phase: Phase) -> Any:
        program = jax.jit(
            run.step_of(phase),
            donate_argnums=0,
            compiler_options=compilation.options(),
        )
        state, dials = _of(states, phase), Dials.at(1.0, 0.0)
        return program.lower(state, run.on_device, run.key, dials).compile()

    with ThreadPoolExecutor(len(phases) + 1) as threads:
        measured = threads.submit(run.measure, _of(states, phases[0]))
        programs = dict(zip(phases, threads.map(compiled, phases), strict=True))
    run.log({"compiled": [str(phase) for phase in phases]} | measured.result())
    return programs


def _seconds(run: Run, program: Any, state: TrainState) -> float:
    """Returns the seconds of a step, measured on a copy of the state."""
    state, dials = jax.tree.map(jnp.copy, state), Dials.at(1.0, 0.0)
    for timed in (False, True):
        start = time.perf_counter()
        for _ in range(MEASURED_STEPS if timed else 1):
            state, metrics = program(state, run.on_device, run.key, dials)
            jax.block_until_ready(metrics)
    return (time.perf_counter() - start) / MEASURED_STEPS


def _drawing_seconds(run: Run) -> float:
    """Returns the seconds that the crops of a batch take."""
    batch = run.recipe.completion.data.batch_size
    drawing = jax.jit(
        lambda images, key, step: draw(images, key, step, batch, run.recipe.crops)
    )
    times = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(drawing(run.on_device, run.key, jnp.zeros((), jnp.int32)))
        times.append(time.perf_counter() - start)
    return min(times)


def _of(states: dict[Phase, TrainState], phase: Phase) -> TrainState:
    return states[Phase.COMPLETION if phase is Phase.COMPLETION else Phase.JOINT]


def _with_weights(state: TrainState, variables: Any) -> TrainState:
    """The state with these variables of the completion network, and of its average."""
    params, stats = variables["params"], variables["batch_stats"]
    if jax.tree.map(jnp.shape, params) != jax.tree.map(
        jnp.shape, state.completion.params
    ):
        raise UsageError("--begin holds a network of another width than the run's.")
    net = state.completion.replace(params=params, batch_stats=stats)
    copied = jax.tree.map(jnp.array, {"params": params, "batch_stats": stats})
    return state.replace(completion=net, ema=copied)
