"""Completes photographs: load a model once, then any photo with any hole.

    completer = gl_jax.load("runs/quickstart")
    completed = completer("photo.jpg", "mask.png")

Only windows around the holes go through the network, and the result is that of the
whole image (`regions`). Sizes of windows are multiples of 64 pixels, so photos of many
sizes share few compiled programs. JAX is loaded with the model, not with this package.
"""

import functools
import os
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy import ndimage

from gl_jax import compilation, images
from gl_jax.config import UsageError, did_you_mean, is_bucket
from gl_jax.experiment import Experiment, load_experiment
from gl_jax.images import Photo
from gl_jax.inpainting import filling, inputs, masks, regions
from gl_jax.inpainting.filling import Blend
from gl_jax.inpainting.inputs import ImageLike, Notify
from gl_jax.models import inference
from gl_jax.weights import architectures, native
from gl_jax.weights.convention import Convention
from gl_jax.weights.native import Model

Progress = Callable[[int, int], None]
Mask = Bool[np.ndarray, "h w"]

DEFAULT_MODEL = "demo"
HOW_TO_GET = (
    "Train one with `gl-jax train experiments/quickstart.py --workdir runs/first` and "
    "give it as --model runs/first (in Python gl_jax.load('runs/first')), or make one of "
    "other people's weights with `gl-jax convert`."
)
_started = _forked = False
"""Whether JAX runs for a Completer, and whether this process is a fork of one where it
did. Its threads are not forked, so there its first program would wait for ever."""


def _remember_fork() -> None:
    global _forked
    _forked = _started


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_remember_fork)


def _require_no_fork() -> None:
    if _forked:
        raise UsageError(
            "this process is a fork of one with a loaded model, where JAX hangs; start "
            "processes with multiprocessing.get_context('spawn'), and load the model in "
            "each."
        )


FAR_LARGER = 2
"""Times the largest trained hole from which on a hole is completed coarsely first."""


class Sizes(NamedTuple):
    """What a model was trained on, in pixels; the paper's where it does not say."""

    image: int = 256
    hole: int = 128


def load(
    source: str | Path | None = None, *, experiment: str | Path | None = None
) -> "Completer":
    """A Completer with the model in a file, in a training run's folder, or of a name.

    `source` is a weights file of ours (.safetensors) or of another project as `gl-jax
    convert` reads them, the folder of a training run or the bucket of its checkpoints
    (the newest one, the moving average if there is one), or the name of a shipped model;
    by default that is `demo`. A network that is none of gl_jax's own is built by the
    `experiment` file that it was trained with.

    Raises UsageError with the way to a model where there is none.
    """
    return Completer(load_model(source, experiment))


def load_model(
    source: str | Path | None = None, experiment: str | Path | None = None
) -> Model:
    """The model that `load` makes a Completer of."""
    _require_no_fork()
    own = load_experiment(str(experiment)) if experiment is not None else None
    return _load_model(source, own)


def _load_model(source: str | Path | None, own: Experiment | None) -> Model:
    shipped = native.shipped()
    if source is None and DEFAULT_MODEL not in shipped:
        raise UsageError(
            f"no model is given, and this version ships none. {HOW_TO_GET}"
        )
    name = DEFAULT_MODEL if source is None else str(source)
    path = Path(name)
    if is_bucket(name) or path.is_dir():
        from gl_jax.weights import export

        if is_bucket(name) or export.is_run(path) or not any(path.iterdir()):
            return export.from_run(name, experiment=own)
    if path.suffix == ".safetensors" and path.is_file():
        return native.load(path, own)
    if path.exists():
        from gl_jax.weights import conversion

        return conversion.convert(path)
    if name in shipped:
        return native.load(shipped[name])
    near = did_you_mean(name, shipped)
    known = f" Shipped: {', '.join(shipped)}." if shipped else ""
    raise UsageError(
        f"model {name!r} is no file, no folder of a training run and no shipped model."
        f"{near}{known}"
    )


def describe_available() -> str:
    """The shipped models and what is known of them, as text."""
    shipped = native.shipped()
    if not shipped:
        return f"This version ships no model. {HOW_TO_GET}"
    about = [
        f"{name}  ({path.stat().st_size / 1e6:.1f} MB)\n"
        + textwrap.indent(native.describe(native.load(path)), "  ")
        for name, path in shipped.items()
    ]
    return "\n\n".join([*about, HOW_TO_GET.replace("one", "another", 1)])


def complete(image: ImageLike, mask: ImageLike, **options: Any) -> Any:
    """The completed image, by the shipped model; see `Completer.__call__`."""
    return _default()(image, mask, **options)


@functools.cache
def _default() -> "Completer":
    return load()


class Completer:
    """A model, ready: `completer(image, mask)` is the completed image."""

    default_blend: Blend = "poisson"

    def __init__(self, model: Model) -> None:
        """Puts the model onto the device; programs are compiled when first needed."""
        global _started
        _require_no_fork()
        method = architectures.METHODS.get(type(model.architecture))
        if method is not None:
            raise UsageError(
                f"{model.name or 'the model'} is a {model.architecture.module}, which "
                f"completes by a method of its own: give it as --method {method}=FILE."
            )
        _started = True
        network = model.network(compilation.ops())
        self.model = model
        self.trained = trained_sizes(model)
        self._network, variables = inference.fold(network, model.variables)
        self._variables = jax.device_put(variables)

    def __call__(
        self,
        image: ImageLike,
        mask: ImageLike,
        *,
        blend: Blend = "poisson",
        feather: int = 0,
        resize_to: int | None = None,
        strict_size: bool = False,
    ) -> Any:
        """The completed image: an array for an array, else a Pillow image.

        `image` and `mask` are paths, Pillow images or arrays: [h, w, 3] in RGB order, also
        with alpha or grey, uint8 or floats in [0, 1] (the result is float32 then). White
        in the mask is missing; an array may also be of bool or of 0 and 1. Outside the
        hole not a bit changes. A mask of another size is resized with a warning, or
        refused if `strict_size` or if it lies on its side; one that is likely to mean
        something else is warned of, or refused. The other options are those of
        `complete_photo`.

        Raises UsageError, one line, for whatever the caller can mend.
        """
        photo = inputs.photo_of(image)
        for notice in photo.notices:
            inputs.warn(notice)
        hole = inputs.hole_of(mask, photo, strict=strict_size)
        if doubt := masks.doubt(hole, "the mask"):
            inputs.warn(doubt)
        done = self.complete_photo(
            photo,
            hole,
            blend=blend,
            feather=feather,
            resize_to=resize_to,
        )
        return inputs.like(image, done)

    def batch(
        self,
        images: Iterable[ImageLike],
        masks: ImageLike | Iterable[ImageLike],
        **options: Any,
    ) -> list[Any]:
        """The completed images in order, with one mask for all or a list of one for each.

        Options and results are those of a single call.
        """
        listed = list(images)
        each: list[Any]
        if inputs.is_one(masks):
            each = [masks] * len(listed)
        else:
            each = list(cast(Iterable[ImageLike], masks))
        if len(each) != len(listed):
            raise UsageError(
                f"there are {len(listed)} images and {len(each)} masks; give as many "
                "masks as images, or one for all."
            )
        return [
            self(image, mask, **options)
            for image, mask in zip(listed, each, strict=True)
        ]

    def raw(
        self, image: ImageLike, mask: ImageLike, *, strict_size: bool = False
    ) -> Float[np.ndarray, "h w 3"]:
        """Returns the network's own output over the whole image: float32 RGB in [0, 1].

        It is neither composited nor blended, and RGB in [0, 1] for every model. Images
        and masks are those of a call.
        """
        photo = inputs.photo_of(image)
        hole = inputs.hole_of(mask, photo, strict=strict_size)
        return self._outputs(
            photo.unit, hole | inputs.transparent(photo), regions.whole(*photo.size)
        )

    def complete_photo(
        self,
        photo: Photo,
        hole: Mask,
        *,
        blend: Blend = "poisson",
        feather: int = 0,
        resize_to: int | None = None,
        opaque: bool = False,
        notify: Notify | None = None,
        progress: Progress | None = None,
    ) -> Photo:
        """The photo with its hole, bool [h, w], completed.

        `blend` is the paper's post-processing (poisson), or none. `feather` pixels
        around the hole the completion fades into the photo. A hole far larger than
        those of the training is completed in a copy whose longer side is `resize_to`
        pixels (by default the size of the training's images) and enlarged; 0 completes
        it at its own size. Where the photo is wholly transparent it has no colours to go
        on from, and outside the hole it stays so. With `opaque`, what is completed is no
        longer transparent.
        `notify` gets a line for what a user should know, by default a Python warning;
        `progress` the numbers of windows that are done and of all, after each.

        An empty hole is the photo unchanged. Raises UsageError where nothing but hole is
        left, and MemoryError if the device has too little memory.
        """
        notify = inputs.warn if notify is None else notify
        if resize_to is not None and resize_to != 0 and resize_to < 16:
            raise UsageError(f"resize_to (={resize_to}) must be 0 or at least 16.")

        def complete(unknown: Mask, region: Mask) -> Float[np.ndarray, "h w 3"]:
            return self._completed(photo, unknown, region, resize_to, notify, progress)

        return filling.fill_hole(
            photo, hole, complete, blend=blend, feather=feather, opaque=opaque,
            notify=notify,
        )  # fmt: skip

    def _completed(
        self,
        photo: Photo,
        hole: Mask,
        region: Mask,
        resize_to: int | None,
        notify: Notify,
        progress: Progress | None,
    ) -> Float[np.ndarray, "h w 3"]:
        """The network's colours where `region` is true; elsewhere anything.

        `hole` is all that is not known.
        """
        coarse, plain = [], region
        if resize_to != 0:
            size = resize_to or self.trained.image
            coarse = _far_larger(region, FAR_LARGER * self.trained.hole, size)
        if coarse:
            plain = region.copy()
            for large in coarse:
                plain[large.box] &= ~large.part
        windows = regions.windows(plain)
        completed = self._outputs(photo.unit, hole, windows, progress)
        for large in coarse:
            enlarged = self._coarse(photo, hole, large)
            completed[large.box][large.part] = enlarged[large.part]
            notify(
                f"{photo.name}: a hole of {large.hole} pixels, far larger than the "
                f"trained ones (up to {self.trained.hole}): completed in a copy of "
                f"{large.width}x{large.height} and enlarged; --resize-to 0 does not."
            )
        return completed

    def _coarse(
        self, photo: Photo, hole: Mask, large: "_Large"
    ) -> Float[np.ndarray, "y x 3"]:
        """The surroundings of a large hole, completed at a smaller size and enlarged."""
        colors, known = photo.unit(large.box), ~hole[large.box]
        share = np.repeat(known[..., None].astype(np.float32), 3, axis=2)
        shares = images.resized(share, large.height, large.width)
        # The mean of the known pixels alone: what was in the hole must not shine through.
        means = images.resized(colors * share, large.height, large.width)
        small = means / np.maximum(shares, 1e-6)
        missing = shares[..., 0] < 0.5
        completed = self._outputs(
            lambda box: small[box], missing, regions.windows(missing)
        )
        completed = np.where(missing[..., None], completed, small)
        return images.resized(completed, *known.shape)

    def _outputs(
        self,
        colors: Callable[[images.Box], Float[np.ndarray, "y x 3"]],
        hole: Mask,
        windows: list[regions.Window],
        progress: Progress | None = None,
    ) -> Float[np.ndarray, "h w 3"]:
        """The network's output inside the windows; elsewhere 0."""
        _require_no_fork()
        height, width = hole.shape
        in_part = inference.takes_size(self._network)
        if windows and not in_part:
            windows = regions.at_once(height, width)
        output = np.zeros((height, width, 3), np.float32)
        for number, window in enumerate(windows, 1):
            box = (
                slice(window.top, min(window.top + window.height, height)),
                slice(window.left, min(window.left + window.width, width)),
            )
            image, mask = colors(box), hole[box]
            size = [window.height, window.width]
            if in_part:
                size = [regions.padded(side) for side in mask.shape]
            below = [
                (0, side - old) for side, old in zip(size, mask.shape, strict=True)
            ]
            beyond = [
                (0, side - used)
                for side, used in zip((window.height, window.width), size, strict=True)
            ]
            image = np.pad(
                np.pad(image, (*below, (0, 0)), mode="edge"), (*beyond, (0, 0))
            )
            mask = np.pad(np.pad(mask, below), beyond)
            result = self._compute(image, mask, size)
            rows, columns = window.inner
            inner = (
                slice(rows.start - window.top, rows.stop - window.top),
                slice(columns.start - window.left, columns.stop - window.left),
            )
            output[window.inner] = result[inner]
            if progress is not None:
                progress(number, len(windows))
        return output

    def _compute(
        self,
        image: Float[np.ndarray, "y x 3"],
        mask: Bool[np.ndarray, "y x"],
        size: list[int],
    ) -> Float[np.ndarray, "y x 3"]:
        """The network's output for one window; MemoryError if it is too large."""
        try:
            result = _program()(
                self._network,
                self.model.convention,
                self._variables,
                image[None],
                mask[None, ..., None],
                np.array(size, np.int32),
            )
            return np.asarray(result)[0]
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise MemoryError(
                f"the device has too little memory for {image.shape[1]}x"
                f"{image.shape[0]} pixels at once"
            ) from error


@functools.cache
def _program() -> Any:
    """`_run`, compiled for where it runs; that is asked when there is a photograph."""
    return compilation.jit(_run, static=(0, 1))


def _run(
    network: nn.Module,
    convention: Convention,
    variables: Any,
    images: Float[Array, "b h w 3"],
    mask: Bool[Array, "b h w 1"],
    size: Int[Array, " 2"],
) -> Float[Array, "b h w 3"]:
    inputs = convention.encode(images, mask.astype(images.dtype))
    completed = inference.complete(network, variables, inputs, size)
    return jnp.asarray(convention.decode(completed))


class _Large(NamedTuple):
    """A hole to complete coarsely, with as much of the photo around it."""

    box: images.Box
    part: Mask
    """Of the box: the hole."""
    height: int
    """Of the smaller copy."""
    width: int
    hole: str


def _far_larger(region: Mask, limit: int, resize_to: int) -> list[_Large]:
    """The holes in which a square of more than `limit` pixels has room."""
    found = []
    labels, _ = ndimage.label(region)
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        tall, wide = rows.stop - rows.start, columns.stop - columns.start
        if min(tall, wide) <= limit:
            continue
        # Past the edge of the image nothing is known, so it is no border of the hole.
        around = (_wider(rows, 1), _wider(columns, 1))
        depth = ndimage.distance_transform_cdt(labels[around] == number)
        if 2 * int(depth.max()) <= limit:
            continue
        # Half a hole's side on each side, so that it fills a quarter, as in training.
        margin = max(tall, wide) // 2
        height, width = region.shape
        box = (_wider(rows, margin, height), _wider(columns, margin, width))
        sides = [side.stop - side.start for side in box]
        scale = resize_to / max(sides)
        if scale < 1:
            height, width = (max(1, round(side * scale)) for side in sides)
            inside = labels[box] == number
            found.append(_Large(box, inside, height, width, f"{wide}x{tall}"))
    return found


def _wider(span: slice, margin: int, limit: int | None = None) -> slice:
    stop = span.stop + margin
    return slice(
        max(0, span.start - margin), stop if limit is None else min(stop, limit)
    )


def trained_sizes(model: Model) -> Sizes:
    """The sizes that the model was trained on, as far as its file says."""
    default, told = Sizes(), model.training
    image = told.get("image size", default.image)
    *_, hole = str(told.get("holes", default.hole)).split()
    usable = isinstance(image, int) and image >= 16 and hole.isdigit() and int(hole) > 0
    return Sizes(image, int(hole)) if usable else default
