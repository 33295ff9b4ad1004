"""GLCIC in PyTorch, from the paper's tables: what gl_jax is measured against.

The networks, losses and holes; `peer.Training` has the steps. Modules take images
[b, 3, h, w] in [0, 1].
"""

import re
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
        """Normalises; in training `track` moves the running statistics."""
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
        """Applies all three."""
        return F.relu_(self.norm(super().forward(x), track))


class Deconv(nn.ConvTranspose2d):
    """Transposed convolution that doubles the size, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 4, stride=2, padding=1)
        self.norm = Norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Applies all three."""
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
        """Takes [b, 4, h, w] to [b, 3, h, w] in [0, 1]."""
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
        """Takes [b, 3, side, side] to [b, features]."""
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
        """Takes [b, 3, h, w] and [b, 3, s, s] to [b]."""
        features = [self.local_(patches, track), self.global_(images, track)]
        return self.fusion(torch.cat(features, 1))[:, 0]


def load(net: nn.Module, arrays: dict[str, np.ndarray], prefix: str) -> None:
    """Copies the arrays named `prefix.` into the network; none may be missing."""
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
    """A batch with its holes and windows; corners are (y, x) in pixels."""

    images: Tensor
    mask: Tensor
    corner: list[list[int]]
    real_corner: list[list[int]]


def draw(
    images: Tensor, low: int, high: int, local_size: int, generator: torch.Generator
) -> Examples:
    """Draws a hole for each image and two windows: around the hole, and a random one."""
    batch, _, *sides = images.shape
    bounds = torch.tensor(sides)

    def holes() -> tuple[Tensor, Tensor, Tensor]:
        size = torch.randint(low, high + 1, (batch, 2), generator=generator)
        share = torch.rand(batch, 2, generator=generator)
        start = (share * (bounds - size + 1)).long()
        corner = start + size // 2 - local_size // 2
        limit = (bounds - local_size).expand(batch, 2)
        return start, start + size, corner.clamp(torch.zeros_like(corner), limit)

    start, end, corner = holes()
    start, end = (t.to(images.device, non_blocking=True) for t in (start, end))
    rows, columns = (
        (start[:, axis, None] <= at) & (at < end[:, axis, None])
        for axis, side in enumerate(sides)
        for at in [torch.arange(side, device=images.device)]
    )
    mask = (rows[:, None, :, None] & columns[:, None, None, :]).float()
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


def adversarial_loss(logits: Tensor) -> Tensor:
    return F.softplus(-logits).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def adadelta(net: nn.Module) -> torch.optim.Optimizer:
    # torch picks the foreach implementation wherever it is the faster one.
    return torch.optim.Adadelta(net.parameters(), lr=1.0, rho=0.9, eps=1e-6)


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
