"""The page in a browser, from the participant's number to the file of answers."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gl_jax.study import Kind
from gl_jax.study.evaluation import evaluate
from gl_jax.study.key import Key

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PARTICIPANT = 3


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window; skips with a reason if there is none."""
    reason = "the page's test needs playwright: pip install '.[dev]'"
    api = pytest.importorskip("playwright.sync_api", reason=reason)
    installed = next(filter(None, map(shutil.which, BROWSERS)), None)
    with api.sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(
                executable_path=installed, args=["--no-sandbox"]
            )
        except api.Error:
            pytest.skip("no browser: apt-get install chromium")
        yield chromium
        chromium.close()


@pytest.mark.parametrize("kind", ["single", "pair"])
def test_a_participant_answers_from_disk_and_the_file_is_evaluated(
    kind: Kind, studies: dict[Kind, tuple[Key, Path]], browser: Any, tmp_path: Path
) -> None:
    key, folder = studies[kind]
    order = key.orders[PARTICIPANT - 1]
    context = browser.new_context(viewport={"width": 390, "height": 780}, offline=True)
    page = context.new_page()
    requests, errors = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(error))
    address = (folder / "page" / "index.html").as_uri()
    page.goto(f"{address}?participant={PARTICIPANT}")
    page.click("#start")
    pictures = [i for i, question in enumerate(order) if question]
    for number, question in enumerate(order):
        page.wait_for_selector("#left:not([disabled])")
        assert page.inner_text("#count") == f"Question {number + 1} of {len(order)}"
        assert page.locator("#pictures img").count() == len(question)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        if number == pictures[1]:
            # Hidden after half a second, and no second look after a reload.
            page.wait_for_selector("#pictures.hidden", state="attached")
            page.reload()
            page.fill("#number", str(PARTICIPANT))
            page.keyboard.press("Enter")
            page.wait_for_selector("#left:not([disabled])")
            assert "hidden" in page.get_attribute("#pictures", "class")
        right = right_answer(key, question)
        if number % 2:
            page.click("#left" if right == 0 else "#right")
        else:
            page.keyboard.press("ArrowLeft" if right == 0 else "2")
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(tmp_path / download.value.suggested_filename)
    context.close()
    assert errors == []
    assert [
        url for url in requests if not url.startswith(("file:", "data:", "blob:"))
    ] == []
    result = evaluate(tmp_path, folder, log=lambda _: None)
    assert (result.kept, result.excluded) == (1, [])
    counts = result.by_method()
    assert sum(counts[method].real for method in key.methods) == 0
    assert sum(of.judged for of in counts.values()) == 6


def right_answer(key: Key, question: tuple[str, ...]) -> int:
    kinds = [key.pictures[name].kind for name in question]
    if key.kind == "single":
        return 0 if kinds in ([], ["truth"]) else 1
    return kinds.index("truth")
