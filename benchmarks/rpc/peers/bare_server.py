"""The least that one can write by hand: a uvloop protocol, a length before each message, MessagePack by msgspec."""

import asyncio
import struct

import msgspec
import uvloop
from load import serving

LENGTH = struct.Struct(">I")


class Call(msgspec.Struct, array_like=True, gc=False):
    id: int
    method: str
    args: msgspec.Raw


decode_call = msgspec.msgpack.Decoder(Call).decode
decode_args = msgspec.msgpack.Decoder(tuple[bytes]).decode
encode = msgspec.msgpack.Encoder().encode


def echo(data: bytes) -> bytes:
    return data


METHODS = {"echo": (decode_args, echo)}


class Server(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.rest = b""

    def data_received(self, data):
        if self.rest:
            data = self.rest + data
        out = []
        at, size = 0, len(data)
        while size - at >= 4:
            end = at + 4 + LENGTH.unpack_from(data, at)[0]
            if end > size:
                break
            call = decode_call(data[at + 4 : end])
            decode, method = METHODS[call.method]
            reply = encode((call.id, method(*decode(call.args))))
            out.append(LENGTH.pack(len(reply)))
            out.append(reply)
            at = end
        self.rest = data[at:] if at < size else b""
        if out:
            self.transport.write(b"".join(out))


async def main():
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=1024)
    serving(server.sockets[0].getsockname()[1])
    await server.serve_forever()


uvloop.run(main())
