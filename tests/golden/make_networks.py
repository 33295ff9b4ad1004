"""Writes networks.npz: what PyTorch computes with the weights of weights.py.

The networks are written here a second time, in torch and from the tables of the paper
alone, and run in float64; the results are stored as float32. By hand, with torch:

    python tests/golden/make_networks.py
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
import weights

Tensor = torch.Tensor
Tensors = dict[str, Tensor]
Activation = Callable[[Tensor], Tensor]

DILATION = {"conv7": 2, "conv8": 4, "conv9": 8, "conv10": 16}
HALVING = ("conv2", "conv4")


def tensors(arrays: weights.Arrays) -> Tensors:
    return {name: torch.from_numpy(array).double() for name, array in arrays.items()}


def normalize(x: Tensor, name: str, arrays: Tensors, train: bool) -> Tensor:
    """BatchNorm with torch's eps and momentum; `train` also moves the running statistics."""
    return F.batch_norm(
        x,
        arrays[f"{name}.norm.running_mean"],
        arrays[f"{name}.norm.running_var"],
        arrays[f"{name}.norm.weight"],
        arrays[f"{name}.norm.bias"],
        training=train,
        momentum=0.1,
        eps=1e-5,
    )


def complete(
    x: Tensor, arrays: Tensors, order: str, last: Activation, train: bool
) -> Tensor:
    """The 17 layers: zero padding of dilation * (kernel - 1) / 2, deconvs of padding 1."""
    for name, size, _, _ in weights.COMPLETION:
        weight, bias = arrays[f"{name}.weight"], arrays[f"{name}.bias"]
        if name.startswith("deconv"):
            x = F.conv_transpose2d(x, weight, bias, stride=2, padding=1)
        else:
            dilation = DILATION.get(name, 1)
            stride = 2 if name in HALVING else 1
            padding = dilation * (size - 1) // 2
            x = F.conv2d(x, weight, bias, stride, padding, dilation)
        if name == "conv17":
            return last(x)
        if order == "norm_activation":
            x = F.relu(normalize(x, name, arrays, train))
        else:
            x = normalize(F.relu(x), name, arrays, train)
    raise AssertionError("the table ends with conv17")


def describe(x: Tensor, name: str, depth: int, arrays: Tensors, train: bool) -> Tensor:
    """The 1024 features of one discriminator, after their ReLU."""
    for index in range(1, depth + 1):
        layer = f"{name}.conv{index}"
        x = F.conv2d(x, arrays[f"{layer}.weight"], arrays[f"{layer}.bias"], 2, 2)
        x = F.relu(normalize(x, layer, arrays, train))
    # torch flattens channels first, which is the order of the dense layer's inputs.
    x = x.flatten(1)
    return F.relu(
        F.linear(x, arrays[f"{name}.features.weight"], arrays[f"{name}.features.bias"])
    )


def completions() -> dict[str, Tensor]:
    lasts: dict[str, Activation] = {
        "sigmoid": torch.sigmoid,
        "clamp": lambda x: x.clamp(0, 1),
    }
    results = {}
    for case in weights.CASES:
        order, last, size, mode = case.split(".")
        arrays = tensors(weights.completion())
        inputs = torch.from_numpy(weights.completion_inputs(size)).double()
        outputs = complete(inputs, arrays, order, lasts[last], mode == "train")
        results[case] = outputs[:, :, :: weights.KEEP, :: weights.KEEP]
        if case == weights.MOVED:
            moved = {name: array for name, array in arrays.items() if "running" in name}
            results |= {f"moved.{name}": array for name, array in moved.items()}
    return results


def judgements() -> dict[str, Tensor]:
    results = {}
    for mode in ("eval", "train"):
        arrays = tensors(weights.discriminator())
        images, patches = (
            torch.from_numpy(x).double() for x in weights.discriminator_inputs()
        )
        train = mode == "train"
        local = describe(patches, "local", 5, arrays, train)
        whole = describe(images, "global", 6, arrays, train)
        fused = F.linear(
            torch.cat([local, whole], 1), arrays["fusion.weight"], arrays["fusion.bias"]
        )
        results |= {
            f"local.{mode}": local,
            f"global.{mode}": whole,
            f"logits.{mode}": fused[:, 0],
        }
    return results


def alive(name: str, array: npt.NDArray[np.float32]) -> None:
    """Raises where a result is too flat, too large or too saturated to prove anything."""
    # Two logits are too few to have a spread; that they are not 0 is enough.
    spread = np.abs(array).max() if "logits" in name else array.std()
    print(
        f"{name:45} {array.shape!s:18} {array.min():8.3f} {array.max():8.3f} {spread:7.3f}"
    )
    if not np.isfinite(array).all() or not 0.02 < spread < 10:
        raise SystemExit(f"{name} proves nothing: its spread is {spread}")
    inside = ((array > 0.001) & (array < 0.999)).mean()
    if ("sigmoid" in name or "clamp" in name) and inside < 0.4:
        raise SystemExit(
            f"{name} proves nothing: only {inside:.0%} of it is inside (0, 1)"
        )


def main() -> None:
    results = completions() | judgements()
    arrays = {
        name: result.numpy().astype(np.float32) for name, result in results.items()
    }
    for name, array in arrays.items():
        if not name.startswith("moved"):
            alive(name, array)
    path = Path(__file__).with_name("networks.npz")
    np.savez_compressed(path, **arrays)
    print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
