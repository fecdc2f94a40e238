"""Bots, schedules, subscribers and settings as callers of the Bots API make, find, change and remove them."""

import asyncio
from typing import Any

import pytest

from lifesign.auth import service as auth
from lifesign.projects import service as projects
from lifesign.projects.service import Order
from tests.bots.asking import PROMPT, asked, bot, configured, key, read, settings, switched
from tests.harness import Json, Lifesign, MakeLifesign


# Bots ---------------------------------------------------------------------------------------------------------------
async def test_a_new_bot_is_shown_whole(lifesign: Lifesign) -> None:
    made = (await asked(lifesign, "POST", "/create", {"name": " Night watch "}))["bot"]

    assert made == {
        "id": 1,
        "uuid": made["uuid"],
        "name": "Night watch",
        "model": None,
        "instruction": None,
        "max_reply_tokens": None,
        "top": None,
        "status": 1,
        "heartbeat": 0,
        "created_at": "2026-01-05T12:00:00.000Z",
        "updated_at": "2026-01-05T12:00:00.000Z",
        "lifesign": {
            "provider": "default",
            "fallback_models": [],
            "credits_per_1k_tokens": 1,
            "runner": {"kind": "builtin"},
            "tools": [],
            "approval_tools": [],
            "telemetry_content": False,
        },
    }
    assert made["uuid"].startswith("bot_")
    for ref in (1, "1", made["uuid"]):
        assert (await asked(lifesign, "GET", "/read", bot_id=ref))["bot"] == made


async def test_an_update_tells_what_changed_and_nothing_else(lifesign: Lifesign) -> None:
    made = await bot(lifesign, heartbeat=0, instruction="Be brief.")
    await lifesign.advance(60)

    on = (await asked(lifesign, "PUT", "/update", {"bot_id": made["id"], "heartbeat": True}))["bot"]
    same = (await asked(lifesign, "PUT", "/update", {"bot_id": made["id"], "instruction": "Be brief."}))["bot"]

    updated = "2026-01-05T12:01:00.000Z"
    assert on == {"id": made["id"], "uuid": made["uuid"], "updated_at": updated, "heartbeat": 1}
    assert same == {"id": made["id"], "uuid": made["uuid"], "updated_at": updated}


async def test_bots_are_listed_newest_first_by_page_and_by_cursor(lifesign: Lifesign) -> None:
    for name in "abcde":
        await bot(lifesign, name)

    second = await asked(lifesign, "GET", "/readall", page=2, per_page=2)
    beyond = await asked(lifesign, "GET", "/readall", page=9)
    names, query = [], dict[str, Any](limit=2)
    while True:
        page = await asked(lifesign, "GET", "/readall", **query)
        names += [each["name"] for each in page["bots"]]
        if "next_cursor" not in page:
            break
        query["cursor"] = page["next_cursor"]

    assert [each["name"] for each in second["bots"]] == ["c", "b"]
    assert second["pagination"] == {"page": 2, "per_page": 2, "total": 5, "total_pages": 3}
    assert beyond["bots"] == []
    assert names == ["e", "d", "c", "b", "a"]


async def test_a_number_is_never_given_twice(lifesign: Lifesign) -> None:
    first = await bot(lifesign)
    await asked(lifesign, "DELETE", "/delete", bot_id=first["id"])

    assert (await bot(lifesign))["id"] == first["id"] + 1
    assert (await asked(lifesign, "GET", "/read", bot_id=first["id"], expect=404))["message"] == "Bot not found"


async def test_a_model_that_is_not_told_is_the_projects_of_that_moment(lifesign: Lifesign) -> None:
    await settings(lifesign, default_model="small")
    made = (await asked(lifesign, "POST", "/create", {"name": "a"}))["bot"]
    await settings(lifesign, default_model="large")

    assert (await asked(lifesign, "GET", "/read", bot_id=made["id"]))["bot"]["model"] == "small"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": " "}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\x00"}, "name"),
        ({"name": "a", "model": 7}, "model"),
        ({"name": "a", "max_reply_tokens": 0}, "max_reply_tokens"),
        ({"name": "a", "max_reply_tokens": True}, "max_reply_tokens"),
        ({"name": "a", "status": 2}, "status"),
        ({"name": "a", "heartbeat": "yes"}, "heartbeat"),
        ({"name": "a", "lifesign": []}, "lifesign"),
        ({"name": "a", "lifesign": {"colour": 1}}, "lifesign.colour"),
        ({"name": "a", "lifesign": {"tools": ["nosuch"]}}, "lifesign.tools"),
        ({"name": "a", "lifesign": {"provider": "nosuch"}}, "lifesign.provider"),
        ({"name": "a", "lifesign": {"runner": {}}}, "lifesign.runner.kind"),
        ({"name": "a", "lifesign": {"runner": {"kind": "http"}}}, "lifesign.runner.url"),
        ({"name": "a", "lifesign": {"runner": {"kind": "http", "url": "ftp://a"}}}, "lifesign.runner.url"),
        ({"name": "a", "lifesign": {"runner": {"kind": "pull", "url": "http://a"}}}, "lifesign.runner.url"),
        ({"name": "a", "lifesign": {"credits_per_1k_tokens": 10_001}}, "lifesign.credits_per_1k_tokens"),
        ({"name": "a", "lifesign": {"fallback_models": ["a", "b", "c", "d"]}}, "lifesign.fallback_models"),
    ],
)
async def test_what_is_wrong_with_a_bot_is_told_by_field(lifesign: Lifesign, body: Any, field: str) -> None:
    told = await asked(lifesign, "POST", "/create", body, expect=400)

    assert told["error"]["field"] == field


async def test_tools_that_could_leak_together_need_somebody_to_agree(lifesign: Lifesign) -> None:
    leaking = ["http_get", "lifesign_status"]
    writer = lifesign.client(await key(lifesign, ["bots:write"]))

    refused = await asked(lifesign, "POST", "/create", {"name": "a", "lifesign": {"tools": leaking}}, expect=400)
    asks = {"tools": leaking, "approval_tools": ["http_get"]}
    assert (await bot(lifesign, lifesign=asks))["lifesign"]["approval_tools"] == ["http_get"]
    agreed = {"name": "a", "lifesign": {"tools": leaking, "acknowledge_trifecta": True}}
    await asked(lifesign, "POST", "/create", agreed, expect=400, client=writer)
    made = await asked(lifesign, "POST", "/create", agreed)

    assert made["bot"]["lifesign"]["acknowledge_trifecta"] is True
    assert refused["error"]["code"] == "trifecta"


async def test_who_made_a_bot_or_a_schedule_stays_who_made_it(lifesign: Lifesign) -> None:
    made = await bot(lifesign, lifesign={"origin": "apply"})
    schedule = await configured(lifesign, made["id"], lifesign={"origin": "apply"})

    sent_back = {"bot_id": made["id"], "lifesign": made["lifesign"] | {"origin": "me", "tools": ["now"]}}
    await asked(lifesign, "PUT", "/update", sent_back)
    again = await configured(lifesign, made["id"], lifesign={"origin": "me", "jitter_seconds": 5})
    by_hand = await bot(lifesign, "by hand")

    shown = (await asked(lifesign, "GET", "/read", bot_id=made["id"]))["bot"]["lifesign"]
    assert (shown["origin"], shown["tools"]) == ("apply", ["now"])
    assert again["uuid"] == schedule["uuid"]
    assert (again["lifesign"]["origin"], again["lifesign"]["jitter_seconds"]) == ("apply", 5)
    assert "origin" not in by_hand["lifesign"]
    wrong = {"name": "a", "lifesign": {"origin": "two\nlines"}}
    refused = await asked(lifesign, "POST", "/create", wrong, expect=400)
    assert refused["error"]["field"] == "lifesign.origin"


async def test_the_secret_of_a_runner_is_shown_once_and_kept_with_its_address(lifesign: Lifesign) -> None:
    runner = {"kind": "http", "url": "https://runner.example.org/jobs"}
    made = await bot(lifesign, lifesign={"runner": runner})
    again = await asked(lifesign, "PUT", "/update", {"bot_id": made["id"], "lifesign": {"runner": runner}})
    moved = {"kind": "http", "url": "https://runner.example.org/other"}
    other = await asked(lifesign, "PUT", "/update", {"bot_id": made["id"], "lifesign": {"runner": moved}})

    assert made["lifesign"]["runner"].pop("secret").startswith("whsec_")
    assert made["lifesign"]["runner"] == runner
    assert "lifesign" not in again["bot"]
    assert "secret" in other["bot"]["lifesign"]["runner"]
    shown = (await asked(lifesign, "GET", "/read", bot_id=made["id"]))["bot"]
    assert shown["lifesign"]["runner"] == moved


# Schedules ----------------------------------------------------------------------------------------------------------
async def test_a_schedule_of_which_only_the_prompt_is_told_is_as_usual(lifesign: Lifesign) -> None:
    owner = await bot(lifesign)

    made = await configured(lifesign, owner["id"], prompt=f"  {PROMPT} ")

    extra = made.pop("lifesign")
    assert made == {
        "uuid": made["uuid"],
        "bot_id": owner["id"],
        "member_id": None,
        "prompt": PROMPT,
        "enabled": 0,
        "interval_minutes": 30,
        "active_hours_start": None,
        "active_hours_end": None,
        "active_days": None,
        "cron_pattern": None,
        "timezone": "UTC",
        "credit_budget": None,
        "credits_used": 0,
        "last_executed_at": None,
        "last_status": None,
        "execution_count": 0,
        "error_count": 0,
        "max_consecutive_errors": 5,
        "created_at": "2026-01-05T12:00:00.000Z",
        "updated_at": "2026-01-05T12:00:00.000Z",
    }
    assert extra["next_run_at"] is None
    assert (extra["period_start"], extra["period_end"]) == ("2026-01-01T00:00:00.000Z", "2026-02-01T00:00:00.000Z")


async def test_the_same_bot_and_prompt_is_the_same_schedule_however_the_bot_is_named(lifesign: Lifesign) -> None:
    owner = await bot(lifesign)
    first = await configured(lifesign, owner["id"], enabled="1")

    again = [await configured(lifesign, ref, timezone="Europe/Berlin") for ref in (str(owner["id"]), owner["uuid"])]
    other = await configured(
        lifesign, owner["id"], prompt="Another", heartbeat_id=first["uuid"], status="paused", name="leftover"
    )

    assert {each["uuid"] for each in again} == {first["uuid"]}
    assert [(each["enabled"], each["timezone"]) for each in again] == [(1, "Europe/Berlin")] * 2
    assert other["uuid"] != first["uuid"]
    assert (await read(lifesign, first))["prompt"] == PROMPT


async def test_of_many_who_configure_the_same_at_once_all_get_one_schedule(lifesign: Lifesign) -> None:
    owner = await bot(lifesign)

    made = await asyncio.gather(*(configured(lifesign, owner["id"], member_id="m-1") for _ in range(8)))

    assert len({each["uuid"] for each in made}) == 1
    assert len((await asked(lifesign, "GET", "/subscriber/readall"))["subscribers"]) == 1


async def test_schedules_of_members_are_kept_apart(lifesign: Lifesign) -> None:
    owner = await bot(lifesign)
    mine = await configured(lifesign, owner["id"], member_id="user-7")
    numbered = await configured(lifesign, owner["id"], member_id=41)
    nobodys = await configured(lifesign, owner["id"])

    assert (mine["member_id"], numbered["member_id"], nobodys["member_id"]) == (1, 41, None)
    assert len({mine["uuid"], numbered["uuid"], nobodys["uuid"]}) == 3
    for ref in ("user-7", 1, "1", mine["lifesign"]["member_uuid"]):
        listed = await asked(lifesign, "GET", "/heartbeat/readall", bot_id=owner["id"], member_id=ref)
        assert [each["uuid"] for each in listed["heartbeats"]] == [mine["uuid"]]
    assert (await asked(lifesign, "GET", "/heartbeat/readall", bot_id=owner["id"], member_id="x"))["heartbeats"] == []
    all_of_it = await asked(lifesign, "GET", "/heartbeat/readall", bot_id=owner["id"], member_id="undefined")
    assert [each["uuid"] for each in all_of_it["heartbeats"]] == [each["uuid"] for each in (mine, numbered, nobodys)]


async def test_an_edit_by_uuid_may_change_the_prompt_and_leaves_the_next_run(lifesign: Lifesign) -> None:
    owner = await bot(lifesign)
    made = await configured(lifesign, owner["id"], enabled=True)
    await configured(lifesign, owner["id"], prompt="Taken")
    await lifesign.advance(60)

    renamed = await configured(
        lifesign, owner["id"], uuid=made["uuid"], prompt="New", interval_minutes=30, timezone="UTC"
    )
    slower = await configured(lifesign, owner["id"], uuid=made["uuid"], prompt=None, interval_minutes=45)
    taken = await configured(lifesign, owner["id"], uuid=made["uuid"], prompt="Taken", expect=400)

    assert (renamed["uuid"], renamed["prompt"]) == (made["uuid"], "New")
    assert renamed["lifesign"]["next_run_at"] == "2026-01-05T12:30:00.000Z"
    assert slower["lifesign"]["next_run_at"] == "2026-01-05T12:46:00.000Z"
    assert taken["error"]["field"] == "prompt"
    for nowhere in ("sch_nowhere", "sch_\0", 7, [1]):
        await configured(lifesign, owner["id"], uuid=nowhere, expect=404)


async def test_cron_and_interval_take_turns(lifesign: Lifesign) -> None:
    owner = await bot(lifesign)
    hours: Json = {"active_hours_start": "09:00", "active_hours_end": "17:00", "active_days": "5,1"}

    made = await configured(lifesign, owner["id"], cron_pattern=" 0 9  * * 1 ")
    interval = await configured(lifesign, owner["id"], interval_minutes="45", **hours)
    daily = await configured(lifesign, owner["id"], cron_pattern="@daily")

    assert (made["cron_pattern"], made["interval_minutes"]) == ("0 9 * * 1", None)
    assert (interval["cron_pattern"], interval["interval_minutes"], interval["active_days"]) == (None, 45, "1,5")
    assert (daily["cron_pattern"], daily["interval_minutes"]) == ("@daily", None)
    assert (daily["active_hours_start"], daily["active_hours_end"], daily["active_days"]) == (None, None, None)


async def test_what_is_null_is_cleared_and_what_is_absent_stays(lifesign: Lifesign) -> None:
    owner = await bot(lifesign)
    hours: Json = {"active_hours_start": "09:00", "active_hours_end": "24:00", "active_days": "1"}
    made = await configured(lifesign, owner["id"], credit_budget=5.5, **hours)

    kept = await configured(lifesign, owner["id"])
    cleared = await configured(
        lifesign, owner["id"], credit_budget=None, active_hours_start=None, active_hours_end=None, active_days=None
    )

    shown = ("credit_budget", "active_hours_start", "active_hours_end", "active_days")
    assert [made[name] for name in shown] == [kept[name] for name in shown] == [5.5, "09:00", "24:00", "1"]
    assert [cleared[name] for name in shown] == [None] * 4


async def test_what_was_chosen_of_limits_and_notices_can_be_taken_back(lifesign: Lifesign) -> None:
    owner = await bot(lifesign)
    chosen: Json = {
        "limits": {"timeout_seconds": 60, "max_requests": 3, "max_credits_per_run": 2, "min_run_credits": 1},
        "notify": {"mode": "always", "channels": [], "cooldown_seconds": 60},
    }
    made = await configured(lifesign, owner["id"], lifesign=chosen)

    nulls = {"limits": {"timeout_seconds": None, "max_credits_per_run": None}, "notify": {"channels": None}}
    some = await configured(lifesign, owner["id"], lifesign=nulls)
    nulls = {"limits": dict.fromkeys(chosen["limits"]), "notify": dict.fromkeys(chosen["notify"])}
    none = await configured(lifesign, owner["id"], lifesign=nulls)

    assert {name: made["lifesign"][name] for name in chosen} == chosen
    assert some["lifesign"]["limits"] == {"max_requests": 3, "min_run_credits": 1}
    assert some["lifesign"]["notify"] == {"mode": "always", "cooldown_seconds": 60}
    assert (none["lifesign"]["limits"], none["lifesign"]["notify"]) == ({}, {})


async def test_a_blank_pattern_is_no_pattern_although_there_is_one_already(lifesign: Lifesign) -> None:
    owner = await bot(lifesign)
    made = await configured(lifesign, owner["id"], cron_pattern="@daily")

    told = await configured(lifesign, owner["id"], cron_pattern="", expect=400)

    assert told["error"]["field"] == "cron_pattern"
    assert (await read(lifesign, made))["cron_pattern"] == "@daily"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": " "}, "prompt"),
        ({"prompt": "x" * 50_001}, "prompt"),
        ({"timezone": "Mars/Base"}, "timezone"),
        ({"interval_minutes": 0}, "interval_minutes"),
        ({"interval_minutes": 1.5}, "interval_minutes"),
        ({"interval_minutes": 44_641}, "interval_minutes"),
        ({"interval_minutes": -5}, "interval_minutes"),
        ({"interval_minutes": "soon"}, "interval_minutes"),
        ({"interval_minutes": 30, "cron_pattern": "@daily"}, "cron_pattern"),
        ({"cron_pattern": "0 0 31 2 *"}, "cron_pattern"),
        ({"cron_pattern": "0 9 * * FRI-MON"}, "cron_pattern"),
        ({"cron_pattern": "0 0 9 * * 1"}, "cron_pattern"),
        ({"cron_pattern": "@daily", "active_days": "1"}, "active_days"),
        ({"active_hours_start": "09:00", "active_hours_end": "09:00"}, "active_hours_end"),
        ({"active_hours_start": "09:00"}, "active_hours_end"),
        ({"active_hours_end": "09:00"}, "active_hours_start"),
        ({"active_hours_start": "9:00", "active_hours_end": "10:00"}, "active_hours_start"),
        ({"active_hours_start": "24:00", "active_hours_end": "10:00"}, "active_hours_start"),
        ({"active_hours_start": "09:00", "active_hours_end": "24:01"}, "active_hours_end"),
        ({"active_days": "1,1"}, "active_days"),
        ({"active_days": ""}, "active_days"),
        ({"active_days": "Mon"}, "active_days"),
        ({"active_days": "0"}, "active_days"),
        ({"active_days": "8"}, "active_days"),
        ({"enabled": "yes"}, "enabled"),
        ({"credit_budget": -1}, "credit_budget"),
        ({"credit_budget": "much"}, "credit_budget"),
        ({"max_consecutive_errors": 1001}, "max_consecutive_errors"),
        ({"member_id": "x" * 129}, "member_id"),
        ({"member_id": []}, "member_id"),
        ({"lifesign": {"colour": 1}}, "lifesign.colour"),
        ({"lifesign": {"overlap": "queue"}}, "lifesign.overlap"),
        ({"lifesign": {"catch_up": "all"}}, "lifesign.catch_up"),
        ({"lifesign": {"jitter_seconds": 3601}}, "lifesign.jitter_seconds"),
        ({"lifesign": {"limits": {"timeout_seconds": 9}}}, "lifesign.limits.timeout_seconds"),
        ({"lifesign": {"notify": {"channels": ["ch_nowhere"]}}}, "lifesign.notify.channels"),
        ({"lifesign": {"precheck": {"url": "http://a", "on_error": "x"}}}, "lifesign.precheck.on_error"),
        ({"lifesign": {"tools": ["http_get"]}}, "lifesign.tools"),
    ],
)
async def test_what_is_wrong_with_a_schedule_is_told_by_field(lifesign: Lifesign, fields: Any, field: str) -> None:
    owner = await bot(lifesign)

    told = await configured(lifesign, owner["id"], expect=400, **fields)

    assert told["error"]["field"] == field
    assert (await asked(lifesign, "GET", "/heartbeat/readall", bot_id=owner["id"]))["heartbeats"] == []


async def test_enabling_counts_from_now_and_disabling_rests(lifesign: Lifesign) -> None:
    made = await configured(lifesign, (await bot(lifesign))["id"])
    await lifesign.advance(0.5)

    on = await switched(lifesign, made, "enable")
    await lifesign.advance(60)
    still_on = await switched(lifesign, made, "enable")
    off = await switched(lifesign, made, "disable")

    assert on["lifesign"]["next_run_at"] == "2026-01-05T12:30:00.000Z"
    assert still_on["lifesign"]["next_run_at"] == on["lifesign"]["next_run_at"]
    assert (off["enabled"], off["lifesign"]["next_run_at"], off["lifesign"]["paused_reason"]) == (0, None, "user")


async def test_a_schedule_tells_its_next_runs(lifesign: Lifesign) -> None:
    made = await configured(lifesign, (await bot(lifesign))["id"], cron_pattern="0 9 * * *", enabled=True)

    told = (await read(lifesign, made))["lifesign"]["next_runs"]

    assert told == [f"2026-01-{day:02d}T09:00:00.000Z" for day in range(6, 16)]


async def test_a_bot_whose_switch_is_off_can_be_read_but_not_scheduled(lifesign: Lifesign) -> None:
    owner = await bot(lifesign)
    made = await configured(lifesign, owner["id"], enabled=True)
    ref = {"bot_id": owner["id"], "heartbeat_id": made["uuid"]}

    await asked(lifesign, "PUT", "/update", {"bot_id": owner["id"], "heartbeat": 0})
    suspended = await read(lifesign, made)
    for path, body in (("configure", {"bot_id": owner["id"], "prompt": "x"}), ("enable", ref)):
        told = await asked(lifesign, "POST", f"/heartbeat/{path}", body, expect=403)
        assert told["error"]["code"] == "heartbeat_disabled"
    await asked(lifesign, "GET", "/heartbeat/readall", bot_id=owner["id"])
    await lifesign.advance(600)
    await asked(lifesign, "PUT", "/update", {"bot_id": owner["id"], "heartbeat": 1})
    back = await read(lifesign, made)

    assert (suspended["enabled"], suspended["lifesign"]["next_run_at"]) == (1, None)
    assert back["lifesign"]["next_run_at"] == "2026-01-05T12:40:00.000Z"


async def test_what_was_deleted_is_gone(lifesign: Lifesign) -> None:
    made = await configured(lifesign, (await bot(lifesign))["id"])
    ref = {"bot_id": made["bot_id"], "heartbeat_id": made["uuid"]}

    answer = await asked(lifesign, "DELETE", "/heartbeat/delete", **ref)

    assert answer == {"success": True, "message": "Heartbeat deleted"}
    assert (await asked(lifesign, "GET", "/heartbeat/read", **ref, expect=404))["message"] == "Heartbeat not found"
    await asked(lifesign, "DELETE", "/heartbeat/delete", **ref, expect=404)


async def test_a_preview_tells_slots_in_both_clocks_and_stores_nothing(lifesign: Lifesign) -> None:
    body = {
        "interval_minutes": 30,
        "active_hours_start": "09:00",
        "active_hours_end": "17:00",
        "active_days": "1,2,3,4,5",
        "timezone": "America/New_York",
        "after": "2026-03-06T21:30:00Z",
        "count": 2,
    }

    told = await asked(lifesign, "POST", "/heartbeat/preview", body)
    refused = await asked(lifesign, "POST", "/heartbeat/preview", {"interval_minutes": 0}, expect=400)
    for never in ("9999-12-31T23:59:00Z", "0001-01-01T00:00:00Z"):
        faulty = await asked(lifesign, "POST", "/heartbeat/preview", body | {"after": never}, expect=400)
        assert faulty["message"] == "after: must be from 1970 to 8999"

    assert told["slots"] == [
        {"slot": "2026-03-09T13:00:00Z", "local": "2026-03-09T09:00:00-04:00"},
        {"slot": "2026-03-09T13:30:00Z", "local": "2026-03-09T09:30:00-04:00"},
    ]
    assert refused["error"]["field"] == "interval_minutes"


# Plans --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("plan", ["free", "hobby"])
async def test_plans_without_schedules_refuse_them(lifesign: Lifesign, plan: str) -> None:
    owner = await bot(lifesign)
    resting = await bot(lifesign, heartbeat=0)
    await settings(lifesign, plan=plan)

    refused = [
        await asked(lifesign, "PUT", "/update", {"bot_id": resting["id"], "heartbeat": 1}, expect=403),
        await configured(lifesign, owner["id"], expect=403),
    ]

    assert [each["message"] for each in refused] == [f"Plan '{plan}' does not include heartbeats"] * 2


async def test_a_plan_has_floors_and_room_for_so_many(lifesign: Lifesign) -> None:
    owner = await bot(lifesign)
    await settings(lifesign, plan="starter")

    often = await configured(lifesign, owner["id"], interval_minutes=10, expect=400)
    pattern = await configured(lifesign, owner["id"], cron_pattern="0,30 9 * * *", expect=400)
    for prompt, fields in (("a", {"interval_minutes": 15}), ("b", {"cron_pattern": "0 9 * * 1-5"}), ("c", {})):
        await configured(lifesign, owner["id"], prompt=prompt, **fields)
    fourth = await configured(lifesign, owner["id"], prompt="d", expect=403)
    await configured(lifesign, owner["id"], prompt="a", timezone="Europe/Berlin")

    assert often["message"] == "interval_minutes: below the plan minimum of 15"
    assert (pattern["error"]["code"], pattern["error"]["field"]) == ("plan_minimum", "cron_pattern")
    assert fourth["message"] == "Plan 'starter' allows 3 heartbeats per bot"


async def test_a_plan_with_limits_counts_calls_by_the_minute(lifesign: Lifesign) -> None:
    await settings(lifesign, plan="free")
    query = {"project_id": "default"}

    first = await lifesign.http.get("/v1/bot/readall", params=query)
    others = [await lifesign.http.get("/v1/bot/readall", params=query) for _ in range(20)]
    await lifesign.advance(60)
    later = await lifesign.http.get("/v1/bot/readall", params=query)

    shown = {name: first.headers[f"x-ratelimit-{name}"] for name in ("limit", "remaining", "reset")}
    assert shown == {"limit": "20", "remaining": "19", "reset": "1767614460"}
    assert [each.status_code for each in others] == [200] * 19 + [429]
    assert others[-1].json()["message"] == "Rate limit exceeded. Try again in 60 seconds."
    assert others[-1].headers["retry-after"] == "60"
    assert later.status_code == 200


# Settings -----------------------------------------------------------------------------------------------------------
async def test_keys_of_providers_are_kept_and_not_shown(lifesign: Lifesign) -> None:
    provider = {"name": "local", "kind": "openai", "base_url": "http://127.0.0.1:11434/v1"}
    await settings(lifesign, providers=[provider | {"api_key": "sk-0123456789abcdef"}])

    again = await settings(lifesign, providers=[provider])
    same = await settings(lifesign, providers=again["providers"])
    others = (provider | {"api_key": "****0000"}, provider | {"name": "new", "api_key": "****None"})
    refused = [await asked(lifesign, "PUT", "/settings", {"providers": [each]}, expect=400) for each in others]
    moved = await settings(lifesign, providers=[provider | {"base_url": "http://127.0.0.2/v1"}])

    sent_back = [provider | {"api_key": "****cdef"}]
    assert again["providers"] == same["providers"] == sent_back
    assert {each["message"] for each in refused} == {"providers[0].api_key: is what is shown of a key, not the key"}
    assert moved["providers"][0]["api_key"] is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"plan": "gold"}, "plan"),
        ({"max_concurrent_runs": 0}, "max_concurrent_runs"),
        ({"billing_timezone": "Mars/Base"}, "billing_timezone"),
        ({"budget_period": "year"}, "budget_period"),
        ({"acknowledge_trifecta": {}}, "acknowledge_trifecta"),
        ({"notify_channels": ["ch_nowhere"]}, "notify_channels"),
        ({"prices": [{"model": "m"}]}, "prices[0].input_usd_per_million"),
        ({"prices": [{"model": "m", "colour": 1}]}, "prices[0].colour"),
        ({"providers": [{"name": "default", "kind": "openai"}]}, "providers[0].name"),
        ({"providers": [{"name": "a", "kind": "openai"}, {"name": "a", "kind": "openai"}]}, "providers[1].name"),
    ],
)
async def test_what_is_wrong_with_settings_is_told_by_field(lifesign: Lifesign, body: Any, field: str) -> None:
    told = await asked(lifesign, "PUT", "/settings", body, expect=400)

    assert told["error"]["field"] == field


async def test_an_address_of_the_operators_own_network_is_refused(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(allow_private_targets=False) as lifesign:
        provider = {"name": "local", "kind": "openai", "base_url": "http://127.0.0.1:11434/v1"}
        told = await asked(lifesign, "PUT", "/settings", {"providers": [provider]}, expect=400)

    assert told["message"] == "providers[0].base_url: address is not allowed"


# Callers ------------------------------------------------------------------------------------------------------------
async def test_refusals_come_in_their_order(lifesign: Lifesign) -> None:
    nobody = lifesign.client("wrong-key-0123456789")
    narrow = lifesign.client(await key(lifesign, ["checkins:write"]))
    wrong_everywhere = {"project_id": "other", "prompt": ""}

    unknown = await asked(lifesign, "POST", "/heartbeat/configure", wrong_everywhere, client=nobody, expect=401)
    foreign = await asked(lifesign, "POST", "/heartbeat/configure", wrong_everywhere, client=narrow, expect=403)
    scopeless = await asked(lifesign, "POST", "/heartbeat/configure", {"prompt": ""}, client=narrow, expect=403)
    nameless = await asked(lifesign, "POST", "/heartbeat/configure", {"prompt": ""}, expect=400)
    missing = await asked(lifesign, "POST", "/heartbeat/configure", {"prompt": "", "bot_id": 9}, expect=404)
    without = await lifesign.http.post("/v1/bot/heartbeat/configure", json={"prompt": ""})

    assert unknown["message"] == "Unauthorized: Invalid API key"
    assert foreign["message"] == "This key has no access to the project"
    assert scopeless["message"] == "This key lacks the scope bots:write"
    assert nameless["message"] == "bot_id is required"
    assert missing["message"] == "Bot not found"
    assert (without.status_code, without.json()["message"]) == (400, "project_id is required")


@pytest.mark.parametrize("content", ["[]", '"x"', "{", ""])
async def test_a_body_is_a_json_object(lifesign: Lifesign, content: str) -> None:
    answer = await lifesign.http.post("/v1/bot/heartbeat/configure", content=content)

    assert answer.status_code == 400
    assert answer.json()["message"] == "Request body must be a JSON object"


async def test_errors_outside_of_any_route_have_the_same_envelope(lifesign: Lifesign) -> None:
    unknown = await lifesign.http.get("/v1/bot/nowhere")
    wrong_verb = await lifesign.http.patch("/v1/bot/create")
    large = await lifesign.http.post("/v1/bot/create", content=b"x" * 1_153_434)

    told = [
        (each.status_code, each.json()["error"]["status"], each.json()["message"]) for each in (unknown, wrong_verb)
    ]
    assert told == [(404, 404, "Not found"), (405, 405, "Method not allowed")]
    assert (large.status_code, large.json()["message"]) == (413, "Request body is larger than 1 MiB")
    assert unknown.json()["error"]["request_id"] == unknown.headers["x-request-id"]


async def test_ids_that_were_left_out_in_the_ways_of_the_client_are_missing(lifesign: Lifesign) -> None:
    for absent in ("undefined", "null", ""):
        told = await asked(lifesign, "GET", "/heartbeat/readall", bot_id=absent, expect=400)
        assert told["message"] == "bot_id is required"
    assert (await lifesign.http.get("/v1/bot/heartbeat/readall", params={"bot_id": 1})).status_code == 400


async def test_ids_are_found_in_the_other_place_too(lifesign: Lifesign) -> None:
    made = await bot(lifesign)

    by_body = await lifesign.http.request("GET", "/v1/bot/read", json={"project_id": "default", "bot_id": made["id"]})
    by_query = await lifesign.http.post(f"/v1/bot/reset?project_id=default&bot_id={made['id']}", json={})

    assert by_body.json()["bot"]["uuid"] == made["uuid"]
    assert by_query.json() == {"success": True, "message": "Bot memory reset"}


async def test_scopes_say_who_may_do_what(lifesign: Lifesign) -> None:
    reader, writer, runner, admin = [
        lifesign.client(await key(lifesign, [f"bots:{verb}"])) for verb in ("read", "write", "run", "admin")
    ]

    for client in (reader, writer, runner, admin):
        await asked(lifesign, "GET", "/readall", client=client)
    for client in (reader, runner, admin):
        await asked(lifesign, "POST", "/create", {"name": "a"}, client=client, expect=403)
        await asked(lifesign, "PUT", "/settings", {"default_model": "m"}, client=client, expect=403)
    await asked(lifesign, "POST", "/create", {"name": "a"}, client=writer)
    await asked(lifesign, "PUT", "/settings", {"default_model": "m"}, client=writer)
    await asked(lifesign, "PUT", "/settings", {"plan": "pro"}, client=writer, expect=403)
    await asked(lifesign, "PUT", "/settings", {"plan": "pro"}, client=admin)


async def test_another_projects_bot_is_nobodys(lifesign: Lifesign) -> None:
    made = await bot(lifesign)
    schedule = await configured(lifesign, made["id"])
    other, _ = await lifesign.node.db.write(projects.create, Order("other", 0, tenant_id="default"), lifesign.now())
    operator = auth.operator(other.id)
    _, token = await lifesign.node.db.write(
        auth.create_key, operator, name="k", scopes=["bots:write"], expires_at=None, now=lifesign.now()
    )
    client = lifesign.client(token)
    own = await client.post("/v1/bot/create", json={"project_id": other.id, "name": "Theirs", "heartbeat": 1})

    foreign = {"project_id": other.id, "bot_id": made["uuid"], "heartbeat_id": schedule["uuid"], "prompt": "x"}
    answers = [
        await client.get("/v1/bot/read", params=foreign),
        await client.put("/v1/bot/update", json=foreign),
        await client.post("/v1/bot/heartbeat/configure", json=foreign),
        await client.get("/v1/bot/heartbeat/read", params=foreign | {"bot_id": own.json()["bot"]["id"]}),
        await client.delete("/v1/bot/delete", params=foreign),
    ]
    default = await client.get("/v1/bot/readall", params={"project_id": "default"})

    assert [each.status_code for each in answers] == [404] * 5
    assert default.status_code == 403
    assert (await asked(lifesign, "GET", "/read", bot_id=made["id"]))["bot"] == made
