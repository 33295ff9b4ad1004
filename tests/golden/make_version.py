"""Writes the folder of one version: its files, and the results they have to give later.

By hand, against a checkout of the revision whose files are to be kept:

    PYTHONPATH=<checkout> python tests/golden/make_version.py

The folder is named by that revision's `gl_jax.__version__`. The run is chosen so that every
part of its state moves and no step divides by rounding: its optimizers are Adadelta and
Adam with a large epsilon.
"""

import contextlib
import json
import os
import tarfile
import tempfile
import zlib
from pathlib import Path

os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}

import numpy as np
from PIL import Image

import gl_jax
from gl_jax import cli
from gl_jax.checkpoint import restore_subtree
from gl_jax.config import Config
from gl_jax.weights import native
from gl_jax.weights.architectures import Architecture
from gl_jax.weights.arrays import flat, nested
from gl_jax.weights.convention import Convention

FOLDER = Path(__file__).with_name(gl_jax.__version__)
KEEP = 3
"""Every third pixel each way of a raw output is stored."""
BROKEN_OFF, TOTAL = 3, 6
WIDTH = 0.03125
EXPERIMENT = """
from gl_jax.config import *

config = Config(
    name="small",
    model=ModelConfig(width=0.015625, batch_norm_momentum=0.5),
    data=DataConfig(
        source="photographs", batch_size=2, image_size=32, resize=(40, 40), flip=True
    ),
    holes=HolesConfig(min_size=8, max_size=12, local_size=16),
    loss=LossConfig(
        structure_weight=0.01,
        discriminator_noise=0.1,
        discriminator_noise_end=0.05,
        adversarial_ratio=0.5,
    ),
    discriminator_optimizer=OptimizerConfig("adam", 1e-3, {"eps": 1e-3}),
    schedule=ScheduleConfig(2, 2, 6),
    run=RunConfig(ema_decay=0.5, device_count=1, log_every=1, eval_every=3),
)
"""


def photograph(seed: int, height: int, width: int) -> np.ndarray:
    """Smooth random colours, uint8 [height, width, 3]."""
    chance = np.random.default_rng(seed)
    coarse = Image.fromarray(chance.integers(0, 256, (5, 5, 3), np.uint8))
    fine = coarse.resize((width, height), Image.Resampling.BICUBIC)
    noise = (
        chance.integers(-8, 9, (height // 4, width // 4, 3)).repeat(4, 0).repeat(4, 1)
    )
    return np.clip(np.asarray(fine) + noise, 0, 255).astype(np.uint8)


def hole(height: int, width: int) -> np.ndarray:
    """A rectangle inside and a smaller one at the edge are missing: bool [height, width]."""
    mask = np.zeros((height, width), bool)
    mask[height // 4 : height // 2, width // 3 : 2 * width // 3] = True
    mask[-height // 8 :, : width // 6] = True
    return mask


def train(workdir: str, total: int) -> None:
    words = ["train", "small.py", "--workdir", workdir]
    if cli.main([*words, "--schedule.total-steps", str(total)]):
        raise SystemExit("the run has failed")


def checksum(array: np.ndarray) -> str:
    """Type, shape and CRC-32 of the bytes."""
    return f"{array.dtype} {array.shape} {zlib.crc32(array.tobytes()):08x}"


def saved(workdir: str) -> dict[str, np.ndarray]:
    """All arrays of the newest checkpoint, by name."""
    names = ("step", "completion", "discriminator", "ema")
    return flat(restore_subtree(Path(workdir, "checkpoints"), names).state)


def make_run() -> None:
    """run.tar.xz and run.safetensors: a run broken off, and how it ends unbroken."""
    Path("small.py").write_text(EXPERIMENT)
    for seed in range(8):
        file = Path("photographs", "val" if seed < 2 else "train", f"{seed}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(seed, 40, 40)).save(file)
    train("run", BROKEN_OFF)
    checksums = {name: checksum(array) for name, array in saved("run").items()}
    Path("run", "checksums.json").write_text(json.dumps(checksums, indent=0))
    train("unbroken", TOTAL)
    ended = {k: v for k, v in saved("unbroken").items() if "opt_state" not in k}
    np.savez(Path("unbroken", "state.npz"), **ended)
    words = ["export", "--workdir", "run", "--discriminators", "--licence", "CC0"]
    if cli.main([*words, "--output", str(FOLDER / "run.safetensors")]):
        raise SystemExit("the export has failed")
    kept = (
        "small.py photographs run/config.json run/run_status.json run/metrics.jsonl "
        "run/checkpoints run/checksums.json unbroken/metrics.jsonl unbroken/state.npz"
    )
    pack(kept.split(), FOLDER / "run.tar.xz")


def pack(paths: list[str], archive: Path) -> None:
    """The same files in the same bytes: no owners, no times, in order."""

    def anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.mtime = info.uid = info.gid = 0
        info.uname = info.gname = ""
        info.mode = 0o755 if info.isdir() else 0o644
        return info

    with tarfile.open(archive, "w:xz", preset=9) as tar:
        for path in paths:
            tar.add(path, filter=anonymous)


def make_activation_norm() -> None:
    """activation_norm.safetensors: conv-ReLU-BN and clamp, random weights in bfloat16."""
    chance = np.random.default_rng(1)
    arrays = {}
    for name, shape in native.completion_shapes(WIDTH).items():
        values = chance.normal(0, 0.1, shape)
        if name.endswith("kernel"):
            values *= 10 * np.sqrt(2 / np.prod(shape[:-1]))
        elif name.endswith(("var", "scale")):
            values += 1
        arrays[name] = values.astype(np.float32)
    arrays["params/conv17/kernel"] *= 0.2
    arrays["params/conv17/bias"] += 0.5
    model = native.Model(
        nested(arrays),
        Architecture(WIDTH, "activation_norm", "clamp"),
        Convention.gl_jax((0.45, 0.4, 0.35)),
        name="activation_norm",
        licence="CC0",
    )
    native.save(model, FOLDER / "activation_norm.safetensors", "bfloat16")


def make_pictures() -> None:
    """pictures.npz: photographs with holes, and what each model makes of them."""
    models = {
        "run": FOLDER / "run.safetensors",
        "activation_norm": FOLDER / "activation_norm.safetensors",
    }
    arrays = {}
    for size, (height, width) in {"small": (80, 96), "square": (128, 128)}.items():
        image, mask = photograph(height, height, width), hole(height, width)
        arrays |= {f"{size}.image": image, f"{size}.mask": mask}
    for name, file in models.items():
        raw = gl_jax.load(file).raw(arrays["small.image"], arrays["small.mask"])
        alive(name, raw)
        arrays[f"{name}.small.raw"] = raw[::KEEP, ::KEEP]
    np.savez_compressed(FOLDER / "pictures.npz", **arrays)


def alive(name: str, output: np.ndarray) -> None:
    """Raises where a picture is too flat or too saturated to prove anything."""
    inside = ((output > 0.001) & (output < 0.999)).mean()
    print(f"{name:24} spread {output.std():.3f}, {inside:.0%} inside (0, 1)")
    if output.std() < 0.02 or inside < 0.5:
        raise SystemExit(f"{name} proves nothing")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "config.json").write_text(Config().to_json())
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        make_run()
    make_activation_norm()
    make_pictures()
    for file in sorted(FOLDER.iterdir()):
        print(f"{file.name}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
