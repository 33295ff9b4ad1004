"""A small real run in processes of its own, to be killed, stopped and starved; and parts
of two small networks, whose steps compile in a second."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gl_jax.checkpoint import restore_subtree
from gl_jax.config import Config, DataConfig, HolesConfig, OptimizerConfig
from gl_jax.models.layers import BatchNorm
from gl_jax.training import Parts, default_parts

EXPERIMENT = """
from gl_jax.config import *

config = Config(
    name="small",
    model=ModelConfig(width=0.0625),
    data=DataConfig(
        source={source!r}, batch_size=2, image_size=32, resize=(32, 48), workers=1
    ),
    holes=HolesConfig(min_size=8, max_size=12, local_size=16),
    completion_optimizer=OptimizerConfig("adam", 1e-3),
    schedule=ScheduleConfig({phase}, {phase}, {total}),
    run=RunConfig(
        ema_decay=0.9, device_count=1, log_every=1, save_every={save_every},
        eval_every=50, sample_every=50, validation_images=2, sample_images=2,
    ),
)
"""


# XLA splits sums over as many threads as there are processors: with others the last bits
# differ. A session that is moved to other processors keeps its runs comparable so.
PROCESSORS = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


def stay() -> None:
    """Back to the processors of the session's start, which new processes inherit."""
    if PROCESSORS is not None:
        os.sched_setaffinity(0, PROCESSORS)


def real_photographs() -> str:
    """A folder of photographs where this machine has one, else the bundled ones."""
    beside = Path(__file__).parents[3] / "shared" / "data" / "train256" / "val"
    folder = Path(os.environ.get("GL_JAX_TEST_DATA", beside))
    return str(folder) if folder.is_dir() else "bundled"


@dataclasses.dataclass(frozen=True)
class SmallRun:
    """One experiment in a folder; each life of it is a process."""

    folder: Path
    total: int
    phase: int
    save_every: int

    def write(self) -> "SmallRun":
        """Puts the experiment into the folder."""
        text = EXPERIMENT.format(
            source=real_photographs(),
            phase=self.phase,
            total=self.total,
            save_every=self.save_every,
        )
        (self.folder / "small.py").write_text(text)
        return self

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "JAX_NUM_CPU_DEVICES": "1",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }

    def command(self, workdir: str, *flags: str) -> list[str]:
        head = [sys.executable, "-m", "gl_jax", "train", "small.py"]
        return [*head, "--workdir", workdir, *flags]

    def start(self, workdir: str, *flags: str) -> "Life":
        """Starts the command that trains, or resumes, in this workdir."""
        stay()
        output = self.folder / f"{workdir}.log"
        with output.open("w") as file:
            process = subprocess.Popen(
                self.command(workdir, *flags),
                cwd=self.folder,
                env=self.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        return Life(process, output)

    def finish(self, workdir: str, *flags: str) -> str:
        """Runs to the end, and returns what was printed."""
        life = self.start(workdir, *flags)
        assert life.wait() == 0, life.text()
        return life.text()

    def state(self, workdir: str) -> dict[str, Any]:
        """All arrays of the newest checkpoint."""
        names = ("step", "completion", "discriminator", "ema")
        return restore_subtree(self.folder / workdir / "checkpoints", names).state

    def status(self, workdir: str) -> dict[str, Any]:
        """What run_status.json says."""
        file = self.folder / workdir / "run_status.json"
        return json.loads(file.read_text())

    def training(self, workdir: str) -> list[dict[str, Any]]:
        """The lines of training in metrics.jsonl, without the speed."""
        lines = (self.folder / workdir / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        return [
            {k: v for k, v in record.items() if k != "images_per_second"}
            for record in records
            if "val_psnr" not in record
        ]

    def assert_same(self, workdir: str, other: str) -> None:
        """Both runs have ended in the same state, bit for bit, and logged the same."""
        mine, theirs = self.state(workdir), self.state(other)
        assert mine["step"] == self.total
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, mine, theirs)))
        assert self.training(workdir) == self.training(other)


@dataclasses.dataclass(frozen=True)
class Life:
    """One process of a run."""

    process: subprocess.Popen[bytes]
    output: Path

    def text(self) -> str:
        return self.output.read_text()

    def wait(self) -> int:
        try:
            return self.process.wait(timeout=600)
        finally:
            self.process.kill()

    def step(self) -> int:
        """The last step it has logged; 0 before its first."""
        steps = re.findall(r"^ *(\d+)/\d+ +(?!validation)\w", self.text(), re.M)
        return int(steps[-1]) if steps else 0

    def reach(self, step: int) -> bool:
        """Waits until it has logged this step; False where it ends before."""
        deadline = time.monotonic() + 600
        while self.step() < step and self.process.poll() is None:
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.01)
        return self.step() >= step

    def signal(self, number: int) -> None:
        self.process.send_signal(number)


@pytest.fixture(scope="session")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """Twelve steps, with their unbroken run in the workdir `unbroken`."""
    run = SmallRun(tmp_path_factory.mktemp("short"), 12, 4, save_every=2).write()
    run.finish("unbroken")
    return run


@pytest.fixture(scope="session")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """Three hundred steps, with their unbroken run in the workdir `unbroken`."""
    run = SmallRun(tmp_path_factory.mktemp("long"), 300, 100, save_every=5).write()
    run.finish("unbroken")
    return run


class Painter(nn.Module):
    """A completion network of one layer."""

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        return nn.sigmoid(nn.Conv(3, (3, 3))(inputs))


class Critic(nn.Module):
    """A smooth discriminator of one layer for each view, with what ours may have."""

    dtype: Any = jnp.float32
    spectral_norm: bool = False
    batch_norm: bool = False
    axis_name: str | None = None

    @nn.compact
    def __call__(self, views: Any, train: bool = False) -> jax.Array:
        pooled = []
        for name in sorted(views):
            layer: Any = nn.Conv(4, (4, 4), (4, 4), dtype=self.dtype, name=name)
            if self.spectral_norm:
                hidden = nn.SpectralNorm(layer)(views[name], update_stats=train)
            else:
                hidden = layer(views[name])
            if self.batch_norm:
                hidden = BatchNorm(self.axis_name, name=f"{name}_norm")(hidden, train)
            hidden = jnp.tanh(hidden)
            if not self.is_initializing():
                self.sow("features", "hidden", hidden)
            pooled.append(hidden.mean((1, 2)).astype(jnp.float32))
        return nn.Dense(1)(jnp.concatenate(pooled, axis=-1))[:, 0]


SGD = OptimizerConfig("sgd", 0.1)
SMALL = Config(
    name="two small networks",
    data=DataConfig(
        batch_size=8, image_size=16, resize=(16, 24), mean_color=(0.5, 0.4, 0.3)
    ),
    holes=HolesConfig(min_size=4, max_size=6, local_size=8),
    completion_optimizer=SGD,
    discriminator_optimizer=SGD,
)


@pytest.fixture(scope="session")
def small_parts() -> Callable[..., Parts]:
    """Makes parts of two small networks; the objective is that of a LossConfig's fields.

    `critic` are fields of the discriminator, `parts` further ones of the Parts.
    """

    def make(config: Config = SMALL, critic: Any = (), **parts: Any) -> Parts:
        return dataclasses.replace(
            default_parts(config),
            **{"completion": Painter(), "discriminator": Critic(**dict(critic))}
            | parts,
        )

    return make


@pytest.fixture(scope="session")
def small_config() -> Config:
    """The numbers of these parts: 16x16 pixels, batches of 8, plain SGD."""
    return SMALL


@pytest.fixture(scope="session")
def small_photographs() -> np.ndarray:
    """A batch for them: smooth random colours, uint8 [8, 16, 16, 3]."""
    coarse = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3), np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)
