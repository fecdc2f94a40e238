import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifesign.channels.message import Message
from lifesign.channels.outbound import OutboundClient
from lifesign.channels.pagerduty import PagerDutySender, build, judge
from lifesign.channels.sender import HttpReply, Outcome, Permanent, Retry, Sent
from lifesign.settings import Settings
from tests.channels.samples import INCIDENT, NOTIFICATION, OPENED, context, heartbeat, incident, message, probe
from tests.peers import vendors
from tests.peers.process import ledger_peer

CONFIG = {"routingKey": "R0123456789abcdefR0123456789abcd"}


def event(told: Message, **config: str) -> Any:  # Any: JSON
    return json.loads(build(told, CONFIG | config, context()).content)


def test_a_page_is_the_trigger_of_the_specification() -> None:
    told = message(heartbeat=heartbeat(namespace="billing", metadata={"rows": 3}))

    assert event(told) == {
        "routing_key": "R0123456789abcdefR0123456789abcd",
        "event_action": "trigger",
        "dedup_key": INCIDENT,
        "client": "Lifesign",
        "client_url": "https://lifesign.test/incidents/1",
        "links": [
            {"href": "https://lifesign.test/a/token", "text": "Acknowledge"},
            {"href": "https://lifesign.test/incidents/1", "text": "Details"},
        ],
        "payload": {
            "summary": "DOWN: Nightly Export: Nightly Export missed its check-in",
            "source": "nightly-export",
            "severity": "critical",
            "timestamp": "2026-03-08T07:01:00.000Z",
            "component": "Nightly Export",
            "group": "billing",
            "class": "missed",
            "custom_details": {
                "metadata": {"rows": 3},
                "step": 1,
                "deadline": "2026-03-08T07:00:00.000Z",
                "url": "https://lifesign.test/incidents/1",
            },
        },
    }


def test_a_page_goes_to_the_address_the_operator_set() -> None:
    request = build(message(), CONFIG, context(Settings(pagerduty_url="https://events.eu.example.com/")))

    assert request.url == "https://events.eu.example.com/v2/enqueue"


def test_every_way_to_close_is_a_resolve_of_the_same_key_without_a_payload() -> None:
    for resolution in ("checkin", "ack", "pause", "delete"):
        told = event(message(kind="resolve", ack_url=None, incident=incident(resolution=resolution)))

        assert (told["event_action"], told["dedup_key"], "payload" in told) == ("resolve", INCIDENT, False)


def test_the_severity_is_that_of_the_channel() -> None:
    assert event(message(), severity="warning")["payload"]["severity"] == "warning"


def test_a_summary_of_3000_characters_is_cut_to_1024() -> None:
    summary = event(message(text="x" * 3000))["payload"]["summary"]

    assert len(summary) == 1024
    assert summary.startswith("DOWN: Nightly Export: xxx")
    assert summary.endswith("x...")


def test_details_are_dropped_from_an_event_of_more_than_512_kilobytes() -> None:
    request = build(message(heartbeat=heartbeat(metadata={"log": "x" * 520_000})), CONFIG, context())

    assert len(request.content) < 2000
    assert "custom_details" not in json.loads(request.content)["payload"]


def test_a_test_is_informational_and_has_a_key_of_its_own() -> None:
    told = event(probe(), severity="critical")

    assert (told["event_action"], told["dedup_key"]) == ("trigger", f"test-{NOTIFICATION}")
    assert told["payload"] == {
        "summary": "Test message from Lifesign: It works.",
        "source": "lifesign",
        "severity": "info",
        "timestamp": "2026-03-08T07:01:00.000Z",
    }


@given(
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=300),
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=4000),
)
def test_the_api_accepts_whatever_a_message_says(title: str, text: str) -> None:
    request = build(message(title=f"DOWN: {title}", text=text), CONFIG, context())

    assert vendors.pagerduty(request.headers, request.content).status == 202


BAD_KEY = b'{"status":"invalid event","errors":["Length of \'routing_key\' is incorrect"]}'
BAD_EVENT = b'{"status":"invalid event","errors":["\'payload.summary\' is missing"]}'


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (HttpReply(202, {}, b"{}"), Sent("key-1")),
        (HttpReply(401, {}, b""), Permanent("answered with status 401", "401", disable=True, http_status=401)),
        (HttpReply(403, {}, b""), Permanent("answered with status 403", "403", disable=True, http_status=403)),
        (HttpReply(404, {}, b""), Retry("answered with status 404", "404", http_status=404)),
        (HttpReply(200, {}, b""), Retry("answered with status 200", "200", http_status=200)),
        (HttpReply(429, {}, b""), Retry("answered with status 429", "429", 30_000, 429)),
        (HttpReply(500, {}, b""), Retry("answered with status 500", "500", http_status=500)),
    ],
)
def test_each_answer_has_its_outcome(answer: HttpReply, outcome: Outcome) -> None:
    assert judge(answer, "key-1", OPENED) == outcome


@pytest.mark.parametrize(
    ("content", "is_disabled"),
    [(BAD_KEY, True), (BAD_EVENT, False), (b"routing_key", False), (b'{"errors":null}', False), (b"[1]", False)],
)
def test_a_refused_event_breaks_the_channel_only_for_its_key(content: bytes, *, is_disabled: bool) -> None:
    outcome = judge(HttpReply(400, {}, content), "key-1", OPENED)

    assert isinstance(outcome, Permanent)
    assert (outcome.code, outcome.disable) == ("400", is_disabled)


async def test_open_repeat_and_recovery_are_one_alert(tmp_path: Path) -> None:
    with ledger_peer(tmp_path) as peer:
        settings = Settings(pagerduty_url=peer.url)
        outbound = OutboundClient(settings)
        told = [
            message(),
            message(is_first=False, step=3, repeat=1, title="STILL DOWN: Nightly Export"),
            message(kind="resolve", incident=incident(resolution="checkin")),
        ]

        outcomes = [await PagerDutySender().send(each, CONFIG, context(settings, outbound=outbound)) for each in told]
        await outbound.aclose()

        arrived = await peer.arrived("/v2/enqueue", 3)
    assert outcomes == [Sent(INCIDENT)] * 3
    assert [(record.json["event_action"], record.json["dedup_key"]) for record in arrived] == [
        ("trigger", INCIDENT),
        ("trigger", INCIDENT),
        ("resolve", INCIDENT),
    ]


async def test_a_test_is_resolved_at_once_and_tells_how_its_trigger_went(tmp_path: Path) -> None:
    with ledger_peer(tmp_path) as peer:
        settings = Settings(pagerduty_url=peer.url)
        outbound = OutboundClient(settings)
        await asyncio.to_thread(peer.script, "pagerduty", {"status": 202}, {"status": 500})

        outcome = await PagerDutySender().send(probe(), CONFIG, context(settings, outbound=outbound))
        await outbound.aclose()

        arrived = await peer.arrived("/v2/enqueue", 2)
    assert outcome == Sent(f"test-{NOTIFICATION}")
    assert [(record.json["event_action"], record.json["dedup_key"]) for record in arrived] == [
        ("trigger", f"test-{NOTIFICATION}"),
        ("resolve", f"test-{NOTIFICATION}"),
    ]


async def test_a_refused_test_is_not_resolved(tmp_path: Path) -> None:
    with ledger_peer(tmp_path) as peer:
        settings = Settings(pagerduty_url=peer.url)
        outbound = OutboundClient(settings)
        await asyncio.to_thread(peer.script, "pagerduty", {"status": 403})

        outcome = await PagerDutySender().send(probe(), CONFIG, context(settings, outbound=outbound))
        await outbound.aclose()

        assert isinstance(outcome, Permanent)
        assert len(await asyncio.to_thread(peer.requests, "/v2/enqueue")) == 1
