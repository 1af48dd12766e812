"""``trunkline serve``."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from trunkline.logs import start_logging
from trunkline.reactor import Reactor
from trunkline.settings import Settings, load_settings

__all__ = ["serve"]


def serve(
    config: Annotated[Path | None, typer.Option(help="The settings' file; ./trunkline.toml if it is there.")] = None,
) -> None:
    """Run a node: devices over TCP, the HTTP API and the console. Ctrl-C drains it; a second Ctrl-C ends it at once."""
    settings = load_settings(config)
    start_logging(
        settings.log.level,
        as_json=settings.log.format == "json",
        file=settings.log.file,
        file_bytes=settings.log.file_bytes,
        file_backups=settings.log.file_backups,
    )
    Reactor.run(lambda: _serve(settings))


async def _serve(settings: Settings) -> None:
    # Imported here: the other commands start a second sooner without them.
    from trunkline.app import Node, import_modules
    from trunkline.web import HttpServer

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)  # what was accepted is on disk: ending here loses nothing
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
    import_modules(settings.modules)
    http = HttpServer(settings.http)
    node = Node(settings)
    await node.start()
    await http.start(node)
    devices = f"{settings.devices.host}:{node.gateway.port}"
    print(f"trunkline is ready: devices={devices} http={http.url} data={settings.data.directory}", flush=True)
    await stop.wait()
    await node.quiesce()
    await http.stop()
    await node.stop()
