"""What every store promises one by one: who stored what, how much fits, what is left after deleting."""

import asyncio

import pytest
from msgspec.structs import replace
from sqlalchemy import Connection, func, select

from lifesign.clock import EpochMs
from lifesign.db import StorageUnavailable
from lifesign.telemetry.records import Body, Record
from lifesign.telemetry.rules import month_of
from lifesign.telemetry.store import Appended, Filter
from lifesign.telemetry.stores import append, open_store
from lifesign.telemetry.stores.sql import SqlStore
from lifesign.telemetry.stores.tables import metadata, sessions
from tests.telemetry.stores.builder import NOW, record
from tests.telemetry.stores.conftest import SQL_STORES, Opened

EVER = (EpochMs(0), EpochMs(NOW * 2))
TRACE = "0" * 31 + "a"
DAY = 24 * 3600000


def some(count: int, *, trace_id: str = TRACE, first: int = 1, at: int = NOW) -> list[Record]:
    return [
        record(
            trace_id=trace_id,
            span_id=f"{number:016x}",
            received_at=EpochMs(at),
            own_session="deep",
            environment="prod",
            body=Body(name="work", aliases=("other",)),
        )
        for number in range(first, first + count)
    ]


def rows_left(store: SqlStore) -> dict[str, int]:
    def count(conn: Connection) -> dict[str, int]:
        counts = {table.name: conn.scalar(select(func.count()).select_from(table)) for table in metadata.sorted_tables}
        return {name: count for name, count in counts.items() if count}

    return asyncio.run(store.db.read(count))


def test_of_15_records_ten_fit_a_quota_of_ten_and_repeats_are_free(a_store: Opened) -> None:
    project = a_store.new_project()

    told = a_store.runner.run(a_store.store.append(project, some(15), quota=10, now=NOW))
    again = a_store.runner.run(a_store.store.append(project, some(10), quota=10, now=NOW))
    another = a_store.runner.run(a_store.store.append(project, some(1, first=99), quota=10, now=NOW))

    assert (told, again, another) == (Appended(10, 0, 5), Appended(0, 10, 0), Appended(0, 0, 1))
    assert a_store.runner.run(a_store.store.used(project, NOW)) == 10


def test_a_request_that_is_written_in_several_runs_is_stored_whole(
    a_store: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append, "RUN", 7)
    project = a_store.new_project()
    numbered = [replace(each, body=Body(name=f"work {place}")) for place, each in enumerate(some(20))]

    told = a_store.runner.run(a_store.store.append(project, numbered, quota=0, now=NOW))

    found = a_store.runner.run(a_store.store.records(project, [each.record_id for each in numbered]))
    assert told == Appended(20, 0, 0)
    assert [each.record for each in found] == numbered
    assert a_store.runner.run(a_store.store.stats(project, *EVER)).records == 20


def test_a_new_month_has_its_quota_to_itself(a_store: Opened) -> None:
    project = a_store.new_project()
    later = EpochMs(NOW + 31 * DAY)
    a_store.runner.run(a_store.store.append(project, some(2), quota=2, now=NOW))

    told = a_store.runner.run(a_store.store.append(project, some(2, first=9), quota=2, now=later))

    assert told.new == 2
    assert a_store.runner.run(a_store.store.used(project, later)) == 2


def test_a_month_is_over_at_midnight_utc() -> None:
    first_of_december = EpochMs(1_796_083_200_000)

    assert (month_of(EpochMs(first_of_december - 1)), month_of(first_of_december)) == (202611, 202612)


def test_children_that_came_first_follow_their_root_into_its_session(a_store: Opened) -> None:
    project, store = a_store.new_project(), a_store.store
    children = [record(trace_id=TRACE, span_id=f"{n:016x}", parent_id=f"{1:016x}") for n in (2, 3)]
    a_store.runner.run(store.append(project, children, quota=0, now=NOW))

    root = record(trace_id=TRACE, span_id=f"{1:016x}", own_session="chat-1")
    a_store.runner.run(store.append(project, [root], quota=0, now=NOW))

    listed = a_store.runner.run(store.sessions(project, *EVER, environment=None, limit=9, after=None))
    assert [(each.session_id, each.turns) for each in listed] == [("chat-1", 3)]


def test_a_session_of_700_records_is_told_whole_with_one_of_them(a_store: Opened) -> None:
    project = a_store.new_project()
    a_store.runner.run(a_store.store.append(project, some(700), quota=0, now=NOW))

    page = a_store.runner.run(a_store.store.session(project, "deep", *EVER, limit=1, after=None))

    assert page is not None
    assert (page.summary.turns, len(page.records)) == (700, 1)


def test_a_project_is_never_told_of_another(a_store: Opened) -> None:
    mine, foreign, store = a_store.new_project(), a_store.new_project(), a_store.store
    [hidden] = some(1)
    a_store.runner.run(store.append(foreign, [hidden], quota=0, now=NOW))
    a_store.runner.run(store.append(mine, some(1, trace_id="0" * 31 + "b"), quota=0, now=NOW))

    assert a_store.runner.run(store.records(mine, [hidden.record_id])) == []
    assert a_store.runner.run(store.trace(mine, TRACE, limit=9)) == []
    assert a_store.runner.run(store.session(mine, TRACE, *EVER, limit=9, after=None)) is None
    assert len(a_store.runner.run(store.window(mine, *EVER, only=Filter(), limit=9, after=None))) == 1


@pytest.mark.parametrize("a_store", SQL_STORES, indirect=True)
def test_two_writers_of_one_batch_store_each_record_once(a_store: Opened) -> None:
    project = a_store.new_project()
    other = open_store(a_store.settings)

    async def both() -> list[Appended]:
        async with asyncio.timeout(30):
            return await asyncio.gather(
                *(store.append(project, some(200), quota=0, now=NOW) for store in (a_store.store, other) * 3)
            )

    try:
        told = a_store.runner.run(both())
    finally:
        a_store.runner.run(other.close())

    assert sorted(each.new for each in told) == [0, 0, 0, 0, 0, 200]
    assert a_store.runner.run(a_store.store.used(project, NOW)) == 200


@pytest.mark.parametrize("a_store", SQL_STORES, indirect=True)
def test_records_after_an_erasure_elsewhere_are_found_from_everywhere(a_store: Opened) -> None:
    project, store = a_store.new_project(), a_store.store
    a_store.runner.run(store.append(project, some(2), quota=0, now=NOW))
    other = open_store(a_store.settings)
    _erase(a_store, other, project)
    a_store.runner.run(other.close())

    a_store.runner.run(store.append(project, some(3), quota=0, now=NOW))

    fresh = open_store(a_store.settings)
    found = a_store.runner.run(fresh.window(project, *EVER, only=Filter(), limit=9, after=None))
    a_store.runner.run(fresh.close())
    assert len(found) == 3


@pytest.mark.parametrize("lone_store", SQL_STORES, indirect=True)
def test_nothing_of_an_erased_project_is_left_in_any_table(lone_store: Opened) -> None:
    store = lone_store.store
    assert isinstance(store, SqlStore)
    lone_store.runner.run(store.append("p", some(20), quota=0, now=NOW))
    assert rows_left(store)["spans"] == 20

    _erase(lone_store, store, "p")

    assert rows_left(store) == {}


@pytest.mark.parametrize("lone_store", SQL_STORES, indirect=True)
def test_nothing_but_what_was_charged_is_left_of_records_that_grew_old(lone_store: Opened) -> None:
    store = lone_store.store
    assert isinstance(store, SqlStore)
    lone_store.runner.run(store.append("p", some(20), quota=0, now=NOW))

    while lone_store.runner.run(store.purge(EpochMs(NOW + DAY), 7)):
        pass

    assert rows_left(store) == {"span_projects": 1, "usage": 1}


@pytest.mark.parametrize("lone_store", SQL_STORES, indirect=True)
def test_a_session_that_only_named_a_trace_goes_with_that_trace(lone_store: Opened) -> None:
    store, runner = lone_store.store, lone_store.runner
    assert isinstance(store, SqlStore)
    runner.run(store.append("p", [said("chat", span=1, at=NOW)], quota=0, now=NOW))
    runner.run(store.append("p", [said("other", span=2, parent=1, at=NOW + DAY)], quota=0, now=EpochMs(NOW + DAY)))

    runner.run(store.purge(EpochMs(NOW + 1), 9))
    while_its_trace_is_there = rows_left(store)["sessions"]
    runner.run(store.purge(EpochMs(NOW + DAY + 1), 9))
    with_its_trace = rows_left(store)
    while runner.run(store.purge(EpochMs(NOW + 3 * DAY), 9)):
        pass

    assert while_its_trace_is_there == 2
    assert with_its_trace.keys() == {"span_projects", "strings", "usage"}
    assert rows_left(store) == {"span_projects": 1, "usage": 1}


@pytest.mark.parametrize("lone_store", SQL_STORES, indirect=True)
def test_a_session_that_only_named_a_trace_goes_when_that_trace_gets_another_name(lone_store: Opened) -> None:
    store, runner = lone_store.store, lone_store.runner
    assert isinstance(store, SqlStore)
    runner.run(store.append("p", [said("early", span=2, parent=1, at=NOW)], quota=0, now=NOW))
    runner.run(store.append("p", [said("other", span=3, parent=1, at=NOW + DAY)], quota=0, now=EpochMs(NOW + DAY)))
    runner.run(store.purge(EpochMs(NOW + 1), 9))

    runner.run(store.append("p", [said("root", span=1, at=NOW + DAY)], quota=0, now=EpochMs(NOW + DAY)))

    assert runner.run(store.db.read(_names)) == ["other", "root"]


def said(session: str, *, span: int, parent: int = 0, at: int) -> Record:
    """A record that names its session, of one trace."""
    parent_id = f"{parent:016x}" if parent else ""
    received_at = EpochMs(at)
    return record(span_id=f"{span:016x}", parent_id=parent_id, own_session=session, received_at=received_at)


def _names(conn: Connection) -> list[str]:
    return list(conn.scalars(select(sessions.c.session_id).order_by(sessions.c.session_id)))


@pytest.mark.parametrize("lone_store", SQL_STORES, indirect=True)
def test_what_was_answered_is_there_when_the_store_is_opened_again(lone_store: Opened) -> None:
    lone_store.runner.run(lone_store.store.append("p", some(3), quota=0, now=NOW))
    again = open_store(lone_store.settings)

    found = lone_store.runner.run(again.records("p", [each.record_id for each in some(3)]))
    used = lone_store.runner.run(again.used("p", NOW))

    lone_store.runner.run(again.close())
    assert [each.record for each in found] == some(3)
    assert used == 3


@pytest.mark.parametrize("lone_store", ["sqlite"], indirect=True)
def test_a_full_disk_refuses_a_batch_whole_and_charges_nothing(lone_store: Opened) -> None:
    store = lone_store.store
    assert isinstance(store, SqlStore)
    lone_store.runner.run(store.append("p", some(1), quota=0, now=NOW))
    # SQLite says of a file that may not grow what it says of a full disk; it keeps the pages that there are.
    lone_store.runner.run(store.db.write(lambda conn: conn.exec_driver_sql("PRAGMA max_page_count=1").scalar()))
    large = [replace(each, body=Body(name="x" * 9000)) for each in some(200, first=2)]

    with pytest.raises(StorageUnavailable):
        lone_store.runner.run(store.append("p", large, quota=0, now=NOW))

    assert lone_store.runner.run(store.used("p", NOW)) == 1
    assert len(lone_store.runner.run(store.window("p", *EVER, only=Filter(), limit=9, after=None))) == 1


def _erase(opened: Opened, store: object, project: str) -> None:
    assert isinstance(store, SqlStore)
    while opened.runner.run(store.erase([project], 7)):
        pass
