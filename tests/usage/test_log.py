"""The buffer of counted requests: bounded, off the way of everybody, and lossless while the database lives.

Spec "Usage", section 6.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import structlog
from sqlalchemy import Connection, func, select
from structlog.testing import LogCapture

from lifesign.clock import EpochMs, rfc3339
from lifesign.db import StorageUnavailable
from lifesign.db.schema import usage_errors, usage_hours, usage_latency, usage_latency_days, usage_minutes
from lifesign.usage import service
from lifesign.usage.log import BATCH, MAX_WAITING, UsageLog
from lifesign.usage.metrics import USAGE_DROPPED
from lifesign.usage.rules import Sums, UsageRecord, sums_of
from tests.harness import Lifesign, MakeLifesign
from tests.usage.builders import builder


class Ledger:
    """A database that only knows how many requests it was told of, and can be slow or away."""

    def __init__(self) -> None:
        self.written: list[int] = []
        self.is_away = False
        self.error: Exception = StorageUnavailable("gone")
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.began = asyncio.Event()
        self.wrote = asyncio.Event()

    async def write(self, _: Callable[..., Any], sums: Sums) -> None:  # Any: as the real one takes it
        self.began.set()
        await self.may_go_on.wait()
        if self.is_away:
            raise self.error
        self.written.append(sum(each.total for each in sums.minutes.values()))
        self.wrote.set()

    @property
    def total(self) -> int:
        return sum(self.written)


class StillClock:
    def now(self) -> EpochMs:
        return EpochMs(0)

    def monotonic(self) -> float:
        return 0.0

    async def sleep_until(self, at: EpochMs) -> None:
        raise NotImplementedError


def record(n: int = 0) -> UsageRecord:
    return UsageRecord(EpochMs(n), "GET", "/api/keys", 404, 1, None)


@asynccontextmanager
async def counting(ledger: Ledger) -> AsyncIterator[UsageLog]:
    log = UsageLog(ledger, StillClock())  # type: ignore[arg-type]  # the one method of the database that it uses
    yield log
    await log.close()


@contextmanager
def logged() -> Iterator[list[Any]]:  # Any: events of a log
    """What is logged until the block ends."""
    before, capture = structlog.get_config(), LogCapture()
    structlog.configure(processors=[capture], wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    try:
        yield capture.entries
    finally:
        structlog.configure(**before)


async def written(ledger: Ledger, count: int) -> None:
    """Return once so many are written; a bound on hanging only."""
    async with asyncio.timeout(10):
        while ledger.total < count:
            ledger.wrote.clear()
            await ledger.wrote.wait()


async def test_what_is_noted_is_written_a_little_later_by_itself() -> None:
    ledger = Ledger()
    async with counting(ledger) as log:
        for n in range(7):
            log.note(record(n))
        assert ledger.written == []

        await written(ledger, 7)

        # Together, and once.
        assert ledger.written == [7]
        assert len(log) == 0


async def test_a_batch_does_not_wait() -> None:
    ledger = Ledger()
    async with counting(ledger) as log:
        for n in range(BATCH):
            log.note(record(n))

        await asyncio.sleep(0)
        await asyncio.sleep(0)

        assert ledger.written == [BATCH]


async def test_who_reads_finds_everything_that_was_noted_before() -> None:
    ledger = Ledger()
    async with counting(ledger) as log:
        log.note(record())
        ledger.may_go_on.clear()
        reading = asyncio.create_task(log.settle())
        await ledger.began.wait()
        # While that is being written.
        log.note(record())
        other = asyncio.create_task(log.settle())
        ledger.may_go_on.set()

        await asyncio.gather(reading, other)

        assert ledger.written == [1, 1]


async def test_who_reads_does_not_wait_for_a_database_that_is_slow() -> None:
    ledger = Ledger()
    async with counting(ledger) as log:
        log.note(record())
        ledger.may_go_on.clear()

        async with asyncio.timeout(5):
            await log.settle()

        assert ledger.written == []
        ledger.may_go_on.set()
        await written(ledger, 1)
        assert ledger.written == [1]


async def test_while_the_database_is_away_records_wait_and_nobody_waits_for_them() -> None:
    ledger = Ledger()
    ledger.is_away = True
    async with counting(ledger) as log:
        with logged() as told:
            for n in range(3 * BATCH):
                log.note(record(n))
            for _ in range(3):
                await log.settle()
            assert len(log) == 3 * BATCH
            ledger.is_away = False
            await log.settle()

        assert ledger.total == 3 * BATCH
        assert [each["event"] for each in told] == ["usage.stuck", "usage.resumed"]


async def test_a_database_that_comes_back_is_noticed_without_anybody_asking() -> None:
    ledger = Ledger()
    ledger.is_away = True
    async with counting(ledger) as log:
        log.note(record())
        await ledger.began.wait()
        ledger.is_away = False

        await written(ledger, 1)

        assert ledger.written == [1]


async def test_what_there_is_no_room_for_is_dropped_and_counted() -> None:
    ledger = Ledger()
    ledger.is_away = True
    before = USAGE_DROPPED._value.get()  # noqa: SLF001 - the library shows it nowhere else but as text
    async with counting(ledger) as log:
        for n in range(MAX_WAITING + 5):
            log.note(record(n))
        assert (len(log), log.dropped) == (MAX_WAITING, 5)
        assert USAGE_DROPPED._value.get() - before == 5  # noqa: SLF001 - as above

        ledger.is_away = False
        await log.settle()
        await written(ledger, MAX_WAITING)
        log.note(record())
        await log.settle()

        assert ledger.total == MAX_WAITING + 1


async def test_a_burst_is_counted_whole_while_the_loop_gets_a_turn_now_and_then() -> None:
    ledger = Ledger()
    async with counting(ledger) as log:
        for n in range(50_000):
            log.note(record(n))
            if n % 1000 == 0:
                await asyncio.sleep(0)
        await written(ledger, 50_000)

        assert (ledger.total, log.dropped) == (50_000, 0)


async def test_the_end_writes_what_waits() -> None:
    ledger = Ledger()
    async with counting(ledger) as log:
        for n in range(4321):
            log.note(record(n))

    assert ledger.total == 4321


async def test_the_end_does_not_wait_for_a_database_that_is_away_and_tells_what_is_lost() -> None:
    ledger = Ledger()
    ledger.is_away = True
    with logged() as told:
        async with counting(ledger) as log:
            for n in range(3):
                log.note(record(n))

    assert [(each["event"], each.get("count")) for each in told] == [("usage.stuck", None), ("usage.lost", 3)]


async def test_what_cannot_be_written_at_all_keeps_nothing_else_from_it() -> None:
    ledger = Ledger()
    ledger.is_away, ledger.error = True, RuntimeError("a fault of ours")
    async with counting(ledger) as log:
        with logged() as told:
            log.note(record())
            await log.settle()
        ledger.is_away = False
        log.note(record())
        await log.settle()

    assert [each["event"] for each in told] == ["usage.failed"]
    assert ledger.written == [1]


# In a real database -------------------------------------------------------------------------------------------------
async def test_many_writers_at_once_count_everything(lifesign: Lifesign) -> None:
    """Sums that several nodes write at the same time, over the same minutes, errors and keys."""
    async with builder(lifesign) as jane:
        before = (await jane.overview())["requests"]["last_24h"]
        now = lifesign.now()
        logs = [UsageLog(lifesign.node.db, lifesign.clock) for _ in range(4)]

        async def count(log: UsageLog, which: int) -> None:
            for n in range(600):
                log.note(UsageRecord(EpochMs(now - n * 1000), "GET", f"/api/vitals/{(n + which) % 7}", 404, n, jane.id))
                if n % 50 == which:
                    await log.settle()
            await log.close()

        await asyncio.gather(*(count(log, which) for which, log in enumerate(logs)))

        found = await jane.overview()
        assert found["requests"]["last_24h"] == before + 1 + 4 * 600
        errors = await jane.errors()
        assert sum(each["count"] for each in errors["errors"]) == 4 * 600
        assert errors["total"] == 7
        assert (await jane.own())["request_count"] == 4 * 600 + 3


async def test_what_is_counted_late_adds_up_and_turns_nothing_back(lifesign: Lifesign) -> None:
    """Another node may have waited for the database."""
    async with builder(lifesign) as jane:
        now = lifesign.now()
        for at in (now, now - 60_000):
            late = UsageRecord(EpochMs(at), "GET", "/api/keys", 404, 1, jane.id)
            await lifesign.node.db.write(service.add, sums_of([late]))

        own, [entry] = await jane.own(), (await jane.errors())["errors"]

    assert (own["last_used_at"], own["request_count"]) == (rfc3339(now), 2)
    assert (entry["last_seen"], entry["count"]) == (rfc3339(now), 2)


async def test_metrics_tell_of_the_buffer_and_its_writes(lifesign: Lifesign) -> None:
    async def told() -> dict[str, float]:
        lines = (await lifesign.http.get("/metrics")).text.splitlines()
        return {name: float(value) for name, _, value in (each.partition(" ") for each in lines if each[0] != "#")}

    async with builder(lifesign) as jane:
        await jane.overview()
        before = await told()
        for _ in range(3):
            lifesign.node.usage.note(record())
        waiting = await told()
        await lifesign.node.usage.settle()
        after = await told()

    name = "lifesign_usage_flush_seconds_count"
    assert (waiting["lifesign_usage_buffer"], after["lifesign_usage_buffer"]) == (
        before["lifesign_usage_buffer"] + 3,
        0,
    )
    assert after[name] > before[name]
    assert "lifesign_usage_dropped_total" in after


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_the_dashboards_of_two_nodes_add_up(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign() as first, start_lifesign() as second, builder(first) as jane:
        async with second.client(None) as there:
            statuses = await asyncio.gather(*(http.get("/api/keys") for _ in range(40) for http in (jane.http, there)))
            assert {each.status_code for each in statuses} == {404}
            # A node writes what it counted when it is asked, and by itself before long.
            assert (await there.get("/api/dashboard/overview", headers={"X-API-Key": jane.key})).status_code == 200

        assert await jane.last_24h() == 1 + 80
        await second.node.usage.settle()
        assert await jane.last_24h() == 1 + 80 + 2


async def test_no_more_than_a_thousand_kinds_of_errors_are_kept(lifesign: Lifesign) -> None:
    now = lifesign.now()
    for begin in range(0, 1200, 400):
        records = [
            UsageRecord(EpochMs(now + n), "GET", f"/api/vitals/{n}", 404, 1, None) for n in range(begin, begin + 400)
        ]
        await lifesign.node.db.write(service.add, sums_of(records))

    async with builder(lifesign) as jane:
        found = await jane.errors()

    assert found["total"] == 1000
    assert found["errors"][0]["message"] == "GET /api/vitals/1199 → 404"
    left = await lifesign.node.db.read(service.recent_errors, limit=1000, after=None)
    assert left.page[-1].message == "GET /api/vitals/200 → 404"


async def test_what_no_dashboard_shows_any_more_is_forgotten(lifesign: Lifesign) -> None:
    day = 24 * 3600
    async with builder(lifesign) as jane:
        await jane.ask("GET", "/api/keys")
        await lifesign.node.usage.settle()

        async def kept_after(days: int, minutes: int) -> tuple[int, ...]:
            await lifesign.advance(days * day + minutes * 60)
            # What is deleted goes table by table, with a pause after each.
            await lifesign.advance(60)
            return await lifesign.node.db.read(_kept)

        # It is noon: an hour and a day are forgotten once they began long enough ago.
        assert await kept_after(31, 12 * 60 - 3) == (1, 1, 1, 1, 1)
        assert await kept_after(0, 12 * 60) == (1, 1, 1, 0, 1)
        assert await kept_after(0, 65) == (0, 0, 0, 0, 1)
        assert await kept_after(57, 0) == (0, 0, 0, 0, 1)
        assert await kept_after(1, 0) == (0, 0, 0, 0, 0)
        assert (await jane.own())["request_count"] == 1


def _kept(conn: Connection) -> tuple[int, ...]:
    """How many rows there are of minutes and hours, of durations by the hour and by the day, and of errors."""
    tables = (usage_minutes, usage_hours, usage_latency, usage_latency_days, usage_errors)
    return tuple(conn.scalar(select(func.count()).select_from(table)) or 0 for table in tables)
