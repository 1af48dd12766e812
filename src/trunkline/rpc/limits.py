"""The bounds of calls."""

import msgspec

from trunkline.tcp import ConnectionOptions

__all__ = ["RpcLimits", "client_options", "server_options"]


class RpcLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of a server's or client's calls. All have defaults that are safe to leave on.

    Plain functions run where they are called and end at once: only `message_bytes` bounds them.
    """

    message_bytes: int = 1_048_576
    """The longest message that this side takes: a call with its arguments, a result, an item of a stream."""
    connection_limit: int = 1_024
    """Calls of one peer that this side runs or keeps waiting at once."""
    connection_bytes: int = 67_108_864
    """Bytes of the arguments of those calls together, with the items that have come and were not taken yet."""
    running_limit: int = 4_096
    """Calls that run at once, of all peers together."""
    waiting_limit: int = 1_024
    """Calls that wait for one of those to end. The next one is refused at once, as `Overloaded`."""
    threads: int = 8
    """Threads for the methods that block."""
    own_limit: int = 65_536
    """Calls that this side may have under way on one connection."""
    stream_window: int = 64
    """Items of an argument that is a stream which may come before the method has taken any."""


_UNSENT_BYTES = 16_777_216


def server_options(options: ConnectionOptions | None) -> ConnectionOptions:
    """A server's options, as calls need them: what can't be sent is refused, not dropped on the way."""
    options = options or ConnectionOptions(unsent_limit_bytes=_UNSENT_BYTES)
    return msgspec.structs.replace(options, overflow="raise")


def client_options(options: ConnectionOptions | None) -> ConnectionOptions:
    """A client's options, as calls need them.

    A client reads on whatever it has not sent yet. If both sides stopped reading until the other reads, neither would
    go on; a server stops, so that a peer that does not read its replies can't go on calling.
    """
    options = server_options(options)
    return msgspec.structs.replace(options, high_water_bytes=2 * options.unsent_limit_bytes)
