"""The bound of request bodies."""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trunkline.stats import Stats
from trunkline.web.problems import problem, refused

__all__ = ["BodyLimit"]


class BodyLimit:
    """ASGI middleware: refuses a body that says it is too long, and stops reading one that turns out to be.

    FastAPI has such a limit too, but answers in plain text, past the exception handlers.
    """

    def __init__(self, app: ASGIApp, limit_bytes: int, stats: Stats) -> None:
        self._app = app
        self._limit_bytes = limit_bytes
        self._stats = stats

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        detail = f"the body has more than {self._limit_bytes} bytes (http.body_limit_bytes)"
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length) > self._limit_bytes:
            refused(self._stats, 413, scope["method"], scope["path"], detail)
            await problem(413, "Too large", detail, "send it in several requests")(scope, receive, send)
            return
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit_bytes:
                raise HTTPException(413, detail)
            return message

        await self._app(scope, receive_limited, send)
