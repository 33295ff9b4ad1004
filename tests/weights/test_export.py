"""A run becomes a file for use; an exported program computes what the network does."""

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export

from gl_jax import cli, compilation
from gl_jax.checkpoint import Checkpoints
from gl_jax.config import (
    GREY,
    Config,
    DataConfig,
    HolesConfig,
    ModelConfig,
    UsageError,
)
from gl_jax.models import inference
from gl_jax.training import default_parts
from gl_jax.training.workdir import remembered_of
from gl_jax.weights import architectures, export, native
from gl_jax.weights.architectures import Architecture
from gl_jax.weights.arrays import Tree, nested
from gl_jax.weights.convention import ENCODINGS, Convention

CONFIG = Config(
    name="small",
    model=ModelConfig(width=1 / 16, norm_order="activation_norm"),
    data=DataConfig(image_size=32, resize=(32, 32), mean_color=(0.4, 0.5, 0.6)),
    holes=HolesConfig(8, 12, 16),
)


def filled(shapes: architectures.Shapes, value: float) -> Tree:
    return nested({k: np.full(s, value, np.float32) for k, s in shapes.items()})


def run(
    folder: Path, config: Config = CONFIG, extra: Any = None, **parts: Tree
) -> Path:
    """A workdir with one checkpoint, of step 12."""
    checkpoints = Checkpoints(
        folder / "checkpoints", keep_newest=1, keep_best=0, keep_every=None,
        max_failed_saves=1, log=print,
    )  # fmt: skip
    state = {
        "step": np.asarray(12), "completion": filled(Architecture(1 / 16).shapes(), 1)
    } | parts  # fmt: skip
    checkpoints.save(
        12, state, measured={}, config_json=config.to_json(), extra=extra or {}
    )
    checkpoints.close()
    return folder


def test_a_run_becomes_a_model_with_all_it_needs(tmp_path):
    model = export.from_run(run(tmp_path))
    assert model.architecture == Architecture(1 / 16, "activation_norm")
    assert model.mean_color == (0.4, 0.5, 0.6)
    assert model.training["steps"] == 12
    assert model.training["weights"] == "last step"
    assert model.discriminator is None
    native.save(model, tmp_path / "m.safetensors")
    assert native.load(tmp_path / "m.safetensors").training == model.training


def encoded(encoding: str) -> Config:
    color = GREY if encoding == "mmediting" else (0.4, 0.5, 0.6)
    data = dataclasses.replace(CONFIG.data, encoding=encoding, mean_color=color)
    return dataclasses.replace(CONFIG, data=data)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_run_remembers_how_its_networks_see_photographs(encoding, tmp_path):
    config = encoded(encoding)
    parts, made = (
        default_parts(config),
        architectures.DiscriminatorArchitecture(32, 16, "both", 1 / 16),
    )
    convention = parts.encoding.completion(config.data.mean_color)
    networks = architectures.of_networks(
        parts.completion, parts.discriminator, config, None, parts.encoding
    )
    extra = remembered_of(*networks, convention, None)
    judges = filled(made.shapes(), 2)
    workdir = run(tmp_path, config, json.loads(json.dumps(extra)), discriminator=judges)
    native.save(
        export.from_run(workdir, discriminators=True), tmp_path / "m.safetensors"
    )
    model = native.load(tmp_path / "m.safetensors")
    assert model.convention == convention
    judge = model.discriminator.architecture
    assert judge.convention == parts.encoding.discriminator


def test_an_encoding_of_ones_own_is_remembered(tmp_path):
    own = Convention("BGR", 2.0, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    extra = remembered_of(None, None, own, None)
    extra["networks"] = {
        "completion": architectures.to_json(architectures.of_config(CONFIG)[0])
    }
    assert export.from_run(run(tmp_path, CONFIG, extra)).convention == own


def test_the_moving_average_is_preferred(tmp_path):
    ema = filled(Architecture(1 / 16).shapes(), 3)
    model = export.from_run(run(tmp_path, ema=ema))
    assert np.all(model.variables["params"]["conv1"]["kernel"] == 3)
    assert model.training["weights"] == "moving average"


def test_an_earlier_step_can_be_asked_for(tmp_path):
    folder = run(tmp_path)
    assert export.from_run(folder, step=12).training["steps"] == 12
    with pytest.raises(UsageError, match=r"no checkpoint of step 7; it holds steps 12"):
        export.from_run(folder, step=7)


@pytest.mark.parametrize(
    ("model", "made"),
    [
        (
            {},
            architectures.DiscriminatorArchitecture(
                32, 16, "both", 1 / 16, "activation_norm"
            ),
        ),
        (
            {"discriminator_norm": "none", "spectral_norm": True},
            architectures.DiscriminatorArchitecture(
                32, 16, "both", 1 / 16, "none", spectral_norm=True
            ),
        ),
    ],
)
def test_discriminators_come_on_request(model, made, tmp_path):
    config = dataclasses.replace(
        CONFIG, model=dataclasses.replace(CONFIG.model, **model)
    )
    judges = filled(made.shapes(), 2)
    workdir = run(tmp_path, config, discriminator=judges)
    assert export.from_run(workdir).discriminator is None
    model = export.from_run(workdir, discriminators=True)
    native.save(model, tmp_path / "m.safetensors")
    loaded = native.load(tmp_path / "m.safetensors").discriminator
    assert loaded.architecture == made
    assert np.all(loaded.variables["params"]["fusion"]["kernel"] == 2)
    # The variables by the names that the network itself gives them.
    views = {"local": jnp.zeros((2, 16, 16, 3)), "global": jnp.zeros((2, 32, 32, 3))}
    logits, _ = jax.eval_shape(
        lambda variables: loaded.architecture.network().apply(
            variables, views, True, mutable=["batch_stats"]
        ),
        loaded.variables,
    )
    assert logits.shape == (2,)


def test_discriminators_that_are_not_there_are_missed(tmp_path):
    with pytest.raises(UsageError, match="has no discriminators to export"):
        export.from_run(run(tmp_path), discriminators=True)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="not the folder of a training run"):
        export.from_run(tmp_path)


def test_a_stablehlo_program_takes_any_batch_and_size(tmp_path, tiny):
    path = tmp_path / "tiny.stablehlo"
    export.to_stablehlo(tiny, path)
    program = jax_export.deserialize(bytearray(path.read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    complete = jax.jit(export.program(tiny))
    for shape in ((1, 16, 24), (3, 20, 16)):
        images = np.random.default_rng(1).random((*shape, 3), np.float32)
        mask = (images[..., :1] > 0.5).astype(np.float32)
        expected = complete(jnp.asarray(images), jnp.asarray(mask))
        np.testing.assert_allclose(program.call(images, mask), expected, atol=1e-6)


@pytest.mark.parametrize("order", ["norm_activation", "activation_norm"])
@pytest.mark.parametrize("output", ["sigmoid", "clamp", "signed_clamp"])
def test_a_program_computes_what_the_network_does(order, output, tiny):
    architecture = Architecture(1 / 16, order, output)
    model = dataclasses.replace(tiny, architecture=architecture)
    in_use, folded = inference.fold(model.network(compilation.ops()), model.variables)

    def expected(images: jax.Array, mask: jax.Array) -> jax.Array:
        inputs = model.convention.encode(images, mask)
        return model.convention.decode(in_use.apply(folded, inputs))

    export._require_same(expected, export.program(model), (2, 48, 72))


@pytest.mark.slow
def test_a_network_of_full_width_is_exported_for_any_size(tmp_path):
    # Its layers are computed differently from narrow ones on CPU.
    shapes = Architecture().shapes()
    stream = np.random.default_rng(0)
    arrays = {}
    for name, shape in shapes.items():
        kernel = name.endswith("kernel")
        low, high = (-1, 1) if kernel else (0.5, 1.5)
        bound = (6 / np.prod(shape[:-1])) ** 0.5 if kernel else 1
        arrays[name] = stream.uniform(low * bound, high * bound, shape)
    arrays["params/conv17/kernel"] *= 0.1
    variables = nested({k: a.astype(np.float32) for k, a in arrays.items()})
    convention = Convention.gl_jax((0.5, 0.5, 0.5))
    model = native.Model(variables, Architecture(), convention)
    export.to_stablehlo(model, tmp_path / "full.stablehlo")
    assert (tmp_path / "full.stablehlo").stat().st_size > 24e6


def test_a_program_shows_photographs_as_the_convention_says(tiny):
    model = dataclasses.replace(
        tiny,
        convention=Convention("BGR", 2.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    )
    images = np.random.default_rng(1).random((1, 16, 16, 3), np.float32)
    mask = np.zeros((1, 16, 16, 1), np.float32)
    inputs = np.concatenate([images[..., ::-1] * 2 - 1, mask], axis=-1)
    own = tiny.network().apply(tiny.variables, inputs, train=False)
    found = export.program(model)(jnp.asarray(images), jnp.asarray(mask))
    np.testing.assert_allclose(found, own[..., ::-1], atol=1e-6)


def test_a_program_that_differs_is_not_kept(tiny):
    complete = export.program(tiny)
    with pytest.raises(export.ExportMismatchError, match=r"differs .* by 0\.001"):
        export._require_same(complete, lambda i, m: complete(i, m) + 1e-3, (1, 16, 16))
    with pytest.raises(export.ExportMismatchError, match="has the shape"):
        export._require_same(complete, lambda i, m: complete(i, m)[:, 4:], (1, 16, 16))
    with pytest.raises(export.ExportMismatchError, match="nan"):
        export._require_same(
            complete, lambda i, m: complete(i, m) * jnp.nan, (1, 16, 16)
        )


def test_onnx_without_its_converter_says_how_to_get_it(tmp_path, tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(UsageError, match=r"jax2onnx.*pip install 'gl-jax\[onnx\]'"):
        export.to_onnx(tiny, tmp_path / "m.onnx", 64, 64)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [(66, 64), (0, 64)])
def test_onnx_of_a_size_that_does_not_fit_is_refused(tmp_path, tiny, size):
    with pytest.raises(UsageError, match="multiples of 4"):
        export.to_onnx(tiny, tmp_path / "m.onnx", *size)


# --- the command line


def test_export_writes_and_inspect_prints(tmp_path, capsys):
    output = tmp_path / "model.safetensors"
    workdir = str(run(tmp_path / "run"))
    words = [
        "export",
        "--workdir",
        workdir,
        "--output",
        str(output),
        "--licence",
        "MIT",
    ]
    assert cli.main(words) == 0
    assert cli.main(["inspect", str(output)]) == 0
    printed = capsys.readouterr().out
    assert "small" in printed and "MIT" in printed
    assert native.load(output).sha256 in printed


def test_any_model_is_exported(tmp_path, tiny, capsys):
    source, output = tmp_path / "tiny.safetensors", tmp_path / "tiny.stablehlo"
    native.save(tiny, source)
    words = ["export", "--model", str(source), "--output", str(output)]
    assert cli.main([*words, "--format", "stablehlo"]) == 0
    program = jax_export.deserialize(bytearray(output.read_bytes()))
    images = np.random.default_rng(1).random((1, 16, 16, 3), np.float32)
    mask = np.zeros((1, 16, 16, 1), np.float32)
    expected = export.program(tiny)(jnp.asarray(images), jnp.asarray(mask))
    np.testing.assert_allclose(program.call(images, mask), expected, atol=1e-6)


def test_an_exported_model_keeps_its_licence_unless_another_is_given(tmp_path, tiny):
    source = tmp_path / "tiny.safetensors"
    native.save(dataclasses.replace(tiny, licence="CC0"), source)
    for words, licence in (([], "CC0"), (["--licence", "MIT"], "MIT")):
        output = tmp_path / f"{licence}.safetensors"
        command = ["export", "--model", str(source), "--output", str(output), *words]
        assert cli.main(command) == 0
        assert native.load(output).licence == licence


def test_a_model_between_two_others(tmp_path, tiny, capsys):
    more = jax.tree.map(lambda array: array + 1, tiny.variables)
    other = dataclasses.replace(tiny, variables=more, name="other")
    native.save(tiny, tmp_path / "first.safetensors")
    native.save(other, tmp_path / "second.safetensors")
    words = (
        f"--model {tmp_path}/first.safetensors --output {tmp_path}/between.safetensors"
    )
    words += f" --toward {tmp_path}/second.safetensors --share 0.25"
    assert cli.main(["export", *words.split()]) == 0
    text = capsys.readouterr().out
    assert re.search("^interpolated +0.25 of other$", text, re.M)
    assert "sha256" not in text
    between = native.load(tmp_path / "between.safetensors")
    jax.tree.map(
        lambda made, array: np.testing.assert_allclose(made, array + 0.25, atol=1e-6),
        between.variables,
        tiny.variables,
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--toward {0}/other.safetensors", "need each other"),
        ("--share 0.5", "need each other"),
        ("--toward {0}/other.safetensors --share 1.5", "from 0 to 1"),
        ("--toward {0}/other.safetensors --share 0.5", "differ in their convention"),
        ("--toward demo --share 0.5", "differ in their architecture"),
        ("--toward {0}/out.safetensors --share 0.5", "overwrite"),
    ],
)
def test_models_with_none_between_them_are_refused(
    tmp_path, tiny, capsys, words, message
):
    other = dataclasses.replace(tiny, convention=Convention(scale=2.0))
    native.save(tiny, tmp_path / "tiny.safetensors")
    native.save(other, tmp_path / "other.safetensors")
    native.save(tiny, tmp_path / "out.safetensors")
    words = f"--model {tmp_path}/tiny.safetensors {words.format(tmp_path)}".split()
    output = tmp_path / "out.safetensors"
    if "out.safetensors" not in " ".join(words):
        output.unlink()
    assert cli.main(["export", "--output", str(output), *words]) == 2
    assert message in capsys.readouterr().err


def test_export_never_writes_over_its_source(tmp_path, tiny, capsys):
    source = tmp_path / "tiny.safetensors"
    native.save(tiny, source)
    before = source.read_bytes()
    assert cli.main(["export", "--model", str(source), "--output", str(source)]) == 2
    assert "would overwrite" in capsys.readouterr().err
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "needs either --workdir or --model"),
        ("--workdir run --model demo", "needs either --workdir or --model"),
        ("--model demo --step 3", "--step selects a checkpoint of a run"),
        ("--model demo --discriminators", "has no discriminators to export"),
    ],
)
def test_an_export_of_nothing_or_of_two_is_refused(tmp_path, capsys, words, message):
    output = tmp_path / "out.safetensors"
    assert cli.main(["export", "--output", str(output), *words.split()]) == 2
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_convert_writes_a_file_of_ours(tmp_path, foreign, archives, capsys):
    source, target = tmp_path / "model_cn", tmp_path / "face.safetensors"
    source.write_bytes(archives.stream(foreign.glcic_completion()))
    config = tmp_path / "home.json"
    config.write_text('{"mpv": [0.5, 0.4, 0.3]}')
    words = ["convert", str(source), str(target), "--config", str(config)]
    assert cli.main(words) == 0
    assert native.load(target).mean_color == (0.5, 0.4, 0.3)
    assert "glcic_pytorch" in capsys.readouterr().out


def test_convert_never_writes_over_its_source(tmp_path, foreign, archives, capsys):
    source = tmp_path / "model_cn"
    source.write_bytes(archives.zip_archive(foreign.mmediting()))
    assert cli.main(["convert", str(source), str(source)]) == 2
    assert "would overwrite" in capsys.readouterr().err


def test_convert_names_the_word_it_lacks(capsys):
    assert cli.main(["convert", "a.pth"]) == 2
    message = capsys.readouterr().err
    assert "gl-jax convert needs TARGET: The file to write" in message


def test_a_word_too_many_is_refused(capsys):
    assert cli.main(["inspect", "a", "b"]) == 2
    assert "no option takes the word 'b'" in capsys.readouterr().err


def test_a_folder_with_some_other_config_json_is_no_run(tmp_path):
    (tmp_path / "config.json").write_text('{"mpv": [0.5, 0.4, 0.3]}')
    assert not export.is_run(tmp_path)
    (tmp_path / "run_status.json").write_text("{}")
    assert export.is_run(tmp_path)
