"""What is kept no longer goes, and nothing else does."""

from typing import Any

from sqlalchemy import Column, Table, func, select, update

from lifesign.clock import EpochMs
from lifesign.db.schema import (
    attempts,
    callbacks_seen,
    events,
    heartbeats,
    incidents,
    nodes,
    notifications,
    rate_buckets,
    storms,
)
from lifesign.events import service as history
from lifesign.events.rules import Event
from tests.engine.steps import fire, hook
from tests.engine.steps import incidents as shown_incidents
from tests.harness import Lifesign, MakeLifesign
from tests.peers.process import LedgerPeer

DAY_S = 24 * 3600


async def _count(lifesign: Lifesign, table: Table, **where: Any) -> int:  # Any: values of columns
    query = select(func.count()).select_from(table).where(*(table.c[name] == value for name, value in where.items()))
    return await lifesign.node.db.read(lambda conn: conn.scalar(query)) or 0


async def _told(lifesign: Lifesign, ledger: LedgerPeer, *, status: int = 200) -> str:
    """The id of a heartbeat that fired, told one webhook, and came back."""
    ledger.script("ops", *([{"status": status}] if status != 200 else []))
    channel = await lifesign.webhook(hook(ledger))
    await lifesign.heartbeat(slug="job", interval=400 * DAY_S, channels=[channel["id"]])
    await fire(lifesign, "job")
    await lifesign.check_in("job")
    await lifesign.advance(1)
    return str((await lifesign.get("job"))["id"])


async def test_messages_and_their_attempts_go_after_thirty_days(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await _told(lifesign, ledger)

    await lifesign.advance(30 * DAY_S - 60)
    assert (await _count(lifesign, notifications), await _count(lifesign, attempts)) == (2, 2)
    await lifesign.advance(120)

    assert (await _count(lifesign, notifications), await _count(lifesign, attempts)) == (0, 0)
    assert await _count(lifesign, incidents) == 1


async def test_nothing_goes_while_the_date_may_be_a_mistake(start_lifesign: MakeLifesign, ledger: LedgerPeer) -> None:
    async with start_lifesign() as lifesign:
        await _told(lifesign, ledger)

    async with start_lifesign(at="2026-03-05T12:00:00.000Z") as ahead:
        await ahead.advance(3500)
        assert await _count(ahead, notifications) == 2
        await ahead.advance(200)

        assert await _count(ahead, notifications) == 0


async def test_dead_messages_stay_for_ninety_days(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await _told(lifesign, ledger, status=410)

    await lifesign.advance(89 * DAY_S)
    assert await _count(lifesign, notifications, status="dead") == 1
    await lifesign.advance(2 * DAY_S)

    assert await _count(lifesign, notifications) == 0


async def test_incidents_go_a_year_after_they_ended(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await _told(lifesign, ledger)

    await lifesign.advance(364 * DAY_S)
    assert await _count(lifesign, incidents) == 1
    await lifesign.advance(2 * DAY_S)

    assert await _count(lifesign, incidents) == 0


async def test_an_open_incident_and_its_messages_stay_however_old_they_are(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    channel = await lifesign.webhook(hook(ledger))
    await lifesign.heartbeat(slug="job", channels=[channel["id"]])
    await fire(lifesign, "job")

    await lifesign.advance(500 * DAY_S)

    (incident,) = await shown_incidents(lifesign, "job")
    assert [each["status"] for each in incident["notifications"]] == ["sent"]


async def test_a_heartbeat_keeps_its_newest_thousand_check_ins_and_every_other_event(lifesign: Lifesign) -> None:
    made = await lifesign.heartbeat(slug="busy", interval=400 * DAY_S)
    quiet = await lifesign.heartbeat(slug="quiet", interval=400 * DAY_S)
    await _add_check_ins(lifesign, made["id"], 2500)
    await _add_check_ins(lifesign, quiet["id"], 900)

    await lifesign.advance(61)
    await lifesign.advance(61)

    assert await _count(lifesign, events, heartbeat_id=made["id"], type="checkin") == 1000
    assert await _count(lifesign, events, heartbeat_id=made["id"], type="created") == 1
    assert await _count(lifesign, events, heartbeat_id=quiet["id"], type="checkin") == 900
    newest = await lifesign.node.db.read(
        lambda conn: conn.scalar(select(func.max(events.c.metadata)).where(events.c.heartbeat_id == made["id"]))
    )
    assert newest == '{"n":"02499"}'


async def _add_check_ins(lifesign: Lifesign, heartbeat_id: str, count: int) -> None:
    def write(conn: Any) -> None:  # Any: the connection of a test
        project = conn.scalar(select(events.c.project_id).where(events.c.heartbeat_id == heartbeat_id))
        rows = [Event(project, heartbeat_id, "checkin", {"n": f"{n:05}"}) for n in range(count)]
        history.record(conn, rows, lifesign.now())
        conn.execute(update(heartbeats).where(heartbeats.c.id == heartbeat_id).values(checkin_count=count))

    await lifesign.node.db.write(write)


async def test_other_events_go_after_the_days_that_the_operator_set(lifesign: Lifesign) -> None:
    made = await lifesign.heartbeat(slug="job", interval=400 * DAY_S)
    await lifesign.check_in("job")

    await lifesign.advance(89 * DAY_S)
    assert await lifesign.event_types("job") == ["checkin", "created"]
    await lifesign.advance(2 * DAY_S)

    assert await lifesign.event_types("job") == ["checkin"]
    assert await _count(lifesign, events, heartbeat_id=made["id"]) == 1


async def test_the_history_of_a_deleted_heartbeat_goes(lifesign: Lifesign) -> None:
    made = await lifesign.heartbeat(slug="gone")
    other = await lifesign.heartbeat(slug="other", interval=DAY_S)
    await lifesign.ask("DELETE", "/v1/heartbeats/gone", expect=204)

    await lifesign.advance(61)
    await lifesign.advance(61)

    assert await _count(lifesign, events, heartbeat_id=made["id"]) == 0
    assert await _count(lifesign, events, heartbeat_id=other["id"]) == 1


async def test_what_is_needed_for_a_day_goes_after_it(lifesign: Lifesign) -> None:
    old, young = EpochMs(lifesign.now() - 1), lifesign.now() + 2 * DAY_S * 1000

    def write(conn: Any) -> None:  # Any: the connection of a test
        for at, word in ((old, "old"), (young, "young")):
            conn.execute(callbacks_seen.insert().values(id=word, answer="", at=at))
            conn.execute(rate_buckets.insert().values(key=word, tokens=1, at=at))
            conn.execute(nodes.insert().values(id=f"node_{word}", started_at=at, alive_at=at, version="0"))
            closed = {"state": "closed", "opened_at": at, "release_at": at, "count": 1}
            conn.execute(storms.insert().values(id=word, project_id="p", closed_at=at - 90 * DAY_S * 1000, **closed))

    await lifesign.node.db.write(write)
    await lifesign.advance(DAY_S + 61)
    await lifesign.advance(2)

    for column in (callbacks_seen.c.id, rate_buckets.c.key, storms.c.id):
        assert await _all(lifesign, column) == {"young"}, str(column)
    assert await _all(lifesign, nodes.c.id) == {"node_young", lifesign.node.id}


async def _all(lifesign: Lifesign, column: Column[str]) -> set[str]:
    return await lifesign.node.db.read(lambda conn: set(conn.scalars(select(column))))


async def test_more_than_one_batch_goes_in_one_minute(lifesign: Lifesign) -> None:
    made = await lifesign.heartbeat(slug="gone")
    await _add_check_ins(lifesign, made["id"], 3500)
    await lifesign.ask("DELETE", "/v1/heartbeats/gone", expect=204)

    await lifesign.advance(70)
    await lifesign.advance(70)

    assert await _count(lifesign, events, heartbeat_id=made["id"]) == 0
