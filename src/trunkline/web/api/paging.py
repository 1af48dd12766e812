"""Paging by cursor."""

from collections.abc import Sequence
from typing import Annotated, TypeVar

from fastapi import Query

__all__ = ["Cursor", "Limit", "split_page"]

Limit = Annotated[int, Query(ge=1, le=1000, description="how many at most")]
Cursor = Annotated[str | None, Query(max_length=300, description="the `next` of the page before")]

T = TypeVar("T")


def split_page(found: Sequence[T], limit: int) -> tuple[list[T], T | None]:
    """Up to `limit` of the items found, and the last of them if there are more: ask for one more than the limit."""
    page = list(found[:limit])
    return page, page[-1] if len(found) > limit else None
