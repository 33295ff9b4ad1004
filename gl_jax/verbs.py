"""The verbs of the command line, one function each.

A new verb is a function entered in `VERBS`; its signature and docstring become its
options and their help (`options`). With a parameter of type Experiment it takes an
experiment file and, as options, every field of the configuration tree. Nothing heavy is
imported before a verb runs.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gl_jax.config import UsageError
from gl_jax.evaluation import Protocol
from gl_jax.experiment import Experiment, load_experiment
from gl_jax.study import Kind

if TYPE_CHECKING:
    from gl_jax.evaluation.photographs import Selection
    from gl_jax.evaluation.results import Evaluation


def train(
    experiment: Experiment,
    /,
    *,
    workdir: Path,
    coordinator: str | None = None,
    process_count: int | None = None,
    process_id: int | None = None,
    distributed: bool = False,
    heartbeat: int = 100,
) -> None:
    """Train the networks, or resume from the workdir's newest checkpoint.

    Args:
        workdir: Folder of the run: config.json, metrics.jsonl, samples/, curves.png,
            checkpoints/ and TensorBoard events. Repeat the command to resume.
        coordinator: Several hosts: address of the first host, HOST:PORT.
        process_count: Several hosts: number of hosts.
        process_id: Several hosts: index of this host, from 0.
        distributed: Several hosts: read addresses from the environment (TPU pod, Slurm).
        heartbeat: Several hosts: seconds of silence after which a host counts as dead
            and the others exit.
    """
    _join(coordinator, process_count, process_id, distributed, heartbeat)
    from gl_jax.training import loop

    loop.run(experiment.config, workdir, experiment=experiment)


def summary(experiment: Experiment, /) -> None:
    """Print the layers of an experiment's networks: shapes and parameter counts."""
    from gl_jax.training.summary import summarize

    print(summarize(experiment.config, experiment))


def plan(
    experiment: Experiment,
    /,
    *,
    topology: str,
    largest_batch: bool = False,
    json: bool = False,
) -> None:
    """Estimate memory and least hours of a run on TPUs or GPUs that are not at hand.

    Args:
        topology: The chips. TPUs: v4, v5e, v5p or v6e with a shape (v5e:4x4, v4:2x4x4),
            planned with the TPU's own compiler (pip install '.[tpu]'; no TPU needed;
            minutes per phase). GPUs: gpu:h100x8, planned by arithmetic alone.
        largest_batch: Also search for the largest batch that fits; compiles several
            times.
        json: Print JSON instead of a table: bytes, FLOP, seconds.
    """
    from gl_jax.planning import plan as planning

    planning.run(experiment, topology, largest_batch=largest_batch, as_json=json)


def compare(
    *,
    output: Path,
    model: str | None = None,
    experiment: Path | None = None,
    data: str = "bundled",
    masks: str | None = None,
    methods: tuple[str, ...] = ("gl", "mean", "telea"),
    metrics: tuple[str, ...] | None = None,
    protocol: Literal["own", "yeh"] = "own",
    count: int = 8,
    image_size: int | None = None,
    seed: int = 0,
    split: str = "validation",
    data_dir: str | None = None,
) -> None:
    """Complete the same holes with several methods, side by side, and measure them.

    Args:
        output: Folder for comparison.md, .csv, .json and .png. Repeat the command to
            continue after an interruption; with more methods, only the new ones run.
        model: Model of the method `gl`: a training run's folder, a weights file, or the
            name of a shipped model; by default the shipped one.
        experiment: The model's experiment file, if its network is not one of gl_jax's.
        data: Photographs: `bundled`, a folder, or `tfds:NAME`.
        masks: `box` (default): one rectangle as in the paper's training. `center`: a
            square in the middle. `freeform`: brush strokes. `half`: half of the image.
            `pattern`: blobs. `random`: single pixels, 80 % or as in `random:0.25`.
            `lama-thin`, `lama-medium`, `lama-thick`, `mat-small`, `mat-large`: at 256 or
            512 pixels. Or a folder with one mask per photograph, of the same name, white
            = missing.
        methods: Names, separated by spaces or commas. `gl`: the network of `model`.
            `context_encoder=FILE`, `semantic=FILE`: other networks. A path: a further
            model. A wrong name prints all names.
        metrics: Names, separated by spaces or commas; by default all that need no
            weights: l1, psnr, ssim, ms_ssim, vif, sharpness, texture.
        protocol: `yeh` prints PSNR at 64 pixels under four kinds of masks beside the
            published table of semantic inpainting.
        count: Number of photographs, spread evenly over the set.
        image_size: Side in pixels of the square photographs; by default that of the
            model's training, or 256 without a model.
        seed: Seed of the holes: the same seed gives the same holes.
        split: Split of a bundled or TFDS source; all of a folder is used.
        data_dir: Folder or bucket (gs://...) of the data that TFDS has prepared.
    """
    from gl_jax.evaluation import compare as comparison
    from gl_jax.evaluation import yeh
    from gl_jax.evaluation.photographs import Selection
    from gl_jax.evaluation.results import Comparison

    selection = Selection(
        data, masks or "box", protocol, (seed,), count, image_size, split, data_dir
    )

    def measure(selection: Selection, output: Path) -> Comparison:
        return comparison.run(
            model, selection, _names(methods), output, experiment=experiment,
            metrics=None if metrics is None else _names(metrics),
        )  # fmt: skip

    if protocol == "yeh" and masks is None:
        yeh.run(measure, selection, output)
    else:
        measure(selection, output)


def evaluate(
    *,
    output: Path | None = None,
    method: str = "gl",
    model: str | None = None,
    follow: Path | None = None,
    experiment: Path | None = None,
    data: str = "bundled",
    masks: str | None = None,
    protocol: Protocol = "own",
    metrics: tuple[str, ...] | None = None,
    seeds: tuple[int, ...] | None = None,
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
    """Measure a model on fixed holes: every metric, for each photograph.

    Args:
        output: Folder for evaluation.md, .json and .png, per_image.csv, and masks.jsonl
            (the holes). Repeat the command to continue after an interruption.
        method: `gl`, the network of `model`, or another method as in `compare`.
        model: A training run's folder, a weights file, or a shipped model's name.
        follow: A training run's folder, instead of `model` and `output`: measure each
            new checkpoint until the run ends, into evaluations/ and evaluations.jsonl
            in that folder.
        experiment: The model's experiment file, if its network is not one of gl_jax's.
        data: Photographs: `bundled`, a folder, or `tfds:NAME`.
        masks: A kind as in `compare`, by default the protocol's or `box`; a folder with
            one mask per photograph, of the same name, white = missing; or the masks.jsonl
            of another evaluation.
        protocol: Sizes, masks and metrics of published tables: `mmediting`, `lama`, `mat`,
            or `yeh`, PSNR under four kinds of masks beside the published values.
        metrics: Names, separated by spaces or commas; by default the protocol's, or all
            whose weights are given: l1, psnr, ssim, ms_ssim, vif, sharpness, texture;
            lpips; fid, kid, precision, ids (P-IDS, U-IDS).
        seeds: Comma-separated seeds of the random holes; by default 0,1,2.
        count: Number of photographs, spread evenly over the set; by default all.
        image_size: Side in pixels of the square photographs; by default the training's.
        fid_weights: Inception's weights for FID, KID, precision, recall, P-IDS and U-IDS:
            pytorch-fid's .pth, or the same as safetensors.
        lpips_weights: Comma-separated files of LPIPS: the trunk (torchvision's AlexNet or
            VGG-16) and its heads.
        split: Split of a bundled or TFDS source; all of a folder is used.
        data_dir: Folder or bucket (gs://...) of the data that TFDS has prepared.
        batch_size: Photographs per device at a time.
        coordinator: Several hosts: address of the first host, HOST:PORT.
        process_count: Several hosts: number of hosts.
        process_id: Several hosts: index of this host, from 0.
        distributed: Several hosts: read addresses from the environment (TPU pod, Slurm).
    """
    other = model is not None or method != "gl"
    if (output is None) == (follow is None) or (follow and other):
        raise UsageError(
            "gl-jax evaluate needs --output, or --follow alone, without a model or method."
        )
    _join(coordinator, process_count, process_id, distributed)
    from gl_jax.evaluation.photographs import Selection
    from gl_jax.evaluation.protocol import default_masks

    files = tuple(Path(name) for name in (lpips_weights or "").split(",") if name)
    selection = Selection(
        data, masks or default_masks(protocol), protocol, seeds, count, image_size,
        split, data_dir,
    )  # fmt: skip
    options: dict[str, Any] = {
        "experiment": experiment, "method": method,
        "metrics": None if metrics is None else _names(metrics),
        "fid_weights": fid_weights, "lpips_weights": files, "batch_size": batch_size,
    }  # fmt: skip
    by_yeh = protocol == "yeh" and masks is None
    _evaluate(selection, output, model, follow, by_yeh, options)


def _evaluate(
    selection: "Selection",
    output: Path | None,
    model: str | None,
    follow: Path | None,
    by_yeh: bool,
    options: dict[str, Any],
) -> None:
    from gl_jax.evaluation import evaluate as evaluation
    from gl_jax.evaluation import follow as following
    from gl_jax.evaluation import yeh

    def measure(selection: "Selection", output: Path) -> "Evaluation":
        return evaluation.run(model, selection, output, **options)

    if output is None:
        assert follow is not None
        following.run(follow, selection, **options)
    elif by_yeh:
        yeh.run(measure, selection, output)
    else:
        measure(selection, output)


def _names(words: tuple[str, ...]) -> tuple[str, ...]:
    """Returns names that are separated by spaces or commas."""
    return tuple(name for word in words for name in word.split(",") if name)


def convert(
    source: Path,
    target: Path,
    /,
    *,
    config: Path | None = None,
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
) -> None:
    """Convert weights of the authors, mmediting or GLCIC-PyTorch to gl_jax's format.

    Args:
        source: A .t7 or .pth file, recognised by its content, or a folder of files that
            belong together (model_cn, model_cd and config.json of GLCIC-PyTorch).
        target: The file to write, such as places2.safetensors.
        config: JSON with the mean colour as `mpv`, RGB in [0, 1], for weights that do not
            contain it; by default config.json beside the weights.
        dtype: Type of the kernels; float16 and bfloat16 halve the file.
    """
    from gl_jax.weights import conversion, description, native

    _require_other(source, target)
    native.save(conversion.convert(source, config), target, dtype)
    print(description.describe(native.load(target)))


def export(
    *,
    output: Path,
    workdir: str | None = None,
    model: str | None = None,
    step: int | None = None,
    experiment: Path | None = None,
    format: Literal["safetensors", "stablehlo", "onnx"] = "safetensors",
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    discriminators: bool = False,
    toward: str | None = None,
    share: float | None = None,
    licence: str | None = None,
    size: tuple[int, int] = (256, 256),
) -> None:
    """Write the completion network of a run or of another model to one file.

    Args:
        output: The file to write.
        workdir: Folder of a run, or bucket of its checkpoints (gs://...). The moving
            average is exported if the run kept one.
        model: Another model instead: a weights file, or the name of a shipped model.
        step: Step of a checkpoint that the run has kept; by default the newest that is
            complete.
        experiment: The model's experiment file, if its network is not one of gl_jax's.
        format: `safetensors`: weights that gl-jax loads. `stablehlo`: a program for any
            size on CPU, CUDA and TPU (jax.export). `onnx`: a program for one size.
        dtype: Type of the kernels in a safetensors file; float16 and bfloat16 halve it.
        discriminators: Include the discriminators in a safetensors file.
        toward: A second model, from or to which the first one was trained: a weights
            file, or a shipped model's name. The export lies between them.
        share: Share of the second model in the export, from 0 to 1.
        licence: Licence that the file states; by default the model's.
        size: Height and width in pixels of an ONNX program; multiples of 4.
    """
    from gl_jax.inpainting import loading
    from gl_jax.weights import description, native
    from gl_jax.weights import export as exports

    if (workdir is None) == (model is None):
        raise UsageError("gl-jax export needs either --workdir or --model.")
    if (toward is None) != (share is None):
        raise UsageError("--toward and --share need each other.")
    if workdir is not None:
        loaded = load_experiment(str(experiment)) if experiment else None
        network = exports.from_run(
            workdir, step=step, discriminators=discriminators, experiment=loaded
        )
    elif step is not None:
        raise UsageError("--step selects a checkpoint of a run: use it with --workdir.")
    else:
        _require_other(Path(model or ""), output)
        network = loading.load_model(model, experiment)
        network = exports.select(network, discriminators=discriminators)
    if toward is not None and share is not None:
        _require_other(Path(toward), output)
        other = loading.load_model(toward, experiment)
        network = exports.interpolate(network, other, share)
    network = dataclasses.replace(network, licence=licence or network.licence)
    if format == "stablehlo":
        exports.to_stablehlo(network, output)
    elif format == "onnx":
        exports.to_onnx(network, output, *size)
    else:
        native.save(network, output, dtype)
    print(f"{output}\n{description.describe(network)}")


def inspect_model(model: Path, /, *, config: Path | None = None) -> None:
    """Print the progress of a training run, or the contents of a weights file.

    Args:
        model: Folder of a run; a .safetensors, .t7 or .pth file; or a folder as for
            `convert`.
        config: JSON with the mean colour, as for `convert`.
    """
    from gl_jax.weights import conversion, export

    if export.is_run(model):
        from gl_jax.training import standing

        print(standing.describe(model))
    else:
        print(conversion.describe(model, config))


def complete(
    *,
    image: Path,
    output: str,
    mask: Path | None = None,
    method: str = "gl",
    model: str | None = None,
    experiment: Path | None = None,
    mask_from: Literal["white", "alpha"] = "white",
    mask_color: str | None = None,
    mask_tolerance: int = 0,
    rect: tuple[str, ...] = (),
    random_mask: int | None = None,
    invert_mask: bool = False,
    dilate: int = 0,
    feather: int = 0,
    blend: Literal["auto", "poisson", "none"] = "auto",
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
        image: A photo, or a folder of photos, read with its sub-folders.
        output: The file to write, or the folder for the results (without a suffix, or
            with a slash at its end).
        mask: White = missing. One file for all photos, or a folder with one mask per
            photo, of the same name or NAME_mask*.png.
        method: `gl`: the network of `model`. `patchmatch`, `shift_map`, `criminisi`: copy
            patches of the photo. `telea`, `ns`, `biharmonic`, `mean`: extend the colours
            around the hole. `context_encoder=FILE`, `semantic=FILE`: other networks,
            trained by their experiments.
        model: A weights file, a training run's folder, or the name of a shipped model
            (`gl-jax models`); by default the shipped one.
        experiment: The model's experiment file, if its network is not one of gl_jax's.
        mask_from: `alpha`: transparent = missing, in the mask or else in the photo.
        mask_color: Colour of the missing pixels, such as '#ff0000', in the mask or else in
            the photo.
        mask_tolerance: Largest difference from that colour in any channel, in levels of
            255.
        rect: A missing rectangle, x,y,width,height in pixels. Repeatable.
        random_mask: Seed of a missing rectangle, drawn as in training.
        invert_mask: Complete the unmarked pixels and keep the marked ones.
        dilate: Pixels by which the hole is widened.
        feather: Pixels around the hole over which the completion fades into the photo.
        blend: `poisson` hides the seam, as in the paper; `none` leaves it; `auto` is
            poisson, or none for methods that leave no seam.
        resize_to: Holes far larger than the trained ones are completed in a copy of the
            photo with this longer side in pixels, and enlarged. By default the size of
            the training; 0 completes them at full size.
        concat: Write input, hole and result side by side.
        patch_only: Write only the completed pixels, on a transparent layer.
        format: Format of the results, such as png; by default that of their names.
        quality: From 1 to 100, for lossy formats; by default a JPEG keeps its own.
        strict_size: Refuse a mask whose size is not the photo's, instead of resizing it.
        skip_existing: Skip photos whose results exist.
        max_pixels: Largest photo that is decoded, in pixels (by default 89 million).
    """
    from gl_jax.inpainting import batch

    filler = _filler(method, model, experiment, resize_to)
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
        image, output, holes, look, model=model, experiment=experiment, method=filler,
        skip_existing=skip_existing, max_pixels=max_pixels,
    )  # fmt: skip


def _filler(method: str, *network_options: Any) -> Callable[[], Any] | None:
    """Returns a loader of the method; None for `gl`, which alone takes the options."""
    if method == "gl":
        return None
    from gl_jax.evaluation import methods

    methods.parse(method)
    if any(option is not None for option in network_options):
        raise UsageError(
            "--model, --experiment and --resize-to apply to the method gl only, not to "
            f"{method}; leave them out."
        )

    def filler() -> Any:
        from gl_jax.inpainting.filling import Filler

        loaded = methods.load(method)
        blend: Any = "none" if loaded.seamless else "poisson"
        return Filler(loaded.name, loaded.fill, blend)

    return filler


def serve(
    photos: tuple[Path, ...] = (),
    /,
    *,
    model: str | None = None,
    methods: tuple[str, ...] = (),
    host: str = "127.0.0.1",
    port: int = 8439,
    output: Path | None = None,
    browser: bool = True,
    max_pixels: int | None = None,
) -> None:
    """Open a page in the browser to paint over objects and remove them.

    Args:
        photos: Photos to open, or folders of them; the page can open more.
        model: A weights file, a training run's folder, or the name of a shipped model;
            by default the shipped one.
        methods: Other methods on the page, separated by commas: paths and names of further
            models, and names of classical methods; by default the other shipped models
            and all classical methods.
        host: Address to listen on. By default only this machine can open the page; with
            0.0.0.0 every machine in its networks that has the token can.
        port: Port to listen on; 0 takes any free port.
        output: Folder into which the page can save results; files that were there before
            are never replaced.
        browser: Open the page in a browser.
        max_pixels: Largest photo that is decoded, in pixels (by default 89 million).
    """
    try:
        from gl_jax.serve import server
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise UsageError(
            f"gl-jax serve needs the package {error.name}, which is not installed: "
            "pip install 'gl-jax[serve]'"
        ) from error
    server.run(
        photos, model=model, methods=methods, host=host, port=port, output=output,
        browser=browser, max_pixels=max_pixels,
    )  # fmt: skip


def models() -> None:
    """List the shipped models, and say how to get others."""
    from gl_jax.inpainting import loading

    print(loading.describe_available())


def report(*runs: Path, output: Path) -> None:
    """Compare training runs on one page: curves, film strips, the ablation.

    Args:
        runs: Folders of training runs, finished or not.
        output: Folder for report.html, which contains its pictures, and for the pictures
            as files.
    """
    from gl_jax.evaluation import report as page

    page.report(runs, output)


def study(
    results: tuple[Path, ...] = (),
    /,
    *,
    truth: Path | None = None,
    output: Path = Path("study"),
    kind: Kind = "single",
    participants: int = 40,
    checks: int = 4,
    seconds: float | None = None,
    seed: int = 0,
    resize_to: int | None = None,
    evaluate: Path | None = None,
    may_fail: int = 0,
) -> None:
    """Make a page that asks people which pictures are real; evaluate the answers.

    Args:
        results: Folders of completed pictures, as written by `complete`, or by `compare`
            in pictures/METHOD. Each folder is a method and gives it its name.
        truth: Folder of the photographs, under the same names; truth/ of `compare`.
        output: Folder of the study. Hand out its page/, which works offline from disk;
            keep key.json, which tells the real pictures from the completed ones.
        kind: `single`: one picture, real or completed? Half are real, as in the paper.
            `pair`: two pictures, which is the photograph?
        participants: Number of orders to prepare, one per participant; rounded up so that
            each method and each photograph appears equally often.
        checks: Attention checks per participant, with known answers.
        seconds: Seconds for which each picture is shown; by default without limit.
        seed: Seed of the orders: the same seed gives the same page.
        resize_to: Largest longer side in pixels; larger pictures are reduced.
        evaluate: Folder of the returned answers. Writes into `output` the shares judged
            real for each method and photograph, with intervals, the agreement between
            people, and a figure with the paper's own shares.
        may_fail: Attention checks that a participant may fail and still be counted.
    """
    if evaluate is not None:
        if results or truth is not None:
            raise UsageError(
                "--evaluate reads the study in --output; leave out RESULTS and --truth."
            )
        from gl_jax.study import evaluation

        evaluation.evaluate(evaluate, output, may_fail=may_fail)
        return
    if truth is None:
        raise UsageError(
            "gl-jax study needs RESULTS... and --truth PHOTOS, or --evaluate ANSWERS."
        )
    from gl_jax.study import make

    make.make(
        results, truth, output, kind, participants=participants, checks=checks,
        seconds=seconds, seed=seed, resize_to=resize_to,
    )  # fmt: skip


def _require_other(source: Path, target: Path) -> None:
    if source.exists() and source.resolve() == target.resolve():
        raise UsageError(f"{target} would overwrite its source; name another file.")


def _join(
    coordinator: str | None,
    process_count: int | None,
    process_id: int | None,
    distributed: bool,
    heartbeat: int = 100,
) -> None:
    """Joins this process to the other hosts, if there are any."""
    if distributed or (coordinator, process_count, process_id) != (None, None, None):
        from gl_jax import parallel

        parallel.initialize(coordinator, process_count, process_id, heartbeat=heartbeat)


VERBS: dict[str, Callable[..., None]] = {
    "train": train,
    "summary": summary,
    "plan": plan,
    "compare": compare,
    "evaluate": evaluate,
    "report": report,
    "study": study,
    "convert": convert,
    "export": export,
    "inspect": inspect_model,
    "complete": complete,
    "serve": serve,
    "models": models,
}
