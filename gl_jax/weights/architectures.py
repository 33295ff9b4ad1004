"""Networks by name and numbers, as a weights file has them, and the modules they mean.

The shapes of a network's arrays are asked of the module itself.
"""

import dataclasses
import json
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
"""Side in pixels of the image that shapes are asked with; they do not depend on it."""

VIEWS: dict[Variant, tuple[str, ...]] = {
    "both": ("local", "global"),
    "global": ("global",),
    "local": ("local",),
}
"""The views of a context discriminator, by variant."""


class _Shaped:
    """An architecture whose arrays are asked of its module."""

    def tree(self) -> Tree:
        """Shapes and types of the network's variables, as its `init` nests them."""
        raise NotImplementedError

    def shapes(self) -> Shapes:
        """The shape of every array of the network by its place, `params/conv1/kernel`."""
        return shapes_in(self.tree())


@dataclass(frozen=True)
class Architecture(_Shaped):
    """The numbers a completion network is built from; see `config.ModelConfig`."""

    width: float = 1.0
    norm_order: Order = "norm_activation"
    output_activation: Literal["sigmoid", "clamp", "signed_clamp"] = "sigmoid"
    module: Literal["CompletionNetwork"] = "CompletionNetwork"

    def network(self, ops: Ops = NATIVE) -> nn.Module:
        """The module, built of these operations."""
        _require_sane(self.width)
        return CompletionNetwork(
            self.width, self.norm_order, self.output_activation, ops=ops
        )

    def tree(self) -> Tree:
        """Shapes and types of the network's variables, as its `init` nests them."""
        return _tree(self.network(), jnp.zeros((1, SIDE, SIDE, 4)))


@dataclass(frozen=True)
class DiscriminatorArchitecture(_Shaped):
    """The numbers a context discriminator is built from, and how it sees photographs."""

    image_size: int = 256
    local_size: int = 128
    variant: Variant = "both"
    width: float = 1.0
    norm_order: NormOrder = "norm_activation"
    convention: Convention = field(default_factory=Convention)
    spectral_norm: bool = False
    module: Literal["ContextDiscriminator"] = "ContextDiscriminator"

    def network(self, ops: Ops = NATIVE) -> nn.Module:
        """The module, built of these operations."""
        _require_sane(self.width, self.image_size, self.local_size)
        return ContextDiscriminator(
            VIEWS[self.variant],
            self.width,
            self.norm_order,
            self.spectral_norm,
            ops=ops,
        )

    def tree(self) -> Tree:
        """Shapes and types of the network's variables, as its `init` nests them."""
        _require_sane(self.width, self.image_size, self.local_size)
        sides = {"local": self.local_size, "global": self.image_size}
        views = {name: jnp.zeros((1, side, side, 3)) for name, side in sides.items()}
        return _tree(self.network(), views)


@dataclass(frozen=True)
class OwnArchitecture(_Shaped):
    """A network that an experiment file defines: its module's name and the run's numbers.

    It is built by the file's `parts`. A user has to name that file, for a weights file
    runs no code.
    """

    module: str
    experiment: str
    """The file's name."""
    role: Role
    config: Config
    source: Experiment | None = field(default=None, compare=False, repr=False)
    """The experiment file, once it is named."""

    def network(self, ops: Ops = NATIVE) -> nn.Module:
        """The module; its operations are the file's choice."""
        del ops
        network = getattr(self._parts(), self.role, None)
        if isinstance(network, nn.Module):
            return network
        raise UsageError(
            f"{self.experiment}: parts(config) has no Flax module as its {self.role} "
            f"network, but {network!r:.60}."
        )

    def tree(self) -> Tree:
        """Shapes and types of the network's variables, as its `init` nests them."""
        inputs, views = self._parts().example_inputs(self.config.data.image_size)
        shown = {"completion": inputs, "discriminator": views}
        return _tree(self.network(), shown[self.role])

    def _parts(self) -> Any:
        if self.source is None:
            raise UsageError(
                f"the {self.role} network is {self.module} of {self.experiment}, none of "
                f"gl_jax's own: name that file with --experiment {self.experiment}."
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
    """The architecture of a network in a run of `config`, from a file of that name.

    The `encoding` is by default that of `config`.
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
    """Returns the architectures of a run's networks, None for no discriminator."""
    name = experiment.name if experiment else ""
    made = of_network(completion, "completion", config, name, encoding)
    if discriminator is None:
        return made, None
    return made, of_network(discriminator, "discriminator", config, name, encoding)


def of_config(config: Config) -> tuple[Architecture, DiscriminatorArchitecture | None]:
    """The architectures of the paper's networks with the numbers of `config`."""
    made = config.model
    completion = Architecture(made.width, made.norm_order, made.output_activation)
    if made.discriminators == "none":
        return completion, None
    return completion, DiscriminatorArchitecture(
        config.data.image_size,
        config.holes.local_size,
        made.discriminators,
        made.width,
        "none" if made.discriminator_norm == "none" else made.norm_order,
        ENCODINGS[config.data.encoding].discriminator,
        spectral_norm=made.spectral_norm,
    )


def to_json(architecture: AnyArchitecture) -> dict[str, Any]:
    """The architecture as JSON has it."""
    fields = dataclasses.asdict(
        dataclasses.replace(architecture, source=None)
        if isinstance(architecture, OwnArchitecture)
        else architecture
    )
    fields.pop("source", None)
    # Left out where it is not: files of such networks stay as they were before it.
    if not fields.get("spectral_norm", True):
        del fields["spectral_norm"]
    return dict(json.loads(json.dumps(fields)))


def from_json(values: Any, role: Role) -> AnyArchitecture:
    """The inverse of `to_json`; UsageError where that is not what `values` are.

    Files of version 0.1 do not name the module, which is ours.
    """
    first, *others = MADE[role]
    if not isinstance(values, dict) or "experiment" not in values:
        named = values.get("module") if isinstance(values, dict) else None
        ours = {made.module: made for made in others}.get(named, first)
        found = build(ours, values, "")
    else:
        own = {key: values[key] for key in ("module", "experiment", "role")}
        found = OwnArchitecture(
            **own, config=Config.from_json(json.dumps(values["config"]))
        )
    return found


def _tree(network: nn.Module, inputs: Any) -> Tree:
    init = partial(network.init, train=False)
    return dict(jax.eval_shape(init, jax.random.key(0), inputs))


def shapes_in(tree: Mapping[str, Any], prefix: str = "") -> Shapes:
    """The shape of every array of a tree by its place, `params/conv1/kernel`."""
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
