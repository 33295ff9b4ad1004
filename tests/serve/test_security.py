"""Who may talk to the server, and what no request does to it."""

import gc
import io
import random
import resource

import numpy as np
import pytest
from PIL import Image

from gl_jax.serve.app import Server
from gl_jax.serve.store import Store

ABOUT = "/api/about"
TOKEN = "a-token"
"""The token of the server that `client` talks to."""


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"authorization": ""}, 401),
        ({"authorization": TOKEN}, 401),
        ({"authorization": f"Bearer {TOKEN}x"}, 401),
        ({"authorization": "Bearer \xff"}, 401),
        ({"host": "localhost:1"}, 200),
        ({"host": "[::1]:8439"}, 200),
        ({"host": "127.0.0.2"}, 200),
        ({"host": "evil.example"}, 400),
        ({"host": "127.0.0.1.evil.example:8439"}, 400),
        ({"host": "localhost.evil.example"}, 400),
        ({"host": "192.168.0.7:8439"}, 400),
        ({"host": ""}, 400),
        ({"host": "[::1"}, 400),
        ({"host": "user@localhost:8439"}, 400),
        ({"origin": "http://127.0.0.1:8439"}, 200),
        ({"origin": "http://127.0.0.1:8440"}, 403),
        ({"origin": "http://localhost:8439"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://[::1"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
    ],
)
def test_only_its_own_page_with_the_token_is_answered(client, headers, status):
    answer = client.send("GET", ABOUT, headers=headers)
    assert answer.status == status
    assert "access-control-allow-origin" not in answer.headers


def test_in_a_network_addresses_and_its_own_names_are_hosts(classical, connect):
    with connect(Server(classical), local=False, names={"studio"}) as client:
        for host, status in {
            "192.168.0.7:8439": 200, "studio:8439": 200, "STUDIO": 200,
            "studio.evil.example": 400,
        }.items():  # fmt: skip
            assert client.send("GET", ABOUT, headers={"host": host}).status == status
        without = {"host": "192.168.0.7", "authorization": ""}
        assert client.send("GET", ABOUT, headers=without).status == 401


def test_another_sites_page_may_not_even_ask(client):
    """Without leave a browser sends no `Authorization` to another origin."""
    asking = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    assert client.send("OPTIONS", ABOUT, headers=asking).status == 403


@pytest.mark.parametrize(
    "path",
    ["/../../etc/passwd", "/static/../app.py", "/%2e%2e/app.py", "/app.py", "//etc/passwd",
     "/style.css/", "/\udcff", "/api/photos/../../about", "/api/photos/..%2f..%2fapp"],
)  # fmt: skip
def test_no_path_leads_out_of_the_page(client, path):
    assert client.send("GET", path).status == 404


def test_thousands_of_hostile_requests_end_in_a_status_and_cost_no_memory(
    classical, connect, hole_of
):
    """Truncated, swollen, wrong and strange ones, from a seed; the server lives on."""
    chance = random.Random(39)
    file = io.BytesIO()
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(file, "PNG")
    whole = file.getvalue()
    with connect(Server(classical, store=Store(budget=1 << 20))) as client:
        photo = client.upload(whole, "a.png")["id"]
        done = client.complete(photo, hole_of(40, 50, 5, 5, 9, 9), method="mean")["id"]
        statuses, peak = set[int](), 0
        for number in range(5000):
            request, options = _hostile(chance, whole, photo, done)
            answer = client.send(*request, **options)
            assert answer.status in EXPECTED, answer
            statuses.add(answer.status)
            if number == 1500:
                peak = _memory()
        gc.collect()
        assert _memory() - peak < 40 << 20
        assert client.server.store.held() <= 1 << 20
        assert statuses >= {200, 201, 400, 401, 403, 404, 405, 413, 422}
        assert client.upload(whole, "b.png")["width"] == 50


EXPECTED = {200, 201, 400, 401, 403, 404, 405, 408, 409, 413, 422, 503}


def _memory() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


BOMB = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\1\x86\xa0\0\1\x86\xa0\x08\x02\0\0\0\xb8\x14\xf3\x06"
"""The beginning of a PNG of 100,000 x 100,000 pixels."""


def _hostile(chance: random.Random, whole: bytes, photo: str, job: str):
    some = chance.choice
    strange = ("..", "%00", "\u202e", "x" * 9000, "0" * 32, "-1", "", "a,b", "9" * 40)
    identifier = some([photo, job, *strange])
    path = some([
        "/", "/style.css", ABOUT, "/api/photos", "/api/photos", "/api/masks", "/api/jobs",
        "/api/jobs", "/api/zip", f"/api/jobs/{identifier}",
        *(f"/api/photos/{identifier}{p}" for p in ("", *PARTS)),
    ])  # fmt: skip
    numbers = (
        "1,1,4,4",
        "0,0,50,40",
        "50,40",
        "-1,0,3,3",
        "1,1,999999,999999",
        "7",
        *strange,
    )
    names = (
        "box size photo method blend feather resize_to quality format ids name".split()
    )
    query = {
        name: some([photo, job, "mean", "telea", "none", "png", "jpg", *numbers])
        for name in chance.sample(names, chance.randrange(5))
    }
    if path == "/api/jobs" and chance.random() < 0.5:
        query |= {"photo": photo, "size": "50,40", "box": "1,1,4,4", "method": "mean"}
    cut, flip = chance.randrange(len(whole)), bytearray(whole)
    flip[cut] ^= 1 << chance.randrange(8)
    body = some([
        b"", b"ab", whole, whole[:cut], bytes(flip), BOMB, chance.randbytes(300),
        [whole[:cut], whole[cut:]], [b""] * 50, [b"\0" * 70_000] * 3,
    ])  # fmt: skip
    headers = some([
        *[{}] * 12, {"authorization": some(strange).encode().decode("latin-1")},
        {"host": some(["evil.example", "[", "127.0.0.1:x"])}, {"origin": "null"},
        {"content-length": some(["-1", "1e9", "99999999999", "\xb2", "0"])},
    ])  # fmt: skip
    verb = some(
        ["GET"] * 5 + ["POST"] * 7 + ["DELETE", "PUT", "HEAD", "OPTIONS", "BREW"]
    )
    return (verb, path, body), {
        "headers": headers, "break_off": chance.random() < 0.05, **query,
    }  # fmt: skip


PARTS = ("/picture", "/thumbnail", "/patch", "/file", "/save", "/nothing")
