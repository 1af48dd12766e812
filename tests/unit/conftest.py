"""A real database in a folder of its own, for the tests of what is written to it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trunkline.db import Database, Write


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A migrated database that nobody else uses."""
    database = Database(tmp_path / "data")
    yield database
    database.close()


@pytest.fixture
def write(database: Database) -> Callable[..., list[Any]]:
    """Applies items of one kind of write in one transaction, as the writer does, and returns their results."""

    def apply(kind: Write[Any, Any], *items: object) -> list[Any]:
        with database.writer_engine.begin() as connection:
            return list(kind.apply(connection, items))

    return apply
