"""Which function syncs which type of record."""

from collections.abc import Callable
from typing import Any, TypeVar

from trunkline.errors import NotFound, UsageError

__all__ = ["Handlers", "handlers", "sync"]

H = TypeVar("H", bound=Callable[..., Any])


class Handlers:
    """Handlers by record type."""

    def __init__(self) -> None:
        self._by_type: dict[str, Callable[..., Any]] = {}

    @property
    def types(self) -> list[str]:
        """The record types that have one."""
        return sorted(self._by_type)

    def sync(self, record_type: str) -> Callable[[H], H]:
        """Registers the decorated function as the one that syncs records of a type. See `trunkline.sync`."""

        def register(handler: H) -> H:
            known = self._by_type.get(record_type)
            if known is not None and (known.__module__, known.__qualname__) != (
                handler.__module__,
                handler.__qualname__,
            ):
                raise UsageError(
                    f'record type "{record_type}" has a handler already: {known.__module__}.{known.__qualname__}'
                )
            self._by_type[record_type] = handler
            return handler

        return register

    def find(self, record_type: str) -> Callable[..., Any]:
        """The handler of a type.

        Raises:
            NotFound: the type has none.
        """
        try:
            return self._by_type[record_type]
        except KeyError:
            known = f"there are {', '.join(self.types)}" if self._by_type else "no handler is registered"
            raise NotFound(
                f'record type "{record_type}" has no sync handler ({known}); '
                f'write one with @trunkline.sync("{record_type}") in a module that the setting "modules" names'
            ) from None


handlers = Handlers()
"""The handlers of this process."""


def sync(record_type: str) -> Callable[[H], H]:
    """Registers the function that syncs records of a type.

    The function takes ``(record, job)``: a `trunkline.Record` and, for a coroutine function, a
    `trunkline.SyncJob`; a plain function runs in a thread of its own and gets a `trunkline.BlockingSyncJob`. It
    may run more than once for one request, since a node can stop in the middle, so it must be able to repeat
    what it did.

    Raises:
        UsageError: the type has another handler.
    """
    return handlers.sync(record_type)
