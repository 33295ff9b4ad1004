"""Every case of the bench with its sizes, and the contestants in it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from gl_jax.config import UsageError, did_you_mean

Library = Literal["jax", "torch"]
Size = Literal["tiny", "full"]
Device = Literal["cpu", "gpu"]
Precision = Literal["float32", "bfloat16"]

# PyTorch as it is used: from the plainest to all that helps, words joined by "+".
CONFIGURATIONS = {
    "float32": ("eager", "channels_last", "channels_last+compile"),
    "bfloat16": ("channels_last+bfloat16", "channels_last+compile+bfloat16"),
}
# Seldom used, and measured when asked for: freed memory kept by the C library, as in our
# training on a processor, and batch normalisation folded into the convolutions.
TRAINING = {
    "float32": (
        *CONFIGURATIONS["float32"],
        "channels_last+keep_memory",
    ),
    "bfloat16": CONFIGURATIONS["bfloat16"],
}
INFERENCE = {
    "float32": (*CONFIGURATIONS["float32"], "channels_last+compile+freezing"),
    "bfloat16": (
        *CONFIGURATIONS["bfloat16"],
        "channels_last+compile+freezing+bfloat16",
    ),
}
SELDOM = ("keep_memory", "freezing")
EAGER_ONLY = {
    "float32": ("channels_last",),
    "bfloat16": ("channels_last+bfloat16",),
}


@dataclass(frozen=True)
class Contestant:
    """One of those who take turns: a library, and its settings beyond the case's own."""

    name: str
    library: Library
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A task of `ours.TASKS` and `peer.TASKS`, its settings, and who competes in it."""

    name: str
    task: str
    settings: dict[str, Any]
    baselines: tuple[Contestant, ...]
    repeats: int
    ours: Contestant = Contestant("ours", "jax")
    lead: int = 0  # runs at the beginning of each turn that do not count


class Sizes(NamedTuple):
    """The numbers that make a bench tiny or full."""

    width: float
    image_size: int
    local_size: int
    holes: tuple[int, int]
    batch: int
    scale: int  # divides the sides of the photographs to complete
    batches: tuple[int, ...]
    loaded: int  # photographs through the input pipeline in one turn
    large: tuple[int, int, int]  # width and height of the large photograph, hole
    steps: int  # steps in one turn
    lead: int  # training steps at the beginning of a turn that do not count
    repeats: int


SIZES: dict[tuple[Size, Device], Sizes] = {
    # A step waits for the memory that the others freed in their turns, which a virtual
    # machine has handed back to its host meanwhile; the steps of a run do not.
    ("full", "cpu"): Sizes(
        width=1.0,
        image_size=256,
        local_size=128,
        holes=(96, 128),
        batch=4,
        scale=1,
        batches=(1, 2, 4, 8),
        loaded=512,
        large=(4000, 3000, 200),
        steps=1,
        lead=1,
        repeats=5,
    ),
    # One GPU step is short: ten a turn, as in training, where nobody waits for each one.
    ("full", "gpu"): Sizes(
        width=1.0,
        image_size=256,
        local_size=128,
        holes=(96, 128),
        batch=96,
        scale=1,
        batches=(8, 16, 32, 64, 96),
        loaded=512,
        large=(4000, 3000, 200),
        steps=10,
        lead=0,
        repeats=9,
    ),
}
TINY = Sizes(
    width=0.125,
    image_size=64,
    local_size=32,
    holes=(16, 32),
    batch=2,
    scale=8,
    batches=(1, 2),
    loaded=16,
    large=(800, 600, 40),
    steps=1,
    lead=1,
    repeats=2,
)
SIZES["tiny", "cpu"] = SIZES["tiny", "gpu"] = TINY

INFERENCE_SIDES = (256, 512, 768, 1024)
AREA_SIDES = (256, 384, 512, 768, 1024)


def torch_contestants(configurations: tuple[str, ...]) -> tuple[Contestant, ...]:
    """PyTorch in each configuration."""
    return tuple(
        Contestant(name, "torch", {"configuration": name}) for name in configurations
    )


def all_cases(size: Size, device: Device, precision: Precision) -> Iterator[Case]:
    """Every case, in the order in which it is run."""
    sizes = SIZES[size, device]
    eager = {"float32": "eager", "bfloat16": "eager+bfloat16"}[precision]
    common = {
        "width": sizes.width,
        "device": device,
        "precision": precision,
        "size": size,
    }
    training = common | {
        "image_size": sizes.image_size,
        "local_size": sizes.local_size,
        "holes": sizes.holes,
        "batch": sizes.batch,
        "steps": sizes.steps,
        "devices": 1,
    }
    # The machine's limits, measured with the same clock.
    for name, side in (("matrix_product", 4096), ("memory_copy", 8192)):
        yield Case(
            name,
            name,
            common | {"side": side // sizes.scale, "steps": sizes.steps},
            torch_contestants((eager,)),
            sizes.repeats,
        )
    for phase in ("completion", "joint"):
        yield Case(
            f"{phase}_step",
            "training",
            training | {"phase": phase},
            torch_contestants(TRAINING[precision]),
            sizes.repeats,
            lead=sizes.lead,
        )
    for side in INFERENCE_SIDES:
        yield Case(
            f"inference_{side}",
            "inference",
            common | {"side": side // sizes.scale, "steps": sizes.steps},
            torch_contestants(INFERENCE[precision]),
            sizes.repeats,
        )
    for height, width in ((256, 256), (480, 640)):
        yield Case(
            f"input_pipeline_{width}x{height}",
            "pipeline",
            common
            | {
                "photograph": (height, width),
                "image_size": sizes.image_size,
                "batch": 32 if size == "full" else 4,
                "loaded": sizes.loaded,
            },
            (Contestant("Pillow + DataLoader", "torch"),),
            sizes.repeats,
        )
    yield Case(
        "devices",
        "training",
        training | {"phase": "joint"},
        (Contestant("pmap over 1 device", "jax", {"devices": 1}),),
        sizes.repeats,
        ours=Contestant("pmap over 2 devices", "jax", {"devices": 2}),
        lead=sizes.lead,
    )
    for batch in sizes.batches:
        yield Case(
            f"batch_curve_{batch}",
            "training",
            training | {"phase": "completion", "batch": batch},
            torch_contestants(EAGER_ONLY[precision]),
            min(3, sizes.repeats),
            lead=sizes.lead,
        )
    for side in AREA_SIDES:
        yield Case(
            f"area_curve_{side}",
            "inference",
            common | {"side": side // sizes.scale, "steps": sizes.steps},
            torch_contestants(EAGER_ONLY[precision]),
            min(3, sizes.repeats),
        )
    whole = common | {"large": sizes.large}
    yield Case(
        "large_photo",
        "large_photo",
        whole,
        torch_contestants(EAGER_ONLY[precision]),
        min(3, sizes.repeats),
    )
    yield Case(
        "start_up",
        "start_up",
        whole,
        torch_contestants(("eager",)),
        min(3, sizes.repeats),
    )


def chosen(cases: list[Case], names: list[str]) -> list[Case]:
    """The cases with these names; a name also stands for all that begin with it and "_".

    Raises UsageError for a name that no case has.
    """
    if not names:
        return cases
    found: list[Case] = []
    for name in names:
        matching = [c for c in cases if c.name == name or c.name.startswith(f"{name}_")]
        if not matching:
            raise _unknown("--cases", name, [case.name for case in cases])
        found += [case for case in matching if case not in found]
    return found


def against(cases: list[Case], names: list[str], size: Size) -> list[Case]:
    """The cases with only these baselines in them; cases that have none are left out.

    Without names the usual ones, at the tiny size none that compiles for a minute;
    "all" stands for every one. Raises UsageError for a name that no baseline has.
    """
    known = list(dict.fromkeys(b.name for case in cases for b in case.baselines))
    for name in names:
        if name not in (*known, "all"):
            raise _unknown("--against", name, known)
    if not names:
        left_out = (*SELDOM, "compile") if size == "tiny" else SELDOM
        names = [n for n in known if not any(word in left_out for word in n.split("+"))]
    elif "all" in names:
        names = known
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
