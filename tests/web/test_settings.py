"""Settings on pages: the fallback channel, retention, maintenance windows; and the banner of every page."""

import re

import pytest
from sqlalchemy import Connection, update

from lifesign.clock import EpochMs
from lifesign.db.schema import channels, engine_state
from lifesign.maintenance.rules import Window
from lifesign.projects import service as projects
from lifesign.projects.service import Order
from lifesign.web import window_forms
from tests.bots.asking import asked, bot
from tests.harness import Json, Lifesign, MakeLifesign
from tests.web.browser import said, signed_up

_ONCE = {
    "name": "Move",
    "when": "once",
    "startsAt": "2026-01-05T20:00",
    "endsAt": "2026-01-05T23:30",
    "timezone": "Europe/Berlin",
    "whom": "all",
}
_AGAIN = {
    "name": "Reboot",
    "when": "again",
    "schedule": "0 3 * * SUN",
    "duration": "1h",
    "timezone": "Europe/Berlin",
    "whom": "tags",
    "members": "db\nweb",
}


async def test_the_fallback_channel_and_the_alert_are_chosen_and_taken_away(
    lifesign: Lifesign, closed_port: int
) -> None:
    hook = await lifesign.webhook(f"http://127.0.0.1:{closed_port}/x")
    policy = await lifesign.policy({"channels": [hook["id"]]})
    owner = await signed_up(lifesign)
    await owner.get("/settings")

    await owner.post("/settings", {"fallback": hook["id"], "alert": policy["id"], "severity": "medium"})
    assert await lifesign.ask("GET", "/v1/settings") == {
        "fallbackChannel": hook["id"],
        "diagnosisAlert": {"policy": policy["id"], "severity": "medium"},
    }
    viewer = await signed_up(lifesign, "eve@example.org", "viewer")
    assert "Fallback channel hook Bad diagnosis Standard, from medium on" in said(await viewer.get("/settings"))

    await owner.post("/settings", {"fallback": "", "alert": "", "severity": "high"})
    assert "fallbackChannel" not in await lifesign.ask("GET", "/v1/settings")
    page = await owner.post("/settings", {"fallback": "ch_0", "alert": ""}, expect=400)
    assert "Fallback channel unknown channel" in said(page)


async def test_plan_budgets_and_limits_of_bots_are_set_with_a_form(lifesign: Lifesign) -> None:
    hook = await lifesign.webhook("http://127.0.0.1:1/x")
    owner = await signed_up(lifesign)
    await owner.get("/settings")
    typed = {
        "plan": "pro",
        "budget_period": "week",
        "billing_timezone": "Europe/Berlin",
        "default_model": "m-1",
        "max_concurrent_runs": "3",
        "max_runs_per_hour": "",
        f"channel-{hook['id']}": "on",
    }

    await owner.post("/settings/bots", typed)
    first = (await lifesign.ask("GET", "/v1/bot/settings?project_id=default"))["settings"]
    page = await owner.get("/settings")
    viewer = said(await (await signed_up(lifesign, "eve@example.org", "viewer")).get("/settings"))
    await owner.post("/settings/bots", {"default_model": ""})
    second = (await lifesign.ask("GET", "/v1/bot/settings?project_id=default"))["settings"]

    names = ("plan", "budget_period", "billing_timezone", "default_model", "max_concurrent_runs", "max_runs_per_hour")
    assert [first[name] for name in names] == ["pro", "week", "Europe/Berlin", "m-1", 3, 1000]
    assert first["notify_channels"] == [hook["id"]]
    assert '<option value="pro" selected>' in page
    assert f'name="channel-{hook["id"]}" value="on" checked' in page
    assert "Plan pro Budgets by the week, Europe/Berlin Model of new bots m-1 Runs 3 at once, 1000 in an hour" in viewer
    assert [second[name] for name in names] == ["pro", "week", "Europe/Berlin", None, 3, 1000]
    assert second["notify_channels"] == []


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"plan": "gold"}, "Plan must be one of"),
        ({"budget_period": "year"}, "Budgets are of a must be one of"),
        ({"billing_timezone": "Mars/Base"}, "Time zone of budgets unknown time zone 'Mars/Base'"),
        ({"max_concurrent_runs": "0"}, "Runs at once must be"),
        ({"max_runs_per_hour": "many"}, "Runs in an hour must be"),
        ({"channel-ch_nosuch": "on"}, "unknown channel"),
    ],
)
async def test_refused_settings_of_bots_say_what_is_wrong_and_change_nothing(
    lifesign: Lifesign, wrong: dict[str, str], told: str
) -> None:
    owner = await signed_up(lifesign)
    await lifesign.webhook("http://127.0.0.1:1/x")
    before = await lifesign.ask("GET", "/v1/bot/settings?project_id=default")
    await owner.get("/settings")

    page = await owner.post("/settings/bots", {"default_model": "kept-as-typed"} | wrong, expect=400)

    assert told in said(page)
    assert 'value="kept-as-typed"' in page
    assert await lifesign.ask("GET", "/v1/bot/settings?project_id=default") == before


# Providers, servers of tools, prices ----------------------------------------------------------------------------------
_PROVIDER = {
    "name": "mine",
    "kind": "openai",
    "base_url": "http://127.0.0.1:9/v1",
    "api_key": "sk-0123456789abcdef",
}
_SERVER = {"name": "wiki", "url": "http://127.0.0.1:9/mcp", "headers": "X-Token: s3cret-of-wiki", "private": "on"}
_PRICE = {"model": "a/b m", "input_usd_per_million": "0.25", "output_usd_per_million": "15"}


async def _bot_settings(lifesign: Lifesign) -> Json:
    found: Json = (await lifesign.ask("GET", "/v1/bot/settings?project_id=default"))["settings"]
    return found


async def test_a_provider_is_added_changed_and_removed_and_its_key_is_never_shown(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    form = "/settings/bots/providers"
    await owner.get(f"{form}/new")

    await owner.post(f"{form}/new", _PROVIDER)
    await owner.post(f"{form}/new", {"name": "claude", "kind": "anthropic"})
    listed = await owner.get("/settings")
    edit = await owner.get(f"{form}/edit?of=mine")
    await owner.post(f"{form}/edit?of=mine", _PROVIDER | {"name": "other", "api_key": ""})
    kept = await _bot_settings(lifesign)
    await owner.post(f"{form}/edit?of=mine", _PROVIDER | {"base_url": "http://127.0.0.2/v1", "api_key": ""})
    moved = await _bot_settings(lifesign)
    await owner.post(f"{form}/delete?of=mine", {"name": "claude"}, expect=400)
    await owner.post(f"{form}/delete?of=mine", {"name": "mine"})

    assert "mine openai http://127.0.0.1:9/v1 ****cdef claude anthropic the vendor's none" in said(listed)
    assert "0123456789abcdef" not in listed + edit
    assert [(each["name"], each["api_key"]) for each in kept["providers"]] == [("mine", "****cdef"), ("claude", None)]
    assert moved["providers"][0] == {
        "name": "mine",
        "kind": "openai",
        "base_url": "http://127.0.0.2/v1",
        "api_key": None,
    }
    assert [each["name"] for each in (await _bot_settings(lifesign))["providers"]] == ["claude"]


async def test_a_server_of_tools_keeps_its_headers_until_they_are_forgotten(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    form = "/settings/bots/servers"
    await owner.get(f"{form}/new")

    await owner.post(f"{form}/new", _SERVER)
    edit = await owner.get(f"{form}/edit?of=wiki")
    await owner.post(f"{form}/edit?of=wiki", {"url": _SERVER["url"], "egress": "on"})
    kept = said(await owner.get("/settings"))
    told = await _bot_settings(lifesign)
    await owner.post(f"{form}/edit?of=wiki", {"url": _SERVER["url"], "forgets": "on"})

    assert "s3cret-of-wiki" not in edit
    assert "wiki http://127.0.0.1:9/mcp kept egress" in kept
    assert told["mcp_servers"] == [{"name": "wiki", "url": _SERVER["url"], "labels": ["egress"]}]
    assert "wiki http://127.0.0.1:9/mcp none none of these" in said(await owner.get("/settings"))


async def test_labels_that_make_tools_of_a_bot_dangerous_are_acknowledged_in_the_form(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    form = "/settings/bots/servers"
    await owner.get(f"{form}/new")
    await owner.post(f"{form}/new", {"name": "wiki", "url": _SERVER["url"], "private": "on"})
    tools = {"tools": ["http_get", "mcp:wiki/*"]}
    await asked(lifesign, "POST", "/create", {"name": "Night watch", "lifesign": tools}, expect=400)
    await owner.post(f"{form}/edit?of=wiki", {"url": _SERVER["url"]})
    await bot(lifesign, lifesign=tools)

    page = await owner.post(f"{form}/edit?of=wiki", {"url": _SERVER["url"], "private": "on"}, expect=400)
    await owner.post(f"{form}/edit?of=wiki", {"url": _SERVER["url"], "private": "on", "acknowledges": "on"})

    assert "the tools of 'Night watch'" in said(page)
    assert 'name="acknowledges"' in page
    assert (await _bot_settings(lifesign))["mcp_servers"][0]["labels"] == ["private"]


async def test_a_price_is_added_changed_and_removed(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    form = "/settings/bots/prices"
    await owner.get(f"{form}/new")

    await owner.post(f"{form}/new", _PRICE)
    listed = await owner.get("/settings")
    place = re.search(r'href="(/settings/bots/prices/edit[^"]+)"', listed)
    assert place is not None
    edit = await owner.get(place[1])
    await owner.post(place[1], _PRICE | {"cached_input_usd_per_million": "0.0000001"})
    changed = (await _bot_settings(lifesign))["prices"]
    await owner.post(place[1].replace("edit", "delete"), {"name": "a/b m"})

    assert "a/b m 0.25 15" in said(listed)
    assert 'value="0.25"' in edit
    prices = {"input_usd_per_million": 0.25, "output_usd_per_million": 15, "cached_input_usd_per_million": 1e-7}
    assert changed == [{"model": "a/b m"} | prices]
    assert (await _bot_settings(lifesign))["prices"] == []


@pytest.mark.parametrize(
    ("path", "fields", "told"),
    [
        ("providers/new", {"kind": "openai"}, "Name is required"),
        ("providers/new", _PROVIDER, "Name stands in the list already"),
        ("providers/new", {"name": "default", "kind": "openai"}, "Name must be 1 to 64 letters"),
        ("providers/new", {"name": "x", "kind": "gopher"}, "It speaks must be one of"),
        ("providers/edit?of=mine", {"kind": "openai", "base_url": "ftp://x"}, "Address must begin with"),
        ("servers/new", {"name": "w"}, "Address is required"),
        ("servers/new", _SERVER | {"headers": "X-Token"}, "Headers must have a name, a colon and a value"),
        ("servers/new", _SERVER | {"headers": "Host: x"}, "Headers 'Host' cannot be set"),
        ("prices/new", {"model": "m", "input_usd_per_million": "1"}, "Output is required"),
        ("prices/new", _PRICE | {"output_usd_per_million": "dear"}, "Output must be a number"),
    ],
)
async def test_what_is_wrong_with_an_entry_is_told_at_its_field(
    lifesign: Lifesign, path: str, fields: dict[str, str], told: str
) -> None:
    owner = await signed_up(lifesign)
    await owner.get("/settings/bots/providers/new")
    await owner.post("/settings/bots/providers/new", _PROVIDER)
    before = await _bot_settings(lifesign)

    page = await owner.post(f"/settings/bots/{path}", fields, expect=400)

    assert told in said(page)
    assert not {"0123456789abcdef", "s3cret-of-wiki"} & set(re.split(r"[^\w-]+", page))
    assert await _bot_settings(lifesign) == before


async def test_entries_that_are_not_there_are_not_found(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    await owner.get("/settings")

    for path in ("spoons/new", "providers/edit?of=x", "prices/edit"):
        await owner.get(f"/settings/bots/{path}", expect=404)
        await owner.post(f"/settings/bots/{path}", {"name": "x", "kind": "openai"}, expect=404)
    await owner.post("/settings/bots/servers/delete?of=x", {"name": "x"}, expect=404)


# What is kept, and until when ----------------------------------------------------------------------------------------
async def test_retention_is_told_as_the_server_is_set(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(event_days=17) as lifesign:
        owner = await signed_up(lifesign)

        page = said(await owner.get("/settings"))

    assert "Events other than check-ins 17 days LIFESIGN_EVENT_DAYS" in page
    assert "Audit log 365 days" in page


async def test_a_window_is_announced_in_the_zone_that_was_typed(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    await owner.get("/settings/maintenance/new")

    await owner.post("/settings/maintenance/new", _ONCE)
    await owner.post("/settings/maintenance/new", _AGAIN)

    once, again = (await lifesign.ask("GET", "/v1/maintenance"))["maintenance"]
    assert (once["startsAt"], once["endsAt"], once["all"]) == (
        "2026-01-05T19:00:00.000Z",
        "2026-01-05T22:30:00.000Z",
        True,
    )
    assert (again["schedule"], again["duration"], again["timezone"]) == ("0 3 * * SUN", 3600, "Europe/Berlin")
    assert again["tags"] == ["db", "web"]
    page = said(await owner.get("/settings"))
    assert "to come Move 2026-01-05 19:00 UTC 3h 30m everything" in page
    assert "to come Reboot 2026-01-11 02:00 UTC 0 3 * * SUN , Europe/Berlin 1h tags db web" in page
    await lifesign.advance(8 * 3600)
    assert "open Move until 2026-01-05 22:30 UTC" in said(await owner.get("/settings"))


async def test_a_window_is_changed_and_deleted(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    await owner.get("/settings/maintenance/new")
    await owner.post("/settings/maintenance/new", _ONCE)
    [window] = (await lifesign.ask("GET", "/v1/maintenance"))["maintenance"]
    path = f"/settings/maintenance/{window['id']}"
    form = await owner.get(f"{path}/edit")
    assert 'value="2026-01-05T19:00"' in form

    await owner.post(f"{path}/edit", _AGAIN)
    [window] = (await lifesign.ask("GET", "/v1/maintenance"))["maintenance"]
    assert (window["name"], "startsAt" in window, window["tags"]) == ("Reboot", False, ["db", "web"])
    await owner.post(f"{path}/delete", {"name": "Move"}, expect=400)
    await owner.post(f"{path}/delete", {"name": "Reboot"})

    assert (await lifesign.ask("GET", "/v1/maintenance"))["maintenance"] == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": ""}, "Name "),
        ({"startsAt": ""}, "From is required"),
        ({"endsAt": "2026-01-05T19:00"}, "Until must be after startsAt"),
        ({"startsAt": "soon"}, "From "),
        ({"timezone": "Mars/Olympus"}, "Time zone is not an IANA time zone"),
        ({"when": "again", "schedule": "61 * * * *", "duration": "1h"}, "Schedule "),
        ({"when": "again", "schedule": "0 3 * * *", "duration": "long"}, "Duration must be a duration"),
        ({"whom": "heartbeats", "members": "nobody"}, "Which unknown heartbeat: nobody"),
        ({"whom": "tags", "members": ""}, "Which must have at least one"),
    ],
)
async def test_a_refused_window_says_what_is_wrong(lifesign: Lifesign, changes: dict[str, str], told: str) -> None:
    owner = await signed_up(lifesign)
    await owner.get("/settings/maintenance/new")

    page = said(await owner.post("/settings/maintenance/new", _ONCE | changes, expect=400))

    assert told in page
    assert (await lifesign.ask("GET", "/v1/maintenance"))["maintenance"] == []


def test_what_is_shown_of_a_window_means_the_same_when_it_is_sent_back() -> None:
    window = Window(
        "W", EpochMs(0), EpochMs(3_600_000), None, None, "UTC", "tags", ("a",), "mw_1", "p", EpochMs(0), None
    )

    values = window_forms.values_of({**window_forms.BLANK, **window_forms.fields_of(window)})

    assert values == {
        "name": "W",
        "timezone": "UTC",
        "startsAt": "1970-01-01T00:00:00.000Z",
        "endsAt": "1970-01-01T01:00:00.000Z",
        "tags": ["a"],
    }


# The banner ---------------------------------------------------------------------------------------------------------
async def test_every_page_says_what_nobody_attends_to(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    made = await lifesign.heartbeat("Nobody is told of this")
    assert "Unattended" not in said(await owner.get("/systems"))

    await lifesign.check_in(made["id"], healthy=False)
    await lifesign.advance()

    assert "Unattended One incident is open that nobody looks after." in said(await owner.get("/systems"))
    await lifesign.ask("POST", f"/v1/heartbeats/{made['id']}/ack")
    assert "Unattended" not in said(await owner.get("/systems"))


async def test_every_page_says_which_channels_are_broken_and_when_nobody_listened(
    lifesign: Lifesign, closed_port: int
) -> None:
    hook = await lifesign.webhook(f"http://127.0.0.1:{closed_port}/x")
    owner = await signed_up(lifesign)
    now = lifesign.now()

    def break_both(conn: Connection) -> None:
        conn.execute(update(channels).where(channels.c.id == hook["id"]).values(broken_reason="gone", broken_at=now))
        conn.execute(update(engine_state).values(blind_from=now - 1_260_000, blind_to=now))

    await lifesign.node.db.write(break_both)

    page = said(await owner.get("/account"))
    assert "Broken Messages are lost through hook : the provider refuses them." in page
    assert "Lifesign itself was down from 2026-01-05 11:39 UTC to 2026-01-05 12:00 UTC" in page
    await lifesign.advance(25 * 3600)
    assert "Lifesign itself" not in said(await owner.get("/account"))


async def test_the_banner_is_of_the_project_that_is_shown(lifesign: Lifesign) -> None:
    made = await lifesign.heartbeat("Nobody is told of this")
    await lifesign.check_in(made["id"], healthy=False)
    await lifesign.advance()
    other = await lifesign.node.db.write(_other_project, lifesign.now())
    guest = await signed_up(lifesign, "eve@example.org", "owner", other)

    assert "Unattended" not in said(await guest.get("/"))


def _other_project(conn: Connection, now: EpochMs) -> str:
    made, _ = projects.create(conn, Order("Lab", 0, tenant_id="research"), now)
    return made.id
