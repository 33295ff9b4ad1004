"""Nothing depends on the guest but its entry in `compilation`."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gl_jax

STEPS = """
import jax, numpy as np
import gl_jax
from gl_jax.config import *
from gl_jax.parallel import AXIS, Devices
from gl_jax.training import create_state, default_parts, make_steps

config = Config(
    model=ModelConfig(width=0.0625),
    data=DataConfig(image_size=32, resize=(32, 32), batch_size=2),
    holes=HolesConfig(min_size=8, max_size=12, local_size=16),
)
parts = default_parts(config)
devices = Devices(1)
state = devices.replicate(create_state(parts, 32))
images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
for phase, step in make_steps(parts, (0.5, 0.5, 0.5), axis_name=AXIS).items():
    key = devices.replicate(jax.random.key(0))
    state, metrics = devices.pmap(step)(state, devices.shard(images), key)
    print(phase, {name: round(float(value), 4) for name, value in metrics.items()})
completed = gl_jax.load().raw(images[0], images[0, :, :, 0] > 200)
print(gl_jax.__file__, completed.shape)
"""


@pytest.mark.soak
def test_without_it_and_its_entry_all_is_computed_as_before(tmp_path):
    package = tmp_path / "gl_jax"
    here = Path(gl_jax.__file__).parent
    shutil.copytree(here, package, ignore=shutil.ignore_patterns("__pycache__"))
    printed = run(tmp_path)
    shutil.rmtree(package / "cpu")
    file = package / "compilation.py"
    text, count = re.subn(
        r"^from gl_jax import cpu\n", "", file.read_text(), flags=re.M
    )
    text = text.replace('{"cpu": cpu}', "{}")
    assert count == 1 and "cpu." not in text
    file.write_text(text)
    assert run(tmp_path) == printed


def run(folder: Path) -> str:
    command = [sys.executable, "-c", STEPS]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(folder) in done.stdout
    return done.stdout
