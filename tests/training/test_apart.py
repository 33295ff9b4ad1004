"""Steps compiled in a process of their own: what it compiles is what the run uses."""

import dataclasses
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from gl_jax.config import Config, DataConfig, HolesConfig, ModelConfig, Phase, RunConfig
from gl_jax.training import apart, loop
from gl_jax.training.apart import compile_apart
from gl_jax.training.parallel import AXIS, Devices
from gl_jax.training.state import create_state
from gl_jax.training.steps import make_steps

MEAN_COLOR = (0.45, 0.4, 0.35)

CONFIG = Config(
    model=ModelConfig(width=0.0625),
    data=DataConfig(
        batch_size=4, image_size=32, resize=(32, 48), mean_color=MEAN_COLOR, workers=1
    ),
    holes=HolesConfig(min_size=8, max_size=12, local_size=16),
)


@pytest.fixture
def kept(tmp_path) -> Iterator[Path]:
    """A compilation cache of the test's own."""
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    compilation_cache.reset_cache()
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


def with_devices(count: int) -> Config:
    return dataclasses.replace(CONFIG, run=RunConfig(device_count=count))


def advance(config: Config, phase: Phase, log) -> None:
    """One step, as the loop does it."""
    devices = Devices(config.run.device_count)
    step = make_steps(config, MEAN_COLOR, axis_name=AXIS)[phase]
    before = partial(compile_apart, config, phase, log)
    state = devices.replicate(create_state(config))
    images = devices.shard(np.zeros((4, 32, 32, 3), np.uint8))
    key = devices.replicate(jax.random.key(1))
    jax.block_until_ready(devices.pmap(step, before=before)(state, images, key))


@pytest.mark.skipif(
    jax.default_backend() != "cpu",
    reason="accelerators' programs pmap compiles: nothing is compiled apart to be found",
)
def test_the_run_finds_the_program(kept, monkeypatch) -> None:
    monkeypatch.setattr(apart, "LEAST_VALUES", 0)
    config, said, steps = with_devices(2), [], []

    def programs() -> set[str]:
        return {file.name for file in kept.glob("jit__fun-*-cache")}

    original = apart._fault_of_compiling

    def compiled(*arguments) -> str | None:
        assert not programs()
        fault = original(*arguments)
        steps.extend(programs())
        return fault

    monkeypatch.setattr(apart, "_fault_of_compiling", compiled)
    advance(config, Phase.JOINT, said.append)
    assert said == ["Compiling the joint step, a minute or two."]
    assert len(steps) == 1
    assert programs() == set(steps), "the step was compiled here, too"


def test_a_compiler_that_fails_is_reported_and_done_without(kept, monkeypatch) -> None:
    """Nothing is raised, so that the run goes on; and what it asked for runs."""
    monkeypatch.setattr(apart, "LEAST_VALUES", 0)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    said: list[str] = []
    config = with_devices(1)
    compile_apart(config, Phase.COMPLETION, said.append, create_state(config))
    assert len(said) == 2
    assert "exit 1, it said nothing" in said[1]
    assert "more memory" in said[1]
    advance(config, Phase.COMPLETION, said.append)


def test_it_says_why_it_failed(monkeypatch) -> None:
    def fault() -> str | None:
        return apart._fault_of_compiling(with_devices(1), Phase.COMPLETION)

    monkeypatch.setattr(apart, "_settings", lambda: {"JAX_PLATFORMS": "abacus"})
    assert "abacus" in (fault() or "")
    monkeypatch.setattr(sys, "executable", "/nowhere")
    assert "No such file" in (fault() or "")


@pytest.mark.parametrize(("width", "large"), [(0.0625, False), (1.0, True)])
def test_small_networks_are_compiled_here(width, large, monkeypatch) -> None:
    asked: list[Phase] = []

    def compiled(config: Config, phase: Phase) -> None:
        asked.append(phase)

    monkeypatch.setattr(apart, "_fault_of_compiling", compiled)
    config = dataclasses.replace(CONFIG, model=ModelConfig(width=width))
    state = jax.eval_shape(lambda: create_state(config))
    compile_apart(config, Phase.JOINT, print, state)
    assert asked == [Phase.JOINT] * large


@pytest.mark.parametrize("reason", ["an accelerator", "several hosts"])
def test_what_pmap_compiles_is_not_compiled_apart(reason, monkeypatch) -> None:
    devices = Devices(1)
    if reason == "several hosts":
        monkeypatch.setattr(jax, "process_count", lambda: 2)
    else:
        monkeypatch.setattr(devices, "local", [Mock(platform="gpu")])
    monkeypatch.setattr(devices, "_mapped", lambda step: step)
    step, before = Mock(), Mock()
    devices.pmap(step, before=before)("state", "images", "key")
    step.assert_called_once_with("state", "images", "key")
    before.assert_not_called()


def test_a_run_asks_for_it_in_every_phase(tmp_path, monkeypatch) -> None:
    asked, given = [], []

    def recorded(config, phase, log, state):
        assert config.data.mean_color is not None
        asked.append((phase, state))

    def pmap(devices, step, *, before) -> None:
        given.append(before)

    monkeypatch.setattr(loop, "compile_apart", recorded)
    monkeypatch.setattr(loop.Devices, "pmap", pmap)
    bundled = dataclasses.replace(CONFIG.data, mean_color=None)
    loop._prepare(dataclasses.replace(CONFIG, data=bundled), tmp_path, print)
    for before in given:
        before("state")
    assert asked == [(phase, "state") for phase in Phase]
