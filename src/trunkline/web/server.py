"""The HTTP server, on the node's own event loop."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Response
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

import trunkline
from trunkline.app import Node
from trunkline.errors import SettingsError
from trunkline.logs import event
from trunkline.settings import HttpSettings
from trunkline.stats import Stats
from trunkline.tcp import bind
from trunkline.web.api import api_routes
from trunkline.web.body_limit import BodyLimit
from trunkline.web.guard import LoopbackGuard, is_loopback
from trunkline.web.problems import Problem, add_problem_handlers

__all__ = ["HttpServer", "create_app"]

_CONSOLE = Path(__file__).parent / "console"
_GRACE = 2  # seconds that requests in the works have to come to their end
_log = logging.getLogger(__name__)


class _GuardedApp(FastAPI):
    def __init__(self, stats: Stats, requests_limit: int, **options: Any) -> None:
        super().__init__(**options)
        self._stats = stats
        self._requests_limit = requests_limit

    def build_middleware_stack(self) -> ASGIApp:
        # Around all the rest, so that even the answer to a bug of ours carries the security headers.
        return LoopbackGuard(super().build_middleware_stack(), self._stats, self._requests_limit)


def create_app(node: Node) -> FastAPI:
    """The API, the console, metrics and health of one node, as an ASGI application."""
    app = _GuardedApp(
        node.stats,
        node.settings.http.requests_limit,
        title="Trunkline",
        version=trunkline.__version__,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # FastAPI's pages load from a CDN
        redoc_url=None,
        responses={
            status: {"model": Problem, "description": text}
            for status, text in (
                (404, "nothing has that name"),
                (413, "the body is too long"),
                (422, "the request can't be carried out as it is"),
                (429, "too much at once; nothing was accepted"),
                (503, "not available now; nothing was accepted"),
            )
        },
    )
    add_problem_handlers(app, node.stats)
    app.add_middleware(BodyLimit, limit_bytes=node.settings.http.body_limit_bytes, stats=node.stats)
    app.include_router(api_routes(node))

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(node.stats.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/healthz", include_in_schema=False)
    async def health() -> Response:
        return Response("ok\n", media_type="text/plain")

    @app.get("/", include_in_schema=False)
    async def console() -> Response:
        return FileResponse(_CONSOLE / "index.html", headers={"Cache-Control": "no-cache"})

    app.mount("/console", StaticFiles(directory=_CONSOLE))
    return app


class _Uvicorn(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield  # signals are the node's, which stops its parts in order


class HttpServer:
    """Serves a node's HTTP. Reactor's thread.

    Raises:
        SettingsError: the port is in use, or the host is not this machine's own.
    """

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._socket = _bind_loopback(settings)
        self._uvicorn: _Uvicorn | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def start(self, node: Node) -> None:
        """Begins to answer."""
        config = uvicorn.Config(
            create_app(node),
            http="auto",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            # The guard answers 503 at the limit; this is for connections on which nothing is asked.
            limit_concurrency=2 * self._settings.requests_limit,
            timeout_graceful_shutdown=_GRACE,
            backlog=1024,
        )
        self._uvicorn = _Uvicorn(config)
        self._task = node.reactor.spawn(self._uvicorn.serve(sockets=[self._socket]), "http")
        await self._uvicorn.listening.wait()
        event(_log, logging.INFO, "http started", url=self.url)

    async def stop(self) -> None:
        """Accepts no more, lets requests in the works come to their end, and closes."""
        if self._uvicorn is not None and self._task is not None:
            self._uvicorn.should_exit = True
            await asyncio.wait({self._task})
        self._socket.close()


def _bind_loopback(settings: HttpSettings) -> socket.socket:
    sock = bind(settings.host, settings.port, "http")
    if not is_loopback(sock.getsockname()[0]):
        sock.close()
        raise SettingsError(
            f'http.host = "{settings.host}": without a token HTTP is open to this machine only; use "127.0.0.1", '
            "and reach it from elsewhere through an SSH tunnel (ssh -L 7480:127.0.0.1:7480 HOST)"
        )
    return sock
