"""Machines that fall silent: what is read of them, when somebody is told, and how many there are and were."""

import asyncio

import pytest

from lifesign.clock import EpochMs
from lifesign.systems import rules
from lifesign.systems.rules import Windows
from tests.engine.steps import hook, told
from tests.harness import Lifesign, MakeLifesign
from tests.peers.process import LedgerPeer
from tests.systems.machines import Machine, asked, machine, refused

_DAY = 86_400


async def _watched(lifesign: Lifesign, ledger: LedgerPeer) -> Machine:
    channel = await lifesign.webhook(hook(ledger))
    policy = await lifesign.policy({"channels": [channel["id"]]})
    return await machine(lifesign, policy=policy["id"])


# Reading ------------------------------------------------------------------------------------------------------------
async def test_a_system_lives_until_its_window_is_over(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign)
    await db1.beat()
    await lifesign.advance(899.999)
    before = await db1.read()
    await lifesign.advance(0.001)
    after = await db1.read()

    assert (before["status"], before["heartbeat_minutes"]) == ("alive", 14)
    assert (after["status"], after["heartbeat_minutes"]) == ("dead", 15)
    assert after["heartbeat_status"] == "active"


async def test_a_system_with_an_interval_of_its_own_lives_for_one_and_a_half_of_it(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign, interval=11)
    await db1.beat()
    await lifesign.advance(16.999)
    before = (await db1.read())["status"]
    await lifesign.advance(0.001)

    assert (before, (await db1.read())["status"]) == ("alive", "dead")


async def test_a_system_that_never_reported_is_a_zombie_and_nobody_is_told(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    db1 = await _watched(lifesign, ledger)

    await lifesign.advance(_DAY)

    zombie = await db1.read()
    assert (zombie["status"], zombie["last_heartbeat"]) == ("zombie", None)
    assert "heartbeat_minutes" not in zombie
    assert (await lifesign.ask("GET", "/v1/incidents"))["incidents"] == []
    await db1.beat()
    alive = await db1.read()
    assert (alive["status"], alive["heartbeat_minutes"]) == ("alive", 0)
    assert alive["first_heartbeat"] == alive["last_heartbeat"] == "2026-01-06T12:00:00.000Z"


# Alerting -----------------------------------------------------------------------------------------------------------
async def test_silence_opens_one_incident_and_the_next_beat_ends_it(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    db1 = await _watched(lifesign, ledger)
    await db1.beat()
    await lifesign.advance(1199.999)
    quiet = told(ledger)
    await lifesign.advance(0.001)
    silent = await db1.read()
    await lifesign.advance(3600)
    await db1.beat()
    await lifesign.advance(0)

    assert quiet == []
    assert (silent["status"], silent["heartbeat_status"]) == ("dead", "firing")
    assert [kind for _, kind in told(ledger)] == ["incident.opened", "incident.resolved"]
    assert told(ledger)[0][0] == 1200
    (incident,) = await lifesign.incidents(db1.heartbeat_id)
    assert (incident["status"], incident["resolution"]) == ("resolved", "checkin")


async def test_while_paused_beats_are_taken_and_nothing_fires(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    db1 = await _watched(lifesign, ledger)
    await db1.beat()
    await lifesign.ask("POST", f"/v1/heartbeats/{db1.heartbeat_id}/pause")
    await lifesign.advance(600)
    await db1.beat()
    await lifesign.advance(_DAY)

    read = await db1.read()
    assert (read["last_heartbeat"], read["heartbeat_status"]) == ("2026-01-05T12:10:00.000Z", "paused")
    assert told(ledger) == []


async def test_suspending_ends_an_incident_without_a_word_and_reactivating_waits_anew(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    db1 = await _watched(lifesign, ledger)
    await db1.beat()
    await lifesign.advance(1200)
    await asked(lifesign, "POST", f"/{db1.id}/suspend")
    await lifesign.advance(_DAY)
    (incident,) = await lifesign.incidents(db1.heartbeat_id)
    back = await asked(lifesign, "POST", f"/{db1.id}/reactivate")
    await lifesign.advance(1199)
    told_before = told(ledger)
    await lifesign.advance(1)

    assert (incident["status"], back["heartbeat_status"]) == ("resolved", "active")
    # A receiver that keeps count hears that the incident is closed; nobody hears of a recovery.
    assert [kind for _, kind in told_before] == ["incident.opened", "incident.closed"]
    assert [kind for _, kind in told(ledger)][2:] == ["incident.opened"]


@pytest.mark.parametrize("by", ["system", "heartbeat"])
async def test_one_that_never_reported_is_not_waited_for_after_a_pause_either(
    lifesign: Lifesign, ledger: LedgerPeer, by: str
) -> None:
    db1 = await _watched(lifesign, ledger)
    if by == "system":
        await asked(lifesign, "POST", f"/{db1.id}/suspend")
        await asked(lifesign, "POST", f"/{db1.id}/reactivate")
    else:
        await lifesign.ask("POST", f"/v1/heartbeats/{db1.heartbeat_id}/pause")
        resumed = await lifesign.ask("POST", f"/v1/heartbeats/{db1.heartbeat_id}/resume")
        assert resumed == {"id": db1.heartbeat_id, "status": "active"}

    await lifesign.advance(_DAY)

    assert (await db1.read())["heartbeat_status"] == "active"
    assert told(ledger) == []


@pytest.mark.parametrize("was_paused", [False, True])
async def test_only_reactivating_a_suspended_system_resumes_its_heartbeat(
    lifesign: Lifesign, ledger: LedgerPeer, was_paused: bool
) -> None:
    db1 = await _watched(lifesign, ledger)
    await db1.beat()
    path = f"/v1/heartbeats/{db1.heartbeat_id}"
    if was_paused:
        await lifesign.ask("POST", f"{path}/pause")
    await asked(lifesign, "POST", f"/{db1.id}/suspend")

    refused = (await lifesign.ask("POST", f"{path}/resume", expect=400))["error"]
    await lifesign.ask("POST", f"{path}/pause", expect=400)
    await lifesign.advance(_DAY)
    quiet = await db1.read()
    back = await asked(lifesign, "POST", f"/{db1.id}/reactivate")

    assert (refused["code"], refused["message"]) == ("INVALID_STATE", f"system {db1.id} is suspended")
    assert refused["details"] == {"status": "paused"}
    assert (quiet["heartbeat_status"], back["heartbeat_status"]) == ("paused", "active")
    assert await lifesign.event_types(db1.heartbeat_id) == ["resumed", "paused", "checkin", "created"]
    assert told(ledger) == []
    # What is paused by hand from now on is resumed by hand.
    await lifesign.ask("POST", f"{path}/pause")
    await lifesign.ask("POST", f"{path}/resume")


async def test_a_system_that_was_suspended_while_its_heartbeat_was_resumed_is_not_waited_for(
    lifesign: Lifesign,
) -> None:
    db1 = await machine(lifesign)
    await db1.beat()
    await lifesign.ask("POST", f"/v1/heartbeats/{db1.heartbeat_id}/pause")

    await asyncio.gather(
        asked(lifesign, "POST", f"/{db1.id}/suspend"),
        *(lifesign.http.post(f"/v1/heartbeats/{db1.heartbeat_id}/resume") for _ in range(5)),
    )

    assert (await db1.read())["heartbeat_status"] == "paused"


async def test_a_deleted_system_tells_nobody_any_more(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    db1 = await _watched(lifesign, ledger)
    await db1.beat()
    await asked(lifesign, "DELETE", f"/{db1.id}")

    await lifesign.advance(_DAY)

    assert told(ledger) == []


async def test_systems_are_waited_for_as_the_settings_say_after_a_restart(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign() as lifesign:
        usual, own = await machine(lifesign), await machine(lifesign, "own", interval=60)
        await usual.beat()
    async with start_lifesign(
        system_interval_seconds=60, system_alive_seconds=100, system_alert_seconds=180
    ) as lifesign:
        usual, own = Machine(lifesign, usual.made), Machine(lifesign, own.made)
        below = await lifesign.get(usual.heartbeat_id)
        await lifesign.advance(100)

        assert (below["interval"], below["grace"], below["firesAt"]) == (60, 120, "2026-01-05T12:03:00.000Z")
        assert (await usual.read())["status"] == "dead"
        assert (await lifesign.get(own.heartbeat_id))["grace"] == 60
        assert await lifesign.event_types(own.heartbeat_id) == ["created"]


# How many -----------------------------------------------------------------------------------------------------------
async def _of_every_kind(lifesign: Lifesign) -> None:
    """One zombie, two dead, one alive by its own interval, and one suspended that reported."""
    await machine(lifesign, "zombie")
    suspended = await machine(lifesign, "suspended")
    for each in (await machine(lifesign, "dead 1"), await machine(lifesign, "dead 2"), suspended):
        await each.beat()
    await asked(lifesign, "POST", f"/{suspended.id}/suspend")
    await (await machine(lifesign, "slow", interval=3600)).beat()
    await lifesign.advance(900)


@pytest.mark.parametrize(
    ("query", "alive", "dead", "minutes"), [("", 1, 2, 15), ("?timeout=16", 3, 0, 16), ("?timeout=15", 0, 3, 15)]
)
async def test_totals_count_each_system_once(
    lifesign: Lifesign, query: str, alive: int, dead: int, minutes: int
) -> None:
    await _of_every_kind(lifesign)

    answer = await lifesign.ask("GET", f"/api/systems/totals{query}")

    assert answer == {
        "code": 200,
        "message": "system totals retrieved successfully",
        "data": {
            "total_systems": 4,
            "alive_systems": alive,
            "dead_systems": dead,
            "zombie_systems": 1,
            "suspended_systems": 1,
            "timeout_minutes": minutes,
        },
    }


async def test_totals_of_nothing_are_nothing(lifesign: Lifesign) -> None:
    assert set((await asked(lifesign, "GET", "/totals")).values()) == {0, 15}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0", "out_of_range"),
        ("61", "out_of_range"),
        ("-1", "out_of_range"),
        ("abc", "invalid_type"),
        ("1.5", "invalid_type"),
    ],
)
async def test_a_timeout_that_is_none_is_refused(lifesign: Lifesign, value: str, message: str) -> None:
    assert await refused(lifesign, "GET", f"/totals?timeout={value}") == (
        400,
        [{"key": "timeout", "message": message, "value": value}],
    )


async def test_the_trend_counts_how_many_systems_there_were(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(at="2026-01-05T12:00:00Z") as lifesign:
        for name in ("a", "b"):
            await machine(lifesign, name)
        await lifesign.advance(3 * _DAY)
        gone = await machine(lifesign, "c")
        await lifesign.advance(2 * _DAY)
        await asked(lifesign, "DELETE", f"/{gone.id}")

        answer = await lifesign.ask("GET", "/api/systems/trend")

    assert answer["message"] == "system trend retrieved successfully"
    assert answer["data"] == {
        "period": 7,
        "period_label": "7 days",
        "current_total": 2,
        "previous_total": 0,
        "delta": 2,
        "delta_percentage": 100.0,
        "trend": "up",
        "data_points": [
            {"date": "2026-01-04", "count": 0},
            {"date": "2026-01-05", "count": 2},
            {"date": "2026-01-06", "count": 2},
            {"date": "2026-01-07", "count": 2},
            {"date": "2026-01-08", "count": 3},
            {"date": "2026-01-09", "count": 3},
            {"date": "2026-01-10", "count": 2},
        ],
    }


@pytest.mark.parametrize(
    ("period", "points", "first"),
    [
        (7, 7, "2025-12-30"),
        (30, 30, "2025-12-07"),
        (180, 26, "2025-07-14"),
        (365, 12, "2025-02-28"),
    ],
)
async def test_a_trend_has_a_point_for_each_day_week_or_month(
    lifesign: Lifesign, period: int, points: int, first: str
) -> None:
    trend = await asked(lifesign, "GET", f"/trend?period={period}")

    assert len(trend["data_points"]) == points
    assert [trend["data_points"][at]["date"] for at in (0, -1)] == [first, "2026-01-05"]
    assert (trend["trend"], trend["delta_percentage"]) == ("stable", 0)


@pytest.mark.parametrize("period", ["8", "", "07", "week"])
async def test_another_period_is_refused(lifesign: Lifesign, period: str) -> None:
    assert await refused(lifesign, "GET", f"/trend?period={period}") == (
        400,
        [{"key": "period", "message": "invalid_value", "value": period}],
    )


def _at(day: int) -> EpochMs:
    return EpochMs(1_767_614_400_000 + day * _DAY * 1000)


def test_a_trend_that_goes_down_says_by_how_much() -> None:
    trend = rules.trend([_at(-20)] * 3, [_at(-1)], 7, _at(0))

    assert (trend.counts[-1], trend.previous, trend.delta, trend.delta_percentage) == (2, 3, -1, -33.33)
    assert trend.direction == "down"


def test_month_ends_keep_to_the_calendar() -> None:
    days = rules.trend([], [], 365, EpochMs(1_709_208_000_000)).days  # 2024-02-29

    assert [each.isoformat() for each in days[-4:]] == ["2023-11-30", "2023-12-31", "2024-01-31", "2024-02-29"]


@pytest.mark.parametrize(("interval_s", "alive_ms", "alert_ms"), [(10, 15_000, 20_000), (11, 17_000, 22_000)])
def test_the_alive_window_is_rounded_up_to_whole_seconds(interval_s: int, alive_ms: int, alert_ms: int) -> None:
    windows = Windows(600_000, 900_000, 1_200_000)

    assert windows.of(interval_s) == (interval_s * 1000, alive_ms, alert_ms)
    assert windows.of(None) == windows
