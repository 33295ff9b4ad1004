"""Checkpoints of the paper's networks: how long a save stops training, and a restore takes.

    python -m benchmarks.checkpoints

A save stops training until `save` returns; beside it is the time of the copy to the host
alone. A restore is timed on one host, and on two that are processes of this machine: the
first reads, and sends to the other.
"""

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from gl_jax import parallel
from gl_jax.checkpoint import Checkpoints, manager, manifest
from gl_jax.config import Config, ModelConfig
from gl_jax.training.parts import default_parts
from gl_jax.training.state import create_state, state_shapes

SIZE = 256


def main() -> None:
    """Prints the times; with --host, times the restore of one of two hosts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--width", type=float, default=1.0, help="of the networks")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--host", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--coordinator", help=argparse.SUPPRESS)
    options = parser.parse_args()
    config = Config(model=ModelConfig(width=options.width))
    if options.host is not None:
        parallel.initialize(options.coordinator, 2, options.host)
        print(json.dumps(restoring(config, options.folder)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        saving(config, Path(folder), options.repeats)
        alone = restoring(config, Path(folder))
        print(f"restored by one host: {alone:.2f} s")
        first, second = on_two_hosts(Path(folder), options.width)
        print(f"restored by two hosts: {first:.2f} s and {second:.2f} s")


def saving(config: Config, folder: Path, repeats: int) -> None:
    state = create_state(default_parts(config), SIZE)
    named = manifest.named(jax.block_until_ready(state))
    checkpoints = opened(folder)
    copies, stops, writes = [], [], []
    for step in range(1, repeats + 1):
        copies.append(timed(lambda: manager.on_host(named)))
        stops.append(timed(lambda step=step: save(checkpoints, step, state)))
        writes.append(timed(checkpoints.wait))
    checkpoints.close()
    size = sum(leaf.nbytes for leaf in named.values()) / 1e6
    print(f"{len(named)} arrays, {size:.0f} MB; the median of {repeats} saves:")
    for name, times in (("copy", copies), ("stopped", stops), ("written", writes)):
        print(f"{name}: {statistics.median(times):.2f} s")


def restoring(config: Config, folder: Path) -> float:
    template = state_shapes(default_parts(config), SIZE)
    checkpoints = opened(folder, primary=jax.process_index() == 0)
    seconds = timed(lambda: checkpoints.restore_newest(template))
    checkpoints.close()
    return seconds


def on_two_hosts(folder: Path, width: float) -> list[float]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    command = [sys.executable, "-m", "benchmarks.checkpoints", "--folder", str(folder)]
    command += ["--width", str(width), "--coordinator", address, "--host"]
    hosts = [
        subprocess.Popen([*command, str(index)], stdout=subprocess.PIPE, text=True)
        for index in (0, 1)
    ]
    return [float(host.communicate()[0].splitlines()[-1]) for host in hosts]


def opened(folder: Path, *, primary: bool = True) -> Checkpoints:
    return Checkpoints(
        folder, keep_newest=1, keep_best=0, keep_every=None, max_failed_saves=1,
        log=print, primary=primary,
    )  # fmt: skip


def save(checkpoints: Checkpoints, step: int, state: Any) -> None:
    assert checkpoints.save(step, state, measured={}, config_json="{}", extra={})


def timed(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
