"""Evaluations of a small model, from the call to the files."""

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from gl_jax import cli, metrics, texture
from gl_jax.config import UsageError
from gl_jax.evaluation import evaluate as evaluation
from gl_jax.evaluation import mask_list
from gl_jax.evaluation.measures import distances, inception, lpips, separability
from gl_jax.evaluation.measures.distances import Moments, frechet_distance
from gl_jax.evaluation.photographs import Selection
from gl_jax.evaluation.results import Evaluation
from gl_jax.inpainting.completer import Completer
from gl_jax.weights import native
from gl_jax.weights.native import Model

COUNT, SIDE = 5, 32
"""Five: no multiple of the suite's four devices."""


def pixels(index: int, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    generator = np.random.default_rng(index)
    return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photographs whose middle squares at 32 pixels are exactly `pixels(i)`."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for index in range(COUNT):
        Image.fromarray(pixels(index)).save(folder / f"photo{index}.png")
    return folder


@pytest.fixture
def evaluate(weights_file: Path, folder: Path, tmp_path: Path) -> Any:
    def call(**changes: Any) -> Evaluation:
        values: dict[str, Any] = {
            "model": weights_file, "output": tmp_path / "result", "batch_size": 1,
            "log": lambda text: None,
        }  # fmt: skip
        options: dict[str, Any] = {
            "data": str(folder), "masks": "box", "protocol": "own", "seeds": None,
            "count": None, "image_size": None, "split": "validation", "data_dir": None,
        }  # fmt: skip
        options |= {name: changes.pop(name) for name in options if name in changes}
        return evaluation.run(selection=Selection(**options), **(values | changes))

    return call


def table(path: Path) -> list[dict[str, str]]:
    with (path / "per_image.csv").open() as file:
        return list(csv.DictReader(file))


def test_values_are_those_of_the_8_bit_composite(
    evaluate: Any, model: Model, tmp_path: Path
) -> None:
    result = evaluate(seeds=(0, 3))
    entries = {(e.seed, e.index): e for e in result.entries}
    assert len(result.rows) == 2 * COUNT == len(entries)
    for key in ((0, 4), (3, 1)):
        mask = entries[key].mask()
        raw = Completer(model).raw(pixels(key[1]), mask)
        picture = np.where(mask[..., None], np.rint(raw * 255), pixels(key[1]))
        pair = picture[None].astype(np.float32), pixels(key[1])[None].astype(np.float32)
        hole = mask[None, ..., None]
        row = result.rows[key]
        for name, value in (
            ("l1_percent", 100 * metrics.l1(*pair, max_value=255)),
            ("psnr_db", metrics.psnr(*pair, max_value=255)),
            ("ssim", metrics.ssim(*pair, max_value=255)),
            ("hole_l1_percent", 100 * metrics.l1(*pair, hole, max_value=255)),
            ("hole_psnr_db", metrics.psnr(*pair, hole, max_value=255)),
            ("hole_ssim", metrics.ssim(*pair, hole, max_value=255)),
        ):
            # A level that falls on the other side of a half moves the value a little.
            assert row[name] == pytest.approx(float(value[0]), rel=2e-3), name
        assert np.isnan(row["ms_ssim"]), "below 176 pixels there is none"


def test_all_files_tell_the_same(evaluate: Any, tmp_path: Path) -> None:
    result = evaluate(seeds=(0, 1))
    rows = table(tmp_path / "result")
    assert [(r["photograph"], r["seed"]) for r in rows[4:6]] == [
        ("photo4.png", "0"),
        ("photo0.png", "1"),
    ]
    assert rows[0]["ms_ssim"] == ""
    found = np.array([float(r["hole_psnr_db"]) for r in rows]).reshape(2, COUNT)
    record = json.loads((tmp_path / "result" / "evaluation.json").read_text())
    means = {name: row["hole_psnr_db"] for name, row in record["holes"].items()}
    assert means["seed 1"]["mean"] == pytest.approx(found[1].mean())
    error = found[1].std(ddof=1) / COUNT**0.5
    assert means["seed 1"]["standard_error"] == pytest.approx(error)
    each, seeds = found.mean(axis=0), found.mean(axis=1)
    over_photographs = means["all seeds, over photographs"]
    assert over_photographs["mean"] == pytest.approx(each.mean())
    assert over_photographs["standard_error"] == pytest.approx(
        each.std(ddof=1) / COUNT**0.5
    )
    over_seeds = means["all seeds, over seeds"]
    assert over_seeds["standard_error"] == pytest.approx(seeds.std(ddof=1) / 2**0.5)
    text = (tmp_path / "result" / "evaluation.md").read_text()
    assert f"{each.mean():.3f}" in text
    assert result.settings["rerun"] in text


def test_without_weights_fid_and_lpips_are_skipped_with_a_line(
    evaluate: Any, tmp_path: Path
) -> None:
    evaluate(masks="center")
    text = (tmp_path / "result" / "evaluation.md").read_text()
    assert "precision, recall, P-IDS and U-IDS skipped: give --fid-weights FILE" in text
    assert "LPIPS skipped: give --lpips-weights FILE" in text


def test_the_mask_list_repeats_holes_and_values(evaluate: Any, tmp_path: Path) -> None:
    first = evaluate(seeds=(5,), count=3)
    list_file = tmp_path / "result" / "masks.jsonl"
    second = evaluate(masks=str(list_file), output=tmp_path / "again")
    assert second.entries == first.entries
    assert second.to_csv() == first.to_csv()
    assert (tmp_path / "again" / "masks.jsonl").read_bytes() == list_file.read_bytes()


def test_the_sheet_shows_the_hole_the_result_and_the_truth(
    evaluate: Any, tmp_path: Path
) -> None:
    result = evaluate(masks="center", sheet_rows=2)
    with Image.open(tmp_path / "result" / "evaluation.png") as sheet:
        assert sheet.size == (8 + 3 * 200, 30 + 2 * 214 + 4)
        drawn = np.asarray(sheet.convert("RGB"))
    inputs, done, truth = (
        drawn[30:222:6, left : left + 192 : 6] for left in (8, 208, 408)
    )
    hole = result.entries[0].mask()
    np.testing.assert_array_equal(truth, pixels(0))
    np.testing.assert_array_equal(inputs, np.where(hole[..., None], 255, pixels(0)))
    np.testing.assert_array_equal(done[~hole], pixels(0)[~hole])
    assert (done[hole] != pixels(0)[hole]).any()


class Stopped(Exception):
    """Ctrl-C, in the middle."""


def interrupted(evaluate: Any, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """An evaluation that ends after its first batch."""
    score, calls = evaluation.Scorer.__call__, []

    def once(self: Any, *batch: Any) -> Any:
        if calls:
            raise Stopped
        calls.append(1)
        return score(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(evaluation.Scorer, "__call__", once)
        with pytest.raises(Stopped):
            evaluate(**changes)


def test_an_interrupted_evaluation_goes_on_where_it_was(
    evaluate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = evaluate(seeds=(0, 1), output=tmp_path / "unbroken")
    interrupted(evaluate, monkeypatch, seeds=(0, 1))
    measured: list[int] = []
    score = evaluation.Scorer.__call__
    monkeypatch.setattr(
        evaluation.Scorer,
        "__call__",
        lambda self, *batch: measured.append(len(batch[0])) or score(self, *batch),
    )
    result = evaluate(seeds=(0, 1), sheet_rows=0)
    assert measured == [4, 4], "of the ten entries four were done"
    assert result.to_csv() == unbroken.to_csv()
    assert len(table(tmp_path / "result")) == 10


def test_a_finished_evaluation_is_not_measured_again(
    evaluate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate(masks="center")
    monkeypatch.setattr(evaluation.Scorer, "__call__", None)
    assert evaluate(masks="center", sheet_rows=0).rows.keys() == first.rows.keys()


def test_other_settings_in_the_same_folder_are_refused_by_name(
    evaluate: Any, tmp_path: Path
) -> None:
    evaluate(masks="center")
    before = (tmp_path / "result" / "masks.jsonl").read_bytes()
    with pytest.raises(
        UsageError, match=r"settings: masks was \"center\", is \"box\"; seeds was \[0\]"
    ):
        evaluate(masks="box")
    assert (tmp_path / "result" / "masks.jsonl").read_bytes() == before


def test_masks_of_a_folder(evaluate: Any, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for index in range(COUNT):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[8:20, 4 : 10 + index] = 255
        Image.fromarray(mask).save(masks / f"photo{index}.png")
    result = evaluate(masks=str(masks))
    assert [entry.box.width for entry in result.entries] == [6, 7, 8, 9, 10]
    (masks / "photo4.png").unlink()
    with pytest.raises(UsageError, match="5 photographs and 4 masks"):
        evaluate(masks=str(masks), output=tmp_path / "other")


def test_names_that_are_no_text_or_of_another_unicode_form_are_names(
    evaluate: Any, folder: Path, tmp_path: Path
) -> None:
    (folder / "photo0.png").rename(folder / os.fsdecode(b"\xff.png"))
    (folder / "photo1.png").rename(folder / "photo1e\u0301.png")
    first = evaluate(masks="center")
    (folder / "photo1e\u0301.png").rename(folder / "photo1\u00e9.png")
    again = evaluate(
        masks=str(tmp_path / "result" / "masks.jsonl"), output=tmp_path / "again"
    )
    assert again.to_csv() == first.to_csv()


def test_masks_that_mark_most_of_all_photographs_are_doubted(
    evaluate: Any, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for index in range(COUNT):
        mask = np.full((SIDE, SIDE), 255, np.uint8)
        mask[8:20, 4:10] = 0
        Image.fromarray(mask).save(masks / f"photo{index}.png")
    evaluate(masks=str(masks))
    text = (tmp_path / "result" / "evaluation.md").read_text()
    assert "5 of 5 masks in" in text and "if black marks the holes, inv" in text


def test_a_photograph_that_cannot_be_read_is_left_out_and_named(
    evaluate: Any, folder: Path, tmp_path: Path
) -> None:
    (folder / "photo1.png").write_bytes(b"no image")
    result = evaluate(masks="center")
    assert [index for _, index in result.rows] == [0, 2, 3, 4]
    assert "photo1.png" in (tmp_path / "result" / "evaluation.md").read_text()
    assert result.table().counts == {"seed 0": 4}


def test_no_readable_photograph_at_all_is_refused(evaluate: Any, folder: Path) -> None:
    for file in folder.iterdir():
        file.write_bytes(b"no image")
    with pytest.raises(UsageError, match="no photograph can be read"):
        evaluate()


def test_a_model_that_computes_nonsense_fails_the_run(
    evaluate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = evaluation.Scorer.__call__

    def broken(self: Any, *batch: Any) -> Any:
        scores = score(self, *batch)
        scores.values["psnr_db"] = scores.values["psnr_db"] * np.nan
        return scores

    monkeypatch.setattr(evaluation.Scorer, "__call__", broken)
    with pytest.raises(UsageError, match=r"photo0.png is not finite"):
        evaluate()


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"model": None}, "no model is given"),
        ({"model": "nowhere"}, "'nowhere' is not a file"),
        ({"data": "nowhere"}, "'nowhere' does not exist"),
        ({"masks": "boxes"}, "'boxes' are unknown. Did you mean 'box'"),
        ({"protocol": "mmedit"}, "'mmedit' is unknown. Did you mean 'mmediting'"),
        ({"protocol": "mmediting", "masks": "center"}, "must be box"),
        ({"protocol": "mmediting", "image_size": 128}, "must be 256"),
        (
            {"protocol": "lama", "masks": "box", "metrics": ("ssim",)},
            "must be lama-thick",
        ),
        ({"protocol": "lama", "image_size": 128}, "must be 256 or 512"),
        (
            {"protocol": "lama"},
            "lama wants lpips by --lpips-weights FILE and fid by --fid",
        ),
        ({"protocol": "mat"}, r"wants fid, ids by --fid-weights FILE; give that"),
        ({"metrics": ("psnr", "psn")}, "'psn' is unknown. Did you mean 'psnr'"),
        ({"metrics": ()}, "at least one of l1, psnr"),
        ({"metrics": ("kid",)}, "--metrics wants kid by --fid-weights FILE"),
        (
            {"metrics": ("l1",), "fid_weights": Path("x.pth")},
            "--fid-weights is of no use to the metrics l1, psnr",
        ),
        ({"masks": "lama-thick"}, "not for 32x32; give --image-size 256 or 512"),
        ({"masks": "random:2"}, "random:2 is 2048 of 1024 pixels"),
        ({"masks": "center", "seeds": (0, 1)}, "make no difference to masks center"),
        ({"seeds": (1, 1)}, "must be different"),
        ({"seeds": (-1,)}, "must be different whole numbers from 0"),
        ({"count": 0}, r"count \(=0\) must be at least 1"),
        ({"count": 9}, r"count \(=9\) is more than the 5 photographs"),
        ({"image_size": 8}, r"image_size \(=8\) must be at least 16"),
        ({"batch_size": 0}, r"batch_size \(=0\) must be at least 1"),
        ({"fid_weights": Path("nowhere.pth")}, "nowhere.pth cannot be read"),
        ({"lpips_weights": (Path("nowhere.pth"),)}, "nowhere.pth cannot be read"),
    ],
)
def test_mistakes_are_refused_in_one_line(
    changes: dict[str, Any], rule: str, evaluate: Any
) -> None:
    if changes.get("model", "") is None and native.shipped():
        changes = {"model": "nowhere"}
        rule = "'nowhere' is not a file"
    with pytest.raises(UsageError, match=rule) as caught:
        evaluate(**changes)
    assert "\n" not in str(caught.value)


def test_a_mask_list_for_other_photographs_is_refused(
    evaluate: Any, folder: Path, tmp_path: Path
) -> None:
    entries = mask_list.make_entries("box", ["photo0.png", "x.png"], [0, 1], (0,), SIDE)
    path = tmp_path / "list.jsonl"
    mask_list.write(entries, path)
    with pytest.raises(UsageError, match=r"photograph 1 is x.png; in .* photo1.png"):
        evaluate(masks=str(path))
    mask_list.write(
        mask_list.make_entries("box", ["photo0.png"], [7], (0,), SIDE), path
    )
    with pytest.raises(UsageError, match=r"at least 8 photographs, .* has 5"):
        evaluate(masks=str(path))
    with pytest.raises(UsageError, match="seeds stand in mask list"):
        evaluate(masks=str(path), seeds=(0,))
    with pytest.raises(UsageError, match="is of --protocol own, not mmediting"):
        evaluate(masks=str(path), protocol="mmediting")


def test_mmediting_measures_raw_l1_and_the_rounded_composite(
    evaluate: Any, model: Model, tmp_path: Path
) -> None:
    # paper.md section 5, after mmedit/core/evaluation/metrics.py and models/inpaintors/
    # one_stage.py: l1 on the raw output, PSNR and SSIM on the composite in whole levels.
    large = tmp_path / "large"
    large.mkdir()
    Image.fromarray(pixels(9, 256, 256)).save(large / "photo.png")
    result = evaluate(
        data=str(large), protocol="mmediting", seeds=(0,),
        metrics=("l1", "psnr", "ssim"),
    )  # fmt: skip
    (entry,), (row,) = result.entries, result.rows.values()
    mask = entry.mask()
    raw = Completer(model).raw(pixels(9, 256, 256), mask)
    target = pixels(9, 256, 256)
    error = np.abs(raw.astype(np.float64) - target / 255)[mask]
    assert row["hole_l1_percent"] == pytest.approx(100 * error.mean(), rel=1e-5)
    levels = np.where(mask[..., None], np.rint(raw.astype(np.float64) * 255), target)
    square = np.mean((levels - target) ** 2)
    assert row["psnr_db"] == pytest.approx(20 * np.log10(255 / square**0.5), rel=1e-5)
    text = " ".join((tmp_path / "result" / "evaluation.md").read_text().split())
    assert "11.164 | 23.152 | 0.8620" in text
    assert "6.678 | 26.780 | 0.9040" in text
    assert "L1 in the hole is of the raw output" in text
    assert "| this evaluation " in text


def test_mmediting_refuses_small_photographs(evaluate: Any) -> None:
    with pytest.raises(UsageError, match=r"photo.*32x32 .*at least 256x256"):
        evaluate(protocol="mmediting")


def test_lpips_is_measured_with_the_users_file(
    evaluate: Any, randomly: Any, tmp_path: Path
) -> None:
    path = tmp_path / "alex.safetensors"
    save_file(randomly(lpips.shapes(lpips.ALEXNET)), path)
    result = evaluate(masks="center", lpips_weights=(path,))
    assert all(row["lpips"] > 0 for row in result.rows.values())
    assert "lpips" in table(tmp_path / "result")[0]
    assert any(note.startswith("LPIPS by AlexNet: alex") for note in result.notes)
    with pytest.raises(UsageError, match="at least 31 pixels, these have 16"):
        evaluate(lpips_weights=(path,), image_size=16, output=tmp_path / "small")


@pytest.fixture
def inception_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cheap stand-in for Inception: the colours of the middle of the picture."""
    monkeypatch.setattr(
        inception,
        "features",
        lambda arrays, images, resize: images[:, 14:18, 14:18].reshape(
            images.shape[0], 48
        ),
    )
    monkeypatch.setattr(inception, "FEATURES", 48)
    weights = inception.Weights({"x": np.zeros(1, np.float32)}, True)
    monkeypatch.setattr(inception, "load", lambda path: weights)
    path = tmp_path / "inception.pth"
    path.write_bytes(b"stand-in")
    return path


def test_measures_of_features_survive_an_interruption(
    evaluate: Any, inception_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = evaluate(fid_weights=inception_file, output=tmp_path / "unbroken")
    interrupted(evaluate, monkeypatch, fid_weights=inception_file)
    result = evaluate(fid_weights=inception_file)
    assert unbroken.fid is not None and unbroken.fid > 0
    assert result.fid == pytest.approx(unbroken.fid, rel=1e-6)
    assert result.sets_table().to_json() == unbroken.sets_table().to_json()
    assert "FID over 15 pictures, fewer than its 48 features" in " ".join(result.notes)
    # Arrays of a journal that was deleted do not count for a new one.
    (tmp_path / "result" / "journal.jsonl").unlink()
    assert evaluate(fid_weights=inception_file).fid == pytest.approx(
        unbroken.fid, rel=1e-6
    )


def test_fid_kid_precision_and_recall_come_from_the_pictures_features(
    evaluate: Any, inception_file: Path, model: Model
) -> None:
    result = evaluate(fid_weights=inception_file, masks="center")
    pairs = []
    for entry in result.entries:
        mask, photograph = entry.mask()[..., None], pixels(entry.index)
        raw = Completer(model).raw(photograph, entry.mask())
        completed = np.where(mask, np.rint(raw * 255), photograph)
        pairs.append([x[14:18, 14:18].ravel() / 255 for x in (photograph, completed)])
    features = np.array(pairs)
    truth, completed = (Moments.of(features[:, side]) for side in (0, 1))
    assert result.fid == pytest.approx(frechet_distance(truth, completed), rel=2e-3)
    expected = distances.kernel_of_set(features) | distances.precision_of_set(features)
    expected |= separability.of_set(features)
    found = {name: result.sets[0][name] for name in expected}
    assert found == pytest.approx(expected, rel=2e-3)


def test_metrics_are_chosen_and_their_cost_is_said(
    evaluate: Any, inception_file: Path, tmp_path: Path
) -> None:
    result = evaluate(
        masks="center", metrics=("precision", "ssim"), fid_weights=inception_file
    )
    assert [*result.columns] == ["psnr_db", "ssim", "hole_psnr_db", "hole_ssim"]
    assert [*result.set_columns] == [*result.sets[0]] == ["precision", "recall"]
    assert result.fid is None
    assert [*result.costs] == ["completing", "psnr", "ssim", "features", "precision"]
    costs = [result.costs[name].operations for name in ("psnr", "ssim", "completing")]
    assert 0 < costs[0] < costs[1] < costs[2]
    assert result.costs["precision"].seconds > 0
    text = (tmp_path / "result" / "evaluation.md").read_text()
    assert "| cost       | GFLOP for each photograph and hole | seconds" in text
    assert [*table(tmp_path / "result")[0]][3:] == [*result.columns]


def test_mat_measures_its_scores_at_its_size_by_its_resize(
    evaluate: Any, inception_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resizes = []

    def features(arrays: Any, images: Any, resize: str) -> Any:
        resizes.append(resize)
        return images[:, 14:18, 14:18].reshape(images.shape[0], 48)

    monkeypatch.setattr(inception, "features", features)
    result = evaluate(
        protocol="mat", masks="mat-large", image_size=256, seeds=(0,), count=4,
        fid_weights=inception_file, metrics=("fid", "ids"),
    )  # fmt: skip
    assert {entry.height for entry in result.entries} == {256}
    assert set(resizes) == {"tensorflow"}
    assert result.sets[0]["p_ids_percent"] in (0, 25, 50, 75, 100)
    text = " ".join((tmp_path / "result" / "evaluation.md").read_text().split())
    assert "CoModGAN, Places365 at 512 pixels | 2.92 | 19.64 | 35.78" in text
    assert "fewer than their 48 features" in text
    assert "no raw output" in text


def test_too_few_photographs_for_features_are_refused(
    evaluate: Any, inception_file: Path
) -> None:
    with pytest.raises(UsageError, match="at least 4 photographs, there are 3; leave"):
        evaluate(fid_weights=inception_file, count=3)


def test_texture_is_that_of_the_completed_pictures(
    evaluate: Any, model: Model, tmp_path: Path
) -> None:
    result = evaluate(masks="center")
    masks = np.stack([entry.mask() for entry in result.entries])
    truth = np.stack([pixels(index) for index in range(COUNT)]).astype(np.float32)
    raw = np.stack(
        [Completer(model).raw(pixels(i), mask) for i, mask in enumerate(masks)]
    )
    masks = masks[..., None]
    completed = np.where(masks, np.rint(raw * 255), truth)
    fine, coarse = texture.swd(completed, truth, masks, max_value=255)
    expected = {
        "swd_fine": fine,
        "swd_coarse": coarse,
        "grid": np.median(texture.grid_energy(completed, masks, max_value=255)),
        "grid_photographs": np.median(texture.grid_energy(truth, masks, max_value=255)),
    }
    assert result.sets[0] == pytest.approx(expected, rel=5e-3)
    text = (tmp_path / "result" / "evaluation.md").read_text()
    assert f"| {fine:.2f} | {coarse:.2f} |" in " ".join(text.split())
    assert "grid of the photographs" in text
    record = json.loads((tmp_path / "result" / "evaluation.json").read_text())
    assert record["sets"]["seed 0"]["swd_fine"]["mean"] == result.sets[0]["swd_fine"]
    assert float(table(tmp_path / "result")[0]["grid"]) > 0


def test_measures_of_sets_have_a_mean_and_an_error_over_seeds(
    evaluate: Any, tmp_path: Path
) -> None:
    result = evaluate(seeds=(0, 1, 2))
    values = [result.sets[seed]["swd_fine"] for seed in (0, 1, 2)]
    record = json.loads((tmp_path / "result" / "evaluation.json").read_text())
    over_seeds = record["sets"]["all seeds, over seeds"]
    assert over_seeds["swd_fine"]["mean"] == pytest.approx(np.mean(values))
    error = np.std(values, ddof=1) / 3**0.5
    assert over_seeds["swd_fine"]["standard_error"] == pytest.approx(error)
    assert record["sets"]["seed 1"]["swd_fine"] == {
        "mean": values[1], "standard_error": None,
    }  # fmt: skip


def test_holes_too_small_for_texture_are_counted_and_have_no_value(
    evaluate: Any, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for index in range(COUNT):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[8:14, 4:20] = 255
        Image.fromarray(mask).save(masks / f"photo{index}.png")
    result = evaluate(masks=str(masks))
    assert np.isnan(list(result.sets[0].values())).all()
    text = (tmp_path / "result" / "evaluation.md").read_text()
    assert "SWD fine: 5 of 5 holes are left out" in text
    record = json.loads((tmp_path / "result" / "evaluation.json").read_text())
    assert record["sets"]["seed 0"]["swd_fine"]["mean"] is None


def test_results_without_their_arrays_are_measured_again(
    evaluate: Any, tmp_path: Path
) -> None:
    first = evaluate(masks="center")
    (tmp_path / "result" / "arrays.bin").unlink()
    assert evaluate(masks="center").sets == first.sets
    journal = (tmp_path / "result" / "journal.jsonl").read_text()
    assert len(journal.splitlines()) == 1 + 2 * COUNT


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.slow
@pytest.mark.timeout(900)  # two processes that each compile, on as few cores
def test_two_processes_measure_what_one_does(
    evaluate: Any, weights_file: Path, folder: Path, tmp_path: Path
) -> None:
    alone = evaluate(output=tmp_path / "alone", seeds=(0, 1))
    environment = dict(os.environ, XLA_FLAGS="", JAX_NUM_CPU_DEVICES="1")
    command = [
        sys.executable, "-m", "gl_jax", "evaluate", "--model", str(weights_file),
        "--data", str(folder), "--output", str(tmp_path / "both"), "--seeds", "0,1",
        "--batch-size", "2", "--coordinator", f"127.0.0.1:{free_port()}",
        "--process-count", "2", "--process-id",
    ]  # fmt: skip
    processes = [
        subprocess.Popen(
            [*command, str(index)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in (0, 1)
    ]
    outputs = [process.communicate(timeout=800)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    found = table(tmp_path / "both")
    assert len(found) == 2 * COUNT == len(alone.rows)
    for row in found:
        expected = alone.rows[int(row["seed"]), int(row["index"])]["psnr_db"]
        assert float(row["psnr_db"]) == pytest.approx(expected, rel=1e-3)


def test_the_command_line_hands_its_options_over(
    weights_file: Path,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "result"
    words = ["evaluate", "--model", str(weights_file), "--data", str(folder)]
    words += ["--output", str(output), "--batch-size", "2"]
    assert cli.main([*words, "--seeds", "0,a"]) == 2
    assert "--seeds (='a') must be a whole number." in capsys.readouterr().err
    assert cli.main([*words, "--seeds", "4,2", "--masks", "freeform"]) == 0
    assert "seed 4" in capsys.readouterr().out
    assert [row["seed"] for row in table(output)] == ["4"] * COUNT + ["2"] * COUNT


def test_files_that_are_not_measured_are_named(
    evaluate: Any, folder: Path, tmp_path: Path
) -> None:
    for name in ("a.heic", "b.HEIC", "c.dng"):
        (folder / name).write_bytes(b"\0")
    clear = np.full((SIDE, SIDE, 1), 255, np.uint8)
    Image.fromarray(np.dstack([pixels(0), clear])).save(folder / "photo0.png")
    clear[3, 4] = 0
    Image.fromarray(np.dstack([pixels(1), clear])).save(folder / "photo1.png")
    result = evaluate(seeds=(0,))
    assert len(result.rows) == COUNT - 1
    text = (tmp_path / "result" / "evaluation.md").read_text()
    assert f"left out of {folder}: 2 HEIC, 1 camera RAW; convert them to PNG" in text
    assert "photo1.png is transparent in parts" in text and "photo0" not in text


def test_a_folder_of_heic_alone_gets_the_advice(
    evaluate: Any, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "heic").mkdir()
    (tmp_path / "heic" / "a.heic").write_bytes(b"\0")
    with pytest.raises(UsageError, match=r"1 HEIC; convert them to PNG or JPEG"):
        evaluate(data=str(tmp_path / "heic"))
