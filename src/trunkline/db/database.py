"""The database of one node: its engines, its pragmas, its schema."""

import asyncio
import fcntl
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, NullPool, QueuePool, create_engine, event
from sqlalchemy.exc import DBAPIError

from trunkline.errors import StorageError, UsageError

__all__ = ["Database", "migrate"]

T = TypeVar("T")
_MIGRATIONS = Path(__file__).parent / "migrations"
_READERS = 4
_BUSY_MILLISECONDS = 10_000


class Database:
    """A SQLite file in a data folder.

    There is one connection that writes, the writer's (see `trunkline.db.Writer`). It alone makes checkpoints:
    releases of SQLite before 3.51.3 can corrupt a WAL that two connections reset at once
    (https://www.sqlite.org/wal.html#walresetbug). Readers see the last committed state and never block it.

    Args:
        directory: the data folder.
        exclusive: claim the folder for this process, and make or migrate the schema. Without it the database
            can only be read.

    Raises:
        UsageError: another node uses the folder, or there is no database in it to read.
        StorageError: the folder can't be made or written.
    """

    def __init__(self, directory: Path, *, exclusive: bool = True) -> None:
        self.directory = directory
        self._lock: int | None = None
        path = directory / "trunkline.db"
        if exclusive:
            self._claim()
        elif not path.exists():
            raise UsageError(f"{path}: there is no database yet; start a node with: trunkline serve")
        url = URL.create("sqlite", database=str(path))  # a path may hold what means something else in a URL's text
        self.writer_engine = create_engine(url, poolclass=NullPool)
        event.listen(self.writer_engine, "connect", _prepare_writer)
        event.listen(self.writer_engine, "begin", _begin_immediate)
        self.reader_engine = create_engine(
            url, poolclass=QueuePool, pool_size=_READERS, max_overflow=0, connect_args={"check_same_thread": False}
        )
        event.listen(self.reader_engine, "connect", _prepare_reader)
        self._readers = ThreadPoolExecutor(_READERS, "trunkline-reader")
        if exclusive:
            try:
                migrate(self.writer_engine)
            except BaseException as error:
                self.close()
                if isinstance(error, DBAPIError):
                    raise StorageError(f"{path}: it is no database that this version can use: {error.orig}") from error
                raise

    def _claim(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StorageError(
                f'data.directory = "{self.directory}": {error.strerror}; name a folder to write in'
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            self._lock = None
            raise UsageError(
                f'data.directory = "{self.directory}": another node uses it; stop that one or name another folder'
            ) from None

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Runs ``query(connection)`` on a reader's thread; it sees what is committed."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.read_now, query)

    def read_now(self, query: Callable[[Connection], T]) -> T:
        """Runs ``query(connection)`` in the calling thread."""
        with self.reader_engine.connect() as connection:
            return query(connection)

    def close(self) -> None:
        """Closes all connections and gives the folder back."""
        self._readers.shutdown()
        self.reader_engine.dispose()
        self.writer_engine.dispose()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def migrate(engine: Engine) -> None:
    """Brings the schema to the newest revision."""
    # Imported here: it takes half a second, and whoever only reads the database has no use for it.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _prepare_writer(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions are begun by us, not by the driver
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # a commit that was reported survives a power cut
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
    cursor.close()


def _prepare_reader(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA query_only = ON")
    cursor.execute("PRAGMA wal_autocheckpoint = 0")
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    # Taking the write lock at once: a transaction that reads first and wants to write later would fail
    # with SQLITE_BUSY_SNAPSHOT if anyone wrote in between.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
