"""The program that completes and measures pictures, a batch over all devices at a time."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from gl_jax import compilation, texture
from gl_jax.config import UsageError
from gl_jax.evaluation.measures import catalogue, inception, lpips
from gl_jax.evaluation.measures.catalogue import FEATURE_METRICS
from gl_jax.inpainting.regions import bucket, padded
from gl_jax.metrics import l1
from gl_jax.models import inference
from gl_jax.parallel import Devices
from gl_jax.texture import Places
from gl_jax.weights import tensors
from gl_jax.weights.arrays import flat
from gl_jax.weights.convention import Convention
from gl_jax.weights.native import Model

Images = UInt8[np.ndarray, "b h w 3"]
Masks = Bool[np.ndarray, "b h w"]


class Networks(NamedTuple):
    """The networks that measure, and notes on the files they come from."""

    lpips: lpips.Lpips | None
    inception: inception.Weights | None
    hashes: dict[str, Any]
    """SHA-256 of the files, as settings of an evaluation."""
    notes: list[str]
    resize: inception.Resize


def load_networks(
    fid_file: Path | None,
    lpips_files: tuple[Path, ...],
    side: int,
    resize: inception.Resize = "pytorch-fid",
) -> Networks:
    """Loads Inception and LPIPS, each left out if it has no file.

    Images are resized for Inception by `resize`. Raises UsageError if a file does not fit,
    or squares of `side` pixels are too small.
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
    if fid_file is not None:
        network = inception.load(fid_file)
        hashes["fid"] = tensors.sha256(fid_file)
        notes.append(
            f"{FEATURE_METRICS} by {fid_file.name} (SHA-256 {hashes['fid']}), images "
            f"resized to {inception.SIDE} pixels as {resize} does. Published precision and "
            "recall are by VGG-16."
        )
        if not network.published:
            notes.append(
                f"{fid_file.name} is not pytorch-fid's file (its fc has not 1008 "
                "outputs), so these cannot be compared with published ones."
            )
    return Networks(distance, network, hashes, notes, resize)


class Scores(NamedTuple):
    """A measured batch, arrays on the host for the caller."""

    values: dict[str, Float[np.ndarray, " b"]]
    """By the names of `catalogue.columns` and the grid energies."""
    composite: Images
    """The completed pictures in 8 bits, the known pixels as they were."""
    textures: Float[np.ndarray, "b 2 levels patches d"] | None
    """See `texture.measure`; None unless that is measured."""
    features: Float[np.ndarray, "b 2 d"] | None
    """Inception's, of the photographs and of the composites."""


class _Weights(NamedTuple):
    network: Any
    lpips: dict[str, Any]
    inception: dict[str, Any]


class Scorer:
    """Completes batches with a model and measures them, on all devices of this host."""

    def __init__(
        self,
        model: Model | None,
        networks: Networks,
        *,
        metrics: tuple[str, ...],
        raw_l1: bool,
    ) -> None:
        """Puts the weights onto every device of this host.

        Without a model it measures what is completed already. `metrics` are names of
        `catalogue.METRICS`; `networks` has what they need.
        With `raw_l1` the L1 in the hole is that of the network's own output in [0, 1],
        before it is rounded to 8 bits.
        """
        self._devices = Devices()
        self.devices = len(self._devices.local)
        """Batches are multiples of this."""
        self.measures_features = networks.inception is not None
        self.measures_texture = "texture" in metrics
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
        self._completed = complete
        self._networks = networks
        self._metrics = metrics
        self._score = jax.jit(
            functools.partial(
                _score, complete, metrics, raw_l1, distance, networks.resize
            )
        )

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

    def costs(self, side: int) -> dict[str, float]:
        """Returns floating-point operations per picture of `side` pixels, by name.

        Those of completing it by the model, of each metric of pictures, and of the features.
        """
        shape = (1, side, side, 3)
        image = jax.ShapeDtypeStruct(shape, jnp.float32)
        mask = jax.ShapeDtypeStruct((*shape[:3], 1), jnp.bool_)
        costs = {}
        if self._completed is not None:
            costs["completing"] = catalogue.count(
                self._completed, self._weights.network, image, mask
            )
        for name in self._metrics:
            if name in catalogue.PICTURES:
                costs[name] = catalogue.operations(name, side)
        weights, distance = self._weights, self._networks.lpips
        if distance is not None:
            costs["lpips"] = catalogue.count(distance, weights.lpips, image, image)
        if self.measures_features:
            # The features of the photograph and of its completion.
            costs["features"] = 2 * catalogue.count(
                functools.partial(inception.features, resize=self._networks.resize),
                weights.inception, image,
            )  # fmt: skip
        return costs


def _score(
    complete: Callable[..., Float[Array, "b h w 3"]] | None,
    metrics: tuple[str, ...],
    raw_l1: bool,
    distance: lpips.Lpips | None,
    resize: inception.Resize,
    weights: _Weights,
    images: UInt8[Array, "devices n h w 3"],
    given: UInt8[Array, "devices n h w 3"],
    masks: Bool[Array, "devices n h w 1"],
    patches: Int[Array, "devices n levels patches 2"],
    squares: Int[Array, "devices n 2"],
) -> tuple[dict[str, Array], Array, Array | None, Array | None]:
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
    values = catalogue.of_pictures(metrics, levels, truth, masks)
    if raw_l1 and "l1" in metrics:
        values["hole_l1_percent"] = 100 * l1(completed, truth / 255, masks)
    if distance is not None:
        values["lpips"] = distance(weights.lpips, levels / 255, truth / 255)
    textures = None
    if "texture" in metrics:
        grids, textures = texture.measure(
            levels / 255, truth / 255, Places(patches, squares)
        )
        values |= grids
    features = None
    if weights.inception:
        features = jnp.stack(
            [
                inception.features(weights.inception, x / 255, resize)
                for x in (truth, levels)
            ],
            axis=1,
        )
    return values, levels.astype(jnp.uint8), textures, features


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
    for name, array in sorted(flat(model.variables).items()):
        digest.update(f"{name} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
