"""Channels that fail, that are refused for good, and that share a limit: what each may send, and when."""

from email import message_from_bytes

import pytest
from sqlalchemy import select, update

from lifesign.db.schema import lanes
from lifesign.db.schema import notifications as outbox
from tests.engine.steps import at_s, fire, hook, instant, notifications, row, told
from tests.harness import Json, Lifesign, MakeLifesign
from tests.peers.process import LedgerPeer
from tests.peers.smtp import SmtpPeer


async def _firing(lifesign: Lifesign, channel: str, *slugs: str) -> None:
    for slug in slugs:
        await lifesign.heartbeat(slug=slug, channels=[channel])
        await lifesign.check_in(slug, healthy=False)
    await lifesign.advance(0)


async def _made(lifesign: Lifesign, kind: str, **config: object) -> str:
    made = await lifesign.ask("POST", "/v1/channels", {"name": kind, "type": kind, "config": config}, expect=201)
    return str(made["id"])


async def _fallback(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    channel = await lifesign.webhook(hook(ledger, "second"), "fallback")
    await lifesign.ask("PATCH", "/v1/settings", {"fallbackChannel": channel["id"]})


async def _breaker(lifesign: Lifesign, channel: str) -> tuple[str, int]:
    query = select(lanes.c.breaker, lanes.c.fails).where(lanes.c.channel_id == channel)
    found = await lifesign.node.db.read(lambda conn: conn.execute(query).one())
    return found.breaker, found.fails


# Breaker ------------------------------------------------------------------------------------------------------------
async def test_five_failures_in_a_row_leave_a_channel_alone_until_one_probe_gets_through(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    ledger.script("ops", {"status": 500, "times": 7})
    channel = (await lifesign.webhook(hook(ledger)))["id"]

    await _firing(lifesign, channel, *(f"job-{number}" for number in range(6)))
    assert await _breaker(lifesign, channel) == ("open", 5)
    assert 'lifesign_breaker_open{type="webhook"} 1.0' in (await lifesign.http.get("/metrics")).text
    # Six were on the wire together: those that ended after the fifth tell nothing new.
    await lifesign.advance(29)
    assert [at_s(each) for each in ledger.requests("/hook/ops")] == [0] * 6
    await lifesign.advance(2)
    assert [at_s(each) for each in ledger.requests("/hook/ops")] == [0] * 6 + [30]
    assert await _breaker(lifesign, channel) == ("open", 6)
    await lifesign.advance(58)
    assert len(ledger.requests("/hook/ops")) == 7
    await lifesign.advance(60)

    assert [at_s(each) for each in ledger.requests("/hook/ops")][7] == 90
    assert await _breaker(lifesign, channel) == ("closed", 0)
    assert len(ledger.requests("/hook/ops")) == 13


async def test_too_many_requests_does_not_count_as_a_failure(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    ledger.script("ops", {"status": 429, "headers": {"Retry-After": "7"}, "times": 6})
    channel = (await lifesign.webhook(hook(ledger)))["id"]

    await _firing(lifesign, channel, *(f"job-{number}" for number in range(6)))

    assert await _breaker(lifesign, channel) == ("closed", 0)


async def test_a_test_that_arrives_closes_the_breaker_and_what_waits_leaves_at_its_time(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    ledger.script("ops", {"status": 500, "times": 5})
    channel = (await lifesign.webhook(hook(ledger)))["id"]
    await _firing(lifesign, channel, *(f"job-{number}" for number in range(5)))
    assert (await _breaker(lifesign, channel))[0] == "open"

    assert await lifesign.ask("POST", f"/v1/channels/{channel}/test") == {"ok": True}
    await lifesign.advance(7)

    assert await _breaker(lifesign, channel) == ("closed", 0)
    assert len(ledger.requests("/hook/ops")) == 5 + 1 + 5


# Broken channels ----------------------------------------------------------------------------------------------------
async def test_a_channel_refused_for_good_is_tried_with_one_message_in_ten_minutes(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    ledger.script("ops", {"status": 410, "times": 100})
    channel = (await lifesign.webhook(hook(ledger)))["id"]
    await _firing(lifesign, channel, "first")
    await _firing(lifesign, channel, *(f"job-{number}" for number in range(3)))

    await lifesign.advance(1900)

    assert [at_s(each) for each in ledger.requests("/hook/ops")] == [0, 600, 1200, 1800]


async def test_a_message_that_gets_through_a_broken_channel_shows_that_it_is_not_broken_any_more(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    ledger.script("ops", {"status": 410})
    channel = (await lifesign.webhook(hook(ledger)))["id"]
    await _firing(lifesign, channel, "first")
    await _firing(lifesign, channel, *(f"job-{number}" for number in range(3)))

    await lifesign.advance(599)
    assert "broken" in await lifesign.ask("GET", f"/v1/channels/{channel}")
    await lifesign.advance(1)

    assert [at_s(each) for each in ledger.requests("/hook/ops")] == [0, 600, 600, 600]
    assert "broken" not in await lifesign.ask("GET", f"/v1/channels/{channel}")


async def test_an_address_that_is_refused_does_not_hold_up_the_others_of_its_channel(
    start_lifesign: MakeLifesign, mail: SmtpPeer
) -> None:
    mail.script(**{"gone@example.com": [{"rcpt": 550}] * 10})
    smtp: Json = {"smtp_host": "127.0.0.1", "smtp_port": mail.port, "smtp_tls": "none", "smtp_from": "life@example.com"}
    async with start_lifesign(**smtp) as lifesign:
        mails = await _made(lifesign, "email", to=["gone@example.com", "here@example.com"])
        for number in range(3):
            await _firing(lifesign, mails, f"job-{number}")

        assert (await lifesign.ask("GET", f"/v1/channels/{mails}"))["broken"][
            "reason"
        ] == "550: the provider answered 550"
    assert [each["To"] for each in map(message_from_bytes, mail.mails())] == ["here@example.com"] * 3


async def test_the_fallback_channel_hears_of_a_broken_channel_once_a_day_until_it_is_repaired(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    await _fallback(lifesign, ledger)
    slack = await _made(lifesign, "slack", webhookUrl=f"{ledger.url}/slack/ops")
    ledger.script("ops", {"status": 404, "body": "no_service", "times": 100})
    await lifesign.heartbeat(slug="job", channels=[slack])
    await fire(lifesign, "job")

    def heard() -> list[Json]:
        return [each.json for each in ledger.requests("/hook/second") if each.json["type"] == "channel.broken"]

    assert [each["data"]["broken"]["reason"] for each in heard()] == ["404: the provider answered 404"]
    assert heard()[0]["data"]["title"] == "Channel slack is broken"
    await lifesign.advance(3600)
    assert len(heard()) == 1
    await lifesign.advance(23 * 3600)
    assert len(heard()) == 2

    await lifesign.ask("PATCH", f"/v1/channels/{slack}", {"config": {"webhookUrl": f"{ledger.url}/slack/third"}})
    await lifesign.advance(48 * 3600)
    assert len(heard()) == 2


async def test_a_broken_fallback_channel_is_not_told_of_itself(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await _fallback(lifesign, ledger)
    ledger.script("second", {"status": 410, "times": 100})
    await lifesign.heartbeat(slug="job")

    await fire(lifesign, "job")

    query = select(outbox.c.kind).where(outbox.c.incident_id.is_(None))
    assert await lifesign.node.db.read(lambda conn: list(conn.scalars(query))) == []


async def test_an_edit_of_a_broken_channel_sends_at_once_what_waits(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    ledger.script("ops", {"status": 410})
    channel = (await lifesign.webhook(hook(ledger)))["id"]
    await _firing(lifesign, channel, "first")
    await _firing(lifesign, channel, "second", "third")
    assert told(ledger) == [(0, "incident.opened")]

    await lifesign.ask("PATCH", f"/v1/channels/{channel}", {"config": {"url": hook(ledger)}})
    await lifesign.advance(0)

    assert told(ledger) == [(0, "incident.opened")] * 3


# Rates --------------------------------------------------------------------------------------------------------------
async def test_two_channels_with_one_slack_address_share_its_limit(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    address = f"{ledger.url}/slack/ops"
    first, second = (
        await _made(lifesign, "slack", webhookUrl=address),
        await _made(lifesign, "slack", webhookUrl=address),
    )
    await lifesign.heartbeat(slug="job", channels=[first, second])
    for number in range(3):
        await lifesign.heartbeat(slug=f"job-{number}", channels=[first, second])
        await lifesign.check_in(f"job-{number}", healthy=False)

    sent = []
    for second_passed in range(5):
        await lifesign.advance(1 if second_passed else 0)
        sent.append(len(ledger.requests("/slack/ops")))

    # Three at once, then one a second.
    assert sent == [3, 4, 5, 6, 6]


async def test_webhooks_to_one_host_keep_the_limit_that_the_operator_set(
    start_lifesign: MakeLifesign, ledger: LedgerPeer
) -> None:
    async with start_lifesign(webhook_per_second=2) as lifesign:
        one, two = await lifesign.webhook(hook(ledger)), await lifesign.webhook(hook(ledger, "second"))
        for number in range(3):
            await lifesign.heartbeat(slug=f"job-{number}", channels=[one["id"], two["id"]])
            await lifesign.check_in(f"job-{number}", healthy=False)
        await lifesign.advance(10)

    times = sorted(at_s(each) for name in ("ops", "second") for each in ledger.requests(f"/hook/{name}"))
    # Two at once, then one each half second; the header has whole seconds.
    assert times == [0, 0, 0, 1, 1, 2]


async def test_a_test_does_not_wait_for_the_limit_but_says_when_to_try_again(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    slack = await _made(lifesign, "slack", webhookUrl=f"{ledger.url}/slack/ops")
    for _ in range(3):
        assert await lifesign.ask("POST", f"/v1/channels/{slack}/test") == {"ok": True}

    refused = await lifesign.ask("POST", f"/v1/channels/{slack}/test")

    assert refused == {"ok": False, "message": "rate limited, try again in 1 s"}
    assert len(ledger.requests("/slack/ops")) == 3


# Late ---------------------------------------------------------------------------------------------------------------
async def test_a_message_to_people_that_leaves_late_says_how_late(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    slack = await _made(lifesign, "slack", webhookUrl=f"{ledger.url}/slack/ops")
    hooked = (await lifesign.webhook(hook(ledger, "second")))["id"]
    for name in ("ops", "second"):
        ledger.script(name, {"status": 503, "headers": {"Retry-After": "800"}})
    await lifesign.heartbeat(slug="job", channels=[slack, hooked])
    await fire(lifesign, "job")
    await lifesign.advance(900)

    first, late = [each.json["text"] for each in ledger.requests("/slack/ops")]
    assert first.startswith("DOWN: ")
    assert late.startswith("[delayed 13 min] DOWN: ")
    assert len({each.content for each in ledger.requests("/hook/second")}) == 1


# Dead and sent again ------------------------------------------------------------------------------------------------
async def _dead(lifesign: Lifesign, ledger: LedgerPeer) -> Json:
    ledger.script("ops", {"status": 410})
    channel = (await lifesign.webhook(hook(ledger)))["id"]
    await _firing(lifesign, channel, "job")
    (found,) = await notifications(lifesign, "job")
    assert found["status"] == "dead"
    return found


async def test_a_dead_message_is_sent_again_when_a_person_wants_it(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    dead = await _dead(lifesign, ledger)

    again = await lifesign.ask("POST", f"/v1/notifications/{dead['id']}/retry")
    await lifesign.advance(0)

    assert (again["id"], again["status"]) == (dead["id"], "pending")
    assert [each["status"] for each in await notifications(lifesign, "job")] == ["sent"]
    assert len({each.headers["webhook-id"] for each in ledger.requests("/hook/ops")}) == 1
    refused = await lifesign.ask("POST", f"/v1/notifications/{dead['id']}/retry", expect=400)
    assert (refused["error"]["code"], refused["error"]["details"]) == ("INVALID_STATE", {"status": "sent"})


async def test_a_message_that_a_person_has_sent_again_is_tried_for_another_day(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    dead = await _dead(lifesign, ledger)
    await lifesign.advance(30 * 3600)

    await lifesign.ask("POST", f"/v1/notifications/{dead['id']}/retry")

    assert (await row(lifesign, dead["id"])).expires_at == lifesign.now() + 24 * 3_600_000


@pytest.mark.parametrize("end", ["recovery", "deleted channel", "deleted heartbeat"])
async def test_what_nobody_waits_for_any_more_is_not_sent_again(
    lifesign: Lifesign, ledger: LedgerPeer, end: str
) -> None:
    dead = await _dead(lifesign, ledger)
    if end == "recovery":
        await lifesign.check_in("job")
    elif end == "deleted channel":
        await lifesign.ask("DELETE", f"/v1/channels/{dead['channel']}?force=true", expect=204)
    else:
        await lifesign.ask("DELETE", "/v1/heartbeats/job", expect=204)

    refused = await lifesign.ask("POST", f"/v1/notifications/{dead['id']}/retry", expect=400)

    assert refused["error"]["code"] == "INVALID_STATE"


async def test_a_page_that_expires_while_it_waits_hurries_the_next_step(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    hooked, other = await lifesign.webhook(hook(ledger)), await lifesign.webhook(hook(ledger, "second"))
    policy = await lifesign.policy({"channels": [hooked["id"]]}, {"channels": [other["id"]], "wait": 7200})
    ledger.script("ops", {"status": 500})
    await lifesign.heartbeat(slug="job", policy=policy["id"])
    await fire(lifesign, "job")
    (page,) = await notifications(lifesign, "job")
    stale = update(outbox).where(outbox.c.id == page["id"]).values(expires_at=instant(page["createdAt"]) + 1)
    await lifesign.node.db.write(lambda conn: conn.execute(stale))

    await lifesign.advance(10)

    assert [each["status"] for each in await notifications(lifesign, "job")] == ["dead", "sent"]
    assert "failover" in [each["type"] for each in await lifesign.events("job")]
