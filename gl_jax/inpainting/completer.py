"""Completes photographs: load a model once, then any photo with any hole.

    completer = gl_jax.load("runs/quickstart")
    completed = completer("photo.jpg", "mask.png")

The network computes only windows around the holes, with the same result as for the whole
image (`regions`). Windows' sides are multiples of 64 pixels, so photos of many sizes
share few compiled programs.
"""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gl_jax import compilation, images
from gl_jax.config import UsageError
from gl_jax.images import Photo
from gl_jax.inpainting import filling, inputs, masks, regions
from gl_jax.inpainting.filling import Blend
from gl_jax.inpainting.inputs import ImageLike, Notify
from gl_jax.inpainting.large import FAR_LARGER, Large, far_larger
from gl_jax.inpainting.loading import (
    load_model,
    mark_started,
    require_no_fork,
    trained_sizes,
)
from gl_jax.models import inference
from gl_jax.weights import architectures
from gl_jax.weights.convention import Convention
from gl_jax.weights.native import Model

Progress = Callable[[int, int], None]
Mask = Bool[np.ndarray, "h w"]


def load(
    source: str | Path | None = None, *, experiment: str | Path | None = None
) -> "Completer":
    """Loads a model from a file, a training run, or by name, and returns a Completer.

    `source` is a weights file of gl_jax (.safetensors) or of another project (as for
    `gl-jax convert`), the folder of a training run or the bucket of its checkpoints (the
    newest one, the moving average if there is one), or the name of a shipped model, by
    default `demo`. The `experiment` file builds a network that is not gl_jax's own.

    Raises UsageError, with advice, if there is no such model.
    """
    return Completer(load_model(source, experiment))


def complete(image: ImageLike, mask: ImageLike, **options: Any) -> Any:
    """Completes an image by the shipped model; see `Completer.__call__`."""
    return _default()(image, mask, **options)


@functools.cache
def _default() -> "Completer":
    return load()


class Completer:
    """A loaded model: `completer(image, mask)` returns the completed image."""

    default_blend: Blend = "poisson"

    def __init__(self, model: Model) -> None:
        """Copies the model to the device; programs are compiled at their first use."""
        require_no_fork()
        method = architectures.METHODS.get(type(model.architecture))
        if method is not None:
            raise UsageError(
                f"{model.name or 'the model'} is a {model.architecture.module}, which "
                f"completes by a method of its own: give it as --method {method}=FILE."
            )
        mark_started()
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
        """Completes an image; returns an array for an array, else a Pillow image.

        `image` and `mask` are paths, Pillow images or arrays: [h, w, 3] in RGB order, also
        with alpha or grey, uint8 or floats in [0, 1] (the result is then float32). White
        in the mask is missing; an array may also be bool or 0 and 1. Pixels outside the
        hole stay bit for bit. A mask of another size is resized with a warning, or
        refused with `strict_size` or if it is rotated. A mask that is likely a mistake
        causes a warning or is refused. The other options are those of `complete_photo`.

        Raises UsageError for a mistake of the caller's.
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
        """Completes images in order; `masks` is one mask for all, or one for each.

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
                f"there are {len(listed)} images and {len(each)} masks; give one mask "
                "for each image, or one for all."
            )
        return [
            self(image, mask, **options)
            for image, mask in zip(listed, each, strict=True)
        ]

    def raw(
        self, image: ImageLike, mask: ImageLike, *, strict_size: bool = False
    ) -> Float[np.ndarray, "h w 3"]:
        """Returns the network's output for the whole image, float32 RGB in [0, 1].

        It is neither composited nor blended. Images and masks are those of a call.
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
        """Completes the hole, bool [h, w], of a photo.

        `blend` is "poisson", the paper's post-processing, or "none". Within `feather`
        pixels around the hole the completion fades into the photo. A hole far larger than
        the trained ones is completed in a copy whose longer side is `resize_to` pixels
        (by default the trained image size) and enlarged; 0 completes it at full size.
        Fully transparent pixels are not used as context, and stay transparent outside the
        hole. With `opaque`, completed pixels become opaque.
        `notify` gets messages to the user, by default as Python warnings; `progress`
        gets the numbers of finished and of all windows after each window.

        Returns the photo unchanged for an empty hole. Raises UsageError if no context is
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
        """Returns the network's colours inside `region`; other pixels are undefined.

        `hole` marks all unknown pixels.
        """
        coarse, plain = [], region
        if resize_to != 0:
            size = resize_to or self.trained.image
            coarse = far_larger(region, FAR_LARGER * self.trained.hole, size)
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
                f"{large.width}x{large.height} and enlarged; --resize-to 0 prevents that."
            )
        return completed

    def _coarse(
        self, photo: Photo, hole: Mask, large: Large
    ) -> Float[np.ndarray, "y x 3"]:
        """Completes the surroundings of a large hole at a smaller size and enlarges them."""
        colors, known = photo.unit(large.box), ~hole[large.box]
        share = np.repeat(known[..., None].astype(np.float32), 3, axis=2)
        shares = images.resized(share, large.height, large.width)
        # The mean of the known pixels only: colours in the hole must have no influence.
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
        """Returns the network's output inside the windows, 0 elsewhere."""
        require_no_fork()
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
        """Returns the network's output for a window; raises MemoryError if too large."""
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
    """Compiles `_run`; only at the first photo, because that starts JAX's platform."""
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
