"""What was due while no node listened gets time to check in; what was due before does not."""

import pytest
from sqlalchemy import Connection, select, text, update
from sqlalchemy.exc import DBAPIError

from lifesign.clock import EpochMs, ManualClock
from lifesign.db import StorageUnavailable
from lifesign.db.schema import engine_state, lanes, nodes, timers
from lifesign.db.schema import notifications as outbox
from lifesign.engine.alive import Alive
from lifesign.engine.rules import Reading, Span, Watch, believable, is_halt_over, joined, jump_ms
from tests.engine.steps import fire, hook, loop, told
from tests.harness import Lifesign, MakeLifesign
from tests.peers.process import LedgerPeer

AFTER_30_S = "2026-01-05T12:00:30.000Z"


async def _job_and_stop(start_lifesign: MakeLifesign, ledger: LedgerPeer, *, interval: int = 20) -> None:
    """A heartbeat made at noon by a node that then stops."""
    async with start_lifesign() as lifesign:
        channel = await lifesign.webhook(hook(ledger))
        await lifesign.heartbeat(slug="job", interval=interval, grace=5, channels=[channel["id"]])
        await lifesign.advance(0)


async def test_a_job_that_checks_in_soon_after_a_downtime_is_not_missed(
    start_lifesign: MakeLifesign, ledger: LedgerPeer
) -> None:
    await _job_and_stop(start_lifesign, ledger)

    async with start_lifesign(at=AFTER_30_S) as restarted:
        await restarted.advance(8)
        await restarted.check_in("job")
        await restarted.advance(10)

        assert await restarted.event_types("job") == ["checkin", "blind", "created"]
    assert told(ledger) == []


async def test_a_job_that_stays_silent_after_a_downtime_fires_when_the_hold_is_over_and_the_message_says_why(
    start_lifesign: MakeLifesign, ledger: LedgerPeer
) -> None:
    await _job_and_stop(start_lifesign, ledger)

    async with start_lifesign(at=AFTER_30_S) as restarted:
        await restarted.advance(9.9)
        assert (await restarted.get("job"))["status"] == "active"
        await restarted.advance(0.1)

        blind, firing = [
            each for each in reversed(await restarted.events("job")) if each["type"] in {"blind", "firing"}
        ]
    assert (blind["type"], firing["type"]) == ("blind", "firing")
    assert blind["metadata"] == {
        "from": "2026-01-05T12:00:00.000Z",
        "to": "2026-01-05T12:00:30.000Z",
        "heldUntil": "2026-01-05T12:00:40.000Z",
    }
    assert firing["metadata"]["deadline"] == "2026-01-05T12:00:20.000Z"
    assert told(ledger) == [(40, "incident.opened")]
    page = ledger.requests("/hook/ops")[0].json["data"]
    assert page["blind"] == {"from": "2026-01-05T12:00:00.000Z", "to": "2026-01-05T12:00:30.000Z"}
    assert "Lifesign itself was down from 2026-01-05T12:00:00.000Z to 2026-01-05T12:00:30.000Z" in str(page)


async def test_a_short_restart_across_a_deadline_fires_at_once(
    start_lifesign: MakeLifesign, ledger: LedgerPeer
) -> None:
    await _job_and_stop(start_lifesign, ledger, interval=1)

    async with start_lifesign(at="2026-01-05T12:00:08.000Z") as restarted:
        await restarted.advance(0)

        assert (await restarted.event_types("job"))[-2:] == ["firing", "created"]
    assert told(ledger) == [(8, "incident.opened")]


async def test_a_node_that_is_gone_again_as_soon_as_it_came_does_not_end_the_wait_for_what_nobody_heard(
    start_lifesign: MakeLifesign, ledger: LedgerPeer
) -> None:
    await _job_and_stop(start_lifesign, ledger)
    async with start_lifesign(at=AFTER_30_S) as crashing:
        await loop(crashing, "alive").tick(crashing.now())
        assert await crashing.event_types("job") == ["created"]

    async with start_lifesign(at="2026-01-05T12:00:45.000Z") as restarted:
        await restarted.advance(9.9)
        assert (await restarted.get("job"))["status"] == "active"
        await restarted.advance(0.1)

        blind = next(each for each in await restarted.events("job") if each["type"] == "blind")
    assert (blind["metadata"]["from"], blind["metadata"]["to"]) == (
        "2026-01-05T12:00:00.000Z",
        "2026-01-05T12:00:45.000Z",
    )
    assert told(ledger) == [(55, "incident.opened")]


@pytest.mark.parametrize(
    ("from_at", "counts_from"), [(59_000, 59_000), (60_000, 10_000), (69_999, 10_000), (70_000, 70_000)]
)
def test_a_silence_is_one_with_the_last_while_nothing_was_waited_for_to_its_end(from_at: int, counts_from: int) -> None:
    before, after = Span(EpochMs(10_000), EpochMs(60_000)), Span(EpochMs(from_at), EpochMs(90_000))

    assert joined(before, after, Watch(10_000, 10_000, 120_000)) == Span(EpochMs(counts_from), EpochMs(90_000))


# A clock that was ahead ---------------------------------------------------------------------------------------------
TOMORROW = "2026-01-06T12:00:00.000Z"


async def test_what_waits_because_the_clock_was_a_day_ahead_fires_in_time_once_that_is_put_right(
    start_lifesign: MakeLifesign, ledger: LedgerPeer
) -> None:
    await _job_and_stop(start_lifesign, ledger, interval=60)
    async with start_lifesign(at=TOMORROW) as ahead:
        await ahead.advance(0)
        assert await ahead.event_types("job") == ["blind", "created"]

    async with start_lifesign(at=AFTER_30_S) as right:
        await right.advance(34.9)
        assert (await right.get("job"))["status"] == "active"
        await right.advance(0.1)

        assert (await right.get("job"))["status"] == "firing"
    assert told(ledger) == [(65, "incident.opened")]


async def test_a_check_in_after_the_clock_was_ahead_is_waited_for_like_any_other(
    start_lifesign: MakeLifesign, ledger: LedgerPeer
) -> None:
    await _job_and_stop(start_lifesign, ledger)
    async with start_lifesign(at=TOMORROW) as ahead:
        await ahead.advance(0)
        await ahead.check_in("job")

    async with start_lifesign(at=AFTER_30_S) as right:
        await right.advance(0)
        await right.check_in("job")
        await right.advance(60)

    assert told(ledger) == [(55, "incident.opened")]


async def test_a_node_that_ended_with_its_clock_ahead_hides_no_later_silence(
    start_lifesign: MakeLifesign, ledger: LedgerPeer
) -> None:
    async with start_lifesign(at=TOMORROW) as ahead:
        await ahead.advance(0)
    await _job_and_stop(start_lifesign, ledger)

    async with start_lifesign(at=AFTER_30_S) as restarted:
        await restarted.advance(0)

        assert await restarted.event_types("job") == ["blind", "created"]
    assert told(ledger) == []


@pytest.mark.parametrize(
    ("now", "believed"),
    [(90_000, (10_000, 90_000)), (88_000, (10_000, 90_000)), (87_999, (10_000, 87_999)), (5_000, (5_000, 5_000))],
)
def test_no_silence_ended_in_the_future(now: int, believed: tuple[int, int]) -> None:
    assert believable(Span(EpochMs(10_000), EpochMs(90_000)), EpochMs(now)) == believed


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_waits_waits_as_long_as_before_when_the_clock_is_set_back(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    ledger.script("ops", {"status": 429, "headers": {"Retry-After": "60"}})
    channel = (await lifesign.webhook(hook(ledger)))["id"]
    policy = await lifesign.policy({"channels": [channel]}, {"channels": [channel], "wait": 600})
    await lifesign.heartbeat(slug="job", policy=policy["id"])
    await lifesign.heartbeat(slug="quiet")
    await fire(lifesign, "job")
    await lifesign.ask("POST", "/v1/heartbeats/quiet/snooze", {"until": TOMORROW})
    clock = _SetClock(lifesign.now())
    alive = Alive(lifesign.node.db, clock, lifesign.node.id, Watch(10_000, 10_000, 120_000))
    before = await _waits(lifesign)

    clock.set(EpochMs(lifesign.now() + 1_000 - 3_600_000))
    clock.seconds = 1.0
    await alive.tick(clock.now())
    await alive.tick(clock.now())

    assert {name for name, _ in before} == {
        "escalate",
        "failover",
        "snooze_end",
        "message",
        "channel due",
        "channel held",
    }
    assert await _waits(lifesign) == [(name, at if name == "snooze_end" else at - 3_600_000) for name, at in before]


async def _waits(lifesign: Lifesign) -> list[tuple[str, int]]:
    def found(conn: Connection) -> list[tuple[str, int]]:
        due = [(row[0], row[1]) for row in conn.execute(select(timers.c.kind, timers.c.due_at))]
        due += [("message", at) for at in conn.scalars(select(outbox.c.not_before))]
        for due_at, held_until in conn.execute(select(lanes.c.due_at, lanes.c.held_until)):
            due += [("channel due", due_at), ("channel held", held_until)]
        return sorted(due)

    return await lifesign.node.db.read(found)


async def test_turning_a_manual_clock_is_never_blind_time(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign() as lifesign:
        await lifesign.heartbeat(slug="job", interval=3600, grace=0)

        await lifesign.advance(24 * 3600)

        assert await lifesign.event_types("job") == ["unattended", "firing", "created"]
        span = await lifesign.node.db.read(lambda conn: tuple(conn.execute(select(engine_state)).one()))
    assert span == (1, None, None)


async def test_the_sweep_fires_nothing_before_the_gap_was_measured(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign() as lifesign:
        await lifesign.heartbeat(slug="job", interval=1, grace=0)
        await lifesign.advance(0)
        sweep = next(each for each in lifesign.node.driver.loops if each.name == "sweep")
        noon = lifesign.now()

        await sweep.tick(EpochMs(noon + 11_000))
        assert (await lifesign.get("job"))["status"] == "active"
        await lifesign.node.db.write(lambda conn: conn.execute(update(nodes).values(alive_at=noon + 1_000)))
        await sweep.tick(EpochMs(noon + 11_000))

        assert (await lifesign.get("job"))["status"] == "firing"


@pytest.mark.parametrize(
    ("wall_ms", "monotonic_s", "jumped"),
    [(1_000, 1.0, None), (60_000, 60.0, None), (-1_000, 1.0, None), (-1_001, 1.0, -2_001), (3_001, 1.0, 2_001)],
)
def test_a_clock_that_was_set_by_more_than_two_seconds_has_jumped(
    wall_ms: int, monotonic_s: float, jumped: int | None
) -> None:
    before = Reading(EpochMs(100_000), 50.0)

    assert jump_ms(before, Reading(EpochMs(100_000 + wall_ms), 50.0 + monotonic_s)) == jumped


@pytest.mark.parametrize(
    ("wall", "monotonic_s", "over"), [(99_999, 59.9, False), (100_000, 1.0, True), (50_000, 60.0, True)]
)
def test_firing_goes_on_when_the_old_time_comes_again_or_after_a_minute(
    wall: int, monotonic_s: float, *, over: bool
) -> None:
    assert is_halt_over(Reading(EpochMs(100_000), 0.0), Reading(EpochMs(wall), monotonic_s)) is over


async def test_the_metrics_tell_how_long_nobody_listened(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign() as lifesign:
        await lifesign.advance(0)
        before = await _blind_seconds(lifesign)

    async with start_lifesign(at=AFTER_30_S) as restarted:
        await restarted.advance(0)

        assert await _blind_seconds(restarted) - before == 30.0


async def _blind_seconds(lifesign: Lifesign) -> float:
    lines = (await lifesign.http.get("/metrics")).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("lifesign_blind_seconds_total"))


class _SetClock(ManualClock):
    """A clock whose wall can be set while its seconds run on."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


async def test_a_clock_that_is_set_back_stops_firing_until_the_old_time_or_for_a_minute(lifesign: Lifesign) -> None:
    clock = _SetClock(EpochMs(1_000_000))
    alive = Alive(lifesign.node.db, clock, "node_other", Watch(10_000, 10_000, 120_000))
    seen = []

    for wall, seconds in [(1_001_000, 1.0), (901_000, 2.0), (930_000, 31.0), (960_000, 61.0)]:
        clock.set(EpochMs(wall))
        clock.seconds = seconds
        seen.append(alive.may_fire())

    assert seen == [True, False, False, True]


async def test_a_server_that_cannot_write_says_so_and_recovers_by_itself(lifesign: Lifesign) -> None:
    await lifesign.node.db.write(lambda conn: conn.execute(text("ALTER TABLE nodes RENAME TO elsewhere")))
    with pytest.raises((StorageUnavailable, DBAPIError)):
        await lifesign.advance(1)
    refused = await lifesign.ask("GET", "/ready", expect=503)

    await lifesign.node.db.write(lambda conn: conn.execute(text("ALTER TABLE elsewhere RENAME TO nodes")))
    await lifesign.advance(1)

    assert (refused["ready"], refused["database"]) == (False, "refuses writes")
    assert (await lifesign.ask("GET", "/ready"))["database"] == "ok"
