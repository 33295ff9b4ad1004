"""PyTorch's side of every task.

A configuration is eager or channels_last, followed by "+compile" for torch.compile;
bfloat16 is autocast.
"""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from benchmarks import machine, tasks, twin
from benchmarks.tasks import FIRST, MEAN_COLOR, Arrays, Settings, flattened
from gl_jax.config import UsageError

ALPHA = 4e-4


def start(settings: Settings) -> None:
    """Starts torch on the device of the case, with all processors."""
    torch.set_num_threads(machine.processors())
    if "compile" in settings.get("configuration", ""):
        # Imported late by torch itself, and not to be counted as memory of the work.
        importlib.import_module("torch._inductor.compile_fx")
    if settings["device"] == "gpu":
        if not torch.cuda.is_available():
            raise UsageError("this torch sees no GPU.")
        torch.zeros(1, device="cuda")
        # As JAX does by default: TF32 in float32 products, the fastest algorithm.
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True


def versions() -> dict[str, str]:
    """Returns the version of the library that does the work."""
    return {"torch": torch.__version__}


def peak_bytes(at_start: int) -> int:
    """Returns the peak memory: the GPU's if there is one, else the process's."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    return machine.peak() - at_start


class Configured(tasks.Task):
    """A task with its configuration: device, memory format, precision, compilation."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        layout, *words = settings["configuration"].split("+")
        self._device = torch.device("cuda" if settings["device"] == "gpu" else "cpu")
        formats = {"channels_last": torch.channels_last}
        self._format = formats.get(layout, torch.contiguous_format)
        self._compiled = "compile" in words
        color = torch.tensor(MEAN_COLOR, device=self._device)
        self._mean_color = color.view(1, 3, 1, 1)

    def wait(self, results: Any) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def _placed(self, module: nn.Module) -> nn.Module:
        return module.to(device=self._device, memory_format=self._format)

    def _runnable(self, module: nn.Module) -> Any:
        return torch.compile(module, dynamic=False) if self._compiled else module

    def _tensor(self, images: np.ndarray) -> Tensor:
        """Returns [b, h, w, c] of any type as float [b, c, h, w], uint8 in [0, 1]."""
        tensor = torch.from_numpy(images).to(self._device, non_blocking=True)
        tensor = tensor.permute(0, 3, 1, 2).contiguous(memory_format=self._format)
        return tensor.float().div_(255) if images.dtype == np.uint8 else tensor

    def _run(self, net: Any, *tensors: Tensor, **options: Any) -> Tensor:
        """Runs a network in the case's precision; returns float32."""
        # Cutting and joining lose the format that the convolutions are fastest in.
        tensors = tuple(t.contiguous(memory_format=self._format) for t in tensors)
        enabled = self.settings["precision"] == "bfloat16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=enabled):
            return net(*tensors, **options).float()

    def _complete(self, net: Any, images: Tensor, mask: Tensor) -> Tensor:
        return self._run(net, twin.network_input(images, mask, self._mean_color))


class Training(Configured, tasks.Training):
    """The two updates of Algorithm 1, written for speed as one would train with them.

    One forward pass of the completion network serves both updates, gradients of the
    discriminator's weights are not computed where they are not used, holes are drawn on
    the host so that nothing waits for the device, and the optimizer is torch's own.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        sides = settings["image_size"], settings["local_size"]
        nets: dict[str, nn.Module] = {
            "completion": twin.CompletionNetwork(settings["width"])
        }
        if settings["phase"] == "joint":
            discriminator = twin.ContextDiscriminator(*sides, settings["width"])
            nets["discriminator"] = discriminator
        self._nets = {name: self._placed(net) for name, net in nets.items()}
        self._optimizers = {n: twin.adadelta(net) for n, net in self._nets.items()}
        self._runnables = {n: self._runnable(net) for n, net in self._nets.items()}
        self._generator = torch.Generator().manual_seed(0)

    def outcome(self, folder: Path) -> Arrays:
        with np.load(folder / "exchange.npz") as file:
            arrays = dict(file)
        for name, net in self._nets.items():
            twin.load(net, arrays, name)
        examples = twin.Examples(
            self._tensor(*self.inputs(FIRST)),
            self._tensor(arrays["mask"]),
            arrays["corner"].tolist(),
            arrays["real_corner"].tolist(),
        )
        before = {name: _weights(net) for name, net in self._nets.items()}
        values = self._step(examples)
        if "composite" in values:
            norm = self._adversarial_gradient_norm(examples, values.pop("composite"))
            values["adversarial.gradient"] = norm
        results = {name: value.cpu().numpy() for name, value in values.items()}
        for name, net in self._nets.items():
            results[f"update.{name}"] = _weights(net) - before[name]
        return results

    def work(self, images: np.ndarray) -> dict[str, Tensor]:
        low, high = self.settings["holes"]
        sizes = low, high, self.settings["local_size"]
        return self._step(twin.draw(self._tensor(images), *sizes, self._generator))

    def _step(self, examples: twin.Examples) -> dict[str, Tensor]:
        net = self._runnables["completion"]
        completed = self._complete(net, examples.images, examples.mask)
        error = twin.completion_loss(completed, examples)
        if "discriminator" in self._nets:
            return self._joint_updates(examples, completed, error)
        twin.update(self._optimizers["completion"], error)
        return {"loss.completion": error.detach()}

    def _joint_updates(
        self, examples: twin.Examples, completed: Tensor, error: Tensor
    ) -> dict[str, Tensor]:
        """Updates the discriminator, then the completion network against the new one."""
        composite = torch.where(examples.mask > 0, completed, examples.images)
        detached = composite.detach()
        fake_logits = self._logits(detached, examples.corner)
        real_logits = self._logits(examples.images, examples.real_corner)
        loss = twin.discriminator_loss(real_logits, fake_logits)
        twin.update(self._optimizers["discriminator"], loss)

        self._nets["discriminator"].requires_grad_(False)
        logits = self._logits(composite, examples.corner, track=False)
        adversarial = twin.adversarial_loss(logits)
        twin.update(self._optimizers["completion"], error + ALPHA * adversarial)
        self._nets["discriminator"].requires_grad_(True)
        return {
            "loss.completion": error.detach(),
            "loss.discriminator": loss.detach(),
            "adversarial.loss": adversarial.detach(),
            "composite": detached,
        }

    def _logits(
        self, images: Tensor, corner: list[list[int]], track: bool = True
    ) -> Tensor:
        patches = twin.crop(images, corner, self.settings["local_size"])
        return self._run(self._runnables["discriminator"], images, patches, track=track)

    def _adversarial_gradient_norm(
        self, examples: twin.Examples, composite: Tensor
    ) -> Tensor:
        composite = composite.clone().requires_grad_(True)
        logits = self._logits(composite, examples.corner, track=False)
        (gradient,) = torch.autograd.grad(twin.adversarial_loss(logits), composite)
        return ALPHA * (gradient * examples.mask).norm()


class Completion(Configured):
    """The completion network in evaluation mode."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._net = self._placed(twin.CompletionNetwork(settings["width"])).eval()

    def _load(self, folder: Path) -> None:
        with np.load(folder / "exchange.npz") as file:
            twin.load(self._net, dict(file), "completion")
        self._program = self._runnable(self._net)

    def _completed(self, photograph: np.ndarray, hole: np.ndarray) -> Any:
        """Returns the network's output and the completed photograph: [1, 3, h, w]."""
        images, mask = self._tensor(photograph), self._tensor(hole)
        completed = self._complete(self._program, images, mask)
        return completed, torch.where(mask > 0, completed, images)


class Inference(Completion, tasks.Inference):
    """The network alone."""

    def outcome(self, folder: Path) -> Arrays:
        self._load(folder)
        completed, composite = self.work(*self.inputs(FIRST))
        return {"completed": _array(completed), "composite": _array(composite)}

    @torch.inference_mode()
    def work(self, photograph: np.ndarray, mask: np.ndarray) -> Any:
        return self._completed(photograph, mask)


class LargePhoto(Completion, tasks.LargePhoto):
    """The whole photograph through the network."""

    def outcome(self, folder: Path) -> Arrays:
        self._load(folder)
        return super().outcome(folder)

    @torch.inference_mode()
    def work(self, photograph: np.ndarray, mask: np.ndarray) -> np.ndarray:
        hole = mask[None, :, :, None].astype(np.float32)
        _, composite = self._completed(photograph[None], hole)
        return _array(composite.mul_(255).round_().byte())[0]


class Photographs(Dataset[Tensor]):
    """Random crops of the JPEGs in a folder."""

    def __init__(self, folder: Path, side: int) -> None:
        self._paths = sorted(folder.glob("*.jpg"))
        self._side = side

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:
        side = self._side
        shortest = int(torch.randint(side, side + side // 2 + 1, ()))
        top, left = torch.rand(2).tolist()
        return torch.from_numpy(_crop(self._paths[index], shortest, side, top, left))


class Pipeline(tasks.Pipeline):
    """Pillow in a DataLoader with a worker for each processor."""

    _workers = 0  # the most bytes that they held

    def crop(
        self, path: Path, shortest: int, side: int, top: float, left: float
    ) -> np.ndarray:
        return _crop(path, shortest, side, top, left)

    def batches(self, seed: int) -> Iterator[Tensor]:
        torch.manual_seed(seed)
        folder = Path(self.settings["folder"])
        photographs = Photographs(folder, self.settings["image_size"])
        loader = DataLoader(
            photographs,
            batch_size=self.settings["batch"],
            sampler=RandomSampler(photographs, replacement=True, num_samples=2**31),
            num_workers=machine.processors(),
        )
        workers = iter(loader)
        try:
            yield from workers
        finally:  # The end of a turn: the workers still live.
            self._workers = max(self._workers, machine.children_private())

    def peak_bytes(self, process: int) -> int:
        return process + self._workers


def _crop(path: Path, shortest: int, side: int, top: float, left: float) -> np.ndarray:
    from PIL import Image

    image = Image.open(path).convert("RGB")
    scale = shortest / min(image.size)
    width, height = (max(shortest, round(length * scale)) for length in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    y = min(int(top * (height - side + 1)), height - side)
    x = min(int(left * (width - side + 1)), width - side)
    return np.array(image.crop((x, y, x + side, y + side)))


def _array(tensor: Tensor) -> np.ndarray:
    """Returns [b, c, h, w] as an array [b, h, w, c]."""
    return tensor.permute(0, 2, 3, 1).cpu().numpy()


def _weights(net: nn.Module) -> np.ndarray:
    return flattened(
        {name: p.detach().cpu().numpy() for name, p in net.named_parameters()}
    )


TASKS: dict[str, type[tasks.Task]] = {
    "training": Training,
    "inference": Inference,
    "large_photo": LargePhoto,
    "pipeline": Pipeline,
}
