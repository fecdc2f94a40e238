"""Opening the database: engines, pragmas, the lock of the data directory, migrations."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Engine, create_engine, event, make_url

from lifesign.db import migrate
from lifesign.db.database import Database
from lifesign.db.failpoints import Failpoints
from lifesign.settings import Settings

SQLITE_FILE = "lifesign.db"
LOCK_FILE = "lifesign.lock"

_SQLITE_READERS = 4
_POSTGRES_WRITERS = 4
_POSTGRES_READERS = 4
# Pages of the write-ahead log before the writer folds them into the file (about 64 MB): check-ins change the same pages
# again and again, and each fold writes a page once however often it changed, so seldom is cheap; a start after a crash
# still takes a fraction of a second.
_CHECKPOINT_PAGES = 16000
# What a connection to SQLite remembers of the file. A reader finds the rest in what the system remembers of it, once
# for all of them: with as much as the writer has, four of them kept 128 MiB of the same pages.
_WRITER_CACHE_KIB, _READER_CACHE_KIB = 32_000, 8_000


class DataDirectoryInUse(Exception):
    """Another process holds the data directory."""

    def __init__(self, directory: Path, pid: str) -> None:
        super().__init__(f"data directory {directory} is in use by process {pid}")
        self.directory = directory
        self.pid = pid


class NoDatabase(Exception):
    """No server has ever run on the data directory."""

    def __init__(self, directory: Path) -> None:
        super().__init__(f"there is no database in {directory.absolute()}")


@contextmanager
def data_directory_lock(directory: Path, file: str = LOCK_FILE) -> Iterator[None]:
    """Hold the data directory for this process, or of all in it what has a lock file of its own.

    Raises DataDirectoryInUse.

    SQLite before 3.51.3 can corrupt a write-ahead log that several processes write or checkpoint at once, so exactly
    one process may open the file. The kernel lets go of the lock when the process ends, however it ends.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(directory / file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataDirectoryInUse(directory, os.read(handle, 32).decode().strip() or "unknown") from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def is_postgres(settings: Settings) -> bool:
    """True when a PostgreSQL address is set."""
    return settings.database_url is not None


def open_database(settings: Settings, failpoints: Failpoints | None = None) -> Database:
    """Open, migrate and return the database. With SQLite the caller holds `data_directory_lock`.

    Raises migrate.SchemaTooNew when a later version of Lifesign has already changed the tables.
    """
    failpoints = failpoints or Failpoints()
    if is_postgres(settings):
        writer = _migrated(postgres_engine(settings, size=_POSTGRES_WRITERS))
        reader = postgres_engine(settings, size=_POSTGRES_READERS, read_only=True)
        return Database(
            writer=writer,
            reader=reader,
            writers=_POSTGRES_WRITERS,
            readers=_POSTGRES_READERS,
            failpoints=failpoints,
            is_main=True,
        )
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = settings.data_dir / SQLITE_FILE
    writer = _migrated(sqlite_engine(path))
    return Database(
        writer=writer,
        reader=sqlite_engine(path, read_only=True),
        writers=1,
        readers=_SQLITE_READERS,
        failpoints=failpoints,
        is_main=True,
    )


def _migrated(engine: Engine) -> Engine:
    try:
        migrate.upgrade(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def sqlite_engine(path: Path, *, read_only: bool = False, gives_back: bool = False) -> Engine:
    """An engine on a SQLite file: WAL, a full sync at every commit; readers never write and never checkpoint.

    gives_back: a new file is laid out so that pages which became free can be given back to the disk bit by bit.
    """
    engine = create_engine(
        sqlalchemy.URL.create("sqlite", database=str(path)),
        hide_parameters=True,
        pool_size=_SQLITE_READERS,
        query_cache_size=1000,
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:  # Any: DBAPI connections have no common type
        connection.isolation_level = None  # transactions are begun by the listener below, not guessed by the driver
        cursor = connection.cursor()
        for pragma in (
            "busy_timeout=5000",
            *(["auto_vacuum=INCREMENTAL"] if gives_back else []),
            "journal_mode=WAL",
            "synchronous=FULL",
            f"wal_autocheckpoint={0 if read_only else _CHECKPOINT_PAGES}",
            f"cache_size=-{_READER_CACHE_KIB if read_only else _WRITER_CACHE_KIB}",
            f"query_only={int(read_only)}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def postgres_engine(settings: Settings, *, size: int, read_only: bool = False) -> Engine:
    """An engine on the server's own PostgreSQL."""
    if settings.database_url is None:
        msg = "LIFESIGN_DATABASE_URL is not set"
        raise ValueError(msg)
    return postgres_engine_at(settings.database_url.get_secret_value(), size=size, read_only=read_only)


def postgres_engine_at(address: str, *, size: int, read_only: bool = False, schema: str | None = None) -> Engine:
    """An engine on PostgreSQL through psycopg 3, with the time-outs of spec "Engine" section 8.

    schema: where all tables are that statements name.
    """
    url = make_url(address).set(drivername="postgresql+psycopg")
    options = (
        "-c synchronous_commit=on -c statement_timeout=15s -c idle_in_transaction_session_timeout=10s -c timezone=UTC"
    )
    if schema is not None:
        options += f" -c search_path={schema}"
    if read_only:
        options += " -c default_transaction_read_only=on"
    return create_engine(
        url,
        hide_parameters=True,  # as above
        pool_size=size,
        max_overflow=0,
        pool_timeout=10,
        pool_pre_ping=True,
        isolation_level="REPEATABLE READ" if read_only else "READ COMMITTED",
        query_cache_size=1000,
        connect_args={"options": options, "connect_timeout": 5, "application_name": "lifesign"},
    )
