"""The page in a real browser, with the real server behind it."""

import io
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from PIL import Image
from playwright.sync_api import Browser, Error, Page, expect, sync_playwright
from scipy import ndimage

from gl_jax.inpainting import batch, completer, masks
from gl_jax.serve.app import Server
from gl_jax.serve.baseline import Process
from gl_jax.serve.methods import Classical, Network
from gl_jax.serve.saving import Folder
from gl_jax.serve.security import Guard

pytestmark = pytest.mark.slow

SECONDS = 30
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Site:
    """A server in a thread; `restart` is what ending and starting the program is."""

    def __init__(self, output: Path) -> None:
        self._process = Process()
        methods = {
            n: Classical(n, self._process) for n in ("mean", "telea", "criminisi")
        }
        self._methods = {"gl": Network(completer.load()), **methods}
        self._folder = Folder(output)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._starts = 0

    @property
    def output(self) -> Path:
        return self._folder.path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/#token={self._token}"

    @property
    def _token(self) -> str:
        return f"token-{self._starts}"

    def start(self) -> None:
        self._starts += 1
        self._server = Server(self._methods, folder=self._folder)
        app = Guard(self._server.app(), self._token)
        config = uvicorn.Config(
            app, port=self.port, lifespan="off", ws="none", http="h11",
            log_level="error", timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._uvicorn = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._uvicorn.run)
        self._thread.start()
        while not self._uvicorn.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.jobs.cancel_all()
        self._uvicorn.should_exit = self._uvicorn.force_exit = True
        self._thread.join()
        self._process.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        own = next((path for name in NAMES if (path := shutil.which(name))), None)
        try:
            browser = playwright.chromium.launch(
                executable_path=own, args=["--no-sandbox"]
            )
        except Error:
            pytest.skip(
                "no browser: apt-get install chromium, or playwright install chromium"
            )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(browser, tmp_path_factory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("results"))
    site.start()
    yield site
    site.stop()


@pytest.fixture
def page(browser, site) -> Iterator[Page]:
    yield from opened(browser, site, viewport={"width": 1100, "height": 720})


@pytest.fixture
def phone(browser, site) -> Iterator[Page]:
    yield from opened(
        browser, site, viewport={"width": 390, "height": 780}, has_touch=True,
        is_mobile=True, device_scale_factor=2,
    )  # fmt: skip


def opened(browser: Browser, site: Site, **options: object) -> Iterator[Page]:
    """The page; whatever the browser complains of is an error of the test."""
    context = browser.new_context(accept_downloads=True, **options)
    context.set_default_timeout(1000 * SECONDS)
    page = context.new_page()
    faults = list[str]()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(site.url)
    expect(page.locator("#methods input")).to_have_count(4)
    yield page
    context.close()
    assert faults == []


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    """A JPEG of 300x200 pixels that lies on its side."""
    return saved(tmp_path_factory.mktemp("photos") / "photo.jpg", 0)


def saved(path: Path, seed: int, height: int = 300, width: int = 200) -> Path:
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width, 3))
    smooth = ndimage.gaussian_filter(noise, (6, 6, 0)) * 5 - 500
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(np.clip(smooth, 0, 255).astype(np.uint8)).save(path, exif=exif)
    return path


def open_photos(page: Page, *photos: Path) -> None:
    page.set_input_files("#files", photos)
    expect(page).to_have_title(re.compile(re.escape(photos[-1].name)))
    expect(page.locator("#save")).to_be_enabled()


def place(page: Page, x: float, y: float) -> tuple[float, float]:
    """A pixel of the photo on the screen."""
    box = page.locator("#base").bounding_box()
    width = page.evaluate("document.querySelector('#base').naturalWidth")
    assert box is not None
    scale = box["width"] / width
    return box["x"] + x * scale, box["y"] + y * scale


def stroke(page: Page, *points: tuple[float, float]) -> None:
    page.mouse.move(*place(page, *points[0]))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*place(page, *point), steps=4)
    page.mouse.up()


def method(page: Page, *names: str) -> None:
    for name in names:
        page.check(f"#methods [value={name}]")
    for other in {"gl", "mean", "telea", "criminisi"} - {*names}:
        page.uncheck(f"#methods [value={other}]")


def run(page: Page) -> None:
    # A quick method can be done before anyone looks: not the bar, its request is awaited.
    with page.expect_response(lambda response: "/api/jobs?" in response.url):
        page.locator("[data-run]:visible").click()
    expect(page.locator("#work")).to_be_hidden(timeout=1000 * SECONDS)


def download(page: Page, action: Callable[[], None]) -> tuple[str, bytes]:
    with page.expect_download() as waiting:
        action()
    return waiting.value.suggested_filename, waiting.value.path().read_bytes()


def mask_of(page: Page) -> np.ndarray:
    """Returns the mask as the page saves it."""
    _, data = download(page, lambda: page.click("#save-mask"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("L")) > 127


def download_from_dialog(page: Page, button: str) -> tuple[str, bytes]:
    page.click("#save-as")
    return download(page, lambda: page.click(button))


def patches(page: Page) -> int:
    return page.locator("#patches img").count()


# --- one photo


def test_paint_erase_undo_run_compare_and_save_as_complete_does(page, photo, tmp_path):
    open_photos(page, photo)
    page.locator("#size").fill("400")
    stroke(page, (60, 60), (120, 80))
    once = mask_of(page)
    assert once[60, 60] and once[70, 90] and not once[120, 200]
    page.keyboard.press("e")
    stroke(page, (90, 40), (90, 100))
    erased = mask_of(page)
    assert not erased[70, 90] and erased[60, 62]
    page.keyboard.press("Control+z")
    assert np.array_equal(mask_of(page), once)
    page.keyboard.press("Control+Shift+z")
    assert np.array_equal(mask_of(page), erased)

    page.keyboard.press("Control+s")
    expect(page.locator("#toasts")).to_contain_text("Nothing is removed yet")
    expect(page.locator("#compare")).to_be_disabled()

    mask = tmp_path / "mask.png"
    Image.fromarray(erased).save(mask)
    run(page)
    assert patches(page) == 1
    assert not mask_of(page).any()
    stage = page.locator("#stage")
    page.mouse.move(*place(page, 100, 100))
    page.keyboard.down("Tab")
    expect(stage).to_have_class(re.compile("original"))
    page.keyboard.up("Tab")
    expect(stage).not_to_have_class(re.compile("original"))
    page.keyboard.press("c")
    assert page.locator("#slider span").all_inner_texts() == ["Before", "After"]
    handle = page.locator("#slider").bounding_box()
    page.mouse.move(handle["x"] + 14, handle["y"] + 200)
    page.mouse.down()
    page.mouse.move(*place(page, 75, 100))
    page.mouse.up()
    clip = page.evaluate("document.querySelector('#patches').style.clipPath")
    assert abs(float(re.findall(r"([\d.]+)px\)", clip)[0]) - 75) < 2

    name, data = download_from_dialog(page, "#download")
    assert name == "photo_completed.jpg"
    batch.run(photo, str(tmp_path / "out.jpg"), batch.Holes(mask=mask), batch.Look())
    assert data == (tmp_path / "out.jpg").read_bytes()
    # Undoing the completion brings the mask back.
    page.keyboard.press("Control+z")
    assert patches(page) == 0
    assert np.array_equal(mask_of(page), erased)


def test_every_tool_marks_what_it_says(page, photo):
    open_photos(page, photo)
    page.keyboard.press("r")
    stroke(page, (20, 30), (60, 50))
    assert abs(int(mask_of(page).sum()) - 40 * 20) < 130
    page.keyboard.press("Delete")
    for name, value in {"x": 10, "y": 20, "width": 30, "height": 5}.items():
        page.fill(f"#rectangle [name={name}]", str(value))
    page.click("#rectangle button")
    expected = np.zeros((200, 300), bool)
    expected[20:25, 10:40] = True
    assert np.array_equal(mask_of(page), expected)
    page.keyboard.press("+")
    assert np.array_equal(mask_of(page), masks.dilated(expected, 4))
    page.keyboard.press("-")
    page.keyboard.press("i")
    assert np.array_equal(mask_of(page), ~ndimage.binary_closing(expected))
    page.click("#clear")
    page.keyboard.press("l")
    stroke(page, (100, 100), (150, 100), (150, 150), (100, 100))
    triangle = mask_of(page)
    assert triangle[110, 140] and not triangle[140, 110]
    page.click("#clear")
    page.keyboard.press("w")
    page.locator("#tolerance").fill("128")
    page.wait_for_timeout(200)
    page.mouse.click(*place(page, 50, 50))
    assert mask_of(page)[50, 50]
    page.click("#clear")
    page.keyboard.press("b")
    page.mouse.click(*place(page, 50, 150))
    page.keyboard.down("Shift")
    page.mouse.click(*place(page, 250, 150))
    page.keyboard.up("Shift")
    assert mask_of(page)[150, 50:250].all()
    page.click("#clear")
    page.keyboard.down("Shift")
    stroke(page, (50, 60), (150, 20), (250, 60))
    page.keyboard.up("Shift")
    straight = mask_of(page)
    assert straight[60, 50:250].all() and not straight[:50].any()


def test_the_arithmetic_of_masks_is_that_of_python(page):
    """In the page's own module: lines, packing, resizing."""
    drawn = page.evaluate(
        """async () => {
            const { Mask } = await import("/mask.js");
            const mask = new Mask(70, 50);
            mask.line(10.3, 8.7, 52.1, 40.2, 6.5, 1);
            const copy = new Mask(70, 50);
            copy.load(mask.packed());
            const small = new Mask(33, 21);
            small.load(mask.packed());
            const { box, bits } = mask.packed();
            return [[...mask.bits], [...copy.bits], [...small.bits], box, [...bits]];
        }"""
    )
    mask, copy, small = (np.array(values, bool) for values in drawn[:3])
    mask = mask.reshape(50, 70)
    y, x = np.mgrid[:50, :70] + 0.5
    start, along = np.array([10.3, 8.7]), np.array([52.1 - 10.3, 40.2 - 8.7])
    share = ((x - start[0]) * along[0] + (y - start[1]) * along[1]) / (along @ along)
    share = np.clip(share, 0, 1)
    distance = np.hypot(
        x - start[0] - share * along[0], y - start[1] - share * along[1]
    )
    assert np.array_equal(mask, distance <= 6.5)
    assert np.array_equal(copy.reshape(50, 70), mask)
    assert np.array_equal(small.reshape(21, 33), masks.resized(mask, (21, 33)))
    left, top, width, height = drawn[3]
    part = mask[top : top + height, left : left + width]
    assert drawn[4] == np.packbits(part).tolist()


def test_masks_are_loaded_and_used_again(page, photo, tmp_path):
    open_photos(page, photo)
    hole = np.zeros((200, 300), bool)
    hole[50:80, 100:140] = True
    Image.fromarray(hole).save(tmp_path / "mask.png")
    page.set_input_files("#mask-file", tmp_path / "mask.png")
    expect(page.locator("#marks canvas")).to_have_count(1)
    assert np.array_equal(mask_of(page), hole)
    method(page, "mean")
    run(page)
    page.keyboard.press("m")
    assert np.array_equal(mask_of(page), hole)


def test_methods_side_by_side(page, photo):
    open_photos(page, photo)
    stroke(page, (100, 100), (110, 100))
    method(page, "mean")
    run(page)
    method(page, "telea")
    run(page)  # nothing is marked: the same hole by another method
    cards = page.locator("#results .cards button")
    expect(cards).to_have_count(2)
    expect(cards.nth(1)).to_have_attribute("aria-pressed", "true")
    assert patches(page) == 1
    page.click("#enlarge")
    page.locator("#side-by-side .cards button").nth(1).click()
    expect(cards.nth(0)).to_have_attribute("aria-pressed", "true")
    names = page.evaluate(
        """async () => {
            const { state } = await import("/state.js");
            const { described } = await import("/panel.js");
            const paths = ["/a/run/best.safetensors", "b/run/best.safetensors", "c/run"];
            state.about.methods.push(...paths.map((name) => ({ name })));
            return paths.map((path) => described(path)[0]);
        }"""
    )
    assert names == ["/a/run/best.safetensors", "b/run/best.safetensors", "run"]


# --- several photos


def test_one_mask_for_all_photos_into_a_zip_and_the_folder(page, photo, site, tmp_path):
    other = saved(tmp_path / "other.jpg", 1, 450, 300)
    open_photos(page, photo, other)
    expect(page.locator("#strip .photo")).to_have_count(2)
    stroke(page, (100, 100), (120, 100))
    method(page, "mean")
    page.click("#run-all button")
    expect(page.locator("#strip .state.done")).to_have_count(2, timeout=1000 * SECONDS)
    _, data = download_from_dialog(page, "#zip")
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        assert packed.namelist() == ["photo.jpg", "other.jpg"]
        zipped = packed.read("other.jpg")
    page.click("#save-as")
    page.click("#all-into-folder")
    expect(page.locator("#toasts")).to_contain_text("other.jpg")
    assert (site.output / "other.jpg").read_bytes() == zipped
    assert (site.output / "photo.jpg").exists()
    page.keyboard.press("PageUp")
    expect(page).to_have_title(re.compile(r"^photo\.jpg"))
    expect(page.locator("#save")).to_be_enabled()
    method(page, "telea")
    run(page)  # the same mask again, which was drawn on a larger photo
    expect(page.locator("#results .cards button")).to_have_count(2)


def noise(path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (600, 800, 3))
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


def test_a_dropped_folder_is_opened_and_cancel_stops_all_its_photos(page, tmp_path):
    (tmp_path / "folder" / "more").mkdir(parents=True)
    (tmp_path / "folder" / "notes.txt").touch()
    for name in ("1.png", "2.png", "more/3.png"):
        noise(tmp_path / "folder" / name)
    client = page.context.new_cdp_session(page)
    dropped = {
        "items": [],
        "files": [str(tmp_path / "folder")],
        "dragOperationsMask": 1,
    }
    for kind in ("dragEnter", "dragOver", "drop"):
        client.send(
            "Input.dispatchDragEvent",
            {"type": kind, "x": 400, "y": 300, "data": dropped},
        )
    photos = page.locator("#strip .photo")
    expect(photos).to_have_count(3)
    expect(page).to_have_title(re.compile(r"^3\.png"))
    expect(page.locator("#save")).to_be_enabled()
    stroke(page, (200, 200), (600, 400))
    method(page, "criminisi")
    page.click("#run-all button")
    expect(page.locator("#work span")).to_have_text("0 of 3 photos")
    expect(page.locator("#strip .state.running")).to_have_count(2)
    photos.nth(1).locator("button").first.click()
    expect(page).to_have_title(re.compile(r"^2\.png"))
    page.click("#work button")
    expect(page.locator("#work")).to_be_hidden(timeout=5000)
    expect(page.locator("#strip .state:not(.marked)")).to_have_count(0)
    page.wait_for_timeout(400)  # until it is kept
    page.reload()
    expect(photos).to_have_count(3)
    expect(photos.nth(1).locator("button").first).to_have_attribute(
        "aria-current", "true"
    )


# --- what happens to a page


def test_a_reload_in_the_middle_goes_on_and_cancel_stops(page, tmp_path):
    open_photos(page, noise(tmp_path / "noise.png"))
    stroke(page, (200, 200), (600, 400))
    before = mask_of(page)
    method(page, "criminisi")
    page.click("#panel [data-run]")
    expect(page.locator("#work span")).to_contain_text("Working")
    page.wait_for_timeout(400)  # until it is kept
    page.reload()
    expect(page.locator("#work span")).to_contain_text("Working")
    page.click("#work button")
    expect(page.locator("#work")).to_be_hidden(timeout=5000)
    assert np.array_equal(mask_of(page), before)


def test_two_tabs_are_independent(page, photo, site):
    open_photos(page, photo)
    stroke(page, (100, 100), (120, 100))
    page.wait_for_timeout(400)
    other = page.context.new_page()
    other.goto(site.url)
    expect(other.locator("#methods input")).to_have_count(4)
    expect(other.locator("#welcome")).to_be_visible()
    expect(other.locator("#banner")).to_be_hidden()
    assert mask_of(page).any()


def test_a_server_that_went_away_and_came_back(page, photo, site):
    open_photos(page, photo)
    stroke(page, (100, 100), (120, 100))
    method(page, "mean")
    run(page)
    stroke(page, (30, 30), (40, 30))
    page.wait_for_timeout(400)

    page.context.set_offline(True)
    page.click("#panel [data-run]")
    expect(page.locator("#banner")).to_contain_text("does not answer")
    page.context.set_offline(False)
    expect(page.locator("#banner")).to_be_hidden()
    run(page)
    assert patches(page) == 2
    page.wait_for_timeout(400)

    # Another program has another token: its page offers what was done in this one.
    site.stop()
    site.start()
    page.keyboard.press("m")
    page.locator("[data-run]:visible").click()
    expect(page.locator("#banner")).to_contain_text("no valid token")
    other = page.context.new_page()
    page.close(run_before_unload=False)
    other.goto(site.url)
    other.click("#banner button >> nth=0")
    expect(other.locator("#save")).to_be_enabled()
    assert patches(other) == 2
    # The new server knows no result: it makes them again from the masks.
    name, data = download_from_dialog(other, "#download")
    assert name == "photo_completed.jpg"
    assert Image.open(io.BytesIO(data)).size == (300, 200)


LINGERING = """
    let release;
    navigator.locks.request(`session-SESSION`, () => new Promise((done) => release = done));
    const query = navigator.locks.query.bind(navigator.locks);
    navigator.locks.query = async () => { const all = await query(); release(); return all; };
"""


def test_work_is_offered_while_the_closed_tab_lets_go(page, photo, site):
    open_photos(page, photo)
    stroke(page, (100, 100), (120, 100))
    page.wait_for_timeout(400)
    session = page.evaluate("sessionStorage.getItem('session')")
    other = page.context.new_page()
    page.close(run_before_unload=False)
    other.add_init_script(LINGERING.replace("SESSION", session))
    other.goto(site.url)
    expect(other.locator("#banner button >> nth=0")).to_have_text("Restore")


def test_a_wrong_token_says_where_the_right_one_stands(page, photo, site):
    page.goto("about:blank")
    page.goto(f"http://127.0.0.1:{site.port}/")
    expect(page.locator("#banner")).to_contain_text(
        "Open the address that gl-jax printed"
    )
    page.set_input_files("#files", photo)
    expect(page.locator("#toasts")).to_be_empty()


def test_unsaved_work_is_asked_about(page, photo):
    asked = list[str]()
    page.on("dialog", lambda dialog: asked.append(dialog.type))
    open_photos(page, photo)
    page.reload()
    assert asked == []
    open_photos(page, photo)
    stroke(page, (100, 100), (120, 100))
    page.reload()
    assert asked == ["beforeunload"]


def test_on_a_phone_a_finger_paints_and_two_zoom(phone, photo):
    open_photos(phone, photo)
    client = phone.context.new_cdp_session(phone)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        fingers = [
            {"x": x, "y": y, "id": i} for i, (x, y) in enumerate(
                place(phone, *point) for point in points
            )
        ]  # fmt: skip
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    touch("touchStart", (100, 100))
    touch("touchMove", (150, 100))
    touch("touchEnd")
    expect(phone.locator("#marks canvas")).to_have_count(1)
    expect(phone.locator("#undo")).to_be_enabled()
    before = phone.locator("#base").bounding_box()["width"]
    touch("touchStart", (100, 100))
    touch("touchStart", (100, 100), (200, 100))
    for step in range(1, 6):
        touch("touchMove", (100 - 6 * step, 100), (200 + 6 * step, 100))
    touch("touchEnd")
    assert phone.locator("#base").bounding_box()["width"] > 1.2 * before
    phone.click("#settings")
    expect(phone.locator("#methods")).to_be_visible()
    widths = phone.evaluate(
        "[document.documentElement.scrollWidth, innerWidth, "
        "document.querySelector('#tools [data-run]').getBoundingClientRect().right]"
    )
    assert widths[0] <= widths[1] and widths[2] <= widths[1]


def test_everything_to_press_has_a_name_and_keys_are_listed(page, photo):
    open_photos(page, photo)
    nameless = page.evaluate(
        """[...document.querySelectorAll("button, input, select, progress, nav, aside, footer")]
            .filter((e) => e.type !== "file" && !e.hidden)
            .filter((e) => !e.textContent.trim() && !e.labels?.length)
            .filter((e) => !e.getAttribute("aria-label"))
            .map((e) => e.outerHTML)"""
    )
    assert nameless == []
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_contain_text("straight stroke")
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()
    page.keyboard.press("2")
    expect(page.locator("#zoom")).to_have_text("200 %")
    before = page.locator("#base").bounding_box()["x"]
    page.keyboard.press("ArrowRight")
    assert page.locator("#base").bounding_box()["x"] == pytest.approx(before - 80)


def test_drop_and_paste_open_photos(page, photo):
    for event in ("drop", "paste"):
        page.evaluate(
            """async ([type, bytes, name]) => {
                const data = new DataTransfer();
                data.items.add(new File([new Uint8Array(bytes)], name));
                const event = type === "drop"
                    ? new DragEvent(type, { dataTransfer: data, bubbles: true })
                    : new ClipboardEvent(type, { clipboardData: data, bubbles: true });
                document.body.dispatchEvent(event);
            }""",
            [event, [*photo.read_bytes()], f"{event}.jpg"],
        )
        expect(page).to_have_title(re.compile(f"^{event}"))
    expect(page.locator("#strip .photo")).to_have_count(2)


def test_the_picture_in_the_readme_shows_the_page_as_it_is(browser, tmp_path):
    script = Path(__file__).parents[2] / "docs" / "page.py"
    subprocess.run([sys.executable, script, tmp_path / "page.webp"], check=True)
    new, old = (
        np.asarray(Image.open(path).resize((90, 55)), np.float32)
        for path in (tmp_path / "page.webp", script.with_name("page.webp"))
    )
    # The times differ, and fonts do between machines.
    assert np.abs(new - old).mean() < 5
