"""`gl-jax serve`: checks the options, listens, opens the browser, shuts down."""

import asyncio
import os
import socket
import sys
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from gl_jax import images
from gl_jax.config import UsageError, did_you_mean
from gl_jax.evaluation.baselines import BASELINES
from gl_jax.files import reason
from gl_jax.inpainting import pairs
from gl_jax.serve import security
from gl_jax.serve.app import Server
from gl_jax.serve.baseline import Process
from gl_jax.serve.methods import Classical, Method, Methods, Network
from gl_jax.serve.saving import Folder

OURS = "gl"
"""Name of the method that is the network."""
CONNECTIONS = 100
"""Largest number of open connections; further ones are refused with 503."""


def run(
    photos: Sequence[Path],
    *,
    model: str | None = None,
    methods: Sequence[str] = (),
    host: str = "127.0.0.1",
    port: int = 8439,
    output: Path | None = None,
    browser: bool = True,
    max_pixels: int | None = None,
    log: Callable[[str], None] = print,
) -> None:
    """Serves the page until Ctrl-C; raises UsageError for wrong options.

    The parameters are the options of `gl-jax serve`; `log` prints a line.
    """
    if max_pixels is not None:
        if max_pixels < 1:
            raise UsageError(f"max_pixels (={max_pixels}) must be at least 1.")
        images.allow_pixels(max_pixels)
    files = tuple(file for photo in photos for file in _files(photo, log))
    folder = None if output is None else Folder(output)
    listening = _listening(host, port)
    with listening:
        process = Process()
        offered = _methods(model, methods, process)
        server = Server(offered, photos=files, folder=folder)
        token = security.new_token()
        local = security.is_local(host)
        names = () if local else security.own_names()
        guard = security.Guard(server.app(), token, local=local, names=names)
        address = _address(listening)
        url = f"http://{address}/#token={token}"
        log(f"gl_jax is ready: {url}")
        if local:
            log("Only this machine can open it. Stop with Ctrl-C.")
        else:
            log(
                f"Every machine that reaches {host} can open the page with this address, "
                "which contains the token. Nothing is encrypted: use it in a network that "
                "you trust. Stop with Ctrl-C."
            )
        if browser:
            _open(url, log)
        sys.stdout.flush()
        _Uvicorn(
            uvicorn.Config(
                guard, lifespan="off", ws="none", http=ImpatientProtocol, log_level="error",
                access_log=False, server_header=False, limit_concurrency=CONNECTIONS,
                timeout_keep_alive=15, timeout_graceful_shutdown=1,
            )
        ).run(sockets=[listening])  # fmt: skip
    process.close()
    log("ended.")
    if server.jobs.cancel_all():
        # The job's thread is inside an XLA program, for which Python's exit would wait.
        sys.stdout.flush()
        os._exit(0)


class ImpatientProtocol(H11Protocol):
    """Closes connections that do not send a request's headers in time."""

    seconds = 20.0
    """Seconds from the first bytes of a request to the end of its headers."""
    _end: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Handles data from the client, and starts or stops the timer."""
        super().data_received(data)
        waits = self.cycle is None or self.cycle.response_complete
        if not waits and self._end is not None:
            self._end.cancel()
            self._end = None
        elif waits and self._end is None:
            self._end = self.loop.call_later(self.seconds, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the timer of a closed connection."""
        if self._end is not None:
            self._end.cancel()
        super().connection_lost(exc)


class _Uvicorn(uvicorn.Server):
    """Ends with the first Ctrl-C, even with open connections."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.should_exit = self.force_exit = True


def _files(photo: Path, log: Callable[[str], None]) -> list[Path]:
    """Returns the photo, or the photos of a folder."""
    if photo.is_dir():
        paths, left_out = pairs.pictures(photo)
        if left_out is not None:
            log(left_out)
        if not paths:
            raise UsageError(f"folder {photo} has no readable photographs.")
        return [photo / path for path in paths]
    images.read(photo)  # refuses an unreadable photo here, not in the browser
    return [photo]


def _methods(model: str | None, names: Sequence[str], process: Process) -> Methods:
    """Returns the model, then the named methods: other models, and classical ones.

    Without names they are the other shipped models and all classical methods.
    """
    wanted = [name for word in names for name in word.split(",") if name]
    others = [name for name in wanted if name not in BASELINES and name != OURS]
    from gl_jax.weights import native

    shipped = native.shipped()
    for name in others:
        if not Path(name).exists() and name not in shipped:
            near = did_you_mean(name, (*shipped, *BASELINES))
            raise UsageError(
                f"method {name!r} is neither a model's file nor one of "
                f"{', '.join((*shipped, *BASELINES))}.{near}"
            )
    from gl_jax import compilation
    from gl_jax.inpainting import completer, loading

    compilation.use_compilation_cache()
    methods: dict[str, Method] = {OURS: Network(completer.load(model))}
    further = () if model else (n for n in shipped if n != loading.DEFAULT_MODEL)
    for name in wanted or (*further, *BASELINES):
        if name in BASELINES:
            methods[name] = Classical(name, process)
        elif name != OURS:
            methods[name] = Network(completer.load(name))
    return methods


def _listening(host: str, port: int) -> socket.socket:
    """Returns a listening socket; raises UsageError if the address is not available."""
    if not 0 <= port <= 65535:
        raise UsageError(f"port (={port}) must be from 0 to 65535.")
    try:
        family, *_, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise UsageError(
            f"host {host!r} is not an address of this machine: {reason(error)}."
        ) from error
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(place)
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise UsageError(
            f"port {port} of {host} is not available: {reason(error)}; choose another "
            "one, or --port 0 for any free port."
        ) from error
    return listening


def _address(listening: socket.socket) -> str:
    """Returns HOST:PORT for a browser; 0.0.0.0 and :: become the network address."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = _network_address()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _network_address() -> str:
    """Returns the IPv4 address of this machine in its network, else its name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Sends nothing, but selects the network interface; 192.0.2.1 is an example
            # address of RFC 5737.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return socket.gethostname()
        return str(probe.getsockname()[0])


def _open(url: str, log: Callable[[str], None]) -> None:
    """Opens the address in a graphical browser, if there is one."""
    headless = sys.platform.startswith("linux") and not any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
    if headless or not webbrowser.open(url):
        log("No browser could be opened: open the address yourself.")
