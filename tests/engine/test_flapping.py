"""Flapping: what fires and recovers again and again is told of once, and once more when it is calm."""

from sqlalchemy import delete, select, update

from lifesign.db.schema import heartbeats, timers
from tests.engine.steps import fire, hook, told
from tests.engine.steps import incidents as shown_incidents
from tests.harness import Lifesign, MakeLifesign
from tests.peers.fixtures import ENQUEUE, ROUTING_KEY
from tests.peers.process import LedgerPeer


async def _flap(lifesign: Lifesign, times: int, slug: str = "job") -> None:
    """Fire and recover, a few seconds apart."""
    for _ in range(times):
        await fire(lifesign, slug)
        await lifesign.advance(4)
        await lifesign.check_in(slug)
        await lifesign.advance(3)


async def _flapping_job(lifesign: Lifesign, ledger: LedgerPeer) -> str:
    channel = await lifesign.webhook(hook(ledger))
    await lifesign.heartbeat("Job", slug="job", interval=86_400, channels=[channel["id"]])
    return str(channel["id"])


def _kinds(ledger: LedgerPeer) -> list[str]:
    return [kind for _, kind in told(ledger)]


async def test_eight_firings_in_a_minute_make_five_pages_and_one_message_that_it_flaps(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    await _flapping_job(lifesign, ledger)

    await _flap(lifesign, 8)

    kinds = _kinds(ledger)
    assert kinds == ["incident.opened", "incident.resolved"] * 5 + ["heartbeat.flapping"]
    types = await lifesign.event_types("job")
    assert (types.count("firing"), types.count("resolved"), types.count("flapping")) == (8, 8, 1)


async def test_when_it_is_calm_who_was_told_hears_so_and_pages_come_again(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    await _flapping_job(lifesign, ledger)
    await _flap(lifesign, 6)
    before = len(_kinds(ledger))

    await lifesign.advance(2 * 3600)
    assert _kinds(ledger)[before:] == ["heartbeat.flapping_ended"]
    ended = ledger.requests("/hook/ops")[-1].json["data"]
    assert (ended["title"], ended["heartbeat"]["status"]) == ("CALM: Job", "active")
    assert "flapping_ended" in await lifesign.event_types("job")
    await fire(lifesign, "job")

    assert _kinds(ledger)[before + 1 :] == ["incident.opened"]


async def test_an_incident_that_lasts_until_it_is_calm_is_told_then(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    channel = await lifesign.webhook(hook(ledger))
    policy = await lifesign.policy({"channels": [channel["id"]], "wait": 30})
    await lifesign.heartbeat("Job", slug="job", interval=86_400, policy=policy["id"])
    for _ in range(5):
        await fire(lifesign, "job")
        await lifesign.check_in("job")
    await fire(lifesign, "job")
    (incident, *_) = await shown_incidents(lifesign, "job")
    assert (incident["escalation"], incident["holds"]) == ("held", ["flap"])
    assert _kinds(ledger) == ["heartbeat.flapping"]

    await lifesign.advance(2 * 3600)

    assert _kinds(ledger) == ["heartbeat.flapping", "heartbeat.flapping_ended", "incident.opened"]
    (incident, *_) = await shown_incidents(lifesign, "job")
    assert (incident["escalation"], "holds" in incident, incident["escalationStep"]) == ("done", False, 1)


async def test_each_further_firing_puts_the_calm_off(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await _flapping_job(lifesign, ledger)
    await _flap(lifesign, 6)
    due = select(timers.c.due_at).where(timers.c.kind == "flap_settle")
    first = await lifesign.node.db.read(lambda conn: conn.scalar(due))

    await lifesign.advance(600)
    await _flap(lifesign, 1)

    second = await lifesign.node.db.read(lambda conn: conn.scalar(due))
    assert first is not None
    assert second is not None
    assert second > first


async def test_five_firings_far_apart_are_no_flapping(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await _flapping_job(lifesign, ledger)

    for _ in range(8):
        await _flap(lifesign, 1)
        await lifesign.advance(1800)

    assert _kinds(ledger) == ["incident.opened", "incident.resolved"] * 8


async def test_flapping_can_be_switched_off(start_lifesign: MakeLifesign, ledger: LedgerPeer) -> None:
    async with start_lifesign(flap_limit=0) as lifesign:
        await _flapping_job(lifesign, ledger)
        await _flap(lifesign, 8)

    assert _kinds(ledger) == ["incident.opened", "incident.resolved"] * 8


async def test_pagerduty_has_one_alert_for_a_spell_of_flapping_and_it_is_resolved(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    made = await lifesign.ask(
        "POST",
        "/v1/channels",
        {"name": "duty", "type": "pagerduty", "config": {"routingKey": ROUTING_KEY}},
        expect=201,
    )
    job = await lifesign.heartbeat("Job", slug="job", interval=86_400, channels=[made["id"]])
    await _flap(lifesign, 7)
    await lifesign.advance(2 * 3600)

    events = [(each.json["event_action"], each.json["dedup_key"]) for each in ledger.requests(ENQUEUE)]
    assert events[-2:] == [("trigger", f"{job['id']}:flap"), ("resolve", f"{job['id']}:flap")]


async def test_an_ack_of_a_held_incident_tells_nobody(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await _flapping_job(lifesign, ledger)
    await _flap(lifesign, 5)
    await fire(lifesign, "job")
    before = len(_kinds(ledger))

    await lifesign.ask("POST", "/v1/heartbeats/job/ack")
    await lifesign.advance(10)

    assert len(_kinds(ledger)) == before
    assert (await lifesign.get("job"))["status"] == "resolved"


async def test_a_policy_that_is_edited_meanwhile_wakes_nobody_before_the_calm(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    channel = await lifesign.webhook(hook(ledger))
    policy = await lifesign.policy({"channels": [channel["id"]], "wait": 3600})
    await lifesign.heartbeat("Job", slug="job", interval=86_400, policy=policy["id"])
    for _ in range(5):
        await fire(lifesign, "job")
        await lifesign.check_in("job")
    await fire(lifesign, "job")

    await lifesign.ask("PATCH", f"/v1/policies/{policy['id']}", {"steps": [{"channels": [channel["id"]], "wait": 1}]})
    await lifesign.advance(60)

    assert _kinds(ledger) == ["heartbeat.flapping"]


async def test_a_deleted_heartbeat_does_not_flap_any_more(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await _flapping_job(lifesign, ledger)
    await _flap(lifesign, 6)

    await lifesign.ask("DELETE", "/v1/heartbeats/job", expect=204)
    await lifesign.advance(2 * 3600)

    assert _kinds(ledger)[-1] == "heartbeat.flapping_ended"
    assert await lifesign.node.db.read(lambda conn: conn.execute(select(timers)).all()) == []


async def test_a_hold_that_nothing_would_end_is_ended_by_the_auditor(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await _flapping_job(lifesign, ledger)
    await _flap(lifesign, 5)
    await fire(lifesign, "job")
    await lifesign.node.db.write(lambda conn: conn.execute(delete(timers)))
    await lifesign.node.db.write(lambda conn: conn.execute(update(heartbeats).values(is_flapping=0)))

    await lifesign.advance(31)

    assert _kinds(ledger)[-1] == "incident.opened"
    repaired = [each["metadata"]["rule"] for each in await lifesign.events("job") if each["type"] == "repaired"]
    assert repaired == ["hold"]
