"""A handler that holds up the loop: whoever is healthy stays connected."""

import asyncio
import socket
import time

from trunkline.reactor import Reactor
from trunkline.tcp import CloseReason, ConnectionOptions, TcpConnection, TcpServer, bind
from trunkline.wire import LineFramer

WAIT = 15.0


def test_a_blocked_handler_costs_no_healthy_peer_its_line() -> None:
    closed: dict[str, str | None] = {}
    names: dict[TcpConnection, str] = {}

    def on_message(connection: TcpConnection, message: bytes) -> None:
        if message == b"block":
            time.sleep(2.0)  # what a handler must not do
        elif message == b"still there?":
            connection.send(b"yes")
        elif message != b"beat":
            names[connection] = message.decode()

    def on_connection(connection: TcpConnection) -> None:
        if connection in names and not connection.is_open:
            closed[names[connection]] = connection.close_reason

    async def main() -> None:
        reactor = Reactor(asyncio.get_running_loop())
        options = ConnectionOptions(idle_timeout=1.0)
        server = TcpServer(reactor, LineFramer, on_message, on_connection=on_connection, options=options)
        await server.start(bind("127.0.0.1", 0, "test"))

        def peers() -> None:
            """A healthy peer, a silent one, and one that has the handler block: in a thread, which nothing blocks."""
            healthy, silent, blocker = (socket.create_connection(("127.0.0.1", server.port)) for _ in range(3))
            healthy.sendall(b"healthy\n")
            silent.sendall(b"silent\n")
            blocker.sendall(b"blocker\n")
            for _ in range(3):
                healthy.sendall(b"beat\n")
                time.sleep(0.1)
            blocker.sendall(b"block\n")
            silent.settimeout(WAIT)
            ends_at = time.monotonic() + WAIT
            while "silent" not in closed and time.monotonic() < ends_at:
                healthy.sendall(b"beat\n")
                time.sleep(0.1)
            assert closed["silent"] == CloseReason.IDLE, "who is silent is found all the same"
            healthy.settimeout(WAIT)
            healthy.sendall(b"still there?\n")
            assert healthy.recv(100) == b"yes\n"
            assert "healthy" not in closed
            for peer in (healthy, silent, blocker):
                peer.close()

        try:
            await asyncio.to_thread(peers)
        finally:
            await server.drain(5.0)

    Reactor.run(main)
