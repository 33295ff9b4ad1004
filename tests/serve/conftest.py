"""A server in this process, and requests to it that need no network."""

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest

from gl_jax.serve.app import Server
from gl_jax.serve.baseline import Process
from gl_jax.serve.methods import Classical, Methods
from gl_jax.serve.security import Guard

TOKEN = "a-token"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Sends requests into an ASGI application, also such as no browser would send."""

    def __init__(self, server: Server, **guard: Any) -> None:
        self.server = server
        self._app = Guard(server.app(), TOKEN, **guard)
        self._runner = asyncio.Runner()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.server.jobs.cancel_all()
        self._runner.close()

    def send(
        self,
        verb: str,
        path: str,
        body: bytes | Iterable[bytes] = b"",
        /,
        *,
        headers: dict[str, str] | None = None,
        break_off: bool = False,
        stall: bool = False,
        **query: object,
    ) -> Answer:
        """The answer; a body that is no bytes comes in pieces, without its length."""
        pieces = [body] if isinstance(body, bytes) else [*body]
        given = {"host": "127.0.0.1:8439", "authorization": f"Bearer {TOKEN}"}
        if isinstance(body, bytes):
            given["content-length"] = str(len(body))
        given |= headers or {}
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1",
            "method": verb, "scheme": "http", "path": path,
            "raw_path": path.encode(errors="surrogateescape"),
            "query_string": urlencode(query).encode(), "root_path": "",
            "headers": [(k.encode("latin-1"), v.encode("latin-1")) for k, v in given.items()],
            "client": ("127.0.0.1", 50000), "server": ("127.0.0.1", 8439),
        }  # fmt: skip
        return self._runner.run(self._talk(scope, pieces, break_off, stall))

    async def _talk(
        self, scope: dict[str, Any], pieces: list[bytes], break_off: bool, stall: bool
    ) -> Answer:
        answer = Answer(0, {}, b"")
        waiting = pieces[::-1]
        gone = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if waiting:
                piece = waiting.pop()
                more = bool(waiting) or break_off or stall
                return {"type": "http.request", "body": piece, "more_body": more}
            if not break_off:
                await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal answer
            if message["type"] == "http.response.start":
                headers = {k.decode(): v.decode() for k, v in message["headers"]}
                answer = Answer(message["status"], headers, b"")
            else:
                body = answer.body + message.get("body", b"")
                answer = Answer(answer.status, answer.headers, body)

        await self._app(scope, receive, send)
        return answer

    # --- what the page does

    def upload(self, data: bytes, name: str) -> dict[str, Any]:
        answer = self.send("POST", "/api/photos", data, name=name)
        assert answer.status == 201, answer.body
        facts: dict[str, Any] = answer.json
        return facts

    def start(self, photo: str, hole: np.ndarray, **query: object) -> dict[str, Any]:
        rows, columns = np.nonzero(hole)
        y, x = rows.min(), columns.min()
        h, w = rows.max() + 1 - y, columns.max() + 1 - x
        bits = np.packbits(hole[y : y + h, x : x + w]).tobytes()
        size = f"{hole.shape[1]},{hole.shape[0]}"
        answer = self.send(
            "POST",
            "/api/jobs",
            bits,
            photo=photo,
            size=size,
            box=f"{x},{y},{w},{h}",
            **query,
        )
        assert answer.status == 201, answer.body
        job: dict[str, Any] = answer.json
        return job

    def wait(self, job: str, *until: str, seconds: float = 60) -> dict[str, Any]:
        """The job in one of these states, by default once it has ended."""
        wanted = until or ("done", "failed", "cancelled")
        deadline = time.monotonic() + seconds
        while True:
            now: dict[str, Any] = self.send("GET", f"/api/jobs/{job}").json
            if now["state"] in wanted:
                return now
            assert time.monotonic() < deadline, now
            time.sleep(0.01)

    def complete(self, photo: str, hole: np.ndarray, **query: object) -> dict[str, Any]:
        job = self.wait(self.start(photo, hole, **query)["id"])
        assert job["state"] == "done", job
        return job


@pytest.fixture(scope="module")
def classical() -> Iterator[Methods]:
    """Two quick methods and a slow one, in one process."""
    process = Process()
    names = ("mean", "telea", "criminisi")
    yield {name: Classical(name, process) for name in names}
    process.close()


@pytest.fixture
def client(classical) -> Iterator[Client]:
    with Client(Server(classical)) as client:
        yield client


@pytest.fixture(scope="session")
def connect() -> type[Client]:
    """Makes the client of a server: a context."""
    return Client


@pytest.fixture(scope="session")
def hole_of() -> Callable[..., np.ndarray]:
    """Makes a hole from the height, the width, and x, y, width and height of the missing."""

    def make(height: int, width: int, *rectangle: int) -> np.ndarray:
        x, y, w, h = rectangle
        hole = np.zeros((height, width), bool)
        hole[y : y + h, x : x + w] = True
        return hole

    return make
