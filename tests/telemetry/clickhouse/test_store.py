"""What is particular to this store: the spool, quotas in it, several nodes, deletion."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest
from msgspec.structs import replace
from sqlalchemy import select

from lifesign.clock import EpochMs
from lifesign.db import StorageUnavailable
from lifesign.db.failpoints import Failpoints
from lifesign.db.open import DataDirectoryInUse
from lifesign.telemetry.records import Body, Record
from lifesign.telemetry.store import Appended, Filter
from lifesign.telemetry.stores.clickhouse import spool
from lifesign.telemetry.stores.clickhouse.client import Address, ClickHouseNotInstalled
from lifesign.telemetry.stores.clickhouse.store import ClickHouseStore
from tests.telemetry.clickhouse.conftest import RETENTION_DAYS, Nodes
from tests.telemetry.spans import RECEIVED_AT, read

HOUR = 3_600_000
NOWHERE = Address(host="127.0.0.1", port=9)
EVER = (EpochMs(0), EpochMs(RECEIVED_AT * 2))


def spans(*numbers: int, now: int = RECEIVED_AT, **members: Any) -> list[Record]:  # Any: members of a record
    base = replace(read(), received_at=EpochMs(now), **members)
    return [replace(base, span_id=f"{number:016x}") for number in numbers]


def raw(address: Address, sql: str, **parameters: object) -> list[Any]:  # Any: values of columns
    """What is really in the tables."""
    client = clickhouse_connect.get_client(interface="chdb", path=address.path)
    try:
        return list(client.query(sql, parameters).result_rows)
    finally:
        client.close()


async def test_what_is_repeated_within_an_hour_is_charged_once(store: ClickHouseStore, project: str) -> None:
    now, later = EpochMs(RECEIVED_AT), EpochMs(RECEIVED_AT + HOUR - 1)

    first = await store.append(project, spans(1, 2), quota=10, now=now)
    again = await store.append(project, spans(1, 2, 3, now=later), quota=10, now=later)

    assert (first, again) == (Appended(new=2), Appended(new=1, duplicate=2))
    assert await store.used(project, later) == 3


async def test_records_are_taken_in_their_order_until_the_quota_is_full(store: ClickHouseStore, project: str) -> None:
    told = await store.append(project, spans(1, 2, 2, 3, 4, 4), quota=3, now=RECEIVED_AT)

    assert told == Appended(new=3, duplicate=1, over_quota=2)
    assert [
        each.record.span_id[-1] for each in await store.window(project, *EVER, only=Filter(), limit=9, after=None)
    ] == [
        "1",
        "2",
        "3",
    ]
    assert await store.append(project, spans(5), quota=3, now=RECEIVED_AT) == Appended(over_quota=1)


async def test_a_new_month_has_a_quota_of_its_own(store: ClickHouseStore, project: str) -> None:
    next_month = EpochMs(RECEIVED_AT + 31 * 24 * HOUR)
    await store.append(project, spans(1, 2), quota=2, now=RECEIVED_AT)

    told = await store.append(project, spans(3, now=next_month), quota=2, now=next_month)

    assert told == Appended(new=1)
    assert (await store.used(project, RECEIVED_AT), await store.used(project, next_month)) == (2, 1)


async def test_quotas_and_waiting_records_are_there_after_a_restart(nodes: Nodes, project: str) -> None:
    away = await nodes.open(address=NOWHERE)
    await away.append(project, spans(1, 2), quota=0, now=RECEIVED_AT)
    await nodes.close(away)

    store = await nodes.open()

    assert len(await store.records(project, [each.record_id for each in spans(1, 2)])) == 2
    assert await store.used(project, RECEIVED_AT) == 2


async def test_a_record_that_came_to_two_nodes_is_told_as_it_came_first(nodes: Nodes, project: str) -> None:
    one, two = await nodes.open("one"), await nodes.open("two")
    later = RECEIVED_AT + 1
    await two.append(project, spans(1, now=later, environment="second", own_session="s"), quota=0, now=EpochMs(later))
    assert len(await two.window(project, *EVER, only=Filter(), limit=9, after=None)) == 1
    await one.append(project, spans(1, environment="first"), quota=0, now=RECEIVED_AT)

    (told,) = await one.window(project, *EVER, only=Filter(), limit=9, after=None)

    assert (told.record.environment, told.session_id) == ("first", told.record.trace_id)
    assert await one.window(project, EpochMs(later), EVER[1], only=Filter(), limit=9, after=None) == []
    assert (await one.stats(project, *EVER)).records == 1


HOSTILE = "' OR 1=1 -- \" \\ \\' {x:String} %(x)s \0 \n\t\r\b ` ; DROP TABLE spans \U0001f600 " + "é" * 16_000


async def test_text_is_what_it_was(store: ClickHouseStore, project: str) -> None:
    members = ["operation", "own_session", "agent", "service", "tool", "model", "environment", "version", "error_type"]
    body = Body(name=HOSTILE, aliases=(HOSTILE + "2",), message=HOSTILE, attributes={HOSTILE: [HOSTILE, {"a": None}]})
    # Any: as in spans.
    hostile: dict[str, Any] = dict.fromkeys([*members, "finish_reason"], HOSTILE)
    records = spans(1, body=body, **hostile)
    await store.append(project, records, quota=0, now=RECEIVED_AT)

    only = Filter(environment=HOSTILE, session_id=HOSTILE)
    (told,) = await store.window(project, *EVER, only=only, limit=9, after=None)
    by_alias = await store.session(project, HOSTILE + "2", *EVER, limit=9, after=None)
    (listed,) = await store.sessions(project, *EVER, environment=HOSTILE, limit=9, after=None)

    assert told.record == records[0]
    assert by_alias is not None
    assert (by_alias.summary.session_id, listed.session_id) == (HOSTILE, HOSTILE)


async def test_questions_with_hostile_words_find_nothing(store: ClickHouseStore, project: str) -> None:
    await store.append(project, spans(1), quota=0, now=RECEIVED_AT)

    assert await store.session(project, HOSTILE, *EVER, limit=9, after=None) is None
    assert await store.trace(project, HOSTILE, limit=9) == []
    assert await store.records(HOSTILE, [spans(1)[0].record_id]) == []
    assert await store.window(project, *EVER, only=Filter(trace_id=HOSTILE), limit=9, after=None) == []


async def test_erasing_leaves_nothing_of_a_project_and_all_of_another(
    nodes: Nodes, engine: Address, project: str
) -> None:
    store, other = await nodes.open(), f"{project} 2"
    for each in (project, other):
        await store.append(each, spans(1, 2, own_session="s"), quota=0, now=RECEIVED_AT)
        await store.records(each, [])
    await store.append(project, spans(3), quota=0, now=RECEIVED_AT)

    while await store.erase([project], 1):
        pass

    left = "SELECT count() FROM {0} WHERE project_id = {{p:String}}"
    assert [raw(engine, left.format(table), p=project) for table in ("spans", "traces")] == [[(0,)], [(0,)]]
    assert await store.used(project, RECEIVED_AT) == 0
    assert len(await store.window(other, *EVER, only=Filter(), limit=9, after=None)) == 2
    assert await store.used(other, RECEIVED_AT) == 2


async def test_a_full_spool_refuses_and_keeps_what_it_has(nodes: Nodes, project: str) -> None:
    store = await nodes.open(address=NOWHERE, max_bytes=2000)
    taken = 0
    with contextlib.suppress(StorageUnavailable):
        while (await store.append(project, spans(taken + 1), quota=0, now=RECEIVED_AT)).new:
            taken += 1
    with pytest.raises(StorageUnavailable, match="full"):
        await store.append(project, spans(taken + 1), quota=0, now=RECEIVED_AT)
    await nodes.close(store)

    assert 0 < taken < 10
    again = await nodes.open(max_bytes=2000)
    assert len(await again.window(project, *EVER, only=Filter(), limit=99, after=None)) == taken
    assert await again.used(project, RECEIVED_AT) == taken
    # It has room again.
    assert (await again.append(project, spans(taken + 1), quota=0, now=RECEIVED_AT)).new == 1


async def test_ids_are_remembered_for_an_hour_and_then_forgotten(nodes: Nodes, tmp_path: Path, project: str) -> None:
    store = await nodes.open("one")
    await store.append(project, spans(1), quota=0, now=RECEIVED_AT)
    much_later = EpochMs(RECEIVED_AT + 3 * HOUR)
    await store.append(project, spans(2, now=much_later), quota=0, now=much_later)
    await nodes.close(store)

    reopened = spool.open_spool(tmp_path / "one", Failpoints())
    await reopened.write(spool.forget, much_later)
    left = await reopened.read(lambda conn: conn.execute(select(spool.seen.c.seen_at)).scalars().all())
    await reopened.close()
    assert left == [much_later]


async def test_nobody_else_opens_the_spool(nodes: Nodes) -> None:
    await nodes.open("one")

    with pytest.raises(DataDirectoryInUse) as refusal:
        await nodes.open("one")

    assert refusal.value.pid == str(os.getpid())


async def test_the_table_is_altered_when_the_retention_differs(nodes: Nodes, engine: Address, project: str) -> None:
    for days in (RETENTION_DAYS - 1, RETENTION_DAYS):
        store = await nodes.open(f"for {days}", retention_days=days)
        await store.trace(project, spans(1)[0].trace_id, limit=1)

        ((create,),) = raw(engine, "SHOW CREATE TABLE spans")
        ((create_traces,),) = raw(engine, "SHOW CREATE TABLE traces")
        assert f"toIntervalDay({days})" in create
        assert f"toIntervalDay({2 * days})" in create_traces


async def test_a_missing_package_is_named(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "clickhouse_connect", None)

    with pytest.raises(ClickHouseNotInstalled, match=r"lifesign\[clickhouse\]"):
        await nodes.open()
