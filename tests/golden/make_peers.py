"""Writes peers.npz: the gradients of one step of each phase, as other projects take them.

GLCIC-PyTorch's and mmediting's networks are those of ../weights/make_foreign.py, in torch,
with the weights of ../weights/foreign.py; their losses are written here from what the two
projects do, and run in float64. By hand, with torch:

    python tests/golden/make_peers.py
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "weights"))
import foreign  # noqa: E402
import make_foreign  # noqa: E402

COUNT, SIDE, LOCAL = 4, 32, 16
# Every seventh value of each gradient is stored: 7 is prime to the sides of all kernels.
KEEP = 7

# Top, left, height and width of holes, one list for an image. GLCIC-PyTorch's lie in one
# window, and an image may have several; mmediting's are one box for each image.
SHARED = [[(9, 12, 8, 12)], [(14, 11, 10, 9), (9, 17, 9, 8)], [(12, 15, 12, 8)],
          [(10, 10, 9, 9), (15, 18, 8, 8), (9, 11, 12, 10)]]  # fmt: skip
BOXES = [[(4, 7, 10, 12)], [(15, 3, 12, 11)], [(18, 18, 10, 10)], [(2, 19, 12, 8)]]

Gradients = dict[str, list[tuple[str, Tensor]]]


def photographs() -> np.ndarray:
    """Waves under noise, uint8 [b, h, w, 3]."""
    pairs = [
        foreign.weights.images(f"peers.{i}", SIDE, SIDE) for i in range(COUNT // 2)
    ]
    images = np.concatenate(pairs).transpose(0, 2, 3, 1)
    return np.clip(images * 255, 0, 255).round().astype(np.uint8)


def masks(holes: list[list[tuple[int, int, int, int]]]) -> np.ndarray:
    """[b, h, w, 1], 1 = missing."""
    mask = np.zeros((COUNT, SIDE, SIDE, 1), np.uint8)
    for image, boxes in zip(mask, holes, strict=True):
        for top, left, height, width in boxes:
            image[top : top + height, left : left + width] = 1
    return mask


def channels_first(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).double().permute(0, 3, 1, 2)


def crop(images: Tensor, corners: np.ndarray) -> Tensor:
    return torch.stack([
        image[:, y : y + LOCAL, x : x + LOCAL]
        for image, (y, x) in zip(images, corners, strict=True)
    ])  # fmt: skip


def cross_entropy(logits: Tensor, real: bool) -> Tensor:
    """BCE of the sigmoid, averaged over the batch."""
    target = torch.full_like(logits, float(real))
    return F.binary_cross_entropy(torch.sigmoid(logits), target)


def gradients(loss: Tensor, network: nn.Module) -> list[tuple[str, Tensor]]:
    names, params = zip(*network.named_parameters(), strict=True)
    return list(
        zip(names, torch.autograd.grad(loss, params, retain_graph=True), strict=True)
    )


def glcic_pytorch(
    images: Tensor, mask: Tensor, fake_at: np.ndarray, real_at: np.ndarray
) -> Gradients:
    """Its three phases: RGB in [0, 1], the raw output, halved losses, alpha = 0.0004."""
    cn = make_foreign.loaded(
        make_foreign.GlcicCompletion(), foreign.glcic_completion()
    ).train()
    cd = make_foreign.loaded(
        make_foreign.GlcicDiscriminator("small"), foreign.glcic_discriminator("small")
    ).train()
    mean = torch.tensor(foreign.MEAN, dtype=torch.float64)[None, :, None, None]
    output = cn(torch.cat([images - images * mask + mean * mask, mask], 1))
    error = F.mse_loss(output * mask, images * mask)
    shown = output.detach()
    fake = cross_entropy(cd(shown, crop(shown, fake_at)), False)
    real = cross_entropy(cd(images, crop(images, real_at)), True)
    adversarial = cross_entropy(cd(output, crop(output, fake_at)), True)
    return {
        "completion": gradients(error, cn),
        "discriminator": gradients((fake + real) / 2, cd),
        "joint": gradients((error + 4e-4 * adversarial) / 2, cn),
    }


def mmediting(
    images: Tensor, mask: Tensor, fake_at: np.ndarray, real_at: np.ndarray
) -> Gradients:
    """Its three phases: BGR in [-1, 1], composites, L1 over all missing pixels."""
    model = make_foreign.loaded(
        make_foreign.MMEditing("small"), foreign.mmediting("small")
    ).train()
    images = images.flip(1) * 2 - 1
    output = model.generator(torch.cat([images * (1 - mask), mask], 1))
    composite = images * (1 - mask) + output * mask
    error = (mask * (output - images)).abs().sum() / (3 * mask.sum())
    shown = composite.detach()
    fake = cross_entropy(model.disc(shown, crop(shown, fake_at)), False)
    real = cross_entropy(model.disc(images, crop(images, real_at)), True)
    adversarial = cross_entropy(model.disc(composite, crop(composite, fake_at)), True)
    return {
        "completion": gradients(error, model.generator),
        "discriminator": gradients(fake + real, model.disc),
        "joint": gradients(error + 1e-3 * adversarial, model.generator),
    }


def main() -> None:
    images = photographs()
    around = [
        [boxes[0][i] + boxes[0][i + 2] // 2 - LOCAL // 2 for i in (0, 1)]
        for boxes in BOXES
    ]
    boxes = np.clip(around, 0, SIDE - LOCAL)
    recipes = {
        "glcic_pytorch": (glcic_pytorch, SHARED, [[9, 10]] * COUNT, [[3, 14]] * COUNT),
        "mmediting": (mmediting, BOXES, boxes, boxes),
    }
    results = {"photographs": images}
    for name, (take, holes, fake_at, real_at) in recipes.items():
        mask = masks(holes)
        drawn = {"mask": mask, "fake": np.array(fake_at), "real": np.array(real_at)}
        results |= {f"{name}.{key}": array for key, array in drawn.items()}
        taken = take(
            channels_first(images) / 255,
            channels_first(mask),
            drawn["fake"],
            drawn["real"],
        )
        for phase, pairs in taken.items():
            kept = [array.flatten()[::KEEP] for _, array in sorted(pairs)]
            results[f"{name}.{phase}"] = torch.cat(kept).numpy().astype(np.float32)
            size = {key: float(array.abs().max()) for key, array in pairs}
            weakest = min(size, key=lambda key: size[key])
            print(f"{name:14} {phase:14} {len(pairs):3} arrays, largest values from "
                  f"{size[weakest]:.1e} ({weakest}) to {max(size.values()):.1e}")  # fmt: skip
    path = HERE / "peers.npz"
    np.savez_compressed(path, **results)
    print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
