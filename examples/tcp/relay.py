"""Passes connections on to another server, in both directions, no faster than either side takes what comes.

usage: python relay.py HOST:PORT TARGET_HOST:TARGET_PORT
"""

import asyncio
import contextlib
import sys

from trunkline import ConnectionClosed, ConnectionOptions, Reactor, TcpConnection, TcpServer, connect
from trunkline.reactor import run_until_signal
from trunkline.wire import RawFramer

# For so many seconds one direction may go on when the other has ended.
OPTIONS = ConnectionOptions(close_timeout=600.0)


async def pump(source: TcpConnection, target: TcpConnection) -> None:
    """Hands on what comes, then that no more will come."""
    with contextlib.suppress(ConnectionClosed):  # the target is gone
        async for data in source:
            target.send(data)
            # While this waits nothing more is taken from the source: so its peer is held up, and no memory fills.
            await target.drain()
    target.shutdown()


async def main(address: str, target: str) -> None:
    async def relay(near: TcpConnection) -> None:
        if not near.is_open:
            return  # it is down: relay(near) of when it came up does the rest
        try:
            target_host, _, target_port = target.rpartition(":")
            async with connect((target_host, int(target_port)), RawFramer, options=OPTIONS) as far:
                # Each may have to send when its peer has ended its side, so it is not to be closed then.
                near.retain()
                far.retain()
                await asyncio.gather(pump(near, far), pump(far, near))
        except OSError as error:
            print(f"{near.peer} can't be passed on to {target}: {error}", flush=True)
        finally:
            near.close()

    server = TcpServer(Reactor.current(), RawFramer, on_connection=relay, options=OPTIONS)
    host, _, port = address.rpartition(":")
    print("listening on port", await server.listen(host, int(port)), flush=True)
    await server.serve()


if __name__ == "__main__":
    run_until_signal(lambda: main(*sys.argv[1:]))
