"""The node's log: one event per line, to standard error and to a file that is rotated and never waited for."""

import logging
import sys
from pathlib import Path
from typing import TextIO

from trunkline.logs.lines import JsonFormatter, KeyValueFormatter, event
from trunkline.logs.rotating_log import RotatingLogHandler

__all__ = ["JsonFormatter", "KeyValueFormatter", "RotatingLogHandler", "event", "start_logging"]


def start_logging(
    level: str = "INFO",
    *,
    as_json: bool = False,
    stream: TextIO | None = None,
    file: str = "",
    file_bytes: int = 10_485_760,
    file_backups: int = 5,
) -> None:
    """Sends the log of Trunkline, and warnings of all else, to `stream`, and to a file where one is named.

    Args:
        level: the least serious events of Trunkline's own that are written.
        as_json: JSON lines instead of key=value.
        stream: None for standard error.
        file: the file's path; empty for none.
        file_bytes: the size over which the file is rotated.
        file_backups: how many rotated files are kept.

    Raises:
        SettingsError: the file can't be opened.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler(stream or sys.stderr)]
    if file:
        handlers.append(RotatingLogHandler(Path(file), max_bytes=file_bytes, backups=file_backups))
    for handler in handlers:
        handler.setFormatter(JsonFormatter() if as_json else KeyValueFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=handlers, force=True)
    logging.getLogger("trunkline").setLevel(level)
