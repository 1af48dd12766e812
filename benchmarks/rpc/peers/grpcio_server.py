"""gRPC's asyncio server, with a generic handler: plain bytes, which spares it the cost of Protocol Buffers."""

import asyncio

import grpc
from load import serving


async def echo(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
    return request


async def main():
    server = grpc.aio.server()
    handlers = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("benchmark.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    serving(port)
    await server.wait_for_termination()


asyncio.run(main())
