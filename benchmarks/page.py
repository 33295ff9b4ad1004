"""Speed of the page of `gl-jax serve`: first paint, frames during a stroke, first fill.

    python -m benchmarks.page [--megapixels 12]

Starts the server with the shipped model and Debian's Chromium, draws one long stroke on a
photograph made of noise, and reads the browser's own trace. Then it completes a spot.
Thread times are those of the processor, so that other work on the machine does not count;
frames do.
"""

import argparse
import json
import shutil
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from gl_jax.inpainting import completer
from gl_jax.serve.app import Server
from gl_jax.serve.methods import Network
from gl_jax.serve.security import Guard

MOVES = 240
"""Movements of the pointer in the stroke: four seconds at 60 a second."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megapixels", type=float, default=12.0)
    pixels = parser.parse_args().megapixels * 1e6
    width, height = round((pixels * 4 / 3) ** 0.5), round((pixels * 3 / 4) ** 0.5)
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.create_server(("127.0.0.1", 0)) as listening,
    ):
        photo = Path(folder) / "photo.jpg"
        _write_photo(photo, width, height)
        server = _serve(listening)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/#token=measure"
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            page.goto(url)
            expect(page.locator("#methods input")).to_have_count(1)
            paint = page.evaluate(
                "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            )
            start = time.perf_counter()
            page.set_input_files("#files", photo)
            expect(page.locator("#save")).to_be_enabled(timeout=120_000)
            opened = time.perf_counter() - start
            page.wait_for_timeout(2000)
            print(f"first paint               {paint:8.0f} ms")
            print(f"open {width}x{height}            {opened:8.1f} s")
            for name, line in _stroke(page).items():
                print(f"{name:26}{line}")
            fill, completion = _fill(page)
            print(
                f"first fill                {fill:8.1f} s, {completion:.1f} s of it completion"
            )
            browser.close()
        server.should_exit = server.force_exit = True


def _write_photo(path: Path, width: int, height: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3))
    image = Image.fromarray(noise.astype(np.uint8)).resize((width, height))
    image.save(path, quality=90)


def _serve(listening: socket.socket) -> uvicorn.Server:
    app = Server({"gl": Network(completer.load())}).app()
    config = uvicorn.Config(
        Guard(app, "measure"), lifespan="off", ws="none", log_level="error",
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    threading.Thread(target=server.run, args=([listening],), daemon=True).start()
    return server


def _stroke(page: Page) -> dict[str, str]:
    """Draws, and returns what the trace says of it."""
    stage = page.locator("#stage").bounding_box()
    assert stage is not None
    angles = np.linspace(0, 6 * np.pi, MOVES)
    radius = min(stage["width"], stage["height"]) * np.linspace(0.1, 0.4, MOVES)
    xs = stage["x"] + stage["width"] / 2 + radius * np.cos(angles)
    ys = stage["y"] + stage["height"] / 2 + radius * np.sin(angles)
    page.evaluate(
        """() => {
            window.frames_ = [];
            const frame = (now) => { window.frames_.push(now); requestAnimationFrame(frame); };
            requestAnimationFrame(frame);
        }"""
    )
    page.mouse.move(xs[0], ys[0])
    trace = page.context.browser
    assert trace is not None
    trace.start_tracing(page=page, categories=["devtools.timeline", "toplevel"])
    page.mouse.down()
    begin = page.evaluate("performance.now()")
    for x, y in zip(xs, ys, strict=True):
        page.mouse.move(x, y)
    end = page.evaluate("performance.now()")
    page.mouse.up()
    events: list[dict[str, Any]] = json.loads(trace.stop_tracing())["traceEvents"]
    frames = [f for f in page.evaluate("window.frames_") if begin <= f <= end]
    gaps = np.diff(frames)
    moves = [
        e["tdur"] / 1000
        for e in events
        if e.get("name") == "EventDispatch"
        and e.get("args", {}).get("data", {}).get("type") == "pointermove"
        and "tdur" in e
    ]
    return {
        "frames a second": f"{1000 / gaps.mean():8.0f}, slowest {gaps.max():.0f} ms",
        "a movement, thread time": f"{statistics.median(moves):8.2f} ms, "
        f"slowest {max(moves):.2f} ms, {len(moves)} of them",
    }


def _fill(page: Page) -> tuple[float, float]:
    """Returns the seconds from Enter to the result, and those of the completion itself."""
    stage = page.locator("#stage").bounding_box()
    assert stage is not None
    page.keyboard.press("Delete")
    page.mouse.click(stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2)
    page.keyboard.press("Enter")
    start = time.perf_counter()
    expect(page.locator("#patches img")).to_have_count(1, timeout=120_000)
    fill = time.perf_counter() - start
    completion: float = page.evaluate(
        """async () => {
            const { state } = await import("/state.js");
            return state.current.steps[0].candidates[0].seconds;
        }"""
    )
    return fill, completion


if __name__ == "__main__":
    main()
