"""PyTorch's side of every case, in each of its configurations.

A configuration is words joined by "+": eager or channels_last, then compile, freezing
(inference only), keep_memory (freed memory stays with the process) and bfloat16
(autocast).
"""

import contextlib
import importlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks import cold, memory, twin
from benchmarks.exchange import Arrays, flattened
from benchmarks.inputs import (
    FIRST,
    MEAN_COLOR,
    processor_seconds,
    processors,
    random_images,
    random_mask,
)
from benchmarks.photographs import large_turn
from gl_jax.config import UsageError

Settings = dict[str, Any]

ALPHA = 4e-4


def start(settings: Settings) -> None:
    """Starts torch on the device of the case, with all processors."""
    torch.set_num_threads(processors())
    words = settings.get("configuration", "").split("+")
    if "compile" in words:
        # Imported late by torch itself, and not to be counted as memory of the work.
        importlib.import_module("torch._inductor.compile_fx")
        inductor = importlib.import_module("torch._inductor.config")
        inductor.freezing = "freezing" in words
    if "keep_memory" in words:
        memory.keep_freed()
    if settings["device"] == "gpu":
        if not torch.cuda.is_available():
            raise UsageError("this torch sees no GPU.")
        torch.zeros(1, device="cuda")
        # As JAX does by default: TF32 in float32 products, the fastest algorithm.
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True


def versions() -> dict[str, str]:
    """The library that does the work."""
    return {"torch": torch.__version__}


def peak_bytes(at_start: int) -> int:
    """The most memory used: the GPU's if there is one, else the process's."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    return memory.peak() - at_start


class _Configured:
    """Device, memory format and precision of a case."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        words = settings["configuration"].split("+")
        self._device = torch.device("cuda" if settings["device"] == "gpu" else "cpu")
        channels_last = "channels_last" in words
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._compiled = "compile" in words
        self._autocast = torch.bfloat16 if "bfloat16" in words else None
        self._mean_color = torch.tensor(MEAN_COLOR, device=self._device).view(
            1, 3, 1, 1
        )

    def _placed(self, module: nn.Module) -> nn.Module:
        return module.to(device=self._device, memory_format=self._format)

    def _tensor(self, images: np.ndarray) -> Tensor:
        """[b, h, w, c] of any type to float [b, c, h, w], uint8 to [0, 1]."""
        tensor = torch.from_numpy(images).to(self._device, non_blocking=True)
        tensor = tensor.permute(0, 3, 1, 2).contiguous(memory_format=self._format)
        return tensor.float().div_(255) if images.dtype == np.uint8 else tensor

    @contextlib.contextmanager
    def _precision(self) -> Iterator[None]:
        if self._autocast is None:
            yield
        else:
            with torch.autocast(self._device.type, self._autocast):
                yield

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()


class Training(_Configured):
    """A step of the twin."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        width, side = settings["width"], settings["image_size"]
        self._joint = settings["phase"] == "joint"
        self._nets: dict[str, nn.Module] = {
            "completion": self._placed(twin.CompletionNetwork(width))
        }
        if self._joint:
            judge = twin.ContextDiscriminator(side, settings["local_size"], width)
            self._nets["discriminator"] = self._placed(judge)
        self._trainer = twin.Trainer(
            self._nets["completion"],
            self._nets.get("discriminator"),
            mean_color=self._mean_color,
            local_size=settings["local_size"],
            alpha=ALPHA,
            memory_format=self._format,
            autocast=self._autocast,
            compiled=self._compiled,
        )
        self._step = (
            self._trainer.joint_step if self._joint else self._trainer.completion_step
        )
        self._generator = torch.Generator().manual_seed(0)

    def outcome(self, folder: Path) -> Arrays:
        """The losses of the first step, and how it moved each network's weights."""
        with np.load(folder / "exchange.npz") as file:
            arrays = dict(file)
        for name, net in self._nets.items():
            twin.load(net, arrays, name)
        examples = twin.Examples(
            self._tensor(self._images(FIRST)),
            self._tensor(arrays["mask"]),
            arrays["corner"].tolist(),
            arrays["real_corner"].tolist(),
        )
        before = {name: weights(net) for name, net in self._nets.items()}
        values = self._step(examples)
        fakes = values.pop("composite", None)
        if fakes is not None:
            norm = self._trainer.adversarial_gradient_norm(examples, fakes)
            values["adversarial.gradient"] = norm
        results = {name: value.cpu().numpy() for name, value in values.items()}
        for name, net in self._nets.items():
            results[f"update.{name}"] = weights(net) - before[name]
        return results

    def run(self, seed: int) -> float:
        """Seconds for one step, photographs brought to the device included."""
        count = self._settings["steps"]
        batches = [self._images(seed * count + i) for i in range(count)]
        low, high = self._settings["holes"]
        local_size = self._settings["local_size"]
        self._synchronize()
        began = time.perf_counter()
        for images in batches:
            tensor = self._tensor(images)
            self._step(twin.draw(tensor, low, high, local_size, self._generator))
        self._synchronize()
        return (time.perf_counter() - began) / count

    def _images(self, seed: int) -> np.ndarray:
        side = self._settings["image_size"]
        return random_images(seed, self._settings["batch"], side, side)


class Inference(_Configured):
    """One photograph completed by the network alone, in one piece."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._net = self._placed(twin.CompletionNetwork(settings["width"])).eval()
        self._side, self._steps = settings["side"], settings["steps"]
        self._run: Any = None

    def outcome(self, folder: Path) -> Arrays:
        """The network's whole output and the completed photograph."""
        with np.load(folder / "exchange.npz") as file:
            twin.load(self._net, dict(file), "completion")
        self._run = (
            torch.compile(self._net, dynamic=False) if self._compiled else self._net
        )
        completed, pasted = self._complete(*self._inputs(FIRST))
        return {
            name: tensor.permute(0, 2, 3, 1).cpu().numpy()
            for name, tensor in (("completed", completed), ("composite", pasted))
        }

    def run(self, seed: int) -> float:
        """Seconds for one photograph, the way to the device included."""
        inputs = [self._inputs(seed * self._steps + i) for i in range(self._steps)]
        self._synchronize()
        began = time.perf_counter()
        for pair in inputs:
            self._complete(*pair)
        self._synchronize()
        return (time.perf_counter() - began) / self._steps

    def _inputs(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        side = self._side
        return random_images(seed, 1, side, side), random_mask(seed, side, side)

    def _complete(self, photograph: np.ndarray, hole: np.ndarray) -> Any:
        # Freezing wants no_grad: under inference_mode the weights are no constants.
        with torch.no_grad() if self._compiled else torch.inference_mode():
            images, mask = self._tensor(photograph), self._tensor(hole)
            inputs = twin.network_input(images, mask, self._mean_color)
            inputs = inputs.contiguous(memory_format=self._format)
            with self._precision():
                completed = self._run(inputs).float()
            return completed, torch.where(mask > 0, completed, images)


class LargePhoto(_Configured):
    """A large photograph completed in one piece, or as much of it as memory holds."""

    # Two maps of 64 float32 channels at full resolution, and a half more for the rest.
    BYTES_PER_PIXEL = 2.5 * 64 * 4

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._net = self._placed(twin.CompletionNetwork(settings["width"])).eval()
        self._size = settings["large"]
        width, height, _ = self._size
        fits = int(self._available() / self.BYTES_PER_PIXEL / width) // 4 * 4
        self._rows = min(height, fits)

    def note(self) -> str:
        """The part of the photograph that PyTorch completes, in words."""
        height = self._size[1]
        if self._rows == height:
            return "PyTorch completes the whole photograph"
        return f"PyTorch completes {self._rows} of {height} rows, for want of memory"

    def outcome(self, folder: Path) -> Arrays:
        """The completed hole, in grey levels."""
        with np.load(folder / "exchange.npz") as file:
            twin.load(self._net, dict(file), "completion")
        photograph, mask = large_turn(FIRST, *self._size)
        completed = self._complete(photograph, mask)
        return {"hole": completed[mask[self._part(mask)]].astype(np.float32)}

    def run(self, seed: int) -> float:
        """Seconds for one photograph, from uint8 to uint8."""
        photograph, mask = large_turn(seed, *self._size)
        began = time.perf_counter()
        self._complete(photograph, mask)
        return time.perf_counter() - began

    def _complete(self, photograph: np.ndarray, mask: np.ndarray) -> np.ndarray:
        part = self._part(mask)
        with torch.inference_mode():
            images = self._tensor(photograph[part][None])
            holes = self._tensor(mask[part][None, :, :, None].astype(np.float32))
            inputs = twin.network_input(images, holes, self._mean_color)
            inputs = inputs.contiguous(memory_format=self._format)
            with self._precision():
                completed = self._net(inputs).float()
            composite = torch.where(holes > 0, completed, images)
            levels = composite.mul_(255).round_().byte()[0].permute(1, 2, 0)
            return levels.cpu().numpy()

    def _part(self, mask: np.ndarray) -> slice:
        """The rows that are completed, the hole in their middle if possible."""
        height = len(mask)
        middle = int(np.nonzero(mask.any(axis=1))[0].mean())
        start = min(max(0, middle - self._rows // 2), height - self._rows) // 4 * 4
        return slice(start, start + self._rows)

    def _available(self) -> float:
        if self._device.type == "cuda":
            return torch.cuda.mem_get_info()[0]
        return memory.available()


class StartUp:
    """A new process that imports torch and completes one photograph."""

    def __init__(self, settings: Settings) -> None:
        del settings
        self._folder = Path()

    def outcome(self, folder: Path) -> Arrays:
        """The completed hole, in grey levels."""
        self._folder = folder
        self.run(FIRST)
        return {"hole": cold.hole(folder)}

    def run(self, seed: int) -> float:
        """Seconds from the start of the process to its end."""
        del seed
        return cold.seconds("torch", self._folder)

    def peak_bytes(self) -> int:
        """All that the process held."""
        return cold.peak_bytes()


class MatrixProduct(_Configured):
    """The product of two square matrices: the most that the machine computes."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._steps = settings["steps"]
        self._factor = torch.empty(0)

    def work(self, matrix: Tensor) -> Tensor:
        """The product that is timed."""
        return matrix @ self._factor

    def outcome(self, folder: Path) -> Arrays:
        """The result."""
        with np.load(folder / "exchange.npz") as file:
            matrix = torch.from_numpy(file["matrix"])
        self._factor = matrix.to(self._device, self._autocast or torch.float32)
        return {"completed": self.work(self._factor).float().cpu().numpy()}

    def run(self, seed: int) -> float:
        """Seconds for one of them."""
        matrix = self._factor + seed
        self._synchronize()
        began = time.perf_counter()
        for _ in range(self._steps):
            self.work(matrix)
        self._synchronize()
        return (time.perf_counter() - began) / self._steps


class MemoryCopy(MatrixProduct):
    """A large array plus one, into another: the most that the memory moves."""

    def work(self, matrix: Tensor) -> Tensor:
        """The copy that is timed: one array read, one written."""
        return matrix + 1


class Photographs(Dataset[Tensor]):
    """Pillow's way from a JPEG to a random crop of it."""

    def __init__(self, folder: Path, side: int) -> None:
        self._paths = sorted(folder.glob("*.jpg"))
        self._side = side

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:
        side = self._side
        shortest = int(torch.randint(side, side + side // 2 + 1, ()))
        top, left = torch.rand(2).tolist()
        crop = pillow_crop(self._paths[index], shortest, side, top, left)
        return torch.from_numpy(np.array(crop))


def pillow_crop(
    path: Path, shortest: int, side: int, top: float, left: float
) -> Image.Image:
    """Decoded, resized to the shortest side, cropped at (top, left) in [0, 1]."""
    image = Image.open(path).convert("RGB")
    scale = shortest / min(image.size)
    width, height = (
        max(shortest, round(image.width * scale)),
        max(shortest, round(image.height * scale)),
    )
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    y = min(int(top * (height - side + 1)), height - side)
    x = min(int(left * (width - side + 1)), width - side)
    return image.crop((x, y, x + side, y + side))


class Pipeline:
    """JPEG files to uint8 batches by a DataLoader with a worker for each processor."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = Path(settings["folder"])
        self._children = 0

    def outcome(self, folder: Path) -> Arrays:
        """The same crops of the first photographs, in grey levels."""
        del folder
        side = self._settings["image_size"]
        crops = [
            np.asarray(pillow_crop(path, side * 5 // 4, side, 0.3, 1))
            for path in sorted(self._folder.glob("*.jpg"))[:4]
        ]
        return {"crops": np.stack(crops).astype(np.float32)}

    def run(self, seed: int) -> float:
        """Processor-seconds for one photograph, once the workers are under way."""
        torch.manual_seed(seed)
        size = self._settings["batch"]
        photographs = Photographs(self._folder, self._settings["image_size"])
        loader = DataLoader(
            photographs,
            batch_size=size,
            sampler=_Endless(len(photographs)),
            num_workers=processors(),
        )
        batches = iter(loader)
        seconds = processor_seconds(
            lambda: next(batches), size, self._settings["loaded"]
        )
        self._children = max(self._children, memory.children_private())
        return seconds

    def extra_bytes(self) -> int:
        """Bytes that the workers held for themselves, beside this process."""
        return self._children


class _Endless(torch.utils.data.Sampler[int]):
    """Every photograph once, in random order, again and again."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __iter__(self) -> Iterator[int]:
        while True:
            yield from torch.randperm(self._length).tolist()


def weights(net: nn.Module) -> np.ndarray:
    """All trainable weights as one vector."""
    return flattened(
        {name: p.detach().cpu().numpy() for name, p in net.named_parameters()}
    )


TASKS: dict[str, Callable[[Settings], Any]] = {
    "training": Training,
    "inference": Inference,
    "large_photo": LargePhoto,
    "start_up": StartUp,
    "matrix_product": MatrixProduct,
    "memory_copy": MemoryCopy,
    "pipeline": Pipeline,
}
