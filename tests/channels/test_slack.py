import html
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifesign.channels.message import Message
from lifesign.channels.outbound import OutboundClient
from lifesign.channels.sender import HttpReply, Outcome, Permanent, Retry, Sent
from lifesign.channels.slack import SlackSender, build, fitted, judge
from lifesign.settings import Settings
from tests.channels.samples import OPENED, context, heartbeat, incident, message, probe
from tests.peers import vendors
from tests.peers.process import ledger_peer

CONFIG = {"webhookUrl": "https://hooks.slack.test/services/T0/B0/secret"}


def sent(told: Message, **changes: Any) -> Any:  # Any: fields of SendContext; JSON
    return json.loads(build(told, CONFIG, context(**changes)).content)


def test_a_page_has_header_text_facts_and_two_link_buttons() -> None:
    assert sent(message()) == {
        "text": "DOWN: Nightly Export: Nightly Export missed its check-in",
        "blocks": [
            {"type": "header", "text": {"type": "plain_text", "text": "DOWN: Nightly Export", "emoji": False}},
            {
                "type": "section",
                "text": {"type": "mrkdwn", "text": "Nightly Export missed its check-in", "verbatim": True},
            },
            {
                "type": "context",
                "elements": [
                    {"type": "mrkdwn", "text": text, "verbatim": True}
                    for text in (
                        "Project: default",
                        "Heartbeat: nightly-export",
                        "Reason: missed",
                        "Deadline: 2026-03-08T07:00:00.000Z",
                        "Step 1 of 3",
                    )
                ],
            },
            {
                "type": "actions",
                "elements": [
                    {
                        "type": "button",
                        "action_id": "lifesign_ack_link",
                        "text": {"type": "plain_text", "text": "Acknowledge", "emoji": False},
                        "url": "https://lifesign.test/a/token",
                        "style": "primary",
                    },
                    {
                        "type": "button",
                        "action_id": "lifesign_details",
                        "text": {"type": "plain_text", "text": "Details", "emoji": False},
                        "url": "https://lifesign.test/incidents/1",
                    },
                ],
            },
        ],
    }


def test_a_recovery_has_nothing_to_acknowledge() -> None:
    actions = sent(message(kind="resolve", incident=incident(resolution="checkin")))["blocks"][-1]

    assert [button["text"]["text"] for button in actions["elements"]] == ["Details"]


def test_without_addresses_there_are_no_buttons() -> None:
    assert [block["type"] for block in sent(message(url=None, ack_url=None))["blocks"]] == [
        "header",
        "section",
        "context",
    ]


def test_a_name_cannot_mention_a_channel() -> None:
    name = "<!channel> & co"
    told = message(title=f"DOWN: {name}", text=f"{name} is late", heartbeat=heartbeat(name=name, namespace=name))

    content = build(told, CONFIG, context()).content.decode()

    assert content.count("&lt;!channel&gt; &amp; co") == 5
    assert "<" not in content
    assert ">" not in content


def test_a_message_that_may_have_arrived_says_so() -> None:
    told = sent(message(), maybe_sent=True)

    assert told["text"] == "DOWN: Nightly Export (possible repeat): Nightly Export missed its check-in"
    assert told["blocks"][0]["text"]["text"] == "DOWN: Nightly Export (possible repeat)"


def test_a_step_message_that_looks_like_a_template_is_sent_as_written() -> None:
    assert sent(message(text="{{7*7}} {% if"))["blocks"][1]["text"]["text"] == "{{7*7}} {% if"


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("abc", 3, "abc"),
        ("abcdefgh", 6, "abc..."),
        ("a&b", 7, "a&amp;b"),
        ("a&bc", 7, "a..."),
        ("a<<", 9, "a&lt;&lt;"),
        ("a<<<", 9, "a&lt;..."),
    ],
)
def test_a_text_is_cut_outside_entities(text: str, limit: int, expected: str) -> None:
    assert fitted(text, limit) == expected


@given(st.text(alphabet="ab&<>", max_size=40), st.integers(min_value=3, max_value=30))
def test_a_cut_text_is_within_its_limit_and_reads_as_its_beginning(text: str, limit: int) -> None:
    cut = fitted(text, limit)

    assert len(cut) <= limit
    assert html.unescape(cut) == text or text.startswith(html.unescape(cut.removesuffix("...")))


@given(
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300),
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=4000),
)
def test_slack_accepts_whatever_a_message_says(title: str, text: str) -> None:
    request = build(message(title=f"DOWN: {title}", text=text), CONFIG, context(maybe_sent=True))

    assert vendors.slack(request.headers, request.content).status == 200


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (HttpReply(200, {}, b"ok"), Sent()),
        (HttpReply(200, {}, b"o", is_whole=False), Sent()),
        (
            HttpReply(200, {}, b"no_text"),
            Permanent("expected ok, got: no_text", "unexpected_body", http_status=200),
        ),
        (HttpReply(400, {}, b"invalid_payload"), Permanent("invalid_payload", "400", http_status=400)),
        (
            HttpReply(403, {}, b"action_prohibited"),
            Permanent("action_prohibited", "403", disable=True, http_status=403),
        ),
        (HttpReply(404, {}, b"no_service"), Permanent("no_service", "404", disable=True, http_status=404)),
        (
            HttpReply(410, {}, b"channel_is_archived"),
            Permanent("channel_is_archived", "410", disable=True, http_status=410),
        ),
        (HttpReply(429, {"retry-after": "30"}, b""), Retry("answered with status 429", "429", 30_000, 429)),
        (HttpReply(503, {}, b""), Retry("answered with status 503", "503", http_status=503)),
        (HttpReply(302, {}, b""), Permanent("redirect is not followed", "302", http_status=302)),
    ],
)
def test_each_answer_has_its_outcome(answer: HttpReply, outcome: Outcome) -> None:
    assert judge(answer, OPENED) == outcome


async def test_a_page_and_a_test_are_accepted_and_called_at_is_committed_first(tmp_path: Path) -> None:
    settings = Settings(allow_private_targets=True)
    outbound = OutboundClient(settings)
    with ledger_peer(tmp_path) as peer:
        arrived_before: list[int] = []

        async def mark_called() -> None:
            arrived_before.append(len(peer.requests("/slack/ops")))

        for told in (message(), probe()):
            outcome = await SlackSender().send(
                told,
                {"webhookUrl": f"{peer.url}/slack/ops"},
                context(settings, outbound=outbound, mark_called=mark_called),
            )
            assert outcome == Sent()
        await outbound.aclose()

        assert arrived_before == [0, 1]
        arrived = await peer.arrived("/slack/ops", 2)
    assert arrived[0].headers["content-type"] == "application/json; charset=utf-8"
    assert arrived[1].json["text"] == "Test message from Lifesign: It works."
