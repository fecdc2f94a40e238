"""Slots that passed while no server was there. The server is stopped, the clock goes on, another one starts."""

import pytest

from tests.bots.asking import asked, configured, read, settings
from tests.bots.asking_runs import claimed, finished, logs, scheduled, triggered, worked
from tests.harness import Json, Lifesign, MakeLifesign

LEFT = "2026-01-05T00:00:00.000Z"


async def _slots_done(lifesign: Lifesign, most: int = 100) -> list[tuple[str, int]]:
    """Do what waits, one after the other; the slots, and how many others each stands for."""
    done: list[tuple[str, int]] = []
    while len(done) < most and (run := await claimed(lifesign)) is not None:
        assert await claimed(lifesign) is None
        ended = await finished(lifesign, run)
        done.append((run["slot"][:16], ended["lifesign"]["missed_count"]))
    return done


def _row(found: Json) -> tuple[str, str, str, int]:
    """What a row of the log says of slots that were not run."""
    own = found["lifesign"]
    return own["reason"], own["first_slot"][:16], own["last_slot"][:16], own["count"]


async def test_after_a_long_absence_there_is_one_run_or_one_row(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(at=LEFT) as before:
        caught = await scheduled(before)
        missed = await scheduled(before, lifesign={"catch_up": "skip"})
    async with start_lifesign(at="2026-01-05T10:10:00.000Z") as after:
        await after.advance()
        done = (await worked(after))["lifesign"]

        assert (done["kind"], done["missed_count"]) == ("catch_up", 19)
        assert (done["slot"], done["first_slot"]) == ("2026-01-05T10:00:00.000Z", "2026-01-05T00:30:00.000Z")
        (row,) = await logs(after, missed)
        assert row["status"] == "skipped"
        assert _row(row) == ("missed", "2026-01-05T00:30", "2026-01-05T10:00", 20)
        assert (await read(after, caught))["lifesign"]["next_run_at"] == "2026-01-05T10:30:00.000Z"


@pytest.mark.parametrize(
    ("back", "window_s", "is_caught"),
    [("10:15:00", None, True), ("10:15:01", None, False), ("10:15:01", 901, True), ("10:01:01", 60, False)],
)
async def test_a_slot_is_caught_up_while_it_is_not_too_old(
    start_lifesign: MakeLifesign, back: str, window_s: int | None, is_caught: bool
) -> None:
    async with start_lifesign(at=LEFT) as before:
        made = await scheduled(before, lifesign={"catch_up_window_seconds": window_s})
    async with start_lifesign(at=f"2026-01-05T{back}.000Z") as after:
        await after.advance()

        assert await _slots_done(after) == ([("2026-01-05T10:00", 19)] if is_caught else [])
        assert [_row(each) for each in await logs(after, made, status="skipped")] == (
            [] if is_caught else [("missed", "2026-01-05T00:30", "2026-01-05T10:00", 20)]
        )


async def test_a_slot_is_not_caught_up_once_its_hours_are_over(start_lifesign: MakeLifesign) -> None:
    hours: Json = {"active_hours_start": "09:00", "active_hours_end": "12:00", "interval_minutes": 60}
    async with start_lifesign(at=LEFT) as before:
        made = await scheduled(before, **hours)
    async with start_lifesign(at="2026-01-05T11:30:00.000Z") as within:
        await within.advance()
        done = await _slots_done(within)
    async with start_lifesign(at="2026-01-06T12:00:00.000Z") as closed:
        await closed.advance()
        late = await claimed(closed)
        (row, _) = await logs(closed, made)
        after = await read(closed, made)

    assert done == [("2026-01-05T11:00", 2)]
    assert late is None
    assert _row(row) == ("missed", "2026-01-06T09:00", "2026-01-06T11:00", 3)
    assert after["lifesign"]["next_run_at"] == "2026-01-07T09:00:00.000Z"


async def test_a_time_that_a_clock_skipped_is_caught_up_at_the_end_of_the_gap(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(at="2026-03-27T12:00:00.000Z") as before:
        made = await scheduled(before, cron_pattern="30 2 * * *", timezone="Europe/Berlin")
    async with start_lifesign(at="2026-03-29T01:20:00.000Z") as after:
        await after.advance()

        assert await _slots_done(after) == [("2026-03-29T01:00", 1)]
        assert (await read(after, made))["lifesign"]["next_run_at"] == "2026-03-30T00:30:00.000Z"


async def test_hours_that_closed_before_a_clock_was_put_back_stay_closed(start_lifesign: MakeLifesign) -> None:
    zone: Json = {"timezone": "Europe/Berlin", "interval_minutes": 30, "active_hours_start": "01:00"}
    async with start_lifesign(at="2026-10-24T12:00:00.000Z") as before:
        closed = await scheduled(before, active_hours_end="02:30", **zone)
        opened = await configured(
            before, closed["bot_id"], prompt="Until three.", enabled=True, active_hours_end="03:00", **zone
        )
    # The clock on the wall says 02:10 for the second time.
    async with start_lifesign(at="2026-10-25T01:10:00.000Z") as after:
        await after.advance()

        assert await _slots_done(after) == [("2026-10-25T01:00", 4)]
        (row,) = await logs(after, closed)
        assert _row(row) == ("missed", "2026-10-24T23:00", "2026-10-25T00:00", 3)
        assert (await read(after, closed))["lifesign"]["next_run_at"] == "2026-10-26T00:00:00.000Z"
        assert (await read(after, opened))["lifesign"]["next_run_at"] == "2026-10-25T01:30:00.000Z"


async def test_all_are_caught_up_in_order_the_latest_ten_even_by_two_servers(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(at=LEFT) as before:
        made = await scheduled(before, cron_pattern="0 * * * *", lifesign={"catch_up": "all"})
    async with start_lifesign(at="2026-01-05T13:10:00.000Z") as first:
        await first.advance()
        done = await _slots_done(first, most=4)
    async with start_lifesign(at="2026-01-05T13:20:00.000Z") as second:
        await second.advance()
        done += await _slots_done(second)
        after = await read(second, made)
        logged = await asked(second, "GET", "/heartbeat/logs", bot_id=made["bot_id"])

    assert done == [("2026-01-05T04:00", 3), *((f"2026-01-05T{hour:02d}:00", 0) for hour in range(5, 14))]
    assert (after["execution_count"], after["lifesign"]["next_run_at"]) == (10, "2026-01-05T14:00:00.000Z")
    assert (logged["total"], {each["lifesign"]["kind"] for each in logged["logs"]}) == (10, {"catch_up"})


async def test_what_is_caught_up_counts_among_the_runs_of_an_hour(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(at=LEFT) as before:
        made = await scheduled(before, cron_pattern="0 * * * *", lifesign={"catch_up": "all"})
        await settings(before, max_runs_per_hour=3)
    async with start_lifesign(at="2026-01-05T05:10:00.000Z") as after:
        await after.advance()
        done = await _slots_done(after)
        rows = [_row(each) for each in await logs(after, made, status="skipped")]

    assert done == [("2026-01-05T01:00", 0), ("2026-01-05T02:00", 0), ("2026-01-05T03:00", 0)]
    assert rows == [("rate_limited", "2026-01-05T04:00", "2026-01-05T05:00", 2)]


async def test_what_passed_while_bots_were_stopped_is_not_caught_up(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(at=LEFT) as before:
        made = await scheduled(before)
        await asked(before, "POST", "/stop", {})
    async with start_lifesign(at="2026-01-05T10:10:00.000Z") as after:
        await after.advance()
        await asked(after, "POST", "/resume", {})
        await after.advance()

        assert await claimed(after) is None
        (row,) = await logs(after, made)
        assert _row(row) == ("project_stopped", "2026-01-05T00:30", "2026-01-05T10:00", 20)
        assert (await read(after, made))["lifesign"]["next_run_at"] == "2026-01-05T10:30:00.000Z"


async def test_a_run_that_is_refused_says_for_which_slots_it_stood(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(at=LEFT) as before:
        broke = await scheduled(before, credit_budget=0)
        other = await scheduled(before, interval_minutes=44_640)
        limited = await configured(before, other["bot_id"], prompt="Also.", enabled=True)
        await settings(before, max_runs_per_hour=1)
    async with start_lifesign(at="2026-01-05T10:10:00.000Z") as after:
        # At the claim by the runs of the hour, or at the start by the budget.
        await settings(after, max_runs_per_hour=2)
        await triggered(after, other)
        await after.advance()
        await worked(after)
        rows = {each["lifesign"]["heartbeat_id"]: _row(each) for each in await logs(after, broke)}
        rows |= {each["lifesign"]["heartbeat_id"]: _row(each) for each in await logs(after, limited)}

    slots = ("2026-01-05T00:30", "2026-01-05T10:00", 20)
    assert rows == {broke["uuid"]: ("budget_exhausted", *slots), limited["uuid"]: ("rate_limited", *slots)}
