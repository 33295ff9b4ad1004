"""The command line: one verb = one function that calls a story told elsewhere.

A new verb is a function whose parameters are its options, entered in `VERBS`. A `Word`
stands without a name. A parameter of type Experiment makes it a verb on an experiment:
it then takes an experiment file and, as options, every field of the configuration tree.

Nothing heavy is imported here. What the caller can mend is refused before JAX loads.
Exit codes: 0 done, 1 a run failed, 2 a mistake of the caller's, 130 Ctrl-C before
training, 141 nobody reads the output, 143 stopped on request with the state saved. An
unexpected exception is a bug and keeps its traceback.
"""

import contextlib
import dataclasses
import inspect
import io
import itertools
import os
import re
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from gl_jax.config import (
    Config,
    UsageError,
    describe,
    did_you_mean,
    field_names,
    override,
    suggest_option,
)
from gl_jax.experiment import Experiment, load_experiment
from gl_jax.version import __version__

# Without a name of its own in the options: --data.source, not --config.data.source.
ConfigOptions = Annotated[Config, tyro.conf.arg(name="")]
# A file that stands by itself, as in `gl-jax inspect FILE`.
Word = tyro.conf.Positional[Path]
Words = tyro.conf.Positional[tuple[Path, ...]]


def train(
    experiment: Experiment,
    workdir: Path,
    *,
    coordinator: str | None = None,
    process_count: int | None = None,
    process_id: int | None = None,
    distributed: bool = False,
    heartbeat: int = 100,
) -> None:
    """Train the networks, or resume where the workdir's newest checkpoint stands.

    Args:
        workdir: Folder of the run: config.json, metrics.jsonl, samples/, curves.png,
            checkpoints/ and TensorBoard events. The same command again resumes.
        coordinator: Several hosts: address of the first one, as HOST:PORT.
        process_count: Several hosts: how many there are.
        process_id: Several hosts: which of them this one is, from 0.
        distributed: Several hosts: they come from the environment (TPU pod, Slurm).
        heartbeat: Several hosts: seconds of silence after which a host counts as dead
            and the others end.
    """
    if distributed or (coordinator, process_count, process_id) != (None, None, None):
        from gl_jax import parallel

        parallel.initialize(coordinator, process_count, process_id, heartbeat=heartbeat)
    from gl_jax.training import loop

    loop.run(experiment.config, workdir, experiment=experiment)


def summary(experiment: Experiment) -> None:
    """Print the layers of an experiment's networks: shapes and parameter counts."""
    from gl_jax.training.summary import summarize

    print(summarize(experiment.config, experiment))


def compare(
    *,
    output: Path,
    model: str | None = None,
    experiment: Path | None = None,
    data: str = "bundled",
    masks: str = "box",
    methods: tuple[str, ...] = ("gl", "mean", "telea"),
    count: int = 8,
    image_size: int | None = None,
    seed: int = 0,
    split: str = "validation",
    data_dir: str | None = None,
) -> None:
    """Complete the same holes with several methods: a table and a sheet of pictures.

    Args:
        output: Folder for comparison.md, .csv, .json and .png. The same command goes on
            where it was interrupted; one with more methods runs only those.
        model: For the method `gl`: a training run's folder, a weights file, or the name
            of a shipped model; by default the shipped one.
        experiment: The experiment file that the model was trained with, where its network
            is none of gl_jax's own.
        data: Photographs: `bundled`, a folder, or `tfds:NAME`.
        masks: `box`, one rectangle as in the paper's training, anywhere; `center`, a
            square in the middle; `freeform`, brush strokes; or a folder with a mask for
            each photograph, white = missing.
        methods: Names after one another or with commas: `gl` is ours, from `model`; the
            path of a further model is a method too; a wrong name is answered with the
            list of all baselines.
        count: How many photographs, spread evenly over the set.
        image_size: Side of the squares in pixels; by default what the model was trained
            on, and 256 without a model.
        seed: The holes follow from it: the same seed, the same holes.
        split: Split of a bundled or TFDS source; a folder is taken as it is.
        data_dir: Where TFDS keeps prepared data: a folder or a bucket (gs://...).
    """
    from gl_jax.evaluation import comparison

    names = tuple(name for word in methods for name in word.split(",") if name)
    comparison.run(
        model, data, masks, names, output, count=count, image_size=image_size,
        seed=seed, split=split, data_dir=data_dir, experiment=experiment,
    )  # fmt: skip


def evaluate(
    *,
    output: Path,
    model: str | None = None,
    experiment: Path | None = None,
    data: str = "bundled",
    masks: str = "box",
    protocol: Literal["own", "mmediting"] = "own",
    seeds: str | None = None,
    count: int | None = None,
    image_size: int | None = None,
    fid_weights: Path | None = None,
    lpips_weights: str | None = None,
    split: str = "validation",
    data_dir: str | None = None,
    batch_size: int = 8,
    coordinator: str | None = None,
    process_count: int | None = None,
    process_id: int | None = None,
    distributed: bool = False,
) -> None:
    """Measure a model: every metric on fixed holes, each photograph by itself.

    Args:
        output: Folder for evaluation.md, .json and .png, per_image.csv, and masks.jsonl,
            the list from which the same can be rerun. The same command goes on where it
            was interrupted.
        model: A training run's folder, a weights file, or the name of a shipped model;
            by default the shipped one.
        experiment: The experiment file that the model was trained with, where its network
            is none of gl_jax's own.
        data: Photographs: `bundled`, a folder, or `tfds:NAME`.
        masks: `center`, `box`, `freeform`, a folder with a mask for each photograph
            (white = missing), or the masks.jsonl of another evaluation.
        protocol: `mmediting` crops and masks as that project's published table.
        seeds: Of random holes, with commas; by default 0,1,2.
        count: How many photographs, spread evenly over the set; by default all.
        image_size: Side of the squares in pixels; by default what the model was trained
            on.
        fid_weights: Inception's weights for FID: pytorch-fid's .pth, or as safetensors.
        lpips_weights: Files with commas that hold LPIPS's trunk (torchvision's AlexNet or
            VGG-16) and its heads.
        split: Split of a bundled or TFDS source; a folder is taken as it is.
        data_dir: Where TFDS keeps prepared data: a folder or a bucket (gs://...).
        batch_size: Photographs at once on each device.
        coordinator: Several hosts: address of the first one, as HOST:PORT.
        process_count: Several hosts: how many there are.
        process_id: Several hosts: which of them this one is, from 0.
        distributed: Several hosts: they come from the environment (TPU pod, Slurm).
    """
    drawn = _whole_numbers("seeds", seeds)
    if distributed or (coordinator, process_count, process_id) != (None, None, None):
        from gl_jax import parallel

        parallel.initialize(coordinator, process_count, process_id)
    from gl_jax.evaluation import measurement

    files = tuple(Path(name) for name in (lpips_weights or "").split(",") if name)
    measurement.run(
        model, data, output, masks=masks, protocol=protocol, seeds=drawn, count=count,
        image_size=image_size, fid_weights=fid_weights, lpips_weights=files,
        split=split, data_dir=data_dir, batch_size=batch_size, experiment=experiment,
    )  # fmt: skip


def _whole_numbers(name: str, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise UsageError(
            f"--{name} {text!r} must be whole numbers with commas, like 0,1,2."
        ) from None


def convert(
    source: Word,
    target: Word,
    *,
    config: Path | None = None,
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
) -> None:
    """Make a weights file of ours from the authors', mmediting's or GLCIC-PyTorch's.

    Args:
        source: A .t7 or .pth file, recognised by its content, or a folder of files that
            belong together (model_cn, model_cd and config.json of GLCIC-PyTorch).
        target: The file to write, say places2.safetensors.
        config: JSON with the mean colour as `mpv`, RGB in [0, 1], where the weights do
            not say it; by default config.json beside them.
        dtype: Type of the kernels in the file; float16 and bfloat16 halve it.
    """
    from gl_jax.weights import layouts, native

    if source.exists() and source.resolve() == target.resolve():
        raise UsageError(f"{target} would overwrite what is converted; name another.")
    native.save(layouts.convert(source, config), target, dtype)
    print(native.describe(native.load(target)))


def export(
    *,
    workdir: str,
    output: Path,
    step: int | None = None,
    experiment: Path | None = None,
    format: Literal["safetensors", "stablehlo", "onnx"] = "safetensors",
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    discriminators: bool = False,
    licence: str = "not stated",
    size: tuple[int, int] = (256, 256),
) -> None:
    """Write a training run's completion network as one file for use.

    Args:
        workdir: Folder of the run, or bucket of its checkpoints (gs://...); its moving
            average is taken where it kept one.
        output: The file to write.
        step: A checkpoint that the run has kept; by default the newest whole one.
        experiment: The experiment file of the run, where its networks are none of
            gl_jax's own.
        format: `safetensors` is what gl-jax itself loads; `stablehlo` a program for any
            size on CPU, CUDA and TPU (jax.export); `onnx` one for a fixed size.
        dtype: Type of the kernels in a safetensors file; the smaller ones halve it.
        discriminators: Put the discriminators into a safetensors file too.
        licence: Of the weights, as it stands in the file.
        size: Height and width in pixels of an ONNX program; multiples of 4.
    """
    from gl_jax.weights import export as exports
    from gl_jax.weights import native

    model = exports.from_run(
        workdir,
        step=step,
        discriminators=discriminators,
        licence=licence,
        experiment=load_experiment(str(experiment)) if experiment else None,
    )
    if format == "stablehlo":
        exports.to_stablehlo(model, output)
    elif format == "onnx":
        exports.to_onnx(model, output, *size)
    else:
        native.save(model, output, dtype)
    print(f"{output}\n{native.describe(model)}")


def inspect_model(model: Word, *, config: Path | None = None) -> None:
    """Print what a weights file holds, ours or another project's.

    Args:
        model: A .safetensors, .t7 or .pth file, or a folder as for `convert`.
        config: JSON with the mean colour, as for `convert`.
    """
    from gl_jax.weights import layouts

    print(layouts.describe(model, config))


def complete(
    *,
    image: Path,
    output: Path,
    mask: Path | None = None,
    model: str | None = None,
    experiment: Path | None = None,
    mask_from: Literal["white", "alpha"] = "white",
    mask_color: str | None = None,
    mask_tolerance: int = 0,
    rect: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    random_mask: int | None = None,
    invert_mask: bool = False,
    dilate: int = 0,
    feather: int = 0,
    blend: Literal["poisson", "none"] = "poisson",
    resize_to: int | None = None,
    concat: bool = False,
    patch_only: bool = False,
    format: str | None = None,
    quality: int | None = None,
    strict_size: bool = False,
    skip_existing: bool = False,
    max_pixels: int | None = None,
) -> None:
    """Complete the missing part of a photo, or of every photo in a folder.

    Args:
        image: A photo, or a folder of photos, which is read with its sub-folders.
        output: The file to write, or the folder for the results (no suffix).
        mask: White = missing. One file for all photos, or a folder with one for each: of
            the same name, or NAME_mask*.png.
        model: A weights file, a training run's folder, or the name of a shipped model
            (`gl-jax models`); by default the shipped one.
        experiment: The experiment file that the model was trained with, where its network
            is none of gl_jax's own.
        mask_from: `alpha`: transparent = missing, in the mask, or without one in the photo.
        mask_color: This colour marks what is missing, say '#ff0000', in the mask, or
            without one in the photo.
        mask_tolerance: How far a channel may be from that colour, in levels of 255.
        rect: A rectangle that is missing: x,y,width,height in pixels. Repeatable.
        random_mask: A rectangle as in training is missing; it follows from this seed.
        invert_mask: Complete what is not marked, and keep what is.
        dilate: Widen what is missing by this many pixels.
        feather: Fade the completion into the photo over this many pixels around the hole.
        blend: `poisson` makes the seam invisible, as in the paper; `none` leaves it.
        resize_to: Pixels of the longer side at which holes far larger than the trained
            ones are completed, then enlarged; 0 keeps their size. By default the
            training's.
        concat: Write input, hole and result side by side.
        patch_only: Write only the completed pixels, on a transparent layer.
        format: Format of the results, say png; by default that of the input.
        quality: From 1 to 100, for lossy formats; a JPEG keeps its own by default.
        strict_size: Refuse a mask of another size than the photo, do not resize it.
        skip_existing: Leave out photos whose results exist already.
        max_pixels: Pixels of the largest photo that is decoded (by default 89 million).
    """
    from gl_jax.inpainting import batch

    holes = batch.Holes(
        mask=mask, source=mask_from, color=mask_color, tolerance=mask_tolerance,
        rectangles=rect, seed=random_mask, invert=invert_mask, dilate=dilate,
        strict_size=strict_size,
    )  # fmt: skip
    look = batch.Look(
        blend=blend, feather=feather, resize_to=resize_to, concat=concat,
        patch_only=patch_only, format=format, quality=quality,
    )  # fmt: skip
    batch.run(
        image, output, holes, look, model=model, experiment=experiment, skip_existing=skip_existing,
        max_pixels=max_pixels,
    )  # fmt: skip


def models() -> None:
    """List the models that are shipped, and say how to get others."""
    from gl_jax.inpainting import completer

    print(completer.describe_available())


def report(runs: Words, *, output: Path) -> None:
    """Put training runs side by side: curves, film strips, the ablation, one page.

    Args:
        runs: Folders of training runs, finished or not.
        output: Folder for report.html, which holds its pictures itself, and the pictures.
    """
    from gl_jax.evaluation import report as page

    page.report(runs, output)


VERBS: dict[str, Callable[..., None]] = {
    "train": train,
    "summary": summary,
    "compare": compare,
    "evaluate": evaluate,
    "report": report,
    "convert": convert,
    "export": export,
    "inspect": inspect_model,
    "complete": complete,
    "models": models,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb and returns its exit code; see the head of this file."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _run(words)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has left, as `head` does. Python would complain once
        # more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except UsageError as error:
        print(f"gl-jax: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("gl-jax: interrupted", file=sys.stderr)
        return 130
    except RuntimeError as error:
        # JAX and the standard library raise RuntimeErrors too; those are bugs here.
        if not type(error).__module__.startswith("gl_jax."):
            raise
        print(f"gl-jax: error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
    elif words[0] == "--version":
        print(f"gl-jax {__version__}")
    elif words[0] in VERBS:
        _call(words[0], words[1:])
    else:
        near = did_you_mean(words[0], VERBS)
        raise UsageError(f"unknown verb {words[0]!r}.{near} Known: {', '.join(VERBS)}.")


def _overview() -> str:
    lines = [f"  {verb:10}{_first_line(VERBS[verb])}" for verb in VERBS]
    return "\n".join(
        [
            "usage: gl-jax VERB ...",
            "",
            "Globally and locally consistent image completion (GLCIC) in JAX.",
            "",
            *lines,
            "",
            "`gl-jax VERB --help` explains a verb and all of its options;",
            "`gl-jax --version` prints the version.",
        ]
    )


def _first_line(function: Callable[..., None]) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0]


def _call(verb: str, words: list[str]) -> None:
    """Calls the verb's function with what the words say, or prints its help."""
    function, prog = VERBS[verb], f"gl-jax {verb}"
    parameters = inspect.signature(function).parameters
    own = [name for name, p in parameters.items() if p.annotation is not Experiment]
    flags = [_flag(name) for name in own]
    asks_help = "-h" in words or "--help" in words
    experiment = None
    if len(own) < len(parameters):
        reference, words = _take_experiment(prog, words, required=not asks_help)
        experiment = load_experiment(reference) if reference else Experiment(Config())
        prog = f"{prog} {reference or 'EXPERIMENT.py'}"
        flags += [_flag(name) for name in field_names(Config)]
    if asks_help:
        tyro.cli(_collector(function, experiment), prog=prog, args=["--help"])
    given: list[Experiment] = []
    if experiment is not None:
        changes, words = _take_changes(words)
        config = override(experiment.config, changes)
        given = [dataclasses.replace(experiment, config=config)]
    function(*given, **_parse(function, prog, words, flags))


def _take_experiment(
    prog: str, words: list[str], *, required: bool
) -> tuple[str | None, list[str]]:
    """The first word that names an experiment file, and the other words."""
    for index, word in enumerate(words):
        if word.endswith(".py") or ".py:" in word:
            return word, words[:index] + words[index + 1 :]
    if not required:
        return None, words
    given = "" if not words or words[0].startswith("-") else f", not {words[0]!r}"
    raise UsageError(
        f"{prog} needs an experiment file{given}; for example: "
        f"{prog} experiments/quickstart.py"
    )


def _take_changes(words: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Splits the words into changes of the configuration and the verb's own words.

    The fields of the configuration are the options with a dot in their name, and those
    few at the root of the tree.
    """
    changes: dict[str, list[str]] = {}
    own: list[str] = []
    target = own
    root = [name for name in field_names(Config) if "." not in name]
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            switched_off = re.sub(r"(^|\.)no-", r"\1", name)
            if "." not in name and name not in root:
                target = own
                target.append(word)
            elif switched_off != name and not equals:
                target = changes[switched_off] = ["false"]
            else:
                target = changes[name] = [value] if equals else []
        else:
            target.append(word)
    return changes, own


def _parse(
    function: Callable[..., None], prog: str, words: list[str], flags: list[str]
) -> Any:
    """The values of the function's own parameters, read from the words by tyro.

    Raises UsageError with the reason, in one line, where the words do not fit.
    """
    named = [
        _flag(word[2:].partition("=")[0]) for word in words if word.startswith("--")
    ]
    for name in named:
        if name.removeprefix("no-") not in flags:
            raise UsageError(f"unknown option --{name}.{suggest_option(name, flags)}")
    for name, parameter in inspect.signature(function).parameters.items():
        required = parameter.default is parameter.empty
        is_option = parameter.annotation not in (Experiment, Word, Words)
        if required and is_option and _flag(name) not in named:
            raise UsageError(f"{prog} needs --{_flag(name)}.")
    panel = io.StringIO()
    try:
        with contextlib.redirect_stderr(panel):
            return tyro.cli(_collector(function, None), prog=prog, args=words)
    except SystemExit:
        reason = _reason(panel.getvalue())
    if misfit := re.match(r"Error parsing --([\w-]+)", reason):
        hint = typing.get_type_hints(function)[misfit[1].replace("-", "_")]
        reason = f"--{misfit[1]} takes {describe(hint)}."
    raise UsageError(reason)


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _collector(
    function: Callable[..., None], experiment: Experiment | None
) -> Callable[..., dict[str, Any]]:
    """A function that looks like `function` to tyro and only returns its arguments.

    So tyro never calls the verb itself, whose errors it would take for its own. With an
    `experiment` the fields of its configuration are options too, their values defaults.
    """

    def collect(**values: Any) -> dict[str, Any]:
        return values

    signature = inspect.signature(function)
    parameters = [
        p.replace(annotation=ConfigOptions, default=experiment and experiment.config)
        if p.annotation is Experiment
        else p
        for p in signature.parameters.values()
        if p.annotation is not Experiment or experiment is not None
    ]
    # tyro keeps the line breaks inside an option's explanation; joined, it wraps them.
    collect.__doc__ = re.sub(r"\n {8,}", " ", inspect.getdoc(function) or "")
    hints = typing.get_type_hints(function, include_extras=True)
    collect.__annotations__ = {
        name: ConfigOptions if hint is Experiment else hint
        for name, hint in hints.items()
    }
    keywords = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    collect.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=keywords
    )
    return collect


def _reason(panel: str) -> str:
    """The sentence inside tyro's panel: a title, the reason, a rule, and more help.

    The panel may be coloured, and is drawn without its box where the terminal has no
    characters for one; a rule then follows the title.
    """

    def is_rule(line: str) -> bool:
        return not line.strip("─-")

    plain = re.sub(r"\x1b\[[0-9;]*m", "", panel)
    lines = [line.strip("│╭╮╰╯ ") for line in plain.splitlines()[1:]]
    body = itertools.dropwhile(is_rule, lines)
    return " ".join(itertools.takewhile(lambda line: not is_rule(line), body))
