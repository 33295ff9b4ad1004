"""Makes docs/page.webp, the picture of the page in the README, by using the page.

python docs/page.py [PICTURE]
"""

import io
import shutil
import socket
import sys
import threading
from pathlib import Path

import sklearn
import uvicorn
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from gl_jax.inpainting import completer
from gl_jax.serve.app import Server
from gl_jax.serve.baseline import Process
from gl_jax.serve.methods import Classical, Network
from gl_jax.serve.security import Guard

PHOTOS = [
    Path(sklearn.__path__[0], "datasets", "images", f"{name}.jpg")
    for name in ("china", "flower")
]
ISLAND = [(402, 236), (424, 216), (460, 212), (496, 219), (514, 236), (496, 250), (455, 254),
          (414, 249), (402, 236)]  # fmt: skip
BOAT = [(352, 284), (366, 286)]
"""Pixels of the first photo."""


def main(target: Path) -> None:
    """Paints over an island in the lake with three methods, and begins with a boat."""
    process = Process()
    methods = {name: Classical(name, process) for name in ("patchmatch", "telea")}
    server = Server({"gl": Network(completer.load()), **methods}, photos=tuple(PHOTOS))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        guarded = Guard(server.app(), "picture")
        program = uvicorn.Server(uvicorn.Config(guarded, log_level="error"))
        thread = threading.Thread(target=program.run, args=([listening],), daemon=True)
        thread.start()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            page = browser.new_page(
                viewport={"width": 1200, "height": 740}, device_scale_factor=1.5
            )
            page.goto(f"http://127.0.0.1:{listening.getsockname()[1]}/#token=picture")
            expect(page.locator("#save")).to_be_enabled()
            for line in page.locator("#toasts p").all():
                line.click()
            for name in methods:
                page.check(f"#methods [value={name}]")
            page.keyboard.press("l")
            _draw(page, ISLAND)
            _run(page)
            # Compiling was in the times of the first run.
            page.keyboard.press("Control+z")
            _run(page)
            page.locator("#results .cards button").nth(1).click()
            page.keyboard.press("b")
            _draw(page, BOAT)
            picture = Image.open(io.BytesIO(page.screenshot()))
            browser.close()
        program.should_exit = True
        thread.join()
    process.close()
    picture.convert("RGB").save(target, quality=80, method=6)
    print(f"{target}: {target.stat().st_size / 1000:.0f} kB")


def _run(page: Page) -> None:
    page.keyboard.press("Enter")
    cards = page.locator("#results .cards button")
    expect(cards).to_have_count(3, timeout=120_000)
    expect(page.locator("#work")).to_be_hidden(timeout=120_000)


def _draw(page: Page, points: list[tuple[int, int]]) -> None:
    box = page.locator("#base").bounding_box()
    assert box is not None
    scale = box["width"] / 640
    places = [(box["x"] + x * scale, box["y"] + y * scale) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=6)
    page.mouse.up()


if __name__ == "__main__":
    main(Path(*sys.argv[1:] or [Path(__file__).with_name("page.webp")]))
