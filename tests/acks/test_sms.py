"""Texts: delivery reports, codes that are texted back, and a text of which nobody knows whether it left."""

import base64
import hashlib
import hmac
import re
from collections.abc import AsyncIterator
from urllib.parse import urlencode

import httpx2
import pytest

from tests.engine.steps import fire, hook, notifications, row, told
from tests.harness import Json, Lifesign, MakeLifesign
from tests.peers.fixtures import MESSAGES, TWILIO_TOKEN
from tests.peers.process import LedgerPeer
from tests.web.browser import said, signed_up

PUBLIC = "https://lifesign.example"
NUMBER = "+15550100200"
STATUS, INBOUND = "/hooks/twilio/status", "/hooks/twilio/inbound"


@pytest.fixture
async def lifesign(start_lifesign: MakeLifesign) -> AsyncIterator[Lifesign]:
    async with start_lifesign(public_url=PUBLIC) as started:
        yield started


async def _text(lifesign: Lifesign, ledger: LedgerPeer, *, policy: bool = False) -> dict[str, str]:
    """A heartbeat that fires and texts somebody; the form of the text."""
    made = await lifesign.ask(
        "POST", "/v1/channels", {"name": "sms", "type": "sms", "config": {"to": NUMBER}}, expect=201
    )
    how: Json = {"channels": [made["id"]]}
    if policy:
        later = await lifesign.webhook(hook(ledger))
        steps = await lifesign.policy(how, {"channels": [later["id"]], "wait": 3600})
        how = {"policy": steps["id"]}
    await lifesign.heartbeat("Nightly", slug="job", **how)
    await fire(lifesign, "job")
    return _form(ledger.requests(MESSAGES)[-1].content)


def _form(body: bytes) -> dict[str, str]:
    return dict(httpx2.QueryParams(body.decode()).multi_items())


def _code(form: dict[str, str]) -> str:
    found = re.search(r" Reply ACK ([2-9A-HJ-NP-Z]{6})\b", form["Body"])
    assert found is not None
    return found[1]


async def _call(
    lifesign: Lifesign, path: str, address: str = PUBLIC, *, token: str = TWILIO_TOKEN, **form: str
) -> httpx2.Response:
    said = "".join(f"{name}{form[name]}" for name in sorted(form))
    mac = hmac.new(token.encode(), f"{address}{path}{said}".encode(), hashlib.sha1).digest()
    headers = {
        "content-type": "application/x-www-form-urlencoded",
        "x-twilio-signature": base64.b64encode(mac).decode(),
    }
    async with lifesign.client(None) as gateway:
        return await gateway.post(path, content=urlencode(form), headers=headers)


async def _sid(lifesign: Lifesign) -> str:
    return str((await row(lifesign, (await notifications(lifesign, "job"))[0]["id"])).provider_id)


async def _statuses(lifesign: Lifesign) -> list[str]:
    return [each["status"] for each in await notifications(lifesign, "job")]


# Delivery reports ---------------------------------------------------------------------------------------------------
async def test_a_text_is_sent_when_the_gateway_takes_it_and_delivered_when_it_says_so(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    form = await _text(lifesign, ledger)
    assert form["StatusCallback"] == f"{PUBLIC}{STATUS}"
    assert await _statuses(lifesign) == ["sent"]
    sid = await _sid(lifesign)

    answer = await _call(lifesign, STATUS, MessageSid=sid, MessageStatus="delivered")

    assert (answer.status_code, answer.content) == (204, b"")
    assert await _statuses(lifesign) == ["delivered"]
    await _call(lifesign, STATUS, MessageSid=sid, MessageStatus="failed", ErrorCode="30003")
    assert await _statuses(lifesign) == ["delivered"]


async def test_a_text_that_was_not_delivered_is_dead_and_the_next_step_runs(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    await _text(lifesign, ledger, policy=True)
    sid = await _sid(lifesign)

    await _call(lifesign, STATUS, MessageSid=sid, MessageStatus="undelivered", ErrorCode="30003")
    await lifesign.advance(1)

    assert await _statuses(lifesign) == ["dead", "sent"]
    assert [kind for _, kind in told(ledger)] == ["incident.opened"]
    failed = next(each["metadata"] for each in await lifesign.events("job") if each["type"] == "notify_failed")
    assert (failed["error"], failed["final"]) == ("30003: the provider could not deliver it", True)


async def test_a_text_of_which_it_is_heard_after_the_end_that_it_was_not_delivered_is_not_sent_again(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    await _text(lifesign, ledger)
    await lifesign.ask("POST", "/v1/heartbeats/job/ack")
    await _call(lifesign, STATUS, MessageSid=await _sid(lifesign), MessageStatus="undelivered", ErrorCode="30003")
    (text,) = await notifications(lifesign, "job")
    assert text["status"] == "dead"

    refused = await lifesign.ask("POST", f"/v1/notifications/{text['id']}/retry", expect=400)

    assert refused["error"]["code"] == "INVALID_STATE"
    assert len(ledger.requests(MESSAGES)) == 1


async def test_a_report_about_a_text_nobody_sent_is_taken_and_changes_nothing(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    await _text(lifesign, ledger)

    assert (await _call(lifesign, STATUS, MessageSid="SM0", MessageStatus="delivered")).status_code == 204
    assert await _statuses(lifesign) == ["sent"]


@pytest.mark.parametrize("path", [STATUS, INBOUND])
async def test_what_the_gateway_did_not_sign_is_refused(lifesign: Lifesign, ledger: LedgerPeer, path: str) -> None:
    form = await _text(lifesign, ledger)
    fields = {
        "MessageSid": await _sid(lifesign),
        "MessageStatus": "delivered",
        "From": NUMBER,
        "Body": f"ACK {_code(form)}",
    }

    answer = await _call(lifesign, path, token="guessed", **fields)
    elsewhere = await _call(lifesign, path, "https://other.example", **fields)

    assert (answer.status_code, elsewhere.status_code) == (403, 403)
    assert await _statuses(lifesign) == ["sent"]
    assert (await lifesign.get("job"))["status"] == "firing"


async def test_the_signature_may_be_made_with_the_default_port(lifesign: Lifesign) -> None:
    answer = await _call(lifesign, STATUS, f"{PUBLIC}:443", MessageSid="SM0", MessageStatus="sent")

    assert answer.status_code == 204


async def test_a_callback_that_is_too_large_is_refused(lifesign: Lifesign) -> None:
    assert (await _call(lifesign, STATUS, MessageSid="x" * 70_000)).status_code == 413


async def test_every_page_says_that_the_gateway_refuses_the_login_of_the_server_until_it_takes_it(
    start_lifesign: MakeLifesign, ledger: LedgerPeer
) -> None:
    async with start_lifesign() as lifesign:
        owner = await signed_up(lifesign)
        ledger.script("twilio", {"status": 401})
        await _text(lifesign, ledger)
        assert "Refused The SMS gateway refuses the login of this server:" in said(await owner.get("/account"))

        await lifesign.advance(899)
        assert len(ledger.requests(MESSAGES)) == 1
        await lifesign.advance(1)

        assert len(ledger.requests(MESSAGES)) == 2
        assert "Refused" not in said(await owner.get("/account"))


# Codes --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("spelling", ["ACK {}", "ack {}", " Ack   {} "])
async def test_the_code_acknowledges_from_the_number_that_was_texted(
    lifesign: Lifesign, ledger: LedgerPeer, spelling: str
) -> None:
    code = _code(await _text(lifesign, ledger))
    said = spelling.format(code.lower() if spelling.startswith("ack") else code)

    answer = await _call(lifesign, INBOUND, MessageSid="SM1", From=NUMBER, Body=said)

    assert answer.headers["content-type"].startswith("text/xml")
    assert "<Response><Message>Acknowledged: Nightly</Message></Response>" in answer.text
    assert (await lifesign.get("job"))["status"] == "resolved"
    acked = next(each for each in await lifesign.events("job") if each["type"] == "acked")
    assert acked["metadata"]["actor"] == f"sms:{NUMBER}"
    again = await _call(lifesign, INBOUND, MessageSid="SM1", From=NUMBER, Body=said)
    assert again.text == answer.text
    later = await _call(lifesign, INBOUND, MessageSid="SM2", From=NUMBER, Body=said)
    assert "Already closed: Nightly" in later.text


@pytest.mark.parametrize(
    ("number", "said"), [("+15550100201", "ACK {}"), (NUMBER, "ACK AAAAAA"), (NUMBER, "{}"), (NUMBER, "")]
)
async def test_another_number_another_code_and_other_words_acknowledge_nothing(
    lifesign: Lifesign, ledger: LedgerPeer, number: str, said: str
) -> None:
    code = _code(await _text(lifesign, ledger))

    answer = await _call(lifesign, INBOUND, MessageSid="SM1", From=number, Body=said.format(code))

    assert "<Message>Unknown code</Message>" in answer.text
    assert (await lifesign.get("job"))["status"] == "firing"


async def test_incidents_that_text_nobody_have_no_code_and_two_that_do_have_different_ones(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    first = _code(await _text(lifesign, ledger))
    (channel,) = {each["channel"] for each in await notifications(lifesign, "job")}
    await lifesign.heartbeat(slug="second", channels=[channel])
    await fire(lifesign, "second")
    await lifesign.advance(2)

    second = _code(_form(ledger.requests(MESSAGES)[-1].content))
    assert first != second


# Unknown outcomes ---------------------------------------------------------------------------------------------------
async def test_a_text_whose_answer_got_lost_is_looked_up_and_not_sent_twice(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    ledger.script("twilio", {"close": "after_read"})
    await _text(lifesign, ledger)
    await lifesign.advance(10)

    assert [each.method for each in ledger.requests(MESSAGES)] == ["POST", "GET"]
    (text,) = await notifications(lifesign, "job")
    assert [each["outcome"] for each in text["attempts"]] == ["unknown", "sent"]


async def test_a_text_that_the_gateway_does_not_know_is_sent_again(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    # It read the request and died over it.
    ledger.script("twilio", {"close": "after_read", "status": 500})
    await _text(lifesign, ledger)
    await lifesign.advance(10)

    assert [each.method for each in ledger.requests(MESSAGES)] == ["POST", "GET", "POST"]
    assert await _statuses(lifesign) == ["sent"]
