"""gRPC's asyncio client. Each channel has a connection of its own."""

import asyncio

import grpc
from load import asked, make_calls

# Else all channels to one address would share one connection.
OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


async def main():
    load = asked()
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{load.port}", OPTIONS) for _ in range(load.connections)]
    for channel in channels:
        await channel.channel_ready()
    await make_calls(load, [channel.unary_unary("/benchmark.Echo/Echo") for channel in channels])
    for channel in channels:
        await channel.close()


asyncio.run(main())
