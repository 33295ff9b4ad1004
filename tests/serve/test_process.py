"""The command: what it refuses, and how it begins and ends."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import uvicorn
from PIL import Image

from gl_jax import cli
from gl_jax.serve import server


def refusal(capsys, *words: str) -> str:
    """The one line with which the words are refused."""
    assert cli.main(["serve", "--no-browser", *words]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    return printed.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nothing.jpg"], "nothing.jpg does not exist"),
        (["--port", "70000"], "port (=70000) must be from 0 to 65535"),
        (["--host", "no.such.host.invalid"], "is not an address of this machine"),
        (
            ["--host", "192.0.2.1", "--port", "0"],
            "port 0 of 192.0.2.1 is not available",
        ),
        (["--methods", "telae"], "Did you mean 'telea'?"),
        (["--max-pixels", "0"], "max_pixels (=0) must be at least 1"),
        (["--port", "0", "--model", "nothing"], "model 'nothing' is not a file"),
        (["--output", "/dev/null/x"], "/dev/null/x cannot be written"),
        (["--output", __file__], "is a file; name a folder"),
    ],
)
def test_a_wrong_call_is_refused_in_one_line(words, expected, capsys):
    assert expected in refusal(capsys, *words)


def test_a_port_that_is_taken_is_refused(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port} of 127.0.0.1 is not available" in refusal(
            capsys, "--port", port
        )


def test_without_the_extra_it_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "gl_jax.serve.server")
    monkeypatch.delattr("gl_jax.serve.server")
    assert "pip install 'gl-jax[serve]'" in refusal(capsys)


def test_without_a_display_the_address_is_all(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    lines: list[str] = []
    server._open("http://127.0.0.1:1/", lines.append)
    assert lines == ["No browser could be opened: open the address yourself."]


def test_a_request_that_never_comes_to_its_end_is_given_up(monkeypatch):
    """More of them than there are connections would lock everybody else out."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    monkeypatch.setattr(server.ImpatientProtocol, "seconds", 0.3)
    config = uvicorn.Config(
        app, http=server.ImpatientProtocol, lifespan="off", ws="none"
    )
    program = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=program.run, args=([listening],))
        thread.start()
        whole = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        for start in (b"", whole):
            with socket.create_connection(listening.getsockname(), timeout=10) as slow:
                slow.sendall(start + b"GET / HTTP/1.1\r\nHo")
                answer = b"".join(iter(lambda: slow.recv(4096), b""))
                assert answer.count(b" 204 ") == len(start) // len(whole)
        program.should_exit = True
        thread.join()


@pytest.mark.slow
def test_ctrl_c_ends_it_at_once_in_the_middle_of_a_job(tmp_path):
    photo = tmp_path / "noise.png"
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3))
    Image.fromarray(noise.astype(np.uint8)).save(photo)
    command = [sys.executable, "-u", "-m", "gl_jax", "serve", str(photo), "--port", "0"]
    with subprocess.Popen(
        [*command, "--no-browser"], stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        first = program.stdout.readline()
        port, token = re.findall(r"http://127\.0\.0\.1:(\d+)/#token=(\S+)", first)[0]
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)
        headers = {"Authorization": f"Bearer {token}"}

        def ask(verb: str, path: str, body: bytes | None = None) -> dict:
            connection.request(verb, path, body, headers)
            return json.loads(connection.getresponse().read())

        about = ask("GET", "/api/about")
        names = [method["name"] for method in about["methods"]]
        assert names[0] == "gl" and {"demo-sharp", "telea", "criminisi"} <= {*names}
        [shown] = about["photos"]
        where = "size=800,600&box=100,100,640,400"
        bits = b"\xff" * (640 * 400 // 8)
        path = f"/api/jobs?photo={shown['id']}&method=gl&resize_to=0&{where}"
        job = ask("POST", path, bits)
        while ask("GET", f"/api/jobs/{job['id']}")["state"] != "running":
            time.sleep(0.02)
        start = time.monotonic()
        program.send_signal(signal.SIGINT)
        assert program.wait(20) == 0
        assert time.monotonic() - start < 4
        assert program.stdout.read().endswith("ended.\n")
        connection.close()
