"""Every metric of completed pictures, and the program that completes and measures them."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt8

from gl_jax import compilation, metrics, texture
from gl_jax.config import UsageError
from gl_jax.evaluation import inception, lpips
from gl_jax.inpainting.regions import bucket, padded
from gl_jax.models import inference
from gl_jax.parallel import Devices
from gl_jax.texture import Places
from gl_jax.weights import native, tensors
from gl_jax.weights.convention import Convention
from gl_jax.weights.native import Model

Images = UInt8[np.ndarray, "b h w 3"]
Masks = Bool[np.ndarray, "b h w"]


def image_metrics(
    images: Shaped[Array, "b h w 3"],
    targets: Shaped[Array, "b h w 3"],
    mask: Bool[Array, "b h w 1"] | None = None,
) -> dict[str, Float[Array, " b"]]:
    """Returns L1 in percent, PSNR, SSIM and MS-SSIM of images with levels 0 to 255.

    Each is over the hole only if there is a `mask`. MS-SSIM is NaN for images that are
    too small for it.
    """
    pair = (images, targets, mask)
    ms_ssim = jnp.full(len(images), jnp.nan, jnp.float32)
    if min(images.shape[1:3]) >= metrics.MS_SSIM_MIN_SIZE:
        ms_ssim = metrics.ms_ssim(*pair, max_value=255.0)
    return {
        "l1_percent": 100 * metrics.l1(*pair, max_value=255.0),
        "psnr_db": metrics.psnr(*pair, max_value=255.0),
        "ssim": metrics.ssim(*pair, max_value=255.0),
        "ms_ssim": ms_ssim,
    }


class Networks(NamedTuple):
    """The networks that measure, and notes on the files they come from."""

    lpips: lpips.Lpips | None
    inception: inception.Weights | None
    hashes: dict[str, Any]
    """SHA-256 of the files, as settings of an evaluation."""
    notes: list[str]


def load_networks(
    fid_file: Path | None, lpips_files: tuple[Path, ...], side: int
) -> Networks:
    """Loads Inception and LPIPS, each left out with a note if it has no file.

    Raises UsageError if a file does not fit, or squares of `side` pixels are too small.
    """
    hashes: dict[str, Any] = {}
    notes = []
    distance, network = None, None
    if lpips_files:
        distance = lpips.load(lpips_files)
        if side < distance.smallest:
            raise UsageError(
                f"LPIPS by {distance.name} needs images of at least {distance.smallest} "
                f"pixels, these have {side}; leave out --lpips-weights."
            )
        hashes["lpips"] = [tensors.sha256(path) for path in lpips_files]
        files = zip(lpips_files, hashes["lpips"], strict=True)
        notes.append(
            f"LPIPS by {distance.name}: "
            + ", ".join(f"{path.name} (SHA-256 {digest})" for path, digest in files)
        )
    else:
        notes.append("LPIPS skipped: give --lpips-weights FILE.")
    if fid_file is not None:
        network = inception.load(fid_file)
        hashes["fid"] = tensors.sha256(fid_file)
        notes.append(
            f"FID, KID, precision and recall by {fid_file.name} (SHA-256 "
            f"{hashes['fid']}). Published precision and recall are by VGG-16."
        )
        if not network.published:
            notes.append(
                f"{fid_file.name} is not pytorch-fid's file (its fc has not 1008 "
                "outputs), so these cannot be compared with published ones."
            )
    else:
        notes.append("FID, KID, precision and recall skipped: give --fid-weights FILE.")
    return Networks(distance, network, hashes, notes)


class Scores(NamedTuple):
    """A measured batch, arrays on the host for the caller."""

    values: dict[str, Float[np.ndarray, " b"]]
    """By the names of `results.EVALUATION_COLUMNS` and the grid energies."""
    composite: Images
    """The completed pictures in 8 bits, the known pixels as they were."""
    textures: Float[np.ndarray, "b 2 levels patches d"]
    """See `texture.measure`."""
    features: Float[np.ndarray, "b 2 d"] | None
    """Inception's, of the photographs and of the composites."""


class _Weights(NamedTuple):
    network: Any
    lpips: dict[str, Any]
    inception: dict[str, Any]


class Scorer:
    """Completes batches with a model and measures them, on all devices of this host."""

    def __init__(
        self, model: Model | None, networks: Networks, *, raw_l1: bool
    ) -> None:
        """Puts the weights onto every device of this host.

        Without a model it measures what is completed already.
        With `raw_l1` the L1 in the hole is that of the network's own output in [0, 1],
        before it is rounded to 8 bits.
        """
        self._devices = Devices()
        self.devices = len(self._devices.local)
        """Batches are multiples of this."""
        self.measures_features = networks.inception is not None
        distance = networks.lpips
        complete = None
        variables: dict[str, Any] = {}
        if model is not None:
            network = model.network(compilation.ops())
            network, variables = inference.fold(network, model.variables)
            complete = functools.partial(_completed, network, model.convention)
        self._weights = self._devices.replicate(
            _Weights(
                variables,
                distance.arrays if distance else {},
                networks.inception.arrays if networks.inception else {},
            )
        )
        self._score = jax.jit(functools.partial(_score, complete, raw_l1, distance))

    def __call__(
        self,
        images: Images,
        masks: Masks,
        places: Places,
        completed: Images | None = None,
    ) -> Scores:
        """Completes and measures; the batch is a multiple of the number of devices.

        Without a model `completed` are the pictures to measure.
        """
        given = images if completed is None else completed
        batch = (images, given, masks[..., None], *places)
        sharded = [self._devices.shard(np.asarray(array)) for array in batch]
        return Scores(*jax.device_get(self._score(self._weights, *sharded)))


def _score(
    complete: Callable[..., Float[Array, "b h w 3"]] | None,
    raw_l1: bool,
    distance: lpips.Lpips | None,
    weights: _Weights,
    images: UInt8[Array, "devices n h w 3"],
    given: UInt8[Array, "devices n h w 3"],
    masks: Bool[Array, "devices n h w 1"],
    patches: Int[Array, "devices n levels patches 2"],
    squares: Int[Array, "devices n 2"],
) -> tuple[dict[str, Array], Array, Array, Array | None]:
    """Returns the arrays of `Scores`."""
    batch = (images, given, masks, patches, squares)
    images, given, masks, patches, squares = (
        x.reshape(-1, *x.shape[2:]) for x in batch
    )
    truth = images.astype(jnp.float32)
    completed = given.astype(jnp.float32) / 255
    if complete is not None:
        completed = complete(weights.network, truth / 255, masks)
    levels = jnp.where(masks, jnp.rint(completed * 255), truth)
    values = image_metrics(levels, truth) | {
        f"hole_{name}": value
        for name, value in image_metrics(levels, truth, masks).items()
    }
    if raw_l1:
        values["hole_l1_percent"] = 100 * metrics.l1(completed, truth / 255, masks)
    if distance is not None:
        values["lpips"] = distance(weights.lpips, levels / 255, truth / 255)
    grids, textures = texture.measure(
        levels / 255, truth / 255, Places(patches, squares)
    )
    features = None
    if weights.inception:
        features = jnp.stack(
            [inception.features(weights.inception, x / 255) for x in (truth, levels)],
            axis=1,
        )
    return values | grids, levels.astype(jnp.uint8), textures, features


def _completed(
    network: nn.Module,
    convention: Convention,
    variables: Any,
    images: Float[Array, "b h w 3"],
    masks: Bool[Array, "b h w 1"],
) -> Float[Array, "b h w 3"]:
    """Returns the network's own output over the whole image, in [0, 1]."""
    height, width = images.shape[1:3]
    next_side = padded if inference.takes_size(network) else bucket
    size = next_side(height), next_side(width)
    below = [(0, 0), (0, size[0] - height), (0, size[1] - width), (0, 0)]
    inputs = convention.encode(
        jnp.pad(images, below, mode="edge"), jnp.pad(masks, below).astype(jnp.float32)
    )
    outputs = inference.complete(network, variables, inputs, jnp.array(size, jnp.int32))
    decoded = convention.decode(outputs)[:, :height, :width]
    return jnp.clip(jnp.asarray(decoded, jnp.float32), 0.0, 1.0)


def fingerprint(model: Model) -> str:
    """Returns a SHA-256 of everything that the model's output depends on."""
    digest = hashlib.sha256(repr((model.architecture, model.convention)).encode())
    for name, array in sorted(native.flat(model.variables).items()):
        digest.update(f"{name} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
