"""GLCIC in PyTorch, from the paper's tables: what gl_jax is measured against.

Written for speed, as one would train with it: one forward pass of the completion network
serves both updates, gradients of the discriminator's weights are not computed where they
are not used, holes are drawn on the host so that nothing waits for the device, and the
optimizer is torch's own. Modules take images [b, 3, h, w] in [0, 1].
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Kind, kernel, dilation, stride, outputs; a deconv of stride 2 doubles the size.
COMPLETION = (
    ("conv", 5, 1, 1, 64),
    ("conv", 3, 1, 2, 128),
    ("conv", 3, 1, 1, 128),
    ("conv", 3, 1, 2, 256),
    ("conv", 3, 1, 1, 256),
    ("conv", 3, 1, 1, 256),
    ("conv", 3, 2, 1, 256),
    ("conv", 3, 4, 1, 256),
    ("conv", 3, 8, 1, 256),
    ("conv", 3, 16, 1, 256),
    ("conv", 3, 1, 1, 256),
    ("conv", 3, 1, 1, 256),
    ("deconv", 4, 1, 2, 128),
    ("conv", 3, 1, 1, 128),
    ("deconv", 4, 1, 2, 64),
    ("conv", 3, 1, 1, 32),
    ("conv", 3, 1, 1, 3),
)
DISCRIMINATOR = (64, 128, 256, 512, 512, 512)
FEATURES = 1024


def scaled(features: int, width: float) -> int:
    return max(4, round(features * width))


class Norm(nn.BatchNorm2d):
    """BatchNorm that can normalise by the batch without moving its running statistics."""

    def forward(self, x: Tensor, track: bool = True) -> Tensor:
        """Normalised; `track` moves the running statistics, in training."""
        if track:
            return super().forward(x)
        weight, bias = self.weight, self.bias
        return F.batch_norm(x, None, None, weight, bias, training=True, eps=self.eps)


class Conv(nn.Conv2d):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, **options: Any) -> None:
        super().__init__(inputs, outputs, kernel, **options)
        self.norm = Norm(outputs)

    def forward(self, x: Tensor, track: bool = True) -> Tensor:
        """The block."""
        return F.relu_(self.norm(super().forward(x), track))


class Deconv(nn.ConvTranspose2d):
    """Transposed convolution that doubles the size, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 4, stride=2, padding=1)
        self.norm = Norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        return F.relu_(self.norm(super().forward(x)))


class CompletionNetwork(nn.Module):
    """(photograph less the mean with an empty hole, mask) to the completed photograph."""

    def __init__(self, width: float) -> None:
        super().__init__()
        inputs = 4
        for index, (kind, kernel, dilation, stride, outputs) in enumerate(
            COMPLETION, 1
        ):
            padding = dilation * (kernel - 1) // 2
            layer: nn.Module
            if index == len(COMPLETION):
                layer = nn.Conv2d(inputs, outputs, kernel, padding=padding)
            elif kind == "deconv":
                outputs = scaled(outputs, width)
                layer = Deconv(inputs, outputs)
            else:
                outputs = scaled(outputs, width)
                options = {"stride": stride, "padding": padding, "dilation": dilation}
                layer = Conv(inputs, outputs, kernel, **options)
            self.add_module(f"{kind}{index}", layer)
            inputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        """[b, 4, h, w] to [b, 3, h, w] in [0, 1]."""
        for layer in self.children():
            x = layer(x)
        return torch.sigmoid(x)


class Column(nn.Module):
    """5x5 convolutions of stride 2 down to a map of at most 5x5, and a dense layer."""

    def __init__(self, side: int, width: float) -> None:
        super().__init__()
        inputs, self.depth = 3, 0
        while side > 5:
            self.depth, side = self.depth + 1, -(-side // 2)
            outputs = scaled(DISCRIMINATOR[self.depth - 1], width)
            conv = Conv(inputs, outputs, 5, stride=2, padding=2)
            self.add_module(f"conv{self.depth}", conv)
            inputs = outputs
        self.features = nn.Linear(inputs * side * side, scaled(FEATURES, width))

    def forward(self, x: Tensor, track: bool) -> Tensor:
        """[b, 3, side, side] to [b, features]."""
        for index in range(1, self.depth + 1):
            x = self.get_submodule(f"conv{index}")(x, track)
        return F.relu_(self.features(x.flatten(1)))


class ContextDiscriminator(nn.Module):
    """Images and windows to logits."""

    def __init__(self, image_size: int, local_size: int, width: float) -> None:
        super().__init__()
        # `global` is a word of Python's, over which torch.compile stumbles.
        self.local_ = Column(local_size, width)
        self.global_ = Column(image_size, width)
        self.fusion = nn.Linear(2 * scaled(FEATURES, width), 1)

    def forward(self, images: Tensor, patches: Tensor, track: bool = True) -> Tensor:
        """[b, 3, h, w] and [b, 3, s, s] to [b]."""
        local = self.local_(patches, track)
        whole = self.global_(images, track)
        return self.fusion(torch.cat([local, whole], 1))[:, 0]


def load(net: nn.Module, arrays: dict[str, np.ndarray], prefix: str) -> None:
    """Copies the arrays named `prefix.` into the network; all have to be there."""
    column = re.compile(r"^(local|global)\.")
    tensors = {
        column.sub(r"\1_.", name.removeprefix(f"{prefix}.")): torch.from_numpy(array)
        for name, array in arrays.items()
        if name.startswith(f"{prefix}.")
    }
    counters = {k: v for k, v in net.state_dict().items() if "num_batches" in k}
    net.load_state_dict(tensors | counters)


@dataclass
class Examples:
    """Photographs of a step with what was drawn for them; corners are (y, x) pixels."""

    images: Tensor
    mask: Tensor
    corner: list[list[int]]
    real_corner: list[list[int]]


def draw(
    images: Tensor, low: int, high: int, local_size: int, generator: torch.Generator
) -> Examples:
    """A hole for each photograph and two windows: around the hole, and a random one."""
    batch, _, height, width = images.shape
    bounds = torch.tensor([height, width])

    def holes() -> tuple[Tensor, Tensor, Tensor]:
        size = torch.randint(low, high + 1, (batch, 2), generator=generator)
        share = torch.rand(batch, 2, generator=generator)
        top_left = (share * (bounds - size + 1)).long()
        corner = top_left + size // 2 - local_size // 2
        zero = torch.zeros_like(corner)
        return (
            top_left,
            size,
            corner.clamp(zero, (bounds - local_size).expand(batch, 2)),
        )

    top_left, size, corner = holes()
    first = top_left.to(images.device, non_blocking=True)
    end = (top_left + size).to(images.device, non_blocking=True)
    inside = []
    for axis, length in enumerate((height, width)):
        at = torch.arange(length, device=images.device)
        inside.append((first[:, axis, None] <= at) & (at < end[:, axis, None]))
    mask = (inside[0][:, None, :, None] & inside[1][:, None, None, :]).float()
    return Examples(images, mask, corner.tolist(), holes()[2].tolist())


def network_input(images: Tensor, mask: Tensor, mean_color: Tensor) -> Tensor:
    return torch.cat([(images - mean_color) * (1 - mask), mask], 1)


def crop(images: Tensor, corner: list[list[int]], size: int) -> Tensor:
    pairs = zip(images, corner, strict=True)
    return torch.stack(
        [image[:, y : y + size, x : x + size] for image, (y, x) in pairs]
    )


def completion_loss(completed: Tensor, examples: Examples) -> Tensor:
    return (examples.mask * (completed - examples.images)).square().mean()


class Trainer:
    """Both networks with their optimizers, and the two updates of Algorithm 1."""

    def __init__(
        self,
        completion: nn.Module,
        discriminator: nn.Module | None,
        *,
        mean_color: Tensor,
        local_size: int,
        alpha: float,
        memory_format: torch.memory_format,
        autocast: torch.dtype | None,
        compiled: bool,
    ) -> None:
        # torch picks the foreach implementation wherever it is the faster one.
        settings = {"lr": 1.0, "rho": 0.9, "eps": 1e-6}
        self.optimizer = torch.optim.Adadelta(completion.parameters(), **settings)
        self.completion = _compiled(completion, compiled)
        self.weights = discriminator
        if discriminator is not None:
            self.adversary = torch.optim.Adadelta(
                discriminator.parameters(), **settings
            )
            self.discriminator = _compiled(discriminator, compiled)
        self._mean_color, self._local_size = mean_color, local_size
        self._alpha, self._autocast = alpha, autocast
        self._format = memory_format

    def completion_step(self, examples: Examples) -> dict[str, Tensor]:
        """One update of the completion network by the masked squared error."""
        loss = completion_loss(self._complete(examples), examples)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return {"loss.completion": loss.detach()}

    def joint_step(self, examples: Examples) -> dict[str, Tensor]:
        """The discriminator, then the completion network against the updated one."""
        assert self.weights is not None
        completed = self._complete(examples)
        fakes = torch.where(examples.mask > 0, completed, examples.images)
        detached = fakes.detach()
        fake_logits = self._judge(detached, examples.corner)
        real_logits = self._judge(examples.images, examples.real_corner)
        judging = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
        self.adversary.zero_grad(set_to_none=True)
        judging.backward()
        self.adversary.step()

        self.weights.requires_grad_(False)
        logits = self._judge(fakes, examples.corner, track=False)
        adversarial = F.softplus(-logits).mean()
        error = completion_loss(completed, examples)
        self.optimizer.zero_grad(set_to_none=True)
        (error + self._alpha * adversarial).backward()
        self.optimizer.step()
        self.weights.requires_grad_(True)
        return {
            "loss.completion": error.detach(),
            "loss.discriminator": judging.detach(),
            "adversarial.loss": adversarial.detach(),
            "composite": detached,
        }

    def adversarial_gradient_norm(self, examples: Examples, fakes: Tensor) -> Tensor:
        """The norm of alpha times the adversarial gradient at the completed images."""
        assert self.weights is not None
        self.weights.requires_grad_(False)
        fakes = fakes.clone().requires_grad_(True)
        logits = self._judge(fakes, examples.corner, track=False)
        (gradient,) = torch.autograd.grad(F.softplus(-logits).mean(), fakes)
        self.weights.requires_grad_(True)
        return self._alpha * (gradient * examples.mask).norm()

    def _complete(self, examples: Examples) -> Tensor:
        inputs = network_input(examples.images, examples.mask, self._mean_color)
        # Joining loses the format that the convolutions are fastest in.
        inputs = inputs.contiguous(memory_format=self._format)
        with self._precision():
            return self.completion(inputs).float()

    def _judge(
        self, images: Tensor, corner: list[list[int]], track: bool = True
    ) -> Tensor:
        patches = crop(images, corner, self._local_size)
        patches = patches.contiguous(memory_format=self._format)
        with self._precision():
            return self.discriminator(images, patches, track).float()

    @contextlib.contextmanager
    def _precision(self) -> Iterator[None]:
        if self._autocast is None:
            yield
        else:
            with torch.autocast(self._mean_color.device.type, self._autocast):
                yield


def _compiled(module: nn.Module, compiled: bool) -> Any:
    return torch.compile(module, dynamic=False) if compiled else module
