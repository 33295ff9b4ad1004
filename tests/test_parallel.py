"""Devices: the doors by which arrays come and go."""

import json

import jax
import numpy as np
import pytest

from gl_jax import compilation, parallel
from gl_jax.config import UsageError
from gl_jax.parallel import AXIS, Devices, axis_index, initialize, pmean


def test_replicated_state_keeps_its_shape_and_is_on_every_device():
    devices = Devices(2)
    replicated = devices.replicate({"x": np.arange(6.0).reshape(2, 3)})
    assert replicated["x"].shape == (2, 3)
    assert len(replicated["x"].addressable_shards) == 2
    assert devices.first(replicated)["x"].devices() == {devices.local[0]}


def test_batches_are_split_over_devices_in_order():
    devices = Devices(2)
    images = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
    sharded = devices.shard(images)
    assert sharded.shape == (2, 2, 1, 1, 1)
    np.testing.assert_array_equal(np.asarray(sharded).reshape(-1), [0, 1, 2, 3])


def test_prefetch_hands_on_every_batch_once_and_in_order():
    devices = Devices(1)
    batches = (np.full((1, 1, 1, 1), n, np.uint8) for n in range(5))
    assert [int(batch.max()) for batch in devices.prefetch(batches)] == [0, 1, 2, 3, 4]


def test_a_batch_that_does_not_divide_names_the_sizes_that_would():
    with pytest.raises(UsageError, match=r"data.batch_size \(=10\).*use 8 or 12"):
        Devices(2).check_batch(10, accumulate=2)
    with pytest.raises(UsageError, match="use 4"):
        Devices(4).check_batch(3, accumulate=1)


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(
        UsageError, match=r"run.device_count \(=99\) is more than this host has"
    ):
        Devices(99)


def test_half_an_address_is_refused():
    with pytest.raises(UsageError, match="belong together"):
        initialize("localhost:1234", None, 0)


def test_steps_see_their_place_and_average_over_all():
    devices = Devices(2)

    def step(state, images, key):
        index = axis_index(AXIS)
        return state, pmean({"index": index.astype("float32")}, AXIS)

    _, metrics = devices.pmap(step)(
        devices.replicate(np.zeros(())),
        devices.shard(np.zeros((2, 1, 1, 3), np.uint8)),
        devices.replicate(jax.random.key(0)),
    )
    assert float(metrics["index"]) == 0.5


def test_steps_are_compiled_with_the_options_of_their_platform(monkeypatch):
    asked = []

    def options(platform: str) -> dict[str, bool]:
        asked.append(platform)
        return {"xla_of_another_version": True}

    monkeypatch.setattr(compilation, "options", options)
    with pytest.raises(jax.errors.JaxRuntimeError, match="No such compile option"):
        test_steps_see_their_place_and_average_over_all()
    assert asked == ["cpu"]


def test_without_an_axis_the_mean_is_the_value():
    assert pmean({"x": 3.0}, None) == {"x": 3.0}
    assert axis_index(None) == 0


def hosts_saying(monkeypatch, *texts: dict) -> None:
    """What the other hosts give, after ours."""
    monkeypatch.setattr(
        parallel, "from_every_host", lambda ours: [ours, *map(json.dumps, texts)]
    )


def test_hosts_that_agree_are_let_through(monkeypatch):
    hosts_saying(monkeypatch, {"facts": {"run.seed": 1}, "fault": None})
    parallel.require_same({"run.seed": 1}, None)


def test_every_difference_between_hosts_is_named(monkeypatch):
    other = {"run.seed": 2, "data.source": "bundled"}
    hosts_saying(monkeypatch, {"facts": other, "fault": None})
    with pytest.raises(UsageError) as raised:
        parallel.require_same({"run.seed": 1, "data.source": "photographs"}, None)
    assert "run.seed is 2 on host 1 and 1 on host 0" in str(raised.value)
    assert "data.source is bundled on host 1 and photographs" in str(raised.value)


def test_the_mistake_of_one_host_is_told_by_all(monkeypatch):
    hosts_saying(monkeypatch, {"facts": {}, "fault": "its folder is empty."})
    with pytest.raises(UsageError, match=r"host 1: its folder is empty\."):
        parallel.require_same({"run.seed": 1}, None)


def test_a_heartbeat_of_nothing_is_refused():
    with pytest.raises(UsageError, match="--heartbeat"):
        parallel.initialize("127.0.0.1:1", 2, 0, heartbeat=0)
