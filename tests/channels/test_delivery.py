"""Messages through the whole server to peers that answer as vendors do: what is on the wire, and what it leads to."""

import asyncio
import re
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from urllib.parse import parse_qs

import pytest
from standardwebhooks import Webhook

from lifesign.channels import delivery
from lifesign.channels.sender import SEND_TIMEOUT_S
from lifesign.clock import EpochMs, from_datetime
from tests.harness import Json, Lifesign, MakeLifesign
from tests.peers.fixtures import ENQUEUE, MESSAGES, ROUTING_KEY
from tests.peers.process import LedgerPeer, Record
from tests.peers.smtp import SmtpPeer

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwTm9gdGVzdA=="
NEXT_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDnvWi5bW0pQA="


async def _channel(lifesign: Lifesign, kind: str, **config: object) -> str:
    made = await lifesign.ask("POST", "/v1/channels", {"name": kind, "type": kind, "config": config}, expect=201)
    return str(made["id"])


async def _fire(lifesign: Lifesign, *channels: str, name: str = "Nightly Export", **fields: object) -> Json:
    """A heartbeat that fires at this moment and tells `channels` by itself."""
    made = await lifesign.heartbeat(name, channels=list(channels), **fields)
    await lifesign.check_in(made["id"], healthy=False)
    await lifesign.advance(0)
    return made


async def _rows(lifesign: Lifesign) -> list[Json]:
    """Every message of the project, oldest first."""
    listed: list[Json] = (await lifesign.ask("GET", "/v1/notifications?limit=1000"))["notifications"]
    return listed[::-1]


async def _statuses(lifesign: Lifesign) -> list[str]:
    return [each["status"] for each in await _rows(lifesign)]


async def _broken(lifesign: Lifesign, channel: str) -> str | None:
    shown = await lifesign.ask("GET", f"/v1/channels/{channel}")
    return str(shown["broken"]["reason"]) if "broken" in shown else None


def _instant(text: str) -> EpochMs:
    return from_datetime(datetime.fromisoformat(text))


# Webhooks -----------------------------------------------------------------------------------------------------------
async def test_a_receiver_can_verify_a_page_with_the_public_library(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    channel = await _channel(lifesign, "webhook", url=f"{ledger.url}/hook/ops", secret=SECRET)

    await _fire(lifesign, channel, metadata={"rows": 7})

    (request,) = ledger.requests("/hook/ops")
    assert request.headers["webhook-id"].startswith("ntf_")
    # The library compares with the present time, and this node lives in January 2026.
    assert _is_signed(request, SECRET)
    assert request.json["type"] == "incident.opened"
    assert request.json["data"]["heartbeat"]["metadata"] == {"rows": 7}


def _is_signed(request: Record, secret: str) -> bool:
    moment = datetime.fromtimestamp(int(request.headers["webhook-timestamp"])).astimezone()
    expected = Webhook(secret).sign(request.headers["webhook-id"], moment, request.content.decode())
    return expected in request.headers["webhook-signature"].split(" ")


async def test_a_retry_is_the_same_message_signed_for_its_own_moment(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    ledger.script("ops", {"status": 500})
    channel = await _channel(lifesign, "webhook", url=f"{ledger.url}/hook/ops", secret=SECRET)

    await _fire(lifesign, channel)
    await lifesign.advance(10)

    first, second = ledger.requests("/hook/ops")
    assert (first.headers["webhook-id"], first.content) == (second.headers["webhook-id"], second.content)
    assert first.headers["webhook-timestamp"] != second.headers["webhook-timestamp"]
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]
    assert _is_signed(first, SECRET)
    assert _is_signed(second, SECRET)


async def test_an_unknown_page_is_tried_again_and_a_gone_one_breaks_the_channel(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    ledger.script("ops", {"status": 404})
    ledger.script("second", {"status": 410})
    missing = await _channel(lifesign, "webhook", url=f"{ledger.url}/hook/ops")
    gone = await _channel(lifesign, "webhook", url=f"{ledger.url}/hook/second")

    await _fire(lifesign, missing, gone)
    await lifesign.advance(60)

    assert [each.answered for each in ledger.requests("/hook/ops")] == [404, 200]
    assert [each.answered for each in ledger.requests("/hook/second")] == [410]
    assert await _broken(lifesign, missing) is None
    assert await _broken(lifesign, gone) == "410: the provider answered 410"


async def test_a_redirect_is_not_followed_and_ends_the_message(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    ledger.script("ops", {"status": 302, "headers": {"Location": f"{ledger.url}/hook/second"}})
    channel = await _channel(lifesign, "webhook", url=f"{ledger.url}/hook/ops")

    await _fire(lifesign, channel)
    await lifesign.advance(3600)

    assert await _statuses(lifesign) == ["dead"]
    assert ledger.requests("/hook/second") == []
    assert await _broken(lifesign, channel) is None


async def test_headers_of_ones_own_arrive(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    channel = await _channel(lifesign, "webhook", url=f"{ledger.url}/hook/ops", headers={"X-Team": "ops"})

    await _fire(lifesign, channel)

    assert ledger.requests("/hook/ops")[0].headers["x-team"] == "ops"


async def test_a_changed_secret_signs_beside_the_old_one_for_a_day(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    channel = await _channel(lifesign, "webhook", url=f"{ledger.url}/hook/ops", secret=SECRET)
    change = {"config": {"url": f"{ledger.url}/hook/ops", "secret": NEXT_SECRET}}
    await lifesign.ask("PATCH", f"/v1/channels/{channel}", change)

    await _fire(lifesign, channel, name="First")
    await lifesign.advance(24 * 3600 - 60)
    await _fire(lifesign, channel, name="Second")
    await lifesign.advance(60)
    await _fire(lifesign, channel, name="Third")

    first, second, third = [each for each in ledger.requests("/hook/ops") if each.json["type"] == "incident.opened"]
    for within in (first, second):
        new, old = within.headers["webhook-signature"].split(" ")
        assert _is_signed(within, SECRET)
        assert _is_signed(within, NEXT_SECRET)
        assert new != old
    assert len(third.headers["webhook-signature"].split(" ")) == 1
    assert _is_signed(third, NEXT_SECRET)


async def test_an_answer_without_end_is_judged_by_its_status(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    ledger.script("ops", {"bytes": 10_000_000})
    channel = await _channel(lifesign, "webhook", url=f"{ledger.url}/hook/ops")

    await _fire(lifesign, channel)

    assert await _statuses(lifesign) == ["sent"]


@pytest.mark.parametrize("fault", [{"close": "before_read"}, {"close": "after_read"}, {"reset": True}])
async def test_a_connection_that_breaks_does_not_cost_the_message(
    lifesign: Lifesign, ledger: LedgerPeer, fault: Json
) -> None:
    ledger.script("ops", fault)
    channel = await _channel(lifesign, "webhook", url=f"{ledger.url}/hook/ops")

    await _fire(lifesign, channel)
    await lifesign.advance(10)

    assert await _statuses(lifesign) == ["sent"]
    assert len({each.headers["webhook-id"] for each in ledger.requests("/hook/ops")}) == 1


async def test_a_step_message_that_looks_like_a_template_is_sent_as_written(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    channel = await _channel(lifesign, "webhook", url=f"{ledger.url}/hook/ops")
    policy = await lifesign.policy({"channels": [channel], "wait": 0, "message": "{{7*7}} {% if"})

    await _fire(lifesign, policy=policy["id"])

    assert ledger.requests("/hook/ops")[0].json["data"]["message"] == "{{7*7}} {% if"


# Slack --------------------------------------------------------------------------------------------------------------
async def test_slack_that_answers_anything_but_ok_has_refused(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    ledger.script("second", {"body": "no_text"})
    channel = await _channel(lifesign, "slack", webhookUrl=f"{ledger.url}/slack/second")

    await _fire(lifesign, channel)

    (row,) = await _rows(lifesign)
    assert row["status"] == "dead"
    assert row["attempts"][0]["error"].startswith("unexpected_body: ")


async def test_slack_cannot_be_made_to_mention_anybody(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    channel = await _channel(lifesign, "slack", webhookUrl=f"{ledger.url}/slack/second")

    await _fire(lifesign, channel, name="<!channel> & co")

    (request,) = ledger.requests("/slack/second")
    assert request.verdict == 200
    assert b"&lt;!channel&gt; &amp; co" in request.content
    assert b"<!channel>" not in request.content


async def test_a_slack_channel_that_is_gone_shows_as_broken(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    ledger.script("second", {"status": 404, "body": "no_service"})
    channel = await _channel(lifesign, "slack", webhookUrl=f"{ledger.url}/slack/second")

    await _fire(lifesign, channel)

    assert await _statuses(lifesign) == ["dead"]
    assert await _broken(lifesign, channel) == "404: the provider answered 404"


# PagerDuty ----------------------------------------------------------------------------------------------------------
async def test_pagerduty_hears_trigger_trigger_resolve_of_one_incident(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    channel = await _channel(lifesign, "pagerduty", routingKey=ROUTING_KEY)
    policy = await lifesign.policy({"channels": [channel], "wait": 0}, repeatLastStep=True)
    made = await _fire(lifesign, policy=policy["id"])
    await lifesign.advance(70)
    await lifesign.check_in(made["id"])
    await lifesign.advance(1)

    requests = ledger.requests(ENQUEUE)
    (incident,) = await lifesign.incidents(made["id"])
    assert [(each.json["event_action"], each.json["dedup_key"]) for each in requests] == [
        ("trigger", incident["id"]),
        ("trigger", incident["id"]),
        ("resolve", incident["id"]),
    ]
    assert {each.verdict for each in requests} == {202}


async def test_pagerduty_gets_a_summary_that_fits(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    channel = await _channel(lifesign, "pagerduty", routingKey=ROUTING_KEY)
    policy = await lifesign.policy({"channels": [channel], "wait": 0, "message": "{{metadata.long}}"})

    await _fire(lifesign, policy=policy["id"], metadata={"long": "x" * 3000})

    (request,) = ledger.requests(ENQUEUE)
    assert request.verdict == 202
    assert len(request.json["payload"]["summary"]) == 1024
    assert request.json["payload"]["summary"].startswith("DOWN: Nightly Export: xxx")


# E-mail -------------------------------------------------------------------------------------------------------------
@pytest.fixture
def mailing(start_lifesign: MakeLifesign, mail: SmtpPeer) -> MakeLifesign:
    """Starts nodes that send through the mail peer."""
    return _Mailing(start_lifesign, mail)


class _Mailing:
    def __init__(self, start: MakeLifesign, mail: SmtpPeer) -> None:
        self._start = start
        self._changes: Json = {
            "smtp_host": "127.0.0.1",
            "smtp_port": mail.port,
            "smtp_tls": "none",
            "smtp_from": "lifesign@example.com",
        }

    def __call__(
        self, *, at: str = "2026-01-05T12:00:00.000Z", **changes: object
    ) -> AbstractAsyncContextManager[Lifesign]:
        return self._start(at=at, **(self._changes | changes))


def _mails(mail: SmtpPeer) -> list[EmailMessage]:
    return [message_from_bytes(each, policy=policy.default) for each in mail.mails()]


async def test_one_refused_address_does_not_keep_the_mail_from_the_other(mailing: MakeLifesign, mail: SmtpPeer) -> None:
    mail.script(**{"bad@example.com": [{"rcpt": 550}]})
    async with mailing() as lifesign:
        channel = await _channel(lifesign, "email", to=["bad@example.com", "good@example.com"])

        await _fire(lifesign, channel)

        assert sorted(await _statuses(lifesign)) == ["dead", "sent"]
        assert await _broken(lifesign, channel) == "550: the provider answered 550"
    assert [each["rcptTo"] for each in mail.envelopes()] == [["good@example.com"]]


async def test_a_mail_whose_answer_was_lost_comes_again_under_the_same_id(
    mailing: MakeLifesign, mail: SmtpPeer
) -> None:
    mail.script(**{"ops@example.com": [{"drop": "after_data"}]})
    async with mailing() as lifesign:
        channel = await _channel(lifesign, "email", to="ops@example.com")

        await _fire(lifesign, channel)
        await lifesign.advance(10)

        assert await _statuses(lifesign) == ["sent"]
    first, second = [each["Message-ID"] for each in _mails(mail)]
    assert first == second
    assert re.fullmatch(r"<ntf_[0-9a-f]{32}@example\.com>", first)


async def test_a_mail_refused_for_the_moment_arrives_once_five_seconds_later(
    mailing: MakeLifesign, mail: SmtpPeer
) -> None:
    mail.script(**{"ops@example.com": [{"rcpt": 451}]})
    async with mailing() as lifesign:
        channel = await _channel(lifesign, "email", to="ops@example.com")

        await _fire(lifesign, channel)
        await lifesign.advance(10)

        (row,) = await _rows(lifesign)
    first, second = row["attempts"]
    assert (first["outcome"], second["outcome"]) == ("retry", "sent")
    assert 4000 <= _instant(second["startedAt"]) - _instant(first["startedAt"]) <= 6000
    assert len(mail.mails()) == 1


async def test_a_line_break_in_metadata_makes_no_header(mailing: MakeLifesign, mail: SmtpPeer) -> None:
    async with mailing() as lifesign:
        await lifesign.ask(
            "POST",
            "/v1/heartbeats",
            {"name": "x\r\nBcc: eve@example.com", "mode": "recurring", "interval": 60},
            expect=400,
        )
        channel = await _channel(lifesign, "email", to="ops@example.com")
        steps = {"channels": [channel], "wait": 0, "message": "about {{metadata.note}}"}
        made = await lifesign.policy(steps)

        await _fire(lifesign, policy=made["id"], metadata={"note": "x\r\nBcc: eve@example.com\r\n\r\nhello"})

    (sent,) = _mails(mail)
    assert sent["Bcc"] is None
    assert sent["Subject"] == "DOWN: Nightly Export"
    assert [each["rcptTo"] for each in mail.envelopes()] == [["ops@example.com"]]


async def test_the_mails_of_one_incident_are_one_thread(mailing: MakeLifesign, mail: SmtpPeer) -> None:
    async with mailing() as lifesign:
        channel = await _channel(lifesign, "email", to="ops@example.com")
        made = await _fire(lifesign, channel)
        await lifesign.check_in(made["id"])
        await lifesign.advance(1)
        (incident,) = await lifesign.incidents(made["id"])

    down, up = _mails(mail)
    assert (down["Subject"], up["Subject"]) == ("DOWN: Nightly Export", "UP: Nightly Export")
    assert down["References"] == up["References"] == f"<{incident['id']}@example.com>"


async def test_without_a_mail_server_a_mail_is_dead_at_once_and_says_why(lifesign: Lifesign) -> None:
    channel = await _channel(lifesign, "email", to="ops@example.com")

    await _fire(lifesign, channel)

    (row,) = await _rows(lifesign)
    assert row["status"] == "dead"
    assert row["attempts"][0]["error"] == "not_configured: SMTP server is not configured"
    assert await _broken(lifesign, channel) is None


# SMS ----------------------------------------------------------------------------------------------------------------
async def test_an_accepted_text_is_sent_which_is_not_yet_delivered(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    channel = await _channel(lifesign, "sms", to="+15550100200")

    await _fire(lifesign, channel)

    (request,) = ledger.requests(MESSAGES)
    form = parse_qs(request.content.decode())
    assert request.verdict == 201
    assert (form["To"], form["ValidityPeriod"]) == (["+15550100200"], ["300"])
    assert await _statuses(lifesign) == ["sent"]


async def test_what_was_queued_for_a_mailbox_goes_to_the_number_that_the_channel_has_now(
    start_lifesign: MakeLifesign, ledger: LedgerPeer, closed_port: int
) -> None:
    async with start_lifesign(smtp_host="127.0.0.1", smtp_port=closed_port, smtp_tls="none") as lifesign:
        channel = await _channel(lifesign, "email", to="ops@example.com")
        await _fire(lifesign, channel)
        assert await _statuses(lifesign) == ["pending"]

        await lifesign.ask("PATCH", f"/v1/channels/{channel}", {"type": "sms", "config": {"to": "+15550100200"}})
        await lifesign.advance(10)

        assert await _statuses(lifesign) == ["sent"]
    (request,) = ledger.requests(MESSAGES)
    assert parse_qs(request.content.decode())["To"] == ["+15550100200"]


# Time ---------------------------------------------------------------------------------------------------------------
async def test_a_peer_that_says_nothing_holds_a_send_for_its_time_limit_only(
    lifesign: Lifesign, ledger: LedgerPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SEND_TIMEOUT_S == 20
    monkeypatch.setattr(delivery, "SEND_TIMEOUT_S", 0.3)
    ledger.script("ops", {"stall": 30})
    channel = await _channel(lifesign, "webhook", url=f"{ledger.url}/hook/ops")

    async with asyncio.timeout(10):
        await _fire(lifesign, channel)
        await lifesign.advance(10)

    (row,) = await _rows(lifesign)
    assert [each["outcome"] for each in row["attempts"]] == ["unknown", "sent"]
    first, second = [each.headers["webhook-id"] for each in ledger.requests("/hook/ops")]
    assert first == second
