"""What may share a batch. Pure."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["BatchRules", "key_of", "plan"]


def key_of(item: Any) -> str:
    """What rules know an item by: its JSON text. Equal numbers (1 and 1.0) have one key, and true is no 1."""
    if isinstance(item, float) and item.is_integer():
        item = int(item)
    return json.dumps(item, sort_keys=True, ensure_ascii=False)


class BatchRules:
    """At most so many items in a batch, and of each set of items that never go together at most one kind.

    Args:
        items_per_batch: the most items in one batch; 1 or more.
        never_together: sets of items. Two different items of one set are never in one batch.
    """

    def __init__(self, items_per_batch: int, never_together: Iterable[Iterable[Any]] = ()) -> None:
        self.items_per_batch = items_per_batch
        sets = [frozenset(map(key_of, items)) for items in never_together]
        self._foes: dict[str, frozenset[str]] = {}
        for keys in sets:
            for key in keys:
                self._foes[key] = self._foes.get(key, frozenset()) | keys - {key}

    def may_join(self, batch: Sequence[str], key: str) -> bool:
        """Whether an item with that key may be added to a batch of items with these keys."""
        if len(batch) >= self.items_per_batch:
            return False
        foes = self._foes.get(key)
        return foes is None or foes.isdisjoint(batch)


def plan(keys: Sequence[str], rules: BatchRules) -> list[int]:
    """Cuts items, in the order in which they came, into batches.

    The order is strict: an item that may not join the open batch closes it, and begins the next one.

    Returns:
        The number of items of each batch; none is 0. The last batch could perhaps take more items still.
    """
    sizes: list[int] = []
    batch: list[str] = []
    for key in keys:
        if batch and not rules.may_join(batch, key):
            sizes.append(len(batch))
            batch = []
        batch.append(key)
    if batch:
        sizes.append(len(batch))
    return sizes
