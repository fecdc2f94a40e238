"""From a missed deadline to the last step, and how an incident ends. The clock is turned by hand, the peer is real."""

import asyncio

from sqlalchemy import Connection, select

from lifesign.clock import EpochMs
from lifesign.db.schema import projects
from lifesign.heartbeats.checkins import CheckIn
from tests.engine.steps import at_s, fire, hook, incidents, notifications, told
from tests.harness import Lifesign, MakeLifesign
from tests.peers.fixtures import ENQUEUE, ROUTING_KEY
from tests.peers.process import LedgerPeer
from tests.peers.smtp import SmtpPeer


async def test_silence_past_interval_and_grace_sends_one_message(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    channel = await lifesign.webhook(hook(ledger))
    policy = await lifesign.policy({"channels": [channel["id"]], "wait": 0})
    await lifesign.heartbeat(interval=2, grace=1, policy=policy["id"], slug="job")
    await lifesign.check_in("job")

    await lifesign.advance(2.9)
    assert told(ledger) == []

    await lifesign.advance(60)
    assert told(ledger) == [(3, "incident.opened")]


async def test_steps_follow_each_other_by_their_waits(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    first, second, third = [await lifesign.webhook(hook(ledger, name), name) for name in ("ops", "second", "third")]
    policy = await lifesign.policy(
        {"channels": [first["id"]], "wait": 0},
        {"channels": [second["id"]], "wait": 2},
        {"channels": [third["id"]], "wait": 3},
    )
    await lifesign.heartbeat(interval=10, grace=0, policy=policy["id"])

    await lifesign.advance(600)

    assert told(ledger) == [(10, "incident.opened")]
    assert told(ledger, "second") == [(12, "incident.opened")]
    assert told(ledger, "third") == [(15, "incident.opened")]


async def test_a_repeated_last_step_comes_every_minute_and_does_not_count_as_a_step(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    channel = await lifesign.webhook(hook(ledger))
    policy = await lifesign.policy(
        {"channels": [channel["id"]], "wait": 0}, {"channels": [channel["id"]], "wait": 5}, repeatLastStep=True
    )
    await lifesign.heartbeat(interval=10, grace=0, policy=policy["id"], slug="job")

    await lifesign.advance(10 + 5 + 130)
    answer = await lifesign.ask("POST", "/v1/heartbeats/job/ack")

    assert told(ledger) == [
        (10, "incident.opened"),
        (15, "incident.escalated"),
        (75, "incident.repeated"),
        (135, "incident.repeated"),
    ]
    assert answer["escalationStep"] == 2


async def test_a_repeat_waits_as_long_as_a_long_last_step(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    channel = await lifesign.webhook(hook(ledger))
    policy = await lifesign.policy({"channels": [channel["id"]], "wait": 300}, repeatLastStep=True)
    await lifesign.heartbeat(interval=10, grace=0, policy=policy["id"])

    await lifesign.advance(10 + 300 + 599)

    assert [at for at, _ in told(ledger)] == [310, 610]


async def test_a_check_in_recovers_and_tells_those_who_were_paged_and_nobody_else(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    first, second = [await lifesign.webhook(hook(ledger, name), name) for name in ("ops", "second")]
    policy = await lifesign.policy({"channels": [first["id"]], "wait": 0}, {"channels": [second["id"]], "wait": 30})
    await lifesign.heartbeat(interval=10, grace=0, policy=policy["id"], slug="job")
    await lifesign.advance(20)

    await lifesign.check_in("job")

    assert (await lifesign.get("job"))["status"] == "active"
    await lifesign.advance(9)
    await lifesign.check_in("job")
    await lifesign.advance(9)
    await lifesign.check_in("job")
    await lifesign.advance(9)
    await lifesign.check_in("job")
    await lifesign.advance(9)
    assert told(ledger) == [(10, "incident.opened"), (20, "incident.resolved")]
    assert told(ledger, "second") == []


async def test_a_channel_paged_by_two_steps_hears_of_the_end_once(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    channel = await lifesign.webhook(hook(ledger))
    policy = await lifesign.policy({"channels": [channel["id"]], "wait": 0}, {"channels": [channel["id"]], "wait": 30})
    await lifesign.heartbeat(interval=100, grace=0, policy=policy["id"], slug="job", channels=[channel["id"]])
    await lifesign.advance(150)

    await lifesign.check_in("job")
    await lifesign.advance(1)

    assert told(ledger) == [
        (100, "incident.opened"),
        (100, "incident.escalated"),
        (130, "incident.escalated"),
        (150, "incident.resolved"),
    ]


async def test_an_ack_silences_one_period_only(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await lifesign.heartbeat(interval=100, grace=20, slug="job")
    await lifesign.advance(130)
    await lifesign.ask("POST", "/v1/heartbeats/job/ack")

    await lifesign.advance(119)
    assert len(await incidents(lifesign, "job")) == 1

    await lifesign.advance(1)
    newest, acked = await incidents(lifesign, "job")
    assert newest["id"] != acked["id"]
    assert (newest["status"], newest["openedAt"]) == ("open", "2026-01-05T12:04:10.000Z")


async def test_two_acks_at_the_same_moment_close_once(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    hooked = await lifesign.webhook(hook(ledger))
    duty = await _pagerduty(lifesign)
    await lifesign.heartbeat(slug="job", channels=[hooked["id"], duty])
    await fire(lifesign, "job")

    answers = await asyncio.gather(*(lifesign.http.post("/v1/heartbeats/job/ack") for _ in range(4)))
    await lifesign.advance(5)

    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400]
    assert [kind for _, kind in told(ledger)] == ["incident.opened", "incident.acknowledged"]
    assert [record.json["event_action"] for record in ledger.requests(ENQUEUE)] == ["trigger", "resolve"]
    assert (await lifesign.event_types("job")).count("acked") == 1


async def test_ack_pause_and_delete_are_told_to_machines_but_not_to_people(
    start_lifesign: MakeLifesign, ledger: LedgerPeer, mail: SmtpPeer
) -> None:
    async with start_lifesign(
        smtp_host="127.0.0.1", smtp_port=mail.port, smtp_tls="none", smtp_from="life@example.com"
    ) as lifesign:
        hooked = await lifesign.webhook(hook(ledger))
        duty = await _pagerduty(lifesign)
        slack = await _channel(lifesign, "slack", webhookUrl=f"{ledger.url}/slack/second")
        mails = await _channel(lifesign, "email", to="ops@example.com")
        for slug in ("acked", "paused", "deleted"):
            await lifesign.heartbeat(slug=slug, channels=[hooked["id"], duty, slack, mails])
            await fire(lifesign, slug)

        await lifesign.ask("POST", "/v1/heartbeats/acked/ack", {"message": "on it"})
        await lifesign.ask("POST", "/v1/heartbeats/paused/pause")
        await lifesign.ask("DELETE", "/v1/heartbeats/deleted", expect=204)
        await lifesign.advance(5)

    closings = [record.json for record in ledger.requests("/hook/ops")][3:]
    assert sorted((each["type"], each["data"]["incident"]["resolution"]) for each in closings) == [
        ("incident.acknowledged", "ack"),
        ("incident.closed", "delete"),
        ("incident.closed", "pause"),
    ]
    acked = next(each for each in closings if each["type"] == "incident.acknowledged")
    assert acked["data"]["incident"]["ackMessage"] == "on it"
    actions = [record.json["event_action"] for record in ledger.requests(ENQUEUE)]
    assert sorted(actions) == ["resolve"] * 3 + ["trigger"] * 3
    assert len(ledger.requests("/slack/second")) == 3
    assert len(mail.mails()) == 3


async def test_every_message_of_an_incident_leads_to_its_page(start_lifesign: MakeLifesign, ledger: LedgerPeer) -> None:
    async with start_lifesign(public_url="https://lifesign.example") as lifesign:
        hooked = await lifesign.webhook(hook(ledger))
        duty = await _pagerduty(lifesign)
        slack = await _channel(lifesign, "slack", webhookUrl=f"{ledger.url}/slack/second")
        policy = await lifesign.policy({"channels": [hooked["id"], duty, slack], "message": "Look at {{url}}"})
        await lifesign.heartbeat(slug="job", policy=policy["id"])
        await fire(lifesign, "job")
        await lifesign.check_in("job")
        await lifesign.advance(5)
        (incident,) = await incidents(lifesign, "job")

    page = f"https://lifesign.example/incidents/{incident['id']}"
    hooks = [each.json["data"] for each in ledger.requests("/hook/ops")]
    assert [each["url"] for each in hooks] == [page, page]
    assert hooks[0]["message"] == f"Look at {page}"
    assert [each.json["client_url"] for each in ledger.requests(ENQUEUE)] == [page, page]
    details = [
        [button["url"] for button in each.json["blocks"][-1]["elements"] if button["text"]["text"] == "Details"]
        for each in ledger.requests("/slack/second")
    ]
    assert details == [[page], [page]]


async def test_an_edited_policy_counts_for_the_steps_that_have_not_run(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    first, second, third = [await lifesign.webhook(hook(ledger, name), name) for name in ("ops", "second", "third")]
    policy = await lifesign.policy({"channels": [first["id"]], "wait": 0}, {"channels": [second["id"]], "wait": 300})
    await lifesign.heartbeat(interval=10, grace=0, policy=policy["id"])
    await lifesign.advance(20)

    steps = [{"channels": [second["id"]], "wait": 0}, {"channels": [third["id"]], "wait": 60}]
    await lifesign.ask("PATCH", f"/v1/policies/{policy['id']}", {"steps": steps})
    await lifesign.advance(600)

    assert told(ledger) == [(10, "incident.opened")]
    assert told(ledger, "second") == []
    assert told(ledger, "third") == [(70, "incident.opened")]


async def test_a_step_runs_once_however_often_its_timer_is_looked_at(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    channel = await lifesign.webhook(hook(ledger))
    policy = await lifesign.policy({"channels": [channel["id"]], "wait": 0})
    await lifesign.heartbeat(slug="job", policy=policy["id"], channels=[channel["id"]])
    await fire(lifesign, "job")

    for _ in range(5):
        await lifesign.advance(0)

    assert [(each["kind"], each["step"], each["status"]) for each in await notifications(lifesign, "job")] == [
        ("page", 0, "sent"),
        ("page", 1, "sent"),
    ]
    assert len(ledger.requests("/hook/ops")) == 2


async def test_a_server_that_was_away_runs_the_overdue_step_once_and_waits_from_then(
    start_lifesign: MakeLifesign, ledger: LedgerPeer
) -> None:
    async with start_lifesign() as lifesign:
        channel = await lifesign.webhook(hook(ledger))
        policy = await lifesign.policy(
            {"channels": [channel["id"]], "wait": 10}, {"channels": [channel["id"]], "wait": 60}, repeatLastStep=True
        )
        await lifesign.heartbeat(slug="job", policy=policy["id"])
        await fire(lifesign, "job")

    async with start_lifesign(at="2026-01-05T13:00:00.000Z") as restarted:
        await restarted.advance(125)

    assert [at_s(record) for record in ledger.requests("/hook/ops")] == [3600, 3660, 3720]


async def test_a_heartbeat_without_policy_and_channels_is_marked_unattended_when_it_fires(lifesign: Lifesign) -> None:
    await lifesign.heartbeat(interval=10, grace=0, slug="job")

    await lifesign.advance(10)

    assert (await incidents(lifesign, "job"))[0]["unattended"] == "no_policy"
    assert (await lifesign.event_types("job"))[0] == "unattended"


async def test_a_check_in_stamped_before_the_deadline_wins_over_a_sweep_that_committed_first(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    channel = await lifesign.webhook(hook(ledger))
    made = await lifesign.heartbeat(interval=10, grace=5, slug="job", channels=[channel["id"]])
    project = await lifesign.node.db.read(_only_project)
    in_time = EpochMs(lifesign.now() + 14_999)
    await lifesign.advance(16)

    late = CheckIn(project, "key_test", made["id"], True, None, in_time)
    await lifesign.node.db.write_batched(lifesign.node.api.state.check_ins.record, late)
    await lifesign.advance(1)

    closed = (await incidents(lifesign, "job"))[0]
    assert (closed["status"], closed["resolution"]) == ("resolved", "checkin")
    assert (await lifesign.get("job"))["nextDeadline"] == "2026-01-05T12:00:24.999Z"
    assert [kind for _, kind in told(ledger)] == ["incident.opened", "incident.resolved"]
    assert closed["resolvedAt"] == closed["openedAt"]
    assert ledger.requests()[-1].json["data"]["message"] == "Nightly Export is back after 0 s"


async def test_a_check_in_that_arrives_late_does_not_move_the_deadline_back(lifesign: Lifesign) -> None:
    made = await lifesign.heartbeat(interval=60, grace=5, slug="job")
    project = await lifesign.node.db.read(_only_project)
    await lifesign.advance(30)
    await lifesign.check_in("job")

    slow = CheckIn(project, "key_test", made["id"], True, None, EpochMs(lifesign.now() - 20_000))
    await lifesign.node.db.write_batched(lifesign.node.api.state.check_ins.record, slow)

    assert (await lifesign.get("job"))["nextDeadline"] == "2026-01-05T12:01:30.000Z"
    assert (await lifesign.event_types("job")).count("checkin") == 2


def _only_project(conn: Connection) -> str:
    return str(conn.scalar(select(projects.c.id)))


async def _pagerduty(lifesign: Lifesign) -> str:
    return await _channel(lifesign, "pagerduty", routingKey=ROUTING_KEY)


async def _channel(lifesign: Lifesign, kind: str, **config: object) -> str:
    made = await lifesign.ask("POST", "/v1/channels", {"name": kind, "type": kind, "config": config}, expect=201)
    return str(made["id"])
