"""Architectures: a network's name and numbers in a weights file, and its module."""

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from gl_jax.config import Config, UsageError
from gl_jax.experiment import Experiment
from gl_jax.fields import build
from gl_jax.models.completion import CompletionNetwork
from gl_jax.models.context_encoder import ContextEncoder
from gl_jax.models.dcgan import Discriminator, Generator, channels
from gl_jax.models.discriminators import ContextDiscriminator
from gl_jax.models.layers import NormOrder
from gl_jax.models.ops import NATIVE, Ops
from gl_jax.weights.convention import ENCODINGS, Convention, Encoding

Shapes = dict[str, tuple[int, ...]]
Tree = dict[str, Any]
Order = Literal["norm_activation", "activation_norm"]
Role = Literal["completion", "discriminator"]
Variant = Literal["both", "global", "local"]

SIDE = 16
"""Side in pixels of the image used to find array shapes, which do not depend on it."""

VIEWS: dict[Variant, tuple[str, ...]] = {
    "both": ("local", "global"),
    "global": ("global",),
    "local": ("local",),
}
"""The views of a context discriminator, by variant."""


class _Shaped(ABC):
    """An architecture that finds its arrays' shapes by tracing its module."""

    @abstractmethod
    def tree(self) -> Tree:
        """Returns shapes and types of the variables, nested as by the module's `init`."""

    def shapes(self) -> Shapes:
        """Returns the shape of every array by its path, such as `params/conv1/kernel`."""
        return shapes_in(self.tree())


@dataclass(frozen=True)
class Architecture(_Shaped):
    """Arguments of a completion network; see `config.ModelConfig`."""

    width: float = 1.0
    norm_order: Order = "norm_activation"
    output_activation: Literal["sigmoid", "clamp", "signed_clamp"] = "sigmoid"
    module: Literal["CompletionNetwork"] = "CompletionNetwork"

    def network(self, ops: Ops = NATIVE) -> nn.Module:
        """Returns the module, built from these operations."""
        _require_sane(self.width)
        return CompletionNetwork(
            self.width, self.norm_order, self.output_activation, ops=ops
        )

    def tree(self) -> Tree:
        """Returns shapes and types of the variables, nested as by the module's `init`."""
        return _tree(self.network(), jnp.zeros((1, SIDE, SIDE, 4)))


@dataclass(frozen=True)
class DiscriminatorArchitecture(_Shaped):
    """Arguments of a context discriminator, and the encoding of its inputs."""

    image_size: int = 256
    local_size: int = 128
    variant: Variant = "both"
    width: float = 1.0
    norm_order: NormOrder = "norm_activation"
    convention: Convention = field(default_factory=Convention)
    spectral_norm: bool = False
    module: Literal["ContextDiscriminator"] = "ContextDiscriminator"

    def network(self, ops: Ops = NATIVE) -> nn.Module:
        """Returns the module, built from these operations."""
        _require_sane(self.width, self.image_size, self.local_size)
        return ContextDiscriminator(
            VIEWS[self.variant],
            self.width,
            self.norm_order,
            self.spectral_norm,
            ops=ops,
        )

    def tree(self) -> Tree:
        """Returns shapes and types of the variables, nested as by the module's `init`."""
        _require_sane(self.width, self.image_size, self.local_size)
        sides = {"local": self.local_size, "global": self.image_size}
        views = {name: jnp.zeros((1, side, side, 3)) for name, side in sides.items()}
        return _tree(self.network(), views)


@dataclass(frozen=True)
class OwnArchitecture(_Shaped):
    """A network that an experiment file defines: its module's name and the run's config.

    The file's `parts` builds it. The user has to name that file, because a weights file
    contains no code.
    """

    module: str
    experiment: str
    """The experiment file's name."""
    role: Role
    config: Config
    source: Experiment | None = field(default=None, compare=False, repr=False)
    """The experiment file, once the user has named it."""

    def network(self, ops: Ops = NATIVE) -> nn.Module:
        """Returns the module; `ops` is ignored, as the file chooses the operations."""
        del ops
        network = getattr(self._parts(), self.role, None)
        if isinstance(network, nn.Module):
            return network
        raise UsageError(
            f"{self.experiment}: the {self.role} network of parts(config) must be a Flax "
            f"module, not {network!r:.60}."
        )

    def tree(self) -> Tree:
        """Returns shapes and types of the variables, nested as by the module's `init`."""
        inputs, views = self._parts().example_inputs(self.config.data.image_size)
        examples = {"completion": inputs, "discriminator": views}
        return _tree(self.network(), examples[self.role])

    def _parts(self) -> Any:
        if self.source is None:
            raise UsageError(
                f"the {self.role} network is {self.module} of {self.experiment}, not one "
                f"of gl_jax's own: name that file with --experiment {self.experiment}."
            )
        return self.source.parts(self.config)


@dataclass(frozen=True)
class ContextEncoderArchitecture(_Shaped):
    """The numbers a context encoder is built from."""

    size: int = 128
    predicted: int = 128
    bottleneck: int = 4000
    width: float = 1.0
    norm_order: Order = "norm_activation"
    module: Literal["ContextEncoder"] = "ContextEncoder"

    def network(self, ops: Ops = NATIVE) -> nn.Module:
        """The module, built of these operations."""
        _require_sane(self.width)
        _require_columns(self.size, self.predicted)
        if self.predicted > self.size or self.bottleneck < 1:
            raise UsageError(
                f"predicted (={self.predicted}) must be at most size (={self.size}), and "
                f"bottleneck (={self.bottleneck}) at least 1."
            )
        return ContextEncoder(
            self.size, self.predicted, self.bottleneck, self.width, self.norm_order,
            ops=ops,
        )  # fmt: skip

    def tree(self) -> Tree:
        """Shapes and types of the network's variables, as its `init` nests them."""
        return _tree(self.network(), jnp.zeros((1, self.size, self.size, 4)))


@dataclass(frozen=True)
class GeneratorArchitecture(_Shaped):
    """The numbers DCGAN's generator is built from."""

    size: int = 64
    codes: int = 100
    width: float = 1.0
    norm_order: Order = "norm_activation"
    module: Literal["Generator"] = "Generator"

    def network(self, ops: Ops = NATIVE) -> nn.Module:
        """The module, built of these operations."""
        _require_sane(self.width)
        _require_columns(self.size)
        if self.codes < 1:
            raise UsageError(f"codes (={self.codes}) must be at least 1.")
        return Generator(self.size, self.codes, self.width, self.norm_order, ops=ops)

    def tree(self) -> Tree:
        """Shapes and types of the network's variables, as its `init` nests them."""
        return _tree(self.network(), jnp.zeros((1, self.codes)))


@dataclass(frozen=True)
class PlainDiscriminatorArchitecture(_Shaped):
    """The numbers DCGAN's discriminator is built from, and how it sees photographs."""

    size: int = 64
    width: float = 1.0
    norm_order: NormOrder = "norm_activation"
    convention: Convention = field(default_factory=Convention)
    module: Literal["Discriminator"] = "Discriminator"

    def network(self, ops: Ops = NATIVE) -> nn.Module:
        """The module, built of these operations."""
        _require_sane(self.width)
        _require_columns(self.size)
        return Discriminator(self.size, self.width, self.norm_order, ops=ops)

    def tree(self) -> Tree:
        """Shapes and types of the network's variables, as its `init` nests them."""
        shown = {"images": jnp.zeros((1, self.size, self.size, 3))}
        return _tree(self.network(), shown)


OfDiscriminator = (
    DiscriminatorArchitecture | PlainDiscriminatorArchitecture | OwnArchitecture
)
OfCompletion = (
    Architecture | ContextEncoderArchitecture | GeneratorArchitecture | OwnArchitecture
)
AnyArchitecture = OfCompletion | OfDiscriminator


MADE: dict[Role, tuple[Any, ...]] = {
    "completion": (Architecture, ContextEncoderArchitecture, GeneratorArchitecture),
    "discriminator": (DiscriminatorArchitecture, PlainDiscriminatorArchitecture),
}
"""The architectures of gl_jax's own networks; a file that names no module has the first."""


METHODS: dict[type, str] = {
    ContextEncoderArchitecture: "context_encoder",
    GeneratorArchitecture: "semantic",
}
"""Networks of one size, and the methods of `evaluation` that complete photographs by them."""


def of_network(
    network: nn.Module,
    role: Role,
    config: Config,
    experiment: str,
    encoding: Encoding | None = None,
) -> AnyArchitecture:
    """Returns the architecture of a network in a run of `config`.

    `experiment` is the name of the run's file. `encoding` is by default that of `config`.
    """
    encoding = encoding or ENCODINGS[config.data.encoding]
    if type(network) is CompletionNetwork and network.norm_order != "none":
        return Architecture(
            network.width, network.norm_order, network.output_activation
        )
    if type(network) is ContextDiscriminator:
        for variant, views in VIEWS.items():
            if network.views == views:
                return DiscriminatorArchitecture(
                    config.data.image_size,
                    config.holes.local_size,
                    variant,
                    network.width,
                    network.norm_order,
                    encoding.discriminator,
                    spectral_norm=network.spectral_norm,
                )
    if type(network) is ContextEncoder and network.norm_order != "none":
        return ContextEncoderArchitecture(
            network.size, network.predicted, network.bottleneck, network.width,
            network.norm_order,
        )  # fmt: skip
    if type(network) is Generator and network.norm_order != "none":
        return GeneratorArchitecture(
            network.size, network.codes, network.width, network.norm_order
        )
    if type(network) is Discriminator:
        return PlainDiscriminatorArchitecture(
            network.size, network.width, network.norm_order, encoding.discriminator
        )
    return OwnArchitecture(type(network).__name__, experiment, role, config)


def of_networks(
    completion: nn.Module,
    discriminator: nn.Module | None,
    config: Config,
    experiment: Experiment | None,
    encoding: Encoding,
) -> tuple[Any, Any]:
    """Returns the architectures of a run's networks; None without a discriminator."""
    name = experiment.name if experiment else ""
    made = of_network(completion, "completion", config, name, encoding)
    if discriminator is None:
        return made, None
    return made, of_network(discriminator, "discriminator", config, name, encoding)


def of_config(config: Config) -> tuple[Architecture, DiscriminatorArchitecture | None]:
    """Returns the architectures of the paper's networks with the numbers of `config`."""
    model = config.model
    completion = Architecture(model.width, model.norm_order, model.output_activation)
    if model.discriminators == "none":
        return completion, None
    return completion, DiscriminatorArchitecture(
        config.data.image_size,
        config.holes.local_size,
        model.discriminators,
        model.width,
        "none" if model.discriminator_norm == "none" else model.norm_order,
        ENCODINGS[config.data.encoding].discriminator,
        spectral_norm=model.spectral_norm,
    )


def to_json(architecture: AnyArchitecture) -> dict[str, Any]:
    """Returns the architecture as a JSON object."""
    fields = dataclasses.asdict(
        dataclasses.replace(architecture, source=None)
        if isinstance(architecture, OwnArchitecture)
        else architecture
    )
    fields.pop("source", None)
    # Omitted if False, so that files keep the bytes they had before this field.
    if not fields.get("spectral_norm", True):
        del fields["spectral_norm"]
    return dict(json.loads(json.dumps(fields)))


def from_json(values: Any, role: Role) -> AnyArchitecture:
    """Returns the architecture from a JSON object: the inverse of `to_json`.

    Files of version 0.1 do not name the module, which is gl_jax's. Raises UsageError if
    `values` is not an architecture.
    """
    if isinstance(values, dict) and "experiment" in values:
        own = {key: values[key] for key in ("module", "experiment", "role")}
        config = Config.from_json(json.dumps(values["config"]))
        return OwnArchitecture(**own, config=config)
    first, *others = MADE[role]
    named = values.get("module") if isinstance(values, dict) else None
    cls = {made.module: made for made in others}.get(named, first)
    architecture: AnyArchitecture = build(cls, values, "")
    return architecture


def _tree(network: nn.Module, inputs: Any) -> Tree:
    init = partial(network.init, train=False)
    return dict(jax.eval_shape(init, jax.random.key(0), inputs))


def shapes_in(tree: Mapping[str, Any], prefix: str = "") -> Shapes:
    """Returns the shape of every array of a tree by its path."""
    shapes: Shapes = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            shapes |= shapes_in(value, f"{prefix}{key}/")
        else:
            shapes[f"{prefix}{key}"] = tuple(value.shape)
    return shapes


def _require_sane(width: float, *sizes: int) -> None:
    if not 0 < width <= 8:
        raise UsageError(f"width (={width}) must be in (0, 8].")
    for size in sizes:
        if not 8 <= size <= 4096:
            raise UsageError(f"a discriminator's size (={size}) must be in [8, 4096].")


def _require_columns(*sizes: int) -> None:
    """Refuses sides of images from which halving does not lead to 4x4 pixels."""
    for size in sizes:
        try:
            channels(size)
        except ValueError as error:
            raise UsageError(str(error)) from error
