"""Runs: slots become runs, runs start, end, are counted, charged and told. Done by a worker that asks for them."""

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import Connection

from lifesign.bots import ending, run_store, schedules, starting, store
from lifesign.bots.outcomes import Outcome, Parked
from lifesign.bots.records import new_run
from lifesign.bots.timing import Timing
from lifesign.clock import EpochMs
from lifesign.db.open import postgres_engine
from lifesign.engine.bots import BotsClaim
from tests.bots.asking import asked, bot, configured, key, read, settings, switched
from tests.bots.asking_runs import PULL, beaten, claimed, finished, logs, scheduled, triggered, worked
from tests.harness import Json, Lifesign, MakeLifesign


# Slots --------------------------------------------------------------------------------------------------------------
async def test_a_slot_becomes_a_run_that_is_done_and_logged(lifesign: Lifesign) -> None:
    made = await scheduled(lifesign)

    await lifesign.advance(30 * 60)
    run = await claimed(lifesign)
    assert run is not None
    await lifesign.advance(5)
    usage = {"input_tokens": 900, "output_tokens": 600, "requests": 2}
    done = await finished(lifesign, run, usage=usage)

    assert {name: run[name] for name in ("slot", "model", "prompt", "instruction", "remaining_credits")} == {
        "slot": "2026-01-05T12:30:00.000Z",
        "model": "m",
        "prompt": made["prompt"],
        "instruction": None,
        "remaining_credits": None,
    }
    (logged,) = await logs(lifesign, made)
    assert logged == done
    assert (logged["type"], logged["status"], logged["response"]) == ("heartbeat", "success", "Done.")
    assert (logged["tokens_used"], logged["credits_charged"], logged["duration_ms"]) == (1500, 1.5, 5000)
    after = await read(lifesign, made)
    assert (after["execution_count"], after["last_status"], after["credits_used"]) == (1, "success", 1.5)
    assert after["lifesign"]["next_run_at"] == "2026-01-05T13:00:00.000Z"
    assert after["lifesign"]["credits_reserved"] == 0


async def test_a_long_run_is_one_row_of_overlaps_and_leaves_the_grid(lifesign: Lifesign) -> None:
    made = await scheduled(lifesign, interval_minutes=1, lifesign=LONG)
    await lifesign.advance(60)
    run = await claimed(lifesign)
    assert run is not None

    await _go_on(lifesign, run, times=3)
    (skipped,) = await logs(lifesign, made)

    assert (skipped["status"], skipped["lifesign"]["reason"], skipped["lifesign"]["count"]) == ("skipped", "overlap", 2)
    await finished(lifesign, run)
    await lifesign.advance(30)
    assert (await claimed(lifesign) or {})["slot"] == "2026-01-05T12:04:00.000Z"


LONG = {"limits": {"timeout_seconds": 3600}}


async def _go_on(lifesign: Lifesign, *runs: Json | None, times: int) -> None:
    """So many times 50 s, in which runs are kept."""
    for _ in range(times):
        await lifesign.advance(50)
        for run in runs:
            assert run is not None
            await beaten(lifesign, run)


async def test_slots_that_come_while_one_runs_collapse_and_one_waits_where_that_is_wanted(lifesign: Lifesign) -> None:
    skips = await scheduled(lifesign, interval_minutes=1, lifesign=LONG)
    waits = await scheduled(lifesign, interval_minutes=1, lifesign=LONG | {"overlap": "queue_one"})
    await lifesign.advance(60)
    first, second = await claimed(lifesign), await claimed(lifesign)
    await _go_on(lifesign, first, second, times=4)

    assert [(each["lifesign"]["reason"], each["lifesign"]["count"]) for each in await logs(lifesign, skips)] == [
        ("overlap", 3)
    ]
    assert [(each["lifesign"]["reason"], each["lifesign"]["count"]) for each in await logs(lifesign, waits)] == [
        ("overlap", 2)
    ]
    assert await claimed(lifesign) is None
    for run in (first, second):
        assert run is not None
        await finished(lifesign, run)
    waited = await claimed(lifesign)
    assert waited is not None
    assert waited["slot"] == "2026-01-05T12:02:00.000Z"
    assert await claimed(lifesign) is None


async def test_a_new_run_may_take_the_place_of_the_one_that_goes_on(lifesign: Lifesign) -> None:
    made = await scheduled(lifesign, interval_minutes=1, lifesign={"overlap": "cancel_previous"})
    await lifesign.advance(60)
    first = await claimed(lifesign)
    assert first is not None
    await lifesign.advance(50)
    await beaten(lifesign, first)

    await lifesign.advance(10)
    told = await beaten(lifesign, first)
    await finished(lifesign, first)
    second = await claimed(lifesign)

    assert told["cancel"] is True
    assert second is not None
    (logged,) = await logs(lifesign, made)
    assert (logged["status"], logged["lifesign"]["reason"]) == ("cancelled", "superseded")


async def test_slots_of_many_schedules_are_as_many_runs_although_two_claim_at_once(lifesign: Lifesign) -> None:
    owner = await bot(lifesign, lifesign=PULL)
    await settings(lifesign, max_runs_per_hour=100_000)
    await lifesign.node.db.write(_many, owner["uuid"], 1000, lifesign.now())
    lifesign.clock.set(EpochMs(lifesign.now() + 60_000))
    loops = [BotsClaim(lifesign.node.db), BotsClaim(lifesign.node.db)]

    for _ in range(6):
        await asyncio.gather(*(each.tick(lifesign.now()) for each in loops))

    told = await asked(lifesign, "GET", "/heartbeat/logs", bot_id=owner["uuid"], status="queued")
    assert told["total"] == 1000
    assert await lifesign.node.db.read(run_store.due_schedules, lifesign.now(), 10) == []


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_what_another_node_is_busy_with_holds_up_nothing_else(lifesign: Lifesign) -> None:
    owner = await bot(lifesign, lifesign=PULL)
    await lifesign.node.db.write(_many, owner["uuid"], 250, lifesign.now())
    lifesign.clock.set(EpochMs(lifesign.now() + 60_000))
    loop = BotsClaim(lifesign.node.db)
    query = {"bot_id": owner["uuid"], "status": "queued"}
    engine = postgres_engine(lifesign.node.settings, size=1)

    with engine.begin() as conn:
        held = run_store.due_schedules(conn, lifesign.now(), 200)
        assert len(run_store.lock_unchanged(conn, held)) == 200
        await loop.tick(lifesign.now())
        nothing = (await asked(lifesign, "GET", "/heartbeat/logs", **query))["total"]
        await loop.tick(lifesign.now())
        others = (await asked(lifesign, "GET", "/heartbeat/logs", **query))["total"]
    engine.dispose()
    await loop.tick(lifesign.now())

    assert (nothing, others) == (0, 50)
    assert (await asked(lifesign, "GET", "/heartbeat/logs", **query))["total"] == 250


def _many(conn: Connection, bot_id: str, count: int, now: EpochMs) -> None:
    """Schedules that are due in a minute."""
    owner = store.bots_by_id(conn, [bot_id])[bot_id]
    for n in range(count):
        blank = schedules.blank(now, owner, "", f"p{n}")
        made = replace(blank, is_enabled=True, timing=Timing(1))
        assert store.insert_schedule(conn, schedules.timed(made, now, is_running=True))


async def test_runs_of_an_hour_are_limited(lifesign: Lifesign) -> None:
    made = await scheduled(lifesign, interval_minutes=1)
    await settings(lifesign, max_runs_per_hour=2)

    for _ in range(4):
        await lifesign.advance(60)
        if (run := await claimed(lifesign)) is not None:
            await finished(lifesign, run)

    assert [each["lifesign"]["reason"] for each in await logs(lifesign, made)] == ["rate_limited", None, None]
    assert (await triggered(lifesign, made))["reason"] == "rate_limited"


async def test_a_run_waits_for_a_place_and_gives_up(lifesign: Lifesign) -> None:
    first = await scheduled(lifesign, interval_minutes=1)
    await configured(lifesign, first["bot_id"], prompt="Second", interval_minutes=1, enabled=True)
    await settings(lifesign, max_concurrent_runs=1)
    await lifesign.advance(60)
    busy = await claimed(lifesign)
    assert busy is not None

    assert await claimed(lifesign) is None
    await lifesign.advance(60)

    told = await asked(lifesign, "GET", "/heartbeat/logs", bot_id=first["bot_id"], status="skipped")
    assert "concurrency" in {each["lifesign"]["reason"] for each in told["logs"]}


# Triggers -----------------------------------------------------------------------------------------------------------
async def test_a_disabled_schedule_can_be_triggered(lifesign: Lifesign) -> None:
    made = await configured(lifesign, (await bot(lifesign, lifesign=PULL))["id"])
    ref = {"bot_id": made["bot_id"], "heartbeat_id": made["uuid"]}

    waiting = asyncio.create_task(asked(lifesign, "POST", "/heartbeat/trigger", ref))
    run = (await asked(lifesign, "POST", "/runs/claim", {"wait_seconds": 30}))["run"]
    await finished(lifesign, run, usage={"input_tokens": 10, "output_tokens": 5, "requests": 1})
    told = (await waiting)["result"]

    assert told == {
        "status": "success",
        "response": "Done.",
        "duration_ms": 0,
        "tokens_used": 15,
        "credits_charged": 0.015,
        "error_message": None,
        "run_id": run["run_id"],
        "reason": None,
    }
    (logged,) = await logs(lifesign, made)
    after = await read(lifesign, made)
    assert (logged["type"], logged["lifesign"]["slot"]) == ("trigger", None)
    assert (after["execution_count"], after["enabled"], after["lifesign"]["next_run_at"]) == (1, 0, None)


async def test_a_trigger_that_fails_counts_as_no_error_of_the_schedule(lifesign: Lifesign) -> None:
    made = await configured(lifesign, (await bot(lifesign, lifesign=PULL))["id"], max_consecutive_errors=1, enabled=1)

    await triggered(lifesign, made)
    done = await worked(lifesign, status="error", response=None, error_message="No luck.")

    after = await read(lifesign, made)
    assert (done["status"], done["error_message"]) == ("error", "No luck.")
    assert (after["error_count"], after["enabled"], after["last_status"]) == (0, 1, "error")


async def test_the_same_key_is_the_same_run(lifesign: Lifesign) -> None:
    made = await scheduled(lifesign)
    client = lifesign.http
    client.headers["Idempotency-Key"] = "once"

    first, second = await triggered(lifesign, made), await triggered(lifesign, made)
    await worked(lifesign)
    third = await triggered(lifesign, made)
    await lifesign.advance(24 * 3600)
    client.headers["Idempotency-Key"] = "once"
    later = await triggered(lifesign, made)
    del client.headers["Idempotency-Key"]

    assert {first["uuid"], second["uuid"], third["uuid"]} == {first["uuid"]}
    assert later["uuid"] != first["uuid"]


async def test_a_trigger_is_refused_for_reasons_that_are_told(lifesign: Lifesign) -> None:
    made = await scheduled(lifesign)
    await triggered(lifesign, made)
    ref = {"bot_id": made["bot_id"], "heartbeat_id": made["uuid"]}

    overlapping = (await asked(lifesign, "POST", "/heartbeat/trigger", ref))["result"]
    await asked(lifesign, "PUT", "/update", {"bot_id": made["bot_id"], "status": 0})
    offline = (await asked(lifesign, "POST", "/heartbeat/trigger", ref))["result"]
    await asked(lifesign, "PUT", "/update", {"bot_id": made["bot_id"], "heartbeat": 0})
    disabled = await asked(lifesign, "POST", "/heartbeat/trigger", ref, expect=403)

    assert (overlapping["status"], overlapping["reason"]) == ("skipped", "overlap")
    assert overlapping["error_message"] == "An earlier run is still going on"
    assert offline["reason"] == "bot_offline"
    assert disabled["message"] == "Heartbeat is not enabled for this bot"


# Errors -------------------------------------------------------------------------------------------------------------
async def test_errors_in_a_row_pause_a_schedule_and_a_success_between_resets(lifesign: Lifesign) -> None:
    made = await scheduled(lifesign, interval_minutes=1, max_consecutive_errors=2)
    counts = []
    for status in ("error", "success", "error", "error"):
        await lifesign.advance(60)
        await worked(lifesign, status=status, error_message="No luck.")
        counts.append((await read(lifesign, made))["error_count"])

    after = await read(lifesign, made)
    assert counts == [1, 0, 1, 2]
    assert (after["enabled"], after["lifesign"]["next_run_at"]) == (0, None)
    assert (after["lifesign"]["paused_reason"], after["lifesign"]["paused_by"]) == ("consecutive_errors", "system")
    assert after["lifesign"]["last_error"] == "No luck."
    await lifesign.advance(300)
    assert await claimed(lifesign) is None
    enabled = await switched(lifesign, made, "enable")
    assert (enabled["error_count"], enabled["lifesign"]["paused_reason"]) == (0, None)


async def test_a_run_whose_worker_went_away_is_lost_and_its_late_end_changes_nothing(lifesign: Lifesign) -> None:
    made = await scheduled(lifesign)
    await lifesign.advance(30 * 60)
    run = await claimed(lifesign)
    assert run is not None
    await beaten(lifesign, run, usage={"input_tokens": 500, "output_tokens": 500, "requests": 1})

    await lifesign.advance(61)
    late = await finished(lifesign, run, expect=409)
    told = await beaten(lifesign, run, expect=409)

    (logged,) = await logs(lifesign, made)
    assert (logged["status"], logged["lifesign"]["reason"], logged["credits_charged"]) == ("error", "lost", 1)
    assert late["error"]["code"] == told["error"]["code"] == "lease_lost"
    after = await read(lifesign, made)
    assert (after["error_count"], after["lifesign"]["credits_reserved"]) == (1, 0)
    await lifesign.advance(29 * 60)
    assert await claimed(lifesign) is not None


async def test_a_lost_slot_is_run_once_more_where_that_is_wanted(lifesign: Lifesign) -> None:
    made = await scheduled(lifesign, lifesign={"retry_lost": True})
    await lifesign.advance(30 * 60)
    first = await claimed(lifesign)
    await lifesign.advance(61)
    again = await claimed(lifesign)
    await lifesign.advance(61)

    assert first is not None
    assert again is not None
    assert (again["slot"], again["run_id"] == first["run_id"]) == (first["slot"], False)
    assert await claimed(lifesign) is None
    assert [each["lifesign"]["kind"] for each in await logs(lifesign, made)] == ["catch_up", "scheduled"]


async def test_a_run_that_takes_too_long_ends_although_its_worker_is_still_there(lifesign: Lifesign) -> None:
    made = await scheduled(lifesign, lifesign={"limits": {"timeout_seconds": 90}})
    await lifesign.advance(30 * 60)
    run = await claimed(lifesign)
    assert run is not None
    await lifesign.advance(50)
    await beaten(lifesign, run)

    await lifesign.advance(46)

    (logged,) = await logs(lifesign, made)
    assert (logged["status"], logged["lifesign"]["reason"]) == ("error", "timeout")


async def test_a_result_without_the_form_of_one_is_an_error(lifesign: Lifesign) -> None:
    made = await scheduled(lifesign)
    for told in ({"report": {"title": 7}}, {"status": "perhaps"}, {"usage": {"input_tokens": -1}}):
        await triggered(lifesign, made)
        done = await worked(lifesign, **told)
        assert (done["status"], done["lifesign"]["reason"]) == ("error", "invalid_output")


# Money --------------------------------------------------------------------------------------------------------------
async def test_a_budget_lets_runs_start_until_it_is_used_up(lifesign: Lifesign) -> None:
    made = await scheduled(lifesign, interval_minutes=1, credit_budget=3, lifesign_bot={"credits_per_1k_tokens": 2})
    usage = {"input_tokens": 900, "output_tokens": 600, "requests": 1}
    await lifesign.advance(60)
    done = await worked(lifesign, usage=usage)
    await lifesign.advance(60)

    rows = await logs(lifesign, made)
    after = await read(lifesign, made)
    assert (done["credits_charged"], after["credits_used"]) == (3, 3)
    assert await claimed(lifesign) is None
    rows = await logs(lifesign, made)
    assert (rows[0]["status"], rows[0]["lifesign"]["reason"]) == ("skipped", "budget_exhausted")
    assert (await read(lifesign, made))["enabled"] == 1
    await configured(lifesign, made["bot_id"], credit_budget=10)
    await lifesign.advance(60)
    assert await claimed(lifesign) is not None


async def test_a_budget_of_nothing_skips_every_slot_and_a_new_period_begins_at_nothing(lifesign: Lifesign) -> None:
    made = await scheduled(lifesign, credit_budget=0)
    await triggered(lifesign, made)
    assert await claimed(lifesign) is None
    assert (await logs(lifesign, made))[0]["lifesign"]["reason"] == "budget_exhausted"

    await settings(lifesign, budget_period="day", billing_timezone="Europe/Berlin")
    spends = await scheduled(lifesign, credit_budget=1, interval_minutes=44_640)
    await triggered(lifesign, spends)
    await worked(lifesign, usage={"input_tokens": 1000, "output_tokens": 0, "requests": 1})
    now = await read(lifesign, spends)
    await lifesign.advance(12 * 3600)
    later = await read(lifesign, spends)

    assert (now["credits_used"], later["credits_used"]) == (1, 0)
    assert later["lifesign"]["period_start"] == "2026-01-05T23:00:00.000Z"


async def test_a_run_reserves_what_the_one_before_it_left(lifesign: Lifesign) -> None:
    made = await _budgeted(lifesign)
    await triggered(lifesign, made)
    first = await claimed(lifesign)
    assert first is not None

    reserved = (await read(lifesign, made))["lifesign"]["credits_reserved"]
    await finished(lifesign, first, usage={"input_tokens": 5000, "output_tokens": 0, "requests": 1})
    await triggered(lifesign, made)
    second = await claimed(lifesign)

    assert (reserved, first["remaining_credits"]) == (6, 6)
    assert second is not None
    assert second["remaining_credits"] == 5


async def _budgeted(lifesign: Lifesign) -> Json:
    """A schedule with 10 credits, of which a run takes 6."""
    limits = {"limits": {"max_credits_per_run": 6}, "overlap": "queue_one"}
    return await configured(lifesign, (await bot(lifesign, lifesign=PULL))["id"], credit_budget=10, lifesign=limits)


async def test_starts_at_once_reserve_no_more_than_there_is(lifesign: Lifesign) -> None:
    made = await _budgeted(lifesign)
    db, now = lifesign.node.db, lifesign.now()
    # No door lets two runs of a schedule begin at once; what two nodes hold in the same moment is not asked there.
    waiting = await db.write(_queued, made["uuid"], 5, now)

    started = await asyncio.gather(
        *(db.write(starting.start, each, owner=f"node {n}", now=now) for n, each in enumerate(waiting))
    )

    reserved = sorted(each.run.reserved for each in started if each is not None)
    told = await read(lifesign, made)
    rows = await logs(lifesign, made)
    assert reserved == [40_000, 60_000]
    assert told["lifesign"]["credits_reserved"] == 10
    assert [(each["status"], each["lifesign"]["reason"]) for each in rows] == [("skipped", "budget_exhausted")] * 3


def _queued(conn: Connection, schedule_id: str, count: int, now: EpochMs) -> list[str]:
    """Runs that wait to be started; their ids."""
    schedule = store.schedules_by_id(conn, [schedule_id])[schedule_id]
    runs = [new_run(schedule, "trigger", now) for _ in range(count)]
    run_store.insert_runs(conn, runs)
    return [each.id for each in runs]


async def test_prices_of_the_project_decide_what_a_response_costs(lifesign: Lifesign) -> None:
    price = {"model": "m", "input_usd_per_million": 3, "output_usd_per_million": "15"}
    shown = await settings(lifesign, prices=[price])
    made = await scheduled(lifesign)

    await triggered(lifesign, made)
    done = await worked(lifesign, usage={"input_tokens": 1000, "output_tokens": 1000, "requests": 1})

    assert shown["prices"] == [{"model": "m", "input_usd_per_million": 3.0, "output_usd_per_million": 15.0}]
    assert done["credits_charged"] == 1.8


# Stopped, cancelled, deleted ----------------------------------------------------------------------------------------
async def test_a_stop_closes_every_door_and_a_resume_leaves_the_grid(lifesign: Lifesign) -> None:
    made = await scheduled(lifesign, interval_minutes=10)
    await triggered(lifesign, made)
    admin = lifesign.client(await key(lifesign, ["bots:admin"]))
    await asked(lifesign, "POST", "/stop", {}, client=lifesign.client(await key(lifesign, ["bots:run"])), expect=403)

    stopped = await asked(lifesign, "POST", "/stop", {"reason": "too dear"}, client=admin)
    assert await claimed(lifesign) is None
    refused = await triggered(lifesign, made)
    await lifesign.advance(25 * 60)
    resumed = await asked(lifesign, "POST", "/resume", {}, client=admin)
    await lifesign.advance(5 * 60)

    assert stopped == {"stopped": 1, "cancelled": 1}
    assert resumed == {"stopped": 0}
    assert refused["reason"] == "project_stopped"
    assert (await claimed(lifesign) or {})["slot"] == "2026-01-05T12:30:00.000Z"
    rows = await logs(lifesign, made)
    assert [(each["type"], each["status"], each["lifesign"]["reason"]) for each in rows] == [
        ("heartbeat", "skipped", "project_stopped"),
        ("trigger", "skipped", "project_stopped"),
        ("trigger", "cancelled", "stopped"),
    ]
    assert rows[0]["lifesign"]["count"] == 2


async def test_a_run_that_waits_is_cancelled_at_once_and_one_that_ended_stays(lifesign: Lifesign) -> None:
    made = await scheduled(lifesign)
    waiting = await triggered(lifesign, made)

    cancelled = (await asked(lifesign, "POST", "/heartbeat/cancel", {"run_id": waiting["uuid"]}))["run"]
    await triggered(lifesign, made)
    done = await worked(lifesign)
    again = (await asked(lifesign, "POST", "/heartbeat/cancel", {"run_id": done["uuid"]}))["run"]

    assert (cancelled["status"], cancelled["lifesign"]["reason"], cancelled["credits_charged"]) == (
        "cancelled",
        "user",
        0,
    )
    assert again == done
    await asked(lifesign, "POST", "/heartbeat/cancel", {"run_id": "run_nowhere"}, expect=404)


async def test_a_cancelled_run_of_a_worker_is_charged_and_ends_with_its_next_word(lifesign: Lifesign) -> None:
    made = await scheduled(lifesign)
    await triggered(lifesign, made)
    run = await claimed(lifesign)
    assert run is not None
    await beaten(lifesign, run, usage={"input_tokens": 1000, "output_tokens": 0, "requests": 1})

    await asked(lifesign, "POST", "/heartbeat/cancel", {"run_id": run["run_id"]})
    told = await beaten(lifesign, run)
    await lifesign.advance(6)

    (logged,) = await logs(lifesign, made)
    assert told["cancel"] is True
    assert (logged["status"], logged["lifesign"]["reason"], logged["credits_charged"]) == ("cancelled", "user", 1)


async def test_logs_outlive_their_schedule_but_not_their_bot(lifesign: Lifesign) -> None:
    made = await scheduled(lifesign)
    await triggered(lifesign, made)
    await worked(lifesign)
    await triggered(lifesign, made)
    await asked(lifesign, "DELETE", "/heartbeat/delete", bot_id=made["bot_id"], heartbeat_id=made["uuid"])
    await lifesign.advance()

    rows = await logs(lifesign, made)
    assert [(each["status"], each["lifesign"]["reason"]) for each in rows] == [
        ("cancelled", "deleted"),
        ("success", None),
    ]
    run_id = rows[0]["uuid"]
    await asked(lifesign, "DELETE", "/delete", bot_id=made["bot_id"])
    await asked(lifesign, "GET", "/heartbeat/run", run_id=run_id, expect=404)


async def test_a_bot_that_is_offline_skips_its_slots_and_one_that_is_switched_off_logs_nothing(
    lifesign: Lifesign,
) -> None:
    offline, off = await scheduled(lifesign), await scheduled(lifesign)
    await asked(lifesign, "PUT", "/update", {"bot_id": offline["bot_id"], "status": 0})
    await asked(lifesign, "PUT", "/update", {"bot_id": off["bot_id"], "heartbeat": 0})

    await lifesign.advance(3600)
    refused = await triggered(lifesign, offline)
    forbidden = await triggered(lifesign, off, expect=403)

    by_hand, row = await logs(lifesign, offline)
    assert (row["lifesign"]["reason"], row["lifesign"]["count"]) == ("bot_offline", 2)
    assert (refused["status"], refused["reason"], by_hand["type"]) == ("skipped", "bot_offline", "trigger")
    assert (await read(lifesign, offline))["error_count"] == 0
    assert forbidden["error"]["code"] == "heartbeat_disabled"
    assert await logs(lifesign, off) == []


async def test_a_lowered_plan_skips_what_does_not_fit(lifesign: Lifesign) -> None:
    often, seldom = await scheduled(lifesign, interval_minutes=1), await scheduled(lifesign, interval_minutes=30)
    await settings(lifesign, plan="starter")

    await lifesign.advance(30 * 60)

    (row,) = await logs(lifesign, often)
    assert (row["lifesign"]["reason"], row["lifesign"]["count"]) == ("plan", 30)
    assert await claimed(lifesign) is not None
    assert await logs(lifesign, seldom) == []


# Told ---------------------------------------------------------------------------------------------------------------
async def test_logs_are_paged_and_filtered(lifesign: Lifesign) -> None:
    made = await scheduled(lifesign)
    for n in range(45):
        await triggered(lifesign, made)
        await worked(lifesign, status="success" if n else "error", error_message="x")
    which = {"bot_id": made["bot_id"]}

    third = await asked(lifesign, "GET", "/heartbeat/logs", **which, page=3)
    beyond = await asked(lifesign, "GET", "/heartbeat/logs", **which, page=9)
    failed = await asked(lifesign, "GET", "/heartbeat/logs", **which, status="error")
    wrong = await asked(lifesign, "GET", "/heartbeat/logs", **which, status="failed", expect=400)

    assert (len(third["logs"]), third["total"]) == (5, 45)
    assert third["pagination"] == {"page": 3, "per_page": 20, "total": 45, "total_pages": 3}
    assert (beyond["logs"], failed["total"], wrong["error"]["field"]) == ([], 1, "status")
    for name, value in (("page", 0), ("per_page", 101)):
        told = await asked(lifesign, "GET", "/heartbeat/logs", **which, **{name: value}, expect=400)
        assert told["error"]["field"] == name


async def test_statistics_count_by_day_by_kind_and_by_reason(lifesign: Lifesign) -> None:
    made = await scheduled(lifesign, interval_minutes=1440)
    usage = {"input_tokens": 1000, "output_tokens": 0, "requests": 1}
    for status in ("success", "success", "success", "error"):
        await triggered(lifesign, made)
        await worked(lifesign, status=status, usage=usage)
    await asked(lifesign, "PUT", "/update", {"bot_id": made["bot_id"], "status": 0})
    await lifesign.advance(2 * 24 * 3600)

    told = (await asked(lifesign, "GET", "/heartbeat/stats", bot_id=made["bot_id"]))["stats"]
    today = (await asked(lifesign, "GET", "/heartbeat/stats", bot_id=made["bot_id"], days=1))["stats"]

    series = told.pop("time_series")
    assert told == {
        "total_executions": 6,
        "success_count": 3,
        "error_count": 1,
        "skipped_count": 2,
        "success_rate": 75,
        "total_tokens": 4000,
        "total_credits": 4,
        "avg_duration_ms": 0,
        "active_heartbeats": 1,
        "by_type": {"trigger": 4, "heartbeat": 2},
        "lifesign": {
            "cancelled_count": 0,
            "by_reason": {"runner_error": 1, "bot_offline": 2},
            "by_model": {"m": 4},
        },
    }
    assert (len(series), series[-3]) == (30, {"date": "2026-01-05", "total": 4, "success": 3, "error": 1})
    assert [each["date"] for each in today["time_series"]] == ["2026-01-07"]
    for wrong in ({"days": 0}, {"days": 366}):
        await asked(lifesign, "GET", "/heartbeat/stats", bot_id=made["bot_id"], **wrong, expect=400)


async def test_what_a_worker_logs_is_in_the_transcript_without_secrets(lifesign: Lifesign) -> None:
    made = await scheduled(lifesign)
    await triggered(lifesign, made)
    run = await claimed(lifesign)
    assert run is not None

    await beaten(lifesign, run, log="Authorization: Bearer abcdef0123456789")
    done = await finished(lifesign, run, response="key sk-0123456789abcdef0123 it was")

    told = await asked(lifesign, "GET", "/heartbeat/transcript", run_id=run["run_id"])
    assert told["truncated"] is False
    assert [each["content"] for each in told["transcript"]] == ["Authorization: [redacted]"]
    assert done["response"] == "key sk-[redacted] it was"


async def test_what_no_database_takes_of_a_workers_words_is_replaced(lifesign: Lifesign) -> None:
    hook = await lifesign.webhook("http://127.0.0.1:9/x")
    await settings(lifesign, notify_channels=[hook["id"]])
    made = await scheduled(lifesign, lifesign_bot={"credits_per_1k_tokens": 10_000})
    await triggered(lifesign, made)
    report = {"noteworthy": True, "title": "a\0b", "body": "c\0d", "dedupe_key": "e\0f"}
    usage = {"input_tokens": 2**40 - 1, "output_tokens": 2**40 - 1, "requests": 2**31 - 1}

    done = await worked(lifesign, response="g\0h", report=report, usage=usage)

    assert (done["status"], done["response"], done["lifesign"]["notify"]["key"]) == ("success", "g\ufffdh", "e\ufffdf")
    assert (done["tokens_used"], done["credits_charged"]) == (2**41 - 2, 10**11)


@pytest.mark.parametrize("usage", [{"input_tokens": 2**40}, {"requests": 2**31}, {"output_tokens": -1}])
async def test_a_number_that_cannot_be_is_no_usage(lifesign: Lifesign, usage: Json) -> None:
    made = await scheduled(lifesign)
    await triggered(lifesign, made)

    done = await worked(lifesign, usage=usage)

    assert (done["status"], done["lifesign"]["reason"], done["tokens_used"]) == ("error", "invalid_output", 0)


async def test_a_worker_waits_for_a_run(lifesign: Lifesign) -> None:
    made = await scheduled(lifesign)

    waiting = asyncio.create_task(
        asked(lifesign, "POST", "/runs/claim", {"wait_seconds": 30, "bot_id": made["bot_id"]})
    )
    await triggered(lifesign, made)

    assert (await waiting)["run"]["prompt"] == made["prompt"]


@pytest.mark.parametrize("scope", ["bots:read", "bots:write", "bots:admin"])
async def test_runs_need_their_scope(lifesign: Lifesign, scope: str) -> None:
    made = await scheduled(lifesign)
    client = lifesign.client(await key(lifesign, [scope]))
    ref = {"bot_id": made["bot_id"], "heartbeat_id": made["uuid"]}

    await asked(lifesign, "POST", "/heartbeat/trigger", ref, client=client, expect=403)
    await asked(lifesign, "POST", "/runs/claim", {}, client=client, expect=403)
    await asked(lifesign, "GET", "/heartbeat/logs", bot_id=made["bot_id"], client=client)


# Traced -------------------------------------------------------------------------------------------------------------
async def test_a_run_is_a_session_of_its_project_without_what_was_said(lifesign: Lifesign) -> None:
    made = await scheduled(lifesign)
    await triggered(lifesign, made)
    usage = {"input_tokens": 900, "output_tokens": 600, "requests": 2}
    done = await worked(lifesign, usage=usage, status="error", error_message="No luck.")

    told = await lifesign.ask("GET", f"/v1/sessions/{done['uuid']}")
    (record,) = (await lifesign.ask("GET", f"/v1/telemetry?session_id={done['uuid']}"))["records"]

    assert told["session"]["session_id"] == done["uuid"]
    assert record["trace_id"] == done["lifesign"]["trace_id"]
    assert record["name"] == "invoke_agent Night watch"
    assert "Look at the error log" not in str(record)
    assert record["attributes"]["gen_ai.usage.input_tokens"] == 900
    assert record["attributes"]["error.type"] == "runner_error"


# Kept ---------------------------------------------------------------------------------------------------------------
async def test_transcripts_go_before_runs_and_what_goes_on_stays(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(bot_run_days=3, bot_transcript_days=1) as lifesign:
        made = await scheduled(lifesign, interval_minutes=44_640)
        await triggered(lifesign, made)
        run = await claimed(lifesign)
        assert run is not None
        await beaten(lifesign, run, log="looking")
        await finished(lifesign, run)
        waiting = await triggered(lifesign, made)

        await lifesign.advance(2 * 24 * 3600)
        rows = await logs(lifesign, made)
        said = await asked(lifesign, "GET", "/heartbeat/transcript", run_id=run["run_id"])
        await lifesign.advance(2 * 24 * 3600)

        assert [each["uuid"] for each in rows if each["type"] == "trigger"][-1] == run["run_id"]
        assert said["transcript"] == []
        await asked(lifesign, "GET", "/heartbeat/run", run_id=run["run_id"], expect=404)
        assert waiting["status"] == "queued"


async def test_a_server_may_be_started_with_all_bots_stopped(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(bots_stopped=True) as lifesign:
        made = await scheduled(lifesign)

        refused = await triggered(lifesign, made)
        await lifesign.advance(1800)

        assert (refused["status"], refused["reason"]) == ("skipped", "project_stopped")
        assert [each["lifesign"]["reason"] for each in await logs(lifesign, made)] == ["project_stopped"] * 2
        assert (await asked(lifesign, "GET", "/settings"))["settings"]["stopped"] == 0


# Approved -----------------------------------------------------------------------------------------------------------
async def _parked(lifesign: Lifesign, made: Json) -> Json:
    """A run that waits for approval, as its runner left it."""
    await triggered(lifesign, made)
    run = await claimed(lifesign)
    assert run is not None
    waits = Outcome("waiting_approval", parked=Parked("http_get", '{"url": "https://x.io"}', '{"at": 7}'))
    await lifesign.node.db.write(ending.finish, run["run_id"], run["lease_token"], waits, lifesign.now())
    return run


@pytest.mark.parametrize("is_approved", [True, False])
async def test_a_run_that_was_parked_goes_on_once_somebody_has_decided(lifesign: Lifesign, is_approved: bool) -> None:
    made = await scheduled(lifesign, credit_budget=50)
    run = await _parked(lifesign, made)
    shown = (await asked(lifesign, "GET", "/heartbeat/run", run_id=run["run_id"]))["run"]
    beside = await triggered(lifesign, made)
    reserved = (await read(lifesign, made))["lifesign"]["credits_reserved"]

    decision = {"run_id": run["run_id"], "approve": is_approved}
    queued = (await asked(lifesign, "POST", "/heartbeat/approve", decision))["run"]
    again = await asked(lifesign, "POST", "/heartbeat/approve", decision, expect=409)
    started = await lifesign.node.db.write(
        starting.start, run["run_id"], owner="test", now=lifesign.now(), door="claim"
    )
    assert started is not None
    done = await finished(lifesign, run | {"lease_token": started.run.lease_token})

    assert (shown["status"], shown["lifesign"]["approve_until"]) == ("waiting_approval", "2026-01-06T12:00:00.000Z")
    assert (beside["status"], beside["reason"], reserved) == ("skipped", "pending_approval", 0)
    assert (queued["status"], again["error"]["code"]) == ("queued", "not_waiting")
    assert started.resumed == ('{"at": 7}', is_approved)
    assert done["status"] == "success"
    assert (await read(lifesign, made))["execution_count"] == 1


async def test_a_stop_refuses_what_waits_for_a_place_and_what_somebody_approves(lifesign: Lifesign) -> None:
    waits = await scheduled(lifesign, interval_minutes=44_640)
    await triggered(lifesign, waits)
    asks = await configured(lifesign, waits["bot_id"], prompt="Asks", interval_minutes=44_640, enabled=True)
    queued = (await logs(lifesign, waits, status="queued"))[0]
    parked = await triggered(lifesign, asks)
    started = await lifesign.node.db.write(_started, parked["uuid"], lifesign.now())
    question = Outcome("waiting_approval", parked=Parked("http_get", "{}", "{}"))
    await lifesign.node.db.write(ending.finish, parked["uuid"], started.run.lease_token, question, lifesign.now())

    told = await asked(lifesign, "POST", "/stop", {"cancel_running": False})
    await asked(lifesign, "POST", "/heartbeat/approve", {"run_id": parked["uuid"], "approve": True})
    taken = await claimed(lifesign)

    ends = [(await asked(lifesign, "GET", "/heartbeat/run", run_id=each["uuid"]))["run"] for each in (queued, parked)]
    assert (told, taken) == ({"stopped": 1, "cancelled": 0}, None)
    assert [(each["status"], each["lifesign"]["reason"]) for each in ends] == [
        ("skipped", "project_stopped"),
        ("cancelled", "stopped"),
    ]


def _started(conn: Connection, run_id: str, now: EpochMs) -> starting.Started:
    found = starting.start(conn, run_id, owner="worker", now=now, door="claim")
    assert found is not None
    return found


async def test_nobody_decides_for_a_day_and_a_run_that_waits_can_be_cancelled(lifesign: Lifesign) -> None:
    forgotten = await scheduled(lifesign, interval_minutes=44_640)
    run = await _parked(lifesign, forgotten)
    await lifesign.advance(24 * 3600)
    expired = (await asked(lifesign, "GET", "/heartbeat/run", run_id=run["run_id"]))["run"]
    other = await _parked(lifesign, forgotten)

    cancelled = (await asked(lifesign, "POST", "/heartbeat/cancel", {"run_id": other["run_id"]}))["run"]

    assert (expired["status"], expired["lifesign"]["reason"]) == ("error", "approval_expired")
    assert (cancelled["status"], cancelled["lifesign"]["reason"]) == ("cancelled", "user")
    assert (await read(lifesign, forgotten))["error_count"] == 0
