"""thriftpy2's asyncio client, on uvloop. It has one call under way on a connection."""

from pathlib import Path

import thriftpy2
import uvloop
from load import asked, make_calls
from thriftpy2.contrib.aio.rpc import make_client

echo_thrift = thriftpy2.load(str(Path(__file__).with_name("echo.thrift")), module_name="echo_thrift")


async def main():
    load = asked()
    if load.in_flight > 1:
        raise SystemExit("its client has one call under way on a connection")
    clients = [
        await make_client(echo_thrift.Echo, "127.0.0.1", load.port, timeout=60_000) for _ in range(load.connections)
    ]
    await make_calls(load, [client.echo for client in clients])


uvloop.run(main())
