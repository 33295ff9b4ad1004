"""Saving, verifying and restoring: gl_jax/checkpoint/."""

import errno
import itertools
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from gl_jax.checkpoint import (
    CheckpointMismatchError,
    Checkpoints,
    NonFiniteStateError,
    NoWholeCheckpointError,
    SaveFailedError,
    folders,
    peek,
    restore_subtree,
)
from gl_jax.checkpoint import manifest as manifests
from gl_jax.config import UsageError


@flax.struct.dataclass
class Net:
    params: Any
    batch_stats: Any
    opt_state: Any


@flax.struct.dataclass
class State:
    step: Any
    completion: Net
    discriminator: Net | None
    ema: Any


def make_state(seed: int, *, ema: bool = True, size: int = 24) -> State:
    """A small state of the real one's shape: both optimizers, None, bfloat16, 0-d."""
    rng = np.random.default_rng(seed)
    params = {
        "conv1": {
            "kernel": jnp.asarray(rng.normal(size=(3, 3, 4, size)), jnp.float32),
            "bias": jnp.asarray([-0.0, seed + 0.1]),
        }
    }
    transform = optax.chain(optax.clip_by_global_norm(1.0), optax.adadelta(1.0))
    _, opt_state = transform.update(params, transform.init(params), params)
    net = Net(params, {"conv1": {"norm": {"mean": jnp.ones(4)}}}, opt_state)
    adam = optax.adam(1e-3).init({"w": jnp.full((2, 2), float(seed))})
    other = Net({"w": jnp.full((2, 2), float(seed))}, {}, adam)
    average = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    return State(jnp.asarray(seed, jnp.int32), net, other, average if ema else None)


@pytest.fixture
def messages() -> list[str]:
    return []


@pytest.fixture
def open_checkpoints(
    tmp_path: Path, messages: list[str]
) -> Iterator[Callable[..., Checkpoints]]:
    opened: list[Checkpoints] = []

    def open_(folder: str = "checkpoints", **options: Any) -> Checkpoints:
        defaults: dict[str, Any] = {
            "keep_newest": 3,
            "keep_best": 0,
            "keep_every": None,
            "max_failed_saves": 3,
            "log": messages.append,
        }
        opened.append(Checkpoints(tmp_path / folder, **defaults | options))
        return opened[-1]

    yield open_
    for checkpoints in opened:
        checkpoints.close()


def save(
    checkpoints: Checkpoints, step: int, state: Any = None, **options: Any
) -> bool:
    defaults: dict[str, Any] = {
        "psnr": None,
        "config_json": f'{{"of": {step}}}',
        "extra": {"rollbacks": step},
    }
    state = make_state(step) if state is None else state
    begun = checkpoints.save(step, state, **defaults | options)
    return checkpoints.wait() and begun


def assert_same(restored: Any, original: Any) -> None:
    assert jax.tree.structure(restored) == jax.tree.structure(original)
    for ours, theirs in zip(
        jax.tree.leaves(restored), jax.tree.leaves(original), strict=True
    ):
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert ours.tobytes() == theirs.tobytes()


def abstract(state: Any) -> Any:
    return jax.eval_shape(lambda: state)


def damage_arrays(folder: Path) -> None:
    for file in (folder / "state").rglob("d/*"):
        file.unlink()


# --- round trip


@pytest.mark.parametrize("ema", [True, False])
def test_a_state_comes_back_bit_exact_with_its_node_types(open_checkpoints, ema):
    state = make_state(7, ema=ema)
    checkpoints = open_checkpoints()
    assert save(checkpoints, 7, state, extra={"data": {"files": 3}, "seen": [1, 2]})
    restored = open_checkpoints().restore_newest(abstract(state))
    assert_same(restored.state, state)
    assert isinstance(restored.state.completion.opt_state, tuple)
    assert restored.step == 7
    assert restored.config_json == '{"of": 7}'
    assert restored.extra == {"data": {"files": 3}, "seen": [1, 2]}


def test_a_state_may_change_as_soon_as_save_returns(open_checkpoints):
    numbers = np.arange(50_000, dtype=np.float32)
    checkpoints = open_checkpoints()
    checkpoints.save(1, {"w": numbers}, psnr=None, config_json="{}", extra={})
    numbers += 1
    restored = checkpoints.restore_newest({"w": numbers}).state["w"]
    np.testing.assert_array_equal(restored, np.arange(50_000))


def test_a_donated_state_is_saved_as_it_was(open_checkpoints):
    numbers = jnp.arange(50_000, dtype=jnp.float32)
    checkpoints = open_checkpoints()
    checkpoints.save(1, {"w": numbers}, psnr=None, config_json="{}", extra={})
    jax.jit(lambda x: x + 1, donate_argnums=0)(numbers).block_until_ready()
    restored = checkpoints.restore_newest(abstract({"w": np.zeros(50_000, np.float32)}))
    np.testing.assert_array_equal(restored.state["w"], np.arange(50_000))


def test_where_there_never_was_a_checkpoint_there_is_none(open_checkpoints, tmp_path):
    assert open_checkpoints().restore_newest(make_state(0)) is None
    assert peek(tmp_path / "nowhere") is None


def test_a_state_of_another_configuration_is_refused_and_kept(open_checkpoints):
    checkpoints = open_checkpoints()
    save(checkpoints, 5, make_state(5, ema=False))
    with pytest.raises(
        CheckpointMismatchError, match=r"it has no ema/conv1/bias \(and 1"
    ):
        checkpoints.restore_newest(make_state(5))
    with pytest.raises(
        CheckpointMismatchError,
        match=r"kernel is float32\[3,3,4,24\] in it, float32\[3,3,4,9\] here",
    ):
        checkpoints.restore_newest(make_state(5, ema=False, size=9))
    assert checkpoints.steps() == [5]


# --- what is kept


def test_newest_best_and_every_nth_are_kept(open_checkpoints):
    options = {"keep_newest": 2, "keep_best": 1, "keep_every": 4}
    checkpoints = open_checkpoints(**options)
    for step, psnr in [(1, 20.0), (2, 31.0), (3, 25.0), (4, 24.0)]:
        assert save(checkpoints, step, {"w": np.ones(2)}, psnr=psnr)
    assert checkpoints.steps() == [2, 3, 4]
    checkpoints.close()
    # A later process knows the best one from its manifest.
    later = open_checkpoints(**options)
    for step, psnr in [(5, 22.0), (6, None), (7, float("nan"))]:
        assert save(later, step, {"w": np.ones(2)}, psnr=psnr)
    assert later.steps() == [2, 4, 6, 7]
    assert save(later, 8, {"w": np.ones(2)}, psnr=33.0)
    assert later.steps() == [4, 7, 8]


def test_the_newest_stays_where_the_best_are_old(open_checkpoints):
    checkpoints = open_checkpoints(keep_newest=1, keep_best=2)
    for step in (1, 2, 3, 4):
        save(checkpoints, step, {"w": np.ones(2)}, psnr=-float(step))
    assert checkpoints.steps() == [1, 2, 4]


def test_a_step_that_is_there_is_not_saved_again(open_checkpoints, messages):
    checkpoints = open_checkpoints(keep_newest=1, keep_best=1)
    assert save(checkpoints, 3, psnr=30.0)
    assert not save(checkpoints, 3, psnr=None)
    assert not save(checkpoints, 2)
    assert messages == []
    for step in (4, 5):
        assert save(checkpoints, step, psnr=20.0)
    assert checkpoints.steps() == [3, 5]


# --- damage


def test_damage_to_any_file_never_reaches_the_state(
    open_checkpoints, messages, tmp_path, damage, capfd
):
    """Every file in turn: truncated, deleted, one bit flipped."""
    root, pristine = tmp_path / "checkpoints", tmp_path / "pristine"
    checkpoints = open_checkpoints()
    states = {step: make_state(step) for step in (1, 2)}
    for step, state in states.items():
        save(checkpoints, step, state)
    shutil.copytree(root, pristine)
    files = [
        f.relative_to(pristine) for f in (pristine / "2").rglob("*") if f.is_file()
    ]
    assert len(files) >= 8
    noticed = set()
    for name, fault in itertools.product(files, ("truncated", "deleted", "flipped")):
        shutil.rmtree(root)
        shutil.copytree(pristine, root)
        messages.clear()
        damage(root / name, fault)
        restored = checkpoints.restore_newest(states[1])
        assert_same(restored.state, states[restored.step])
        assert restored.extra == {"rollbacks": restored.step}
        if restored.step == 2:  # no array is read from the damaged bytes
            assert messages == []
            continue
        (message,) = messages
        assert message.startswith("checkpoint 2 is damaged: ")
        assert "\n" not in message
        assert message.endswith("set aside as 2.corrupt, trying the one before")
        assert checkpoints.steps() == [1]
        assert (root / "2.corrupt").is_dir()
        noticed.add((name, fault))
    # The manifest, and the root of the tree by which the arrays are found.
    for name in ("2/manifest/metadata", "2/state/manifest.ocdbt"):
        for fault in ("truncated", "deleted", "flipped"):
            assert (Path(name), fault) in noticed
    assert "Traceback" not in capfd.readouterr().err


def test_a_flipped_bit_in_an_array_is_named(
    open_checkpoints, messages, tmp_path, damage
):
    noise = np.random.default_rng(0).bytes(40_000)  # stored as it is: no redundancy
    state = {"conv1": {"kernel": np.frombuffer(noise, np.uint8)}}
    checkpoints = open_checkpoints()
    save(checkpoints, 1, state)
    save(checkpoints, 2, state)
    stored = (tmp_path / "checkpoints" / "2" / "state").rglob("d/*")
    damage(max(stored, key=lambda file: file.stat().st_size), "flipped")
    assert checkpoints.restore_newest(state).step == 1
    assert messages == [
        "checkpoint 2 is damaged: conv1/kernel does not match its SHA-256; "
        "set aside as 2.corrupt, trying the one before"
    ]


def test_an_array_that_orbax_no_longer_lists_is_named(
    open_checkpoints, messages, tmp_path
):
    checkpoints = open_checkpoints()
    for step in (1, 2):
        save(checkpoints, step, {"w": np.ones(2)})
    listed = tmp_path / "checkpoints" / "2" / "state" / "_METADATA"
    content = json.loads(listed.read_text())
    entry = content["tree_metadata"].pop("('w',)")
    content["tree_metadata"]["('v',)"] = entry
    entry["key_metadata"][0]["key"] = "v"
    listed.write_text(json.dumps(content))
    assert checkpoints.restore_newest({"w": np.ones(2)}).step == 1
    assert "checkpoint 2 is damaged: w is not among its arrays; " in messages[0]


def test_files_listed_by_an_earlier_version_are_not_asked_for(
    open_checkpoints, messages, tmp_path
):
    checkpoints = open_checkpoints()
    save(checkpoints, 1)
    folder = tmp_path / "checkpoints" / "1"
    file = folder / "manifest" / "metadata"
    content = json.loads(file.read_text()) | {"sealed": True}
    content["sha256"] = manifests.digest(content)
    file.write_text(json.dumps(content))
    (folder / "files.json").write_text(json.dumps({"manifest/metadata": "another"}))
    assert_same(checkpoints.restore_newest(make_state(1)).state, make_state(1))
    assert messages == []


def test_where_none_is_whole_a_run_never_starts_anew(open_checkpoints, tmp_path):
    checkpoints = open_checkpoints()
    for step in (1, 2):
        save(checkpoints, step)
        damage_arrays(tmp_path / "checkpoints" / str(step))
    for _ in range(2):  # also where an earlier start has set them aside
        with pytest.raises(NoWholeCheckpointError, match="2 set aside"):
            checkpoints.restore_newest(make_state(1))


def test_a_step_set_aside_can_be_saved_and_set_aside_again(open_checkpoints, tmp_path):
    root = tmp_path / "checkpoints"
    checkpoints = open_checkpoints()
    save(checkpoints, 1)
    for aside in ("2.corrupt", "2.corrupt-2"):
        assert save(checkpoints, 2)
        damage_arrays(root / "2")
        assert checkpoints.restore_newest(make_state(1)).step == 1
        assert (root / aside).is_dir()


def test_a_folder_under_another_step_is_not_used(open_checkpoints, messages, tmp_path):
    checkpoints = open_checkpoints()
    save(checkpoints, 1)
    shutil.copytree(tmp_path / "checkpoints" / "1", tmp_path / "checkpoints" / "9")
    assert checkpoints.restore_newest(make_state(1)).step == 1
    assert "checkpoint 9 is damaged: the folder holds step 1" in messages[0]


def test_left_overs_of_a_killed_save_are_ignored_and_removed(
    open_checkpoints, tmp_path
):
    checkpoints = open_checkpoints()
    save(checkpoints, 1)
    left_over = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "checkpoints" / "1", left_over)
    later = open_checkpoints()
    assert later.steps() == [1]
    assert later.restore_newest(make_state(1)).step == 1
    assert save(later, 2)
    assert later.steps() == [1, 2]
    assert not left_over.exists()


def test_a_run_starts_beside_damaged_steps_and_cleans_up(open_checkpoints, tmp_path):
    checkpoints = open_checkpoints()
    for step in (1, 2):
        save(checkpoints, step)
        for file in (tmp_path / "checkpoints" / str(step)).rglob("*"):
            if file.is_file():
                file.write_bytes(b"\xff")
    later = open_checkpoints(keep_newest=1)
    assert save(later, 3)
    assert later.steps() == [3]


# --- saves that fail


@pytest.fixture
def files_limited() -> Iterator[Callable[[], None]]:
    """Writes beyond 100 kB fail, for root too: a fault of the disk, not of a mock."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def big_state(step: int) -> dict[str, np.ndarray]:
    return {"w": np.random.default_rng(step).normal(size=100_000)}


def test_a_failed_save_is_reported_and_can_be_repeated(
    open_checkpoints, messages, files_limited
):
    checkpoints = open_checkpoints()
    assert save(checkpoints, 1, big_state(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    files_limited()
    assert checkpoints.save(
        2, big_state(2), psnr=None, config_json="{}", extra={}
    )  # it fails in the background ...
    assert not checkpoints.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(messages) == 1
    assert messages[0].startswith("CHECKPOINT 2 COULD NOT BE SAVED: ")
    assert "(failure 1 of 3)" in messages[0]
    assert checkpoints.steps() == [1]
    assert save(checkpoints, 2, big_state(2))
    assert checkpoints.steps() == [1, 2]
    assert_same(checkpoints.restore_newest(big_state(2)).state, big_state(2))


def test_a_background_failure_surfaces_at_the_next_save(
    open_checkpoints, messages, files_limited
):
    checkpoints = open_checkpoints(max_failed_saves=2)
    arguments: dict[str, Any] = {"psnr": None, "config_json": "{}", "extra": {}}
    files_limited()
    assert checkpoints.save(1, big_state(1), **arguments)
    assert checkpoints.save(2, big_state(2), **arguments)
    assert len(messages) == 1
    with pytest.raises(
        SaveFailedError, match=r"failure 2 in a row .* checkpoint is None"
    ):
        checkpoints.wait()


def test_a_whole_save_ends_a_row_of_failures(open_checkpoints, files_limited):
    checkpoints = open_checkpoints(max_failed_saves=2)
    files_limited()
    for step in (1, 3, 5):
        assert not save(checkpoints, step, big_state(step))
        assert save(checkpoints, step + 1, {"w": np.ones(2)})
    assert checkpoints.steps() == [2, 4, 6]


def test_a_full_disk_is_called_so(open_checkpoints, messages, monkeypatch):
    async def no_space(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoints = open_checkpoints()
    monkeypatch.setattr(ocp.JsonCheckpointHandler, "_save_fn", no_space)
    assert not save(checkpoints, 1, {"w": np.zeros(250_000, np.float64)})
    assert "the disk is full: it needs 3.1 MB, " in messages[0]
    assert " MB are free in " in messages[0]


def test_a_folder_that_vanishes_during_the_run_fails_the_save(
    open_checkpoints, messages, tmp_path
):
    checkpoints = open_checkpoints()
    save(checkpoints, 1)
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").write_text("in the way")
    assert not save(checkpoints, 2)
    assert "CHECKPOINT 2 COULD NOT BE SAVED" in messages[0]
    # No thread of the failed save may keep the process from exiting.
    assert not [t for t in threading.enumerate() if "target_setting" in t.name]
    (tmp_path / "checkpoints").unlink()
    (tmp_path / "checkpoints").mkdir()
    assert save(checkpoints, 2)


def test_a_folder_that_cannot_be_written_is_refused_at_the_start(
    open_checkpoints, tmp_path
):
    (tmp_path / "checkpoints").write_text("a file, not a folder")
    with pytest.raises(UsageError, match="checkpoints cannot be written to"):
        open_checkpoints()


@pytest.mark.parametrize("folder", ["run [1]", "run*", "run?"])
def test_a_folder_that_is_a_pattern_is_read_from_but_not_written_to(
    open_checkpoints, tmp_path, folder
):
    save(open_checkpoints(), 1)
    shutil.copytree(tmp_path / "checkpoints", tmp_path / folder)
    restored = restore_subtree(tmp_path / folder).state["completion/params"]
    assert_same(restored, make_state(1).completion.params)
    with pytest.raises(UsageError, match="or a backslash as a pattern"):
        open_checkpoints(folder)


def test_a_save_that_cannot_be_found_afterwards_has_failed(
    open_checkpoints, tmp_path, monkeypatch, messages
):
    """As it was in folders that orbax takes for patterns."""
    (tmp_path / "run [1]").mkdir()
    monkeypatch.setattr(folders, "require_writable", lambda directory: None)
    checkpoints = open_checkpoints("run [1]")
    save(checkpoints, 1)
    assert checkpoints.steps() == []
    assert any("1 is damaged" in m and "aside as 1.corrupt" in m for m in messages)
    assert any(m.startswith("CHECKPOINT 1 COULD NOT BE SAVED") for m in messages)


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_state_that_is_not_finite_is_refused(open_checkpoints, dtype, bad):
    checkpoints = open_checkpoints()
    kernel = np.zeros((2, 3), dtype)
    kernel[1, 1] = bad
    state = {"conv1": {"kernel": kernel, "bias": np.zeros(2)}}
    with pytest.raises(NonFiniteStateError, match="conv1/kernel holds 1 values"):
        save(checkpoints, 1, state)
    assert checkpoints.steps() == []


# --- reading without a run


def test_peek_reads_the_newest_that_can_be_read(open_checkpoints, tmp_path):
    root = tmp_path / "checkpoints"
    checkpoints = open_checkpoints()
    for step in (1, 2):
        save(checkpoints, step)
    assert peek(root).config_json == '{"of": 2}'
    manifest = root / "2" / "manifest" / "metadata"
    manifest.write_text(manifest.read_text().replace("rollbacks", "rollforth"))
    assert peek(root).config_json == '{"of": 1}'


def test_a_manifest_of_a_newer_version_is_refused_not_renamed(
    open_checkpoints, tmp_path
):
    checkpoints = open_checkpoints()
    save(checkpoints, 1)
    file = tmp_path / "checkpoints" / "1" / "manifest" / "metadata"
    manifest = json.loads(file.read_text()) | {"format": 2}
    manifest["sha256"] = manifests.digest(manifest)
    file.write_text(json.dumps(manifest))
    with pytest.raises(
        CheckpointMismatchError, match="has format 2, but this gl_jax reads 1"
    ):
        checkpoints.restore_newest(make_state(1))
    assert checkpoints.steps() == [1]


def test_parts_for_inference_are_read_without_the_rest(open_checkpoints, tmp_path):
    root = tmp_path / "checkpoints"
    state = make_state(4)
    save(open_checkpoints(), 4, state)
    parts = restore_subtree(root)
    assert parts.step == 4
    assert set(parts.state) == {"completion/params", "completion/batch_stats", "ema"}
    assert_same(parts.state["completion/params"], state.completion.params)
    assert_same(parts.state["completion/batch_stats"], state.completion.batch_stats)
    assert_same(restore_subtree(root, ["step"]).state["step"], np.int32(4))


def test_parts_come_from_an_older_checkpoint_where_the_newest_is_damaged(
    open_checkpoints, tmp_path
):
    root = tmp_path / "checkpoints"
    checkpoints = open_checkpoints()
    for step in (1, 2):
        save(checkpoints, step, make_state(step, ema=False))
    damage_arrays(root / "2")
    noted: list[str] = []
    parts = restore_subtree(root, log=noted.append)
    assert (parts.step, "ema" in parts.state) == (1, False)
    assert noted[0].startswith("checkpoint 2 is damaged: ")
    assert (root / "2").is_dir()
    with pytest.raises(NoWholeCheckpointError, match="of step 2: all are damaged"):
        restore_subtree(root, step=2)
    with pytest.raises(
        UsageError, match="has none of nothing; its parts are completion/"
    ):
        restore_subtree(root, ["nothing"], step=1)
    with pytest.raises(
        UsageError, match="no checkpoint of step 3; it holds steps 1, 2"
    ):
        restore_subtree(root, step=3)


# --- hosts


def test_a_process_that_is_not_primary_writes_and_fetches_nothing(
    tmp_path, messages, monkeypatch
):
    other = Checkpoints(
        tmp_path / "checkpoints",
        keep_newest=1,
        keep_best=0,
        keep_every=None,
        max_failed_saves=1,
        log=messages.append,
        primary=False,
    )
    fetched: list[int] = []
    device_get = jax.device_get

    def counted(tree: Any) -> Any:
        fetched.extend(np.size(leaf) for leaf in jax.tree.leaves(tree))
        return device_get(tree)

    monkeypatch.setattr(jax, "device_get", counted)
    state = make_state(1)
    assert save(other, 1, state)
    assert sum(fetched) <= len(jax.tree.leaves(state))  # one number of each array
    other.close()
    assert not (tmp_path / "checkpoints").exists()
    for bad in (np.full(2, np.nan), jnp.full(2, jnp.inf, jnp.bfloat16)):
        with pytest.raises(NonFiniteStateError, match="w holds 2 values"):
            save(other, 2, {"w": bad})


TWO_HOSTS = """
import sys
from pathlib import Path

import jax
import numpy as np

process, port, root = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
jax.config.update("jax_num_cpu_devices", 1)
jax.distributed.initialize(f"127.0.0.1:{port}", 2, process, initialization_timeout=60)
from gl_jax import parallel
from gl_jax.checkpoint import (
    Checkpoints,
    NonFiniteStateError,
    NoWholeCheckpointError,
)

parallel.BROADCAST_BYTES = 8  # so that everything goes in pieces
for texts in (["of several pieces", "short"], ["", "8 bytes."], ["", ""]):
    assert parallel.from_every_host(texts[process]) == texts
checkpoints = Checkpoints(
    root / str(process),
    keep_newest=3,
    keep_best=0,
    keep_every=None,
    max_failed_saves=1,
    log=lambda message: None,
    primary=process == 0,
)
template = {"w": np.zeros((3, 2), jax.numpy.bfloat16), "none": None}
assert checkpoints.restore_newest(template) is None
for step in (1, 2):
    state = {"w": np.full((3, 2), -0.0 * step, jax.numpy.bfloat16), "none": None}
    checkpoints.save(step, state, psnr=None, config_json="{}", extra={"of": step})
checkpoints.wait()
try:
    state["w"] = jax.numpy.full((3, 2), jax.numpy.nan)
    checkpoints.save(3, state, psnr=None, config_json="{}", extra={})
except NonFiniteStateError as error:
    print("refused:", error)
if process == 0:
    (root / "0" / "2" / "manifest" / "metadata").unlink()
restored = checkpoints.restore_newest(template)
assert (restored.step, restored.extra) == (1, {"of": 1})
assert np.signbit(restored.state["w"]).all()
assert restored.state["w"].dtype == jax.numpy.bfloat16
if process == 0:
    (root / "0" / "1" / "manifest" / "metadata").unlink()
try:
    checkpoints.restore_newest(template)
except NoWholeCheckpointError as error:
    print("agreed:", error)
checkpoints.close()
"""


def test_hosts_without_a_common_disk_restore_what_the_first_has(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    root = Path(__file__).parents[2]
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_HOSTS, str(process), port, str(tmp_path)],
            cwd=root,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in (0, 1)
    ]
    try:
        outputs = [host.communicate(timeout=90) for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    assert [host.returncode for host in hosts] == [0, 0], outputs
    assert all("refused: checkpoint 3" in out for out, _ in outputs)
    assert all("agreed: no checkpoint" in out for out, _ in outputs)
    assert not (tmp_path / "1").exists()


# --- buckets


def test_the_address_of_a_bucket_is_passed_on_untouched(monkeypatch):
    monkeypatch.setenv("EPATH_USE_TF", "")
    address = "gs://bucket/run/checkpoints"
    assert str(folders.absolute(address)) == address
    assert not folders.is_local(folders.absolute(address))
