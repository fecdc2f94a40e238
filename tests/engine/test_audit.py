"""What must not exist is put right; what is right is left alone; and another monitor hears that all is well."""

from typing import Any

import pytest
from sqlalchemy import Table, delete, select, update

from lifesign.clock import EpochMs
from lifesign.db.schema import heartbeats, incidents, lanes, notifications, storms, timers
from lifesign.engine import damage
from lifesign.engine.damage import Rule
from tests.engine.steps import fire, hook, loop, told
from tests.engine.steps import incidents as shown_incidents
from tests.harness import Json, Lifesign, MakeLifesign
from tests.peers.process import LedgerPeer


async def _damage(lifesign: Lifesign, table: Table, **values: Any) -> None:  # Any: values of columns
    await lifesign.node.db.write(lambda conn: conn.execute(update(table).values(values)))


async def _audit(lifesign: Lifesign) -> None:
    """Let the auditor look, and what follows at once happen."""
    await lifesign.advance(31)


async def _repairs(lifesign: Lifesign, ref: str) -> list[str]:
    return [each["metadata"]["rule"] for each in await lifesign.events(ref) if each["type"] == "repaired"]


async def _open(lifesign: Lifesign, ref: str) -> list[Json]:
    return [each for each in await shown_incidents(lifesign, ref) if each["status"] == "open"]


async def test_an_escalation_that_lost_its_timer_goes_on(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    channel = await lifesign.webhook(hook(ledger))
    policy = await lifesign.policy({"channels": [channel["id"]], "wait": 3600})
    await lifesign.heartbeat(slug="job", policy=policy["id"])
    await fire(lifesign, "job")
    await lifesign.node.db.write(lambda conn: conn.execute(delete(timers)))

    await _audit(lifesign)

    assert [kind for _, kind in told(ledger)] == ["incident.opened"]
    assert await _repairs(lifesign, "job") == ["timer"]
    assert 'lifesign_audit_repairs_total{rule="timer"}' in (await lifesign.http.get("/metrics")).text


async def test_a_finished_escalation_that_nothing_looks_at_any_more_is_looked_at(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    channel = await lifesign.webhook(hook(ledger))
    await lifesign.heartbeat(slug="job", channels=[channel["id"]])
    await fire(lifesign, "job")
    await lifesign.node.db.write(lambda conn: conn.execute(delete(timers)))

    await _audit(lifesign)

    assert await _repairs(lifesign, "job") == ["timer"]
    (incident,) = await _open(lifesign, "job")
    assert incident["unattended"] == "exhausted"


async def test_a_firing_heartbeat_without_an_incident_gets_one(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    channel = await lifesign.webhook(hook(ledger))
    await lifesign.heartbeat(slug="job", channels=[channel["id"]])
    await _damage(lifesign, heartbeats, status="firing", next_deadline=None, fires_at=None, check_at=None)

    await _audit(lifesign)

    assert len(await _open(lifesign, "job")) == 1
    assert [kind for _, kind in told(ledger)] == ["incident.opened"]
    assert await _repairs(lifesign, "job") == ["firing_alone"]
    await lifesign.check_in("job")
    assert (await lifesign.get("job"))["status"] == "active"


async def test_an_open_incident_makes_its_heartbeat_fire(lifesign: Lifesign) -> None:
    await lifesign.heartbeat(slug="job", interval=86_400)
    await fire(lifesign, "job")
    await _damage(lifesign, heartbeats, status="active", incident_id=None)

    await _audit(lifesign)

    (incident,) = await _open(lifesign, "job")
    shown = await lifesign.get("job")
    assert (shown["status"], shown["incident"]) == ("firing", incident["id"])
    assert await _repairs(lifesign, "job") == ["not_firing"]


async def test_an_incident_whose_heartbeat_is_gone_is_closed(lifesign: Lifesign) -> None:
    made = await lifesign.heartbeat(slug="job")
    await fire(lifesign, "job")
    await lifesign.node.db.write(lambda conn: conn.execute(delete(heartbeats)))

    await _audit(lifesign)

    assert [each["status"] for each in await lifesign.incidents(made["id"])] == ["resolved"]
    assert await lifesign.node.db.read(lambda conn: conn.execute(select(timers)).all()) == []


@pytest.mark.parametrize("bound", [None, 9_999_999_999_999])
async def test_a_heartbeat_that_would_never_be_looked_at_fires_all_the_same(
    lifesign: Lifesign, bound: int | None
) -> None:
    await lifesign.heartbeat(slug="job", interval=60, grace=0)
    await _damage(lifesign, heartbeats, check_at=bound)

    await _audit(lifesign)
    await lifesign.advance(30)

    assert (await lifesign.get("job"))["status"] == "firing"
    assert await _repairs(lifesign, "job") == ["bound"]


async def test_a_channel_that_forgot_its_messages_sends_them(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    channel = await lifesign.webhook(hook(ledger))
    ledger.script("ops", {"status": 500})
    await lifesign.heartbeat(slug="job", channels=[channel["id"]])
    await fire(lifesign, "job")
    await _damage(lifesign, lanes, due_at=None)

    await lifesign.advance(60)
    assert len(ledger.requests("/hook/ops")) == 1
    await lifesign.advance(60)

    assert len(ledger.requests("/hook/ops")) == 2


async def test_a_message_whose_sender_is_gone_is_taken_back_even_without_the_reaper(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    channel = await lifesign.webhook(hook(ledger))
    ledger.script("ops", {"status": 500})
    await lifesign.heartbeat(slug="job", channels=[channel["id"]])
    await fire(lifesign, "job")
    await _damage(lifesign, notifications, status="sending", lease_until=lifesign.now() - 130_000, lease_owner="gone")

    # The auditor alone: the reaper would have done it long ago.
    await loop(lifesign, "audit").tick(EpochMs(lifesign.now() + 31_000))
    await lifesign.advance(32)

    assert len(ledger.requests("/hook/ops")) == 2
    assert await _repairs(lifesign, "job") == ["lease"]


async def test_nothing_is_repaired_while_everything_is_as_it_should_be(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    ledger.script("ops", {"status": 500, "times": 3}, {"status": 429}, {"close": "after_read"})
    channel = await lifesign.webhook(hook(ledger))
    policy = await lifesign.policy({"channels": [channel["id"]]}, {"channels": [channel["id"]], "wait": 120})
    for number in range(8):
        escalates = {"policy": policy["id"]} if number % 2 else {}
        await lifesign.heartbeat(slug=f"job-{number}", interval=60, grace=0, **escalates)
    await lifesign.advance(200)
    await lifesign.check_in("job-1")
    await lifesign.ask("POST", "/v1/heartbeats/job-2/ack")
    await lifesign.ask("POST", "/v1/heartbeats/job-3/pause")
    await lifesign.ask("DELETE", "/v1/heartbeats/job-4", expect=204)
    await lifesign.ask("DELETE", f"/v1/policies/{policy['id']}?force=true", expect=204)

    await lifesign.advance(7200)

    for number in (0, 1, 2, 3, 5, 6, 7):
        assert await _repairs(lifesign, f"job-{number}") == []
    assert await lifesign.node.db.read(lambda conn: conn.scalar(select(incidents.c.id).limit(1))) is not None


@pytest.mark.parametrize("hold", ["snooze", "maintenance", "dependency"])
async def test_a_hold_without_a_reason_ends(lifesign: Lifesign, ledger: LedgerPeer, hold: str) -> None:
    channel = await lifesign.webhook(hook(ledger))
    policy = await lifesign.policy({"channels": [channel["id"]]})
    await lifesign.heartbeat("Router")
    await lifesign.heartbeat("Job", policy=policy["id"], dependsOn=["router"])
    if hold == "snooze":
        await lifesign.ask("POST", "/v1/heartbeats/job/snooze", {"seconds": 86_400})
    if hold == "dependency":
        await fire(lifesign, "router")
    await lifesign.check_in("job", healthy=False)
    if hold == "maintenance":
        window = {"name": "w", "startsAt": "2026-01-05T12:00:00Z", "endsAt": "2026-01-06T12:00:00Z", "all": True}
        await lifesign.ask("POST", "/v1/maintenance", window, expect=201)
    (incident,) = await _open(lifesign, "job")
    assert incident["holds"] == [hold]
    await lifesign.node.db.write(lambda conn: conn.execute(delete(timers)))
    # As if the router's recovery had forgotten whom it had kept quiet.
    router = (await lifesign.get("router"))["id"]
    await lifesign.node.db.write(
        lambda conn: conn.execute(
            update(heartbeats).where(heartbeats.c.id == router).values(status="active", incident_id=None)
        )
    )
    await lifesign.node.db.write(
        lambda conn: conn.execute(update(incidents).where(incidents.c.heartbeat_id == router).values(status="resolved"))
    )

    await _audit(lifesign)

    assert "hold" in await _repairs(lifesign, "job")
    (incident,) = await _open(lifesign, "job")
    assert "holds" not in incident
    assert [kind for _, kind in told(ledger)] == ["incident.opened"]


async def test_holds_with_a_reason_are_left_alone(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    channel = await lifesign.webhook(hook(ledger))
    await lifesign.heartbeat("Router")
    await lifesign.heartbeat("Job", channels=[channel["id"]], dependsOn=["router"])
    window = {"name": "w", "startsAt": "2026-01-05T12:00:01Z", "endsAt": "2026-01-06T12:00:00Z", "all": True}
    await lifesign.ask("POST", "/v1/maintenance", window, expect=201)
    await lifesign.ask("POST", "/v1/heartbeats/job/snooze", {"seconds": 86_400})
    await fire(lifesign, "router")
    await fire(lifesign, "job")

    await lifesign.advance(3600)

    (incident,) = await _open(lifesign, "job")
    assert incident["holds"] == ["dependency", "maintenance", "snooze"]
    assert await _repairs(lifesign, "job") == []
    assert told(ledger) == []


async def test_what_a_storm_that_is_over_still_holds_back_is_told_at_once(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    config = {"webhookUrl": f"{ledger.url}/slack/ops"}
    slack = await lifesign.ask("POST", "/v1/channels", {"name": "s", "type": "slack", "config": config}, expect=201)
    for number in range(21):
        await lifesign.heartbeat(slug=f"job-{number}", interval=600, grace=0, channels=[slack["id"]])
    await lifesign.advance(600)
    await _damage(lifesign, storms, state="closed")
    await lifesign.node.db.write(lambda conn: conn.execute(delete(timers).where(timers.c.kind == "storm_release")))

    await _audit(lifesign)

    titles = [each.json["text"].split(":")[0] for each in ledger.requests("/slack/ops")]
    assert titles == ["21 heartbeats went silent", "21 heartbeats are down"]
    assert 'lifesign_audit_repairs_total{rule="held"}' in (await lifesign.http.get("/metrics")).text


# The other monitor --------------------------------------------------------------------------------------------------
async def test_another_monitor_hears_every_minute_that_all_is_well(
    start_lifesign: MakeLifesign, ledger: LedgerPeer
) -> None:
    async with start_lifesign(deadman_url=f"{ledger.url}/hook/third?from=here") as lifesign:
        for _ in range(10):
            await lifesign.advance(30)

    pings = ledger.requests("/hook/third")
    assert 5 <= len(pings) <= 6
    assert {(each.method, each.query["from"]) for each in pings} == {("GET", "here")}


async def test_another_monitor_hears_nothing_while_no_silence_would_be_told(
    start_lifesign: MakeLifesign, ledger: LedgerPeer
) -> None:
    async with start_lifesign(deadman_url=f"{ledger.url}/hook/third") as lifesign:
        await lifesign.advance(0)
        before = len(ledger.requests("/hook/third"))

        # All loops but the auditor hang.
        lifesign.clock.set(EpochMs(lifesign.now() + 61_000))
        await loop(lifesign, "audit").tick(lifesign.now())
        assert len(ledger.requests("/hook/third")) == before
        await lifesign.advance(60)

    assert len(ledger.requests("/hook/third")) == before + 1


async def test_another_monitor_hears_nothing_while_damage_is_left(
    start_lifesign: MakeLifesign, ledger: LedgerPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    beyond_repair = Rule("beyond", lambda _conn, _now, _limit: ["inc_1"], lambda _conn, _ids, _now, _tuning: [])
    async with start_lifesign(deadman_url=f"{ledger.url}/hook/third") as lifesign:
        monkeypatch.setattr(damage, "RULES", (*damage.RULES, beyond_repair))
        await lifesign.advance(120)
        assert ledger.requests("/hook/third") == []
        monkeypatch.undo()

        await lifesign.advance(60)

    assert len(ledger.requests("/hook/third")) == 1


async def test_another_monitor_that_does_not_answer_disturbs_nothing(
    start_lifesign: MakeLifesign, closed_port: int
) -> None:
    async with start_lifesign(deadman_url=f"http://127.0.0.1:{closed_port}/") as lifesign:
        await lifesign.heartbeat(slug="job", interval=60, grace=0)
        await lifesign.advance(31)
        await lifesign.advance(31)

        assert (await lifesign.get("job"))["status"] == "firing"
        assert 'lifesign_deadman_pings_total{outcome="failed"}' in (await lifesign.http.get("/metrics")).text
