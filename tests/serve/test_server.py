"""The server without a browser: photos, jobs, results, files."""

import io
import re
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from gl_jax.inpainting import batch, completer
from gl_jax.serve import app as endpoints
from gl_jax.serve.app import Server
from gl_jax.serve.methods import Network
from gl_jax.serve.saving import Folder
from gl_jax.serve.store import Store, UnknownError, file_name
from gl_jax.weights import native

RNG = np.random.default_rng(0)


def picture(height: int = 60, width: int = 80) -> Image.Image:
    ramp = np.linspace(0, 255, height * width * 3).reshape(height, width, 3)
    noise = RNG.integers(0, 40, (height, width, 3))
    return Image.fromarray(np.clip(ramp + noise, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def sideways() -> bytes:
    """A JPEG that lies on its side, with a profile and an author."""
    exif = Image.Exif()
    exif[0x0112], exif[0x013B] = 6, "Somebody"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return encoded(picture(), "JPEG", exif=exif, icc_profile=profile, quality=88)


def deep() -> bytes:
    """A grey PNG of 16 bits."""
    values = RNG.integers(0, 65536, (80, 60)).astype(np.uint16)
    return encoded(Image.fromarray(values), "PNG")


def inks() -> bytes:
    return encoded(picture(80, 60).convert("CMYK"), "TIFF")


@pytest.mark.parametrize(
    ("name", "make", "options", "save"),
    [
        ("turned.jpg", sideways, {"feather": 3}, {}),
        ("deep.png", deep, {"blend": "none"}, {}),
        ("inks.tif", inks, {}, {"format": "jpg", "quality": 70}),
    ],
)
def test_a_saved_file_is_to_the_byte_that_of_complete(
    name, make, options, save, tmp_path, model, network, hole_of
):
    photo, mask = tmp_path / name, tmp_path / "mask.png"
    photo.write_bytes(make())
    hole = hole_of(80, 60, 20, 30, 18, 12)
    hole[35, 10:20] = True
    Image.fromarray(hole).save(mask)
    look = batch.Look(**options, **save)
    batch.run(photo, f"{tmp_path}/out/", batch.Holes(mask=mask), look, model=str(model))
    [written] = (tmp_path / "out").iterdir()

    facts = network.upload(photo.read_bytes(), name)
    job = network.complete(facts["id"], hole, **options)
    answer = network.send("GET", f"/api/photos/{job['result']}/file", **save)
    assert answer.body == written.read_bytes()
    assert written.name in answer.headers["content-disposition"]


@pytest.fixture(scope="module")
def model(random_model, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("model") / "small.safetensors"
    native.save(random_model(0.125), file)
    return file


@pytest.fixture(scope="module")
def network(model, connect):
    with connect(Server({"gl": Network(completer.load(str(model)))})) as client:
        yield client


def test_about_names_the_methods_and_what_the_network_was_trained_on(network):
    [ours] = network.send("GET", "/api/about").json["methods"]
    assert ours == {"name": "gl", "kind": "network", "image": 256, "hole": 128}


def test_an_upload_is_turned_upright_and_shown_as_it_is(client):
    data = sideways()
    facts = client.upload(data, "a/b\\turned.jpg")
    assert facts["name"] == "turned.jpg"
    assert (facts["width"], facts["height"]) == (60, 80)
    shown = client.send("GET", f"/api/photos/{facts['id']}/picture")
    assert shown.body == data
    assert shown.headers["content-type"] == "image/jpeg"
    assert client.upload(data, "turned.jpg")["id"] == facts["id"]
    small = client.send("GET", f"/api/photos/{facts['id']}/thumbnail").body
    assert Image.open(io.BytesIO(small)).size == (60, 80)


def test_what_browsers_do_not_show_comes_as_png(client):
    facts = client.upload(inks(), "inks.tif")
    shown = client.send("GET", f"/api/photos/{facts['id']}/picture")
    assert shown.headers["content-type"] == "image/png"
    assert pixels(shown.body).shape == (80, 60, 3)


def test_a_result_differs_from_its_photo_inside_the_box_only(client, hole_of):
    image = picture()
    facts = client.upload(encoded(image, "PNG"), "photo.png")
    hole = hole_of(60, 80, 10, 20, 30, 15)
    hole[20:25, 10:15] = False
    job = client.complete(facts["id"], hole, method="telea")
    assert job["box"] == [10, 20, 30, 15]
    whole = pixels(client.send("GET", f"/api/photos/{job['result']}/picture").body)
    before = np.asarray(image)
    assert (whole == before)[~hole].all()
    assert (whole != before)[hole].any()
    box = ",".join(map(str, job["box"]))
    patch = client.send("GET", f"/api/photos/{job['result']}/patch", box=box)
    assert np.array_equal(pixels(patch.body), whole[20:35, 10:40])
    # And a result can be completed further.
    next_job = client.complete(
        job["result"], hole_of(60, 80, 60, 5, 9, 9), method="mean"
    )
    final = pixels(client.send("GET", f"/api/photos/{next_job['result']}/picture").body)
    assert np.array_equal(final[20:35, 10:40], whole[20:35, 10:40])


def test_a_mask_of_another_photo_is_resized_as_complete_does(client, hole_of):
    facts = client.upload(encoded(picture(120, 160), "PNG"), "large.png")
    job = client.complete(facts["id"], hole_of(60, 80, 10, 20, 30, 15), method="mean")
    assert job["box"] == [20, 40, 60, 30]
    assert job["notices"] == ["the mask is resized from 80x60 to 160x120 pixels."]
    turned = client.start(facts["id"], hole_of(80, 60, 10, 20, 30, 15), method="mean")
    assert "on its side" in client.wait(turned["id"])["error"]


def test_a_masks_file_becomes_bits(client, hole_of):
    hole = hole_of(60, 80, 10, 20, 30, 15)
    answer = client.send("POST", "/api/masks", encoded(Image.fromarray(hole), "PNG"))
    assert answer.headers["x-size"] == "80,60"
    assert answer.body == np.packbits(hole).tobytes()
    refused = client.send("POST", "/api/masks", sideways())
    assert refused.status == 422
    assert "photograph" in refused.json["error"] or "white" in refused.json["error"]


# --- jobs


class Slow:
    """Works until nobody wants it, and takes note of that."""

    def __init__(self) -> None:
        self.begun, self.stopped = threading.Event(), threading.Event()

    def about(self):
        return {"kind": "classical"}

    def __call__(self, photo, hole, look, watch):
        try:
            for window in range(10_000):
                watch.progress(window, 10_000)
                self.begun.set()
                self.stopped.wait(0.005)
        finally:
            self.stopped.set()


@pytest.fixture
def slow(classical, connect):
    method = Slow()
    with connect(Server({"slow": method, **classical})) as client:
        yield method, client


def test_jobs_wait_for_each_other_show_their_progress_and_can_be_cancelled(
    slow, hole_of
):
    method, client = slow
    photo = client.upload(encoded(picture(), "PNG"), "photo.png")["id"]
    hole = hole_of(60, 80, 10, 20, 30, 15)
    first, second, third = (
        client.start(photo, hole, method=name)["id"]
        for name in ("slow", "mean", "mean")
    )
    assert method.begun.wait(10)
    now = client.wait(first, "running")
    assert now["windows"] == 10_000
    assert client.wait(third, "queued")["before"] == 2
    client.send("DELETE", f"/api/jobs/{third}")
    assert client.wait(third)["state"] == "cancelled"
    client.send("DELETE", f"/api/jobs/{first}")
    assert client.wait(first)["state"] == "cancelled"
    assert method.stopped.is_set()
    assert client.wait(second)["state"] == "done"


def test_a_classical_method_is_ended_in_the_middle(client, hole_of):
    noise = RNG.integers(0, 256, (400, 400, 3)).astype(np.uint8)
    photo = client.upload(encoded(Image.fromarray(noise), "PNG"), "noise.png")["id"]
    job = client.start(photo, hole_of(400, 400, 50, 50, 300, 300), method="criminisi")
    client.wait(job["id"], "running")
    client.send("DELETE", f"/api/jobs/{job['id']}")
    assert client.wait(job["id"], seconds=5)["state"] == "cancelled"
    small = hole_of(400, 400, 50, 50, 3, 3)
    assert client.complete(photo, small, method="mean")["box"] == [50, 50, 3, 3]


def test_jobs_of_pages_that_are_gone_are_given_up(slow, monkeypatch, hole_of):
    method, client = slow
    monkeypatch.setattr("gl_jax.serve.jobs.FORGOTTEN_SECONDS", 0.05)
    photo = client.upload(encoded(picture(), "PNG"), "photo.png")["id"]
    client.start(photo, hole_of(60, 80, 10, 20, 30, 15), method="slow")
    assert method.stopped.wait(5)


def test_a_full_queue_is_said(slow, monkeypatch):
    _, client = slow
    monkeypatch.setattr("gl_jax.serve.jobs.LONGEST_QUEUE", 2)
    photo = client.upload(encoded(picture(), "PNG"), "photo.png")["id"]
    query = {"photo": photo, "size": "80,60", "box": "1,1,4,2", "method": "slow"}
    answers = [client.send("POST", "/api/jobs", b"\xff", **query) for _ in range(3)]
    assert [answer.status for answer in answers] == [201, 201, 503]


def test_what_cannot_be_completed_is_said_in_the_job(client):
    photo = client.upload(encoded(picture(), "PNG"), "photo.png")["id"]
    job = client.start(photo, np.ones((60, 80), bool), method="mean")
    assert "covers the whole photo" in client.wait(job["id"])["error"]
    empty = {"photo": photo, "size": "80,60", "box": "0,0,0,0", "method": "mean"}
    job = client.send("POST", "/api/jobs", b"", **empty).json
    assert "nothing is marked" in client.wait(job["id"])["error"]


# --- memory


def test_the_store_keeps_within_its_budget_and_reads_files_again(tmp_path):
    file = tmp_path / "mine.png"
    file.write_bytes(encoded(picture(), "PNG"))
    store = Store(budget=100_000)
    mine = store.add_path(file)
    first = store.add_upload("a.png", encoded(picture(100, 100), "PNG"))
    assert store.get(mine.id).photo is not None
    for number in range(5):
        store.add_upload(f"{number}.png", encoded(picture(100, 100), "PNG"))
        assert store.held() <= store.budget
    with pytest.raises(UnknownError):
        store.get(first.id)
    assert store.get(mine.id).photo is not None


def test_a_lost_result_is_404(classical, connect):
    photo = encoded(picture(), "PNG")
    with connect(Server(classical, store=Store(budget=1))) as client:
        first = client.upload(photo, "a.png")["id"]
        client.upload(photo, "b.png")
        assert client.send("GET", f"/api/photos/{first}").status == 404


# --- results as files


def test_the_folder_for_results_replaces_nothing_but_its_own(
    classical, tmp_path, connect, hole_of
):
    (tmp_path / "photo.png").write_bytes(b"mine")
    with connect(Server(classical, folder=Folder(tmp_path))) as client:
        photo = client.upload(encoded(picture(), "PNG"), "../../photo.png")["id"]
        job = client.complete(photo, hole_of(60, 80, 10, 20, 30, 15), method="mean")
        path = f"/api/photos/{job['result']}/save"
        names = [client.send("POST", path, origin=o).json["name"] for o in "aab"]
        same = client.send("GET", f"/api/photos/{job['result']}/file").body
    assert names == ["photo-2.png", "photo-2.png", "photo-3.png"]
    assert (tmp_path / "photo.png").read_bytes() == b"mine"
    assert (tmp_path / "photo-2.png").read_bytes() == same
    assert len([*tmp_path.iterdir()]) == 3


def test_without_a_folder_nothing_is_saved_on_the_server(client):
    photo = client.upload(encoded(picture(), "PNG"), "photo.png")["id"]
    assert client.send("POST", f"/api/photos/{photo}/save").status == 409


def test_several_results_come_as_one_zip(client):
    ids = [
        client.upload(encoded(picture(), "PNG"), name)["id"]
        for name in ("a.png", "a.png", "b.jpg")
    ]
    answer = client.send("GET", "/api/zip", ids=",".join(ids))
    with zipfile.ZipFile(io.BytesIO(answer.body)) as packed:
        assert packed.testzip() is None
        assert packed.namelist() == ["a.png", "a-2.png", "b.jpg"]
    assert answer.headers["content-length"] == str(len(answer.body))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("C:\\photos\\a.jpg", "a.jpg"), ("../../etc/passwd", "passwd"),
        (".hidden.png", "hidden.png"), ("", "photo"), ("..", "photo"), ("a/", "photo"),
        ("a\0\n\r\x1b[31m.png", "a[31m.png"), ("ä" * 500 + ".png", "ä" * 120 + ".png"),
        ("con<>:\"|?*.png", "con.png"), ("/", "photo"),
    ],
)  # fmt: skip
def test_names_of_uploads_are_names_of_files(given, name):
    assert file_name(given) == name


# --- pages and limits


def test_the_page_comes_without_a_token_and_loads_nothing_from_elsewhere(client):
    answer = client.send("GET", "/", headers={"authorization": ""})
    assert answer.status == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    for path, (content, kind) in endpoints.static_files().items():
        answer = client.send("GET", path)
        assert (answer.body, answer.headers["content-type"]) == (content, kind)
        assert b"https://" not in content, path
        outside = content.replace(b"http://www.w3.org/2000/svg", b"")
        assert b"http://" not in outside, path


def test_all_texts_of_the_page_are_in_its_file_of_strings():
    content, _ = endpoints.static_files()["/"]
    body = content.decode().partition("<body>")[2]
    assert set(re.findall(r">\s*([^<>\s][^<>]*?)\s*<", body)) == {"gl_jax", "?"}
    assert not re.search(r"\b(title|aria-label|placeholder)=", body)


def test_too_long_bodies_are_refused_before_they_are_read(client, monkeypatch):
    monkeypatch.setattr(endpoints, "LARGEST_UPLOAD", 1000)

    declared = {"content-length": "1001"}
    answer = client.send("POST", "/api/photos", [], headers=declared, stall=True)
    assert answer.status == 413
    pieces = [b"x" * 400] * 3
    assert client.send("POST", "/api/photos", pieces).status == 413


def test_slow_and_broken_uploads_end(client, monkeypatch):
    monkeypatch.setattr(endpoints, "PIECE_TIMEOUT", 0.05)
    assert client.send("POST", "/api/photos", [b"x"], stall=True).status == 408
    assert client.send("POST", "/api/photos", [b"x"], break_off=True).status == 400
    assert client.upload(encoded(picture(), "PNG"), "after.png")["width"] == 80


def test_too_many_pixels_are_refused_before_they_are_decoded(client, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    answer = client.send("POST", "/api/photos", encoded(picture(), "PNG"), name="a.png")
    assert answer.status == 422
    assert "more than 1,000 pixels" in answer.json["error"]


def test_options_are_refused_as_on_the_command_line(client):
    photo = client.upload(encoded(picture(), "PNG"), "photo.png")["id"]
    for query in ({"format": "exe"}, {"quality": "0"}, {"quality": "x"}):
        assert client.send("GET", f"/api/photos/{photo}/file", **query).status == 422
