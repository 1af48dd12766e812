"""The hand-written client: one future for each call, one write for all calls of one turn of the loop."""

import asyncio
import struct

import msgspec
import uvloop
from load import asked, make_calls

LENGTH = struct.Struct(">I")
decode_reply = msgspec.msgpack.Decoder(tuple[int, bytes]).decode
encode = msgspec.msgpack.Encoder().encode


class Client(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.loop = asyncio.get_running_loop()
        self.rest = b""
        self.out = []
        self.next_id = 0
        self.waiting = {}

    def echo(self, data):
        call_id = self.next_id = self.next_id + 1
        future = self.waiting[call_id] = self.loop.create_future()
        call = encode((call_id, "echo", (data,)))
        if not self.out:
            self.loop.call_soon(self.flush)
        self.out.append(LENGTH.pack(len(call)))
        self.out.append(call)
        return future

    def flush(self):
        self.transport.write(b"".join(self.out))
        self.out.clear()

    def data_received(self, data):
        if self.rest:
            data = self.rest + data
        at, size = 0, len(data)
        while size - at >= 4:
            end = at + 4 + LENGTH.unpack_from(data, at)[0]
            if end > size:
                break
            call_id, result = decode_reply(data[at + 4 : end])
            self.waiting.pop(call_id).set_result(result)
            at = end
        self.rest = data[at:] if at < size else b""


async def main():
    load = asked()
    loop = asyncio.get_running_loop()
    clients = [(await loop.create_connection(Client, "127.0.0.1", load.port))[1] for _ in range(load.connections)]
    await make_calls(load, [client.echo for client in clients])


uvloop.run(main())
