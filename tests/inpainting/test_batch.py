"""`gl-jax complete` as a user meets it: files and folders in, files out, clear lines."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from gl_jax import cli, compilation
from gl_jax.inpainting import batch, progress
from gl_jax.inpainting.completer import Completer
from gl_jax.weights import native

CHANCE = np.random.default_rng(0)
PHOTO = CHANCE.integers(0, 256, (40, 50, 3), dtype=np.uint8)
MASK = np.zeros((40, 50), bool)
MASK[10:22, 15:32] = True


@pytest.fixture(scope="module")
def weights(model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    native.save(model, path)
    return path


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """A working folder with a photo and a mask, and no cache in the user's home."""
    monkeypatch.setattr(compilation, "use_compilation_cache", lambda: None)
    batch._mask_picture.cache_clear()
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PHOTO).save("photo.png")
    Image.fromarray(MASK).save("mask.png")
    return tmp_path


@pytest.fixture
def complete(weights, capsys):
    """Runs the command; gives its exit code and what it printed."""

    def run(words: str, *, model: bool = True) -> tuple[int, str, str]:
        given = ["--model", str(weights)] if model else []
        code = cli.main(["complete", *words.split(), *given])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def pixels(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def only_the_hole_changed(path: str, photo=PHOTO, mask=MASK) -> bool:
    result = pixels(path)
    assert result.shape == photo.shape
    known = np.array_equal(result[~mask], photo[~mask])
    return known and (result[mask] != photo[mask]).mean() > 0.5


def folder(**pictures: np.ndarray) -> None:
    """Pictures at paths in which `__` stands for `/`."""
    for name, picture in pictures.items():
        path = Path(name.replace("__", "/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)


# --- one photo


def test_a_photo_and_a_mask_become_a_completed_photo(complete) -> None:
    code, out, err = complete("--image photo.png --mask mask.png --output result.png")
    assert (code, out, err) == (0, "1 completed: result.png\n", "")
    assert only_the_hole_changed("result.png")


def test_a_result_can_go_into_a_folder(complete) -> None:
    Path("results").mkdir()
    words = "--image photo.png --mask mask.png --output"
    assert complete(f"{words} results")[0] == 0
    assert complete(f"{words} new/")[0] == 0
    assert only_the_hole_changed("results/photo.png")
    assert only_the_hole_changed("new/photo.png")


@pytest.mark.parametrize(
    "mask",
    [
        Image.fromarray(MASK.astype(np.uint8)),
        Image.fromarray(MASK),
        Image.fromarray(MASK).convert("RGB"),
        Image.fromarray(MASK).convert("RGBA"),
        Image.fromarray(MASK.astype(np.uint16) * 65535),
        Image.fromarray(MASK.astype(np.float32)),
        Image.fromarray(MASK).convert("P"),
        Image.fromarray(MASK).convert("L").convert("LA"),
    ],
    ids="01 bool rgb rgba 16bit float palette la".split(),
)
def test_masks_of_every_kind_are_understood(complete, mask) -> None:
    suffix = "tif" if mask.mode == "F" else "png"
    mask.save(f"other.{suffix}")
    code, _, err = complete(
        f"--image photo.png --mask other.{suffix} --output result.png"
    )
    assert (code, err) == (0, "")
    assert only_the_hole_changed("result.png")


def test_a_jpeg_mask_is_understood(complete) -> None:
    Image.fromarray(MASK).convert("L").save("mask.jpg", quality=60)
    assert complete("--image photo.png --mask mask.jpg --output result.png")[0] == 0
    assert only_the_hole_changed("result.png")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("turned", ["photo", "mask"])
def test_photo_and_mask_are_turned_upright(complete, orientation, turned) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    back = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270}  # fmt: skip
    image = Image.open(f"{turned}.png")
    stored = image.transpose(back[orientation]) if orientation in back else image
    stored.save(f"{turned}.png", exif=exif)
    words = "--image photo.png --mask mask.png --output result.png --strict-size"
    assert complete(words)[0] == 0
    assert only_the_hole_changed("result.png")
    with Image.open("result.png") as result:
        assert 0x0112 not in result.getexif()


def test_the_alpha_of_a_mask_or_of_the_photo_marks_the_hole(complete) -> None:
    clear = np.where(MASK, 0, 255).astype(np.uint8)
    Image.fromarray(np.dstack([PHOTO, clear])).save("cut.png")
    assert complete("--image cut.png --mask-from alpha --output a.png")[0] == 0
    result = pixels("a.png")
    # What was transparent is there now.
    assert (result[..., 3] == 255).all()
    np.testing.assert_array_equal(result[~MASK][:, :3], PHOTO[~MASK])
    words = "--image photo.png --mask cut.png --mask-from alpha --output b.png"
    assert complete(words)[0] == 0
    assert only_the_hole_changed("b.png")


def test_a_photo_without_transparency_is_told_so(complete) -> None:
    code, _, err = complete("--image photo.png --mask-from alpha --output r.png")
    assert code == 1
    assert "photo.png has no transparency, so --mask-from alpha marks nothing" in err


def test_a_colour_marks_the_hole(complete) -> None:
    painted = PHOTO // 2
    painted[MASK] = (250, 3, 2)
    Image.fromarray(painted).save("painted.png")
    words = "--mask-color #ff0000 --mask-tolerance 5 --output result.png"
    assert complete(f"--image painted.png {words}")[0] == 0
    assert only_the_hole_changed("result.png", painted)
    assert complete(f"--image photo.png --mask painted.png {words}")[0] == 0
    assert only_the_hole_changed("result.png")


def test_rectangles_mark_the_hole(complete) -> None:
    words = "--rect 15,10,17,6 --rect 15,16,17,6 --output result.png"
    assert complete(f"--image photo.png {words}")[0] == 0
    assert only_the_hole_changed("result.png")


def test_a_seed_marks_a_hole(complete) -> None:
    for name in ("a.png", "b.png"):
        assert complete(f"--image photo.png --random-mask 3 --output {name}")[0] == 0
    np.testing.assert_array_equal(pixels("a.png"), pixels("b.png"))
    changed = (pixels("a.png") != PHOTO).any(axis=-1)
    assert 0.05 < changed.mean() < 0.3


def test_a_mask_is_inverted_and_widened(complete) -> None:
    Image.fromarray(~MASK).save("kept.png")
    words = "--image photo.png --mask kept.png --invert-mask --output result.png"
    assert complete(words)[0] == 0
    assert only_the_hole_changed("result.png")
    assert complete(f"{words} --dilate 3")[0] == 0
    wider = np.zeros_like(MASK)
    wider[7:25, 15:32] = wider[10:22, 12:35] = True
    changed = (pixels("result.png") != PHOTO).any(axis=-1)
    assert changed[wider].mean() > 0.95


def test_concat_is_input_hole_result(complete) -> None:
    assert complete("--image photo.png --mask mask.png --output r.png --concat")[0] == 0
    first, second, third = np.split(pixels("r.png"), 3, axis=1)
    np.testing.assert_array_equal(first, PHOTO)
    assert (second[MASK] == 255).all()
    np.testing.assert_array_equal(third[~MASK], PHOTO[~MASK])


def test_patch_only_is_a_layer_with_the_hole(complete) -> None:
    assert (
        complete("--image photo.png --mask mask.png --output r.png --patch-only")[0]
        == 0
    )
    layer = pixels("r.png")
    np.testing.assert_array_equal(layer[..., 3], MASK * 255)
    assert not layer[~MASK].any()


def test_the_layer_of_a_jpeg_is_a_png(complete) -> None:
    Image.fromarray(PHOTO).save("photo.jpg")
    Path("out").mkdir()
    words = "--image photo.jpg --mask mask.png --patch-only --output"
    assert complete(f"{words} out")[0] == 0
    assert pixels("out/photo.png").shape[2] == 4
    code, _, err = complete(f"{words} layer.jpg")
    assert code == 2 and "--patch-only needs transparency, which JPEG" in err


def test_the_format_is_the_inputs_or_what_is_asked_for(complete) -> None:
    Image.fromarray(PHOTO).save("photo.webp", lossless=True)
    Path("out").mkdir()
    words = "--image photo.webp --mask mask.png --output out"
    assert complete(words)[0] == 0
    assert only_the_hole_changed("out/photo.webp")
    assert complete(f"{words} --format tiff")[0] == 0
    assert only_the_hole_changed("out/photo.tiff")
    assert complete(f"{words} --format jpg --quality 30")[0] == 0
    assert Path("out/photo.jpg").stat().st_size < 4000


def test_a_result_has_the_format_of_its_name_whatever_was_in_the_photo(
    complete,
) -> None:
    shutil.copy("photo.png", "really.jpg")
    Image.fromarray(PHOTO).save("jpeg.png", "JPEG")
    for name, stored, kind in (
        ("really.jpg", "PNG", "JPEG"),
        ("jpeg.png", "JPEG", "PNG"),
    ):
        code, out, _ = complete(f"--image {name} --mask mask.png --output out/")
        assert code == 0
        assert f"{name} holds {stored}, though its name says {kind}; a result" in out
        with Image.open(f"out/{name}") as result:
            assert result.format == kind
    assert only_the_hole_changed("out/jpeg.png", pixels("jpeg.png"))
    assert complete("--image really.jpg --mask mask.png --output r.png")[0] == 0
    assert only_the_hole_changed("r.png")


@pytest.mark.parametrize(
    ("photo", "result", "kind"),
    [("photo.png", "r.jpg", "JPEG"), ("really.jpg", "r.jpg", "JPEG"),
     ("photo.ico", "r.png", "PNG")],
)  # fmt: skip
def test_an_unchanged_photo_is_copied_only_into_its_own_format(
    complete, photo, result, kind
) -> None:
    Image.new("L", (50, 40)).save("mask.png")
    shutil.copy("photo.png", "really.jpg")
    Image.fromarray(PHOTO).save("photo.ico", sizes=[(50, 40)])
    code, out, _ = complete(f"--image {photo} --mask mask.png --output {result}")
    assert code == 0 and "nothing is marked as missing" in out
    with Image.open(result) as written:
        assert written.format == kind and written.size == (50, 40)


def test_what_is_left_out_of_a_result_is_said_and_of_a_copy_nothing_is(
    complete,
) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x927C] = b"a camera's notes"
    Image.fromarray(PHOTO).save("photo.jpg", exif=exif)
    words = "--image photo.jpg --mask mask.png --output r.jpg"
    line = "photo.jpg: left out, as it could show what was removed: MakerNote."
    assert line in complete(words)[1]
    assert b"a camera's notes" not in Path("r.jpg").read_bytes()
    Image.new("L", (50, 40)).save("mask.png")
    batch._mask_picture.cache_clear()
    assert "left out" not in complete(words)[1]
    assert Path("r.jpg").read_bytes() == Path("photo.jpg").read_bytes()


# --- what is not read


def test_files_that_are_not_read_are_named_by_their_kind(complete) -> None:
    folder(**{"in__a.jpg": PHOTO, "in__sub__b.png": PHOTO, "masks__a.png": MASK})
    for name in ("in/c.HEIC", "in/sub/d.heic", "in/e.jxl", "in/f.dng", "in/notes.txt",
                 "in/.hidden", "masks/b.heic"):  # fmt: skip
        Path(name).write_bytes(b"\0")
    code, out, _ = complete("--image in --mask mask.png --output out")
    assert code == 0
    line = (
        "left out of in: 2 HEIC, 1 JPEG XL, 1 camera RAW, 1 .txt; convert them to PNG"
    )
    assert out.startswith(line) and out.endswith("2 completed: out\n")
    code, out, _ = complete("--image in --mask masks --output out2")
    assert code == 1
    assert "left out of masks: 1 HEIC; convert them to PNG or JPEG" in out
    assert "failed: sub/b.png: no mask for it" in out
    code, out, _ = complete("--image in --mask in --output out3")
    assert out.count("left out of in") == 1


def test_folders_that_are_not_entered_are_named(complete, monkeypatch) -> None:
    folder(**{"in__a.png": PHOTO, "in__closed__b.png": PHOTO, "else__c.png": PHOTO})
    os.symlink("../else", "in/link")
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda p, how: Path(p).name != "closed" and access(p, how)
    )
    _, out, _ = complete("--image in --mask mask.png --output out")
    line = "left out of in: 1 folder without permission, 1 link to a folder."
    assert line in out.splitlines()


def test_a_heic_alone_gets_the_advice(complete) -> None:
    Path("in").mkdir()
    Path("in/a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    code, _, err = complete("--image in --mask mask.png --output out")
    assert code == 2
    assert "has no photographs" in err and "left out of in: 1 HEIC; convert them" in err
    code, _, err = complete("--image in/a.heic --mask mask.png --output r.png")
    assert code == 1
    assert "in/a.heic is HEIC, which is not read; convert it to PNG or JPEG" in err


def test_the_blend_can_be_left_out(complete) -> None:
    words = "--image photo.png --mask mask.png --output"
    complete(f"{words} a.png")
    complete(f"{words} b.png --blend none")
    assert only_the_hole_changed("b.png")
    assert (pixels("a.png") != pixels("b.png")).any()


def test_sixteen_bits_come_out_as_sixteen_bits(complete) -> None:
    deep = CHANCE.integers(0, 65536, (40, 50, 3)).astype(np.uint16)
    cv2.imwrite("deep.png", deep)
    assert complete("--image deep.png --mask mask.png --output r.png")[0] == 0
    result = cv2.imread("r.png", cv2.IMREAD_UNCHANGED)
    assert result.dtype == np.uint16
    np.testing.assert_array_equal(result[~MASK], deep[~MASK])
    assert (result[MASK] != deep[MASK]).mean() > 0.9


# --- what is wrong with a photo or its mask


def test_a_mask_of_another_size_is_resized_with_a_line_or_refused(complete) -> None:
    Image.fromarray(MASK.repeat(2, 0).repeat(2, 1)).save("mask.png")
    words = "--image photo.png --mask mask.png --output result.png"
    code, out, _ = complete(words)
    assert code == 0
    assert "mask mask.png is resized from 100x80 to 50x40 pixels.\n" in out
    assert only_the_hole_changed("result.png")
    code, _, err = complete(f"{words} --strict-size")
    assert code == 1 and "is 100x80 pixels and photo.png 50x40" in err


def test_an_empty_mask_copies_the_photo_unchanged(complete) -> None:
    Image.new("L", (50, 40)).save("mask.png")
    code, out, _ = complete("--image photo.png --mask mask.png --output result.png")
    assert code == 0
    assert "photo.png: nothing is marked as missing, so it is copied unchanged." in out
    assert Path("result.png").read_bytes() == Path("photo.png").read_bytes()


def test_a_mask_with_transparency_but_no_white_is_explained(complete) -> None:
    clear = np.where(MASK, 0, 255).astype(np.uint8)
    Image.fromarray(np.dstack([PHOTO // 3, clear])).save("mask.png")
    code, _, err = complete("--image photo.png --mask mask.png --output result.png")
    assert code == 1 and not Path("result.png").exists()
    assert "has no white. It has transparency but no white" in err
    assert "use --mask-from alpha." in err


def test_the_hints_on_a_mask_lead_to_what_was_meant(complete) -> None:
    strokes = np.zeros((40, 50, 4), np.uint8)
    strokes[MASK] = (20, 0, 0, 255)
    words = "--image photo.png --output result.png --mask"
    for name, mask, hint in (
        ("strokes.png", strokes, "--mask-from alpha --invert-mask"),
        ("labels.png", MASK * np.uint8(7), "--mask-color #070707"),
        ("inverted.png", ~MASK, "--invert-mask"),
    ):
        Image.fromarray(mask).save(name)
        _, out, err = complete(f"{words} {name}")
        assert hint in (out + err).replace(", here perhaps", "").replace("'", "")
        code, out, _ = complete(f"{words} {name} {hint}")
        assert code == 0
        assert only_the_hole_changed("result.png")


def test_what_is_wrong_with_one_mask_for_all_is_said_once(complete) -> None:
    folder(**{"in__a.png": PHOTO, "in__b.png": PHOTO})
    Image.fromarray(~MASK).save("mask.png")
    _, out, _ = complete("--image in --mask mask.png --output out")
    assert out.count("mask mask.png marks 90% of the photo as missing; if that is") == 1


def test_a_photograph_as_a_mask_and_a_mask_on_its_side_are_refused(complete) -> None:
    Image.fromarray(PHOTO[::-1]).save("other.png")
    words = "--image photo.png --output result.png --mask"
    code, _, err = complete(f"{words} other.png")
    assert code == 1 and "mask other.png looks like a photograph" in err
    Image.fromarray(MASK.T).save("side.png")
    code, _, err = complete(f"{words} side.png")
    assert (
        code == 1 and "mask side.png is 40x50 pixels and photo.png 50x40: it li" in err
    )
    assert not Path("result.png").exists()


def test_a_full_mask_is_refused(complete) -> None:
    Image.new("L", (50, 40), 255).save("mask.png")
    code, _, err = complete("--image photo.png --mask mask.png --output result.png")
    assert code == 1
    assert "photo.png: the mask covers the whole photo" in err
    assert not Path("result.png").exists()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("photo.png", "photo.png cannot be decoded"),
        ("mask.png", "photo.png: mask mask.png cannot be decoded"),
    ],
)
def test_a_truncated_file_is_one_line_and_exit_code_1(
    complete, broken, message
) -> None:
    data = Path(broken).read_bytes()
    Path(broken).write_bytes(data[: len(data) * 2 // 3])
    code, _, err = complete("--image photo.png --mask mask.png --output result.png")
    assert code == 1
    assert err.startswith(f"gl-jax: error: 0 completed; {message}")
    assert err.count("\n") == 1


def test_a_bomb_is_refused_and_the_flag_lets_it_through(complete, monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    words = "--image photo.png --mask mask.png --output result.png"
    code, _, err = complete(words)
    assert code == 1 and "more than 1,000 pixels" in err and "--max-pixels" in err
    assert complete(f"{words} --max-pixels 2000")[0] == 0


# --- wrong calls: exit code 2, nothing loaded


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--image none.png --mask mask.png --output r.png", "image none.png does not"),
        ("--image photo.png --mask none.png --output r.png", "mask none.png does not"),
        ("--image photo.png --output r.png", "no hole is given"),
        ("--mask mask.png --output r.png", "needs --image"),
        (
            "--image photo.png --mask mask.png --rect 1,2,3,4 --output r.png",
            "--mask and --rect each define the hole; use one",
        ),
        (
            "--image photo.png --mask mask.png --output photo.png",
            "photo.png is one of the inputs, which are never overwritten",
        ),
        (
            "--image photo.png --mask mask.png --output ./mask.png",
            "mask.png is one of the inputs",
        ),
        (
            "--image photo.png --mask mask.png --output r.xyz",
            "is not a writable format",
        ),
        ("--image . --mask mask.png --output photo.png", "output photo.png is a file"),
        (
            "--image photo.png --mask mask.png --output r.png --concat --patch-only",
            "--concat and --patch-only exclude each other",
        ),
        (
            "--image photo.png --mask mask.png --output r.png --quality 0",
            "from 1 to 100",
        ),
        (
            "--image photo.png --mask mask.png --output r.png --format bmpp",
            "not a writable format",
        ),
        (
            "--image photo.png --mask-color blue --output r.png",
            "must be like '#ff0000'",
        ),
        (
            "--image photo.png --mask-color #000000 --mask-from alpha --output r.png",
            "exclude each other",
        ),
        (
            "--image photo.png --mask mask.png --output r.png --dilate -1",
            "dilate (=-1) must be at least 0",
        ),
        (
            "--image photo.png --mask mask.png --output r.png --feather -1",
            "feather (=-1) must be at least 0",
        ),
        (
            "--image photo.png --mask mask.png --output r.png --resize-to 3",
            "resize_to (=3) must be 0 or at least 16",
        ),
        (
            "--image photo.png --mask mask.png --output r.png --max-pixels 0",
            "max_pixels (=0) must be at least 1",
        ),
        ("--image photo.png --mask mask.png --output r.png --blend x", "blend"),
    ],
)
def test_a_wrong_call_is_exit_code_2_and_one_line(
    complete, words, message, monkeypatch
) -> None:
    monkeypatch.setattr(batch, "_completer", lambda model: pytest.fail("loaded"))
    code, out, err = complete(words)
    assert (code, out) == (2, "")
    assert message in err and err.count("\n") == 1
    assert sorted(os.listdir()) == ["mask.png", "photo.png"]


def test_without_a_model_it_is_said_how_to_get_one(complete, monkeypatch, here) -> None:
    monkeypatch.setattr(native, "ASSETS", here)
    code, _, err = complete(
        "--image photo.png --mask mask.png --output r.png", model=False
    )
    assert code == 2
    assert "no model is given, and this version ships none. Train one with" in err


def test_the_models_are_listed(model, capsys, monkeypatch, here) -> None:
    monkeypatch.setattr(native, "ASSETS", here)
    assert cli.main(["models"]) == 0
    assert "ships no model. Train one" in capsys.readouterr().out
    native.save(model, here / "small.safetensors")
    assert cli.main(["models"]) == 0
    assert capsys.readouterr().out.startswith("small  (")


# --- folders


def test_a_folder_is_completed_with_one_mask_for_all(complete) -> None:
    folder(**{"in__a.png": PHOTO, "in__sub__ü b.png": PHOTO[::-1]})
    code, out, err = complete("--image in --mask mask.png --output out")
    assert (code, err) == (0, "")
    assert out.splitlines() == ["1/2 a.png", "2/2 sub/ü b.png", "2 completed: out"]
    assert only_the_hole_changed("out/a.png")
    assert only_the_hole_changed("out/sub/ü b.png", PHOTO[::-1])


def test_masks_are_found_by_name(complete) -> None:
    folder(**{"in__a.png": PHOTO, "in__sub__b.png": PHOTO, "masks__a.png": MASK[::-1],
              "masks__sub__b_mask001.png": MASK})  # fmt: skip
    assert complete("--image in --mask masks --output out")[0] == 0
    assert only_the_hole_changed("out/a.png", mask=MASK[::-1])
    assert only_the_hole_changed("out/sub/b.png")


def test_masks_may_stand_beside_their_photos(complete) -> None:
    folder(**{"in__a.png": PHOTO, "in__a_mask.png": MASK, "in__b.png": PHOTO,
              "in__b_mask1.png": MASK, "in__b_mask2.png": MASK[::-1]})  # fmt: skip
    assert complete("--image in --mask in --output out")[0] == 0
    # Several masks of one photo are several results, named after the masks.
    assert sorted(os.listdir("out")) == ["a.png", "b_mask1.png", "b_mask2.png"]
    assert only_the_hole_changed("out/b_mask2.png", mask=MASK[::-1])


def test_a_missing_mask_is_said_and_the_others_go_on(complete) -> None:
    folder(**{"in__a.png": PHOTO, "in__b.png": PHOTO, "masks__b.png": MASK})
    code, out, err = complete("--image in --mask masks --output out")
    assert code == 1
    assert "failed: a.png: no mask for it in masks (looked for a.* and a_mask*)." in out
    assert err == "gl-jax: error: 1 completed; 1 failed\n"
    assert only_the_hole_changed("out/b.png")


def test_bad_files_are_said_and_the_others_go_on(complete) -> None:
    folder(**{"in__a.png": PHOTO, "in__z.png": PHOTO})
    Path("in/b.jpg").write_bytes(b"no image")
    Path("in/c.png").write_bytes(b"")
    Path("in/d.png").write_bytes(Path("photo.png").read_bytes()[:500])
    Path("in/readme.txt").write_text("ignored")
    code, out, err = complete("--image in --mask mask.png --output out")
    assert code == 1
    assert "failed: b.jpg is not an image in a known format." in out
    assert "failed: c.png is empty: it has no bytes." in out
    assert "failed: d.png cannot be decoded: " in out
    assert err == "gl-jax: error: 2 completed; 3 failed\n"
    assert sorted(os.listdir("out")) == ["a.png", "z.png"]


def test_one_photo_never_ends_the_batch(complete, monkeypatch) -> None:
    """Too large for its format, for the device, or struck by what nobody foresaw."""
    folder(**{"in__a.png": PHOTO, "in__z.png": PHOTO})
    for name, size in (
        ("b.webp", (8000, 2)),
        ("c.jpg", (25_000, 2)),
        ("d.gif", (22_000, 2)),
    ):
        Image.new("RGB", size).save(f"in/{name}")
    for name in ("e.png", "f.png"):
        shutil.copy("photo.png", f"in/{name}")
    fails = {"e.png": MemoryError("no room"), "f.png": IndexError("a\nbug")}
    plain = Completer.complete_photo

    def complete_photo(self, photo, *args, **options):
        if error := fails.get(Path(photo.name).name):
            raise error
        return plain(self, photo, *args, **options)

    monkeypatch.setattr(Completer, "complete_photo", complete_photo)
    code, out, err = complete("--image in --rect 0,0,1,1 --concat --output out")
    assert (code, err) == (1, "gl-jax: error: 2 completed; 5 failed\n")
    assert sorted(os.listdir("out")) == ["a.png", "z.png"]
    for line in (
        "failed: b.webp: WEBP holds sides of up to 16,383 pixels, but the result has "
        "24000x2; choose another format, such as --format png.",
        "failed: c.jpg: JPEG holds sides of up to 65,500 pixels, but the result has 75000x2",
        "failed: d.gif: GIF holds sides of up to 65,535 pixels, but the result has 66000x2",
        "failed: e.png: not enough memory; make the photo or its hole smaller.",
        "failed: f.png: IndexError: a bug (for the traceback, complete this photo alone)",
    ):
        assert f"\n{line}" in f"\n{out}"
    with pytest.raises(IndexError):
        complete("--image in/f.png --rect 0,0,1,1 --output r.png")


def test_a_name_that_is_no_text_is_a_name_like_others(weights, here) -> None:
    """In a terminal of UTF-8, and in one of ASCII; with one failure among them."""
    folder(**{"in__a.png": PHOTO})
    odd = os.fsdecode(b"in/\xff\xe4.png")
    shutil.copy("photo.png", odd)
    Path(os.fsdecode(b"in/\xfe.png")).write_bytes(b"")
    for encoding in ("utf-8", "ascii"):
        words = "complete --image in --random-mask 3 --model".split()
        run = subprocess.run(
            [sys.executable, "-m", "gl_jax", *words, str(weights), "--output", encoding],
            env=os.environ | {"PYTHONIOENCODING": f"{encoding}:strict"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert run.returncode == 1, run.stderr
        assert "\\udcff\\udce4.png" in run.stdout
        assert "failed: \\udcfe.png is empty" in run.stdout
        assert run.stderr == "gl-jax: error: 2 completed; 1 failed\n"
        assert os.fsencode(os.path.basename(odd)) in os.listdir(os.fsencode(encoding))


def test_a_photo_of_many_windows_says_how_far_it_is(complete, monkeypatch) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    wide = np.zeros((400, 1000, 3), np.uint8)
    Image.fromarray(wide).save("wide.png")
    words = "--image wide.png --rect 10,200,2,2 --rect 990,200,2,2 --output result.png"
    code, out, _ = complete(f"{words} --blend none")
    assert code == 0
    assert "wide.png: 1 of 2 windows\nwide.png: 2 of 2 windows\n" in out


def test_pipes_in_a_folder_are_left_out(complete) -> None:
    folder(**{"in__a.png": PHOTO})
    os.mkfifo("in/b.png")
    code, out, _ = complete("--image in --mask mask.png --output out")
    assert code == 0 and out.startswith(
        "left out of in: 1 pipe or device.\n1 completed"
    )


def test_photos_that_differ_in_their_suffix_stay_apart(complete) -> None:
    folder(**{"in__a.png": PHOTO, "in__a.bmp": PHOTO[::-1]})
    assert complete("--image in --mask mask.png --output out --format png")[0] == 0
    assert sorted(os.listdir("out")) == ["a.bmp.png", "a.png.png"]
    assert only_the_hole_changed("out/a.bmp.png", PHOTO[::-1])


def test_results_that_exist_are_skipped_when_asked(complete) -> None:
    folder(**{"in__a.png": PHOTO, "in__b.png": PHOTO, "out__a.png": PHOTO[::-1]})
    words = "--image in --mask mask.png --output out --skip-existing"
    code, out, _ = complete(words)
    assert code == 0
    assert "a.png: skipped, out/a.png exists." in out
    assert out.endswith("1 completed, 1 skipped: out\n")
    np.testing.assert_array_equal(pixels("out/a.png"), PHOTO[::-1])
    # With nothing left, not even a model is needed.
    assert complete(f"{words} --model none")[0] == 0


def test_inputs_are_never_overwritten(complete) -> None:
    folder(**{"in__a.png": PHOTO})
    code, _, err = complete("--image in --mask mask.png --output in")
    assert code == 2 and "is one of the inputs" in err
    os.symlink("in", "other")
    code, _, err = complete("--image in --mask mask.png --output other")
    assert code == 2 and "is one of the inputs" in err
    np.testing.assert_array_equal(pixels("in/a.png"), PHOTO)


def test_results_inside_the_folder_are_not_completed_again(complete) -> None:
    folder(**{"in__a.png": PHOTO})
    for _ in range(2):
        code, out, _ = complete("--image in --mask mask.png --output in/out")
        assert (code, out) == (0, "1 completed: in/out\n")


def test_an_interrupted_result_is_none(complete, monkeypatch) -> None:
    folder(**{"in__a.png": PHOTO})

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    assert complete("--image in --mask mask.png --output out")[0] == 130
    assert not list(Path("out").glob("*.png"))
    monkeypatch.undo()


def test_an_output_that_cannot_be_written_is_said(complete, here) -> None:
    Path("file").touch()
    code, _, err = complete("--image photo.png --mask mask.png --output file/r.png")
    assert code == 2 and "output file cannot be written: file is not a folder" in err
    assert stat.S_ISREG(os.stat("file").st_mode)


def test_an_output_without_permission_is_refused_before_anything_is_computed(
    complete, monkeypatch
) -> None:
    folder(**{"in__a.png": PHOTO, "in__sub__b.png": PHOTO, "out__sub__old.png": PHOTO})
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda p, how: str(p) != "out/sub" and access(p, how)
    )
    monkeypatch.setattr(batch, "_completer", lambda *_: pytest.fail("loaded"))
    code, _, err = complete("--image in --mask mask.png --output out")
    assert code == 2
    assert (
        "output out/sub cannot be written: folder out/sub is read-only, or not" in err
    )


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("-", "results are not written to stdout"),
        ("/dev/stdout", "output /dev/stdout exists, but is neither a folder"),
        ("/dev/null", "output /dev/null exists, but is neither a folder"),
        ("pipe.png", "output pipe.png exists, but is neither a folder"),
        ("plain", "output plain exists, but is neither a folder"),
        ("mask.png/", "output mask.png is a file; for photo.png it must be a folder"),
    ],
)
def test_an_output_that_is_no_file_of_pictures_is_refused(
    complete, output, message
) -> None:
    os.mkfifo("pipe.png")
    Path("plain").touch()
    code, _, err = complete(f"--image photo.png --mask mask.png --output {output}")
    assert code == 2 and message in err
    assert stat.S_ISFIFO(os.stat("pipe.png").st_mode)


def test_an_output_with_a_slash_is_a_folder_whatever_its_suffix(complete) -> None:
    words = "--image photo.png --mask mask.png --output"
    assert complete(f"{words} new.dir/")[0] == 0
    assert only_the_hole_changed("new.dir/photo.png")
    code, _, err = complete(f"{words} other.dir")
    assert code == 2 and "'.dir' is not a writable format" in err
    assert "For a folder, end the name with a slash." in err


@pytest.mark.parametrize("hole", [True, False])
def test_a_photo_from_a_pipe_is_read_once(complete, hole) -> None:
    data = Path("photo.png").read_bytes()
    Image.fromarray(MASK & hole).save("mask.png")
    receiving, sending = os.pipe()
    os.write(sending, data)
    os.close(sending)
    words = f"--image /dev/fd/{receiving} --mask mask.png --output result.png"
    assert complete(words)[0] == 0
    os.close(receiving)
    assert only_the_hole_changed("result.png") if hole else True
    assert (Path("result.png").read_bytes() == data) is not hole


@pytest.mark.parametrize("name", ["mask.svg", "mask.npy"])
def test_masks_that_are_no_pictures_are_refused_by_their_kind(complete, name) -> None:
    if name == "mask.npy":
        np.save(name, MASK)
    else:
        Path(name).write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    code, _, err = complete(f"--image photo.png --mask {name} --output result.png")
    assert code == 1 and f"mask {name} is " in err and "which is not read; conv" in err


def test_an_empty_folder_is_refused(complete) -> None:
    Path("in").mkdir()
    code, _, err = complete("--image in --mask mask.png --output out")
    assert code == 2 and "folder in has no photographs" in err


def test_a_terminal_sees_a_bar(complete, monkeypatch) -> None:
    folder(**{"in__a.png": PHOTO, "in__b.png": PHOTO})
    Path("in/c.png").write_bytes(b"")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    code, out, err = complete("--image in --mask mask.png --output out")
    assert code == 1 and out == ""
    assert "failed: c.png is empty" in err and "3/3" in err
