"""A node that is gone from one moment to the next, and what the next one on the same database makes of it.

`SimulatedCrash` stands in for SIGKILL at points that lie outside the writer; `tests/faults` kills real processes.
"""

import asyncio

import pytest
from sqlalchemy import select

from lifesign.channels import claims
from lifesign.channels.claims import Room
from lifesign.channels.limits import Limits
from lifesign.db.failpoints import SimulatedCrash
from lifesign.db.schema import notifications
from tests.engine.steps import fire, hook, incidents, told
from tests.harness import Json, Lifesign, MakeLifesign
from tests.peers.process import LedgerPeer

LATER = "2026-01-05T12:00:30.000Z"


async def _two_steps_to_one_channel(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    channel = await lifesign.webhook(hook(ledger))
    policy = await lifesign.policy({"channels": [channel["id"]], "wait": 0}, {"channels": [channel["id"]], "wait": 600})
    await lifesign.heartbeat(slug="job", interval=10, grace=0, policy=policy["id"])


@pytest.mark.parametrize("point", ["sweep.after_commit", "escalate.after_commit"])
async def test_after_a_crash_the_next_node_goes_on_where_the_last_commit_was(
    start_lifesign: MakeLifesign, ledger: LedgerPeer, point: str
) -> None:
    async with start_lifesign(testing=True, failpoints=f"{point}=crash") as lifesign:
        await _two_steps_to_one_channel(lifesign, ledger)
        with pytest.raises(SimulatedCrash):
            await lifesign.advance(10)
    assert told(ledger) == []

    async with start_lifesign(at=LATER) as restarted:
        await restarted.advance(1)

        assert [each["status"] for each in await incidents(restarted, "job")] == ["open"]
    assert told(ledger) == [(30, "incident.opened")]


async def test_a_message_claimed_by_a_node_that_died_leaves_when_the_lease_is_over(
    start_lifesign: MakeLifesign, ledger: LedgerPeer
) -> None:
    async with start_lifesign(testing=True, failpoints="claim.after_commit=crash") as lifesign:
        await _two_steps_to_one_channel(lifesign, ledger)
        with pytest.raises(SimulatedCrash):
            await lifesign.advance(10)

    async with start_lifesign(at=LATER) as restarted:
        await restarted.advance(39)
        assert told(ledger) == []
        await restarted.advance(6)

        assert told(ledger) == [(70, "incident.opened")]
        page = (await incidents(restarted, "job"))[0]["notifications"][0]
        assert [(each["n"], each["outcome"]) for each in page["attempts"]] == [(1, "unknown"), (2, "sent")]


async def test_an_incident_that_closes_while_its_page_is_lost_with_a_node_sends_no_page_later(
    start_lifesign: MakeLifesign, ledger: LedgerPeer
) -> None:
    async with start_lifesign(testing=True, failpoints="claim.after_commit=crash") as lifesign:
        await _two_steps_to_one_channel(lifesign, ledger)
        with pytest.raises(SimulatedCrash):
            await lifesign.advance(10)

    async with start_lifesign(at=LATER) as restarted:
        await restarted.check_in("job")
        await restarted.ask("POST", "/v1/heartbeats/job/pause")
        await restarted.advance(3600)

        statuses = [(each["kind"], each["status"]) for each in await _rows(restarted)]
    # The page may have arrived: a receiver that got it must hear of the end, and one that did not can drop it.
    assert statuses == [("page", "canceled"), ("resolve", "sent")]
    assert [kind for _, kind in told(ledger)] == ["incident.resolved"]


async def test_a_channel_that_cannot_tell_repeats_is_not_asked_twice_when_nothing_was_written(
    start_lifesign: MakeLifesign, ledger: LedgerPeer
) -> None:
    async with start_lifesign(testing=True, failpoints="claim.after_commit=crash") as lifesign:
        config = {"webhookUrl": f"{ledger.url}/slack/second"}
        slack = await lifesign.ask("POST", "/v1/channels", {"name": "s", "type": "slack", "config": config}, expect=201)
        await lifesign.heartbeat(slug="job", channels=[slack["id"]])
        await lifesign.check_in("job", healthy=False)
        with pytest.raises(SimulatedCrash):
            await lifesign.advance(0)

    async with start_lifesign(at="2026-01-05T12:02:00.000Z") as restarted:
        await restarted.advance(5)

    (request,) = ledger.requests("/slack/second")
    assert "possible repeat" not in request.json["text"]


async def test_a_channel_that_cannot_tell_repeats_is_told_that_this_may_be_one(
    start_lifesign: MakeLifesign, ledger: LedgerPeer
) -> None:
    # The answer is lost: the peer took the message, nobody knows.
    ledger.script("second", {"close": "after_read"})
    async with start_lifesign() as lifesign:
        config = {"webhookUrl": f"{ledger.url}/slack/second"}
        slack = await lifesign.ask("POST", "/v1/channels", {"name": "s", "type": "slack", "config": config}, expect=201)
        await lifesign.heartbeat(slug="job", channels=[slack["id"]])
        await fire(lifesign, "job")
        await lifesign.advance(60)

    first, second = [each.json["text"] for each in ledger.requests("/slack/second")]
    assert first.startswith("DOWN: Nightly Export:")
    assert second.startswith("DOWN: Nightly Export (possible repeat):")


async def test_a_claim_of_one_node_is_not_claimed_by_another(start_lifesign: MakeLifesign, ledger: LedgerPeer) -> None:
    ledger.script("ops", {"stall": 0.5})
    async with start_lifesign() as lifesign:
        channel = await lifesign.webhook(hook(ledger))
        await lifesign.heartbeat(slug="job", channels=[channel["id"]])
        await lifesign.check_in("job", healthy=False)
        sending = asyncio.create_task(lifesign.advance(0))
        await ledger.arrived("/hook/ops")

        claim = await lifesign.node.db.write(
            claims.claim_due,
            lifesign.now(),
            node_id="node_other",
            room=Room({"webhook": 32}, {}),
            limits=Limits.of(lifesign.node.settings),
        )

        assert claim.claimed == []
        await sending
    assert len(ledger.requests("/hook/ops")) == 1


async def _rows(lifesign: Lifesign) -> list[Json]:
    rows = await lifesign.node.db.read(
        lambda conn: conn.execute(select(notifications).order_by(notifications.c.order_seq)).mappings().all()
    )
    return [dict(each) for each in rows]
