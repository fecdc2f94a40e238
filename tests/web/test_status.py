"""Public status pages: off unless switched on, nothing but what was chosen, and RSS that a reader can read."""

import re
from datetime import date
from xml.etree import ElementTree as ET

import pytest

from lifesign.heartbeats.past import Day
from lifesign.web.status import up_share
from tests.conftest import database_url
from tests.harness import Lifesign
from tests.web.browser import Browser, browser, executed_by, said, signed_up

__all__ = ["database_url"]

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


async def status_page(lifesign: Lifesign, *members: str, **fields: str) -> Browser:
    """A status page `shop` that is on, unless said otherwise; its owner's browser."""
    owner = await signed_up(lifesign)
    await owner.get("/settings/status/new")
    form = {"title": "Shop", "slug": "shop", "description": "", "members": "\n".join(members), "is_on": "on"}
    assert await owner.post("/settings/status/new", form | fields) == "/settings#status"
    return owner


async def test_everybody_sees_what_was_chosen_and_nothing_else(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Checkout", interval=60, grace=0)
    await lifesign.heartbeat("Internal secret job")
    system = (await lifesign.ask("POST", "/api/systems", {"name": "db1"}, expect=201))["data"]
    await lifesign.check_in("checkout")
    await status_page(lifesign, system["key"], "checkout", description="Our shop.\nAll of it.")
    stranger = browser(lifesign)

    page = await stranger.get("/status/shop")

    told = said(page)
    assert "Shop Our shop. All of it. Everything works" in told
    assert told.index("db1 not started yet") < told.index("Checkout working")
    assert "Internal secret job" not in page
    assert "Nothing in the last 90 days." in told
    assert re.findall(r'<form method="post" action="([^"]+)"', page) == ["/zone", "/theme"]


async def test_an_outage_is_told_while_it_lasts_and_afterwards(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Checkout", interval=60, grace=0)
    await lifesign.check_in("checkout")
    await status_page(lifesign, "checkout")
    stranger = browser(lifesign)
    await lifesign.advance(61)

    during = said(await stranger.get("/status/shop"))
    await lifesign.ask("POST", "/v1/heartbeats/checkout/ack", {"message": "internal words"})
    await lifesign.advance(10)
    await lifesign.check_in("checkout")
    await lifesign.advance(10)
    after = said(await stranger.get("/status/shop"))

    assert "Something is down" in during
    assert "Checkout missed its check-in 2026-01-05 12:01 UTC It is not over." in during
    assert "Everything works" in after
    assert "1 with an outage" in after
    assert "internal words" not in after


async def test_a_page_that_is_off_is_not_there(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Checkout")
    owner = await status_page(lifesign, "checkout", is_on="")

    for path in ("/status/shop", "/status/shop/rss.xml", "/status/nothing"):
        await browser(lifesign).get(path, expect=404)

    settings = await owner.get("/settings")
    assert "off Shop /status/shop 1" in said(settings)
    path = settings[settings.index("/settings/status/sp_") :].partition('"')[0]
    form = {"title": "Shop", "slug": "shop-2", "description": "", "members": "checkout", "is_on": "on"}
    await owner.get(path)
    await owner.post(path, form)
    await browser(lifesign).get("/status/shop-2")
    await owner.post(path.replace("/edit", "/delete"), {"name": "shop"}, expect=400)
    await owner.post(path.replace("/edit", "/delete"), {"name": "Shop"})
    await browser(lifesign).get("/status/shop-2", expect=404)


async def test_the_feed_has_an_item_for_each_beginning_and_each_end(lifesign: Lifesign) -> None:
    await lifesign.heartbeat(HOSTILE, slug="checkout", interval=60, grace=0)
    await lifesign.check_in("checkout")
    await status_page(lifesign, "checkout", title=HOSTILE)
    await lifesign.advance(61)
    await lifesign.check_in("checkout")
    stranger = browser(lifesign)

    feed = ET.fromstring(await stranger.get("/status/shop/rss.xml"))  # noqa: S314 - written by ourselves

    assert stranger.last.headers["content-type"].startswith("application/rss+xml")
    assert feed.findtext("channel/title") == HOSTILE
    assert feed.findtext("channel/link") == "http://lifesign.test/status/shop"
    items = [(each.findtext("title"), each.findtext("pubDate")) for each in feed.iter("item")]
    moment = "Mon, 05 Jan 2026 12:01:01 GMT"
    assert items == [(f"{HOSTILE}: over", moment), (f"{HOSTILE}: down", "Mon, 05 Jan 2026 12:01:00 GMT")]
    assert executed_by(await stranger.get("/status/shop")) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"title": ""}, "Title "),
        ({"slug": "No Blanks"}, "Address must be 3 to 64 lower-case letters"),
        ({"members": "checkout\nnothing"}, "What it shows unknown heartbeat or system: nothing"),
        ({"members": ""}, "What it shows "),
        ({"slug": "taken"}, "Address is the address of another status page of this server"),
    ],
)
async def test_a_refused_page_is_not_made(lifesign: Lifesign, changes: dict[str, str], told: str) -> None:
    await lifesign.heartbeat("Checkout")
    owner = await status_page(lifesign, "checkout", slug="taken")
    await owner.get("/settings/status/new")
    form = {"title": "Shop", "slug": "shop", "description": "kept", "members": "checkout"}

    page = await owner.post("/settings/status/new", form | changes, expect=400)

    assert told in said(page)
    assert ">kept</textarea>" in page


@pytest.mark.parametrize(
    ("days", "share"),
    [
        ([], ""),
        ([Day(date(2026, 1, 5), "unknown", 0, 0)], ""),
        ([Day(date(2026, 1, 5), "ok", 0, 0)], "100 %"),
        ([Day(date(2026, 1, 5), "ok", 0, 0), Day(date(2026, 1, 6), "down", 1, 1)], "99.999 %"),
        ([Day(date(2026, 1, 5), "down", 86_400, 1)], "0 %"),
    ],
)
def test_the_share_is_rounded_down(days: list[Day], share: str) -> None:
    assert up_share(days) == share
