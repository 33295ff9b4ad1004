"""The numbers of a run in memory, and its parts.

Two phases of the paper's three are like the runs of `experiments/reproduction.py`, with
the same reasons: a completion phase by Muon, and a balanced game: discriminators without
batch normalisation, R1, DiffAugment's colour and translation, the adversarial gradient 1.5
times the completion gradient. The last quarter of the completion phase has structural
similarity beside the squared error, as `experiments/demo_model.py:tuned`: from random
weights, that term leads away from the colours. Learning rates fall to 0 in each of the two,
over as many steps as the time allows.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax.numpy as jnp
import optax

from experiments.in_memory.crops import Crops, mixed_holes
from gl_jax.config import (
    AugmentConfig,
    Config,
    DataConfig,
    HolesConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    Phase,
)
from gl_jax.training import Optimizers, Parts, TrainState, default_parts

ADAM = OptimizerConfig("adam", 2e-4, {"b1": 0.5})


@dataclass(frozen=True)
class Recipe:
    """A run: configurations of its two halves, crops, and how often it saves."""

    completion: Config
    joint: Config
    crops: Crops
    warmup: int = 100
    """Steps over which the learning rate of the completion phase rises."""
    save_seconds: float = 60.0
    """Seconds from one save and validation to the next."""

    def config(self, phase: Phase) -> Config:
        """Returns the configuration of a phase."""
        return self.completion if phase is Phase.COMPLETION else self.joint

    def parts(self, phase: Phase, structure: Any = 1.0) -> Parts:
        """Returns the parts of a phase: mixed holes, learning rates that `led` multiplies.

        `structure` multiplies the structural term, where the phase has one.
        """
        config = self.config(phase)
        parts, holes = default_parts(config), config.holes
        terms = dict(parts.objective.completion)
        if term := terms.get("structure_loss"):
            terms["structure_loss"] = replace(term, weight=structure * term.weight)
        return replace(
            parts,
            objective=replace(parts.objective, completion=terms),
            sample_holes=partial(
                mixed_holes,
                min_size=holes.min_size,
                max_size=holes.max_size,
                local_size=holes.local_size,
            ),
            optimizers=Optimizers(
                *(optax.chain(each, led()) for each in parts.optimizers)
            ),
        )


def full(batch: int = 96, width: float = 1.0, dtype: Any = "bfloat16") -> Recipe:
    """Returns the paper's network at the paper's size."""
    return _recipe(
        ModelConfig(width=width, compute_dtype=dtype), batch, HolesConfig(16, 128, 128)
    )


def tiny() -> Recipe:
    """Returns a rehearsal for a processor, of the same code in a minute."""
    recipe = _recipe(ModelConfig(width=0.125), 8, HolesConfig(8, 32, 32), 64)
    return replace(recipe, warmup=10, save_seconds=10.0)


def led() -> optax.GradientTransformation:
    """Multiplies updates by a factor that lies in the optimizer's state: see `at_rate`.

    A learning rate that is an argument of the step can follow the clock; one that is a
    constant of the program would have to be known before it is compiled.
    """

    def update(updates: Any, factor: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        return optax.tree.scale(factor, updates), factor

    return optax.GradientTransformation(lambda params: jnp.ones(()), update)


def at_rate(state: TrainState, factor: Any) -> TrainState:
    """Returns the state with this factor of the learning rates, of both networks."""

    def set_in(net: Any) -> Any:
        return net and net.replace(opt_state=(*net.opt_state[:-1], factor))

    return state.replace(
        completion=set_in(state.completion), discriminator=set_in(state.discriminator)
    )


def _recipe(
    model: ModelConfig, batch: int, holes: HolesConfig, side: int = 256
) -> Recipe:
    completion = Config(
        name="in_memory",
        model=replace(model, discriminators="none"),
        data=DataConfig(batch_size=batch, image_size=side, resize=(side, side)),
        holes=holes,
        loss=LossConfig(structure_weight=0.3),
        completion_optimizer=OptimizerConfig("muon", 2e-3),
    )
    # Proportional to the pixels and to 1 / batch (Karras et al. 2020a, StyleGAN2-ADA's
    # configuration), from the 0.5 that held at 64x64 with batches of 16.
    gamma = 0.5 * (side / 64) ** 2 * 16 / batch
    joint = replace(
        completion,
        model=replace(model, discriminator_norm="none"),
        loss=LossConfig(r1=gamma, penalty_every=4, adversarial_ratio=1.5),
        augment=AugmentConfig(color=True, translation=0.125),
        completion_optimizer=ADAM,
        discriminator_optimizer=replace(ADAM, learning_rate=4e-4),
    )
    return Recipe(completion, joint, Crops(side))
