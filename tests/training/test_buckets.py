"""Checkpoints in a bucket: real runs against an emulated Google Cloud Storage."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import jax
import numpy as np
import pytest

from gl_jax.config import RunConfig, UsageError
from gl_jax.inpainting.loading import load_model

EXPERIMENT = """
from gl_jax.config import *

config = Config(
    name="tiny",
    model=ModelConfig(width=0.0625),
    data=DataConfig(batch_size=2, image_size=32, resize=(32, 48), workers=1),
    holes=HolesConfig(min_size=8, max_size=12, local_size=16),
    schedule=ScheduleConfig(completion_steps=9, discriminator_steps=1, total_steps=4),
    run=RunConfig(
        device_count=1, log_every=1, save_every=1, eval_every=4, sample_every=4,
        keep_best=0,  # else the best of so few steps is one of chance
    ),
)
"""
START = "import runpy; runpy.run_module('gl_jax', run_name='__main__')"

IMPATIENT = """
import asyncio, types, gcsfs.retry
gcsfs.retry.asyncio = types.SimpleNamespace(sleep=lambda seconds: asyncio.sleep(0))
"""
"""Lets gcsfs make its six attempts, half a minute in all, without waiting between them."""

SECONDS = 120
"""Longest time that a command may take here."""


class Bucket(NamedTuple):
    """A bucket of one test, on a server of this machine."""

    address: str
    """gs://..."""
    server: str
    """http://localhost:PORT"""
    experiment: Path

    def gl_jax(
        self, *arguments: str | Path, before: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Runs the command line as a user of the bucket does, after this code."""
        command = ["-c", before + START] if before else ["-m", "gl_jax"]
        environment = os.environ | {
            "STORAGE_EMULATOR_HOST": self.server,
            "TENSORSTORE_GCS_HTTP_URL": self.server,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "anyone",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "JAX_PLATFORMS": "cpu",
        }
        return subprocess.run(
            [sys.executable, *command, *map(str, arguments)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )

    def train(
        self, workdir: Path, *more: str | Path
    ) -> subprocess.CompletedProcess[str]:
        return self.gl_jax("train", self.experiment, "--workdir", workdir, *more)

    def objects(self) -> dict[str, str]:
        """Names in the bucket, each with where its content is read and written."""
        url = f"{self.server}/storage/v1/b/bucket/o"
        with urllib.request.urlopen(url, timeout=10) as reply:
            listed = json.load(reply).get("items", [])
        prefix = self.address.removeprefix("gs://bucket/") + "/"
        return {
            item["name"].removeprefix(prefix): item["name"]
            for item in listed
            if item["name"].startswith(prefix)
        }

    def steps(self) -> set[str]:
        return {name.split("/")[0] for name in self.objects()} - {""}

    def write(self, name: str, content: bytes) -> None:
        url = f"{self.server}/upload/storage/v1/b/bucket/o?uploadType=media&name="
        self._send("POST", url + quote(self.objects()[name], safe=""), content)

    def delete(self, name: str) -> None:
        url = f"{self.server}/storage/v1/b/bucket/o/"
        self._send("DELETE", url + quote(self.objects()[name], safe=""))

    def _send(self, method: str, url: str, content: bytes | None = None) -> None:
        request = urllib.request.Request(url, content, method=method)
        request.add_header("Content-Type", "application/octet-stream")
        urllib.request.urlopen(request, timeout=10).close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("gcs.py"), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://localhost:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(
                    f"{address}/storage/v1/b/bucket/o", timeout=1
                ).close()
                break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def bucket(server, tmp_path) -> Bucket:
    experiment = tmp_path / "tiny.py"
    experiment.write_text(EXPERIMENT)
    return Bucket(f"gs://bucket/{tmp_path.name}/run", server, experiment)


@pytest.mark.slow
@pytest.mark.timeout(600)  # six processes, on a machine that may be busy
def test_a_run_lives_in_a_bucket(bucket, tmp_path):
    there = ("--run.checkpoints", bucket.address)
    total = "--schedule.total_steps"

    first = bucket.train(tmp_path / "first", *there, total, "2")
    assert first.returncode == 0, first.stderr
    assert not (tmp_path / "first" / "checkpoints").exists()
    status = json.loads((tmp_path / "first" / "run_status.json").read_text())
    assert status.pop("started") > 0
    assert status == {"status": "finished", "last_step": 2, "reason": ""}

    # The machine is lost, and with it the workdir.
    other = bucket.train(tmp_path / "second", *there, "--run.seed", "1")
    assert other.returncode == 2
    assert "run.seed is 1 and was 0" in other.stderr
    second = bucket.train(tmp_path / "second", *there)
    assert second.returncode == 0, second.stderr
    assert "at step 2 of 4" in second.stdout
    assert bucket.steps() == {"2", "3", "4"}

    exported = tmp_path / "model.safetensors"
    done = bucket.gl_jax("export", "--workdir", bucket.address, "--output", exported)
    assert done.returncode == 0, done.stderr
    unbroken = bucket.train(tmp_path / "unbroken")
    assert unbroken.returncode == 0, unbroken.stderr
    expected = load_model(tmp_path / "unbroken").variables
    same = jax.tree.map(np.array_equal, load_model(exported).variables, expected)
    assert all(jax.tree.leaves(same))

    # One step with an object cut short, one killed before the mark that comes last.
    cut = next(name for name in bucket.objects() if re.match("4/state/.*d/", name))
    bucket.write(cut, b"something else")
    bucket.delete("3/commit_success.txt")
    third = bucket.train(tmp_path / "second", *there, total, "5")
    assert third.returncode == 0, third.stderr
    assert "checkpoint 4 is damaged" in third.stdout
    assert "set aside as 4.corrupt" in third.stdout
    assert "at step 2 of 5" in third.stdout
    assert bucket.steps() == {"3", "4", "4.corrupt", "5"}
    assert "3/commit_success.txt" in bucket.objects()


def test_a_bucket_that_does_not_answer_is_said_in_a_line(bucket, tmp_path):
    nowhere = bucket._replace(server=f"http://localhost:{free_port()}")
    output = tmp_path / "model.safetensors"
    words = ("export", "--workdir", bucket.address, "--output", output)
    done = nowhere.gl_jax(*words, before=IMPATIENT)
    assert done.returncode == 1
    # What gcsfs logs of its attempts stands above it.
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"gl-jax: error: {bucket.address} cannot be reached: ")


@pytest.mark.parametrize("place", ["somewhere/else", "gcs://bucket/run", "s3://b/run"])
def test_the_place_of_checkpoints_is_a_whole_path_or_a_bucket(place):
    with pytest.raises(UsageError, match=r"run\.checkpoints"):
        RunConfig(checkpoints=place)
    assert RunConfig(checkpoints="gs://bucket/run").checkpoints == "gs://bucket/run"
