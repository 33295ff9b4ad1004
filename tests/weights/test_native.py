"""The native file: what is saved is what is loaded, and damage is noticed."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save as to_bytes

from gl_jax.config import UsageError
from gl_jax.weights import native
from gl_jax.weights.architectures import DiscriminatorArchitecture
from gl_jax.weights.arrays import flat, nested
from gl_jax.weights.convention import ENCODINGS, Convention
from gl_jax.weights.description import describe
from gl_jax.weights.native import Discriminator

PHOTO = np.random.default_rng(3).random((8, 12, 3), np.float32)
MASK = np.zeros((8, 12), np.float32)
MASK[2:5, 3:9] = 1
MEAN = (0.45, 0.44, 0.4)


@pytest.fixture
def saved(tmp_path, tiny) -> Path:
    path = tmp_path / "tiny.safetensors"
    native.save(tiny, path)
    return path


def refused(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        native.load(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def rewritten(path: Path, change, sign: bool = True) -> Path:
    """The file with its description changed, and signed anew where `sign`."""
    tensors, about = native._read(path)
    change(tensors, about)
    if sign:
        about["sha256"] = native._digest(about, tensors)
    path.write_bytes(to_bytes(tensors, metadata={"gl_jax": json.dumps(about)}))
    return path


def test_what_is_saved_is_what_is_loaded(saved, tiny):
    again = native.load(saved)
    for place, array in flat(tiny.variables).items():
        np.testing.assert_array_equal(flat(again.variables)[place], array)
    assert again.architecture == tiny.architecture
    assert again.convention == tiny.convention
    assert (again.name, again.licence) == (tiny.name, tiny.licence)
    assert again.training == tiny.training
    assert again.mean_color == tiny.mean_color


def test_a_discriminator_comes_along(tmp_path, tiny):
    made = DiscriminatorArchitecture(32, 16, "both", 1 / 16)
    shapes = made.shapes()
    discriminator = Discriminator(
        nested({k: np.ones(s, np.float32) for k, s in shapes.items()}), made
    )
    model = dataclasses.replace(tiny, discriminator=discriminator)
    native.save(model, tmp_path / "m.safetensors")
    again = native.load(tmp_path / "m.safetensors")
    assert again.discriminator.architecture == made
    assert flat(again.discriminator.variables).keys() == shapes.keys()
    assert flat(again.variables).keys() == flat(tiny.variables).keys()


def test_spectral_vectors_come_back_in_their_own_tree(tmp_path, tiny):
    """Their names have slashes, as the places of arrays in a file have between names."""
    made = DiscriminatorArchitecture(32, 16, "both", 1 / 16, "none", spectral_norm=True)
    views = {
        name: jnp.ones((1, s, s, 3)) for name, s in (("local", 16), ("global", 32))
    }
    variables = jax.device_get(jax.jit(made.network().init)(jax.random.key(0), views))
    model = dataclasses.replace(tiny, discriminator=Discriminator(variables, made))
    native.save(model, tmp_path / "m.safetensors")
    again = native.load(tmp_path / "m.safetensors").discriminator
    assert again.architecture == made
    same = jax.tree.map(np.array_equal, again.variables, variables)
    assert all(jax.tree.leaves(same))
    assert "conv1/kernel/u" in again.variables["batch_stats"]["local"]["SpectralNorm_0"]


def test_the_same_model_is_the_same_file(saved, tmp_path, tiny):
    native.save(tiny, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()


@pytest.mark.parametrize(("dtype", "error"), [("float16", 6e-4), ("bfloat16", 5e-3)])
def test_smaller_types_halve_kernels_and_spare_the_rest(
    dtype, error, saved, tmp_path, tiny
):
    path = tmp_path / "small.safetensors"
    native.save(tiny, path, dtype)
    assert path.stat().st_size < 0.65 * saved.stat().st_size
    again = flat(native.load(path).variables)
    for place, array in flat(tiny.variables).items():
        allowed = error if place.endswith("/kernel") else 0
        np.testing.assert_allclose(again[place], array, rtol=allowed)
        assert again[place].dtype == np.float32


def test_numbers_beyond_float16_are_refused_by_name(tmp_path, tiny):
    arrays = flat(tiny.variables)
    arrays["params/conv3/kernel"] = arrays["params/conv3/kernel"] * np.float32(1e7)
    model = dataclasses.replace(tiny, variables=nested(arrays))
    with pytest.raises(UsageError, match="as float16: params/conv3/kernel would hold"):
        native.save(model, tmp_path / "m.safetensors", "float16")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_type_is_refused(tmp_path, tiny):
    with pytest.raises(UsageError, match="must be one of float32, float16, bfloat16"):
        native.save(tiny, tmp_path / "m.safetensors", "int8")


def test_a_folder_that_cannot_be_made_is_named(tmp_path, tiny):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        native.save(tiny, tmp_path / "file" / "m.safetensors")


@given(st.data())
def test_no_flipped_bit_goes_unnoticed(tiny, tmp_path_factory, data):
    path = tmp_path_factory.mktemp("flip") / "m.safetensors"
    native.save(tiny, path)
    content = bytearray(path.read_bytes())
    # Half of the flips in the header, where a byte weighs most.
    header = 8 + int.from_bytes(content[:8], "little")
    at = data.draw(st.integers(0, header - 1) | st.integers(0, len(content) - 1))
    bit = data.draw(st.integers(0, 7))
    content[at] ^= 1 << bit
    path.write_bytes(content)
    # A flip that only moves the spaces of the header changes nothing that is read.
    try:
        model = native.load(path)
    except UsageError:
        return
    assert model.sha256 == native.save(tiny, path)


@pytest.mark.parametrize("length", [0, 7, 8, 100, -1])
def test_a_truncated_file_is_refused(saved, length):
    saved.write_bytes(saved.read_bytes()[:length])
    assert "is not an intact weights file of gl_jax" in refused(saved)


def test_a_header_of_absurd_length_is_refused(saved):
    saved.write_bytes(b"\xff" * 8 + saved.read_bytes()[8:])
    assert "does not begin like a safetensors file" in refused(saved)


def test_a_header_nested_too_deeply_is_refused(tmp_path):
    header = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    path = tmp_path / "deep.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert "it is damaged" in refused(path)


def test_the_file_of_another_project_is_sent_to_convert(tmp_path):
    path = tmp_path / "other.safetensors"
    path.write_bytes(to_bytes({"a": np.zeros(2, np.float32)}))
    assert "no description of a gl_jax model" in refused(path)
    assert "gl-jax convert" in refused(path)


def test_a_newer_format_says_so(saved):
    rewritten(saved, lambda tensors, about: about.update(format=2))
    message = refused(saved)
    assert "format 2" in message and "Update gl_jax" in message


def test_an_edited_description_is_noticed(saved):
    rewritten(saved, lambda tensors, about: about.update(licence="MIT"), sign=False)
    assert "does not match its own SHA-256" in refused(saved)


def test_wrong_arrays_are_all_listed(saved):
    def change(tensors, about):
        del tensors["params/conv1/bias"]
        tensors["params/conv18/bias"] = np.zeros(3, np.float32)
        tensors["params/conv2/bias"] = np.zeros(5, np.float32)

    message = refused(rewritten(saved, change))
    assert "missing params/conv1/bias" in message
    assert "unexpected params/conv18/bias" in message
    assert "mis-shaped params/conv2/bias 5 instead of 8" in message


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda a: a.pop("licence"), "licence"),
        (lambda a: a["architecture"].update(width="wide"), "width"),
        (lambda a: a["architecture"].update(width=1e9), r"in (0, 8]"),
        (lambda a: a["architecture"].update(layers=3), "layers"),
        (lambda a: a["convention"].update(channels="GBR"), "channels"),
        (lambda a: a["convention"].update(fill=[1, 2]), "fill"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(saved, change, reason):
    assert reason in refused(rewritten(saved, lambda tensors, about: change(about)))


def test_a_model_is_described_in_a_few_lines(saved):
    text = describe(native.load(saved))
    assert "width 0.0625, conv-BN-ReLU, sigmoid" in text
    assert "(0.42, 0.44, 0.4)" in text and "CC0" in text
    assert native.load(saved).sha256 in text


# --- conventions


def test_by_our_convention_the_photograph_is_centred_and_the_hole_holds_zeros():
    mean = np.asarray(MEAN, np.float32)
    encoded = Convention.gl_jax(MEAN).encode(PHOTO, MASK)
    hole = MASK[..., None] == 1
    np.testing.assert_array_equal(encoded[..., :3], np.where(hole, 0, PHOTO - mean))
    np.testing.assert_array_equal(encoded[..., 3], MASK)


@pytest.mark.parametrize("name", ENCODINGS)
def test_the_hole_hides_the_photograph_from_the_network(name):
    convention = ENCODINGS[name].completion(MEAN)
    other = np.where(MASK[..., None] == 1, 1 - PHOTO, PHOTO)
    np.testing.assert_array_equal(
        convention.encode(PHOTO, MASK), convention.encode(other, MASK)
    )


def test_blue_comes_first_where_it_does_at_home():
    convention = Convention("BGR", 2.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    encoded = convention.encode(PHOTO, MASK)
    known = MASK == 0
    np.testing.assert_allclose(
        encoded[known][:, :3], PHOTO[known][:, ::-1] * 2 - 1, atol=1e-6
    )
    assert np.all(encoded[~known][:, :3] == 0)
    np.testing.assert_array_equal(convention.decode(PHOTO), PHOTO[..., ::-1])


def test_a_hole_is_painted_and_not_centred_where_nothing_is_subtracted():
    encoded = Convention(fill=(0.5, 0.25, 0.125)).encode(PHOTO, MASK)
    np.testing.assert_array_equal(encoded[MASK == 1][0], [0.5, 0.25, 0.125, 1])
    np.testing.assert_array_equal(encoded[MASK == 0][:, :3], PHOTO[MASK == 0])


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_arrays_stay_of_their_kind_and_batches_work(kind):
    convention = Convention.gl_jax((0.5, 0.5, 0.5))
    image, mask = kind(np.stack([PHOTO] * 2)), kind(np.stack([MASK] * 2) > 0)
    encoded = convention.encode(image, mask)
    assert type(encoded) is type(image)
    assert encoded.shape == (2, 8, 12, 4) and encoded.dtype == np.float32
