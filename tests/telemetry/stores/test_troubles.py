"""What stores in SQL promise when callers leave, writes fail, sessions are very long, and much is deleted."""

import asyncio
from collections import Counter

import pytest
from msgspec.structs import replace
from sqlalchemy import Connection, text

from lifesign.clock import EpochMs
from lifesign.db import StorageUnavailable
from lifesign.db.database import is_writing
from lifesign.telemetry.records import Body
from lifesign.telemetry.sessions import Summary
from lifesign.telemetry.spare_memory import give_back
from lifesign.telemetry.store import Appended, Stats
from lifesign.telemetry.stores.dictionary import number_of_project
from lifesign.telemetry.stores.shares import Share, drop_empty, grow, take_away
from lifesign.telemetry.stores.sql import SqlStore
from tests.telemetry.stores.builder import NOW, record
from tests.telemetry.stores.conftest import SQL_STORES, Opened
from tests.telemetry.stores.test_promises import DAY, EVER, TRACE, rows_left, some
from tests.telemetry.test_receiver_storage import locked
from tests.telemetry.test_spare_memory import MIB, needs_glibc, own_kib
from tests.wire import until

_MS = 1_000_000
_HOUR_NS = 3_600_000 * _MS


def sql_store(opened: Opened) -> SqlStore:
    assert isinstance(opened.store, SqlStore)
    return opened.store


# Callers that leave -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("lone_store", SQL_STORES, indirect=True)
def test_a_batch_whose_caller_left_is_stored_whole_or_not_at_all_and_the_next_one_too(lone_store: Opened) -> None:
    store = sql_store(lone_store)

    async def leave() -> Appended:
        await store.append("p", some(1), quota=0, now=NOW)
        with locked(lone_store.settings):
            left = asyncio.create_task(store.append("p", some(200, first=2), quota=0, now=NOW))
            await until(is_writing)
            left.cancel()
            with pytest.raises(asyncio.CancelledError):
                await left
        await until(lambda: not is_writing())
        return await store.append("p", some(50, first=900), quota=0, now=NOW)

    later = lone_store.runner.run(leave())

    stored = rows_left(store)["spans"]
    assert later == Appended(new=50)
    assert stored in {51, 251}
    assert rows_left(store)["span_bodies"] == stored
    assert lone_store.runner.run(store.used("p", NOW)) == stored
    assert lone_store.runner.run(store.append("p", some(201), quota=0, now=NOW)) == Appended(251 - stored, stored - 50)


# Summaries ----------------------------------------------------------------------------------------------------------
async def _refuse_to_keep_summaries(store: SqlStore) -> None:
    """Let writes of summaries fail as those of a full or write-protected disk do, and nothing else."""
    if store.kind == "sqlite":
        await store.db.write(lambda conn: conn.exec_driver_sql("PRAGMA query_only=1").close())
        return
    refuse = "BEGIN RAISE EXCEPTION USING ERRCODE = 'disk_full'; END"
    for statement in (
        f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $${refuse}$$",
        "CREATE TRIGGER refuse BEFORE UPDATE ON sessions EXECUTE FUNCTION refuse()",
    ):
        await store.db.write(lambda conn, each: conn.exec_driver_sql(each).close(), statement)


@pytest.mark.parametrize("lone_store", SQL_STORES, indirect=True)
def test_a_summary_that_cannot_be_kept_is_told_all_the_same(lone_store: Opened) -> None:
    store = sql_store(lone_store)

    async def read() -> tuple[list[Summary], list[Summary], bool]:
        await store.append("p", some(3), quota=0, now=NOW)
        await _refuse_to_keep_summaries(store)
        # Seen to be refused, so that the reads below cannot have kept anything.
        with pytest.raises(StorageUnavailable):
            await store.db.write(lambda conn: conn.execute(text("UPDATE sessions SET summary = 'x'")).rowcount)
        listed = await store.sessions("p", *EVER, environment=None, limit=9, after=None)
        page = await store.session("p", "deep", *EVER, limit=9, after=None)
        assert page is not None
        kept = await store.db.read(lambda conn: conn.scalar(text("SELECT summary FROM sessions")))
        return listed, [page.summary], kept is not None

    listed, one, is_kept = lone_store.runner.run(read())

    assert [(each.session_id, each.turns, each.outcome) for each in listed] == [("deep", 3, "ok")]
    assert one == listed
    assert not is_kept


def test_a_session_of_more_than_20000_records_is_counted_whole_and_judged_by_the_first_by_start(
    lone_store: Opened,
) -> None:
    store = lone_store.store
    # Half of them in each of two traces, all at one instant: then by id. What comes last so, comes first to the store.
    many = [
        record(
            trace_id=f"{1 + number // 10_000:032x}",
            span_id=f"{number:016x}",
            own_session="deep",
            input_tokens=1,
            model="beyond" if number >= 19_995 else None,
        )
        for number in reversed(range(20_000))
    ]
    early = [
        replace(
            each,
            trace_id=f"{3:032x}",
            status="error",
            signal_type="tool_call_failed",
            start_ns=NOW * _MS - _HOUR_NS,
            end_ns=NOW * _MS + _HOUR_NS,
            received_at=EpochMs(NOW + 1000),
            input_tokens=100,
            model="within",
        )
        for each in many[:5]
    ]

    async def told() -> tuple[Summary, Summary, Stats]:
        await store.append("p", many, quota=0, now=NOW)
        await store.append("p", early, quota=0, now=EpochMs(NOW + 1000))
        [listed] = await store.sessions("p", *EVER, environment=None, limit=9, after=None)
        page = await store.session("p", "deep", *EVER, limit=1, after=None)
        assert page is not None
        return listed, page.summary, await store.stats("p", *EVER)

    listed, again, stats = lone_store.runner.run(told())

    assert (listed.turns, listed.traces, listed.failures) == (20_005, 3, 5)
    assert listed.signals == {"info": 20_000, "tool_call_failed": 5}
    assert (listed.started_ns, listed.ended_ns) == (NOW * _MS - _HOUR_NS, NOW * _MS + _HOUR_NS)
    assert listed.last_received_at == NOW + 1000
    # The five that failed, and 19,995 that did not, later; without the last five.
    assert (listed.outcome, listed.totals.input, listed.models) == ("recovered", 5 * 100 + 19_995, ("within",))
    assert again == listed
    assert (stats.sessions_by_outcome, stats.totals) == ({"recovered": 1}, listed.totals)


# Much at once -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("lone_store", SQL_STORES, indirect=True)
def test_100000_sessions_lose_their_records_in_one_call(lone_store: Opened) -> None:
    store = sql_store(lone_store)
    names = [f"s{number}" for number in range(100_000)]
    gains = {name: Share(turns=1) for name in names} | {"s7": Share(2, NOW, Counter({1: 1}), Counter({"other": 1}))}
    losses = {name: Share(turns=1) for name in names} | {"s7": Share(1, 0, Counter({1: 1}), Counter({"other": 1}))}

    def come_and_go(conn: Connection) -> tuple[int, list[int]]:
        ids = grow(conn, number_of_project(conn, "p"), gains)
        take_away(conn, {ids[name]: lost for name, lost in losses.items()})
        return ids["s7"], drop_empty(conn, ids.values())

    goes_on, left = lone_store.runner.run(store.db.write(come_and_go))

    assert left == [goes_on]
    assert rows_left(store) == {"span_projects": 1, "sessions": 1}


# The file -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("lone_store", ["sqlite"], indirect=True)
def test_the_file_gets_smaller_when_records_are_deleted(lone_store: Opened) -> None:
    store = sql_store(lone_store)
    file = lone_store.settings.data_dir / "telemetry.db"

    async def pages() -> int:
        return await store.db.read(lambda conn: conn.scalar(text("PRAGMA page_count"))) or 0

    async def fill_and_purge() -> tuple[int, int]:
        large = [replace(each, body=Body(name=f"{each.span_id}" * 200)) for each in some(2000, trace_id=TRACE)]
        await store.append("p", large, quota=0, now=NOW)
        full = await pages()
        while await store.purge(EpochMs(NOW + DAY), 500):
            pass
        return full, await pages()

    full, left = lone_store.runner.run(fill_and_purge())
    lone_store.runner.run(store.close())

    assert full > 1000
    assert left < full / 5
    # Closing carries the log over into the file.
    assert file.stat().st_size == left * 4096


@needs_glibc
@pytest.mark.parametrize("lone_store", ["sqlite"], indirect=True)
def test_pages_that_were_written_are_let_go_of_and_the_store_goes_on(lone_store: Opened) -> None:
    store, runner = lone_store.store, lone_store.runner
    large = [replace(each, body=Body(name="x" * 9000)) for each in some(2000)]
    assert runner.run(store.append("p", large, quota=0, now=NOW)) == Appended(new=2000)
    give_back()
    before = own_kib()

    runner.run(store.spare_memory())
    give_back()

    assert before - own_kib() > 10 * MIB
    assert runner.run(store.append("p", some(2001), quota=0, now=NOW)) == Appended(new=1, duplicate=2000)
