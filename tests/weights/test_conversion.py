"""Other projects' weights give with us what they give at home.

What they give at home was computed by PyTorch: see make_foreign.py.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gl_jax.config import UsageError
from gl_jax.weights import conversion, layouts, native
from gl_jax.weights.native import Discriminator, Model

# Of the value range, which is 1.
TOLERANCE = 2e-5


@cache
def compiled(network: nn.Module) -> Any:
    return jax.jit(lambda v, x: network.apply(v, x, train=False))


def completed(model: Model, foreign: Any) -> np.ndarray:
    """Our whole way from the photograph to the completed picture, as it was stored."""
    image, mask = foreign.photo()
    inputs = model.convention.encode(image.astype(np.float32) / 255, mask)
    output = np.asarray(compiled(model.network())(model.variables, inputs[None]))[0]
    keep = slice(None, None, foreign.KEEP)
    return model.convention.decode(output)[keep, keep]


def logits_of(discriminator: Discriminator, images: Any, patches: Any) -> np.ndarray:
    """Logits of RGB images [b, 3, h, w] and their windows, by the network itself."""
    encode = discriminator.architecture.convention.encode_image
    views = {
        name: encode(jnp.asarray(array.transpose(0, 2, 3, 1)))
        for name, array in (("global", images), ("local", patches))
    }
    return compiled(discriminator.network())(discriminator.variables, views)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        conversion.convert(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def config(tmp_path: Path, foreign: Any) -> Path:
    """GLCIC-PyTorch's config.json."""
    path = tmp_path / "home.json"
    path.write_text(json.dumps({"mpv": list(foreign.MEAN), "bsize": 96}))
    return path


@pytest.mark.parametrize("container", ["zip_archive", "stream"])
def test_mmediting_completes_as_at_home(container, tmp_path, foreign, archives, golden):
    tree = {"meta": {"epoch": 1}, "state_dict": foreign.mmediting()}
    path = write(
        tmp_path / "gl_places-52a040a8.pth", getattr(archives, container)(tree)
    )
    model = conversion.convert(path)
    expected = golden["mmediting"]
    # A picture that is all clamped would prove nothing.
    assert np.mean((expected > 0) & (expected < 1)) > 0.6
    assert np.abs(completed(model, foreign) - expected).max() < TOLERANCE
    assert (model.architecture.width, model.source) == (1 / 16, "mmediting")


def test_glcic_pytorch_completes_as_at_home(
    tmp_path, foreign, archives, golden, config
):
    path = write(tmp_path / "model_cn", archives.stream(foreign.glcic_completion()))
    model = conversion.convert(path, config)
    error = np.abs(completed(model, foreign) - golden["glcic_pytorch"]).max()
    assert error < TOLERANCE
    assert model.mean_color == foreign.MEAN


def test_the_config_beside_the_weights_has_the_mean(
    tmp_path, foreign, archives, config
):
    config.rename(tmp_path / "config.json")
    path = write(tmp_path / "model_cn", archives.stream(foreign.glcic_completion()))
    assert conversion.convert(path).mean_color == foreign.MEAN


@pytest.mark.parametrize("layout", ["sequential", "nested_sequential"])
def test_the_authors_network_converted_to_pytorch(
    layout, tmp_path, foreign, archives, golden, config
):
    arrays = getattr(foreign, layout)()
    tree = {"model": arrays} if layout == "nested_sequential" else arrays
    model = conversion.convert(
        write(tmp_path / "w.pth", archives.zip_archive(tree)), config
    )
    assert np.abs(completed(model, foreign) - golden[layout]).max() < TOLERANCE


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"matrices": True},
        {"old_norm": True},
        {"dtype": np.float64},
        {"long_size": 4},
        {"prefix": "Cuda"},
    ],
    ids=str,
)
def test_the_authors_torch7_file_completes_as_at_home(
    variant, tmp_path, foreign, archives, golden
):
    settings = dict(variant)
    kind = {
        key: settings.pop(key) for key in ("long_size", "prefix") if key in settings
    }
    tree = archives.authors(foreign.sequential(), foreign.MEAN, **settings)
    model = conversion.convert(write(tmp_path / "net.t7", archives.t7(tree, **kind)))
    assert np.abs(completed(model, foreign) - golden["sequential"]).max() < TOLERANCE
    np.testing.assert_allclose(model.mean_color, foreign.MEAN, rtol=1e-6)


def test_another_epsilon_is_folded_into_the_variance(
    tmp_path, foreign, archives, golden
):
    arrays = {
        name: array - np.float32(1e-3 - 1e-5) if name.endswith("running_var") else array
        for name, array in foreign.sequential().items()
    }
    tree = archives.authors(arrays, foreign.MEAN)
    for module in tree["model"].fields["modules"]:
        if "eps" in module.fields:
            module.fields["eps"] = 1e-3
    model = conversion.convert(write(tmp_path / "net.t7", archives.t7(tree)))
    assert np.abs(completed(model, foreign) - golden["sequential"]).max() < TOLERANCE


def test_the_discriminators_of_mmediting_give_their_own_logits(
    tmp_path, foreign, archives, golden
):
    tree = {"state_dict": foreign.mmediting()}
    model = conversion.convert(write(tmp_path / "w.pth", archives.zip_archive(tree)))
    discriminator = model.discriminator
    made = discriminator.architecture
    logits = logits_of(discriminator, *foreign.shown("places2"))
    np.testing.assert_allclose(logits, golden["mmediting.judge"], atol=TOLERANCE)
    assert (made.image_size, made.local_size) == (256, 128)


@pytest.mark.parametrize("arch", ["places2", "celeba"])
def test_the_networks_of_glcic_pytorch_compute_as_at_home(
    arch, tmp_path, foreign, archives, golden, config
):
    folder = tmp_path / "released"
    folder.mkdir()
    config.rename(folder / "config.json")
    write(folder / "model_cn", archives.stream(foreign.glcic_completion()))
    write(folder / "model_cd", archives.stream(foreign.glcic_discriminator(arch)))
    model = conversion.convert(folder)
    made = model.discriminator.architecture
    assert (made.image_size, made.local_size) == foreign.ARCHES[arch][:2]
    logits = logits_of(model.discriminator, *foreign.shown(arch))
    expected = golden[f"glcic_pytorch.{arch}"]
    np.testing.assert_allclose(logits, expected, atol=TOLERANCE)
    error = np.abs(completed(model, foreign) - golden["glcic_pytorch"]).max()
    assert error < TOLERANCE


def test_a_converted_model_is_the_same_after_a_file_of_ours(
    tmp_path, foreign, archives
):
    tree = {"state_dict": foreign.mmediting()}
    model = conversion.convert(write(tmp_path / "w.pth", archives.zip_archive(tree)))
    native.save(model, tmp_path / "ours.safetensors")
    again = native.load(tmp_path / "ours.safetensors")
    np.testing.assert_array_equal(completed(again, foreign), completed(model, foreign))
    assert again.discriminator.architecture == model.discriminator.architecture
    assert again.convention == model.convention


def test_names_of_parallel_training_are_understood(tmp_path, foreign, archives):
    arrays = {
        name.replace("encoder", "module.encoder").replace(
            "disc.fc", "module.disc.fc"
        ): a
        for name, a in foreign.mmediting().items()
    }
    path = write(tmp_path / "w.pth", archives.zip_archive({"state_dict": arrays}))
    assert conversion.convert(path).source == "mmediting"


@pytest.mark.parametrize(
    ("make", "layout"),
    [
        ("sequential", "sequential"),
        ("nested_sequential", "nested sequential"),
        ("mmediting", "mmediting"),
        ("glcic_completion", "glcic_pytorch"),
    ],
)
def test_a_layout_is_recognised_by_its_content(make, layout, foreign):
    assert layouts.recognise({"a": {"b": getattr(foreign, make)()}})[0] == layout


def test_missing_unexpected_and_misshaped_arrays_are_all_listed(
    tmp_path, foreign, archives
):
    arrays = foreign.mmediting()
    del arrays["generator.encoder.enc2.bn.weight"]
    arrays["generator.extra.weight"] = np.zeros(3, np.float32)
    arrays["generator.decoder.dec7.conv.bias"] = np.zeros(4, np.float32)
    message = refused(write(tmp_path / "w.pth", archives.zip_archive(arrays)))
    assert "missing generator.encoder.enc2.bn.weight" in message
    assert "unexpected generator.extra.weight" in message
    assert "mis-shaped generator.decoder.dec7.conv.bias 4 instead of 3" in message
    assert "Nothing was loaded" in message


def test_weights_of_another_network_are_refused_by_name(tmp_path, archives):
    arrays = {f"layer{i}.weight": np.zeros(2, np.float32) for i in range(9)}
    message = refused(write(tmp_path / "resnet.pth", archives.zip_archive(arrays)))
    assert "none of the layouts" in message and "layer0.weight" in message
    assert "and 5 more" in message


def test_a_mean_nobody_states_is_asked_for(tmp_path, foreign, archives):
    path = write(tmp_path / "w.pth", archives.stream(foreign.glcic_completion()))
    message = refused(path)
    assert "--config" in message and "mpv" in message


def test_a_config_without_a_mean_is_refused(tmp_path, foreign, archives, config):
    config.write_text('{"mpv": [300, 2, 1]}')
    path = write(tmp_path / "w.pth", archives.stream(foreign.glcic_completion()))
    assert "three numbers in [0, 1]" in refused(path, config=config)


def test_discriminators_alone_are_no_model(tmp_path, foreign, archives):
    arrays = foreign.glcic_discriminator("celeba")
    path = write(tmp_path / "model_cd", archives.stream(arrays))
    assert "without a completion network" in refused(path)
    assert "image 160, window 96" in conversion.describe(path)


def test_the_mean_in_the_weights_goes_before_a_file_beside(tmp_path, foreign, archives):
    (tmp_path / "config.json").write_text('{"mpv": [0, 0, 0]}')
    tree = archives.authors(foreign.sequential(), foreign.MEAN)
    path = write(tmp_path / "net.t7", archives.t7(tree))
    np.testing.assert_allclose(
        conversion.convert(path).mean_color, foreign.MEAN, rtol=1e-6
    )


@pytest.mark.parametrize("number", [0.0, 1e-300])
def test_an_absurd_old_statistic_is_refused(number, tmp_path, foreign, archives):
    tree = archives.authors(
        foreign.sequential(), foreign.MEAN, old_norm=True, dtype=np.float64
    )
    tree["model"].fields["modules"][1].fields["running_std"][0] = number
    message = refused(write(tmp_path / "net.t7", archives.t7(tree)))
    assert "batch_stats/conv1/norm/var" in message


def test_two_models_in_a_folder_are_refused(tmp_path, foreign, archives):
    for name in ("one", "two"):
        write(tmp_path / name, archives.stream(foreign.glcic_completion()))
    assert "more than one model" in refused(tmp_path)


def test_weights_that_are_not_finite_are_refused(tmp_path, foreign, archives, config):
    arrays = foreign.glcic_completion()
    arrays["conv3.weight"] = arrays["conv3.weight"] * np.float32(np.nan)
    path = write(tmp_path / "w.pth", archives.stream(arrays))
    message = refused(path, config=config)
    assert "params/conv3/kernel" in message and "NaN" in message


def test_a_torch7_network_of_other_layers_is_refused(tmp_path, foreign, archives):
    tree = archives.authors(foreign.sequential(), foreign.MEAN)
    tree["model"].fields["modules"][5] = archives.LuaObject("nn.LeakyReLU")
    message = refused(write(tmp_path / "net.t7", archives.t7(tree)))
    assert "module 6" in message and "nn.LeakyReLU" in message and "ReLU" in message


def test_a_torch7_network_of_another_dilation_is_refused(tmp_path, foreign, archives):
    tree = archives.authors(foreign.sequential(), foreign.MEAN)
    tree["model"].fields["modules"][18].fields["dilationW"] = 3
    message = refused(write(tmp_path / "net.t7", archives.t7(tree)))
    assert "dilationW = 3, not 2" in message


def test_a_shorter_torch7_network_is_refused(tmp_path, foreign, archives):
    tree = archives.authors(foreign.sequential(), foreign.MEAN)
    del tree["model"].fields["modules"][40:]
    message = refused(write(tmp_path / "net.t7", archives.t7(tree)))
    assert "40 modules" in message


def test_a_file_of_ours_is_not_converted_again(tmp_path, tiny):
    native.save(tiny, tmp_path / "m.safetensors")
    assert "already a safetensors file" in refused(tmp_path / "m.safetensors")


def test_inspect_tells_what_a_foreign_file_holds(tmp_path, foreign, archives):
    path = write(tmp_path / "cn", archives.stream(foreign.glcic_completion()))
    text = conversion.describe(path)
    assert "glcic_pytorch" in text and "conv-ReLU-BN" in text
    assert "mean colour unknown" in text


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert "nowhere.pth cannot be read" in refused(tmp_path / "nowhere.pth")
