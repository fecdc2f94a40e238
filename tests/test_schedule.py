"""Schedules: what is accepted, and when it is due next. Expected instants are written out by hand."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from lifesign.clock import EpochMs, from_datetime, rfc3339, to_datetime
from lifesign.schedule import BadSchedule, is_timezone, next_after, normalized, todays_timezone

MINUTE_MS = 60_000
DAY_MS = 86_400_000


def instant(text: str) -> EpochMs:
    return from_datetime(datetime.fromisoformat(text))


def due(expression: str, timezone: str, after: str) -> str:
    return rfc3339(next_after(expression, timezone, instant(after)))[:16] + "Z"


def due_list(expression: str, timezone: str, after: str, length: int) -> list[str]:
    found = []
    at = instant(after)
    for _ in range(length):
        at = next_after(expression, timezone, at)
        found.append(rfc3339(at)[:16] + "Z")
    return found


# What is accepted


def test_runs_of_blanks_are_folded() -> None:
    assert normalized(" 0\t 2  *\n* MON-FRI ") == "0 2 * * MON-FRI"


@pytest.mark.parametrize(
    "expression",
    [
        "* * * * *",
        "*/5 * * * *",
        "0 2 * * *",
        "0,30 9-17/2 1,15 JAN-MAR mon",
        "0 0 L * *",
        "0 0 LW * *",
        "0 0 * * 5L",
        "0 0 * * MON#2",
        "0 0 * * 7",
        "0 0 29 2 *",
        "0 0 29 2 */7",  # 29 February on a Sunday: 2032, and once never for 40 years
        "0 0 30 2 1#5",  # either matches: never the 30th, but 29 February 2044 is a fifth Monday
    ],
)
def test_an_expression_that_comes_some_day_is_accepted_as_written(expression: str) -> None:
    assert normalized(expression) == expression


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "   ",
        "@daily",
        "@reboot",
        "@every 5m x y z",
        "0 0 * *",
        "0 0 0 * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * 0 *",
        "* * * * 8",
        "*/0 * * * *",
        "5-1 * * * *",
        "-1 * * * *",
        "1.5 * * * *",
        ", * * * *",
        "a * * * *",
        "\u0661 * * * *",  # an Arabic digit
        "* * * * MON#6",
        "* * * * L",
        "? * * * *",
        "0 0 30 2 *",
        "0 0 31 2,4,6,9,11 *",
        "0 0 */40 * MON#5",  # a first of the month is never a fifth Monday
        "0 0 LW * */6",  # the last weekday of a month is neither Saturday nor Sunday
    ],
)
def test_what_is_no_schedule_or_never_comes_is_refused_with_a_reason(expression: str) -> None:
    with pytest.raises(BadSchedule) as refused:
        normalized(expression)

    assert refused.value.reason


def test_a_hundred_characters_are_accepted_and_one_more_is_not() -> None:
    hundred = "0,".ljust(92, "0") + " 2 * * *"
    assert len(hundred) == 100

    assert normalized(hundred) == hundred
    with pytest.raises(BadSchedule, match="100 characters"):
        normalized(hundred + " ")


def test_a_job_that_falls_into_a_skipped_hour_alone_is_refused_in_that_time_zone_only() -> None:
    # The second Sunday of March is when New York skips 02:00-02:59.
    second_sunday_of_march = "*/5 2 * 3 SUN#2"

    assert normalized(second_sunday_of_march) == second_sunday_of_march
    with pytest.raises(BadSchedule, match="no date"):
        normalized(second_sunday_of_march, "America/New_York")


@given(st.text(alphabet="0123456789*/,-#LWMONJAFEB @?\t", max_size=110))
@settings(deadline=None, max_examples=300)
def test_any_text_is_either_refused_or_accepted_for_good(text: str) -> None:
    try:
        accepted = normalized(text)
    except BadSchedule:
        return

    assert normalized(accepted) == accepted
    assert next_after(accepted, "UTC", instant("2096-03-01T00:00Z")) > instant("2096-03-01T00:00Z")


# The examples of the specification


def test_both_jobs_of_the_skipped_hour_are_due_at_its_end() -> None:
    assert due("0 2 * * *", "America/New_York", "2026-03-07T07:05Z") == "2026-03-08T07:00Z"
    assert due("30 2 * * *", "America/New_York", "2026-03-07T07:35Z") == "2026-03-08T07:00Z"


def test_a_fixed_time_in_the_repeated_hour_is_due_once_the_first_time() -> None:
    assert due_list("30 1 * * *", "America/New_York", "2026-11-01T00:00Z", 2) == [
        "2026-11-01T05:30Z",
        "2026-11-02T06:30Z",
    ]


def test_an_hourly_job_is_due_in_both_repeated_hours() -> None:
    assert due_list("30 * * * *", "America/New_York", "2026-11-01T05:00Z", 3) == [
        "2026-11-01T05:30Z",
        "2026-11-01T06:30Z",
        "2026-11-01T07:30Z",
    ]


def test_an_early_check_in_does_not_cover_the_slot_that_follows() -> None:
    assert due("0 2 * * *", "UTC", "2026-05-05T01:58Z") == "2026-05-05T02:00Z"


# Further examples


def test_the_next_date_is_strictly_after_to_the_millisecond() -> None:
    two = instant("2026-05-05T02:00Z")

    assert next_after("0 2 * * *", "UTC", EpochMs(two - 1)) == two
    assert next_after("0 2 * * *", "UTC", two) == two + DAY_MS
    assert next_after("0 2 * * *", "UTC", EpochMs(two + 1)) == two + DAY_MS


def test_a_job_in_the_skipped_hour_is_due_no_second_time_at_its_own_hour() -> None:
    assert due_list("0 2,3 * * *", "America/New_York", "2026-03-08T06:00Z", 2) == [
        "2026-03-08T07:00Z",
        "2026-03-09T06:00Z",
    ]


@pytest.mark.parametrize(
    "within_the_second_pass", ["2026-11-01T06:00Z", "2026-11-01T06:10Z", "2026-11-01T06:30Z", "2026-11-01T06:59Z"]
)
def test_asked_in_the_second_pass_of_the_repeated_hour_a_fixed_time_is_due_the_next_day(
    within_the_second_pass: str,
) -> None:
    assert due("30 1 * * *", "America/New_York", within_the_second_pass) == "2026-11-02T06:30Z"


def test_a_job_of_every_minute_of_a_starred_hour_is_skipped_with_the_hour() -> None:
    assert due("*/30 2 * * *", "America/New_York", "2026-03-08T05:00Z") == "2026-03-09T06:00Z"


def test_a_job_of_starred_minutes_runs_in_both_passes_of_the_repeated_hour() -> None:
    assert due_list("*/30 1 * * *", "America/New_York", "2026-11-01T05:00Z", 4) == [
        "2026-11-01T05:30Z",
        "2026-11-01T06:00Z",
        "2026-11-01T06:30Z",
        "2026-11-02T06:00Z",
    ]


def test_a_fixed_time_in_a_gap_of_half_an_hour_is_due_at_its_end() -> None:
    # Lord Howe: 02:00 became 02:30 at 15:30Z.
    assert due("10 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00Z") == "2026-10-03T15:30Z"
    assert due("30 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00Z") == "2026-10-03T15:30Z"
    assert due("45 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00Z") == "2026-10-03T15:45Z"


def test_no_run_is_lost_around_changes_of_half_an_hour() -> None:
    # After the gap it is UTC+11; before it, and after the repeated half hour, UTC+10:30.
    assert due_list("*/15 3 * * *", "Australia/Lord_Howe", "2026-10-03T12:00Z", 2) == [
        "2026-10-03T16:00Z",
        "2026-10-03T16:15Z",
    ]
    assert due_list("*/15 2 * * *", "Australia/Lord_Howe", "2026-04-04T12:00Z", 2) == [
        "2026-04-04T15:30Z",
        "2026-04-04T15:45Z",
    ]
    assert due_list("45 * * * *", "Australia/Lord_Howe", "2026-04-04T14:00Z", 3) == [
        "2026-04-04T14:45Z",
        "2026-04-04T15:15Z",
        "2026-04-04T16:15Z",
    ]


def test_midnight_may_be_the_skipped_hour() -> None:
    # Santiago: 2026-09-06 begins at 01:00 (04:00Z).
    assert due("0 0 * * *", "America/Santiago", "2026-09-05T12:00Z") == "2026-09-06T04:00Z"
    assert due("*/15 0 6 9 *", "America/Santiago", "2026-09-05T12:00Z") == "2027-09-06T03:00Z"


def test_the_hour_before_midnight_may_be_the_repeated_one() -> None:
    # Sao Paulo: 2018-02-17 had 23:00-23:59 twice, first at UTC-2.
    assert due_list("0 23 * * *", "America/Sao_Paulo", "2018-02-17T12:00Z", 2) == [
        "2018-02-18T01:00Z",
        "2018-02-19T02:00Z",
    ]
    assert due_list("0 * 17 2 *", "America/Sao_Paulo", "2018-02-18T00:30Z", 3) == [
        "2018-02-18T01:00Z",
        "2018-02-18T02:00Z",
        "2019-02-17T03:00Z",
    ]


def test_a_job_of_a_skipped_day_is_due_when_the_next_day_begins() -> None:
    # Samoa had no 30 December 2011: 31 December began at 10:00Z.
    assert due("0 12 * * *", "Pacific/Apia", "2011-12-29T23:00Z") == "2011-12-30T10:00Z"


def test_winter_and_summer_follow_the_zone_of_the_job() -> None:
    assert due("0 9 * * *", "Europe/Berlin", "2026-01-10T00:00Z") == "2026-01-10T08:00Z"
    assert due("0 9 * * *", "Europe/Berlin", "2026-07-10T00:00Z") == "2026-07-10T07:00Z"
    assert due("30 9 * * *", "Asia/Kolkata", "2026-07-10T00:00Z") == "2026-07-10T04:00Z"


def test_restricted_day_and_weekday_match_either() -> None:
    # The 13th or a Friday: 2026-02-06 is a Friday, the 13th too.
    assert due_list("0 0 15 * FRI", "UTC", "2026-02-07T00:00Z", 3) == [
        "2026-02-13T00:00Z",
        "2026-02-15T00:00Z",
        "2026-02-20T00:00Z",
    ]


def test_zero_and_seven_are_sunday() -> None:
    assert due("0 0 * * 0", "UTC", "2026-03-03T00:00Z") == "2026-03-08T00:00Z"
    assert due("0 0 * * 7", "UTC", "2026-03-03T00:00Z") == "2026-03-08T00:00Z"


def test_last_days_and_numbered_weekdays_are_understood() -> None:
    assert due("0 0 L * *", "UTC", "2026-02-03T00:00Z") == "2026-02-28T00:00Z"
    assert due("0 0 LW * *", "UTC", "2026-02-03T00:00Z") == "2026-02-27T00:00Z"
    assert due("0 0 * * 5L", "UTC", "2026-01-03T00:00Z") == "2026-01-30T00:00Z"
    assert due("0 0 * * mon#2", "UTC", "2026-01-03T00:00Z") == "2026-01-12T00:00Z"


def test_the_twenty_ninth_of_february_is_found_eight_years_ahead() -> None:
    assert due("0 0 29 2 *", "UTC", "2096-03-01T00:00Z") == "2104-02-29T00:00Z"


# Time zones


@pytest.mark.parametrize("name", ["UTC", "America/New_York", "Europe/Berlin", "Etc/GMT+5", "Asia/Kolkata", "GMT"])
def test_names_of_iana_are_time_zones(name: str) -> None:
    assert is_timezone(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Mars/Base",
        "europe/berlin",
        "Europe/berlin",
        " UTC",
        "America",
        "Factory",
        "localtime",
        "posixrules",
        "posix/UTC",
        "right/UTC",
        "zone.tab",
        "../UTC",
        "UTC\0",
        "+01:00",
    ],
)
def test_other_names_and_other_spellings_are_not(name: str) -> None:
    assert not is_timezone(name)


# Properties: near the changes of clocks in many zones

CHANGES = [
    ("America/New_York", "2026-03-08T07:00Z"),
    ("America/New_York", "2026-11-01T06:00Z"),
    ("Europe/Berlin", "2026-03-29T01:00Z"),
    ("Europe/Berlin", "2026-10-25T01:00Z"),
    ("Europe/Dublin", "2026-10-25T01:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T15:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T15:30Z"),
    ("Africa/Casablanca", "2026-02-15T02:00Z"),
    ("Africa/Casablanca", "2026-03-22T02:00Z"),
    ("Asia/Kolkata", "2026-03-08T07:00Z"),
    ("America/Sao_Paulo", "2018-02-18T02:00Z"),
    ("America/Sao_Paulo", "2018-11-04T03:00Z"),
    ("America/Santiago", "2026-04-05T03:00Z"),
    ("America/Santiago", "2026-09-06T04:00Z"),
    ("Asia/Beirut", "2026-03-28T22:00Z"),
    ("Atlantic/Azores", "2026-10-25T01:00Z"),
    ("Antarctica/Troll", "2026-10-25T01:00Z"),
    ("Asia/Pyongyang", "2018-05-04T15:00Z"),
    ("Pacific/Apia", "2011-12-30T10:00Z"),
    ("UTC", "2026-03-08T07:00Z"),
]

near_changes = st.tuples(
    st.sampled_from(CHANGES),
    st.one_of(st.integers(-2 * DAY_MS, 2 * DAY_MS), st.integers(-180, 180).map(MINUTE_MS.__mul__)),
).map(lambda drawn: (drawn[0][0], EpochMs(instant(drawn[0][1]) + drawn[1])))

minutes = st.frozensets(st.integers(0, 59), min_size=1, max_size=5)
hours = st.frozensets(st.one_of(st.integers(0, 4), st.integers(0, 23)), min_size=1, max_size=4)
days = st.sampled_from(["* * *", "* * 0", "*/2 * *", "1,29 * 6", "L * *"])


def listed(numbers: frozenset[int]) -> str:
    return ",".join(str(number) for number in sorted(numbers))


fixed_expressions = st.builds(lambda minute, hour, day: f"{listed(minute)} {listed(hour)} {day}", minutes, hours, days)
elapsed_expressions = st.one_of(
    st.builds(lambda minute, day: f"{listed(minute)} * {day}", minutes, days),
    st.builds(lambda step, hour, day: f"*/{step} {listed(hour)} {day}", st.integers(1, 40), hours, days),
    st.builds(lambda minute, step, day: f"{listed(minute)} */{step} {day}", minutes, st.integers(1, 12), days),
)


@given(fixed_expressions, near_changes)
@settings(deadline=None, max_examples=400)
def test_a_fixed_time_is_the_first_later_one_of_a_walk_begun_days_before(
    expression: str, place: tuple[str, EpochMs]
) -> None:
    timezone, after = place
    walk = CronSim(expression, to_datetime(EpochMs(after - 4 * DAY_MS)).astimezone(ZoneInfo(timezone)))
    expected = next(at for moment in walk if (at := from_datetime(moment)) > after)

    assert rfc3339(next_after(expression, timezone, after)) == rfc3339(expected)


@given(
    st.one_of(
        st.tuples(minutes, st.none()),
        st.tuples(st.none(), hours),
    ),
    near_changes,
)
@settings(deadline=None, max_examples=200)
def test_a_starred_time_is_the_first_minute_at_which_the_clock_shows_it(
    drawn: tuple[frozenset[int] | None, frozenset[int] | None], place: tuple[str, EpochMs]
) -> None:
    timezone, after = place
    at_minutes, at_hours = drawn
    expression = f"{listed(at_minutes) if at_minutes else '*'} {listed(at_hours) if at_hours else '*'} * * *"
    zone = ZoneInfo(timezone)
    minute = to_datetime(after).replace(second=0, microsecond=0) + timedelta(minutes=1)
    while not (
        minute.astimezone(zone).minute in (at_minutes or range(60))
        and minute.astimezone(zone).hour in (at_hours or range(24))
    ):
        minute += timedelta(minutes=1)

    assert rfc3339(next_after(expression, timezone, after)) == rfc3339(from_datetime(minute))


@given(st.one_of(fixed_expressions, elapsed_expressions), near_changes)
@settings(deadline=None, max_examples=300)
def test_no_schedule_is_due_twice_at_one_instant_and_none_runs_backwards(
    expression: str, place: tuple[str, EpochMs]
) -> None:
    timezone, at = place
    chain = [at]
    for _ in range(12):
        chain.append(next_after(expression, timezone, chain[-1]))

    assert all(earlier < later for earlier, later in pairwise(chain))


@given(st.one_of(fixed_expressions, elapsed_expressions), near_changes, st.integers(0, 6 * 3600))
@settings(deadline=None, max_examples=300)
def test_asking_again_before_it_is_due_gives_the_same_answer(
    expression: str, place: tuple[str, EpochMs], seconds: int
) -> None:
    timezone, after = place
    answer = next_after(expression, timezone, after)
    between = EpochMs(min(after + seconds * 1000, answer - 1))

    assert next_after(expression, timezone, between) == answer


@given(st.one_of(fixed_expressions, elapsed_expressions), st.integers(0, 4_102_444_800_000).map(EpochMs))
@settings(deadline=None, max_examples=200)
def test_in_utc_it_is_the_plain_walk_of_the_calendar(expression: str, after: EpochMs) -> None:
    expected = next(CronSim(expression, to_datetime(after).astimezone(UTC)))

    assert next_after(expression, "UTC", after) == from_datetime(expected)


@pytest.mark.parametrize(
    ("name", "today"),
    [
        ("Europe/Kiev", "Europe/Kyiv"),
        ("US/Eastern", "America/New_York"),
        ("Asia/Calcutta", "Asia/Kolkata"),
        ("Europe/Stockholm", "Europe/Stockholm"),
        ("UTC", "UTC"),
        ("Etc/GMT+5", "Etc/GMT+5"),
    ],
)
def test_a_zone_that_was_renamed_has_the_name_of_today(name: str, today: str) -> None:
    assert todays_timezone(name) == today
    assert is_timezone(today)
