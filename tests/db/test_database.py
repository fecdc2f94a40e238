"""The handle: what shares a commit, what undoes what, what is durable, and what happens at the bound."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, create_engine, event, inspect, select, text
from sqlalchemy.exc import DBAPIError, OperationalError

from lifesign.clock import EpochMs
from lifesign.db import (
    Database,
    ReadersBusy,
    StorageUnavailable,
    WriterBusy,
    database,
    is_writing,
    migrate,
    open_database,
)
from lifesign.db.failpoints import Failpoints
from lifesign.db.open import (
    LOCK_FILE,
    SQLITE_FILE,
    DataDirectoryInUse,
    data_directory_lock,
    postgres_engine,
    sqlite_engine,
)
from lifesign.db.schema import metadata, projects
from lifesign.db.wakeups import wake_after_commit
from lifesign.settings import Settings
from tests.wire import until

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@asynccontextmanager
async def opened(settings: Settings, failpoints: str = "") -> AsyncIterator[Database]:
    db = open_database(settings, Failpoints(failpoints))
    try:
        yield db
    finally:
        await db.close()


@pytest.fixture
async def db(settings: Settings) -> AsyncIterator[Database]:
    async with opened(settings) as handle:
        yield handle


def add(conn: Connection, name: str) -> str:
    conn.execute(projects.insert().values(id=f"prj_{name}", name=name, created_at=EpochMs(0)))
    return name


def add_and_fail(conn: Connection, name: str) -> str:
    add(conn, name)
    raise Refused(name)


def names(conn: Connection) -> list[str]:
    return list(conn.scalars(select(projects.c.name).order_by(projects.c.name)))


class Refused(Exception):
    """A caller's own failure."""


class Gate:
    """Keeps every writer thread inside a transaction until it is opened, so that a queue builds up behind them."""

    def __init__(self, db: Database) -> None:
        self._open = threading.Event()
        self._entered = threading.Semaphore(0)
        self._writers = 1 if db.is_sqlite else 4
        self._db = db

    async def close(self) -> list["asyncio.Task[None]"]:
        """Return once every writer thread is held."""
        held = [asyncio.create_task(self._db.write(self._hold)) for _ in range(self._writers)]
        for _ in held:
            await asyncio.to_thread(self._entered.acquire)
        return held

    def _hold(self, _conn: Connection) -> None:
        self._entered.release()
        assert self._open.wait(30)

    def open(self) -> None:
        self._open.set()


@contextmanager
def counted_commits(db: Database) -> Iterator[list[int]]:
    """A list that grows with every commit of the writer."""
    commits: list[int] = []

    def count(_conn: Connection) -> None:
        commits.append(1)

    event.listen(db.engine, "commit", count)
    try:
        yield commits
    finally:
        event.remove(db.engine, "commit", count)


async def started(*coroutines: Any) -> list["asyncio.Task[Any]"]:
    """Tasks that have run up to their first wait, in this order. Any: results of different types."""
    tasks = [asyncio.create_task(each) for each in coroutines]
    await asyncio.sleep(0)
    return tasks


# Sharing a commit ---------------------------------------------------------------------------------------------------
@on_sqlite
async def test_what_waits_together_shares_a_commit_on_sqlite(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    # Or a busy machine takes so long over the fifty that some are answered sooner.
    monkeypatch.setattr(database, "_LONG_S", 60)
    gate = Gate(db)
    with counted_commits(db) as commits:
        held = await gate.close()
        waiting = await started(*(db.write(add, f"p{n:02}") for n in range(50)))
        gate.open()
        results = await asyncio.gather(*held, *waiting)

    assert results[1:] == [f"p{n:02}" for n in range(50)]
    assert len(commits) == 2
    assert await db.read(names) == [f"p{n:02}" for n in range(50)]


async def test_the_items_of_one_hot_statement_are_handed_over_together(db: Database) -> None:
    gate = Gate(db)
    seen: list[list[int]] = []

    def record(conn: Connection, items: Sequence[int]) -> list[int]:
        seen.append(list(items))
        return [item * 10 for item in items]

    held = await gate.close()
    waiting = await started(*(db.write_batched(record, n) for n in range(30)))
    gate.open()
    await asyncio.gather(*held)

    assert await asyncio.gather(*waiting) == [n * 10 for n in range(30)]
    assert seen == [list(range(30))]


@on_sqlite
async def test_only_neighbours_are_handed_over_together(db: Database) -> None:
    order: list[object] = []

    def record(conn: Connection, items: Sequence[int]) -> list[None]:
        order.append(list(items))
        return [None] * len(items)

    def other(conn: Connection) -> None:
        order.append("other")

    gate = Gate(db)
    held = await gate.close()
    waiting = await started(
        db.write_batched(record, 1), db.write_batched(record, 2), db.write(other), db.write_batched(record, 3)
    )
    gate.open()
    await asyncio.gather(*held, *waiting)

    assert order == [[1, 2], "other", [3]]


@on_sqlite
async def test_writes_happen_in_the_order_they_were_asked_for_on_sqlite(db: Database) -> None:
    order: list[int] = []

    def note(_conn: Connection, n: int) -> None:
        order.append(n)

    await asyncio.gather(*(db.write(note, n) for n in range(100)))

    assert order == list(range(100))


# Failing alone ------------------------------------------------------------------------------------------------------
async def test_a_callers_failure_undoes_only_its_own_work(db: Database) -> None:
    gate = Gate(db)
    held = await gate.close()
    waiting = await started(
        db.write(add, "before"), db.write(add_and_fail, "bad"), db.write(add, "after"), db.write(add, "before")
    )
    gate.open()
    await asyncio.gather(*held)
    before, bad, after, again = await asyncio.gather(*waiting, return_exceptions=True)

    assert (before, after) == ("before", "after") or not db.is_sqlite
    assert isinstance(bad, Refused)
    # The second with a name that must be unique is refused by the database; which of the two is a matter of order.
    assert sum(isinstance(each, Exception) for each in (before, again)) == 1
    assert await db.read(names) == ["after", "before"]


async def test_an_exception_among_the_results_is_raised_to_its_caller_alone(db: Database) -> None:
    def record(conn: Connection, items: Sequence[str]) -> list[str | Exception]:
        return [Refused(item) if item == "bad" else add(conn, item) for item in items]

    gate = Gate(db)
    held = await gate.close()
    waiting = await started(*(db.write_batched(record, each) for each in ("a", "bad", "b")))
    gate.open()
    await asyncio.gather(*held)
    a, bad, b = await asyncio.gather(*waiting, return_exceptions=True)

    assert (a, b) == ("a", "b")
    assert isinstance(bad, Refused)
    assert await db.read(names) == ["a", "b"]


async def test_it_is_known_while_somebody_writes(db: Database) -> None:
    seen: list[bool] = []

    def look(_conn: Connection) -> None:
        seen.append(is_writing())

    await db.write(look)
    await db.read(lambda _: seen.append(is_writing()))

    assert seen == [True, False]


async def test_a_writer_forgets_what_it_has_written_although_nobody_writes_again(db: Database) -> None:
    class Large:
        """What may take a hundred megabytes."""

    written = Large()
    kept = weakref.ref(written)

    await db.write(lambda _conn, _written: None, written)
    del written

    await until(lambda: kept() is None)


async def test_when_a_batch_fails_each_item_is_tried_alone(db: Database) -> None:
    tried: list[list[str]] = []

    def record(conn: Connection, items: Sequence[str]) -> list[str]:
        tried.append(list(items))
        return [(add_and_fail if item == "bad" else add)(conn, item) for item in items]

    gate = Gate(db)
    held = await gate.close()
    waiting = await started(*(db.write_batched(record, each) for each in ("a", "bad", "b")))
    gate.open()
    await asyncio.gather(*held)
    a, bad, b = await asyncio.gather(*waiting, return_exceptions=True)

    assert tried == [["a", "bad", "b"], ["a"], ["bad"], ["b"]]
    assert (a, b) == ("a", "b")
    assert isinstance(bad, Refused)
    assert await db.read(names) == ["a", "b"]


async def test_a_read_sees_one_moment_and_writes_nothing(db: Database) -> None:
    await db.write(add, "there")

    assert await db.read(names) == ["there"]
    with pytest.raises((StorageUnavailable, DBAPIError)):
        await db.read(add, "forbidden")
    assert await db.read(names) == ["there"]


async def test_a_caller_that_went_away_disturbs_nobody(db: Database) -> None:
    gate = Gate(db)
    held = await gate.close()
    gone, stays = await started(db.write(add, "gone"), db.write(add, "stays"))
    gone.cancel()
    gate.open()
    await asyncio.gather(*held)

    assert await stays == "stays"
    # It had been queued, so it is done, on PostgreSQL by another writer; only the answer finds nobody.
    async with asyncio.timeout(20):
        while await db.read(names) != ["gone", "stays"]:
            pass


# The bound ----------------------------------------------------------------------------------------------------------
async def test_past_the_bound_of_the_queue_a_caller_is_refused_at_once(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert database.MAX_QUEUE == 20_000
    monkeypatch.setattr(database, "MAX_QUEUE", 5)
    gate = Gate(db)
    held = await gate.close()
    waiting = await started(*(db.write(add, f"p{n}") for n in range(5)))

    with pytest.raises(WriterBusy):
        await db.write(add, "refused")
    gate.open()
    await asyncio.gather(*held, *waiting)
    assert await db.read(names) == ["p0", "p1", "p2", "p3", "p4"]

    # There is room again.
    await db.write(add, "later")


async def test_past_their_bound_reads_are_refused_at_once(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "MAX_QUEUE", 3)
    gate = threading.Event()

    def wait(_conn: Connection) -> bool:
        return gate.wait(10)

    waiting = await started(*(db.read(wait) for _ in range(3)))
    with pytest.raises(ReadersBusy):
        await db.read(names)
    gate.set()
    assert await asyncio.gather(*waiting) == [True] * 3

    # There is room again.
    assert await db.read(names) == []


async def test_a_closed_database_takes_nothing_more_but_ends_what_was_queued(settings: Settings) -> None:
    db = open_database(settings)
    gate = Gate(db)
    held = await gate.close()
    waiting = await started(*(db.write(add, f"p{n}") for n in range(5)))
    closing = asyncio.create_task(db.close())
    await asyncio.sleep(0)
    with pytest.raises(WriterBusy):
        await db.write(add, "refused")
    gate.open()
    await asyncio.gather(*held, *waiting)
    await closing

    async with opened(settings) as again:
        assert await again.read(names) == ["p0", "p1", "p2", "p3", "p4"]


# Durability ---------------------------------------------------------------------------------------------------------
async def test_what_was_answered_is_there_for_everybody_else(settings: Settings, db: Database) -> None:
    for n in range(20):
        await db.write(add, f"p{n:02}")
        assert others_see(settings) == [f"p{k:02}" for k in range(n + 1)]


def others_see(settings: Settings) -> list[str]:
    """What a connection that shares nothing with the handle finds."""
    query = "SELECT name FROM projects ORDER BY name"
    if settings.database_url is not None:
        with psycopg.connect(settings.database_url.get_secret_value()) as conn:
            return [row[0] for row in conn.execute(query)]
    connection = sqlite3.connect(settings.data_dir / SQLITE_FILE)
    try:
        return [row[0] for row in connection.execute(query)]
    finally:
        connection.close()


async def test_after_a_kill_everything_that_was_answered_is_there(settings: Settings) -> None:
    environment = {"LIFESIGN_DATA_DIR": str(settings.data_dir), "PATH": os.environ["PATH"]}
    if settings.database_url is not None:
        environment["LIFESIGN_DATABASE_URL"] = settings.database_url.get_secret_value()

    answered = await asyncio.to_thread(answered_until_killed, environment)

    async with opened(settings) as db:
        assert len(answered) >= 100
        assert set(answered) - set(await db.read(names)) == set()


def answered_until_killed(environment: dict[str, str]) -> list[str]:
    """What a process says was answered, until SIGKILL meets it in the middle of its work."""
    answered: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER], stdout=subprocess.PIPE, env=environment, cwd=Path(__file__).parents[2]
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                answered.append(line.decode().strip())
                if len(answered) == 100:
                    process.kill()
        finally:
            process.kill()
    assert process.returncode == -9
    return answered


_WRITER = """
import asyncio, itertools
from lifesign.db import open_database
from lifesign.settings import Settings
from tests.db.test_database import add

async def main():
    db, numbers = open_database(Settings()), itertools.count()
    async def write():
        for n in numbers:
            print(await db.write(add, f"p{n}"), flush=True)
    await asyncio.gather(*(write() for _ in range(8)))

asyncio.run(main())
"""


async def test_a_transaction_that_failed_as_a_whole_is_told_to_all_and_left_nothing(db: Database) -> None:
    def lose_the_connection(conn: Connection) -> None:
        add(conn, "lost")
        raw = conn.connection.driver_connection
        assert raw is not None
        raw.close()

    with pytest.raises(StorageUnavailable):
        await db.write(lose_the_connection)

    assert await db.write(add, "next") == "next"
    assert await db.read(names) == ["next"]


# Wake-ups -----------------------------------------------------------------------------------------------------------
async def test_a_loop_is_woken_after_the_commit(db: Database) -> None:
    def write(conn: Connection) -> None:
        wake_after_commit(conn, "sweep")
        assert not db.wakeups.event("sweep").is_set()

    await db.write(write)

    async with asyncio.timeout(5):
        await db.wakeups.event("sweep").wait()
    assert not db.wakeups.event("deliver").is_set()


async def test_a_write_that_failed_wakes_nobody(db: Database) -> None:
    def write(conn: Connection) -> None:
        wake_after_commit(conn, "sweep")
        raise Refused

    with pytest.raises(Refused):
        await db.write(write)
    await db.write(add, "other")

    assert not db.wakeups.event("deliver").is_set()


# Settings of the connections ----------------------------------------------------------------------------------------
@on_sqlite
async def test_sqlite_syncs_fully_and_only_the_writer_checkpoints(db: Database, settings: Settings) -> None:
    def pragmas(conn: Connection) -> list[object]:
        words = ("journal_mode", "synchronous", "wal_autocheckpoint", "query_only")
        return [conn.exec_driver_sql(f"PRAGMA {word}").scalar() for word in words]

    assert await db.write(pragmas) == ["wal", 2, 16000, 0]
    assert await db.read(pragmas) == ["wal", 2, 0, 1]


@on_postgresql
async def test_postgres_commits_to_disk_and_has_time_outs(db: Database) -> None:
    def shown(conn: Connection) -> list[object]:
        words = (
            "synchronous_commit",
            "statement_timeout",
            "idle_in_transaction_session_timeout",
            "transaction_isolation",
        )
        return [conn.exec_driver_sql(f"SHOW {word}").scalar() for word in words]

    assert await db.write(shown) == ["on", "15s", "10s", "read committed"]
    assert await db.read(shown) == ["on", "15s", "10s", "repeatable read"]


# The data directory -------------------------------------------------------------------------------------------------
class Conflict(Exception):
    """What a driver says when two transactions met on the same rows."""

    sqlstate = "40001"


async def test_a_fault_after_many_conflicts_is_told_to_the_one_at_fault_and_the_writer_goes_on(db: Database) -> None:
    met: list[int] = []

    def record(_: Connection, items: Sequence[str]) -> list[str]:
        if len(items) > 1 and len(met) < 4:
            met.append(len(items))
            raise OperationalError("statement", {}, Conflict())
        if "bad" in items:
            raise KeyError("bad")
        return [f"{item} is written" for item in items]

    gate = Gate(db)
    held = await gate.close()
    waiting = await started(*(db.write_batched(record, each) for each in ("a", "bad", "b")))
    gate.open()
    await asyncio.gather(*held)
    a, bad, b = await asyncio.gather(*waiting, return_exceptions=True)

    assert met == [3, 3, 3, 3]
    assert (a, b) == ("a is written", "b is written")
    assert isinstance(bad, KeyError)
    assert await db.write_batched(record, "c") == "c is written"


async def test_who_reads_the_same_at_once_shares_a_snapshot(db: Database) -> None:
    looked: list[list[str]] = []
    is_reading, go_on = threading.Event(), threading.Event()

    def look(conn: Connection, items: Sequence[str]) -> list[str]:
        looked.append(list(items))
        is_reading.set()
        assert go_on.wait(10)
        return [f"{item} {conn.scalar(text('SELECT 1'))}" for item in items]

    first = asyncio.create_task(db.read_batched(look, "a"))
    await asyncio.to_thread(is_reading.wait, 10)
    others = [asyncio.create_task(db.read_batched(look, item)) for item in "bcd"]
    await asyncio.sleep(0)
    others[1].cancel()
    go_on.set()

    assert await first == "a 1"
    assert await asyncio.gather(*others, return_exceptions=True) == ["b 1", ANY, "d 1"]
    assert others[1].cancelled()
    assert looked == [["a"], ["b", "c", "d"]]


async def test_what_a_shared_read_raises_is_raised_to_all_and_to_nobody_later(db: Database) -> None:
    def fail(_: Connection, items: Sequence[str]) -> list[str]:
        if "bad" in items:
            raise KeyError(items[0])
        return list(items)

    told = await asyncio.gather(*(db.read_batched(fail, item) for item in ("bad", "a")), return_exceptions=True)

    assert [type(each) for each in told] == [KeyError, KeyError]
    assert await db.read_batched(fail, "b") == "b"


def test_one_process_holds_a_data_directory(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    with data_directory_lock(directory):
        with pytest.raises(DataDirectoryInUse) as refusal, data_directory_lock(directory):
            pytest.fail("two hold it")
        assert refusal.value.pid == str(os.getpid())
        assert str(refusal.value) == f"data directory {directory} is in use by process {os.getpid()}"
        assert (directory / LOCK_FILE).stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700

    with data_directory_lock(directory):
        pass


def test_another_process_is_refused_and_named_the_holder(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom lifesign.db.open import *\nwith data_directory_lock(pathlib.Path(sys.argv[1])): pass"
    )
    with data_directory_lock(tmp_path):
        refused = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], check=False, capture_output=True, text=True
        )
    allowed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, capture_output=True, text=True)

    assert f"is in use by process {os.getpid()}" in refused.stderr
    assert (refused.returncode, allowed.returncode) == (1, 0)


# Migrations ---------------------------------------------------------------------------------------------------------
def test_migrations_of_an_empty_database_make_exactly_the_declared_tables(settings: Settings) -> None:
    engine = _engine(settings)
    assert migrate.upgrade(engine) is None
    assert migrate.upgrade(engine) == migrate.newest()

    with engine.begin() as conn:
        assert compare_metadata(MigrationContext.configure(conn), metadata) == []
        migrated = _definitions(conn)
        metadata.drop_all(conn)
        metadata.create_all(conn)
        declared = _definitions(conn)
    engine.dispose()
    # Alembic compares neither the condition of an index nor its order; the databases' own words tell both.
    assert migrated == declared
    assert len(migrated) > 20


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("table", "hot"),
    [
        (
            "heartbeats",
            {"last_checkin_at", "checkin_count", "anchor_at", "next_deadline", "fires_at", "armed_at", "run_due_at"},
        ),
        ("runs", {"progress_at", "lease_until"}),
        ("systems", {"first_heartbeat"}),
    ],
)
def test_what_is_written_most_is_changed_in_place(settings: Settings, table: str, hot: set[str]) -> None:
    """No index holds it and no condition of an index names it: PostgreSQL would write to every index of the table."""
    engine = _engine_again(settings)
    with engine.begin() as conn:
        named = conn.scalars(
            text(
                "SELECT a.attname FROM pg_depend d JOIN pg_class i ON i.oid = d.objid AND i.relkind = 'i' "
                "JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid "
                "WHERE d.classid = 'pg_class'::regclass AND d.refobjid = CAST(:table AS regclass)"
            ),
            {"table": table},
        ).all()
        columns = conn.scalars(
            text("SELECT attname FROM pg_attribute WHERE attrelid = CAST(:table AS regclass)"), {"table": table}
        ).all()
    engine.dispose()

    assert hot <= set(columns)
    assert "id" in named or "heartbeat_id" in named
    assert hot & set(named) == set()


def _engine(settings: Settings) -> Any:  # Any: the two functions share no signature, but the type is Engine
    if settings.database_url is not None:
        engine = postgres_engine(settings, size=1)
        with engine.begin() as conn:
            # Tests are given a database with all tables; these are about an empty one.
            conn.execute(text("DROP SCHEMA public CASCADE"))
            conn.execute(text("CREATE SCHEMA public"))
        return engine
    settings.data_dir.mkdir()
    return sqlite_engine(settings.data_dir / SQLITE_FILE)


def _definitions(conn: Connection) -> dict[str, str]:
    """Every table and index, in the words of the database."""
    if conn.dialect.name == "sqlite":
        rows = conn.execute(
            text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'alembic%'")
        )
        return {row.name: " ".join(row.sql.split()).replace("( ", "(").replace(" )", ")") for row in rows}
    indexes = conn.execute(
        text(
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
        )
    )
    columns = conn.execute(
        text(
            "SELECT table_name || '.' || column_name, "
            "data_type || ' ' || is_nullable || ' ' || coalesce(column_default, '')"
            " FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'"
        )
    )
    storage = conn.execute(
        text(
            "SELECT relname, reloptions::text FROM pg_class WHERE relkind = 'r' AND reloptions IS NOT NULL"
            " AND relnamespace = 'public'::regnamespace"
        )
    )
    return {row[0]: row[1] for rows in (indexes, columns, storage) for row in rows}


def test_a_schema_of_a_later_version_is_refused_and_left_alone(settings: Settings) -> None:
    engine = _engine(settings)
    migrate.upgrade(engine)
    with engine.begin() as conn:
        conn.execute(text("UPDATE alembic_version SET version_num = '9999_later'"))
    engine.dispose()

    with pytest.raises(migrate.SchemaTooNew) as refusal:
        open_database(settings)

    assert (refusal.value.found, refusal.value.known) == ("9999_later", migrate.newest())
    again = _engine_again(settings)
    with again.begin() as conn:
        assert migrate.current(conn) == "9999_later"
    again.dispose()


def _engine_again(settings: Settings) -> Any:  # Any: as above
    if settings.database_url is not None:
        return postgres_engine(settings, size=1)
    return create_engine(f"sqlite:///{settings.data_dir / SQLITE_FILE}")


def test_a_migration_that_fails_leaves_an_empty_database(settings: Settings) -> None:
    engine = _engine(settings)
    with engine.begin() as conn:
        # The last table there is already, so the migration fails half-way.
        last = metadata.sorted_tables[-1]
        last.create(conn)
    with pytest.raises(Exception, match="already exists"):
        migrate.upgrade(engine)

    with engine.begin() as conn:
        assert inspect(conn).get_table_names() == [last.name]
    engine.dispose()
