"""Keeps pages from elsewhere away from a node that asks for no token.

While HTTP is open to all that runs on this machine, a browser here is part of that, and so is every page in
it. Two headers tell its requests apart, and no page can forge them: Host names where the browser believes
itself to be (so that a name which an attacker has pointed at 127.0.0.1 is seen through), and Origin names the
page that asks.
"""

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trunkline.stats import Stats
from trunkline.web.problems import problem, refused

__all__ = ["LoopbackGuard", "is_loopback"]

_SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def is_loopback(host: str) -> bool:
    """Whether a host name or address stands for this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class LoopbackGuard:
    """ASGI middleware: refuses what comes for other hosts, from other origins or beyond a limit; adds security headers.

    Args:
        requests_limit: requests in the works at once.
    """

    def __init__(self, app: ASGIApp, stats: Stats, requests_limit: int) -> None:
        self._app = app
        self._stats = stats
        self._requests_limit = requests_limit
        self._in_the_works = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_SECURITY_HEADERS)
            await send(message)

        refusal = _refusal(Headers(scope=scope))
        if refusal is not None:
            refused(self._stats, 403, scope["method"], scope["path"], refusal)
            response = problem(403, "Refused", refusal, "use http://127.0.0.1 or http://localhost on this machine")
            await response(scope, receive, send_secured)
            return
        if self._in_the_works >= self._requests_limit:
            text = f"{self._requests_limit} requests are in the works (http.requests_limit)"
            refused(self._stats, 503, scope["method"], scope["path"], text)
            response = problem(503, "Too many requests at once", text, "try again in a second", {"Retry-After": "1"})
            await response(scope, receive, send_secured)
            return
        self._in_the_works += 1
        try:
            await self._app(scope, receive, send_secured)
        finally:
            self._in_the_works -= 1


def _refusal(headers: Headers) -> str | None:
    host = headers.get("host", "")
    if not is_loopback(_host_of(f"//{host}")):
        return "the Host header names another machine; without a token, this node answers to its own only"
    origin = headers.get("origin")
    if origin is not None and (_host_of(origin) == "" or urlsplit(origin).netloc.lower() != host.lower()):
        return "the Origin header names another site; without a token, this node answers to its own pages only"
    if origin is None and headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        mode = headers.get("sec-fetch-mode")
        if mode != "navigate":
            return (
                "the request comes from another site's page; without a token, this node answers to its own pages only"
            )
    return None


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
