"""Log lines: one event per line, as key=value or JSON, with everything that a device said escaped.

Modules log through the standard `logging`: a constant message, and the facts in ``extra={"facts": {...}}``
or, shorter, through `event`.
"""

import json
import logging
import time
from typing import Any

__all__ = ["JsonFormatter", "KeyValueFormatter", "event"]


def event(logger: logging.Logger, level: int, text: str, /, **facts: object) -> None:
    """Logs one event with its facts. Costs nothing but a check where the level is off. Any thread."""
    if logger.isEnabledFor(level):
        logger.log(level, text, extra={"facts": facts}, stacklevel=2)


def _moment(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z"


def _value(value: object) -> str:
    """A value that can't end its line or pass for another key: quoted wherever it is not plain."""
    text = str(value)
    if text and text.isascii() and text.isprintable() and not any(character in ' "=\\' for character in text):
        return text
    return json.dumps(text)


class KeyValueFormatter(logging.Formatter):
    """``2026-01-02T03:04:05.678Z INFO gateway device online device=d1 address=127.0.0.1:5000``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; an exception follows, escaped, as the last fact."""
        facts: dict[str, Any] = dict(getattr(record, "facts", {}))
        if record.exc_info:
            facts["exception"] = self.formatException(record.exc_info)
        message = record.getMessage()
        if not message.isprintable():
            message = json.dumps(message)
        head = f"{_moment(record)} {record.levelname} {record.name.removeprefix('trunkline.')} {message}"
        return " ".join([head, *(f"{key}={_value(value)}" for key, value in facts.items())])


class JsonFormatter(logging.Formatter):
    """One JSON object per line: ``at``, ``level``, ``logger``, ``event`` and the facts."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of ASCII JSON."""
        own = {
            "at": _moment(record),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
        }
        # A fact may not take the place of the line's own keys, and NaN, which is no JSON, goes as text.
        facts = {
            f"fact_{key}" if key in own else key: str(value)
            if isinstance(value, float) and value - value != 0
            else value
            for key, value in getattr(record, "facts", {}).items()
        }
        line: dict[str, Any] = own | facts
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
