"""Channels on pages: a form per type, tests that show the provider's answer, and secrets that stay masked."""

import re
from typing import Any

import pytest

from lifesign.channels.rules import ChannelType
from lifesign.web import channel_forms, charts
from tests.harness import Lifesign
from tests.web.browser import said, signed_up

SLACK = "https://hooks.slack.com/services/T00000000/B00000000/abcdefghijklmnop"
KEY = "R0123456789ABCDEFGHIJKLMNOPQRSTU"


@pytest.mark.parametrize(
    ("kind", "fields", "config"),
    [
        ("email", {"to": "a@example.org\n\n b@example.org "}, {"to": ["a@example.org", "b@example.org"]}),
        ("slack", {"webhookUrl": SLACK}, {"webhookUrl": "https://hooks.slack.com/****mnop"}),
        ("pagerduty", {"routingKey": KEY, "severity": "error"}, {"routingKey": "****RSTU", "severity": "error"}),
        ("sms", {"to": "+15550100200"}, {"to": ["+15550100200"]}),
    ],
)
async def test_each_type_has_a_form_of_its_own(
    lifesign: Lifesign, kind: str, fields: dict[str, str], config: dict[str, Any]
) -> None:
    owner = await signed_up(lifesign)
    assert f"/channels/new?type={kind}" in await owner.get("/channels/new")
    await owner.get(f"/channels/new?type={kind}")

    place = await owner.post("/channels/new", {"type": kind, "name": "Ops"} | fields)

    [made] = (await lifesign.ask("GET", "/v1/channels"))["channels"]
    assert (made["type"], made["config"]) == (kind, config)
    assert place == f"/channels/{made['id']}"
    page = await owner.get(place)
    assert SLACK not in page
    assert KEY not in page


async def test_the_secret_of_a_webhook_is_shown_once_and_stays_when_its_mask_is_sent_back(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    await owner.get("/channels/new?type=webhook")
    fields = {"type": "webhook", "name": "Hook", "url": "http://127.0.0.1:9/x", "headers": "X-Team: ops-0123456789"}

    first = await owner.post("/channels/new", fields, expect=200)

    secret = re.search(r"whsec_[A-Za-z0-9+/=]{44}", first)
    assert secret is not None
    [made] = (await lifesign.ask("GET", "/v1/channels"))["channels"]
    path = f"/channels/{made['id']}"
    form = await owner.get(f"{path}/edit")
    assert secret[0] not in form
    assert secret[0] not in await owner.get(path)
    assert "X-Team: ****6789" in form
    masked = re.search(r'name="secret" type="text" value="([^"]+)"', form)
    assert masked is not None

    kept = {"name": "Hook", "url": "http://127.0.0.1:9/y", "secret": masked[1], "headers": "X-Team: ****6789"}
    await owner.post(f"{path}/edit", kept)

    same = {"config": {"url": "http://127.0.0.1:9/y", "secret": secret[0], "headers": {"X-Team": "ops-0123456789"}}}
    assert await lifesign.ask("POST", f"/v1/channels/{made['id']}/compare", same) == {"equal": True}


@pytest.mark.parametrize(
    ("kind", "fields", "told"),
    [
        ("email", {"to": "nobody"}, "Addresses must be an e-mail address"),
        ("email", {"to": ""}, "Addresses is required"),
        ("slack", {"webhookUrl": "ftp://example.org"}, "Webhook URL "),
        ("webhook", {"url": "http://example.org/", "headers": "Host: x"}, "Headers must not set Host"),
        ("pagerduty", {"routingKey": "short"}, "Integration Key must be 32 letters and digits"),
        ("sms", {"to": "0123"}, "Phone numbers must be a number like +15550100200"),
        ("sms", {"to": "+15550100200", "name": ""}, "Name "),
    ],
)
async def test_a_refused_form_says_what_is_wrong_where_it_stands(
    lifesign: Lifesign, kind: str, fields: dict[str, str], told: str
) -> None:
    owner = await signed_up(lifesign)
    await owner.get(f"/channels/new?type={kind}")

    page = await owner.post("/channels/new", {"type": kind, "name": "Ops"} | fields, expect=400)

    assert told in said(page)
    assert (await lifesign.ask("GET", "/v1/channels"))["channels"] == []


async def test_a_test_shows_what_the_provider_said(lifesign: Lifesign, closed_port: int) -> None:
    hook = await lifesign.webhook(f"http://127.0.0.1:{closed_port}/x")
    owner = await signed_up(lifesign)
    await owner.get(f"/channels/{hook['id']}")

    page = said(await owner.post(f"/channels/{hook['id']}/test", expect=200))

    assert re.search(r"The test refused after \d+ ms connect", page)
    assert re.search(r"Last messages Test ?: dead", page)
    for _ in range(9):
        await owner.post(f"/channels/{hook['id']}/test", expect=200)
    assert "This channel was tested too often: try again in" in said(
        await owner.post(f"/channels/{hook['id']}/test", expect=200)
    )


async def test_delivery_of_the_last_days_is_counted_without_tests(lifesign: Lifesign, closed_port: int) -> None:
    hook = await lifesign.webhook(f"http://127.0.0.1:{closed_port}/x")
    policy = await lifesign.policy({"channels": [hook["id"]]})
    made = await lifesign.heartbeat("Silent", policy=policy["id"])
    owner = await signed_up(lifesign)
    assert "no messages" in said(await owner.get("/channels"))
    await lifesign.check_in(made["id"], healthy=False)
    await lifesign.advance(25 * 3600)

    page = said(await owner.get(f"/channels/{hook['id']}"))

    assert "0 % of 1" in page
    assert "Used by Standard policy" in page
    assert re.search(r"Last messages Page ?: dead", page)
    assert "0 % of 1" in said(await owner.get("/channels"))
    await lifesign.advance(8 * 86_400)
    assert "no messages" in said(await owner.get("/channels"))


async def test_deleting_asks_for_the_name(lifesign: Lifesign, closed_port: int) -> None:
    hook = await lifesign.webhook(f"http://127.0.0.1:{closed_port}/x")
    await lifesign.policy({"channels": [hook["id"]]})
    owner = await signed_up(lifesign)
    path = f"/channels/{hook['id']}"
    await owner.get(path)

    await owner.post(f"{path}/delete", {"name": "Hook"}, expect=400)
    assert await owner.post(f"{path}/delete", {"name": "hook"}) == "/channels"

    [policy] = (await lifesign.ask("GET", "/v1/policies"))["policies"]
    assert policy["steps"] == [{"channels": []}]
    await owner.get(path, expect=404)


# Pure ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("email", {"to": ["a@example.org", "b@example.org"]}),
        ("webhook", {"url": "http://x/", "headers": {"A": "1: 2", "B": ""}}),
        ("pagerduty", {"routingKey": KEY, "severity": "info"}),
    ],
)
def test_settings_survive_the_form(kind: ChannelType, config: dict[str, Any]) -> None:
    assert channel_forms.config_of(kind, channel_forms.fields_of(kind, config)) == config


def test_bars_stand_on_each_other_and_say_what_they_are() -> None:
    chart = charts.bars([("Mon", {"good": 3, "bad": 1}), ("Tue", {})], {"good": "alive", "bad": "firing"}, "Two days")

    assert [(bar.look, bar.x, bar.y, bar.height, bar.words) for bar in chart.bars] == [
        ("alive", 3, 15.0, 33.0, "Mon: 3 good"),
        ("firing", 3, 4.0, 11.0, "Mon: 1 bad"),
    ]
    assert chart.rows == [("Mon", "3", "1"), ("Tue", "0", "0")]
