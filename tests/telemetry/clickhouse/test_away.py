"""ClickHouse by HTTP: it is there, it refuses, it hangs, it comes back. The engine behind the peer is the real one."""

import asyncio
from collections.abc import Iterator

import pytest

from lifesign.clock import EpochMs
from lifesign.telemetry.metrics import SPOOL_RECORDS
from lifesign.telemetry.store import Filter, StoreUnavailable
from lifesign.telemetry.stores.clickhouse.client import Address
from lifesign.telemetry.stores.clickhouse.store import ClickHouseStore
from tests.peers.clickhouse import ClickHousePeer
from tests.telemetry.clickhouse.conftest import Nodes
from tests.telemetry.clickhouse.test_store import EVER, HOSTILE, spans
from tests.telemetry.spans import RECEIVED_AT

_PATIENCE_S = 30


@pytest.fixture
def peer(engine: Address) -> Iterator[ClickHousePeer]:
    assert engine.path is not None
    peer = ClickHousePeer(engine.path)
    yield peer
    peer.close()


async def window(store: ClickHouseStore, project: str) -> list[str]:
    found = await store.window(project, *EVER, only=Filter(), limit=99, after=None)
    return [each.record.span_id[-1] for each in found]


async def until_found(store: ClickHouseStore, project: str, expected: list[str]) -> None:
    """Ask until this is answered: each question waits by itself for what the spool has."""
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            try:
                if await window(store, project) == expected:
                    return
            except StoreUnavailable:
                await asyncio.to_thread(lambda: None)


async def test_records_travel_by_http(nodes: Nodes, peer: ClickHousePeer, project: str) -> None:
    store = await nodes.open(address=Address.of(peer.url))
    records = spans(1, 2, environment=HOSTILE, own_session=HOSTILE)
    await store.append(project, records, quota=0, now=RECEIVED_AT)
    await until_found(store, project, ["1", "2"])

    found = await store.window(project, *EVER, only=Filter(session_id=HOSTILE), limit=9, after=None)
    listed = await store.sessions(project, *EVER, environment=HOSTILE, limit=9, after=None)
    many = await store.records(project, [f"rec_{number:048x}" for number in range(2000)])

    assert [each.record for each in found] == records
    assert [each.turns for each in listed] == [2]
    assert many == []
    assert (await store.stats(project, *EVER)).records == 2


async def test_while_it_refuses_records_are_taken_and_questions_are_not(
    nodes: Nodes, peer: ClickHousePeer, project: str
) -> None:
    peer.leave()
    store = await nodes.open(address=Address.of(peer.url))

    assert (await store.append(project, spans(1, 2), quota=0, now=RECEIVED_AT)).new == 2
    with pytest.raises(StoreUnavailable):
        await window(store, project)

    assert SPOOL_RECORDS._value.get() == 2  # noqa: SLF001 - the library has no other way to look
    peer.come_back()
    await until_found(store, project, ["1", "2"])


async def test_while_it_hangs_records_are_taken(nodes: Nodes, peer: ClickHousePeer, project: str) -> None:
    store = await nodes.open(address=Address.of(peer.url))
    await store.append(project, spans(1), quota=0, now=RECEIVED_AT)
    assert await window(store, project) == ["1"]
    peer.mood = "says nothing"

    await store.append(project, spans(2), quota=0, now=RECEIVED_AT)
    question = asyncio.create_task(window(store, project))
    assert await asyncio.to_thread(peer.silenced.wait, _PATIENCE_S)
    assert (await store.append(project, spans(3), quota=0, now=RECEIVED_AT)).new == 1

    # Who hangs is given up on in the end; here it dies first.
    peer.leave()
    with pytest.raises(StoreUnavailable):
        await question
    peer.mood = "answers"
    peer.come_back()
    await until_found(store, project, ["1", "2", "3"])


async def test_what_does_not_get_through_is_told_as_pending(nodes: Nodes, peer: ClickHousePeer, project: str) -> None:
    store = await nodes.open(address=Address.of(peer.url))
    await store.append(project, spans(1), quota=0, now=RECEIVED_AT)
    assert await window(store, project) == ["1"]
    peer.mood = "takes no inserts"
    await store.append(project, spans(2, 3), quota=0, now=RECEIVED_AT)

    store.drain_s = 0.1
    stats = await store.stats(project, *EVER)
    assert (stats.records, stats.pending_records) == (1, 2)

    peer.mood = "answers"
    await until_found(store, project, ["1", "2", "3"])
    assert (await store.stats(project, *EVER)).pending_records == 0


async def test_requests_go_in_one_insert_that_names_their_range(
    nodes: Nodes, peer: ClickHousePeer, project: str
) -> None:
    store = await nodes.open(address=Address.of(peer.url))
    peer.mood = "takes no inserts"
    for number in (1, 2, 3):
        await store.append(project, spans(number), quota=0, now=EpochMs(RECEIVED_AT))

    peer.mood = "answers"
    await until_found(store, project, ["1", "2", "3"])

    node, first, last = peer.inserts[0].rsplit("-", 2)
    assert (node[:5], first, last, len(peer.inserts)) == ("node_", "1", "3", 1)
