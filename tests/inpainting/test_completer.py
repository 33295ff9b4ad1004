"""A Completer: load once, then any image with any mask, in any of the usual kinds."""

import dataclasses
import os
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import gl_jax
from gl_jax import images
from gl_jax.config import UsageError
from gl_jax.inpainting import completer as room
from gl_jax.inpainting import loading
from gl_jax.inpainting.completer import Completer
from gl_jax.weights import native
from gl_jax.weights.convention import Convention

CHANCE = np.random.default_rng(0)
PHOTO = CHANCE.integers(0, 256, (45, 58, 3), dtype=np.uint8)
MASK = np.zeros((45, 58), bool)
MASK[10:24, 30:50] = True


def levels(colors: np.ndarray) -> np.ndarray:
    return np.rint(colors.astype(np.float64) * 255)


@pytest.fixture(scope="module")
def completer(model) -> Completer:
    return Completer(model)


@pytest.fixture
def photo_file(tmp_path: Path) -> Path:
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def mask_file(tmp_path: Path) -> Path:
    Image.fromarray(MASK).save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


def test_raw_is_the_networks_output_over_the_whole_image(completer, model) -> None:
    raw = completer.raw(PHOTO, MASK)
    assert raw.shape == (45, 58, 3) and raw.dtype == np.float32
    below = ((0, 3), (0, 2))
    padded = np.pad(PHOTO, (*below, (0, 0)), mode="edge").astype(np.float32) / 255
    mask = np.pad(MASK, below).astype(np.float32)
    inputs = model.convention.encode(padded[None], mask[None])
    apply = jax.jit(model.network().apply)
    expected = np.asarray(apply(model.variables, inputs))[0, :45, :58]
    np.testing.assert_allclose(raw, expected, atol=1e-5)


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_raw_is_rgb_whatever_the_models_convention(model, channels) -> None:
    foreign = Convention(channels, 2.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    other = dataclasses.replace(model, convention=foreign)
    raw = Completer(other).raw(PHOTO[:32, :32], MASK[:32, :32])
    inputs = foreign.encode(PHOTO[:32, :32] / np.float32(255), MASK[:32, :32])
    output = np.asarray(other.network().apply(other.variables, inputs[None]))[0]
    expected = output if channels == "RGB" else output[..., ::-1]
    np.testing.assert_allclose(raw, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_an_image_of_floats_is_the_same_photo(completer, dtype) -> None:
    image = (PHOTO / 255).astype(dtype)
    near = 1e-3 if dtype == np.float16 else 1e-6
    raw = completer.raw(image, MASK)
    np.testing.assert_allclose(raw, completer.raw(PHOTO, MASK), rtol=0, atol=near)
    completed = completer(image, MASK)
    assert completed.dtype == np.float32
    np.testing.assert_array_equal(completed[~MASK], image[~MASK].astype(np.float32))
    assert np.abs(levels(completed) - completer(PHOTO, MASK)).max() <= 1


@pytest.mark.parametrize("value", [1.5, -0.1, np.nan])
def test_floats_beyond_white_and_black_are_refused(completer, value) -> None:
    image = PHOTO / np.float32(255)
    image[0, 0, 0] = value
    with pytest.raises(UsageError, match=r"floats in \[0, 1\], not floats from"):
        completer.raw(image, MASK)


def test_without_blending_the_hole_is_the_networks_output(completer) -> None:
    completed = completer(PHOTO, MASK, blend="none")
    raw = completer.raw(PHOTO, MASK)
    np.testing.assert_array_equal(completed[MASK], levels(raw[MASK]))


@pytest.mark.parametrize("blend", ["none", "poisson"])
def test_outside_the_hole_not_a_bit_changes(completer, blend) -> None:
    completed = completer(PHOTO, MASK, blend=blend)
    np.testing.assert_array_equal(completed[~MASK], PHOTO[~MASK])
    assert (completed[MASK] != PHOTO[MASK]).mean() > 0.9


def test_what_was_in_the_hole_has_no_influence(completer) -> None:
    other = PHOTO.copy()
    other[MASK] = 255 - other[MASK]
    np.testing.assert_array_equal(completer(PHOTO, MASK), completer(other, MASK))


def test_paths_pillow_images_and_arrays_give_the_same(
    completer, photo_file, mask_file
) -> None:
    expected = completer(PHOTO, MASK)
    assert isinstance(expected, np.ndarray) and expected.dtype == np.uint8
    for photo in (photo_file, str(photo_file), Image.fromarray(PHOTO)):
        for mask in (mask_file, Image.fromarray(MASK), MASK.astype(np.uint8) * 255):
            completed = completer(photo, mask)
            assert isinstance(completed, Image.Image)
            np.testing.assert_array_equal(np.asarray(completed), expected)


def test_arrays_keep_their_shape_and_alpha(completer) -> None:
    grey = completer(PHOTO[..., 0], MASK)
    assert grey.shape == MASK.shape
    assert completer(PHOTO[..., :1], MASK).shape == (*MASK.shape, 1)
    rgba = np.dstack([PHOTO, PHOTO[..., 0]])
    completed = completer(rgba, MASK)
    np.testing.assert_array_equal(completed[..., 3], rgba[..., 3])


def test_a_batch_is_its_images_one_by_one(completer) -> None:
    other = PHOTO[:, ::-1].copy()
    both = completer.batch([PHOTO, other], MASK)
    np.testing.assert_array_equal(both[0], completer(PHOTO, MASK))
    np.testing.assert_array_equal(both[1], completer(other, MASK))
    each = completer.batch([PHOTO, other], [MASK, MASK[:, ::-1]], blend="none")
    expected = completer(other, MASK[:, ::-1], blend="none")
    np.testing.assert_array_equal(each[1], expected)
    with pytest.raises(UsageError, match="2 images and 1 masks"):
        completer.batch([PHOTO, other], [MASK])


def test_photos_of_many_sizes_compile_once(completer) -> None:
    completer(PHOTO, MASK)
    before = room._program()._cache_size()
    for height in range(33, 45, 3):
        completer(PHOTO[:height], MASK[:height])
    assert room._program()._cache_size() == before


@pytest.mark.parametrize("size", [(1, 2), (3, 5), (2, 64), (70, 3)])
def test_the_smallest_photos_are_completed(completer, size) -> None:
    photo = CHANCE.integers(0, 256, (*size, 3), dtype=np.uint8)
    mask = np.zeros(size, bool)
    mask[0, 0] = True
    completed = completer(photo, mask)
    np.testing.assert_array_equal(completed[~mask], photo[~mask])


def test_an_empty_mask_is_the_photo_and_a_warning(completer) -> None:
    with pytest.warns(UserWarning, match="nothing is marked as missing"):
        completed = completer(PHOTO, np.zeros_like(MASK))
    np.testing.assert_array_equal(completed, PHOTO)


def test_a_full_mask_is_refused(completer) -> None:
    with pytest.raises(UsageError, match=r"covers the whole photo.*leave the part"):
        completer(PHOTO, np.ones_like(MASK))


def test_a_mask_of_another_size_is_resized_with_a_warning(completer) -> None:
    larger = MASK.repeat(2, axis=0).repeat(2, axis=1)
    with pytest.warns(UserWarning, match="resized from 116x90 to 58x45 pixels"):
        completed = completer(PHOTO, larger)
    np.testing.assert_array_equal(completed, completer(PHOTO, MASK))


def test_a_mask_of_another_size_is_refused_when_strict(completer) -> None:
    with pytest.raises(UsageError, match=r"116x90 pixels and .* 58x45; resize one"):
        completer(PHOTO, MASK.repeat(2, 0).repeat(2, 1), strict_size=True)


def test_a_mask_without_white_is_explained(completer) -> None:
    strokes = np.zeros((45, 58, 4), np.uint8)
    strokes[MASK] = (0, 0, 0, 255)
    with pytest.raises(UsageError, match="use --mask-from alpha --invert-mask"):
        completer(PHOTO, Image.fromarray(strokes))


def test_a_mask_of_most_of_the_photo_is_warned_of(completer) -> None:
    with pytest.warns(UserWarning, match="the mask marks 89% of the photo as missing"):
        completer(PHOTO, ~MASK, resize_to=0)


def test_a_mask_on_its_side_is_refused_and_one_of_another_shape_is_said(
    completer,
) -> None:
    with pytest.raises(
        UsageError, match=r"is 45x58 pixels and .* 58x45: it lies on its"
    ):
        completer(PHOTO, MASK.T)
    with pytest.warns(UserWarning, match="stretched from 45x45 to 58x45"):
        completer(PHOTO, MASK[:, :45])


def test_arrays_of_jax_are_arrays(completer) -> None:
    photo, mask = jax.numpy.asarray(PHOTO), jax.numpy.asarray(MASK)
    completed = completer(photo, mask)
    assert isinstance(completed, np.ndarray)
    np.testing.assert_array_equal(completed, completer(PHOTO, MASK))
    (only,) = completer.batch([photo], mask)
    np.testing.assert_array_equal(only, completed)


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        (np.ma.array(PHOTO), MASK, "the image is a masked array, whose masked"),
        (PHOTO, np.ma.array(MASK), "the mask is a masked array, whose masked"),
        (np.zeros((0, 0, 3), np.uint8), MASK, r"not uint8 \[0, 0, 3\]"),
        (Image.new("RGB", (0, 0)), MASK, "the image has no pixels: it is 0x0"),
        (PHOTO, Image.new("L", (0, 0)), "the mask has no pixels: it is 0x0"),
    ],
)
def test_arrays_and_images_without_values_are_refused(
    completer, image, mask, message
) -> None:
    with pytest.raises(UsageError, match=message):
        completer(image, mask)


def test_too_little_memory_of_the_device_is_a_memory_error(
    completer, monkeypatch
) -> None:
    def exhausted(*_: object) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating")

    monkeypatch.setattr(room, "_program", lambda: exhausted)
    with pytest.raises(MemoryError, match="too little memory for 64x64 pixels at once"):
        completer(PHOTO, MASK)


def test_each_window_is_progress(completer) -> None:
    hole = np.zeros((400, 1000), bool)
    hole[200, 10] = hole[200, 990] = True
    seen = []
    completer.complete_photo(
        images.from_array(np.zeros((400, 1000, 3), np.uint8)),
        hole,
        blend="none",
        progress=lambda *numbers: seen.append(numbers),
    )
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_fork_of_a_process_with_a_model_is_told_to_spawn(completer, model) -> None:
    receiving, sending = os.pipe()
    calls = (
        lambda: completer(PHOTO, MASK),
        lambda: Completer(model),
        gl_jax.load,
    )
    child = os.fork()
    if not child:
        said = []
        try:
            for call in calls:
                try:
                    call()
                except UsageError as error:
                    said.append(str(error))
            os.write(sending, "\n".join(said).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    lines = os.read(receiving, 10_000).decode().splitlines()
    assert len(lines) == len(calls)
    for line in lines:
        assert "fork of one with a loaded model" in line and "'spawn'" in line
    os.close(receiving), os.close(sending)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blend": "laplace"}, "blend .='laplace'. must be 'poisson' or 'none'"),
        ({"feather": -1}, "feather .=-1. must be at least 0"),
        ({"resize_to": 5}, "resize_to .=5. must be 0 or at least 16"),
    ],
)
def test_wrong_options_are_refused(completer, options, message) -> None:
    with pytest.raises(UsageError, match=message):
        completer(PHOTO, MASK, **options)


@pytest.mark.parametrize("image", [None, 3, [[1, 2]], b"bytes"])
def test_what_is_no_image_is_refused(completer, image) -> None:
    with pytest.raises(UsageError, match="must be a path, a Pillow image or an array"):
        completer(image, MASK)


def test_a_feather_changes_pixels_within_its_radius_only(completer) -> None:
    completed = completer(PHOTO, MASK, feather=4, blend="none")
    near = np.zeros_like(MASK)
    near[6:28, 26:54] = True
    np.testing.assert_array_equal(completed[~near], PHOTO[~near])
    ring = completed[10:24, 50].astype(int) - PHOTO[10:24, 50]
    assert np.abs(ring).mean() > 5
    raw = completer.raw(PHOTO, MASK) * 255
    expected = 0.8 * raw[15, 50] + 0.2 * PHOTO[15, 50]
    np.testing.assert_allclose(completed[15, 50], expected, atol=0.51)


LARGE = CHANCE.integers(0, 256, (150, 170, 3), dtype=np.uint8)
LARGE_MASK = np.zeros((150, 170), bool)
LARGE_MASK[30:110, 40:130] = True


def test_a_hole_far_larger_than_trained_is_completed_coarsely(completer) -> None:
    with pytest.warns(UserWarning, match="90x80 pixels, far larger.*up to 24"):
        completed = completer(LARGE, LARGE_MASK, blend="none")
    np.testing.assert_array_equal(completed[~LARGE_MASK], LARGE[~LARGE_MASK])
    # It was enlarged, so neighbours are alike, as in nothing that is completed plainly.
    inside = completed[40:100, 50:120].astype(float)
    plain = completer(LARGE, LARGE_MASK, blend="none", resize_to=0)
    rough = plain[40:100, 50:120].astype(float)
    assert (
        np.abs(np.diff(inside, axis=0)).mean() < np.abs(np.diff(rough, axis=0)).mean()
    )


def test_what_was_in_a_large_hole_does_not_shine_through(completer) -> None:
    other = LARGE.copy()
    other[LARGE_MASK] = 255 - other[LARGE_MASK]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, second = (completer(photo, LARGE_MASK) for photo in (LARGE, other))
    np.testing.assert_array_equal(first, second)


def test_the_plain_way_stays_available(completer) -> None:
    plain = completer(LARGE, LARGE_MASK, blend="none", resize_to=0)
    raw = completer.raw(LARGE, LARGE_MASK)
    np.testing.assert_array_equal(plain[LARGE_MASK], levels(raw[LARGE_MASK]))


def test_a_long_scratch_is_no_large_hole(completer) -> None:
    scratch = np.zeros((150, 170), bool)
    scratch[20:140, 60:70] = scratch[60:70, 20:140] = True
    completed = completer(LARGE, scratch, blend="none")
    raw = completer.raw(LARGE, scratch)
    np.testing.assert_array_equal(completed[scratch], levels(raw[scratch]))


def test_a_model_is_loaded_from_its_file(model, tmp_path) -> None:
    native.save(model, tmp_path / "tiny.safetensors")
    loaded = gl_jax.load(tmp_path / "tiny.safetensors")
    expected = Completer(model)(PHOTO, MASK)
    np.testing.assert_array_equal(loaded(PHOTO, MASK), expected)
    assert loaded.trained == (64, 24)


def test_a_shipped_model_is_loaded_by_name_and_by_default(
    model, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(native, "ASSETS", tmp_path)
    room._default.cache_clear()
    native.save(model, tmp_path / "demo.safetensors")
    expected = Completer(model)(PHOTO, MASK)
    for loaded in (gl_jax.load(), gl_jax.load("demo")):
        np.testing.assert_array_equal(loaded(PHOTO, MASK), expected)
    np.testing.assert_array_equal(gl_jax.complete(PHOTO, MASK), expected)
    assert "demo" in loading.describe_available()
    with pytest.raises(UsageError, match=r"shipped model\. Did you mean 'demo'"):
        gl_jax.load("dem")
    room._default.cache_clear()


def test_without_a_shipped_model_it_is_said_how_to_get_one(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(native, "ASSETS", tmp_path)
    with pytest.raises(UsageError, match=r"ships none\. Train one with `gl-jax train"):
        gl_jax.load()
    assert "This version ships no model. Train one" in loading.describe_available()
    with pytest.raises(
        UsageError, match="'places2' is not a file, the folder of a tra"
    ):
        gl_jax.load("places2")


@pytest.mark.parametrize("content", [b"", b"nothing of the kind" * 9])
def test_a_file_that_is_no_model_is_refused(content, tmp_path) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(UsageError, match="not an intact weights file of gl_jax"):
        gl_jax.load(tmp_path / "x.safetensors")


def test_a_model_that_does_not_say_its_sizes_has_the_papers(model) -> None:
    for told in ({}, {"image size": "large"}, {"holes": "any"}):
        silent = dataclasses.replace(model, training=told)
        assert Completer(silent).trained == (256, 128)


def test_the_windows_of_a_large_photo_are_read_not_all_of_it(completer) -> None:
    photo = images.from_array(np.zeros((900, 1100, 3), np.uint8))
    seen = []
    unit = images.Photo.unit

    def watched(self, box=images.EVERYWHERE):
        part = unit(self, box)
        seen.append(part.size)
        return part

    hole = np.zeros(photo.size, bool)
    hole[400:420, 500:520] = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images.Photo, "unit", watched)
        completer.complete_photo(photo, hole)
    assert max(seen) <= 384 * 384 * 3


def test_the_room_is_ready_without_jax() -> None:
    code = (
        "import sys; from gl_jax.inpainting import batch; "
        "print([m for m in ('jax', 'flax', 'cv2', 'pyamg', 'rich') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout == "[]\n"


def cut_out(under: int) -> tuple[np.ndarray, np.ndarray]:
    """A light photo whose left part is transparent over a colour, and a mask beside it."""
    rgba = np.full((60, 80, 4), 160, np.uint8)
    rgba[..., :3] += CHANCE.integers(0, 20, (60, 80, 3), dtype=np.uint8)
    rgba[..., 3] = 255
    rgba[:, :30] = (under, under, under, 0)
    mask = np.zeros((60, 80), bool)
    mask[20:40, 30:45] = True
    return rgba, mask


@pytest.mark.parametrize("blend", ["none", "poisson"])
@pytest.mark.parametrize("options", [{}, {"feather": 5}, {"resize_to": 16}])
@pytest.mark.filterwarnings("ignore:.*completed in a copy")
def test_what_is_under_a_transparent_area_has_no_influence(
    completer, monkeypatch, blend, options
) -> None:
    monkeypatch.setattr(room, "FAR_LARGER", 0.5)
    options = options | {"blend": blend}
    state = CHANCE.bit_generator.state
    results = []
    for under in (0, 255):
        CHANCE.bit_generator.state = state
        rgba, mask = cut_out(under)
        completed = completer(rgba, mask, **options)
        clear = rgba[..., 3] == 0
        # Transparent pixels stay as they are, also where the hole fades out.
        np.testing.assert_array_equal(completed[clear], rgba[clear])
        np.testing.assert_array_equal(completed[..., 3], rgba[..., 3])
        results.append(completed[~clear])
    np.testing.assert_array_equal(*results)


def test_a_fill_beside_a_transparent_area_is_as_light_as_the_photo(completer) -> None:
    rgba, mask = cut_out(0)
    filled = completer(rgba, mask)[mask][:, :3]
    beside = filled.reshape(20, 15, 3)[:, 0]
    assert beside.mean() > 120


def test_raw_sees_no_colour_under_transparency(completer) -> None:
    outputs = [completer.raw(*cut_out(under))[:, 50:] for under in (0, 255)]
    assert np.abs(outputs[0] - outputs[1]).max() < 0.2


@pytest.mark.filterwarnings("ignore:the mask marks 62%")
def test_a_mask_that_leaves_only_transparency_is_refused(completer) -> None:
    rgba, _ = cut_out(0)
    with pytest.raises(UsageError, match="everything outside the mask is transparent"):
        completer(rgba, rgba[..., 3] > 0)


def test_what_was_noticed_about_a_file_is_a_warning(completer, tmp_path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "photo.jpg", "PNG")
    with pytest.warns(UserWarning, match="holds PNG, though its name says JPEG"):
        completer(tmp_path / "photo.jpg", MASK)
