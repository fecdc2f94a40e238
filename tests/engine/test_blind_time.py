"""What was due while no node listened gets time to check in; what was due before does not."""

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError

from lifesign.clock import EpochMs, ManualClock
from lifesign.db import StorageUnavailable
from lifesign.db.schema import engine_state, nodes
from lifesign.engine.alive import Alive
from lifesign.engine.rules import Reading, Watch, is_halt_over, jump_ms
from tests.engine.steps import hook, told
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
