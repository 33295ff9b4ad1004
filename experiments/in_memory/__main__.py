r"""Trains the paper's network in minutes, on a machine with JAX and little else.

    python -m experiments.in_memory pack --train FOLDER --validation FOLDER \
        --output photographs.npz
    python -m experiments.in_memory train photographs.npz --minutes 8 --output FOLDER
    python -m experiments.in_memory convert FOLDER/joint_3.npz --output model.safetensors
    python -m experiments.in_memory sheet FOLDER/completed.npz --output sheet.png

`pack`, `convert` and `sheet` run where gl_jax is installed. `train` needs jax, flax, optax,
numpy and jaxtyping, and Pillow to decode JPEGs; not TensorFlow, Orbax or safetensors.

Hardware: a GPU of 80 GB; `--size tiny` rehearses on a processor. Cost: 8 minutes.

Why these numbers: 184 GFLOP a photograph and completion step, 244 in a joint one. At 40 %
of the 800 TFLOP/s in bfloat16 of an H100 that is 1,700 and 1,300 photographs a second, or
300,000 in each half of 8 minutes less what compiling takes: 3,200 steps of 96, as many as
the runs of `reproduction.py` and `demo_model.py` have of 16 and 8.
"""

import argparse
import sys
import time
from pathlib import Path

STARTED = time.monotonic()

# ruff: noqa: E402
from gl_jax.config import UsageError


def main(arguments: list[str]) -> int:
    """Runs a command; a user's mistake is one line and exit code 2."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except UsageError as error:
        print(f"in_memory: {error}", file=sys.stderr)
        return 2
    return 0


def pack(options: argparse.Namespace) -> None:
    """Writes photographs into one file."""
    from experiments.in_memory import photographs

    counts = photographs.pack(
        options.train,
        options.validation,
        options.output,
        options.side,
        options.quality,
    )
    size = options.output.stat().st_size / 2**20
    listed = ", ".join(f"{count} {part}" for part, count in counts.items())
    print(f"{options.output}: {listed}, {size:.1f} MiB")


def train(options: argparse.Namespace) -> None:
    """Trains until the time is up."""
    from experiments.in_memory import photographs, recipe, training
    from gl_jax.compilation import use_compilation_cache

    if not options.minutes > 0:
        raise UsageError(f"--minutes (={options.minutes}) must be above 0.")
    if options.batch < 1:
        raise UsageError(f"--batch (={options.batch}) must be at least 1.")
    use_compilation_cache()
    full = options.size == "full"
    training.train(
        recipe.full(options.batch) if full else recipe.tiny(),
        photographs.load(options.photographs),
        options.output,
        minutes=options.minutes,
        seed=options.seed,
        begin=options.begin,
        started=STARTED,
        say=lambda line: print(line, flush=True),
    )


def convert(options: argparse.Namespace) -> None:
    """Makes a weights file of gl_jax."""
    from experiments.in_memory import weights

    weights.convert(options.weights, options.output, options.name, options.licence)
    print(f"Written: {options.output}")


def sheet(options: argparse.Namespace) -> None:
    """Draws holes, the completions of each save, and photographs side by side."""
    import numpy as np

    from gl_jax.figures.sheets import Tile, draw_sheet
    from gl_jax.files import reading, write_output

    with reading(options.completed), np.load(options.completed) as file:
        columns = dict(file)
    mask, photographs = columns.pop("mask"), columns.pop("photographs")
    columns = {"hole": np.where(mask, np.uint8(255), photographs)} | columns
    columns["photograph"] = photographs
    rows = [
        [Tile(image) for image in row] for row in zip(*columns.values(), strict=True)
    ]
    write_output(options.output, draw_sheet([*columns], rows))
    print(f"Written: {options.output}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.in_memory",
        description="Trains the paper's network in minutes on photographs in memory.",
    )
    commands = parser.add_subparsers(required=True)

    def command(run: object, *files: str) -> argparse.ArgumentParser:
        name, text = run.__name__, run.__doc__  # type: ignore[attr-defined]
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(run=run)
        for file in files:
            made.add_argument(file, type=Path)
        made.add_argument("--output", type=Path, required=True)
        return made

    packing = command(pack)
    for part in ("--train", "--validation"):
        packing.add_argument(
            part, nargs="+", required=True, metavar="FOLDER[:COUNT]", help="photographs"
        )
    packing.add_argument("--side", type=int, default=256, help="pixels (256)")
    packing.add_argument(
        "--quality", type=int, default=85, help="of the JPEGs (85); 0 writes pixels"
    )
    training = command(train, "photographs")
    training.add_argument(
        "--minutes",
        type=float,
        required=True,
        help="from the start of the program to its end, compiling included",
    )
    training.add_argument("--size", choices=("full", "tiny"), default="full")
    training.add_argument("--batch", type=int, default=96, help="photographs (96)")
    training.add_argument("--seed", type=int, default=0)
    training.add_argument(
        "--begin", type=Path, metavar="FILE", help="weights to begin the game with"
    )
    converting = command(convert, "weights")
    converting.add_argument("--name", default="in_memory")
    converting.add_argument("--licence", default="not stated")
    command(sheet, "completed")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
