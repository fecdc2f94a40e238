"""Bots on pages: what is seen of them, what people do with them, and what they are told that they cannot."""

import re
from typing import Any

import httpx2
import pytest
from sqlalchemy import Connection

from lifesign.clock import EpochMs
from lifesign.projects import service as projects
from lifesign.projects.service import Order
from tests.bots.asking import asked, bot, configured, read, settings
from tests.bots.asking_runs import PULL, beaten, claimed, finished, scheduled, triggered, worked
from tests.harness import Json, Lifesign
from tests.web.browser import Browser, executed_by, said, signed_up

MARKUP = "<script>alert(1)</script>"
HOURS: dict[str, Any] = {"active_hours_start": "09:00", "active_hours_end": "17:00"}


async def at_work(lifesign: Lifesign) -> tuple[Json, Json]:
    """A run that is going on, as its worker sees it, and its schedule."""
    made = await scheduled(lifesign)
    await triggered(lifesign, made)
    run = await claimed(lifesign)
    assert run is not None
    return run, made


async def of_bot(lifesign: Lifesign, made: Json) -> Json:
    """The bot of a schedule."""
    told: Json = (await asked(lifesign, "GET", "/read", bot_id=made["bot_id"]))["bot"]
    return told


def place(made: Json) -> str:
    """Where a schedule has its deeds."""
    return f"/bots/{made['bot_id']}/schedules/{made['uuid']}"


# Many ---------------------------------------------------------------------------------------------------------------
async def test_without_bots_the_page_has_the_command_that_makes_one(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)

    page = await owner.get("/bots")

    assert "No bot yet" in page
    assert "lifesign bots create" in page
    assert 'href="/bots/new"' in page
    assert 'aria-current="page">Bots' in page


async def test_bots_are_listed_newest_first_with_the_week_to_come(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    first, second = await bot(lifesign, "First"), await bot(lifesign, "Second", heartbeat=0)
    await configured(lifesign, first["id"], enabled=True, cron_pattern="0 9 * * *")

    page = await owner.get("/bots")

    assert page.index(second["uuid"]) < page.index(first["uuid"])
    text = said(page)
    assert "switched off Second" in text
    assert "1 of 1" in text
    assert "by cron 0 9 * * *, UTC" in text
    assert len(re.findall(r'class="day"', page)) == 7
    assert text.count(" 09:00") >= 6


async def test_the_stop_switch_stops_the_bots_with_a_reason_and_lets_them_run_again(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    run, _ = await at_work(lifesign)
    await owner.get("/bots")

    await owner.post("/bots/stop", {"reason": f"Odd {MARKUP}", "cancel_running": "on"})

    stopped = await owner.get("/bots")
    assert "Odd &lt;script&gt;alert(1)" in stopped
    assert (await settings(lifesign))["stopped"] == 1
    assert (await beaten(lifesign, run))["cancel"] is True
    # On every page, or somebody wonders for a day why nothing runs.
    banner = "Stopped The stop switch of this project's bots is on since 2026-01-05 12:00 UTC"
    assert banner in said(await owner.get("/"))

    await owner.post("/bots/resume")

    assert "stop switch" not in said(await owner.get("/"))
    assert (await settings(lifesign))["stopped"] == 0
    assert "Let them run again" not in await owner.get("/bots")


# One ----------------------------------------------------------------------------------------------------------------
async def test_a_bot_is_made_and_changed_with_a_form(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    await owner.get("/bots/new")
    fields = {
        "name": "Night watch",
        "model": "m1",
        "instruction": "Be brief.",
        "runner": "pull",
        "tools": "now, http_get",
        "status": "on",
        "heartbeat": "on",
    }

    where = await owner.post("/bots/new", fields)
    await owner.get(where + "/edit")
    await owner.post(where + "/edit", fields | {"name": "Day watch", "instruction": "", "heartbeat": "", "tools": ""})

    made = (await asked(lifesign, "GET", "/read", bot_id=where.rpartition("/")[2]))["bot"]
    assert (made["name"], made["model"], made["instruction"]) == ("Day watch", "m1", "")
    assert (made["status"], made["heartbeat"]) == (1, 0)
    assert made["lifesign"]["runner"] == {"kind": "pull"}
    assert made["lifesign"]["tools"] == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": ""}, "Name is required"),
        ({"tools": "nosuch"}, "Tools unknown tool 'nosuch'"),
        ({"max_reply_tokens": "many"}, "Longest reply must be an integer"),
        ({"runner": "http", "url": "http://169.254.169.254/"}, "URL of the runner"),
        ({"runner": "http"}, "URL of the runner is required"),
        ({"tools": "http_get lifesign_status"}, "Tools together these tools read what strangers wrote"),
        ({"provider": "nowhere"}, "Provider unknown provider 'nowhere'"),
    ],
)
async def test_what_is_wrong_with_a_bot_is_told_at_its_field(
    lifesign: Lifesign, wrong: dict[str, str], says: str
) -> None:
    owner = await signed_up(lifesign)
    await owner.get("/bots/new")

    page = await owner.post("/bots/new", {"name": "N", "runner": "builtin"} | wrong, expect=400)

    assert says in said(page)
    assert 'class="fault"' in page
    assert (await asked(lifesign, "GET", "/readall"))["bots"] == []


async def test_the_secret_of_an_http_runner_is_shown_once(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    await owner.get("/bots/new")
    fields = {"name": "N", "runner": "http", "url": "https://runner.example.org/x", "heartbeat": "on"}

    page = await owner.post("/bots/new", fields, expect=200)

    [secret] = re.findall(r"whsec_[\w+/=]+", page)
    [made] = (await asked(lifesign, "GET", "/readall"))["bots"]
    assert secret not in await owner.get(f"/bots/{made['uuid']}")


async def test_a_bot_is_switched_off_and_on(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    made = await scheduled(lifesign)
    await owner.get(f"/bots/{made['bot_id']}")

    await owner.post(f"/bots/{made['bot_id']}/switch")
    off = await read(lifesign, made)
    page = said(await owner.get(f"/bots/{made['bot_id']}"))
    await owner.post(f"/bots/{made['bot_id']}/switch", {"on": "on"})

    assert off["lifesign"]["next_run_at"] is None
    assert "suspended" in page
    assert (await read(lifesign, made))["lifesign"]["next_run_at"] is not None


async def test_a_bot_is_forgotten_or_deleted_only_with_its_name(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    made = await bot(lifesign)
    await owner.get(f"/bots/{made['uuid']}")

    await owner.post(f"/bots/{made['uuid']}/delete", {"name": "Night"}, expect=400)
    await owner.post(f"/bots/{made['uuid']}/reset", {"name": "Night"}, expect=400)
    await owner.post(f"/bots/{made['uuid']}/reset", {"name": "Night watch"})
    assert "Forgot" in await owner.get(f"/bots/{made['uuid']}")
    await owner.post(f"/bots/{made['uuid']}/delete", {"name": "Night watch"})

    await asked(lifesign, "GET", "/read", bot_id=made["uuid"], expect=404)


@pytest.mark.parametrize("path", ["/bots/bot_nosuch", "/bots/7", "/bots/x%00y", "/runs/run_nosuch", "/runs/x"])
async def test_what_there_is_not_is_a_page_that_says_so(lifesign: Lifesign, path: str) -> None:
    owner = await signed_up(lifesign)

    assert "There is no page with this address" in await owner.get(path, expect=404)


async def test_bots_and_runs_of_another_project_are_not_there(lifesign: Lifesign) -> None:
    run, made = await at_work(lifesign)
    other = await lifesign.node.db.write(_other_project, lifesign.now())
    stranger = await signed_up(lifesign, "mallory@example.org", project=other)

    assert made["uuid"] not in await stranger.get("/bots")
    for path in (f"/bots/{made['bot_id']}", f"/runs/{run['run_id']}", place(made) + "/edit"):
        await stranger.get(path, expect=404)
    for path in (place(made) + "/trigger", f"/runs/{run['run_id']}/cancel", f"/bots/{made['bot_id']}/switch"):
        await stranger.post(path, expect=404)


def _other_project(conn: Connection, now: EpochMs) -> str:
    made, _ = projects.create(conn, Order("Lab", 0, tenant_id="research"), now)
    return made.id


# Schedules ----------------------------------------------------------------------------------------------------------
async def test_a_schedule_is_made_and_changed_with_a_form(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    owned = await bot(lifesign)
    path = f"/bots/{owned['uuid']}/schedules/new"
    await owner.get(path)
    fields = {"prompt": "Look.", "when": "interval", "interval_minutes": "60", "enabled": "on"} | HOURS
    fields |= {"credit_budget": "12.5", "timeout_seconds": "90", "mode": "errors", "overlap": "queue_one"}

    await owner.post(path, fields)
    [made] = (await asked(lifesign, "GET", "/heartbeat/readall", bot_id=owned["id"]))["heartbeats"]
    await owner.get(place(made) + "/edit")
    await owner.post(place(made) + "/edit", fields | {"when": "cron", "cron_pattern": "0 9 * * *", "credit_budget": ""})

    after = await read(lifesign, made)
    assert (made["interval_minutes"], made["active_hours_start"], made["credit_budget"]) == (60, "09:00", 12.5)
    assert made["lifesign"]["limits"]["timeout_seconds"] == 90
    assert (made["lifesign"]["notify"]["mode"], made["lifesign"]["overlap"]) == ("errors", "queue_one")
    assert (after["uuid"], after["cron_pattern"], after["interval_minutes"]) == (made["uuid"], "0 9 * * *", None)
    assert (after["active_hours_start"], after["credit_budget"], after["enabled"]) == (None, None, 1)


async def test_a_form_that_is_sent_as_it_is_changes_nothing(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    hook = await lifesign.webhook("http://127.0.0.1:1/x")
    policy = await lifesign.policy({"channels": [hook["id"]]})
    extra = {
        "jitter_seconds": 30,
        "session": "run",
        "limits": {"max_requests": 3, "max_credits_per_run": 2.5, "min_run_credits": 0.5, "max_tool_calls": 0},
        "notify": {"channels": [hook["id"]], "cooldown_seconds": 60, "mode": "always"},
        "precheck": {"url": "http://127.0.0.1:1/check", "on_error": "error"},
        "tools": [],
        "retry_lost": True,
        "catch_up_window_seconds": 600,
        "watch": {"policy": policy["id"], "grace_seconds": 45, "errors": True},
    }
    made = await scheduled(lifesign, interval_minutes=90, active_days="1,3", credit_budget=3, lifesign=extra, **HOURS)
    before = await read(lifesign, made)
    page = await owner.get(place(made) + "/edit")

    await owner.post(place(made) + "/edit", _form_in(page))

    assert await read(lifesign, made) == before


async def test_the_less_usual_of_a_schedule_is_set_and_unset_with_its_form(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    hook = await lifesign.webhook("http://127.0.0.1:1/x")
    policy = await lifesign.policy({"channels": [hook["id"]]})
    owned = await bot(lifesign, lifesign={"tools": ["now"]})
    path = f"/bots/{owned['uuid']}/schedules/new"
    await owner.get(path)
    fields = {
        "prompt": "Look.",
        "when": "interval",
        "member_id": "customer 7",
        "tools": "none",
        "url": "http://127.0.0.1:1/check",
        "on_error": "error",
        "catch_up_window_seconds": "600",
        "max_requests": "4",
        "max_tool_calls": "0",
        "max_output_tokens": "900",
        "min_run_credits": "0.5",
        "cooldown_seconds": "60",
        f"channel-{hook['id']}": "on",
        "retry_lost": "on",
        "policy": policy["id"],
        "grace_seconds": "45",
    }

    await owner.post(path, fields)
    [made] = (await asked(lifesign, "GET", "/heartbeat/readall", bot_id=owned["id"]))["heartbeats"]
    page = await owner.get(place(made) + "/edit")
    unset = {"url": "", "tools": "", "catch_up_window_seconds": "", "retry_lost": "", "policy": ""}
    await owner.post(place(made) + "/edit", _form_in(page) | unset | {f"channel-{hook['id']}": ""})
    emptied = await owner.get(place(made) + "/edit")
    blank = dict.fromkeys(("max_requests", "max_tool_calls", "max_output_tokens", "min_run_credits"), "")
    await owner.post(
        place(made) + "/edit", _form_in(emptied) | blank | {"tells": "project", "cooldown_seconds": "", "mode": ""}
    )

    told, after = made["lifesign"], (await read(lifesign, made))["lifesign"]
    assert isinstance(made["member_id"], int)
    assert '<option value="own" selected>' in emptied
    assert (after["notify"], after["limits"]) == ({}, {})
    assert (told["tools"], told["retry_lost"], told["catch_up_window_seconds"]) == ([], True, 600)
    assert told["precheck"] == {"url": "http://127.0.0.1:1/check", "on_error": "error"}
    limits = {name: told["limits"][name] for name in ("max_requests", "max_tool_calls", "max_output_tokens")}
    assert limits == {"max_requests": 4, "max_tool_calls": 0, "max_output_tokens": 900}
    assert told["limits"]["min_run_credits"] == 0.5
    assert (told["notify"]["channels"], told["notify"]["cooldown_seconds"]) == ([hook["id"]], 60)
    assert told["watch"] == {"policy": policy["id"], "grace_seconds": 45, "errors": False}
    assert f"Of the member {told['member_uuid']}, which stays" in said(page)
    assert (after["tools"], after["precheck"], after["retry_lost"], after["watch"]) == (None, None, False, None)
    assert after["member_uuid"] == told["member_uuid"]


def _form_in(page: str) -> dict[str, str]:
    """What a browser would send of the first form in the main part of a page."""
    form = re.search(r'<form class="panel".*?</form>', page, re.DOTALL)
    assert form is not None
    fields = {}
    for tag in re.findall(r"<input[^>]*>", form[0]):
        attributes = dict(re.findall(r'(\w+)="([^"]*)"', tag))
        if attributes.get("type") != "checkbox" or " checked" in tag:
            fields[attributes["name"]] = attributes.get("value", "")
    fields |= dict(re.findall(r'<textarea[^>]* name="(\w+)"[^>]*>(.*?)</textarea>', form[0], re.DOTALL))
    for name, options in re.findall(r'<select[^>]* name="(\w+)"[^>]*>(.*?)</select>', form[0], re.DOTALL):
        values = re.findall(r'value="([^"]*)"( selected)?', options)
        fields[name] = next((value for value, chosen in values if chosen), values[0][0])
    return fields


async def test_the_next_slots_are_shown_before_anything_is_kept(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    owned = await bot(lifesign)
    path = f"/bots/{owned['uuid']}/schedules/new"
    await owner.get(path)
    fields = {"when": "cron", "cron_pattern": "0 9 * * *", "timezone": "Europe/Berlin", "preview": "1"}

    page = await owner.post(path, fields, expect=200)
    wrong = await owner.post(path, fields | {"cron_pattern": "0 0 31 2 *"}, expect=400)

    assert page.count("09:00:00 CE") == 10
    assert "Cron is not understood: bad day-of-month" in said(wrong)
    assert (await asked(lifesign, "GET", "/heartbeat/readall", bot_id=owned["id"]))["heartbeats"] == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"prompt": " "}, "Prompt is required"),
        ({"prompt": "Look at the error log."}, "Prompt another schedule of this bot has it"),
        ({"interval_minutes": "0"}, "Minutes must be"),
        ({"active_hours_start": "09:00"}, "Active until active_hours_start and active_hours_end go together"),
        ({"active_days": "Mon"}, "Days must be numbers from 1 (Monday) to 7"),
        ({"when": "cron"}, "Cron "),
        ({"timezone": "Mars/Base"}, "Time zone unknown time zone 'Mars/Base'"),
        ({"credit_budget": "-1"}, "Budget must be"),
        ({"timeout_seconds": "5"}, "Longest run must be"),
        ({"policy": "pol_nosuch"}, "Policy unknown policy"),
        ({"max_requests": "0"}, "Most requests of a run must be"),
        ({"min_run_credits": "x"}, "Least credits to begin must be"),
        ({"url": "ftp://x"}, "Precheck must begin with"),
        ({"tools": "fly"}, "Tools unknown tool 'fly'"),
        ({"channel-ch_nosuch": "on"}, "unknown channel"),
        ({"catch_up_window_seconds": "1"}, "Catch up within must be"),
        ({"cooldown_seconds": "-1"}, "Same error told again after must be"),
        ({"member_id": "x" * 129}, "Member must"),
    ],
)
async def test_what_is_wrong_with_a_schedule_is_told_at_its_field(
    lifesign: Lifesign, wrong: dict[str, str], says: str
) -> None:
    owner = await signed_up(lifesign)
    made = await scheduled(lifesign)
    path = f"/bots/{made['bot_id']}/schedules/new"
    await owner.get(path)

    page = await owner.post(path, {"prompt": "Other.", "when": "interval"} | wrong, expect=400)

    assert says in said(page)
    assert len((await asked(lifesign, "GET", "/heartbeat/readall", bot_id=made["bot_id"]))["heartbeats"]) == 1


async def test_a_schedule_is_disabled_enabled_and_deleted(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    made = await scheduled(lifesign)
    await owner.get(f"/bots/{made['bot_id']}")

    await owner.post(place(made) + "/disable")
    disabled = await read(lifesign, made)
    page = said(await owner.get(f"/bots/{made['bot_id']}"))
    await owner.post(place(made) + "/enable")
    enabled = await read(lifesign, made)
    await owner.post(place(made) + "/delete", {"name": "no"}, expect=400)
    await owner.post(place(made) + "/delete", {"name": "Night watch"})

    assert (disabled["enabled"], enabled["enabled"]) == (0, 1)
    assert "disabled switched off by a person" in page
    assert (await asked(lifesign, "GET", "/heartbeat/readall", bot_id=made["bot_id"]))["heartbeats"] == []


async def test_the_budget_of_the_period_is_a_bar_and_words(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    made = await scheduled(lifesign, credit_budget=4)
    await triggered(lifesign, made)
    await worked(lifesign, usage={"input_tokens": 3000, "output_tokens": 400, "requests": 1})

    page = await owner.get(f"/bots/{made['bot_id']}")

    assert '<rect class="late" width="170"' in page
    assert "3.4 of 4 credits spent" in said(page)


# Runs ---------------------------------------------------------------------------------------------------------------
async def test_a_run_by_hand_is_followed_on_its_page_to_its_end(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    made = await scheduled(lifesign)
    await owner.get(f"/bots/{made['bot_id']}")

    where = await owner.post(place(made) + "/trigger")
    await owner.get(where)
    run = await claimed(lifesign)
    assert run is not None
    assert where == f"/runs/{run['run_id']}"
    await beaten(lifesign, run, log="Half way.")
    half = said(await owner.get(where))
    usage = {"input_tokens": 1200, "output_tokens": 300, "requests": 2}
    await finished(lifesign, run, response="All quiet.", usage=usage)

    ended = await owner.get(where)
    assert "running" in half
    assert "Half way." in half
    text = said(ended)
    assert "success" in text
    assert "1,200 in, 300 out" in text
    assert "Credits 1.5" in text
    assert "by hand" in text
    assert "All quiet." in text
    assert f'href="/traces/{run["run_id"].removeprefix("run_")}"' in ended
    assert "1,500" in said(await owner.get(f"/bots/{made['bot_id']}"))


async def test_a_run_is_cancelled_on_its_page(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    run, _ = await at_work(lifesign)
    await owner.get(f"/runs/{run['run_id']}")

    await owner.post(f"/runs/{run['run_id']}/cancel")

    assert "is being cancelled" in await owner.get(f"/runs/{run['run_id']}")
    assert (await beaten(lifesign, run))["cancel"] is True


async def test_a_refused_run_says_why(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    made = await scheduled(lifesign, credit_budget=0)
    await owner.get(f"/bots/{made['bot_id']}")

    where = await owner.post(place(made) + "/trigger")
    await claimed(lifesign)

    text = said(await owner.get(where))
    assert "skipped" in text
    assert "budget exhausted" in text
    assert "The budget of this period is used up" in text


async def test_runs_that_ended_are_narrowed_by_their_end(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    made = await scheduled(lifesign)
    ends: dict[str, Any] = {}
    for status in ("success", "error"):
        await triggered(lifesign, made)
        ends[status] = (await worked(lifesign, status=status))["uuid"]

    everything = await owner.get(f"/bots/{made['bot_id']}")
    errors = await owner.get(f"/bots/{made['bot_id']}?status=error&schedule={made['uuid']}")
    odd = await owner.get(f"/bots/{made['bot_id']}?status=nosuch&schedule=x&before=y")

    assert all(each in everything for each in ends.values())
    assert ends["error"] in errors
    assert ends["success"] not in errors
    assert ends["success"] in odd


async def test_nothing_that_strangers_wrote_is_more_than_text(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    hostile = f"{MARKUP}\"'><img src=x onerror=alert(1)>"
    owned = await bot(lifesign, hostile, instruction=hostile, model=hostile[:200], lifesign=PULL)
    made = await configured(lifesign, owned["id"], prompt=hostile, enabled=True)
    await triggered(lifesign, made)
    run = await claimed(lifesign)
    assert run is not None
    await beaten(lifesign, run, log=hostile)
    await finished(lifesign, run, status="error", response=hostile, error_message=hostile)

    paths = ("/bots", f"/bots/{owned['id']}", f"/bots/{owned['id']}/edit", place(made) + "/edit")
    for path in (*paths, f"/runs/{run['run_id']}"):
        page = await owner.get(path)
        assert executed_by(page) == []
        assert "<img src=x" not in page
        assert "&lt;script&gt;alert(1)" in page


async def test_a_run_that_waits_for_nobody_cannot_be_approved(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    run, _ = await at_work(lifesign)
    await owner.get(f"/runs/{run['run_id']}")

    refused = await owner.post(f"/runs/{run['run_id']}/decide", {"decision": "approve"}, expect=409)
    await owner.get("/bots")
    await owner.post(f"/runs/{run['run_id']}/decide", {"decision": "maybe"}, expect=400)

    assert "The run is not waiting for approval" in refused


# Who may what -------------------------------------------------------------------------------------------------------
async def test_a_viewer_sees_all_of_it_and_nothing_to_press(lifesign: Lifesign) -> None:
    viewer: Browser = await signed_up(lifesign, "eve@example.org", "viewer")
    run, made = await at_work(lifesign)
    owned = await of_bot(lifesign, made)

    pages = [await viewer.get(path) for path in ("/bots", f"/bots/{owned['uuid']}", f"/runs/{run['run_id']}")]

    for page in pages:
        assert "Night watch" in page
        assert not re.search(r'<form[^>]*action="/(bots|runs)[^"]*"[^>]*method="post"', page)
        assert not re.search(r'method="post" action="/(bots|runs)', page)
        assert "/edit" not in page
    answer: httpx2.Response = viewer.last
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")
