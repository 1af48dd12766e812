"""A chat by lines. Your first line is your name; what you say then, everybody else reads.

usage: python chat.py [HOST:PORT]     then, in other terminals: nc 127.0.0.1 9000
"""

import sys

from trunkline import ConnectionOptions, Reactor, TcpConnection, TcpServer
from trunkline.reactor import run_until_signal
from trunkline.wire import LineFramer, TextCodec

# Who does not say a name within half a minute has to go. Who reads too slowly misses lines, and holds up nobody.
OPTIONS = ConnectionOptions(handshake_timeout=30.0, unsent_limit_bytes=65_536, overflow="drop_oldest")


async def main(address: str = "127.0.0.1:9000") -> None:
    def say(text: str, speaker: TcpConnection) -> None:
        server.broadcast(text, to=lambda one: one.is_established and one is not speaker)

    def on_connection(connection: TcpConnection) -> None:
        if connection.is_open:
            connection.send("Who are you?")
        elif connection.context is not None:
            say(f"{connection.context} has left", connection)

    def on_message(connection: TcpConnection, line: str) -> None:
        if connection.context is not None:
            say(f"{connection.context}: {line}", connection)
        elif not line.isprintable() or not 0 < len(line.strip()) <= 20:
            connection.send("A name has 1 to 20 letters. Who are you?")
        elif line.strip() in [one.context for one in server.connections.values()]:
            connection.send("That one is here already. Who are you?")
        else:
            connection.context = line.strip()
            connection.established()  # in time: the handshake timeout no longer applies
            connection.send(f"Welcome, {connection.context}. {len(server.connections)} are here.")
            say(f"{connection.context} has come", connection)

    server = TcpServer(
        Reactor.current(),
        lambda: LineFramer(limit_bytes=1_000),
        on_message,
        on_connection=on_connection,
        codec=TextCodec(),
        options=OPTIONS,
    )
    host, _, port = address.rpartition(":")
    print("listening on port", await server.listen(host, int(port)), flush=True)
    await server.serve(farewell=lambda connection: connection.send("The chat is closing."))


if __name__ == "__main__":
    run_until_signal(lambda: main(*sys.argv[1:]))
