"""Every error that Trunkline raises, under one root, split by whose fault it is.

    TrunklineError
    ├── ProtocolError          the peer broke the protocol; its connection is closed
    │   ├── FrameTooLarge      a frame over the framer's limit
    │   ├── BadFrame           a frame that the framer or the profile can't read
    │   └── PeerTimeout        the peer did not do in time what it has to do
    ├── UsageError             the caller asked for something that can't be done; asking again won't help
    │   ├── SettingsError      a setting is unknown, of the wrong type, or out of range
    │   ├── NotFound           no device, command, record, record type or job has that name
    │   ├── BadItems           what was sent to be stored is no JSON list, or an item of it is too long
    │   ├── WrongThread        a method was called from a thread that may not call it
    │   └── Forbidden          none of the caller's roles allows it
    ├── RpcError               a method that was called says that it failed; each way to fail is a class of its own
    │   └── CallFailed         a method failed in a way that it does not declare; ``id`` finds it in the callee's log
    └── Unavailable            the world's fault: it may work later
        ├── Overloaded         a bound is reached; nothing was accepted, so it is safe to try again
        ├── ConnectionClosed   the connection is gone; ``reason`` says why
        ├── CallLost           a call has no outcome, for its connection is gone; ``sent`` says whether it may have run
        ├── DeadlineExceeded   a call took longer than its caller waits
        ├── NoReply            a command ended without a reply; ``state`` says how
        ├── RunOver            a job's run that is over tried to write; a later run has its place
        └── StorageError       the database or the disk refused; nothing was committed

``str(error)`` is one line for a person: what happened, to what, and what to do next.
"""

from typing import Any, ClassVar, Literal

__all__ = [
    "BadFrame",
    "BadItems",
    "CallFailed",
    "CallLost",
    "ConnectionClosed",
    "DeadlineExceeded",
    "Forbidden",
    "FrameTooLarge",
    "NoReply",
    "NotFound",
    "Overloaded",
    "PeerTimeout",
    "ProtocolError",
    "RpcError",
    "RunOver",
    "SettingsError",
    "StorageError",
    "TrunklineError",
    "Unavailable",
    "UsageError",
    "WrongThread",
]


class TrunklineError(Exception):
    """The root of all of Trunkline's own errors."""


class ProtocolError(TrunklineError):
    """The peer broke the protocol. Only its own connection is affected."""


class FrameTooLarge(ProtocolError):
    """A frame is longer than the limit allows."""


class BadFrame(ProtocolError):
    """A frame can't be read: a byte that may not stand there, text that is no UTF-8, a wrong checksum."""


class PeerTimeout(ProtocolError):
    """The peer did not do in time what it has to do.

    Attributes:
        reason: which deadline it was, as a word from `trunkline.tcp.CloseReason`.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class UsageError(TrunklineError):
    """The caller asked for something that can't be done as it was asked."""


class SettingsError(UsageError):
    """A setting is unknown, of the wrong type, or out of range. The text names it, its value and the mend."""


class NotFound(UsageError):
    """Nothing has that name."""


class BadItems(UsageError):
    """What was sent to be stored is no JSON list, or an item of it is too long. None of it was stored."""


class WrongThread(UsageError):
    """A method that belongs to the reactor's thread was called from another one."""


class Forbidden(UsageError):
    """None of the caller's roles allows it."""


class RpcError(TrunklineError):
    """A method that was called failed, as it declares that it may. Each way to fail is a class of its own.

    As in ``class NoSuchMeter(RpcError)``, which the method raises and declares. The class's name travels as the code.
    A caller that knows the class gets it back; one that does not gets an `RpcError` with that ``code``.

    Args:
        text: what happened, for people.
        data: what else the caller may want to know: anything that MessagePack can carry.

    Attributes:
        data: the same; at the caller, of the class's ``data_type``.
        code: the name of the class that was raised.
    """

    data_type: ClassVar[Any] = Any

    def __init__(self, text: str = "", data: Any = None) -> None:
        super().__init__(text)
        self.data = data
        self.code = type(self).__name__


class CallFailed(RpcError):
    """A method failed in a way that it does not declare.

    Args:
        text: what may be said of it; nothing of the method's own, unless the callee debugs.
        id: under which the callee's log has the traceback.
    """

    def __init__(self, text: str, id: str = "") -> None:  # noqa: A002  # as the log calls it
        super().__init__(text, id)
        self.id = id


class Unavailable(TrunklineError):
    """Something outside of the caller's hands is missing just now; it may work later."""


class Overloaded(Unavailable):
    """A bound is reached. Nothing was accepted, so it is safe to try again later."""


class ConnectionClosed(Unavailable):
    """The connection is closed or closing.

    Attributes:
        reason: why, as a word from `trunkline.tcp.CloseReason`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the connection is closed ({reason})")
        self.reason = reason


class CallLost(Unavailable):
    """A call has no outcome: its connection is gone, or the callee is stopping.

    Attributes:
        sent: whether the call may have run: ``"no"``, so it is safe to call again; ``"unknown"``; or ``"yes"``: it has
            begun.
    """

    def __init__(self, text: str, sent: Literal["yes", "no", "unknown"]) -> None:
        super().__init__(text)
        self.sent = sent


class DeadlineExceeded(Unavailable):
    """A call took longer than its caller waits. It may have run, wholly or in part."""


class NoReply(Unavailable):
    """A command ended without a reply, or has not ended in the time that its caller waits.

    Attributes:
        state: where the command stands, a word from `trunkline.gateway.CommandState`.
    """

    def __init__(self, state: str, text: str) -> None:
        super().__init__(text)
        self.state = state


class RunOver(Unavailable):
    """A run of a job that is over tried to write. A later run has its place; nothing was written."""


class StorageError(Unavailable):
    """The database or the disk refused a write. Nothing of it was committed."""
