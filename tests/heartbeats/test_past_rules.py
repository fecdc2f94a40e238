"""How waits ended, from events; how days went, from incidents and pauses."""

from datetime import date

import pytest

from lifesign.clock import EpochMs, parse_timestamp
from lifesign.heartbeats.past import Day, Happened, Span, days, periods


def at(text: str) -> EpochMs:
    return parse_timestamp(text)


# Waits --------------------------------------------------------------------------------------------------------------
OK, LATE = Happened("checkin"), Happened("checkin", is_late=True)
MISS, BAD = Happened("firing", reason="missed"), Happened("checkin_unhealthy")
STALLED, OVER = Happened("run_stalled"), Happened("resolved")
EXPECTED, BAD_BUT_EXPECTED = Happened("missed", is_suppressed=True), Happened("checkin_unhealthy", is_suppressed=True)
WAITS: dict[str, tuple[list[Happened], list[str]]] = {
    "nothing yet": ([Happened("created")], []),
    "in time, and late": ([OK, LATE, OK], ["on_time", "late", "on_time"]),
    "the check-in that recovers ends the same wait": ([OK, MISS, OK, OVER, OK], ["on_time", "missed", "on_time"]),
    "bad news fires once": ([BAD, Happened("firing", reason="unhealthy"), BAD, OK, OVER], ["missed"]),
    "a run": ([STALLED, Happened("firing", reason="run_stalled"), OK, OVER, OK], ["missed", "on_time"]),
    "tolerated": ([Happened("missed"), BAD, OK], ["missed", "missed", "on_time"]),
    "in a window": ([EXPECTED, BAD_BUT_EXPECTED], ["unknown", "unknown"]),
    "an ack waits anew": ([MISS, Happened("acked"), MISS, Happened("acked"), OK], ["missed", "missed", "on_time"]),
    "a pause cuts it short": (
        [OK, Happened("paused"), OK, OK, Happened("resumed"), OK],
        ["on_time", "unknown", "on_time"],
    ),
    "a pause while it fires": ([MISS, Happened("paused"), Happened("resumed"), OK], ["missed", "on_time"]),
    "nobody could listen": ([Happened("blind"), LATE, LATE], ["unknown", "late"]),
    "nobody could listen, and it fired": ([Happened("blind"), MISS, OK, OVER, LATE], ["missed", "late"]),
    "paused before what is known": ([OK, Happened("resumed"), OK], ["on_time"]),
}


@pytest.mark.parametrize(("happened", "expected"), WAITS.values(), ids=WAITS)
def test_how_waits_ended(happened: list[Happened], expected: list[str]) -> None:
    assert periods(happened, is_paused=False) == expected


def test_while_it_is_paused_reports_tell_nothing() -> None:
    assert periods([OK, OK], is_paused=True) == []


def test_the_last_thirty_are_told() -> None:
    assert periods([LATE] * 5 + [OK] * 30, is_paused=False) == ["on_time"] * 30


# Days ---------------------------------------------------------------------------------------------------------------
NOW = at("2026-03-09T12:00:00Z")
LONG_AGO = at("2025-01-01T00:00:00Z")


def test_days_are_those_of_the_time_zone_however_long() -> None:
    # The clock of New York jumps on March 8, which has 23 hours there.
    outage = Span(at("2026-03-08T04:00:00Z"), at("2026-03-09T05:00:00Z"))

    found = days([outage], [], timezone="America/New_York", created_at=LONG_AGO, count=3, now=NOW)

    assert found == [
        Day(date(2026, 3, 7), "down", 3600, 1),
        Day(date(2026, 3, 8), "down", 23 * 3600, 0),
        Day(date(2026, 3, 9), "down", 3600, 0),
    ]


def test_an_outage_that_goes_on_counts_until_now() -> None:
    found = days([Span(at("2026-03-09T11:00:00Z"), None)], [], timezone="UTC", created_at=LONG_AGO, count=2, now=NOW)

    assert found == [Day(date(2026, 3, 8), "ok", 0, 0), Day(date(2026, 3, 9), "down", 3600, 1)]


def test_an_outage_of_a_moment_is_one() -> None:
    moment = at("2026-03-08T00:00:00Z")

    found = days([Span(moment, moment)], [], timezone="UTC", created_at=LONG_AGO, count=2, now=NOW)

    assert found[0] == Day(date(2026, 3, 8), "down", 0, 1)
    assert found[1] == Day(date(2026, 3, 9), "ok", 0, 0)


def test_a_day_that_was_paused_whole_is_unknown() -> None:
    pauses = [Span(at("2026-03-07T12:00:00Z"), at("2026-03-08T06:00:00Z")), Span(at("2026-03-08T06:00:00Z"), None)]

    found = days([], pauses, timezone="UTC", created_at=LONG_AGO, count=3, now=NOW)

    assert [each.state for each in found] == ["ok", "unknown", "unknown"]


def test_days_before_it_was_made_are_left_out() -> None:
    found = days([], [], timezone="UTC", created_at=at("2026-03-08T23:00:00Z"), count=90, now=NOW)

    assert [each.day for each in found] == [date(2026, 3, 8), date(2026, 3, 9)]
