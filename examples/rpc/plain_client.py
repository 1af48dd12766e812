"""A client of Trunkline's RPC on nothing but the standard library, to show how little another language needs.

    python plain_client.py [--stream] HOST PORT METHOD [JSON_ARGUMENT ...]    prints the result, or each item

docs/reference/protocol.md has the frames, docs/reference/rpc.md the messages. One thread; it can't be called back.
"""

import io
import json
import socket
import struct
import sys

HELLO, DATA, PING, PONG, CLOSE = 1, 2, 4, 5, 6
CALL, REPLY, FAILED, CANCEL, ITEM, CREDIT, GOAWAY = 1, 2, 3, 4, 6, 8, 9
LIMIT_BYTES, CREDIT_ITEMS = 1_048_576, 16
CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
FORMS = "BHI---fdBHIQbhiq-----BHIHIHI"  # of the number behind the types from 0xC4 on; the extensions' have none


class CallFailed(Exception):
    """What the server says: a code, a text, and the fields of an error that the method declares, or None."""


PACKERS = {
    type(None): lambda _: b"\xc0",
    bool: lambda value: b"\xc3" if value else b"\xc2",
    int: lambda value: struct.pack(">b", value) if -32 <= value < 128 else struct.pack(">Bq", 0xD3, value),
    float: lambda value: struct.pack(">Bd", 0xCB, value),
    str: lambda value: struct.pack(">BI", 0xDB, len(value.encode())) + value.encode(),
    bytes: lambda value: struct.pack(">BI", 0xC6, len(value)) + value,
    list: lambda value: struct.pack(">BI", 0xDD, len(value)) + b"".join(map(pack, value)),
    dict: lambda value: struct.pack(">BI", 0xDF, len(value)) + b"".join(pack(k) + pack(v) for k, v in value.items()),
}


def pack(value):
    return PACKERS[type(value)](value)


def unpack(take):
    """One value of MessagePack, but for its extension types. `take` returns as many bytes as it is asked for."""
    kind = take(1)[0]
    if kind < 0x80 or kind >= 0xE0:
        return kind if kind < 0x80 else kind - 0x100
    if kind < 0xC0:  # the size is in the byte: a dict, a list or a text
        size = kind & (0x1F if kind >= 0xA0 else 0x0F)
        kind = 0xD9 if kind >= 0xA0 else 0xDC if kind >= 0x90 else 0xDE
    elif kind in CONSTANTS:
        return CONSTANTS[kind]
    else:
        form = ">" + FORMS[kind - 0xC4]
        size = struct.unpack(form, take(struct.calcsize(form)))[0]
    if 0xCA <= kind <= 0xD3:
        return size
    if kind <= 0xDB:
        return take(size) if kind <= 0xC6 else take(size).decode()
    if kind <= 0xDD:
        return [unpack(take) for _ in range(size)]
    return {unpack(take): unpack(take) for _ in range(size)}


class Client:
    """One connection. `start` begins a call, `next_message` waits for it: many can be under way."""

    def __init__(self, host, port, token=None, silence_timeout=30.0):
        with socket.create_connection((host, port), silence_timeout) as connection:
            self.file = connection.makefile("rwb")  # closes the connection when it is closed itself
        self.next_id, self.under_way, self.goaway = 1, {}, None
        hello = {"version": [1, 1], "limit_bytes": LIMIT_BYTES, "agent": "plain client", "auth": token}
        self.say(HELLO, json.dumps(hello).encode())
        self.hear()  # nothing but the server's hello, or its farewell, can come first

    def say(self, kind, payload):
        self.file.write(struct.pack(">IB", len(payload) + 1, kind) + payload)
        self.file.flush()

    def take(self, size):
        data = self.file.read(size)
        if len(data) < size:
            raise ConnectionError("the server has closed the connection")
        return data

    def hear(self):
        """Takes one frame; a message of a call that is under way is put with the call."""
        length, kind = struct.unpack(">IB", self.take(5))
        if not 0 < length <= LIMIT_BYTES + 1:
            raise ConnectionError(f"a frame of {length} bytes")
        payload = self.take(length - 1)
        if kind == PING:
            self.say(PONG, payload)
        elif kind == CLOSE:
            raise ConnectionError(f"the server closes: {payload.decode()}")
        elif kind == DATA:
            message = unpack(io.BytesIO(payload).read)
            if message[0] in (REPLY, FAILED, ITEM) and message[1] in self.under_way:
                self.under_way[message[1]].append(message)
            elif message[0] == CALL:
                self.say(DATA, pack([FAILED, message[1], "not_found", "this client has no methods"]))
            elif message[0] == GOAWAY:
                self.goaway = message[1:]

    def start(self, method, *args, timeout=0.0, credit=0):
        """Begins a call, with seconds for the server to end it, 0 for no end; returns its id."""
        if self.goaway is not None:
            raise CallFailed("goaway", *self.goaway)
        call_id, self.next_id = self.next_id, self.next_id + 2
        self.under_way[call_id] = []
        self.say(DATA, pack([CALL, call_id, method, list(args), int(timeout * 1000), None, credit]))
        return call_id

    def next_message(self, call_id):
        while not self.under_way[call_id]:
            self.hear()
        message = self.under_way[call_id].pop(0)
        if message[0] != ITEM:
            del self.under_way[call_id]
        if message[0] == FAILED:
            raise CallFailed(*message[2:5])
        return message

    def call(self, method, *args, timeout=10.0):
        return self.next_message(self.start(method, *args, timeout=timeout))[2]

    def cancel(self, call_id):
        if self.under_way.pop(call_id, None) is not None:
            self.say(DATA, pack([CANCEL, call_id]))

    def stream(self, method, *args):
        """The items of a call's stream. To leave the loop cancels the call."""
        call_id = self.start(method, *args, credit=CREDIT_ITEMS)
        try:
            while (message := self.next_message(call_id))[0] == ITEM:
                self.say(DATA, pack([CREDIT, call_id, 1]))
                yield message[2]
        finally:
            self.cancel(call_id)


def main():
    host, port, method, *args = [one for one in sys.argv[1:] if one != "--stream"]
    client, args = Client(host, int(port)), [json.loads(one) for one in args]
    for item in client.stream(method, *args) if "--stream" in sys.argv else [client.call(method, *args)]:
        print(item)


if __name__ == "__main__":
    main()
