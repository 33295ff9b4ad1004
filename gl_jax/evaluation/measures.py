"""A model's output on a batch and all its metrics: one program over this host's devices."""

import functools
import hashlib
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from gl_jax import compilation, metrics
from gl_jax.evaluation import inception
from gl_jax.evaluation.lpips import Lpips
from gl_jax.evaluation.tables import Column
from gl_jax.inpainting.regions import bucket, padded
from gl_jax.models import inference
from gl_jax.parallel import Devices
from gl_jax.weights import native
from gl_jax.weights.convention import Convention
from gl_jax.weights.native import Model

COLUMNS = {
    "l1_percent": Column("L1, %", 3),
    "psnr_db": Column("PSNR, dB", 3),
    "ssim": Column("SSIM", 4),
    "ms_ssim": Column("MS-SSIM", 4),
    "hole_l1_percent": Column("L1 in the hole, %", 3),
    "hole_psnr_db": Column("PSNR in the hole, dB", 3),
    "hole_ssim": Column("SSIM in the hole", 4),
    "hole_ms_ssim": Column("MS-SSIM in the hole", 4),
}
LPIPS_COLUMN = {"lpips": Column("LPIPS", 4)}

Images = UInt8[np.ndarray, "b h w 3"]
Masks = Bool[np.ndarray, "b h w"]


class Scores(NamedTuple):
    """What `Scorer` makes of a batch; arrays of the host, one value for each image."""

    values: dict[str, Float[np.ndarray, " b"]]
    """By the names of `COLUMNS`."""
    composite: Images
    """The completed pictures in 8 bits, the known pixels as they were."""
    features: tuple[np.ndarray, np.ndarray] | None
    """Inception's, [b, 2048], of the photographs and of the composites, for FID."""


class _Weights(NamedTuple):
    network: Any
    lpips: dict[str, Any]
    inception: dict[str, Any]


class Scorer:
    """Completes batches with a model and measures them."""

    def __init__(
        self,
        model: Model,
        *,
        raw_l1: bool = False,
        lpips: Lpips | None = None,
        features: dict[str, np.ndarray] | None = None,
    ) -> None:
        """Puts the weights onto every device of this host.

        With `raw_l1` the L1 in the hole is that of the network's own output in [0, 1],
        before it is rounded to 8 bits. `features` are Inception's arrays.
        """
        self._devices = Devices()
        self.devices = len(self._devices.local)
        """Batches are multiples of this."""
        self.measures_features = features is not None
        network = model.network(compilation.ops())
        network, variables = inference.fold(network, model.variables)
        self._weights = self._devices.replicate(
            _Weights(variables, lpips.arrays if lpips else {}, features or {})
        )
        self._score = jax.jit(
            functools.partial(_score, network, model.convention, raw_l1, lpips)
        )

    def __call__(self, images: Images, masks: Masks) -> Scores:
        """Completes and measures; the batch is a multiple of the number of devices."""
        values, composite, features = jax.device_get(
            self._score(
                self._weights,
                self._devices.shard(images),
                self._devices.shard(masks[..., None]),
            )
        )
        return Scores(values, composite, tuple(features) if features else None)


def _score(
    network: nn.Module,
    convention: Convention,
    raw_l1: bool,
    lpips: Lpips | None,
    weights: _Weights,
    images: UInt8[Array, "devices n h w 3"],
    masks: Bool[Array, "devices n h w 1"],
) -> tuple[dict[str, Array], Array, tuple[Array, ...]]:
    images, masks = (x.reshape(-1, *x.shape[2:]) for x in (images, masks))
    truth = images.astype(jnp.float32)
    completed = _completed(network, convention, weights.network, truth / 255, masks)
    levels = jnp.where(masks, jnp.rint(completed * 255), truth)
    values = {}
    for prefix, mask in (("", None), ("hole_", masks)):
        pair = (levels, truth, mask)
        values[f"{prefix}l1_percent"] = 100 * metrics.l1(*pair, max_value=255.0)
        values[f"{prefix}psnr_db"] = metrics.psnr(*pair, max_value=255.0)
        values[f"{prefix}ssim"] = metrics.ssim(*pair, max_value=255.0)
        if min(images.shape[1:3]) >= metrics.MS_SSIM_MIN_SIZE:
            values[f"{prefix}ms_ssim"] = metrics.ms_ssim(*pair, max_value=255.0)
        else:
            values[f"{prefix}ms_ssim"] = jnp.full(len(images), jnp.nan, jnp.float32)
    if raw_l1:
        values["hole_l1_percent"] = 100 * metrics.l1(completed, truth / 255, masks)
    if lpips is not None:
        values["lpips"] = lpips(weights.lpips, levels / 255, truth / 255)
    features = tuple(
        inception.features(weights.inception, x / 255)
        for x in (truth, levels)
        if weights.inception
    )
    return values, levels.astype(jnp.uint8), features


def _completed(
    network: nn.Module,
    convention: Convention,
    variables: Any,
    images: Float[Array, "b h w 3"],
    masks: Bool[Array, "b h w 1"],
) -> Float[Array, "b h w 3"]:
    """The network's own output over the whole image, in [0, 1]."""
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
    """A SHA-256 of all that the model's output depends on."""
    digest = hashlib.sha256(repr((model.architecture, model.convention)).encode())
    for name, array in sorted(native.flat(model.variables).items()):
        digest.update(f"{name} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
