"""Operations and options of each platform, and where programs are kept."""

import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest

from gl_jax import compilation
from gl_jax.models.ops import NATIVE, Ops


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_accelerators_get_native_operations_and_no_options(platform) -> None:
    assert compilation.ops(platform) is NATIVE
    assert compilation.options(platform) == {}


def test_a_platform_may_have_operations_and_options_of_its_own(monkeypatch) -> None:
    own = Ops(lambda *given: given[0], lambda *given: given[0])
    guest = SimpleNamespace(
        ops=lambda: own, compiler_options=lambda once=False: {"wide": True}
    )
    monkeypatch.setattr(compilation, "GUESTS", {"cpu": guest})
    assert compilation.ops("cpu") is own
    assert compilation.options("cpu") == {"wide": True}
    assert compilation.ops("gpu") is NATIVE
    # By default those of the platform that JAX runs on.
    here = jax.default_backend() == "cpu"
    assert (compilation.ops() is own) == here
    assert bool(compilation.options()) == here


def test_functions_are_compiled_with_the_options(monkeypatch) -> None:
    monkeypatch.setattr(compilation, "GUESTS", {})
    assert compilation.jit(lambda x, times: x * times, static=(1,))(2.0, 3) == 6
    guest = SimpleNamespace(
        compiler_options=lambda once=False: {"xla_of_another_version": True}
    )
    monkeypatch.setattr(compilation, "GUESTS", {jax.default_backend(): guest})
    with pytest.raises(jax.errors.JaxRuntimeError, match="No such compile option"):
        compilation.jit(lambda x: x + 1)(2.0)


@pytest.mark.parametrize("told", [None, "elsewhere"])
def test_compiled_programs_are_kept_in_the_users_cache(told, tmp_path) -> None:
    code = (
        "import jax; from gl_jax import compilation; "
        "compilation.use_compilation_cache(); print(jax.config.jax_compilation_cache_dir)"
    )
    environment = {k: v for k, v in os.environ.items() if "COMPILATION_CACHE" not in k}
    environment["XDG_CACHE_HOME"] = str(tmp_path)
    if told is not None:
        environment["JAX_COMPILATION_CACHE_DIR"] = told
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    assert run.stdout.strip() == (told or str(tmp_path / "gl_jax"))


def test_what_comes_later_is_kept_though_nothing_was_before(tmp_path) -> None:
    """JAX settles at its first compilation whether there is a cache."""
    code = (
        "import jax; from gl_jax import compilation; jax.jit(lambda x: x + 1)(0.0); "
        "compilation.LEAST_SECONDS = 0; compilation.use_compilation_cache(); "
        "jax.jit(lambda x: x + 2)(0.0)"
    )
    environment = {k: v for k, v in os.environ.items() if "CACHE" not in k}
    environment["XDG_CACHE_HOME"] = str(tmp_path)
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert any((tmp_path / "gl_jax").glob("jit__lambda-*"))
