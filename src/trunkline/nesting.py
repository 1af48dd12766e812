"""How deep a JSON value may be nested."""

from typing import Any

__all__ = ["NESTING_LIMIT", "nesting"]

NESTING_LIMIT = 100
"""What is kept may be nested so deep: far below what any library that has to show it can bear."""


def nesting(value: Any) -> int:
    """How deep lists and objects are nested in a JSON value: 0 for a number, 1 for a list of numbers."""
    depth = 0
    level = [value]
    while level := [one for one in level if isinstance(one, list | dict)]:
        depth += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return depth
