"""Codecs make messages of the bytes that a framer cuts, and bytes of messages."""

import abc
import codecs
import typing
from collections.abc import Callable
from itertools import chain
from types import UnionType
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

import msgspec

from trunkline.errors import BadFrame, UsageError
from trunkline.nesting import NESTING_LIMIT

__all__ = ["Codec", "JsonCodec", "MessagePackCodec", "StructCodec", "TextCodec"]

M = TypeVar("M")

_NESTED: Final = frozenset({dict, list, tuple})  # msgspec makes these, and no subclasses of them
_TEXT_LIMIT: Final = 200  # of what an error quotes, for the peer chooses how long that is


class Codec(abc.ABC, Generic[M]):
    """Makes messages of bytes, and bytes of messages.

    A codec of your own is a class with `decode` and `encode`. It keeps nothing between their calls: one object serves
    all connections, in any thread.
    """

    __slots__ = ()

    @abc.abstractmethod
    def decode(self, data: bytes) -> M:
        """The message in what a framer has cut.

        Raises:
            BadFrame: it is none. Whatever the peer sends, there is no other error.
        """

    @abc.abstractmethod
    def encode(self, message: M) -> bytes:
        """The bytes of a message, for a framer to frame.

        Raises:
            UsageError: it can't be sent. Whatever the message is, there is no other error.
        """


class TextCodec(Codec[str]):
    """Text, strictly: bytes that are none in this encoding are an error.

    Args:
        encoding: its name in Python, such as ``gb18030``
            (https://docs.python.org/3/library/codecs.html#standard-encodings).

    Raises:
        UsageError: no encoding of text has that name.
    """

    __slots__ = ("encoding",)

    # Python's own, and no peer's: some take time in the square of the length, others warn of what they read.
    _UNFIT = frozenset({"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"})

    def __init__(self, encoding: str = "utf-8") -> None:
        try:
            self.encoding = codecs.lookup(encoding).name
            "a".encode(self.encoding)  # which those that are not for text refuse
            fit = self.encoding not in self._UNFIT
        except (LookupError, ValueError):
            fit = False
        if not fit:
            raise UsageError(f"encoding = {encoding!r}: it must be an encoding of text that Python knows")

    def decode(self, data: bytes) -> str:
        """The text. See `Codec.decode`."""
        try:
            return data.decode(self.encoding)
        except UnicodeError as error:
            raise BadFrame(f"the message is no {self.encoding}: {_quoted(error)}") from None

    def encode(self, message: str) -> bytes:
        """The text's bytes. See `Codec.encode`."""
        try:
            return str.encode(message, self.encoding)
        except (TypeError, UnicodeError) as error:
            raise UsageError(f"the message can't be sent as {self.encoding}: {_quoted(error)}") from None


class _Format(NamedTuple):
    """One of msgspec's formats."""

    name: str
    new_decoder: Callable[[Any], Any]
    encode: Callable[[object], bytes]
    decode: Callable[[bytes], Any]
    openers: bytes
    """The bytes one of which begins each list and each object."""


_FORMATS: Final = {
    "json": _Format("JSON", msgspec.json.Decoder, msgspec.json.Encoder().encode, msgspec.json.Decoder().decode, b"[{"),
    "msgpack": _Format(
        "MessagePack",
        msgspec.msgpack.Decoder,
        msgspec.msgpack.Encoder().encode,
        msgspec.msgpack.Decoder().decode,
        bytes([*range(0x80, 0xA0), *range(0xDC, 0xE0)]),
    ),
}


class _MsgspecCodec(Codec[M]):
    """What the codecs by msgspec have in common."""

    __slots__ = ("_decode", "_format", "_is_typed")

    def __init__(self, form: _Format, message_type: Any) -> None:
        self._format = form
        self._is_typed = message_type is not Any
        self._decode: Callable[[bytes], M] = form.new_decoder(message_type).decode

    def decode(self, data: bytes) -> M:
        """The message. See `Codec.decode`."""
        try:
            message = self._decode(data)
            too_deep = self._has_many_openers(data) and _is_too_deep(self._any(data, message))
        except RecursionError:
            too_deep = True
        except (msgspec.MsgspecError, ValueError) as error:
            raise BadFrame(f"the message is not the {self._format.name} that it must be: {_quoted(error)}") from None
        if too_deep:
            raise BadFrame(f"the message is nested more than {NESTING_LIMIT} deep")
        return message

    def encode(self, message: M) -> bytes:
        """The message's bytes. See `Codec.encode`."""
        try:
            data = self._format.encode(message)
            too_deep = self._has_many_openers(data) and _is_too_deep(self._format.decode(data))
        except RecursionError:
            too_deep = True
        except (msgspec.MsgspecError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise UsageError(f"the message can't be sent as {self._format.name}: {_quoted(error)}") from None
        if too_deep:
            raise UsageError(f"the message is nested more than {NESTING_LIMIT} deep")
        return data

    def _has_many_openers(self, data: bytes) -> bool:
        # Few messages have more bytes that may begin something than the depth allows; the others are shallow for sure.
        if len(data) <= NESTING_LIMIT:
            return False
        return len(data) - len(data.translate(None, self._format.openers)) > NESTING_LIMIT

    def _any(self, data: bytes, message: object) -> object:
        """The message as lists and dicts, whatever its type."""
        return self._format.decode(data) if self._is_typed else message


class JsonCodec(_MsgspecCodec[Any]):
    """Any JSON value (RFC 8259): numbers, text, lists, objects as dicts, `True`, `False` and `None`.

    What JSON lacks is sent as what is nearest: keys that are numbers as text, bytes as base64, NaN and infinities as
    null. Lists and objects may be nested 100 deep.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(_FORMATS["json"], Any)


class MessagePackCodec(_MsgspecCodec[Any]):
    """Any MessagePack value (https://github.com/msgpack/msgpack/blob/master/spec.md).

    Timestamps are datetimes, other extensions are `msgspec.msgpack.Ext`. Lists and maps may be nested 100 deep.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(_FORMATS["msgpack"], Any)


class StructCodec(_MsgspecCodec[M]):
    """Objects of one subclass of `msgspec.Struct`, or of one of several that are told apart by their tags.

    What comes is checked field by field, and the error names the field. Of what is sent only the object's own type is
    checked, not its fields'.

    With a union of types give the codec's type too: ``codec: Codec[Login | Reading] = StructCodec(Login | Reading)``.

    Args:
        message_type: a subclass of `msgspec.Struct`, or a union of such with tags
            (https://jcristharif.com/msgspec/structs.html#tagged-unions).
        format: ``json`` or ``msgpack``.

    Raises:
        UsageError: these are no such types, or they can't be told apart.
    """

    __slots__ = ("_types",)

    def __init__(
        self,
        message_type: type[M] | UnionType,
        format: Literal["json", "msgpack"] = "json",  # noqa: A002  the word for it
    ) -> None:
        if format not in _FORMATS:
            raise UsageError(f'format = {format!r}: it must be "json" or "msgpack"')
        is_union = typing.get_origin(message_type) in (UnionType, typing.Union)
        self._types: tuple[Any, ...] = typing.get_args(message_type) if is_union else (message_type,)
        for one in self._types:
            if not (isinstance(one, type) and issubclass(one, msgspec.Struct)):
                raise UsageError(f"message_type: {one!r} is no subclass of msgspec.Struct")
        try:
            super().__init__(_FORMATS[format], message_type)
        except (TypeError, NameError) as error:
            raise UsageError(f"message_type: {_quoted(error)}") from None

    def encode(self, message: M) -> bytes:
        """The struct's bytes. See `Codec.encode`."""
        if type(message) not in self._types:  # a subclass may have another tag, which the peer can't know
            names = " or ".join(one.__name__ for one in self._types)
            raise UsageError(f"the message is of type {type(message).__name__}; it must be {names}")
        return super().encode(message)


def _is_too_deep(value: object) -> bool:
    """Whether lists and dicts are nested too deep, keys included: in MessagePack those may be lists too."""
    level: list[Any] = [[value]]
    for _ in range(NESTING_LIMIT + 1):
        values = chain.from_iterable(one.values() for one in level if type(one) is dict)
        level = [one for one in chain(chain.from_iterable(level), values) if type(one) in _NESTED]
        if not level:
            return False
    return True


def _quoted(error: Exception) -> str:
    """What an error says, on one line: some quote what the peer sent."""
    text = str(error)[:_TEXT_LIMIT]
    return text if text.isprintable() else ascii(text)[1:-1]
