"""The data folder: one node at a time, a schema that is what the tables say, and readers that only read."""

import asyncio
import re
import sqlite3
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import DatabaseError, OperationalError

from trunkline.db import Database
from trunkline.db.tables import metadata, nodes
from trunkline.errors import StorageError, UsageError


def schema_of(path: Path) -> dict[str, tuple[object, ...]]:
    """All that SQLite knows of the tables and indexes in a file, but for the order of columns and the layout."""
    connection = sqlite3.connect(path)
    found: dict[str, tuple[object, ...]] = {}
    try:
        rows = connection.execute("SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")
        for kind, name, sql in rows.fetchall():
            if name == "alembic_version":
                continue
            if kind == "index":
                found[f"index {name}"] = (re.sub(r"\s+", " ", sql),)
                continue
            columns = sorted(row[1:] for row in connection.execute(f"PRAGMA table_info({name})"))
            keys = sorted(row[2:] for row in connection.execute(f"PRAGMA foreign_key_list({name})"))
            uniques = sorted(
                tuple(column[2] for column in connection.execute(f"PRAGMA index_info({row[1]})"))
                for row in connection.execute(f"PRAGMA index_list({name})")
                if row[3] in ("u", "pk")
            )
            found[f"table {name}"] = (*columns, *keys, *uniques, "AUTOINCREMENT" in sql)
    finally:
        connection.close()
    return found


def test_the_migrations_build_what_the_tables_say(database: Database) -> None:
    with database.writer_engine.begin() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True, "render_as_batch": True}
        )
        assert compare_metadata(context, metadata) == []


def test_the_migrations_build_the_same_as_the_tables_to_the_letter(database: Database, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'other.db'}")
    metadata.create_all(engine)
    engine.dispose()
    expected = schema_of(tmp_path / "other.db")
    assert len(expected) > len(metadata.tables)
    assert schema_of(database.directory / "trunkline.db") == expected


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    Database(tmp_path).close()
    before = schema_of(tmp_path / "trunkline.db")
    Database(tmp_path).close()
    assert schema_of(tmp_path / "trunkline.db") == before


def test_a_second_node_on_the_same_folder_is_refused_and_told_what_to_do(database: Database) -> None:
    with pytest.raises(UsageError) as caught:
        Database(database.directory)
    assert str(caught.value) == (
        f'data.directory = "{database.directory}": another node uses it; stop that one or name another folder'
    )


def test_the_folder_is_free_again_after_closing(tmp_path: Path) -> None:
    Database(tmp_path).close()
    Database(tmp_path).close()


def test_a_reader_may_look_while_a_node_holds_the_folder(database: Database) -> None:
    with database.writer_engine.begin() as connection:
        connection.execute(nodes.insert().values(id="n1", started_at=0.0, expires_at=0.0))
    reader = Database(database.directory, exclusive=False)
    try:
        assert reader.read_now(lambda connection: connection.execute(select(nodes.c.id)).scalar_one()) == "n1"
    finally:
        reader.close()


def test_there_must_be_a_database_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no database yet; start a node with: trunkline serve"):
        Database(tmp_path, exclusive=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r'data.directory = ".*file": .*; name a folder to write in'):
        Database(tmp_path / "file")


def test_a_database_that_cannot_be_migrated_gives_the_folder_back(tmp_path: Path) -> None:
    (tmp_path / "trunkline.db").write_bytes(b"this is no database" * 100)
    for _ in range(2):
        with pytest.raises((DatabaseError, StorageError), match="not a database"):
            Database(tmp_path)
    (tmp_path / "trunkline.db").unlink()
    Database(tmp_path).close()


@pytest.mark.parametrize("name", ["a b", "what?", "50%", "%41", "#1", "q?x=1&y=2", "é", "a:b@c"])
def test_the_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    directory = tmp_path / name / "data"
    database = Database(directory)
    try:
        assert {path.name for path in directory.iterdir()} >= {"lock", "trunkline.db"}
        assert database.read_now(lambda connection: connection.execute(select(nodes.c.id)).all()) == []
    finally:
        database.close()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "statement",
    ["INSERT INTO nodes VALUES ('n1', 0, 0)", "DELETE FROM devices", "CREATE TABLE t (x)", "DROP TABLE nodes"],
)
def test_a_reader_cannot_write(database: Database, statement: str) -> None:
    with pytest.raises(OperationalError, match="readonly"):
        database.read_now(lambda connection: connection.execute(text(statement)))


def test_readers_make_no_checkpoints(database: Database) -> None:
    pragma = text("PRAGMA wal_autocheckpoint")
    assert database.read_now(lambda connection: connection.execute(pragma).scalar_one()) == 0


def test_a_reader_sees_what_is_committed_and_nothing_else(database: Database) -> None:
    def count() -> int:
        return len(database.read_now(lambda connection: connection.execute(select(nodes.c.id)).all()))

    with database.writer_engine.begin() as connection:
        connection.execute(nodes.insert().values(id="n1", started_at=0.0, expires_at=0.0))
        assert count() == 0
    assert count() == 1


def test_reads_run_beside_the_loop_in_threads_of_their_own(database: Database) -> None:
    async def run() -> None:
        everyone_is_here = threading.Barrier(4)
        names = await asyncio.gather(*(database.read(lambda _: (everyone_is_here.wait(10), _name())) for _ in range(4)))
        assert len({name for _, name in names}) == 4
        assert all(name.startswith("trunkline-reader") for _, name in names)

    def _name() -> str:
        return threading.current_thread().name

    asyncio.run(run())
