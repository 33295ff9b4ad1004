"""Access checks of every request, before its body is read.

A page of another site in the same browser can send requests to this server. It does not
know the token, cannot set `Authorization` without a CORS permission, which is never
given, and is named in `Origin`. If its name resolves to this machine (DNS rebinding),
the name is in `Host`.
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
"""Headers of every response: forbid other origins, frames and caching."""


def new_token() -> str:
    """Returns a random token of 192 bits."""
    return secrets.token_urlsafe(24)


def is_local(host: str) -> bool:
    """Returns whether an address to listen on is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def own_names() -> frozenset[str]:
    """Returns the names of this machine in its network, in lower case."""
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
        """Passes requests with the token on to `app`.

        With `local`, `Host` must be localhost or a loopback address; otherwise it may be
        any IP address, which DNS cannot rebind, or one of `names`.
        """
        self._app, self._token = app, token.encode()
        self._local, self._names = local, {"localhost", *names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, by the ASGI protocol."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = self._refusal(Headers(scope=scope), str(scope["path"]))
        app: ASGIApp = self._app
        if refusal is not None:
            status, error = refusal
            # Closes the connection, because the body is not read.
            app = JSONResponse({"error": error}, status, {"Connection": "close"})
        await app(scope, receive, send_with_headers)

    def _refusal(self, headers: Headers, path: str) -> tuple[int, str] | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_own(hosts[0]):
            return 400, "Host is not a name of this server."
        for origin in headers.getlist("origin"):
            if host_of(origin) != hosts[0].lower():
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

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            address = ipaddress.ip_address(name)
        except ValueError:
            return host.rpartition(":")[0].lower() in self._names or (
                host.lower() in self._names
            )
        return address.is_loopback or not self._local


def host_of(origin: str) -> str | None:
    """Returns the host and port of an HTTP origin; None for any other text."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parts.netloc.lower() if parts.scheme in ("http", "https") else None
