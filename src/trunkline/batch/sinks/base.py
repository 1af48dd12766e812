"""The port of all sinks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from trunkline.batch.spool import Batch

__all__ = ["Sink"]


class Sink(Protocol):
    """Where batches go."""

    def file_of(self, batch_id: str) -> str:
        """The name under which a batch with that id will be found."""

    def save(self, batches: "Sequence[Batch]") -> None:
        """Writes batches, each whole or not at all; when this returns they are there to stay. A thread of its own.

        A batch may come again, after a crash or a failure, and must then be there once.

        Raises:
            OSError: not all of them were written. All of them will come again.
        """
