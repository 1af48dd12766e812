"""Batches as JSON Lines files, each whole or absent."""

import contextlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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
        threads: files that are written at once. Each waits for the disk most of the time, and flushes that come
            together share one commit of the file system's journal.
    """

    def __init__(self, directory: Path, threads: int = 4) -> None:
        self._directory = directory
        self._writers = ThreadPoolExecutor(threads, "trunkline-sink")
        directory.mkdir(parents=True, exist_ok=True)
        for leftover in directory.glob(f"*{_TEMPORARY}"):
            leftover.unlink()

    def file_of(self, batch_id: str) -> str:
        """See `Sink.file_of`."""
        return f"{batch_id}.jsonl"

    def save(self, batches: "Sequence[Batch]") -> None:
        """See `Sink.save`."""
        for _ in self._writers.map(self._write, batches):
            pass  # which raises what the first that failed has raised
        folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)  # one flush makes all the renames before it durable
        finally:
            os.close(folder)

    def _write(self, batch: "Batch") -> None:
        # Bare calls of the system: a file object makes twice as many, and for each the interpreter is given up and
        # must be waited for again, which on a busy node takes longer than the call.
        temporary = self._directory / f"{batch.file}{_TEMPORARY}"
        content = b"".join(item.encode() + b"\n" for item in batch.items)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            try:
                while content:
                    content = content[os.write(descriptor, content) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.rename(self._directory / batch.file)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
