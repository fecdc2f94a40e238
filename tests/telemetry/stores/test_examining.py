"""Examining takes its time, and nobody else's: others read and write meanwhile, and it ends when its caller leaves."""

import asyncio
import threading
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import Connection, delete, select, text, update

from lifesign.clock import EpochMs
from lifesign.db.database import LENGTHY
from lifesign.db.stop import Stop
from lifesign.diagnosis.details import Fetch, Wanted
from lifesign.diagnosis.facts import Facts, Windows
from lifesign.telemetry.store import Filter
from lifesign.telemetry.stores.clickhouse.store import ClickHouseStore
from lifesign.telemetry.stores.sql import SqlStore
from lifesign.telemetry.stores.tables import span_digests, span_moves, span_projects
from tests.telemetry.stores.builder import NOW, record
from tests.telemetry.stores.conftest import SQL_STORES, Opened
from tests.telemetry.stores.test_promises import EVER, some
from tests.wire import until

HOUR_MS = 3_600_000
WINDOWS = Windows(
    current=(EpochMs(NOW - HOUR_MS), EpochMs(NOW + 1)), baseline=(EpochMs(NOW - 2 * HOUR_MS), EpochMs(NOW - HOUR_MS))
)
_ENDLESS = {
    "sqlite": "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c",
    "postgresql": "SELECT pg_sleep(600)",
}


def _records(facts: Facts, _fetch: Fetch) -> int:
    return facts.current.records


def test_others_read_write_and_examine_meanwhile(a_store: Opened) -> None:
    project, store = a_store.new_project(), a_store.store
    began, may_end = threading.Event(), threading.Event()

    def judge(facts: Facts, fetch: Fetch) -> tuple[int, int, int]:
        began.set()
        assert may_end.wait(60)
        values = fetch(Wanted(op_hashes=frozenset({None}))).values[None]
        return facts.current.records, sum(values["environment"].values()), len(list(facts.current.traces))

    async def live() -> tuple[tuple[int, int, int], int, int]:
        await store.append(project, some(3), quota=0, now=NOW)
        examining = asyncio.create_task(store.examine(project, WINDOWS, judge))
        await until(began.is_set, within_s=60)
        async with asyncio.timeout(60):
            told = await store.append(project, some(2, first=9, at=NOW + HOUR_MS), quota=0, now=NOW)
            found = await store.window(project, *EVER, only=Filter(), limit=9, after=None)
            other = await store.examine(project, WINDOWS, _records)
        assert told.new == 2
        may_end.set()
        return await examining, len(found), other

    examined, found, other = a_store.runner.run(live())

    assert examined[:2] == (3, 3)
    assert (found, other) == (5, 3)


def test_others_read_and_write_while_its_records_come(a_store: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    project, store = a_store.new_project(), a_store.store
    began, may_end = threading.Event(), threading.Event()

    def judge(facts: Facts, _fetch: Fetch) -> int:
        traces = iter(facts.current.traces)
        first = next(traces)
        began.set()
        assert may_end.wait(60)
        return len(first) + sum(len(steps) for steps in traces)

    async def live() -> tuple[int, int]:
        # They are too many to be held, where that makes a difference.
        monkeypatch.setitem(vars(store), "most_held", 0)
        records = [
            record(trace_id=f"{trace:032x}", span_id=f"{number:016x}", kind="agent", received_at=EpochMs(NOW))
            for trace in range(1, 4)
            for number in range(1, 5)
        ]
        await store.append(project, records, quota=0, now=NOW)
        examining = asyncio.create_task(store.examine(project, WINDOWS, judge))
        await until(began.is_set, within_s=60)
        async with asyncio.timeout(60):
            await store.append(project, some(2, first=9), quota=0, now=NOW)
            found = await store.window(project, *EVER, only=Filter(), limit=99, after=None)
        may_end.set()
        return await examining, len(found)

    assert a_store.runner.run(live()) == (12, 14)


@pytest.mark.parametrize("a_store", SQL_STORES, indirect=True)
def test_what_is_stored_meanwhile_is_in_no_detail(a_store: Opened) -> None:
    project, store = a_store.new_project(), a_store.store
    loop_of = asyncio.get_running_loop

    async def live() -> int:
        await store.append(project, some(3), quota=0, now=NOW)
        loop = loop_of()

        def judge(facts: Facts, fetch: Fetch) -> int:
            assert facts.current.records == 3
            stored = asyncio.run_coroutine_threadsafe(
                store.append(project, some(2, first=9), quota=0, now=NOW), loop
            ).result(60)
            assert stored.new == 2
            return sum(fetch(Wanted(op_hashes=frozenset({None}))).values[None]["environment"].values())

        return await store.examine(project, WINDOWS, judge)

    assert a_store.runner.run(live()) == 3


def test_when_the_caller_leaves_it_ends_and_the_next_ones_are_served(a_store: Opened) -> None:
    project, store = a_store.new_project(), a_store.store
    began = threading.Semaphore(0)
    ended = threading.Semaphore(0)

    def judge(_facts: Facts, fetch: Fetch) -> None:
        began.release()
        try:
            while True:
                fetch(Wanted(op_hashes=frozenset({None})))
        finally:
            ended.release()

    async def leave() -> list[int]:
        await store.append(project, some(3), quota=0, now=NOW)
        for _ in range(2 * LENGTHY):
            examining = asyncio.create_task(store.examine(project, WINDOWS, judge))
            await until(lambda: began.acquire(blocking=False), within_s=60)
            examining.cancel()
            with pytest.raises(asyncio.CancelledError):
                await examining
        async with asyncio.timeout(60):
            return [await store.examine(project, WINDOWS, _records) for _ in range(2 * LENGTHY)]

    assert a_store.runner.run(leave()) == [3] * (2 * LENGTHY)
    assert all(ended.acquire(timeout=30) for _ in range(2 * LENGTHY))


@pytest.mark.parametrize("a_store", SQL_STORES, indirect=True)
def test_a_statement_at_work_is_ended_and_its_connection_serves_on(a_store: Opened) -> None:
    store = a_store.store
    assert isinstance(store, SqlStore)
    began, ended = threading.Event(), threading.Event()

    def endless(conn: Connection, _stop: Stop) -> None:
        began.set()
        try:
            conn.execute(text(_ENDLESS[store.kind])).all()
        finally:
            ended.set()

    async def leave() -> int:
        for _ in range(LENGTHY):
            began.clear()
            ended.clear()
            reading = asyncio.create_task(store.db.read_at_length(endless, limit_s=60))
            await until(began.is_set)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            await until(ended.is_set, within_s=20)
        async with asyncio.timeout(20):
            told = [await store.db.read_at_length(_one, limit_s=60) for _ in range(2 * LENGTHY)]
            return sum(told) + await store.db.read(lambda conn: int(conn.scalar(text("SELECT 1")) or 0))

    assert a_store.runner.run(leave()) == 2 * LENGTHY + 1


def _one(conn: Connection, _stop: Stop) -> int:
    return int(conn.scalar(text("SELECT 1")) or 0)


def test_what_the_judge_raises_is_raised(a_store: Opened) -> None:
    def judge(_facts: Facts, _fetch: Fetch) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        a_store.runner.run(a_store.store.examine(a_store.new_project(), WINDOWS, judge))


def test_a_project_without_records_has_none(a_store: Opened) -> None:
    assert a_store.runner.run(a_store.store.examine(a_store.new_project(), WINDOWS, _records)) == 0


def test_of_more_records_than_are_read_the_newest_are_and_the_others_are_counted(a_store: Opened) -> None:
    project, store = a_store.new_project(), a_store.store
    windows = Windows(WINDOWS.current, WINDOWS.baseline, most_records=1000)

    async def told() -> tuple[Any, ...]:
        for number in range(3):
            at = NOW - 100 + number
            await store.append(project, some(500, first=1 + 500 * number, at=at), quota=0, now=NOW)
        return await store.examine(
            project, windows, lambda facts, _: (facts.current.records, facts.effective_since, dict(facts.notices))
        )

    records, effective_since, notices = a_store.runner.run(told())

    assert (records, effective_since) == (1000, NOW - 99)
    assert notices["window_truncated"] == 500


def test_what_clickhouse_does_not_have_yet_is_told(lone_store: Opened) -> None:
    store = lone_store.store
    if not isinstance(store, ClickHouseStore):
        return
    project = lone_store.new_project()

    async def told() -> tuple[int, int]:
        await store.append(project, some(2), quota=0, now=NOW)
        await store.examine(project, WINDOWS, _records)
        # Nothing is carried over any more.
        await store._flusher.stop()  # noqa: SLF001 - as a ClickHouse that hangs would have it
        store.drain_s = 0
        await store.append(project, some(3, first=9), quota=0, now=NOW)
        return await store.examine(
            project, WINDOWS, lambda facts, _: (facts.current.records, facts.notices["pending_records"])
        )

    assert lone_store.runner.run(told()) == (2, 3)


# Digests -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("a_store", SQL_STORES, indirect=True)
@pytest.mark.parametrize("change", ["older", "of another version", "gone"])
def test_what_has_no_digest_is_read_by_its_rows(a_store: Opened, change: str) -> None:
    project, store = a_store.new_project(), a_store.store
    assert isinstance(store, SqlStore)

    def changed(conn: Connection) -> int:
        number = select(span_projects.c.id).where(span_projects.c.project_id == project).scalar_subquery()
        first = (span_digests.c.project == number) & (span_digests.c.received_at < NOW)
        match change:
            case "older":
                return conn.execute(delete(span_digests).where(first)).rowcount
            case "gone":
                return conn.execute(delete(span_digests).where(span_digests.c.project == number)).rowcount
            case _:
                return conn.execute(update(span_digests).where(first).values(version=99)).rowcount

    async def told() -> tuple[int, int, int]:
        for at in (NOW - 1, NOW):
            records = some(300, first=1 + at - NOW + 1000 * (at == NOW), at=at)
            await store.append(project, records, quota=0, now=NOW)
        assert await store.db.write(changed) in {1, 2}
        return await store.examine(
            project,
            WINDOWS,
            lambda facts, fetch: (
                facts.current.records,
                facts.current.operations[0].records,
                sum(fetch(Wanted(op_hashes=frozenset({None}))).values[None]["environment"].values()),
            ),
        )

    assert a_store.runner.run(told()) == (600, 600, 600)


@pytest.mark.parametrize("a_store", SQL_STORES, indirect=True)
def test_what_a_node_of_another_version_moved_after_the_window_is_where_it_was_moved_to(a_store: Opened) -> None:
    project, store = a_store.new_project(), a_store.store
    assert isinstance(store, SqlStore)
    call = record(span_id="2" * 16, parent_id="1" * 16, kind="llm", received_at=EpochMs(NOW - 10_000))
    root = record(span_id="1" * 16, kind="agent", own_session="conv", received_at=EpochMs(NOW))

    def as_by_another_version(conn: Connection) -> tuple[int, int]:
        number = select(span_projects.c.id).where(span_projects.c.project_id == project).scalar_subquery()
        its = (span_digests.c.project == number) & (span_digests.c.received_at == NOW)
        return (
            conn.execute(delete(span_moves).where(span_moves.c.project == number)).rowcount,
            conn.execute(update(span_digests).where(its).values(version=99)).rowcount,
        )

    async def told() -> tuple[int, int]:
        await store.append(project, [call], quota=0, now=EpochMs(NOW - 10_000))
        await store.append(project, [root], quota=0, now=NOW)
        assert await store.db.write(as_by_another_version) == (2, 1)
        windows = Windows((EpochMs(NOW - 20_000), EpochMs(NOW - 5000)), (EpochMs(0), EpochMs(1)))
        return await store.examine(
            project, windows, lambda facts, _: (facts.current.sessions, facts.notices.get("no_session_id", 0))
        )

    assert a_store.runner.run(told()) == (1, 0)


def test_what_a_later_span_names_is_in_its_session_from_then_on(a_store: Opened) -> None:
    project, store = a_store.new_project(), a_store.store
    call = record(span_id="2" * 16, parent_id="1" * 16, kind="llm", agent="writer", total_tokens=60_000)
    root = record(span_id="1" * 16, kind="agent", agent="root", own_session="conv", received_at=EpochMs(NOW))

    async def told(at: int) -> tuple[Any, ...]:
        windows = Windows((EpochMs(at), EpochMs(at + 1)), (EpochMs(0), EpochMs(1)))
        return await store.examine(
            project,
            windows,
            lambda facts, _: (
                facts.current.sessions,
                [tuple(each) for each in facts.current.heavy_sessions],
                facts.notices.get("no_session_id", 0),
            ),
        )

    async def live() -> list[tuple[Any, ...]]:
        await store.append(project, [replace(call, received_at=EpochMs(NOW - 1))], quota=0, now=NOW)
        before = await told(NOW - 1)
        await store.append(project, [root], quota=0, now=NOW)
        return [before, await told(NOW - 1), await told(NOW)]

    assert a_store.runner.run(live()) == [
        (1, [(call.trace_id, "writer", 60_000)], 1),
        (1, [("conv", "writer", 60_000)], 0),
        (1, [], 0),
    ]


def test_a_trace_that_came_in_one_piece_and_one_that_did_not_are_told_alike(a_store: Opened) -> None:
    project, store = a_store.new_project(), a_store.store
    at = EpochMs(NOW - 1)
    failed = {
        "parent_id": "1" * 16,
        "kind": "tool",
        "tool": "search",
        "status": "error",
        "signal_type": "tool_call_failed",
    }
    whole, scattered = (
        [
            record(trace_id=f"{trace:032x}", span_id="1" * 16, received_at=at, start_ns=1),
            record(trace_id=f"{trace:032x}", span_id="2" * 16, received_at=at, start_ns=2, **failed),
            record(
                trace_id=f"{trace:032x}",
                span_id="3" * 16,
                parent_id="1" * 16,
                received_at=at,
                start_ns=3,
                kind="tool",
                tool="search",
            ),
        ]
        for trace in (1, 2)
    )

    async def live() -> tuple[list[list[str]], list[str]]:
        await store.append(project, whole, quota=0, now=NOW)
        for each in reversed(scattered):
            await store.append(project, [each], quota=0, now=NOW)
        return await store.examine(
            project,
            WINDOWS,
            lambda facts, _: (
                [[placed.record.span_id[0] for placed in steps] for steps in facts.current.traces],
                [placed.record.trace_id[-1] + placed.record.span_id[0] for placed in facts.current.recoveries],
            ),
        )

    traces, recoveries = a_store.runner.run(live())

    assert traces == [["1", "2", "3"], ["1", "2", "3"]]
    assert sorted(recoveries) == ["13", "23"]


@pytest.mark.parametrize("lone_store", SQL_STORES, indirect=True)
def test_facts_stay_those_of_the_rows_while_records_expire(lone_store: Opened) -> None:
    project, store = lone_store.new_project(), lone_store.store
    windows = Windows((EpochMs(0), EpochMs(NOW + 1)), (EpochMs(0), EpochMs(1)))

    async def counts() -> list[tuple[int, int]]:
        for number in range(4):
            batch = [
                record(trace_id=f"{number + 1:032x}", span_id=f"{each:016x}", received_at=EpochMs(NOW - 3 + number))
                for each in range(1, 6)
            ]
            await store.append(project, batch, quota=0, now=NOW)
        found = []
        while await store.purge(EpochMs(NOW), 3):
            rows = await store.window(project, *EVER, only=Filter(), limit=99, after=None)
            found.append((await store.examine(project, windows, _records), len(rows)))
        return found

    found = lone_store.runner.run(counts())

    assert [examined for examined, _ in found] == [rows for _, rows in found]
    assert found[-1] == (5, 5)
