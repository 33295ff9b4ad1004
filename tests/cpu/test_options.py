"""The options that programs for processors are compiled with."""

import jax
import pytest

from gl_jax.cpu import compiler_options, options


@pytest.fixture
def processor(monkeypatch, tmp_path):
    """Has Linux say that of the processor; None is another system."""

    def say(text: str | None) -> None:
        path = tmp_path / "cpuinfo"
        if text is not None:
            path.write_text(f"processor\t: 0\n{text}")
        monkeypatch.setattr(options, "_PROCESSOR", path)

    return say


@pytest.mark.parametrize(
    ("said", "widest"),
    [
        ("flags\t\t: fpu avx avx2 fma\n", True),
        ("flags\t\t: fpu avx avx2 fma avx512f\n", False),
        ("flags\t\t: fpu avx\n", False),
        ("Features\t: fp asimd\n", False),
        (None, False),
    ],
)
def test_processors_of_avx2_get_options_of_their_own(said, widest, processor):
    processor(said)
    found = compiler_options.__wrapped__()
    assert ("xla_cpu_experimental_ynn_fusion_type" in found) == widest
    assert jax.jit(lambda x: x + 1).lower(0.0).compile(compiler_options=found)(1.0) == 2


def test_an_option_that_xla_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setitem(options._OPTIONS, "xla_cpu_no_such_option", True)
    assert "xla_cpu_no_such_option" not in compiler_options.__wrapped__()
