r"""The line protocol: UTF-8 text in lines. docs/reference/line-protocol.md describes it to those who write devices."""

import re
from typing import NamedTuple

from trunkline.errors import BadFrame, UsageError
from trunkline.settings import DeviceSettings
from trunkline.wire import LineFramer

__all__ = ["Beat", "LineProfile", "Said", "Store"]

# C0 controls but the tab, DEL, and the C1 controls: none belongs in a line of text, and NUL least of all.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


class Beat(NamedTuple):
    """A sign of life."""


class Store(NamedTuple):
    """A list of items to store, as JSON text."""

    items: str


class Said(NamedTuple):
    """Anything else: the reply to the command in flight, if there is one."""

    text: str


class LineProfile:
    """Pure: lines in, meanings out; commands in, lines out."""

    name = "line"

    def __init__(self, settings: DeviceSettings) -> None:
        self._hello = re.compile(settings.hello)
        self._hello_example = settings.hello
        self._heartbeat = settings.heartbeat
        self.limit_bytes = settings.line_limit_bytes
        self.heartbeat_answer = settings.heartbeat_answer.encode()

    def new_framer(self) -> LineFramer:
        """The framer of one connection."""
        return LineFramer(self.limit_bytes)

    def decode(self, line: bytes) -> str:
        """The line as text.

        Raises:
            BadFrame: it is no UTF-8, or holds a NUL or another control character.
        """
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise BadFrame(f"byte {error.start + 1} of the line is no UTF-8") from None
        if not text.isprintable() and (found := _CONTROL.search(text)):
            raise BadFrame(f"character {found.start() + 1} of the line is a control character (U+{ord(found[0]):04X})")
        return text

    def identify(self, text: str) -> str:
        """The device's id, out of its first line.

        Raises:
            BadFrame: the line is no hello.
        """
        match = self._hello.fullmatch(text)
        device = match["device"] if match else None
        if not device:
            raise BadFrame(f"the first line must say who you are, as in {self._hello_example}")
        if len(device) > 128 or "/" in device or device in (".", ".."):
            # It has a place in URLs, where a slash or a dot of its own would be read as a part of the path.
            raise BadFrame("a device's id has at most 128 characters and no slash")
        return device

    def parse(self, text: str) -> Beat | Store | Said:
        """What a later line means. ``STORE`` is understood from the first line on."""
        if text == self._heartbeat:
            return Beat()
        if text.startswith("STORE ") or text == "STORE":
            return Store(text[6:])
        return Said(text)

    def encode(self, cmd: str) -> bytes:
        """A command as the line to write.

        Raises:
            UsageError: it can't be one line: it is empty, too long, or holds a control character.
        """
        if not cmd.strip():
            raise UsageError("cmd is empty; a command is one line of text")
        if found := _CONTROL.search(cmd):
            raise UsageError(f"cmd holds a control character (U+{ord(found[0]):04X}); a command is one line of text")
        try:
            line = cmd.encode()
        except UnicodeEncodeError:
            raise UsageError("cmd holds half of a surrogate pair, which is no text") from None
        if len(line) > self.limit_bytes:
            raise UsageError(
                f"cmd has {len(line)} bytes; the line limit is {self.limit_bytes} (devices.line_limit_bytes)"
            )
        return line
