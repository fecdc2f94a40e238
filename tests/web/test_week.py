"""The week to come on the page of bots: how many runs each day has, and where they are drawn."""

from dataclasses import replace

import pytest

from lifesign.bots import timing
from lifesign.bots.records import Bot as Robot
from lifesign.bots.records import BotOptions, Schedule
from lifesign.bots.schedules import blank
from lifesign.bots.timing import Timing
from lifesign.clock import EpochMs, parse_timestamp
from lifesign.web import week

# A Wednesday.
NOW = parse_timestamp("2026-03-25T10:00:30Z")
_BOT = Robot(1, "bot_1", "p", "b", None, None, None, None, True, True, BotOptions(), None, NOW, NOW)


def scheduled(when: Timing, now: EpochMs = NOW) -> Schedule:
    """A schedule whose next slot is counted from now."""
    return replace(blank(now, _BOT, "", "Look."), timing=when, next_slot=timing.next_slot(when, now))


def told(when: Timing, zone: str = "UTC") -> list[str]:
    """What the seven days say."""
    return [each.words for each in week.line_of(scheduled(when), week.days_from(NOW, zone), zone)]


def test_days_are_those_of_the_zone() -> None:
    days = week.days_from(NOW, "Europe/Berlin")

    assert [each.name for each in days[:2]] == ["Wed 25 Mar", "Thu 26 Mar"]
    assert days[0].start == parse_timestamp("2026-03-24T23:00:00Z")
    # Its clock goes forward on the Sunday.
    assert [(each.end - each.start) // 3_600_000 for each in days] == [24, 24, 24, 24, 23, 24, 24]


@pytest.mark.parametrize(
    ("when", "words"),
    [
        (
            Timing(60, None, "UTC", 540, 1020, (1, 2, 3, 4, 5)),
            ["6, 11:00 to 16:00", "8, 09:00 to 16:00", "8, 09:00 to 16:00", "", "", "8, 09:00 to 16:00"],
        ),
        (Timing(1440, None), ["", "10:00", "10:00", "10:00"]),
        (Timing(cron="0 9 * * 1-5"), ["", "09:00", "09:00", "", "", "09:00"]),
        (Timing(cron="* * * * *"), ["100 or more, 10:01 to 24:00", "100 or more, 00:00 to 24:00"]),
        (Timing(1), ["839, 10:01 to 23:59", "1440, 00:00 to 23:59"]),
        (Timing(cron="0 0 1 1 *"), ["", "", "", "", "", "", ""]),
    ],
)
def test_a_day_says_how_many_runs_it_has_and_from_when_to_when(when: Timing, words: list[str]) -> None:
    assert told(when)[: len(words)] == words


@pytest.mark.parametrize(
    "when",
    [
        Timing(45, None, "Europe/Berlin", 1320, 360),
        Timing(26 * 60, None, "Europe/Berlin", 540, 1020),
        Timing(7, None, "America/New_York", 90, 150, (6, 7)),
        Timing(95, None),
        Timing(cron="*/20 1-3 * * *", timezone="Europe/Berlin"),
    ],
)
def test_the_runs_of_a_day_are_those_that_the_engine_would_walk_to(when: Timing) -> None:
    days = week.days_from(NOW, "Europe/Berlin")
    slots = [each for each in timing.slots_after(when, NOW, 2000) if each < days[-1].end]
    assert slots

    cells = week.line_of(scheduled(when), days, "Europe/Berlin")

    counts = [sum(day.start <= each < day.end for each in slots) for day in days]
    assert [each.d.count("M") for each in cells] == counts


def test_active_hours_are_shaded_in_the_zone_of_the_calendar() -> None:
    night = Timing(60, None, "America/New_York", 540, 1020)

    [_, thursday, *_] = week.line_of(scheduled(night), week.days_from(NOW, "Europe/Berlin"), "Europe/Berlin")

    # New York went forward before Berlin does: its nine o'clock is two in the afternoon there.
    [window] = thursday.windows
    assert (window.x / week.WIDTH * 24, (window.x + window.width) / week.WIDTH * 24) == (14, 22)
