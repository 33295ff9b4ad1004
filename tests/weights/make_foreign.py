"""Writes foreign.npz, torch_zip.pth and torch_stream.pth. By hand, with torch:

    python tests/weights/make_foreign.py

foreign.npz holds what other projects' networks compute, written here in torch from the
specification, with the weights of foreign.py: each project's whole pipeline on the same
photograph, completed [h, w, 3] as RGB in [0, 1], every third pixel each way; and the
logits of the discriminators, [2]. The networks run in float64.
The two .pth files hold a few tensors, as torch.save writes them in both its containers.
"""

from pathlib import Path

import foreign
import numpy as np
import torch
from torch import nn

HERE = Path(__file__).parent
DILATION = {6: 2, 7: 4, 8: 8, 9: 16}


def convolution(index: int, *, bias: bool = True) -> nn.Module:
    name, size, inputs, outputs = foreign.TABLE[index]
    if name.startswith("deconv"):
        return nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=bias)
    stride, dilation = (2 if index in (1, 3) else 1), DILATION.get(index, 1)
    padding = dilation * (size - 1) // 2
    return nn.Conv2d(inputs, outputs, size, stride, padding, dilation, bias=bias)


def sequential() -> nn.Module:
    modules: list[nn.Module] = []
    for index in range(16):
        modules += [
            convolution(index),
            nn.BatchNorm2d(foreign.OUTPUTS[index]),
            nn.ReLU(),
        ]
    return nn.Sequential(*modules, convolution(16), nn.Sigmoid())


class Blocks(nn.Sequential):
    """The authors' network as a sequence of blocks, as one conversion has it."""

    def __init__(self) -> None:
        blocks = [
            nn.Sequential(convolution(i), nn.BatchNorm2d(foreign.OUTPUTS[i]), nn.ReLU())
            for i in range(16)
        ]
        super().__init__(*blocks, convolution(16), nn.Sigmoid())


class ConvModule(nn.Module):
    """conv, BatchNorm, ReLU under mmcv's names."""

    def __init__(self, conv: nn.Module, outputs: int, norm: bool = True) -> None:
        super().__init__()
        self.conv = conv
        if norm:
            self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return torch.relu(self.bn(x)) if hasattr(self, "bn") else x


class MMGenerator(nn.Module):
    """mmediting's encoder, dilated neck and decoder; clamped to [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [
            ConvModule(convolution(i, bias=i == 16), foreign.OUTPUTS[i], norm=i < 16)
            for i in range(17)
        ]
        self.encoder = nn.ModuleDict({f"enc{i + 1}": blocks[i] for i in range(6)})
        self.dilation_neck = nn.ModuleDict(
            {"dilation_convs": nn.Sequential(*blocks[6:10])}
        )
        self.decoder = nn.ModuleDict({f"dec{i + 1}": blocks[10 + i] for i in range(7)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in (self.encoder, self.dilation_neck, self.decoder):
            for block in part.values():
                x = block(x)
        return x.clamp(-1, 1)


class MMColumn(nn.Module):
    """One of mmediting's discriminators, up to its features."""

    def __init__(self, size: int, depth: int) -> None:
        super().__init__()
        inputs = 3
        for index, outputs in enumerate(foreign.DISCRIMINATOR[:depth], 1):
            conv = nn.Conv2d(inputs, outputs, 5, 2, 2, bias=False)
            self.add_module(f"conv{index}", ConvModule(conv, outputs))
            inputs, size = outputs, size // 2
        linear = nn.Linear(inputs * size**2, foreign.FEATURES)
        self.fc = nn.ModuleDict({"linear": linear})
        self.depth = depth

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for index in range(self.depth):
            x = getattr(self, f"conv{index + 1}")(x)
        return torch.relu(self.fc["linear"](x.flatten(1)))


class MMDiscs(nn.Module):
    """mmediting's fusion, the global features first."""

    def __init__(self, arch: str) -> None:
        super().__init__()
        image, local, image_depth, local_depth = foreign.ARCHES[arch]
        self.global_disc = MMColumn(image, image_depth)
        self.local_disc = MMColumn(local, local_depth)
        self.fc = nn.Linear(2 * foreign.FEATURES, 1)

    def forward(self, images: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        both = [self.global_disc(images), self.local_disc(patches)]
        return self.fc(torch.cat(both, 1))


class MMEditing(nn.Module):
    """The generator and the discriminators, as in one checkpoint."""

    def __init__(self, arch: str = "places2") -> None:
        super().__init__()
        self.generator, self.disc = MMGenerator(), MMDiscs(arch)


class GlcicCompletion(nn.Module):
    """GLCIC-PyTorch: BatchNorm after the ReLU."""

    def __init__(self) -> None:
        super().__init__()
        for index, (name, *_) in enumerate(foreign.TABLE):
            self.add_module(name, convolution(index))
            if index < 16:
                norm = nn.BatchNorm2d(foreign.OUTPUTS[index])
                self.add_module(f"bn{index + 1}", norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for index, (name, *_) in enumerate(foreign.TABLE[:-1], 1):
            x = getattr(self, f"bn{index}")(torch.relu(getattr(self, name)(x)))
        return torch.sigmoid(self.conv17(x))


class GlcicColumn(nn.Module):
    """One of GLCIC-PyTorch's discriminators, up to its features."""

    def __init__(self, size: int, depth: int) -> None:
        super().__init__()
        inputs = 3
        for index, outputs in enumerate(foreign.DISCRIMINATOR[:depth], 1):
            self.add_module(f"conv{index}", nn.Conv2d(inputs, outputs, 5, 2, 2))
            self.add_module(f"bn{index}", nn.BatchNorm2d(outputs))
            inputs, size = outputs, size // 2
        linear = nn.Linear(inputs * size**2, foreign.FEATURES)
        self.add_module(f"linear{depth + 1}", linear)
        self.depth = depth

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for index in range(1, self.depth + 1):
            x = getattr(self, f"bn{index}")(
                torch.relu(getattr(self, f"conv{index}")(x))
            )
        return torch.relu(getattr(self, f"linear{self.depth + 1}")(x.flatten(1)))


class GlcicDiscriminator(nn.Module):
    """GLCIC-PyTorch's fusion, the local features first; before its sigmoid."""

    def __init__(self, arch: str) -> None:
        super().__init__()
        image, local, image_depth, local_depth = foreign.ARCHES[arch]
        self.model_ld = GlcicColumn(local, local_depth)
        self.model_gd = GlcicColumn(image, image_depth)
        self.linear1 = nn.Linear(2 * foreign.FEATURES, 1)

    def forward(self, images: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        both = [self.model_ld(patches), self.model_gd(images)]
        return self.linear1(torch.cat(both, 1))


def loaded(module: nn.Module, arrays: foreign.Arrays) -> nn.Module:
    """The module with these weights; a name too many or too few raises."""
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}
    known = module.state_dict()
    for name in set(known) - set(state):
        assert name.endswith("num_batches_tracked"), name
        state[name] = known[name]
    module.load_state_dict(state)
    return module.double().eval()


def tensor(array: np.ndarray) -> torch.Tensor:
    """[h, w, c] of any type to [1, c, h, w], float64."""
    return torch.from_numpy(np.array(array, np.float64)).permute(2, 0, 1)[None]


def pipelines() -> dict[str, torch.Tensor]:
    """Every project's own way from the photograph to the completed picture, RGB."""
    image, mask = foreign.photo()
    rgb, hole = tensor(image), tensor(mask[..., None])
    mean = torch.tensor(foreign.MEAN, dtype=torch.float64)[None, :, None, None]
    results = {}
    # The authors': the mean subtracted, then zeros in the hole.
    centred = (rgb / 255 - mean) * (1 - hole)
    x = torch.cat([centred, hole], 1)
    results["sequential"] = loaded(sequential(), foreign.sequential())(x)
    results["nested_sequential"] = loaded(Blocks(), foreign.nested_sequential())(x)
    # mmediting: blue first, in [-1, 1], zeros in the hole; back to RGB in [0, 1].
    bgr = (rgb.flip(1) - 127.5) / 127.5
    x = torch.cat([bgr * (1 - hole), hole], 1)
    output = loaded(MMEditing(), foreign.mmediting()).generator(x)
    results["mmediting"] = (output.flip(1) + 1) / 2
    # GLCIC-PyTorch: in [0, 1], the mean colour in the hole, nothing subtracted.
    x = torch.cat([rgb / 255 * (1 - hole) + mean * hole, hole], 1)
    results["glcic_pytorch"] = loaded(GlcicCompletion(), foreign.glcic_completion())(x)
    keep = slice(None, None, foreign.KEEP)
    return {name: y[0].permute(1, 2, 0)[keep, keep] for name, y in results.items()}


def logits() -> dict[str, torch.Tensor]:
    """The logits of every discriminator."""
    results = {}
    for arch in foreign.ARCHES:
        images, patches = (torch.from_numpy(x).double() for x in foreign.shown(arch))
        discriminator = loaded(
            GlcicDiscriminator(arch), foreign.glcic_discriminator(arch)
        )
        results[f"glcic_pytorch.{arch}"] = discriminator(images, patches)[:, 0]
        if arch == "places2":
            discriminator = loaded(MMEditing(), foreign.mmediting()).disc
            bgr = images.flip(1) * 2 - 1, patches.flip(1) * 2 - 1
            results["mmediting.judge"] = discriminator(*bgr)[:, 0]
    return results


def archives() -> None:
    """A few tensors of each kind, as torch writes them."""
    counted = torch.arange(24, dtype=torch.float32)
    state = nn.BatchNorm2d(3).state_dict()  # an OrderedDict with attributes
    held = {
        "float": counted.reshape(4, 6),
        "transposed": counted.reshape(4, 6).t(),
        "part": counted.reshape(4, 6)[1:3, ::2],
        "half": (counted / 8).half(),
        "bfloat": (counted / 8).bfloat16(),
        "double": counted.double(),
        "long": torch.arange(5),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(2.5),
        "parameter": nn.Parameter(torch.ones(2)),
        "state_dict": state,
        "meta": {"epoch": 3, "name": "ü", "lr": 0.5, "sizes": [torch.Size([1, 2])],
                 "big": 2**40, "none": None, "nested": ({"a": (1, 2, 3, 4)},)},
    }  # fmt: skip
    for name, zipped in (("torch_zip", True), ("torch_stream", False)):
        torch.save(held, HERE / f"{name}.pth", _use_new_zipfile_serialization=zipped)


@torch.no_grad()
def main() -> None:
    results = pipelines() | logits()
    arrays = {name: y.numpy().astype(np.float32) for name, y in results.items()}
    for name, array in arrays.items():
        print(f"{name:22} {array.shape!s:12} {array.min():7.3f} {array.max():7.3f} "
              f"{array.std():6.3f}")  # fmt: skip
    np.savez_compressed(HERE / "foreign.npz", **arrays)
    archives()


if __name__ == "__main__":
    main()
