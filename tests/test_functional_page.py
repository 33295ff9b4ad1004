"""docs/functional.md runs from top to bottom."""

import json
import re
from pathlib import Path

import jax

PAGE = Path(__file__).parents[1] / "docs" / "functional.md"


def blocks_of_the_page() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)


def test_the_page_runs_from_top_to_bottom():
    blocks = blocks_of_the_page()
    assert len(blocks[0].splitlines()) <= 40
    names: dict[str, object] = {"__name__": "page"}
    # The tests' strictness is no matter of a reader's script.
    with (
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
    ):
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), names)


def test_the_notebook_is_the_page_run():
    cells = json.loads(PAGE.with_suffix(".ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    sources = ["".join(cell["source"]) for cell in code]
    pictures = [source for source in sources if "show(" in source]
    expected = [block.strip() for block in blocks_of_the_page()]
    assert [source for source in sources if source not in pictures] == expected
    assert all(cell["execution_count"] for cell in code)
    drawn = [out for cell in code for out in cell["outputs"] if "data" in out]
    assert sum("image/png" in out["data"] for out in drawn) == 3
