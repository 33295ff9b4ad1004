"""Every case of the bench: its task, its sizes, and the libraries that it compares."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from gl_jax.config import UsageError, did_you_mean

Library = Literal["jax", "torch"]
Size = Literal["tiny", "full"]
Device = Literal["cpu", "gpu"]
Precision = Literal["float32", "bfloat16"]


FULL: dict[str, Any] = {
    "width": 1.0,
    "image_size": 256,
    "local_size": 128,
    "holes": (96, 128),
    "batch": 4,
    "scale": 1,  # divides the sides of photographs
    "read": 32,  # photographs in a batch of the input pipeline
    "loaded": 512,  # photographs through the input pipeline in one turn
    "large": (4000, 3000, 200),  # width, height, side of the hole
    "steps": 1,  # steps in one turn
    "repeats": 5,  # turns
}
# A step of a GPU is short: ten in a turn, as in training, which waits for none.
FULL_ON_GPU = FULL | {"batch": 96, "steps": 10, "repeats": 9}
TINY = FULL | {
    "width": 0.125,
    "image_size": 64,
    "local_size": 32,
    "holes": (16, 32),
    "batch": 2,
    "scale": 8,
    "read": 4,
    "loaded": 16,
    "large": (800, 600, 40),
    "repeats": 2,
}


@dataclass(frozen=True)
class Candidate:
    """A library, with settings that it adds to those of the case."""

    name: str
    library: Library
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A task of `ours.TASKS` and `peer.TASKS`, its settings, and what it compares."""

    name: str
    task: str
    settings: dict[str, Any]
    baselines: tuple[Candidate, ...]
    ours: Candidate = Candidate("ours", "jax")


CONFIGURATIONS = tuple(
    Candidate(name, "torch", {"configuration": name})
    for name in ("eager", "channels_last", "channels_last+compile")
)
ONE = Candidate("pmap over 1 device", "jax", {"devices": 1})
TWO = Candidate("pmap over 2 devices", "jax", {"devices": 2})


def all_cases(size: Size, device: Device, precision: Precision) -> Iterator[Case]:
    """Yields every case, in the order in which they run."""
    full = FULL_ON_GPU if device == "gpu" else FULL
    settings = (TINY if size == "tiny" else full) | {
        "device": device,
        "precision": precision,
        "devices": 1,
        "uncounted": 0,  # steps at the beginning of each turn
    }
    # A step waits for memory that the others freed in their turns and that a virtual
    # machine has handed back to its host meanwhile; the steps of a training run do not.
    training = settings | {"uncounted": 1 if device == "cpu" else 0}
    for phase in ("completion", "joint"):
        step = training | {"phase": phase}
        yield Case(f"{phase}_step", "training", step, CONFIGURATIONS)
    yield Case("devices", "training", training | {"phase": "joint"}, (ONE,), TWO)
    # A photograph of 2048 takes half a minute on a processor.
    for side in (256, 512, 1024, *((2048,) if device == "gpu" else ())):
        square = settings | {"side": side // settings["scale"]}
        yield Case(f"inference_{side}", "inference", square, CONFIGURATIONS)
    # It takes seconds on a GPU, too.
    once = settings | {"steps": 1, "repeats": min(3, settings["repeats"])}
    channels_last = CONFIGURATIONS[1:2]
    yield Case("large_photo", "large_photo", once, channels_last)
    for height, width in ((256, 256), (480, 640)):
        yield Case(
            f"input_pipeline_{width}x{height}",
            "pipeline",
            settings | {"photograph": (height, width), "batch": settings["read"]},
            (Candidate("Pillow + DataLoader", "torch"),),
        )


def select(cases: list[Case], names: list[str]) -> list[Case]:
    """Returns the cases of these names, or whose names begin with one of them and "_".

    Without names all of them. Raises UsageError for a name that no case has.
    """
    if not names:
        return cases
    selected: list[Case] = []
    for name in names:
        matching = [c for c in cases if c.name == name or c.name.startswith(f"{name}_")]
        if not matching:
            raise _unknown("--cases", name, [case.name for case in cases])
        selected += [case for case in matching if case not in selected]
    return selected


def select_baselines(cases: list[Case], names: list[str], size: Size) -> list[Case]:
    """Returns the cases with these baselines alone, leaving out those that have none.

    Without names all of them, at the tiny size none that compiles for a minute. Raises
    UsageError for a name that no baseline has.
    """
    known = list(dict.fromkeys(b.name for case in cases for b in case.baselines))
    for name in names:
        if name not in known:
            raise _unknown("--against", name, known)
    if not names:
        names = [n for n in known if size == "full" or "compile" not in n]
    kept = [
        replace(case, baselines=tuple(b for b in case.baselines if b.name in names))
        for case in cases
    ]
    return [case for case in kept if case.baselines]


def _unknown(option: str, name: str, known: list[str]) -> UsageError:
    return UsageError(
        f"{option}: there is no {name!r}.{did_you_mean(name, known)} "
        f"Known: {', '.join(dict.fromkeys(known))}."
    )
