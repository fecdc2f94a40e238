"""Snooze: states go on, nobody is told until it ends."""

from datetime import timedelta

import pytest

from lifesign.clock import EpochMs, rfc3339
from tests.engine.steps import fire, hook, notifications, told
from tests.harness import Lifesign
from tests.peers.process import LedgerPeer


async def snooze(lifesign: Lifesign, ref: str = "job", seconds: int = 60) -> None:
    await lifesign.ask("POST", f"/v1/heartbeats/{ref}/snooze", {"seconds": seconds, "reason": "deploying"})


async def job(lifesign: Lifesign, ledger: LedgerPeer, **fields: object) -> None:
    ops, later = await lifesign.webhook(hook(ledger)), await lifesign.webhook(hook(ledger, "later"))
    policy = await lifesign.policy({"channels": [ops["id"]]}, {"wait": 30, "channels": [later["id"]]})
    await lifesign.heartbeat("Job", policy=policy["id"], **fields)


async def test_what_fires_in_a_snooze_is_told_at_its_end(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await job(lifesign, ledger, interval=1, grace=0)
    await snooze(lifesign, seconds=5)

    await lifesign.advance(4)
    shown = await lifesign.get("job")
    assert (shown["status"], shown["snoozedUntil"]) == ("firing", "2026-01-05T12:00:05.000Z")
    assert told(ledger) == []
    (incident,) = await lifesign.incidents(shown["id"])
    assert (incident["holds"], incident["escalation"]) == (["snooze"], "held")

    await lifesign.advance(2)
    assert told(ledger) == [(5, "incident.opened")]
    assert "snoozedUntil" not in await lifesign.get("job")
    # Later waits count from the step that waited.
    await lifesign.advance(60)
    assert told(ledger, "later") == [(35, "incident.opened")]


async def test_a_snooze_while_firing_holds_the_steps_to_come(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await job(lifesign, ledger)
    await fire(lifesign, "job")
    await snooze(lifesign, seconds=100)

    await lifesign.advance(99)
    assert told(ledger, "later") == []
    await lifesign.advance(5)

    assert told(ledger, "later") == [(100, "incident.opened")]
    assert len(told(ledger)) == 1


async def test_a_snooze_that_ends_before_the_next_step_changes_nothing(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await job(lifesign, ledger)
    await fire(lifesign, "job")
    await snooze(lifesign, seconds=10)

    await lifesign.advance(60)

    assert told(ledger, "later") == [(30, "incident.opened")]


async def test_messages_that_have_not_left_are_held_too(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    ledger.script("ops", {"status": 500})
    await job(lifesign, ledger)
    await fire(lifesign, "job")
    await snooze(lifesign, seconds=600)
    assert [each["status"] for each in await notifications(lifesign, "job")] == ["held"]

    await lifesign.advance(590)
    assert len(told(ledger)) == 1
    await lifesign.advance(15)

    assert [each["status"] for each in await notifications(lifesign, "job")] == ["sent", "sent"]


@pytest.mark.parametrize("end", ["checkin", "ack", "pause"])
async def test_a_snooze_set_while_firing_ends_with_the_incident(
    lifesign: Lifesign, ledger: LedgerPeer, end: str
) -> None:
    await job(lifesign, ledger)
    await fire(lifesign, "job")
    await snooze(lifesign, seconds=3600)

    await lifesign.ask("POST", f"/v1/heartbeats/job/{end}")
    if end == "pause":
        await lifesign.ask("POST", "/v1/heartbeats/job/resume")

    assert "snoozedUntil" not in await lifesign.get("job")
    assert "snooze_ended" in await lifesign.event_types("job")
    await fire(lifesign, "job")
    assert [kind for _, kind in told(ledger)].count("incident.opened") == 2


async def test_a_snooze_set_while_alive_outlasts_an_incident(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await job(lifesign, ledger)
    await snooze(lifesign, seconds=3600)
    await fire(lifesign, "job")
    await lifesign.check_in("job")
    await fire(lifesign, "job")

    await lifesign.advance(60)

    assert told(ledger) == []
    assert (await lifesign.get("job"))["snoozedUntil"] == "2026-01-05T13:00:00.000Z"


async def test_unsnooze_tells_at_once(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await job(lifesign, ledger)
    await snooze(lifesign, seconds=3600)
    await fire(lifesign, "job")
    await lifesign.advance(7)

    await lifesign.ask("DELETE", "/v1/heartbeats/job/snooze", expect=204)
    await lifesign.advance(0)

    assert told(ledger) == [(7, "incident.opened")]
    refused = await lifesign.ask("DELETE", "/v1/heartbeats/job/snooze", expect=400)
    assert refused["error"]["code"] == "INVALID_STATE"


async def test_a_second_snooze_replaces_the_first(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await job(lifesign, ledger)
    await snooze(lifesign, seconds=10)
    await snooze(lifesign, seconds=100)
    await fire(lifesign, "job")

    await lifesign.advance(99)
    assert told(ledger) == []
    await lifesign.advance(2)

    assert told(ledger) == [(100, "incident.opened")]


async def test_own_channels_are_quiet_as_well_and_told_at_the_end(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    channel = await lifesign.webhook(hook(ledger))
    await lifesign.heartbeat("Job", channels=[channel["id"]])
    await snooze(lifesign, seconds=10)
    await fire(lifesign, "job")
    assert told(ledger) == []

    await lifesign.advance(11)

    assert told(ledger) == [(10, "incident.opened")]


async def test_two_holds_end_when_both_have(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await job(lifesign, ledger)
    await snooze(lifesign, seconds=20)
    await fire(lifesign, "job")
    window = {"name": "w", "startsAt": "2026-01-05T11:00:00Z", "endsAt": "2026-01-05T12:00:40Z", "all": True}
    await lifesign.ask("POST", "/v1/maintenance", window, expect=201)

    await lifesign.advance(30)
    assert told(ledger) == []
    await lifesign.advance(15)

    assert told(ledger) == [(40, "incident.opened")]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"seconds": 0},
        {"seconds": 2_592_001},
        {"seconds": 5, "until": "2026-01-05T12:30:00Z"},
        {"until": "2026-01-05T12:00:00Z"},
        {"until": "2026-02-05T12:00:00Z"},
        {"until": "tomorrow"},
        {"seconds": 5, "reason": "x" * 1001},
    ],
)
async def test_what_is_no_snooze_is_refused(lifesign: Lifesign, body: dict[str, object]) -> None:
    await lifesign.heartbeat("Job")

    refused = await lifesign.ask("POST", "/v1/heartbeats/job/snooze", body, expect=400)

    assert refused["error"]["details"][0]["field"] in {"seconds", "until", "reason"}
    assert await lifesign.event_types("job") == ["created"]


async def test_until_and_the_answer(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Job")
    until = rfc3339(EpochMs(lifesign.now() + int(timedelta(days=30).total_seconds()) * 1000))

    answer = await lifesign.ask("POST", "/v1/heartbeats/job/snooze", {"until": until, "reason": "away"})

    shown = await lifesign.get("job")
    assert answer == {"id": shown["id"], "status": "active", "snoozedUntil": until, "reason": "away"}
    newest = (await lifesign.events("job"))[0]
    assert (newest["type"], newest["metadata"]["until"], newest["metadata"]["reason"]) == ("snoozed", until, "away")
    await lifesign.ask("POST", "/v1/heartbeats/job/snooze", {"seconds": 2_592_000})


async def test_a_one_shot_that_is_over_is_not_snoozed(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Job", mode="oneshot")
    await lifesign.check_in("job")

    refused = await lifesign.ask("POST", "/v1/heartbeats/job/snooze", {"seconds": 5}, expect=400)

    assert refused["error"]["code"] == "INVALID_STATE"
