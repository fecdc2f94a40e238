"""Maintenance windows: inside one, silence and bad news open no incident."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifesign.clock import EpochMs
from lifesign.maintenance import rules
from lifesign.maintenance.rules import Window
from tests.engine.steps import fire, hook, told
from tests.harness import Json, Lifesign
from tests.peers.process import LedgerPeer


async def window(lifesign: Lifesign, *, expect: int = 201, **fields: object) -> Json:
    times = {"startsAt": "2026-01-05T12:00:00Z", "endsAt": "2026-01-05T12:10:00Z"}
    body = {"name": "Reboot"} | ({} if "schedule" in fields else times) | fields
    return await lifesign.ask("POST", "/v1/maintenance", body, expect=expect)


async def test_a_window_is_shown_listed_changed_and_deleted(lifesign: Lifesign) -> None:
    made = await window(lifesign, tags=["db"])
    key = made.pop("id")
    assert key.startswith("mw_")
    assert made == {
        "name": "Reboot",
        "active": True,
        "createdAt": "2026-01-05T12:00:00.000Z",
        "startsAt": "2026-01-05T12:00:00.000Z",
        "endsAt": "2026-01-05T12:10:00.000Z",
        "tags": ["db"],
    }
    assert await lifesign.ask("GET", f"/v1/maintenance/{key}") == made | {"id": key}
    assert (await lifesign.ask("GET", "/v1/maintenance"))["maintenance"] == [made | {"id": key}]

    assert "updatedAt" not in await lifesign.ask("PATCH", f"/v1/maintenance/{key}", {})
    changed = await lifesign.ask(
        "PATCH", f"/v1/maintenance/{key}", {"schedule": "0  3 * * SUN", "duration": 3600, "all": True}
    )
    assert changed == {
        "id": key,
        "name": "Reboot",
        "active": False,
        "createdAt": "2026-01-05T12:00:00.000Z",
        "updatedAt": "2026-01-05T12:00:00.000Z",
        "schedule": "0 3 * * SUN",
        "duration": 3600,
        "timezone": "UTC",
        "all": True,
    }
    await lifesign.ask("DELETE", f"/v1/maintenance/{key}", expect=204)
    await lifesign.ask("GET", f"/v1/maintenance/{key}", expect=404)
    await lifesign.ask("DELETE", f"/v1/maintenance/{key}", expect=404)


async def test_a_miss_inside_is_suppressed_and_the_next_one_after_it_fires(lifesign: Lifesign) -> None:
    made = await lifesign.heartbeat("Job", interval=480, grace=0)
    await window(lifesign, heartbeats=["job"])

    await lifesign.advance(500)

    shown = await lifesign.get("job")
    assert (shown["status"], shown["nextDeadline"]) == ("active", "2026-01-05T12:16:00.000Z")
    assert shown["maintenance"] is True
    newest = (await lifesign.events("job"))[0]
    assert (newest["type"], newest["metadata"]["suppressed"]) == ("missed", "maintenance")
    await lifesign.advance(480)
    assert (await lifesign.get("job"))["status"] == "firing"
    assert "maintenance" not in await lifesign.get("job")
    assert len(await lifesign.incidents(made["id"])) == 1


async def test_bad_news_inside_opens_no_incident_and_does_not_count(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Job", tolerance={"failures": 2, "window": 9})
    await window(lifesign, all=True)

    for _ in range(3):
        await lifesign.check_in("job", healthy=False)

    newest = (await lifesign.events("job"))[0]
    assert (newest["type"], newest["metadata"]["suppressed"]) == ("checkin_unhealthy", "maintenance")
    await lifesign.advance(601)
    await lifesign.check_in("job", healthy=False)
    assert (await lifesign.get("job"))["status"] == "active"


async def test_the_end_is_exclusive(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Early", interval=599, grace=0)
    await lifesign.heartbeat("Late", interval=600, grace=0)
    await window(lifesign, all=True)

    await lifesign.advance(600)

    assert (await lifesign.get("early"))["status"] == "active"
    assert (await lifesign.get("late"))["status"] == "firing"


async def test_silence_is_judged_by_its_own_moment_however_late_it_is_looked_at(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    channel = await lifesign.webhook(hook(ledger))
    inside = await lifesign.heartbeat("Inside", interval=599, grace=0)
    before = await lifesign.heartbeat("Before", interval=599, grace=0, channels=[channel["id"]])
    await window(lifesign, heartbeats=["inside"])
    await window(lifesign, heartbeats=["before"], startsAt="2026-01-05T12:10:00Z", endsAt="2026-01-05T12:20:00Z")
    await lifesign.advance(598)

    # Both fell silent at 12:09:59, and are looked at two seconds later.
    lifesign.clock.set(EpochMs(lifesign.now() + 3000))
    await lifesign.advance(0)

    assert (await lifesign.get("inside"))["status"] == "active"
    newest = (await lifesign.events("inside"))[0]
    assert (newest["type"], newest["metadata"]["suppressed"]) == ("missed", "maintenance")
    assert await lifesign.incidents(inside["id"]) == []
    (incident,) = await lifesign.incidents(before["id"])
    assert (incident["status"], incident["holds"]) == ("open", ["maintenance"])
    assert told(ledger) == []
    await lifesign.advance(600)
    assert told(ledger) == [(1200, "incident.opened")]


async def test_a_one_shot_waits_for_the_end_of_the_window(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Job", mode="oneshot", interval=60, grace=30)
    await window(lifesign, all=True)

    await lifesign.advance(100)

    shown = await lifesign.get("job")
    assert shown["nextDeadline"] == "2026-01-05T12:10:00.000Z"
    assert shown["firesAt"] == "2026-01-05T12:10:30.000Z"
    await lifesign.advance(530)
    assert (await lifesign.get("job"))["status"] == "firing"


async def test_a_run_that_stalls_inside_is_suppressed(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Job")
    await window(lifesign, all=True)
    await lifesign.ask("POST", "/v1/heartbeats/job/runs", {"runId": "a", "lease": 10}, expect=201)

    await lifesign.advance(11)

    assert (await lifesign.get("job"))["status"] == "active"
    newest = (await lifesign.events("job"))[0]
    assert (newest["type"], newest["metadata"]) == ("run_stalled", {"runId": "a", "suppressed": "maintenance"})


async def test_steps_of_an_open_incident_wait_for_the_end(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    channel = await lifesign.webhook(hook(ledger))
    policy = await lifesign.policy({"channels": [channel["id"]]}, {"wait": 60, "channels": [channel["id"]]})
    made = await lifesign.heartbeat("Job", policy=policy["id"])
    await window(lifesign, all=True, startsAt="2026-01-05T12:00:30Z")
    await fire(lifesign, "job")
    assert told(ledger) == [(0, "incident.opened")]

    await lifesign.advance(31)
    (incident,) = await lifesign.incidents(made["id"])
    assert incident["holds"] == ["maintenance"]
    await lifesign.advance(560)
    assert len(told(ledger)) == 1
    await lifesign.advance(15)

    assert told(ledger)[1:] == [(600, "incident.escalated")]


async def test_deleting_an_open_window_ends_it_now(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    channel = await lifesign.webhook(hook(ledger))
    policy = await lifesign.policy({"channels": [channel["id"]]}, {"wait": 60, "channels": [channel["id"]]})
    await lifesign.heartbeat("Job", policy=policy["id"])
    await fire(lifesign, "job")
    made = await window(lifesign, all=True)
    await lifesign.advance(90)
    assert len(told(ledger)) == 1

    await lifesign.ask("DELETE", f"/v1/maintenance/{made['id']}", expect=204)
    await lifesign.advance(0)

    assert told(ledger)[1:] == [(90, "incident.escalated")]


async def test_overlapping_windows_act_as_one(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    channel = await lifesign.webhook(hook(ledger))
    policy = await lifesign.policy({"channels": [channel["id"]]}, {"wait": 60, "channels": [channel["id"]]})
    await lifesign.heartbeat("Job", policy=policy["id"], tags=["db"])
    await fire(lifesign, "job")
    await window(lifesign, all=True)
    await window(lifesign, tags=["db"], startsAt="2026-01-05T12:05:00Z", endsAt="2026-01-05T12:15:00Z")

    await lifesign.advance(890)
    assert len(told(ledger)) == 1
    await lifesign.advance(20)

    assert told(ledger)[1:] == [(900, "incident.escalated")]


async def test_a_recurring_window_opens_by_its_time_zone(lifesign: Lifesign) -> None:
    made = await window(lifesign, schedule="0 14 * * *", duration=3600, timezone="Europe/Berlin", namespaces=["shop"])
    assert made["active"] is False
    await lifesign.heartbeat("Inside", namespace="shop", interval=4000, grace=0)
    await lifesign.heartbeat("Outside", interval=4000, grace=0)

    await lifesign.advance(4000)

    # 14:00 in Berlin is 13:00 in UTC.
    assert (await lifesign.ask("GET", f"/v1/maintenance/{made['id']}"))["active"] is True
    assert (await lifesign.get("inside"))["status"] == "active"
    assert (await lifesign.get("outside"))["status"] == "firing"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "heartbeats"),
        ({"all": False}, "all"),
        ({"all": True, "tags": ["db"]}, "all"),
        ({"heartbeats": []}, "heartbeats"),
        ({"heartbeats": ["nope"]}, "heartbeats[0]"),
        ({"all": True, "endsAt": "2026-01-05T12:00:00Z"}, "endsAt"),
        ({"all": True, "endsAt": "2027-01-06T12:00:00.001Z"}, "endsAt"),
        ({"heartbeats": ["x"] * 1001}, "heartbeats"),
        ({"namespaces": ["x"] * 101}, "namespaces"),
        ({"tags": ["x"] * 51}, "tags"),
        ({"all": True, "schedule": "0 3 * * *", "duration": 604_801}, "duration"),
        ({"all": True, "startsAt": "2026-01-05T12:00:00"}, "startsAt"),
        ({"all": True, "schedule": "0 3 * * *"}, "duration"),
        ({"all": True, "schedule": "0 3 * *", "duration": 60}, "schedule"),
        ({"all": True, "schedule": "0 3 * * *", "duration": 59}, "duration"),
        ({"all": True, "duration": 60}, "duration"),
        ({"all": True, "schedule": "0 3 * * *", "duration": 60, "timezone": "Mars/Base"}, "timezone"),
        ({"all": True, "name": ""}, "name"),
    ],
)
async def test_what_is_no_window_is_refused(lifesign: Lifesign, fields: Json, field: str) -> None:
    refused = await window(lifesign, expect=400, **fields)

    assert field in [each["field"] for each in refused["error"]["details"]]
    assert (await lifesign.ask("GET", "/v1/maintenance"))["maintenance"] == []


async def test_windows_may_be_as_long_and_as_wide_as_is_said(lifesign: Lifesign) -> None:
    longest = await window(lifesign, all=True, endsAt="2027-01-06T12:00:00Z")
    week = await window(lifesign, schedule="0 3 * * *", duration=604_800, tags=[f"t{n}" for n in range(50)])
    wide = await window(lifesign, namespaces=[f"n{n}" for n in range(100)])

    listed = (await lifesign.ask("GET", "/v1/maintenance?limit=2"))["maintenance"]
    assert [each["id"] for each in listed] == [longest["id"], week["id"]]
    assert (len(week["tags"]), len(wide["namespaces"])) == (50, 100)


async def test_a_change_that_makes_no_window_is_refused(lifesign: Lifesign) -> None:
    made = await window(lifesign, all=True)

    for change, field in (
        ({"endsAt": "2026-01-05T11:00:00Z"}, "endsAt"),
        ({"schedule": "0 3 * * *"}, "duration"),
        ({"duration": 600}, "duration"),
        ({"all": None}, "all"),
        ({"heartbeats": ["nope"]}, "heartbeats[0]"),
    ):
        refused = await lifesign.ask("PATCH", f"/v1/maintenance/{made['id']}", change, expect=400)
        assert refused["error"]["details"][0]["field"] == field
    assert await lifesign.ask("GET", f"/v1/maintenance/{made['id']}") == made


async def test_a_heartbeat_that_comes_into_a_window_by_an_edit_is_quiet_and_is_told_of_once_it_leaves(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    channel = await lifesign.webhook(hook(ledger))
    policy = await lifesign.policy({"channels": [channel["id"]]}, {"wait": 60, "channels": [channel["id"]]})
    await lifesign.heartbeat("Job", policy=policy["id"])
    await window(lifesign, tags=["db"], endsAt="2026-01-06T12:00:00Z")
    await fire(lifesign, "job")

    await lifesign.ask("PATCH", "/v1/heartbeats/job", {"tags": ["db"]})
    await lifesign.advance(90)
    assert len(told(ledger)) == 1
    await lifesign.ask("PATCH", "/v1/heartbeats/job", {"tags": None})
    await lifesign.advance(0)

    assert told(ledger)[1:] == [(90, "incident.escalated")]


async def test_a_window_can_be_changed_after_one_of_its_heartbeats_is_gone(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Gone")
    kept = await lifesign.heartbeat("Kept")
    made = await window(lifesign, heartbeats=["gone", "kept"])
    await lifesign.ask("DELETE", "/v1/heartbeats/gone", expect=204)

    changed = await lifesign.ask("PATCH", f"/v1/maintenance/{made['id']}", {"name": "Move"})

    assert changed["name"] == "Move"
    assert kept["id"] in changed["heartbeats"]


NOON = EpochMs(1_767_614_400_000)
_windows = st.builds(
    lambda once, start, minutes: Window(
        name="w",
        starts_at=EpochMs(NOON + start * 1000) if once else None,
        ends_at=EpochMs(NOON + start * 1000 + minutes * 60_000) if once else None,
        schedule=None if once else "*/7 * * * *",
        duration_ms=None if once else minutes * 60_000,
        timezone="UTC",
        target="all",
        members=(),
        id="mw_1",
        project_id="prj_1",
        created_at=NOON,
        updated_at=None,
    ),
    st.booleans(),
    st.integers(-3600, 3600),
    st.integers(1, 20),
)


@given(_windows, st.lists(st.integers(-7200, 7200).map(lambda second: EpochMs(NOON + second * 1000)), max_size=20))
def test_of_many_moments_each_is_judged_as_it_would_be_alone(window: Window, moments: list[EpochMs]) -> None:
    alone = {at: rules.open_until(window, at) for at in moments}

    assert rules.closings(window, moments) == {at: until for at, until in alone.items() if until is not None}
