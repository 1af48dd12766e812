"""Publish and subscribe, by lines: "sub TOPIC", "unsub TOPIC" and "pub TOPIC CONTENT", which goes to all subscribers.

usage: python hub.py serve HOST:PORT
       python hub.py sub HOST:PORT TOPIC...
       python hub.py pub HOST:PORT TOPIC CONTENT
"""

import sys

from trunkline import Reactor, TcpConnection, TcpServer, connect
from trunkline.reactor import run_until_signal
from trunkline.wire import LineFramer, TextCodec

MOST_TOPICS = 100  # of one subscriber


async def serve(host: str, port: int) -> None:
    def on_connection(connection: TcpConnection) -> None:
        connection.context = set()  # the topics of this subscriber

    def on_message(connection: TcpConnection, line: str) -> None:
        verb, _, rest = line.partition(" ")
        topic, _, content = rest.partition(" ")
        if verb == "sub" and topic and len(connection.context) < MOST_TOPICS:
            connection.context.add(topic)
            connection.send(f"subscribed {topic}")
        elif verb == "unsub":
            connection.context.discard(topic)
        elif verb == "pub":
            server.broadcast(f"{topic} {content}", to=lambda one: topic in one.context)
        else:
            connection.send(f"error {line}")

    reactor = Reactor.current()
    server = TcpServer(reactor, LineFramer, on_message, on_connection=on_connection, codec=TextCodec())
    print("listening on port", await server.listen(host, port), flush=True)
    await server.serve()


async def main(verb: str, address: str, *words: str) -> None:
    host, _, port = address.rpartition(":")
    if verb == "serve":
        await serve(host, int(port))
        return
    async with connect((host, int(port)), LineFramer, codec=TextCodec()) as connection:
        for line in [f"sub {topic}" for topic in words] if verb == "sub" else [" ".join(["pub", *words])]:
            connection.send(line)
        if verb == "sub":
            async for line in connection:
                print(line, flush=True)


if __name__ == "__main__":
    run_until_signal(lambda: main(*sys.argv[1:]))
