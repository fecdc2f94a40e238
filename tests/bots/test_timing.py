"""When schedules run. Expected instants are written out by hand."""

import hashlib
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifesign.bots import timing
from lifesign.bots.timing import Missed, Options, Start, Timing
from lifesign.clock import EpochMs, from_datetime, rfc3339
from lifesign.schedule import BadSchedule, reading_of

MINUTE, HOUR = 60_000, 3_600_000
BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


def at(text: str) -> EpochMs:
    return from_datetime(datetime.fromisoformat(text))


def shown(instant: int) -> str:
    return rfc3339(EpochMs(instant))[:16] + "Z"


def every(minutes: int, zone: str = "UTC", hours: str = "", days: tuple[int, ...] = ()) -> Timing:
    start, _, end = hours.partition("-")
    bounds = (timing.minutes_of(start), timing.minutes_of(end)) if hours else (None, None)
    return Timing(minutes, None, zone, *bounds, days)


def slots(schedule: Timing, after: str, count: int) -> list[str]:
    return [shown(each) for each in timing.slots_after(schedule, at(after), count)]


def slots_between(schedule: Timing, after: str, before: str) -> list[str]:
    found = timing.slots_after(schedule, at(after), 100)
    return [shown(each) for each in found if each < at(before)]


# Windows and zones --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("schedule", "last", "expected"),
    [
        (every(30, NEW_YORK, "09:00-17:00", (1, 2, 3, 4, 5)), "2026-03-06T16:30-05:00", "2026-03-09T13:00Z"),
        (every(60, BERLIN, "22:00-06:00", (5,)), "2026-03-28T05:00+01:00", "2026-04-03T20:00Z"),
        (every(30, BERLIN, "02:30-06:00"), "2026-03-28T05:30+01:00", "2026-03-29T01:00Z"),
        (every(10, BERLIN, "02:00-02:30"), "2026-03-28T02:20+01:00", "2026-03-30T00:00Z"),
        (every(24 * 60, BERLIN), "2026-03-28T09:00+01:00", "2026-03-29T08:00Z"),
        (every(60, "UTC", days=(1,)), "2026-01-05T23:30Z", "2026-01-12T00:00Z"),
        (every(30, "UTC", "00:00-24:00", (7,)), "2026-01-04T23:30Z", "2026-01-11T00:00Z"),
        (every(30, "UTC", "09:00-17:00"), "2026-01-05T16:30Z", "2026-01-06T09:00Z"),
        (every(30, "UTC", "09:00-17:00"), "2026-01-05T16:15Z", "2026-01-05T16:45Z"),
        # A whole day that the zone never had.
        (every(60, "Pacific/Apia", "09:00-10:00"), "2011-12-29T09:30-10:00", "2011-12-30T19:00Z"),
    ],
)
def test_the_next_slot_lies_in_the_window_of_an_active_day(schedule: Timing, last: str, expected: str) -> None:
    assert slots(schedule, last, 1) == [expected]


def test_a_night_has_as_many_slots_as_it_has_hours() -> None:
    nights = every(60, BERLIN, "22:00-06:00")

    spring = slots_between(nights, "2026-03-28T12:00+01:00", "2026-03-29T12:00+02:00")
    autumn = slots_between(nights, "2026-10-24T12:00+02:00", "2026-10-25T12:00+01:00")

    assert (len(spring), spring[0], spring[-1]) == (7, "2026-03-28T21:00Z", "2026-03-29T03:00Z")
    assert (len(autumn), autumn[0], autumn[-1]) == (9, "2026-10-24T20:00Z", "2026-10-25T04:00Z")


def test_a_window_that_closed_in_the_first_pass_of_an_hour_stays_closed_in_the_second() -> None:
    assert slots(every(30, BERLIN, "01:00-02:30"), "2026-10-24T12:00+02:00", 4) == [
        "2026-10-24T23:00Z",
        "2026-10-24T23:30Z",
        "2026-10-25T00:00Z",
        "2026-10-26T00:00Z",
    ]


def test_a_window_that_ends_after_a_repeated_hour_is_open_for_both_passes() -> None:
    assert slots_between(every(30, BERLIN, "02:00-03:00"), "2026-10-24T12:00+02:00", "2026-10-25T12:00+01:00") == [
        "2026-10-25T00:00Z",
        "2026-10-25T00:30Z",
        "2026-10-25T01:00Z",
        "2026-10-25T01:30Z",
    ]


def test_an_interval_longer_than_a_day_wanders_through_the_window_and_begins_anew_with_it() -> None:
    assert slots(every(26 * 60, "UTC", "09:00-17:00"), "2026-05-01T09:00Z", 4) == [
        "2026-05-02T11:00Z",
        "2026-05-03T13:00Z",
        "2026-05-04T15:00Z",
        "2026-05-06T09:00Z",
    ]


@pytest.mark.parametrize("zone", [BERLIN, "Africa/Cairo", "America/Havana", "Australia/Lord_Howe"])
@pytest.mark.parametrize("minutes", [361, 26 * 60])
def test_a_window_of_the_whole_day_is_none(zone: str, minutes: int) -> None:
    # A year, with days of 23 and 25 hours, and in Cairo and Havana clocks that change at midnight.
    whole, none = every(minutes, zone, "00:00-24:00"), every(minutes, zone)
    count = 366 * 24 * 60 // minutes

    assert timing.slots_after(whole, at("2026-01-01T00:00Z"), count) == timing.slots_after(
        none, at("2026-01-01T00:00Z"), count
    )


def test_a_window_that_never_opens_is_told() -> None:
    with pytest.raises(BadSchedule):
        timing.next_slot(Timing(10, None, "UTC", 60, 60, (1,)), at("2026-01-01T00:00Z"))


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        ("30 2 * * *", BERLIN, "2026-03-28T12:00Z", ["2026-03-29T01:00Z", "2026-03-30T00:30Z"]),
        ("30 2 * * *", BERLIN, "2026-10-24T12:00Z", ["2026-10-25T00:30Z", "2026-10-26T01:30Z"]),
        ("*/30 * * * *", BERLIN, "2026-10-25T00:00Z", ["2026-10-25T00:30Z", "2026-10-25T01:00Z", "2026-10-25T01:30Z"]),
        ("@daily", NEW_YORK, "2026-01-05T12:00Z", ["2026-01-06T05:00Z"]),
        ("@hourly", "UTC", "2026-01-05T12:00Z", ["2026-01-05T13:00Z"]),
        ("@weekly", "UTC", "2026-01-05T12:00Z", ["2026-01-11T00:00Z"]),
        ("@monthly", "UTC", "2026-01-05T12:00Z", ["2026-02-01T00:00Z"]),
        ("@annually", "UTC", "2026-01-05T12:00Z", ["2027-01-01T00:00Z"]),
        ("0 9 * * 0", "UTC", "2026-01-05T12:00Z", ["2026-01-11T09:00Z"]),
        ("0 9 * * 7", "UTC", "2026-01-05T12:00Z", ["2026-01-11T09:00Z"]),
        ("0 0 13 * 5", "UTC", "2026-01-10T00:00Z", ["2026-01-13T00:00Z", "2026-01-16T00:00Z"]),
        ("0 0 */2 * 5", "UTC", "2026-01-10T00:00Z", ["2026-01-23T00:00Z", "2026-02-13T00:00Z"]),
    ],
)
def test_cron_slots_are_those_of_the_zone(cron: str, zone: str, after: str, expected: list[str]) -> None:
    assert slots(Timing(cron=cron, timezone=zone), after, len(expected)) == expected


# What is accepted ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "cron",
    [
        "0 0 31 2 *",
        "0 9 * * FRI-MON",
        "0 0 9 * * 1",
        "* * * *",
        "0 9 ? * 1",
        "0 0 15W * *",
        "0 0 LW * *",
        "@reboot",
        "",
    ],
)
def test_patterns_that_others_take_otherwise_are_refused(cron: str) -> None:
    with pytest.raises(BadSchedule):
        timing.cron_of(cron, "UTC", at("2026-01-05T12:00Z"))


def test_a_pattern_whose_first_date_is_far_away_is_refused() -> None:
    # 2096 is a leap year and 2100 is none.
    with pytest.raises(BadSchedule, match="5 years"):
        timing.cron_of("0 0 29 2 *", "UTC", at("2096-03-01T00:00Z"))


def test_blanks_of_a_pattern_are_folded_and_macros_kept() -> None:
    assert timing.cron_of(" 0  9 * *\t1-5 ", "UTC", at("2026-01-05T12:00Z")) == "0 9 * * 1-5"
    assert timing.cron_of("@daily", "UTC", at("2026-01-05T12:00Z")) == "@daily"


@pytest.mark.parametrize(
    ("cron", "least"), [("0 9 * * 1-5", 1440), ("0,30 9 * * *", 30), ("*/7 * * * *", 4), ("@hourly", 60)]
)
def test_the_least_gap_of_a_pattern_is_found(cron: str, least: float) -> None:
    assert timing.least_gap_minutes(cron, at("2026-01-05T12:00Z")) == least


@pytest.mark.parametrize(
    ("text", "minutes"), [("00:00", 0), ("09:05", 545), ("23:59", 1439), ("24:00", 1440), ("9:00", None)]
)
def test_times_are_read_to_the_letter(text: str, minutes: int | None) -> None:
    assert timing.minutes_of(text) == minutes
    assert minutes is None or timing.time_of(minutes) == text


@pytest.mark.parametrize("text", ["24:01", "25:00", "12:60", "0900", "", "1\u0662:00"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert timing.minutes_of(text) is None


@pytest.mark.parametrize(
    ("text", "days"), [("1", (1,)), ("5,1", (1, 5)), ("0", None), ("8", None), ("", None), ("Mon", None), ("1,1", None)]
)
def test_days_are_sorted_and_never_twice(text: str, days: tuple[int, ...] | None) -> None:
    assert timing.days_of(text) == days


# Jitter -------------------------------------------------------------------------------------------------------------
def test_jitter_is_that_of_the_published_example() -> None:
    slot = at("2026-03-09T13:00Z")

    assert timing.jitter_ms("sch_0190a1b2c3d47000800000000000000a", slot, 600) == 74_000


def test_jitter_ends_before_the_next_slot_and_before_the_window_closes() -> None:
    often = Timing(1)
    closing = every(60, "UTC", "09:00-12:01")
    moved = [timing.effective_at(often, Options(jitter_s=3600), f"sch_{n}", at("2026-01-05T12:00Z")) for n in range(50)]
    late = [
        timing.effective_at(closing, Options(jitter_s=3600), f"sch_{n}", at("2026-01-05T12:00Z")) for n in range(50)
    ]

    assert max(moved) == at("2026-01-05T12:00:59Z")
    assert max(late) == at("2026-01-05T12:00:59Z")


# What is due --------------------------------------------------------------------------------------------------------
HALF_HOURLY = every(30)
LAST = at("2026-01-05T02:00Z")


def judged(now: str, schedule: Timing = HALF_HOURLY, last: EpochMs = LAST, **options: Any) -> timing.Due:
    found = timing.due(schedule, Options(**options), "sch_1", last, at(now))
    assert found is not None
    return found


def test_nothing_is_due_before_the_next_slot() -> None:
    assert timing.due(HALF_HOURLY, Options(), "sch_1", LAST, at("2026-01-05T02:29:59Z")) is None


def test_a_slot_on_time_is_run_and_the_next_stays_on_the_grid() -> None:
    due = judged("2026-01-05T02:30:59Z")

    assert due.starts == (Start(at("2026-01-05T02:30Z"), at("2026-01-05T02:30Z"), "scheduled"),)
    assert due.missed is None
    assert shown(due.next_slot) == "2026-01-05T03:00Z"


def test_after_ten_hours_one_run_carries_the_nineteen_others() -> None:
    due = judged("2026-01-05T12:10Z")

    assert due.starts == (Start(at("2026-01-05T12:00Z"), at("2026-01-05T12:00Z"), "catch_up", 19),)
    assert due.missed is None
    assert shown(due.next_slot) == "2026-01-05T12:30Z"


@pytest.mark.parametrize(("now", "options"), [("2026-01-05T12:20Z", {}), ("2026-01-05T12:10Z", {"catch_up": "skip"})])
def test_what_is_too_old_or_unwanted_is_one_row(now: str, options: dict[str, Any]) -> None:
    due = judged(now, **options)

    assert due.starts == ()
    assert due.missed == Missed(at("2026-01-05T02:30Z"), at("2026-01-05T12:00Z"), 20)


def test_a_slot_on_time_carries_those_before_it_unless_they_are_to_be_skipped() -> None:
    carried, skipped = judged("2026-01-05T12:00:30Z"), judged("2026-01-05T12:00:30Z", catch_up="skip")

    assert carried.starts == (Start(at("2026-01-05T12:00Z"), at("2026-01-05T12:00Z"), "scheduled", 19),)
    assert carried.missed is None
    assert skipped.starts == (Start(at("2026-01-05T12:00Z"), at("2026-01-05T12:00Z"), "scheduled"),)
    assert skipped.missed == Missed(at("2026-01-05T02:30Z"), at("2026-01-05T11:30Z"), 19)


def test_nothing_is_caught_up_after_the_window_closed() -> None:
    daily = every(60, "UTC", "09:00-12:00")

    due = judged("2026-01-05T12:05Z", daily, at("2026-01-05T10:00Z"))

    assert due.starts == ()
    assert due.missed == Missed(at("2026-01-05T11:00Z"), at("2026-01-05T11:00Z"), 1)


def test_all_are_caught_up_in_order_but_for_those_before_the_latest_ten() -> None:
    hourly = Timing(cron="0 * * * *")

    due = judged("2026-01-05T14:30Z", hourly, catch_up="all")

    assert [shown(each.slot)[11:16] for each in due.starts] == [f"{n:02d}:00" for n in range(5, 15)]
    assert [each.missed_count for each in due.starts] == [2, *[0] * 9]
    assert {each.kind for each in due.starts} == {"catch_up"}


def test_a_slot_that_waits_for_its_jitter_is_not_due_and_hides_none_before_it() -> None:
    # The jitter of 13:00 on this day is 74 s, as in the published example.
    schedule_id = "sch_0190a1b2c3d47000800000000000000a"
    hourly, options = every(60), Options(jitter_s=600)
    last = at("2026-03-09T12:00Z")

    assert timing.due(hourly, options, schedule_id, last, at("2026-03-09T13:01:13Z")) is None
    found = timing.due(hourly, options, schedule_id, last, at("2026-03-09T13:01:14Z"))

    assert found is not None
    assert found.starts == (Start(at("2026-03-09T13:00Z"), at("2026-03-09T13:01:14Z"), "scheduled"),)


@pytest.mark.parametrize(
    ("schedule", "count"),
    [
        (every(1), 525_600),
        (every(1, "UTC", "09:00-10:00"), 365 * 60),
        (Timing(cron="* * * * *"), timing.MOST_COUNTED),
    ],
)
def test_a_year_away_is_counted_without_walking_through_it(schedule: Timing, count: int) -> None:
    last, now = at("2025-01-01T00:00Z"), at("2026-01-01T00:00Z")

    due = timing.due(schedule, Options(catch_up="skip"), "sch_1", last, now)

    assert due is not None
    total = len(due.starts) + (due.missed.count if due.missed else 0)
    assert total == count
    assert due.next_slot > now


def test_a_clock_that_goes_back_repeats_nothing() -> None:
    assert timing.due(HALF_HOURLY, Options(), "sch_1", at("2026-01-05T12:00Z"), at("2026-01-05T11:31Z")) is None


# Of any schedule ----------------------------------------------------------------------------------------------------
ZONES = st.sampled_from(
    ["UTC", BERLIN, NEW_YORK, "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca", "America/St_Johns"]
)
TIMINGS = st.one_of(
    st.builds(
        lambda minutes, zone, bounds, days: Timing(minutes, None, zone, bounds[0], bounds[1], tuple(sorted(days))),
        st.integers(1, timing.MAX_INTERVAL_MINUTES),
        ZONES,
        st.just((None, None))
        | st.tuples(st.integers(0, 1439), st.integers(1, 1440)).filter(lambda pair: pair[0] != pair[1]),
        st.sets(st.integers(1, 7)),
    ),
    st.builds(
        lambda minute, hour, zone: Timing(cron=f"{minute} {hour} * * *", timezone=zone),
        st.sampled_from(["0", "*/7", "30", "15,45"]),
        st.sampled_from(["*", "2", "1-3", "*/5"]),
        ZONES,
    ),
)
INSTANTS = st.integers(at("2024-01-01T00:00Z") // 1000, at("2028-01-01T00:00Z") // 1000).map(
    lambda seconds: EpochMs(seconds * 1000)
)


@given(TIMINGS, INSTANTS)
@settings(max_examples=300, deadline=None)
def test_slots_go_forward_and_lie_in_windows(schedule: Timing, after: EpochMs) -> None:
    found = timing.slots_after(schedule, after, 5)

    assert found
    assert all(one < later for one, later in pairwise([after, *found]))
    assert all(timing.is_legal(schedule, each) for each in found)
    assert all(each % 1000 == 0 for each in found)


@given(TIMINGS, INSTANTS, st.integers(0, 3600), st.text("abcdef0123456789", min_size=1))
@settings(max_examples=200, deadline=None)
def test_jitter_never_passes_the_next_slot_and_never_changes(
    schedule: Timing, after: EpochMs, jitter_s: int, schedule_id: str
) -> None:
    slot, following = timing.slots_after(schedule, after, 2)
    options = Options(jitter_s=jitter_s)

    moved = timing.effective_at(schedule, options, schedule_id, slot)

    assert slot <= moved < following
    assert moved - slot <= jitter_s * 1000
    assert timing.is_legal(schedule, moved)
    assert moved == timing.effective_at(schedule, options, schedule_id, slot)
    digest = hashlib.sha256(f"{schedule_id}:{rfc3339(slot)[:19]}Z".encode()).hexdigest()
    assert moved - slot <= int(digest[:8], 16) % (jitter_s + 1) * 1000


@given(TIMINGS, INSTANTS, st.lists(st.integers(1, 3 * 24 * HOUR), min_size=1, max_size=6))
@settings(max_examples=200, deadline=None)
def test_every_slot_is_run_or_counted_exactly_once_however_often_somebody_looks(
    schedule: Timing, start: EpochMs, steps: list[int]
) -> None:
    last, now, told = start, start, 0
    for step in steps:
        now = EpochMs(now + step)
        due = timing.due(schedule, Options(), "sch_1", last, now)
        if due is not None:
            told += len(due.starts) + sum(each.missed_count for each in due.starts)
            told += due.missed.count if due.missed else 0
            assert due.last_slot <= now < due.next_slot
            last = due.last_slot

    walked, slot = 0, timing.next_slot(schedule, start)
    while slot <= now:
        walked += 1
        slot = timing.next_slot(schedule, slot)
    assert told == walked


@given(st.dates(date(2024, 1, 1), date(2028, 1, 1)), st.integers(0, 1439), ZONES)
@settings(max_examples=200, deadline=None)
def test_a_wall_time_is_resolved_to_one_that_the_clock_shows_or_to_the_end_of_a_gap(
    day: date, minutes: int, zone: str
) -> None:
    resolved = timing.resolve(day, minutes, zone)

    before, after = (
        reading_of(EpochMs(resolved - 1), zone),
        reading_of(resolved, zone),
    )
    wanted = datetime(day.year, day.month, day.day) + timedelta(minutes=minutes)  # noqa: DTZ001 - a wall clock
    assert before < wanted <= after
