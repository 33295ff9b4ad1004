"""Comparisons on small photographs, from the call to the files."""

import csv
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from gl_jax import cli, texture
from gl_jax.config import (
    Config,
    DataConfig,
    HolesConfig,
    ModelConfig,
    RunConfig,
    UsageError,
)
from gl_jax.evaluation import compare as comparison
from gl_jax.evaluation.baselines import BASELINES, fair
from gl_jax.evaluation.masks import box, center
from gl_jax.evaluation.photographs import Selection
from gl_jax.weights import native
from gl_jax.weights.convention import Convention

COUNT, SIDE = 3, 32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three photographs whose middle squares at 32 pixels are exactly `pixels(i)`."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for index in range(COUNT):
        Image.fromarray(pixels(index)).save(folder / f"photo{index}.png")
    return folder


def pixels(index: int) -> np.ndarray:
    generator = np.random.default_rng(index)
    return generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def compare(folder: Path | str, output: Path, **changes: Any) -> comparison.Comparison:
    values: dict[str, Any] = {
        "model": None, "methods": ("mean",), "output": output, "log": lambda text: None,
    }  # fmt: skip
    options: dict[str, Any] = {
        "data": str(folder), "masks": "box", "protocol": "own", "seeds": (0,),
        "count": COUNT, "image_size": SIDE, "split": "validation", "data_dir": None,
    }  # fmt: skip
    options |= {name: changes.pop(name) for name in options if name in changes}
    return comparison.run(selection=Selection(**options), **(values | changes))


@pytest.fixture(scope="module", params=[None, 0.9], ids=["plain", "ema"])
def trained(request: Any, tmp_path_factory: Any) -> tuple[Path, Config, Any]:
    """A run's folder with one checkpoint, its configuration and its variables."""
    from gl_jax.checkpoint import Checkpoints
    from gl_jax.training.parts import default_parts
    from gl_jax.training.state import create_state, inference_variables

    config = Config(
        model=ModelConfig(width=0.0625, discriminators="none"),
        data=DataConfig(image_size=SIDE, mean_color=(0.5, 0.4, 0.3)),
        holes=HolesConfig(min_size=8, max_size=16, local_size=16),
        run=RunConfig(ema_decay=request.param),
    )
    state = create_state(
        default_parts(config), SIDE, ema=config.run.ema_decay is not None
    )
    if state.ema is not None:
        biased = {
            **state.ema["params"],
            "conv17": {
                **state.ema["params"]["conv17"],
                "bias": jnp.array([1.0, 0.0, -1.0]),
            },
        }
        state = state.replace(ema={**state.ema, "params": biased})
    workdir = tmp_path_factory.mktemp("run")
    checkpoints = Checkpoints(
        workdir / "checkpoints",
        keep_newest=1,
        keep_best=0,
        keep_every=None,
        max_failed_saves=1,
        log=print,
    )
    checkpoints.save(7, state, measured={}, config_json=config.to_json(), extra={})
    checkpoints.close()
    return workdir, config, inference_variables(state)


def test_scores_are_those_of_the_methods_on_the_seeded_holes(
    folder: Path, tmp_path: Path
) -> None:
    result = compare(folder, tmp_path, methods=("mean", "telea"), seeds=(4,))
    assert [(s.method, s.photograph) for s in result.scores[:3]] == [
        ("mean", "photo0.png"),
        ("telea", "photo0.png"),
        ("mean", "photo1.png"),
    ]
    mask = box(COUNT, SIDE, SIDE, 4)[1]
    filled = BASELINES["mean"](pixels(1), mask)
    error = (filled.astype(float) - pixels(1))[mask] / 255
    score = result.scores[2]
    assert score.values["hole_l1_percent"] == pytest.approx(
        100 * np.abs(error).mean(), rel=1e-5
    )
    expected = -10 * np.log10(np.mean(error**2))
    assert score.values["hole_psnr_db"] == pytest.approx(expected, rel=1e-5)
    assert 0 < score.values["seconds"] < 60


def test_all_files_tell_the_same(folder: Path, tmp_path: Path) -> None:
    result = compare(folder, tmp_path, methods=("mean", "ns"))
    record = json.loads((tmp_path / "comparison.json").read_text())
    with (tmp_path / "comparison.csv").open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    table = (tmp_path / "comparison.md").read_text()
    psnr = [s.values["hole_psnr_db"] for s in result.scores if s.method == "ns"]
    estimated = record["methods"]["ns"]["hole_psnr_db"]
    assert estimated["mean"] == pytest.approx(np.mean(psnr))
    assert estimated["standard_error"] == pytest.approx(np.std(psnr, ddof=1) / 3**0.5)
    assert float(rows["ns"]["hole_psnr_db"]) == estimated["mean"]
    assert f"{estimated['mean']:.2f} ± {estimated['standard_error']:.2f}" in table
    assert len(record["scores"]) == 2 * COUNT


def test_the_sheet_has_a_row_a_photograph_and_a_column_a_method(
    folder: Path, tmp_path: Path
) -> None:
    compare(folder, tmp_path, methods=("mean", "ns"), sheet_rows=2)
    with Image.open(tmp_path / "comparison.png") as sheet:
        assert sheet.size == (8 + 4 * 200, 30 + 2 * 214 + 4)
        drawn = np.asarray(sheet.convert("RGB"))
    inputs, truth = (drawn[30:222:6, left : left + 192 : 6] for left in (8, 608))
    mask = box(COUNT, SIDE, SIDE, 0)[0]
    np.testing.assert_array_equal(truth, pixels(0))
    np.testing.assert_array_equal(inputs, np.where(mask[..., None], 255, pixels(0)))
    # Each method's pictures and the photographs have the same names, as a study takes them.
    for kept in ("pictures/mean", "pictures/ns", "truth"):
        names = [path.name for path in sorted((tmp_path / kept).iterdir())]
        assert names == ["0000.png", "0001.png"]
    with Image.open(tmp_path / "truth" / "0000.png") as photograph:
        np.testing.assert_array_equal(np.asarray(photograph), pixels(0))


def test_the_same_call_gives_the_same_scores(folder: Path, tmp_path: Path) -> None:
    first, second = (compare(folder, tmp_path / name) for name in ("a", "b"))
    assert [s.values["hole_psnr_db"] for s in first.scores] == [
        s.values["hole_psnr_db"] for s in second.scores
    ]


def test_a_method_that_fails_on_one_photograph_is_named_and_the_rest_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def picky(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        if (image == pixels(1))[~mask].all():
            raise RuntimeError("out of\npatches")
        return image

    monkeypatch.setitem(BASELINES, "picky", fair(picky))
    result = compare(folder, tmp_path, methods=("picky", "mean"))
    assert [(f.method, f.photograph) for f in result.failures] == [
        ("picky", "photo1.png")
    ]
    table = (tmp_path / "comparison.md").read_text()
    assert "picky failed" in table
    assert "photo1.png (out of patches)" in table
    assert [
        len([s for s in result.scores if s.method == m]) for m in result.methods
    ] == [2, 3]


def test_a_perfect_method_is_inf_in_the_table_and_null_in_json(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BASELINES, "oracle", lambda image, mask: image)
    compare(folder, tmp_path, methods=("oracle",))
    assert "| inf |" in " ".join((tmp_path / "comparison.md").read_text().split())
    record = json.loads((tmp_path / "comparison.json").read_text())
    assert record["methods"]["oracle"]["hole_psnr_db"]["mean"] is None
    assert record["methods"]["oracle"]["ssim"]["mean"] == 1


def test_a_method_without_its_library_is_named_and_left_out(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        raise ModuleNotFoundError("No module named 'patchmatch'")

    monkeypatch.setitem(BASELINES, "telea", fair(missing))
    result = compare(folder, tmp_path, methods=("telea", "mean"))
    assert result.methods == ("mean",)
    assert (
        "telea left out, a library is missing: No module named 'patchmatch'"
        in (tmp_path / "comparison.md").read_text()
    )
    with pytest.raises(UsageError, match=r"no method is left.*patchmatch"):
        compare(folder, tmp_path / "other", methods=("telea",))


def test_a_photograph_that_cannot_be_read_is_named_and_left_out(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "photo1.png").write_bytes(b"no image")
    result = compare(folder, tmp_path)
    assert [s.photograph for s in result.scores] == ["photo0.png", "photo2.png"]
    assert any("photo1.png" in note for note in result.notes)


def test_no_readable_photograph_at_all_is_refused(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        file.write_bytes(b"no image")
    with pytest.raises(UsageError, match="no photograph can be read"):
        compare(folder, tmp_path)


def test_fewer_photographs_than_asked_for_are_said_to_be_fewer(
    folder: Path, tmp_path: Path
) -> None:
    result = compare(folder, tmp_path, count=10)
    assert "10 photographs were asked for, there are 3." in result.notes


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"methods": ("tela",)}, "method 'tela' is unknown. Did you mean 'telea'"),
        ({"methods": ()}, "at least one"),
        ({"masks": "boxes"}, "'boxes' are unknown. Did you mean 'box'"),
        ({"count": 0}, r"count \(=0\) must be at least 1"),
        ({"image_size": 8}, r"image_size \(=8\) must be at least 16"),
        (
            {"methods": ("gl",), "model": "nowhere"},
            "'nowhere' is not a file, the folder",
        ),
        ({"data": "nowhere"}, "'nowhere' does not exist"),
    ],
)
def test_mistakes_are_refused_in_one_line_and_leave_no_folder(
    changes: dict[str, Any], rule: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=rule) as caught:
        compare(folder, tmp_path / "output", **changes)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "output").exists()


def test_an_output_that_is_a_file_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(UsageError, match=r"taken.* cannot be "):
        compare(folder, tmp_path / "taken")


def test_ours_is_the_trained_network_at_its_own_size(
    trained: tuple[Path, Config, Any], folder: Path, tmp_path: Path
) -> None:
    from gl_jax.training.parts import default_parts

    workdir, config, variables = trained
    result = compare(
        folder, tmp_path, model=workdir, methods=("gl", "mean"), image_size=None
    )
    assert (result.settings["image_size"], result.settings["step"]) == (SIDE, 7)
    images = jnp.asarray(pixels(0)[None], jnp.float32) / 255
    mask = box(1, SIDE, SIDE)[0]
    holes = jnp.asarray(mask[None, ..., None], jnp.float32)
    assert config.data.mean_color is not None
    inputs = Convention.gl_jax(config.data.mean_color).encode(images, holes)
    output = default_parts(config).completion.apply(variables, inputs, train=False)
    error = np.abs(np.asarray(output[0] - images[0]))[mask]
    # The picture is rounded to 8 bits before it is measured.
    assert result.scores[0].method == "gl"
    assert result.scores[0].values["hole_l1_percent"] == pytest.approx(
        100 * error.mean(), abs=0.05
    )


def test_ours_takes_photographs_of_any_size(
    trained: tuple[Path, Config, Any], folder: Path, tmp_path: Path
) -> None:
    result = compare(folder, tmp_path, model=trained[0], methods=("gl",), image_size=30)
    assert [s.photograph for s in result.scores] == [
        f"photo{i}.png" for i in range(COUNT)
    ]
    assert result.failures == ()


def test_without_a_model_ours_is_the_shipped_one(folder: Path, tmp_path: Path) -> None:
    result = compare(folder, tmp_path, methods=("gl", "demo"))
    assert result.settings["model"] == "shipped"
    ours, named = (
        [s.values["hole_psnr_db"] for s in result.scores if s.method == name]
        for name in ("gl", "demo")
    )
    assert ours == named


def test_ours_may_be_a_weights_file(
    weights_file: Path, folder: Path, tmp_path: Path
) -> None:
    result = compare(folder, tmp_path, model=weights_file, methods=("gl",))
    assert len(result.scores) == COUNT
    assert result.settings["step"] == 7


def test_a_further_model_is_a_method_by_its_path(
    weights_file: Path, folder: Path, tmp_path: Path
) -> None:
    methods = ("gl", str(weights_file), "mean")
    result = compare(folder, tmp_path, model=weights_file, methods=methods)
    assert result.methods == ("gl", weights_file.stem, "mean")
    assert len(result.scores) == 3 * COUNT
    found = {
        m: [s.values["ssim"] for s in result.scores if s.method == m]
        for m in result.methods
    }
    assert found["gl"] == found[weights_file.stem]


def test_two_models_of_one_name_are_refused(
    weights_file: Path, folder: Path, tmp_path: Path
) -> None:
    twin = tmp_path / "other" / weights_file.name
    twin.parent.mkdir()
    twin.write_bytes(weights_file.read_bytes())
    with pytest.raises(UsageError, match="would stand under"):
        compare(folder, tmp_path, methods=(str(weights_file), str(twin)))


def test_holes_come_from_a_folder_too(folder: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for index in range(COUNT):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[4:12, 6 + index : 20] = 255
        Image.fromarray(mask).save(masks / f"photo{index}.png")
    compare(folder, tmp_path, masks=str(masks))
    with Image.open(tmp_path / "comparison.png") as sheet:
        shown = np.asarray(sheet.convert("RGB"))[30:222:6, 8:200:6]
    np.testing.assert_array_equal(shown[4:12, 6:20], 255)
    (masks / "photo2.png").unlink()
    with pytest.raises(UsageError, match=r"1 of 3 photographs .* among the 2"):
        compare(folder, tmp_path / "other", masks=str(masks))
    for index in range(COUNT):
        Image.new("L", (SIDE, SIDE), 255).save(masks / f"photo{index}.png")
        with Image.open(masks / f"photo{index}.png") as mask:
            mask.paste(0, (0, 0, 8, 8))
            mask.save(masks / f"photo{index}.png")
    result = compare(folder, tmp_path / "inverted", masks=str(masks), methods=("mean",))
    assert any("3 of 3 masks in" in n and "invert them" in n for n in result.notes)


def counting(monkeypatch: pytest.MonkeyPatch, name: str) -> list[int]:
    """Replaces a method by one that notes its calls."""
    calls: list[int] = []

    def method(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        calls.append(1)
        return image

    monkeypatch.setitem(BASELINES, name, fair(method))
    return calls


def test_an_interrupted_comparison_goes_on_where_it_was(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        if (image == pixels(1))[~mask].all():
            raise KeyboardInterrupt
        return image

    calls = counting(monkeypatch, "first")
    monkeypatch.setitem(BASELINES, "second", fair(stopped))
    with pytest.raises(KeyboardInterrupt):
        compare(folder, tmp_path, methods=("first", "second"))
    # Once to warm up, and on photographs 0 and 1.
    assert len(calls) == 3
    other = counting(monkeypatch, "second")
    result = compare(folder, tmp_path, methods=("first", "second"))
    assert (len(calls), len(other)) == (5, 3)
    assert len(result.scores) == 2 * COUNT
    again = compare(folder, tmp_path, methods=("first", "second"))
    assert again.to_json() == result.to_json()
    assert (len(calls), len(other)) == (5, 3), "nothing was left to do"


def test_a_method_more_runs_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counting(monkeypatch, "first")
    compare(folder, tmp_path, methods=("first",))
    result = compare(folder, tmp_path, methods=("mean", "first"))
    assert len(calls) == 1 + COUNT
    assert result.methods == ("mean", "first")


def test_another_model_is_run_anew(
    weights_file: Path, model: Any, folder: Path, tmp_path: Path
) -> None:
    first = compare(folder, tmp_path, model=weights_file, methods=("gl",))
    variables = jax.tree.map(lambda leaf: leaf * np.float32(0.5), model.variables)
    other = tmp_path / "other.safetensors"
    native.save(dataclasses.replace(model, variables=variables), other)
    second = compare(folder, tmp_path, model=other, methods=("gl",))
    assert (
        first.scores[0].values["hole_psnr_db"]
        != second.scores[0].values["hole_psnr_db"]
    )


def test_other_holes_in_the_same_folder_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    compare(folder, tmp_path)
    with pytest.raises(UsageError, match=r"other settings: .*seed was 0, is 1"):
        compare(folder, tmp_path, seeds=(1,))


def test_sharpness_and_memory_stand_in_the_table(folder: Path, tmp_path: Path) -> None:
    result = compare(folder, tmp_path, methods=("mean",))
    assert [score.values["sharpness"] for score in result.scores] == [0, 0, 0], (
        "one flat colour"
    )
    if sys.platform == "linux":
        assert all(
            0 <= score.values["peak_memory_mib"] < 500 for score in result.scores
        )
    text = (tmp_path / "comparison.md").read_text()
    assert "sharpness" in text and "peak memory" in text


def test_texture_is_that_of_the_methods_pictures(folder: Path, tmp_path: Path) -> None:
    result = compare(folder, tmp_path, methods=("telea", "mean"), masks="center")
    masks = center(COUNT, SIDE, SIDE)
    truth = np.stack([pixels(index) for index in range(COUNT)])
    pairs = zip(truth, masks, strict=True)
    completed = np.stack([BASELINES["telea"](image, mask) for image, mask in pairs])
    masks = masks[..., None]
    fine, coarse = texture.swd(completed, truth, masks, max_value=255)
    grids = texture.grid_energy(completed, masks, max_value=255)
    assert result.sets["telea"] == pytest.approx(
        {
            "swd_fine": fine,
            "swd_coarse": coarse,
            "grid": np.median(grids),
            "grid_photographs": result.sets["mean"]["grid_photographs"],
        },
        rel=5e-3,
    )
    found = [s.values["grid"] for s in result.scores if s.method == "telea"]
    np.testing.assert_allclose(found, grids, rtol=1e-3)
    assert result.sets["mean"]["grid"] == pytest.approx(0, abs=1e-2), "one flat colour"
    record = json.loads((tmp_path / "comparison.json").read_text())
    in_file = record["methods"]["telea"]["swd_fine"]["mean"]
    assert in_file == result.sets["telea"]["swd_fine"]


def test_a_method_that_fails_everywhere_has_no_texture(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        raise RuntimeError("never")

    monkeypatch.setitem(BASELINES, "broken", fair(broken))
    result = compare(folder, tmp_path, methods=("broken",))
    assert result.sets == {}
    assert np.isnan(result.table().rows["broken"]["swd_fine"].mean)


def test_holes_too_small_for_texture_are_counted_once(
    folder: Path, tmp_path: Path
) -> None:
    result = compare(folder, tmp_path, methods=("mean", "ns"), image_size=16)
    counted = [note for note in result.notes if note.startswith("SWD coarse")]
    assert len(counted) == 1 and "3 of 3 holes are left out" in counted[0]


def test_metrics_are_chosen(folder: Path, tmp_path: Path) -> None:
    result = compare(folder, tmp_path, metrics=("vif",), image_size=48)
    assert [*result.table().columns] == [
        "hole_psnr_db", "vif", "seconds", "peak_memory_mib",
    ]  # fmt: skip
    assert all(0 < score.values["vif"] < 1 for score in result.scores)
    with pytest.raises(UsageError, match=r"metric fid needs weights, .*knows l1, psnr"):
        compare(folder, tmp_path / "other", metrics=("psnr", "fid"))
    with pytest.raises(UsageError, match="other settings: metrics was"):
        compare(folder, tmp_path, metrics=("psnr",), image_size=48)


def test_the_table_of_yeh_has_published_figures_beside_those_measured(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"compare --protocol yeh --methods mean --metrics psnr --data {folder}"
    assert cli.main([*words.split(), "--output", str(tmp_path / "yeh")]) == 0
    table = (tmp_path / "yeh" / "yeh.md").read_text()
    assert table in capsys.readouterr().out
    rows = json.loads((tmp_path / "yeh" / "yeh.json").read_text())
    # The table of Yeh et al. 2017: centre, pattern, random 80 %, half.
    published = {name: [*row.values()] for name, row in rows["published"].items()}
    assert published["Context Encoder, CelebA"] == [21.3, 19.2, 20.6, 15.5]
    assert published["semantic inpainting, SVHN"] == [19.0, 19.8, 33.0, 14.6]
    assert published["semantic inpainting, Cars"] == [13.5, 14.1, 18.9, 11.1]
    assert "| published: Context Encoder, Cars       |   14.1 |    14.0 |" in table
    own = json.loads((tmp_path / "yeh" / "half" / "comparison.json").read_text())
    assert own["settings"]["image_size"] == 64
    measured = [score["psnr_db"] for score in own["scores"]]
    assert rows["measured"]["mean"]["half"] == pytest.approx(np.mean(measured))
    assert "not of the raw output" in table


def test_ms_ssim_is_measured_where_the_picture_is_large_enough(
    folder: Path, tmp_path: Path
) -> None:
    small = compare(folder, tmp_path / "small", methods=("mean",))
    large = compare(folder, tmp_path / "large", methods=("mean",), image_size=176)
    assert all(np.isnan(score.values["ms_ssim"]) for score in small.scores)
    assert all(0 < score.values["ms_ssim"] < 1 for score in large.scores)


def test_files_that_are_not_compared_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / "a.heic").write_bytes(b"\0")
    clear = np.zeros((SIDE, SIDE, 1), np.uint8)
    Image.fromarray(np.dstack([pixels(1), clear])).save(folder / "clear.png")
    result = compare(folder, tmp_path, methods=("mean",), count=COUNT + 1)
    assert len(result.scores) == COUNT
    table = (tmp_path / "comparison.md").read_text()
    assert f"left out of {folder}: 1 HEIC; convert them to PNG or JPEG" in table
    assert "clear.png is transparent in parts" in table
