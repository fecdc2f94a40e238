"""Ack links: whoever has one may acknowledge one incident, and nothing happens by looking."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from tests.engine.steps import fire, hook, told
from tests.harness import Json, Lifesign, MakeLifesign
from tests.peers.fixtures import ENQUEUE, ROUTING_KEY
from tests.peers.process import LedgerPeer

PUBLIC = "https://lifesign.example"


async def _link(lifesign: Lifesign, ledger: LedgerPeer, slug: str = "job", *, also: str | None = None) -> str:
    """A heartbeat that fires and tells one webhook; the path of the link in its message."""
    channel = await lifesign.webhook(hook(ledger), "ops <b>")
    await lifesign.heartbeat("Nightly & co", slug=slug, channels=[channel["id"], *([also] if also else [])])
    await fire(lifesign, slug)
    url = str(ledger.requests("/hook/ops")[-1].json["data"]["ackUrl"])
    assert url.startswith(f"{PUBLIC}/a/inc_")
    return url.removeprefix(PUBLIC)


@pytest.fixture
async def lifesign(start_lifesign: MakeLifesign) -> AsyncIterator[Lifesign]:
    async with start_lifesign(public_url=PUBLIC) as started:
        yield started


async def test_looking_changes_nothing_and_one_post_acknowledges(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    link = await _link(lifesign, ledger)
    async with lifesign.client(None) as anybody:
        for _ in range(25):
            assert (await anybody.get(link)).status_code == 200
            assert (await anybody.head(link)).status_code == 200
        assert (await lifesign.get("job"))["status"] == "firing"

        answer = await anybody.post(link, data={"message": "on <it>"})
        shown = await anybody.get(link)

    assert (answer.status_code, answer.headers["location"]) == (303, link)
    assert (await lifesign.get("job"))["status"] == "resolved"
    acked = next(each for each in await lifesign.events("job") if each["type"] == "acked")
    assert (acked["metadata"]["actor"], acked["metadata"]["message"]) == ("link:ops <b>", "on <it>")
    assert "Acknowledged at 2026-01-05T12:00:00.000Z by link:ops &lt;b&gt;" in shown.text
    assert "on &lt;it&gt;" in shown.text
    assert "<form" not in shown.text


async def test_the_page_shows_what_it_is_about_and_takes_nothing_from_elsewhere(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    async with lifesign.client(None) as anybody:
        shown = await anybody.get(await _link(lifesign, ledger))

    assert shown.headers["content-type"] == "text/html; charset=utf-8"
    assert "Nightly &amp; co is down" in shown.text
    assert re.findall(r"<form method=\"post\">|<button|<textarea|<script|https?://", shown.text) == [
        '<form method="post">',
        "<textarea",
        "<button",
    ]
    expected = {
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
        "x-robots-tag": "noindex",
        "x-frame-options": "DENY",
    }
    assert {name: shown.headers[name] for name in expected} == expected
    assert "script" not in shown.headers["content-security-policy"]
    assert "default-src 'none'" in shown.headers["content-security-policy"]
    assert "set-cookie" not in shown.headers


async def test_a_second_post_says_who_was_first(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    link = await _link(lifesign, ledger)
    await lifesign.ask("POST", "/v1/heartbeats/job/ack", {"message": "mine"})
    async with lifesign.client(None) as anybody:
        answer = await anybody.post(link)
        shown = await anybody.get(link)

    assert answer.status_code == 303
    assert "key:" in shown.text
    assert len([each for each in await lifesign.events("job") if each["type"] == "acked"]) == 1


async def test_an_incident_that_ended_by_itself_stays_as_it_ended(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    link = await _link(lifesign, ledger)
    await lifesign.check_in("job")
    async with lifesign.client(None) as anybody:
        assert (await anybody.post(link)).status_code == 303
        shown = await anybody.get(link)

    assert "a check-in" in shown.text
    assert (await lifesign.get("job"))["status"] == "active"


async def test_a_link_of_an_older_incident_leaves_the_new_one_open(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    link = await _link(lifesign, ledger)
    await lifesign.check_in("job")
    await fire(lifesign, "job")
    async with lifesign.client(None) as anybody:
        await anybody.post(link)

    assert (await lifesign.get("job"))["status"] == "firing"


@pytest.mark.parametrize("place", [5, 40, 60, -1])
async def test_a_link_with_one_character_changed_does_not_work(
    lifesign: Lifesign, ledger: LedgerPeer, place: int
) -> None:
    link = await _link(lifesign, ledger)
    at = place % len(link)
    changed = link[:at] + ("0" if link[at] != "0" else "1") + link[at + 1 :]
    async with lifesign.client(None) as anybody:
        looked, posted = await anybody.get(changed), await anybody.post(changed)

    assert (looked.status_code, posted.status_code) == (404, 404)
    assert looked.headers["cache-control"] == "no-store"
    assert (await lifesign.get("job"))["status"] == "firing"


async def test_a_link_is_shown_for_a_week_after_the_end(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    link = await _link(lifesign, ledger)
    await lifesign.ask("POST", "/v1/heartbeats/job/pause")
    async with lifesign.client(None) as anybody:
        await lifesign.advance(7 * 86_400)
        assert (await anybody.get(link)).status_code == 200
        await lifesign.advance(1)
        assert (await anybody.get(link)).status_code == 410


async def test_other_verbs_are_refused(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    link = await _link(lifesign, ledger)
    async with lifesign.client(None) as anybody:
        answer = await anybody.delete(link)

    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST")


async def test_one_address_may_ask_sixty_times_a_minute(lifesign: Lifesign) -> None:
    async with lifesign.client(None) as anybody:
        statuses = [(await anybody.get(f"/a/guess-{number}")).status_code for number in range(60)]
        refused = await anybody.get("/a/guess-60")
        await lifesign.advance(60)
        again = await anybody.get("/a/guess-61")

    assert set(statuses) == {404}
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
    assert again.status_code == 404


async def test_two_acknowledgements_at_once_close_the_incident_once(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    body = {"name": "duty", "type": "pagerduty", "config": {"routingKey": ROUTING_KEY}}
    duty = await lifesign.ask("POST", "/v1/channels", body, expect=201)
    link = await _link(lifesign, ledger, also=duty["id"])
    async with lifesign.client(None) as anybody:
        by_link, by_key = await asyncio.gather(
            anybody.post(link), lifesign.http.post("/v1/heartbeats/job/ack", json={})
        )
    await lifesign.advance(1)

    assert by_link.status_code == 303
    assert by_key.status_code in {200, 400}
    assert [kind for _, kind in told(ledger)] == ["incident.opened", "incident.acknowledged"]
    assert [each.json["event_action"] for each in ledger.requests(ENQUEUE)] == ["trigger", "resolve"]
    assert len([each for each in await lifesign.events("job") if each["type"] == "acked"]) == 1


async def test_the_end_of_an_incident_carries_no_link(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await _link(lifesign, ledger)
    await lifesign.check_in("job")
    await lifesign.advance(1)

    ended: Json = ledger.requests("/hook/ops")[-1].json
    assert ended["type"] == "incident.resolved"
    assert "ackUrl" not in ended["data"]


async def test_without_a_public_address_there_is_no_link(start_lifesign: MakeLifesign, ledger: LedgerPeer) -> None:
    async with start_lifesign() as bare:
        channel = await bare.webhook(hook(ledger, "second"))
        await bare.heartbeat(slug="job", channels=[channel["id"]])
        await fire(bare, "job")

    assert "ackUrl" not in ledger.requests("/hook/second")[0].json["data"]


async def test_a_retry_carries_the_same_link(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    ledger.script("ops", {"status": 500})
    channel = await lifesign.webhook(hook(ledger))
    await lifesign.heartbeat(slug="job", channels=[channel["id"]])
    await fire(lifesign, "job")
    await lifesign.advance(10)

    first, second = ledger.requests("/hook/ops")
    assert first.content == second.content
    assert "ackUrl" in first.json["data"]
