"""docs/functional.md runs from top to bottom."""

import re
from pathlib import Path

import jax

PAGE = Path(__file__).parents[1] / "docs" / "functional.md"


def test_the_page_runs_from_top_to_bottom():
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    assert len(blocks[0].splitlines()) <= 40
    names: dict[str, object] = {"__name__": "page"}
    # The tests' strictness is no matter of a reader's script.
    with (
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
    ):
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), names)
