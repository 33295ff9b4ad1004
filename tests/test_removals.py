"""The objects that docs/removals.py removes: polygons drawn by hand."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "docs" / "removals.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("removals", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_object_lies_in_its_photograph_and_has_a_line_on_the_page(script):
    removals = script.read_removals()
    names = {removal["name"] for removal in removals}
    assert len(names) == len(removals) == 24
    page = SCRIPT.with_suffix(".md").read_text(encoding="utf-8")
    for removal in removals:
        width, height = removal["size"]
        for polygon in removal["polygons"]:
            assert len(polygon) >= 3
            assert all(0 <= x <= width and 0 <= y <= height for x, y in polygon)
        mask = script.mask_of(removal)
        assert mask.shape == (height, width)
        assert 0.001 <= mask.mean() <= 0.3, removal["name"]
        # The hole on the page is the hole in the data.
        assert f"| {removal['name']} | {removal['removed']} | {mask.sum()} |" in page


def test_a_sheet_shows_the_photograph_as_it_is_and_the_overview_all_objects(script):
    removal = script.read_removals()[0]
    width, height = removal["size"]
    photograph = script.np.full((height, width, 3), 90, script.np.uint8)
    pictures = script.pictures_of(removal, photograph, {"ours": photograph + 50})
    assert list(pictures) == ["photograph", "to remove", "ours"]
    assert (pictures["photograph"] == 90).all()
    assert (pictures["to remove"] == script.OUTLINE).all(axis=2).any()
    assert len({picture.shape for picture in pictures.values()}) == 1
    page = script.draw_overview({"one": pictures, "two": pictures, "three": pictures})
    assert page.startswith(b"\x89PNG")
