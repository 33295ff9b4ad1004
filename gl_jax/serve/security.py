"""Access to the server, checked for every request before its body is read.

A page of another site that is open in the same browser can send requests here, too. It
does not know the token, cannot set `Authorization` without leave, which nothing here
gives, and names itself in `Origin`. A name that it lets point here (DNS rebinding)
stands in `Host`.
"""

import ipaddress
import secrets
import socket
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""Headers of every response: no other origins, no frames, no caching."""


def new_token() -> str:
    """Returns a token that nobody can guess."""
    return secrets.token_urlsafe(24)


def is_local(host: str) -> bool:
    """Returns whether an address is reachable from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def own_names() -> frozenset[str]:
    """The names that this machine has in a network."""
    name = socket.gethostname().lower()
    return frozenset({name, name.partition(".")[0], f"{name.partition('.')[0]}.local"})


class Guard:
    """Refuses requests with a wrong host, origin or token, and adds `HEADERS`."""

    def __init__(
        self,
        app: ASGIApp,
        token: str,
        *,
        local: bool = True,
        names: Collection[str] = (),
    ) -> None:
        """Lets requests with the token through to `app`.

        `local` servers are called localhost or by a loopback address; others by any
        address, which cannot be rebound, or by one of `names`.
        """
        self._app, self._token = app, token.encode()
        self._local, self._names = local, {"localhost", *names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, as ASGI has it."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        refused = self._refusal(Headers(scope=scope), str(scope["path"]))
        app: ASGIApp = self._app
        if refused is not None:
            status, error = refused
            # The connection ends, so that a body which nobody reads is not waited for.
            app = JSONResponse({"error": error}, status, {"Connection": "close"})
        await app(scope, receive, send_with_headers)

    def _refusal(self, headers: Headers, path: str) -> tuple[int, str] | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._knows(hosts[0]):
            return 400, "this server is not known by that name (Host)."
        for origin in headers.getlist("origin"):
            if urlsplit_netloc(origin) != hosts[0].lower():
                return 403, "pages of other origins may not call this server."
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return 403, "pages of other sites may not call this server."
        if path.startswith("/api/"):
            given = headers.get("authorization", "")
            scheme, _, token = given.partition(" ")
            same = secrets.compare_digest(token.encode(), self._token)
            if scheme.lower() != "bearer" or not same:
                return 401, "the token is missing or wrong: open the printed address."
        return None

    def _knows(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            address = ipaddress.ip_address(name)
        except ValueError:
            return host.rpartition(":")[0].lower() in self._names or (
                host.lower() in self._names
            )
        return address.is_loopback or not self._local


def urlsplit_netloc(origin: str) -> str | None:
    """The host and port of an origin of HTTP; None for any other text."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parts.netloc.lower() if parts.scheme in ("http", "https") else None
