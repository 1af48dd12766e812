"""Batches as JSON Lines files, each whole or absent."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trunkline.batch.spool import Batch

__all__ = ["FileSink"]

_TEMPORARY = ".partial"


class FileSink:
    """Writes each batch to ``<id>.jsonl``: one item per line, as JSON (https://jsonlines.org).

    A file is written under a temporary name, flushed to disk and then renamed, and the folder is flushed too
    before the batch counts as stored.

    Args:
        directory: the folder; it is made if it is not there.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        for leftover in directory.glob(f"*{_TEMPORARY}"):
            leftover.unlink()

    def file_of(self, batch_id: str) -> str:
        """See `Sink.file_of`."""
        return f"{batch_id}.jsonl"

    def save(self, batches: "Sequence[Batch]") -> None:
        """See `Sink.save`."""
        for batch in batches:
            final = self._directory / batch.file
            temporary = self._directory / f"{batch.file}{_TEMPORARY}"
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(b"".join(item.encode() + b"\n" for item in batch.items))
                    file.flush()
                    os.fsync(file.fileno())
                temporary.rename(final)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)  # one flush makes all the renames before it durable
        finally:
            os.close(folder)
