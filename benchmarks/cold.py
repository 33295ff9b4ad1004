"""From nothing to the first completed photograph, in a process of its own.

`python -m benchmarks.cold gl_jax|torch FOLDER` reads photo.png and mask.png from the
folder and writes completed.png; the libraries are imported in here, and nowhere above.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH_FILE = "width.txt"


def write_inputs(folder: Path, photograph: np.ndarray, width: float) -> None:
    """The photograph with a square hole of a quarter of its side, and the network's width."""
    height, columns = photograph.shape[:2]
    mask = np.zeros((height, columns), np.uint8)
    mask[height // 3 :, columns // 3 :][: height // 4, : columns // 4] = 255
    Image.fromarray(photograph).save(folder / "photo.png")
    Image.fromarray(mask).save(folder / "mask.png")
    (folder / WIDTH_FILE).write_text(str(width))


def seconds(library: str, folder: Path) -> float:
    """Seconds that a new process takes, without any cache that an earlier one has left."""
    with tempfile.TemporaryDirectory(prefix="bench-cache-") as cache:
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "benchmarks.cold", library, str(folder)],
            check=True,
            env=os.environ | {"XDG_CACHE_HOME": cache},
        )
        return time.perf_counter() - began


def peak_bytes() -> int:
    """The most memory that any of these processes held, all of it."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit


def hole(folder: Path) -> np.ndarray:
    """The completed pixels in the hole: float32 grey levels [n, 3]."""
    return np.asarray(Image.open(folder / "completed.png"), np.float32)[_mask(folder)]


def with_gl_jax(folder: Path) -> None:
    import gl_jax

    completer = gl_jax.load(folder / "model.safetensors")
    photograph = np.asarray(Image.open(folder / "photo.png"))
    completed = completer(photograph, _mask(folder), blend="none")
    Image.fromarray(np.asarray(completed)).save(folder / "completed.png")


def with_torch(folder: Path) -> None:
    import torch

    from benchmarks import twin
    from benchmarks.inputs import MEAN_COLOR, processors

    torch.set_num_threads(processors())
    net = twin.CompletionNetwork(float((folder / WIDTH_FILE).read_text()))
    with np.load(folder / "exchange.npz") as file:
        twin.load(net, dict(file), "completion")
    net.eval()
    mean_color = torch.tensor(MEAN_COLOR).view(1, 3, 1, 1)
    photograph = np.asarray(Image.open(folder / "photo.png"))
    with torch.inference_mode():
        images = torch.from_numpy(photograph.transpose(2, 0, 1)[None] / np.float32(255))
        mask = torch.from_numpy(_mask(folder)[None, None].astype(np.float32))
        completed = net(twin.network_input(images, mask, mean_color))
        composite = torch.where(mask > 0, completed, images)
        levels = (composite * 255).round().byte()[0].permute(1, 2, 0).numpy()
    Image.fromarray(levels).save(folder / "completed.png")


def _mask(folder: Path) -> np.ndarray:
    return np.asarray(Image.open(folder / "mask.png")) > 127


if __name__ == "__main__":
    {"gl_jax": with_gl_jax, "torch": with_torch}[sys.argv[1]](Path(sys.argv[2]))
