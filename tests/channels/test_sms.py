import base64
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from lifesign.channels.outbound import OutboundClient
from lifesign.channels.sender import HttpReply, Outcome, Permanent, Retry, SendContext, Sent, Unknown
from lifesign.channels.sms import SmsSender, body, build, judge, sid_of_earlier
from lifesign.settings import Settings
from tests.channels.samples import OPENED, context, message, probe
from tests.peers.process import ledger_peer

ACK_URL = "https://lifesign.test/a/token"


def gateway(**changes: Any) -> Settings:  # Any: fields of Settings
    fields: dict[str, Any] = {
        "twilio_account_sid": "AC0123456789abcdef0123456789abcdef",
        "twilio_auth_token": SecretStr("token"),
        "twilio_from": "+15550100",
    }
    return Settings(**(fields | changes))


def to_phone(settings: Settings, **changes: Any) -> SendContext:  # Any: fields of SendContext
    return context(settings, dest="+15550199", **changes)


def form(settings: Settings) -> dict[str, str]:
    return dict(parse_qsl(build(message(), {}, to_phone(settings)).content.decode(), strict_parsing=True))


def authorization(settings: Settings) -> str:
    scheme, _, pair = build(message(), {}, to_phone(settings)).headers["authorization"].partition(" ")
    assert scheme == "Basic"
    return base64.b64decode(pair).decode()


def test_the_form_is_that_of_the_specification() -> None:
    request = build(message(), {}, to_phone(gateway()))

    assert request.url == (
        "https://api.twilio.com/2010-04-01/Accounts/AC0123456789abcdef0123456789abcdef/Messages.json"
    )
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert form(gateway()) == {
        "To": "+15550199",
        "From": "+15550100",
        "Body": f"DOWN: Nightly Export Nightly Export missed its check-in {ACK_URL}",
        "ValidityPeriod": "300",
        "RiskCheck": "disable",
    }


def test_a_messaging_service_replaces_the_number() -> None:
    sent = form(gateway(twilio_messaging_service_sid="MG1"))

    assert sent["MessagingServiceSid"] == "MG1"
    assert "From" not in sent


def test_an_api_key_replaces_the_token() -> None:
    assert authorization(gateway()) == "AC0123456789abcdef0123456789abcdef:token"
    with_key = gateway(twilio_api_key="SK1", twilio_api_secret=SecretStr("secret"))
    assert authorization(with_key) == "SK1:secret"


def test_a_long_text_is_cut_and_its_address_is_not() -> None:
    text = body(message(text="x" * 500))

    assert len(text) == 300
    assert text.startswith("DOWN: Nightly Export xxx")
    assert text.endswith(f"x... {ACK_URL}")


def test_an_address_that_leaves_no_room_is_left_out() -> None:
    assert body(message(text="late", ack_url="https://lifesign.test/" + "a" * 250)) == "DOWN: Nightly Export late"


def test_a_recovery_has_no_address_to_acknowledge_at() -> None:
    assert body(message(kind="resolve", title="UP: Nightly Export", text="back")) == "UP: Nightly Export back"


def test_a_step_message_that_looks_like_a_template_is_sent_as_written() -> None:
    assert body(message(text="{{7*7}} {% if", ack_url=None)) == "DOWN: Nightly Export {{7*7}} {% if"


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=600))
def test_any_text_is_one_line_of_at_most_300_characters(text: str) -> None:
    sent = body(message(text=text))

    assert len(sent) <= 300
    assert sent.endswith(f" {ACK_URL}")
    assert len(sent.splitlines()) == 1
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in sent)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (HttpReply(201, {}, b'{"sid":"SM1","status":"queued"}'), Sent("SM1")),
        (HttpReply(200, {}, b'{"sid":"SM1"}'), Sent("SM1")),
        (HttpReply(201, {}, b'{"sid":null}'), Unknown("the answer names no sid")),
        (HttpReply(201, {}, b"<html>"), Unknown("the answer names no sid")),
        (HttpReply(201, {}, b"[]"), Unknown("the answer names no sid")),
        (HttpReply(400, {}, b'{"code":21211}'), Permanent('{"code":21211}', "21211", disable=True, http_status=400)),
        (HttpReply(400, {}, b'{"code":21610}'), Permanent('{"code":21610}', "21610", disable=True, http_status=400)),
        (HttpReply(400, {}, b'{"code":21602}'), Permanent('{"code":21602}', "21602", http_status=400)),
        (HttpReply(400, {}, b""), Permanent("answered with status 400", "400", http_status=400)),
        (HttpReply(401, {}, b""), Retry("answered with status 401", "auth", 900_000, 401)),
        (HttpReply(403, {}, b""), Retry("answered with status 403", "auth", 900_000, 403)),
        (HttpReply(404, {}, b""), Permanent("answered with status 404", "not_configured", http_status=404)),
        (HttpReply(429, {"retry-after": "2"}, b""), Retry("answered with status 429", "429", 2000, 429)),
        (HttpReply(503, {}, b""), Retry("answered with status 503", "503", None, 503)),
    ],
)
def test_each_answer_has_its_outcome(answer: HttpReply, outcome: Outcome) -> None:
    assert judge(answer, OPENED) == outcome


def earlier(**changes: str) -> dict[str, Any]:  # Any: JSON
    """What a gateway answers that knows of one text."""
    known = {"sid": "SM1", "body": "DOWN: Nightly", "status": "sent", "date_created": "Sun, 08 Mar 2026 07:01:00 +0000"}
    return {"messages": [known | changes]}


@pytest.mark.parametrize(
    ("changes", "is_it"),
    [
        ({}, True),
        ({"body": "Sent from a trial account - DOWN: Nightly"}, True),
        ({"body": "DOWN: Night"}, False),
        ({"date_created": "Sun, 08 Mar 2026 07:00:59 +0000"}, False),
        ({"date_created": "soon"}, True),
        ({"status": "queued"}, True),
        ({"status": "delivered"}, True),
        ({"status": "undelivered"}, False),
        ({"status": "failed"}, False),
        ({"status": "canceled"}, False),
    ],
)
def test_a_text_that_left_before_is_known_by_what_it_says_unless_it_is_old_or_has_failed(
    changes: dict[str, str], *, is_it: bool
) -> None:
    assert sid_of_earlier(earlier(**changes), "DOWN: Nightly", OPENED) == ("SM1" if is_it else None)


@pytest.mark.parametrize("answer", [{}, {"messages": None}, {"messages": [1]}, earlier(sid="")])
def test_what_no_gateway_says_is_no_text(answer: dict[str, Any]) -> None:  # Any: JSON
    assert sid_of_earlier(answer, "DOWN: Nightly", OPENED) is None


@pytest.mark.parametrize(
    "missing",
    [
        {"twilio_account_sid": None},
        {"twilio_auth_token": None},
        {"twilio_auth_token": None, "twilio_api_key": "SK1"},
        {"twilio_from": None},
    ],
)
async def test_without_a_gateway_the_channel_is_not_at_fault(missing: dict[str, str | None]) -> None:
    outcome = await SmsSender().send(message(), {}, to_phone(gateway(**missing)))

    assert outcome == Permanent("SMS gateway is not configured", "not_configured")


async def test_a_page_and_a_test_are_accepted_and_called_at_is_committed_first(tmp_path: Path) -> None:
    with ledger_peer(tmp_path) as peer:
        settings = gateway(twilio_url=peer.url)
        outbound = OutboundClient(settings)
        path = "/2010-04-01/Accounts/AC0123456789abcdef0123456789abcdef/Messages.json"
        arrived_before: list[int] = []

        async def mark_called() -> None:
            arrived_before.append(len(peer.requests(path)))

        outcomes = [
            await SmsSender().send(told, {}, to_phone(settings, outbound=outbound, mark_called=mark_called))
            for told in (message(), probe())
        ]
        await outbound.aclose()

        arrived = await peer.arrived(path, 2)
    assert arrived_before == [0, 1]
    assert all(isinstance(outcome, Sent) and outcome.provider_id for outcome in outcomes)
    sent = dict(parse_qsl(arrived[1].content.decode()))
    assert (sent["To"], sent["Body"]) == ("+15550199", "Test message from Lifesign It works.")
