"""The native session: messages, heartbeats and farewells in frames. docs/reference/protocol.md describes it."""

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from trunkline.errors import BadFrame, FrameTooLarge, ProtocolError, UsageError
from trunkline.wire.compression import PackedMessages, is_available
from trunkline.wire.session import UNPACKED_BYTES, Session

__all__ = ["Frames", "Hello"]

_VERSION: Final = 1

_HELLO: Final = 1
_DATA: Final = 2
_DATA_COMPRESSED: Final = 3
_PING: Final = 4
_PONG: Final = 5
_CLOSE: Final = 6
_SKIPPED: Final = 0x80  # types from here on that are not known are skipped; below, they are errors

_BOUNDS: Final = {_HELLO: 4_096, _PING: 8, _PONG: 8, _CLOSE: 256}
"""The longest payload of each type that carries no message."""
_LONGEST: Final = 0xFFFF_FFFE  # what the length field can count, the type included

_HEAD: Final = struct.Struct(">IB")
_DATA_HEADS: Final = tuple(_HEAD.pack(length + 1, _DATA) for length in range(1_024))

_Version = Annotated[int, Meta(ge=1, le=65_535)]
_Name = Annotated[str, Meta(max_length=64)]


class Hello(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a peer says of itself, first of all."""

    version: tuple[_Version, _Version]
    """The oldest and the newest version of the protocol that it speaks."""
    limit_bytes: Annotated[int, Meta(ge=1, le=_LONGEST)]
    """The longest message that it takes."""
    features: Annotated[tuple[_Name, ...], Meta(max_length=32)] = ()
    """What it can do besides: names of compressions, the one that it would rather send first."""
    agent: Annotated[str, Meta(max_length=200)] = ""
    """What program it is, for people."""
    auth: str | dict[str, str | int | float | bool | None] | None = None
    """How it proves who it is: a token, or an object without nesting. It is not shown in the log."""

    def __repr__(self) -> str:
        shown = f"version={self.version}, limit_bytes={self.limit_bytes}, features={self.features}"
        return f"Hello({shown}, agent={self.agent!r}, auth={'None' if self.auth is None else '...'})"


_hello_decoder = msgspec.json.Decoder(Hello)


class Frames(Session):
    """The native session: a peer says hello, beats, sends messages, perhaps compressed, and says why it ends.

    A frame is a length of 4 bytes, a type of 1 byte and a payload. docs/reference/protocol.md has all of it, with
    test vectors. Both sides are the same, but that the one with `authorize` hears the other's hello before it says
    its own: so a peer that has heard a hello is let in. Only one of the two may have it.

    Args:
        limit_bytes: the longest message that this side takes. For what is sent, the peer's limit holds.
        compression: what to offer: ``"zstd"``, ``"zlib"``, or both, the better one first. What is not installed is
            left out. Each direction uses the first of its sender's that the other side has too.
        threshold_bytes: messages shorter than this are not compressed.
        agent: what program this is, for people; up to 200 characters.
        auth: how to prove who this is: a token, or an object without nesting.
        authorize: judges the peer's hello: None to let it in, else why not, which the peer is told. It is called in
            the reactor's thread and must not wait.

    Attributes:
        peer: what the peer has said of itself; None before.

    Raises:
        UsageError: a value is out of range, no compression has that name, or the hello is over 4,096 bytes.
    """

    __slots__ = (
        "_authorize", "_closing", "_hello", "_longest", "_need", "_offered", "_packed", "_peer_limit", "_plain_below",
        "_pong", "_rest", "limit_bytes", "peer", "threshold_bytes",
    )  # fmt: skip

    def __init__(
        self,
        limit_bytes: int = 1_048_576,
        *,
        compression: Sequence[str] = (),
        threshold_bytes: int = 256,
        agent: str = "",
        auth: str | Mapping[str, str | int | float | bool | None] | None = None,
        authorize: Callable[[Hello], str | None] | None = None,
    ) -> None:
        super().__init__()
        if threshold_bytes < 1:
            raise UsageError(f"threshold_bytes = {threshold_bytes}: it must be 1 or more")
        hello = Hello(
            version=(_VERSION, _VERSION),
            limit_bytes=limit_bytes,
            features=tuple(name for name in compression if is_available(name)),
            agent=agent,
            auth=dict(auth) if isinstance(auth, Mapping) else auth,
        )
        self.limit_bytes = limit_bytes
        self.threshold_bytes = threshold_bytes
        self.peer: Hello | None = None
        self._hello = _said(hello)  # empty once it is said
        self._authorize = authorize
        self._offered = hello.features
        self._packed: PackedMessages | None = None
        self._rest = bytearray()
        self._need = _HEAD.size
        self._longest = 0  # a frame with a message, its type included
        self._peer_limit = 0
        self._plain_below = 0  # a message shorter than this needs no second look to be sent
        self._pong: bytes | None = None
        self._closing = False

    # What is said.

    def start(self) -> None:
        """Says hello, unless it is to judge the peer's first. See `Session.start`."""
        if self._authorize is None:
            self._greet()

    def ping(self) -> None:
        """Asks the peer for a sign of life. Before the hello and after the farewell it says nothing."""
        if not self._hello:
            self._say(_PING, b"")

    def close(self, reason: str) -> None:
        """Says why this side closes, and if the peer broke the protocol, how. Only the first farewell is said.

        Args:
            reason: a word, perhaps with a colon and a text. What is over 256 bytes of UTF-8 is cut off.
        """
        text = reason if self.error is None else f"{reason}: {self.error}"
        self._say(_CLOSE, text.encode("utf-8", "replace")[: _BOUNDS[_CLOSE]].decode("utf-8", "ignore").encode())
        self._closing = True
        self._plain_below = 0

    def _greet(self) -> None:
        self._say(_HELLO, self._hello)
        self._hello = b""

    def _say(self, kind: int, payload: bytes) -> None:
        if not self._closing:
            self.output += _HEAD.pack(len(payload) + 1, kind) + payload

    def encode(self, message: bytes) -> bytes:
        """The frame of a message. What it returns must be sent, for a compressed stream goes on from there.

        Raises:
            UsageError: the peer does not take so long a message, or has not said hello, or `close` was called.
        """
        length = len(message)
        if length < self._plain_below:
            return _DATA_HEADS[length] + message
        self._check_sendable(length)
        return self._encode_long(message)

    def encode_all(self, messages: list[bytes]) -> bytes:
        """The frames of several messages. See `Framer.encode_all`."""
        longest = len(max(messages, key=len, default=b""))
        if longest < self._plain_below:
            return b"".join([_DATA_HEADS[len(message)] + message for message in messages])
        if messages:
            self._check_sendable(longest)  # before any of them is compressed
        return b"".join([self._encode_long(message) for message in messages])

    def check(self, message: bytes) -> None:
        """Whether the peer takes it, and now. See `Framer.check`."""
        self._check_sendable(len(message))

    def _check_sendable(self, length: int) -> None:
        if not self.established or self._closing:
            raise UsageError("a message can be sent only after the peer's hello and before this side's farewell")
        if length > self._peer_limit:
            raise UsageError(f"the message has {length} bytes; the peer takes {self._peer_limit}")

    def _encode_long(self, message: bytes) -> bytes:
        length = len(message)
        # What can't be compressed grows, by less than this.
        fits = length + length // 64 + 64 <= self._peer_limit
        if self._packed is None or length < self.threshold_bytes or not fits:
            return _HEAD.pack(length + 1, _DATA) + message
        payload = self._packed.pack(message)
        return _HEAD.pack(len(payload) + 1, _DATA_COMPRESSED) + payload

    # What is heard.

    @property
    def unfinished(self) -> bool:
        """Whether a part of a frame is held. See `Framer.unfinished`."""
        return bool(self._rest) and not self.has_more

    def receive(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes. See `Framer.receive`. After the peer's farewell there are none."""
        rest = self._rest
        if self.error is not None or self.peer_reason is not None:
            return []
        if rest:
            rest += data
            if len(rest) < self._need:
                return []
            data = bytes(rest)
            rest.clear()
        messages: list[bytes] = []
        self.has_more = False
        try:
            at = self._cut(data, messages)
        except ProtocolError as error:
            self._fail(error)
            return messages
        if self.peer_reason is None:
            rest += data[at:]
            if self._pong is not None:
                self._say(_PONG, self._pong)
                self._pong = None
        return messages

    def _cut(self, data: bytes, messages: list[bytes]) -> int:
        """Adds the messages of all frames that are whole, and returns where the first begins that is not."""
        add, unpack, longest = messages.append, _HEAD.unpack_from, self._longest
        size = len(data)
        at, last = 0, size - _HEAD.size
        room = UNPACKED_BYTES
        self._need = _HEAD.size
        while at <= last:
            length, kind = unpack(data, at)
            end = at + 4 + length
            if kind == _DATA and 0 < length <= longest and end <= size:
                add(data[at + 5 : end])
            else:
                self._check(kind, length)
                if end > size:
                    self._need = end - at
                    break
                self._take(kind, data[at + 5 : end], messages)
                if self.peer_reason is not None:
                    break
                longest = self._longest
                if kind == _DATA_COMPRESSED:
                    room -= len(messages[-1])
                    if room < 0 and end < size:
                        self.has_more = True
                        at = end
                        break
            at = end
        return at

    def _check(self, kind: int, length: int) -> None:
        """Raises what is wrong with a frame's head: it may not come, or not now, or not so long."""
        if length == 0:
            raise BadFrame("a frame's length is 0, so it has no type")
        if not self.established and kind not in (_HELLO, _CLOSE):
            raise BadFrame(f"the first frame is no HELLO but of type 0x{kind:02x}")
        if self.established and kind == _HELLO:
            raise BadFrame("a second HELLO")
        if kind == 0 or _CLOSE < kind < _SKIPPED:
            raise BadFrame(f"a frame of type 0x{kind:02x}, which is not known")
        if kind == _DATA_COMPRESSED and self._packed is None:
            raise BadFrame("a compressed message, though no compression was agreed upon")
        bound = _BOUNDS.get(kind, self.limit_bytes)
        if length - 1 > bound:
            raise FrameTooLarge(f"a frame of type 0x{kind:02x} has {length - 1} bytes; the limit is {bound}")

    def _take(self, kind: int, payload: bytes, messages: list[bytes]) -> None:
        """Takes any frame but DATA."""
        if kind == _DATA_COMPRESSED and self._packed is not None:
            messages.append(self._packed.unpack(payload, self.limit_bytes))
        elif kind == _HELLO:
            self._meet(payload)
        elif kind == _PING:
            self._pong = payload
        elif kind == _CLOSE:
            try:
                self.peer_reason = payload.decode()
            except UnicodeDecodeError:
                raise BadFrame("a CLOSE is no UTF-8") from None

    def _meet(self, payload: bytes) -> None:
        try:
            hello = _hello_decoder.decode(payload)
        except (ValueError, RecursionError) as error:
            raise BadFrame(f"the HELLO can't be read: {error}") from None
        oldest, newest = hello.version
        if not oldest <= _VERSION <= newest:
            raise ProtocolError(f"version: the peer speaks {oldest} to {newest}, this side {_VERSION}")
        if self._authorize is not None:
            self.error = ProtocolError("refused: the hello could not be judged")  # so it stays, if the next line raises
            refusal = self._authorize(hello)
            self.error = None
            if refusal is not None:
                raise ProtocolError(f"refused: {refusal}")
            self._greet()
        self.peer = hello
        self.established = True
        ours = [name for name in self._offered if name in hello.features]
        theirs = [name for name in hello.features if name in self._offered]
        if ours:
            self._packed = PackedMessages(ours[0], theirs[0])
        self._longest = self.limit_bytes + 1
        self._peer_limit = hello.limit_bytes
        if not self._closing:
            plain = self.threshold_bytes if self._packed is not None else len(_DATA_HEADS)
            self._plain_below = min(plain, len(_DATA_HEADS), self._peer_limit + 1)

    def _fail(self, error: ProtocolError) -> None:
        text = str(error)
        self.error = None  # `close` would add it
        if not self.established:
            # Later, the connection says it, when the messages before the error have had their answers.
            self.close(f"bad_frame: {text}" if isinstance(error, BadFrame | FrameTooLarge) else text)
        error.__traceback__ = error.__context__ = None  # they would keep what was received
        self.error = error


def _said(hello: Hello) -> bytes:
    """What this side says of itself, judged as what it hears."""
    try:
        payload = msgspec.json.encode(hello)
        _hello_decoder.decode(payload)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"this hello can't be said: {error}") from None
    if len(payload) > _BOUNDS[_HELLO]:
        raise UsageError(f"the hello has {len(payload)} bytes; the limit is {_BOUNDS[_HELLO]}")
    return payload
