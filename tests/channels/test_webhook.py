import asyncio
import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from lifesign.channels.message import Message, Resolution, decode, encode
from lifesign.channels.outbound import OutboundClient
from lifesign.channels.sender import HttpReply, HttpRequest, Outcome, Permanent, Retry, Sent, Unknown
from lifesign.channels.webhook import WebhookSender, body, build, event_type, judge, signature
from lifesign.clock import EpochMs, from_datetime
from lifesign.settings import Settings
from tests.channels.samples import NOTIFICATION, OPENED, context, heartbeat, incident, message, probe
from tests.peers.process import ledger_peer

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OLD_SECRET = "whsec_" + base64.b64encode(b"another secret of 28 bytes..").decode()
CONFIG = {"url": "https://receiver.test/hook", "secret": SECRET}


def verified(request: HttpRequest, secret: str) -> Any:  # Any: JSON
    return Webhook(secret).verify(request.content, dict(request.headers))


def reply(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> HttpReply:
    return HttpReply(status, headers or {}, body)


def present() -> EpochMs:
    """The machine's time, with which the library compares: at the moment of the test, not of its import."""
    return from_datetime(datetime.now(UTC))  # noqa: TID251 - see above


def test_the_library_of_standard_webhooks_verifies_a_page() -> None:
    now = present()
    request = build(message(), CONFIG, context(now=now))

    assert verified(request, SECRET)["type"] == "incident.opened"
    assert request.headers["webhook-id"] == NOTIFICATION


def test_the_signature_is_the_one_of_the_published_example() -> None:
    # The example of the Standard Webhooks specification.
    signed = signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "1614265330",
        content=b'{"test": 2432232314}',
    )

    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_while_an_older_secret_is_valid_both_verify_and_the_new_one_stands_first() -> None:
    now = present()
    request = build(message(), CONFIG | {"previousSecret": OLD_SECRET}, context(now=now))

    assert verified(request, SECRET) == verified(request, OLD_SECRET)
    first, second = request.headers["webhook-signature"].split(" ")
    seconds = str(now // 1000)
    assert first == signature(SECRET, NOTIFICATION, seconds, content=request.content)
    assert second == signature(OLD_SECRET, NOTIFICATION, seconds, content=request.content)


def test_a_retry_in_the_next_second_has_the_same_id_and_body_and_another_signature() -> None:
    stored = encode(message(heartbeat=heartbeat(metadata={"b": 1, "a": [2.50, "é", None]})))

    first = build(decode(stored), CONFIG, context(now=EpochMs(OPENED + 1000)))
    second = build(decode(stored), CONFIG, context(now=EpochMs(OPENED + 2000), attempt=2, maybe_sent=True))

    assert first.content == second.content
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]
    assert (first.headers["webhook-timestamp"], second.headers["webhook-timestamp"]) == ("1772953261", "1772953262")


def test_the_body_is_that_of_the_specification() -> None:
    told = message(heartbeat=heartbeat(metadata={}))

    assert json.loads(build(told, CONFIG, context()).content) == {
        "type": "incident.opened",
        "timestamp": "2026-03-08T07:01:00.000Z",
        "data": {
            "title": "DOWN: Nightly Export",
            "message": "Nightly Export missed its check-in",
            "project": "default",
            "heartbeat": {
                "id": "hb_1",
                "name": "Nightly Export",
                "slug": "nightly-export",
                "mode": "scheduled",
                "status": "firing",
                "metadata": {},
            },
            "incident": {
                "id": "inc_0123456789abcdef0123456789abcdef",
                "reason": "missed",
                "openedAt": "2026-03-08T07:01:00.000Z",
                "deadline": "2026-03-08T07:00:00.000Z",
            },
            "escalation": {"step": 1, "steps": 3, "repeat": 0},
            "channel": "ch_1",
            "url": "https://lifesign.test/incidents/1",
            "ackUrl": "https://lifesign.test/a/token",
        },
    }


def test_an_acknowledgement_tells_who_and_why() -> None:
    closed = incident(
        deadline_at=None,
        resolved_at=EpochMs(OPENED + 5000),
        resolution="ack",
        ack_message="on it",
        acked_by="key:ops",
    )

    told = json.loads(body(message(kind="resolve", incident=closed), "ch_1"))

    assert told["type"] == "incident.acknowledged"
    assert told["data"]["incident"] == {
        "id": "inc_0123456789abcdef0123456789abcdef",
        "reason": "missed",
        "openedAt": "2026-03-08T07:01:00.000Z",
        "resolvedAt": "2026-03-08T07:01:05.000Z",
        "resolution": "ack",
        "ackMessage": "on it",
        "ackedBy": "key:ops",
    }


def test_a_test_message_leaves_out_what_it_does_not_have() -> None:
    assert json.loads(body(probe(), "ch_1")) == {
        "type": "channel.test",
        "timestamp": "2026-03-08T07:01:00.000Z",
        "data": {
            "title": "Test message from Lifesign",
            "message": "It works.",
            "project": "default",
            "channel": "ch_1",
        },
    }


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (message(is_first=True), "incident.opened"),
        (message(is_first=False, step=2), "incident.escalated"),
        (message(is_first=False, step=3, repeat=1), "incident.repeated"),
    ],
)
def test_each_page_has_its_type(told: Message, expected: str) -> None:
    assert event_type(told) == expected


@pytest.mark.parametrize(
    ("resolution", "expected"),
    [
        ("checkin", "incident.resolved"),
        ("ack", "incident.acknowledged"),
        ("pause", "incident.closed"),
        ("delete", "incident.closed"),
    ],
)
def test_each_way_to_close_has_its_type(resolution: Resolution, expected: str) -> None:
    assert event_type(message(kind="resolve", incident=incident(resolution=resolution))) == expected


def test_a_users_header_is_sent_and_never_displaces_one_of_ours() -> None:
    config = CONFIG | {"headers": {"X-Team": "ops", "Webhook-Id": "forged", "CONTENT-TYPE": "text/plain"}}

    headers = build(message(), config, context()).headers

    assert headers["X-Team"] == "ops"
    assert sorted(name.lower() for name in headers) == [
        "content-type",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
        "x-team",
    ]
    assert headers["webhook-id"] == NOTIFICATION
    assert headers["content-type"] == "application/json"


def test_metadata_goes_first_when_the_body_is_too_large() -> None:
    text = "x" * 4000

    content = body(message(text=text, heartbeat=heartbeat(metadata={"log": "y" * 17_000})), "ch_1")

    told = json.loads(content)["data"]
    assert "metadata" not in told["heartbeat"]
    assert told["heartbeat"]["metadataOmitted"] is True
    assert told["message"] == text


def test_the_text_is_cut_to_1000_characters_when_the_body_is_still_too_large() -> None:
    content = body(message(text="\x01" * 4000, heartbeat=heartbeat(metadata={"a": 1})), "ch_1")

    told = json.loads(content)["data"]
    assert told["message"] == "\x01" * 997 + "..."
    assert told["heartbeat"]["metadataOmitted"] is True


@given(
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=4000),
    st.dictionaries(st.text(alphabet="abc", max_size=3), st.text(alphabet="é\x00z", max_size=9000), max_size=3),
)
def test_no_body_is_larger_than_20_kilobytes(text: str, metadata: dict[str, str]) -> None:
    assert len(body(message(text=text, heartbeat=heartbeat(metadata=metadata)), "ch_1")) <= 20_000


def test_a_step_message_that_looks_like_a_template_is_sent_as_written() -> None:
    assert json.loads(body(message(text="{{7*7}} {% if"), "ch_1"))["data"]["message"] == "{{7*7}} {% if"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (reply(200), Sent()),
        (reply(204, headers={"webhook-response-id": "r-17"}), Sent("r-17")),
        (reply(404, b"not here"), Retry("not here", "404", http_status=404)),
        (reply(400), Retry("answered with status 400", "400", http_status=400)),
        (reply(401), Retry("answered with status 401", "401", http_status=401)),
        (reply(410, b"gone"), Permanent("gone", "410", disable=True, http_status=410)),
        (reply(302), Permanent("redirect is not followed", "302", http_status=302)),
        (reply(500), Retry("answered with status 500", "500", http_status=500)),
        (reply(429, headers={"retry-after": "7"}), Retry("answered with status 429", "429", 7000, 429)),
    ],
)
def test_each_answer_has_its_outcome(answer: HttpReply, outcome: Outcome) -> None:
    assert judge(answer, OPENED) == outcome


async def test_a_receiver_that_fails_once_gets_the_same_message_again(tmp_path: Path) -> None:
    settings = Settings(allow_private_targets=True)
    outbound = OutboundClient(settings)
    with ledger_peer(tmp_path) as peer:
        await asyncio.to_thread(peer.script, "ops", {"status": 500}, {"close": "after_read"})
        config = CONFIG | {"url": f"{peer.url}/hook/ops", "headers": {"X-Team": "ops"}}

        now = present()
        outcomes = [
            await WebhookSender().send(
                message(), config, context(settings, outbound=outbound, now=EpochMs(now + second * 1000))
            )
            for second in range(3)
        ]
        await outbound.aclose()

        arrived = await peer.arrived("/hook/ops", 3)
    assert isinstance(outcomes[0], Retry)
    assert isinstance(outcomes[1], Unknown)
    assert outcomes[2] == Sent()
    assert len({record.content for record in arrived}) == 1
    assert {record.headers["webhook-id"] for record in arrived} == {NOTIFICATION}
    assert {record.headers["x-team"] for record in arrived} == {"ops"}
    assert len({record.headers["webhook-signature"] for record in arrived}) == 3
    for record in arrived:
        Webhook(SECRET).verify(record.content, record.headers)


async def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    settings = Settings(allow_private_targets=True)
    outbound = OutboundClient(settings)
    with ledger_peer(tmp_path) as peer:
        elsewhere = f"{peer.url}/hook/elsewhere"
        await asyncio.to_thread(peer.script, "ops", {"status": 302, "headers": {"Location": elsewhere}})

        outcome = await WebhookSender().send(
            message(), CONFIG | {"url": f"{peer.url}/hook/ops"}, context(settings, outbound=outbound)
        )
        await outbound.aclose()

        assert outcome == Permanent("redirect is not followed", "302", http_status=302)
        assert [record.path for record in await asyncio.to_thread(peer.requests)] == ["/hook/ops"]
