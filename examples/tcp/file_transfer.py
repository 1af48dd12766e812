"""Sends a file in pieces, each when the last one is taken: its size, then the pieces, then their SHA-256.

usage: python file_transfer.py serve HOST:PORT FILE
       python file_transfer.py get HOST:PORT FILE
"""

import asyncio
import contextlib
import hashlib
import os
import sys
from pathlib import Path

from trunkline import ConnectionClosed, Reactor, TcpConnection, TcpServer, connect
from trunkline.reactor import run_until_signal
from trunkline.wire import LengthFramer

PIECE_BYTES = 65_536


async def serve(host: str, port: int, path: Path) -> None:
    async def send_file(connection: TcpConnection) -> None:
        with contextlib.suppress(ConnectionClosed), path.open("rb") as file:  # the peer may go before the end
            digest = hashlib.sha256()
            connection.send(str(os.fstat(file.fileno()).st_size).encode())
            while piece := await asyncio.to_thread(file.read, PIECE_BYTES):  # a disk may take its time
                digest.update(piece)
                connection.send(piece)
                await connection.drain()
            connection.send(digest.digest())
            connection.close()

    server = TcpServer(Reactor.current(), LengthFramer, on_connection=send_file)
    print("listening on port", await server.listen(host, port), flush=True)
    await server.serve()


async def get(host: str, port: int, path: Path) -> None:
    part, digest = path.with_name(path.name + ".part"), hashlib.sha256()
    async with connect((host, port), LengthFramer) as connection:
        size = rest = int(await connection.receive())
        with part.open("wb") as file:
            while rest > 0:
                piece = await connection.receive()
                rest -= file.write(piece)
                digest.update(piece)
        if rest or await connection.receive() != digest.digest():
            sys.exit(f"{part} is not what was sent")
    part.replace(path)
    print(f"{size} bytes, SHA-256 {digest.hexdigest()}")


if __name__ == "__main__":
    task = {"serve": serve, "get": get}[sys.argv[1]]
    host, _, port = sys.argv[2].rpartition(":")
    run_until_signal(lambda: task(host, int(port), Path(sys.argv[3])))
