"""What programs are compiled with, and where they are kept."""

import os
import subprocess
import sys

import jax
import pytest

from gl_jax import compilation
from gl_jax.compilation import CPU_OPTIONS, WITHOUT_AVX512, compiler_options


def test_options_are_for_processors_only(monkeypatch) -> None:
    assert bool(compiler_options()) == (jax.default_backend() == "cpu")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiler_options.__wrapped__() == {}


@pytest.mark.parametrize(
    ("said", "widest"),
    [
        ("flags\t\t: fpu avx avx2 fma\n", True),
        ("flags\t\t: fpu avx avx2 fma avx512f\n", False),
        ("flags\t\t: fpu avx\n", False),
        ("Features\t: fp asimd\n", False),
        (None, False),  # another system than Linux
    ],
)
def test_processors_of_avx2_get_options_of_their_own(
    said, widest, monkeypatch, tmp_path
) -> None:
    path = tmp_path / "cpuinfo"
    if said is not None:
        path.write_text(f"processor\t: 0\n{said}")
    monkeypatch.setattr(compilation, "PROCESSOR", path)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    options = compiler_options.__wrapped__()
    assert options == CPU_OPTIONS | (WITHOUT_AVX512 if widest else {})


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
