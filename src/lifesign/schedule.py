"""Cron schedules in a time zone: whether one is acceptable, and when it is due next.

cronsim reads the expression and walks the calendar. The step from a reading of the wall clock to an instant is made
here, because cronsim's own (2.8) answers with instants that have passed already when asked within a repeated hour, and
loses runs where the clock is turned by half an hour (Australia/Lord_Howe).

Source: spec/heartbeats.md, section 5; crontab(5) and cron(8) of Debian.
"""

import bisect
import copy
import zoneinfo
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from importlib import resources
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from oncalendar import OnCalendar, OnCalendarError

from lifesign.clock import EpochMs, from_datetime, to_datetime

MAX_LENGTH: Final = 100
_FIELDS: Final = 5
_HORIZON_YEARS: Final = 50
# Any instant would do: day, month and weekday come together again within 40 years, or never. A constant one keeps the
# judgement of an expression the same for everybody and at all times.
_ANY_DAY: Final = datetime(2026, 1, 1, tzinfo=UTC)
_JUDGED_FROM: Final = from_datetime(datetime(2026, 1, 1, tzinfo=UTC))
# Names that the time zone database of a system may hold beside the zones of IANA.
_NOT_ZONES: Final = frozenset({"Factory", "localtime", "posixrules"})

_Due = Callable[[datetime, ZoneInfo], tuple[EpochMs, ...]]


class BadSchedule(Exception):
    """The expression is no schedule; `reason` says why, in words for the person who wrote it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def normalized(expression: str, timezone: str = "UTC") -> str:
    """The expression with every run of blanks folded to one, if it can be a schedule in this time zone.

    timezone: matters only for what falls into skipped hours alone (`*/5 2 * 3 SUN#2` in America/New_York) and so never
    comes. Costs some 20 us, and at most some 20 ms for an expression made to be slow.
    Raises BadSchedule, and ZoneInfoNotFoundError for a name that `is_timezone` denies.
    Source: spec/heartbeats.md, section 5.
    """
    if len(expression) > MAX_LENGTH:
        raise BadSchedule(f"is longer than {MAX_LENGTH} characters")
    fields = expression.split()
    if fields and fields[0].startswith("@"):
        raise BadSchedule("macros like @daily are not known; write five fields: minute hour day month weekday")
    if len(fields) != _FIELDS:
        raise BadSchedule(f"has {len(fields)} fields instead of five: minute hour day month weekday")
    folded = " ".join(fields)
    next_after(folded, timezone, _JUDGED_FROM)
    return folded


def normalized_any(expression: str) -> str:
    """The same for either kind: five fields on one line are cron, anything else systemd's OnCalendar, one to a line.

    Whether it is ever due is told by `is_due_ever`. Raises BadSchedule.
    """
    if not is_on_calendar(expression):
        return normalized(expression)
    lines = [" ".join(line.split()) for line in expression.strip().splitlines()]
    folded = "\n".join(line for line in lines if line)
    if len(expression) > MAX_LENGTH or not folded:
        raise BadSchedule("is no expression")
    try:
        OnCalendar(folded, _ANY_DAY)
    except OnCalendarError as refused:
        raise BadSchedule(f"is not understood: {refused}".lower()) from refused
    return folded


def normalized_either(expression: str, timezone: str = "UTC") -> str:
    """The same, and due at some time in this time zone. What is neither is refused in words about cron.

    Raises BadSchedule.
    """
    if is_on_calendar(expression):
        try:
            folded = normalized_any(expression)
        except BadSchedule:
            return normalized(expression, timezone)
        next_after(folded, timezone, _JUDGED_FROM)
        return folded
    return normalized(expression, timezone)


def is_on_calendar(expression: str) -> bool:
    """Whether an expression is systemd's: all that are not five fields on one line."""
    return len(expression.strip().splitlines()) != 1 or len(expression.split()) != _FIELDS


def in_words(expression: str) -> str | None:
    """What a cron expression means, as a sentence without its end; None of one of systemd. Raises BadSchedule."""
    if is_on_calendar(expression):
        return None
    schedule, _ = _parsed(" ".join(expression.split()))
    return schedule.explain()


def is_due_ever(expression: str, timezone: str) -> bool:
    """Whether a schedule that was normalized has a date in this time zone."""
    try:
        next_after(expression, timezone, _JUDGED_FROM)
    except BadSchedule:
        return False
    return True


def next_after(expression: str, timezone: str, after: EpochMs) -> EpochMs:
    """The first instant strictly after `after` at which the schedule is due.

    A job at fixed times is due once for every reading of the wall clock: at the first instant after a gap for a reading
    that was skipped, the first time for one that is repeated. A job whose minutes or hours begin with `*` is due at
    every instant at which the clock really shows a time that matches.
    expression, timezone: accepted by `normalized` and `is_timezone`; else raises as they would.
    """
    if is_on_calendar(expression):
        return _next_on_calendar(expression, timezone, after)
    schedule, due = _parsed(expression)
    zone = _zone(timezone)
    local = to_datetime(after).astimezone(zone)
    wall = local.replace(tzinfo=None, fold=0)
    repeated_ms = from_datetime(local.replace(fold=1)) - from_datetime(local.replace(fold=0))

    def to_come(reading: datetime) -> list[EpochMs]:
        return [at for at in due(reading, zone) if at > after]

    at = _first_due(schedule, wall, to_come)
    if repeated_ms:
        # The clock will be (or was) turned back past readings that lie before this one: they are due a second time.
        earlier = wall - timedelta(milliseconds=repeated_ms)
        at = min(at, _first_due(schedule, earlier, to_come))
    return at


def _next_on_calendar(expression: str, timezone: str, after: EpochMs) -> EpochMs:
    """The first instant strictly after `after`, by the library, which walks wall clocks with their zone."""
    local = to_datetime(after).astimezone(_zone(timezone))
    try:
        at = next(OnCalendar(expression, local))
    except (StopIteration, OnCalendarError):
        raise BadSchedule("has no date to come") from None
    return from_datetime(at)


def instant_of(reading: datetime, timezone: str) -> EpochMs:
    """The one instant of a reading of the wall clock: after the gap where it is skipped, the first of two otherwise."""
    return _due_once(reading, _zone(timezone))[0]


def reading_of(at: EpochMs, timezone: str) -> datetime:
    """What the wall clock of a time zone shows."""
    return _wall_clock(at, _zone(timezone))


def reading_in(at: EpochMs, timezone: str) -> datetime:
    """The same, with its offset."""
    return to_datetime(at).astimezone(_zone(timezone))


def is_timezone(name: str) -> bool:
    """Whether this is a time zone of IANA, spelled exactly as there."""
    return name in _timezones()


def todays_timezone(name: str) -> str:
    """What a time zone is called today, where it was renamed: `Europe/Kyiv` for `Europe/Kiev`; else the name itself."""
    return _renamed().get(name, name)


def _first_due(schedule: CronSim, wall: datetime, instants: Callable[[datetime], list[EpochMs]]) -> EpochMs:
    """The earliest instant of the first reading after `wall` that has any."""
    # A CronSim is an iterator with a place, and the loop and the writer's thread may ask at once: so each call walks a
    # copy. Its sets are never changed, so that copies may share them.
    readings = copy.copy(schedule)
    readings.dt = wall.replace(microsecond=0)
    for reading in readings:
        if reading.year > wall.year + _HORIZON_YEARS:
            break
        if found := instants(reading):
            return min(found)
    raise BadSchedule(f"has no date in the next {_HORIZON_YEARS} years")


def _due_once(reading: datetime, zone: ZoneInfo) -> tuple[EpochMs, ...]:
    """When a job at fixed times is due for one reading of the wall clock: exactly once."""
    first, second = _both_instants(reading, zone)
    if second >= first:
        return (first,)
    # In a gap the earlier instant (fold=1) shows a time before the gap and the later one a time after it, so that the
    # end of the gap is the first instant between them at which the clock shows more than the skipped reading.
    between = range(second, first + 1)
    index = bisect.bisect_left(between, True, key=lambda at: _wall_clock(EpochMs(at), zone) > reading)  # noqa: FBT003 - the value looked for
    return (EpochMs(between[index]),)


def _due_whenever_shown(reading: datetime, zone: ZoneInfo) -> tuple[EpochMs, ...]:
    """Every instant at which the wall clock shows this reading: one, two when the hour is repeated, none in a gap."""
    first, second = _both_instants(reading, zone)
    return (first, second) if second >= first else ()


def _both_instants(reading: datetime, zone: ZoneInfo) -> tuple[EpochMs, EpochMs]:
    """The reading by the offset before and by the one after a change; equal where there is no change."""
    aware = reading.replace(tzinfo=zone)
    return from_datetime(aware), from_datetime(aware.replace(fold=1))


def _wall_clock(at: EpochMs, zone: ZoneInfo) -> datetime:
    return to_datetime(at).astimezone(zone).replace(tzinfo=None)


@lru_cache(maxsize=1024)
def _parsed(expression: str) -> tuple[CronSim, _Due]:
    try:
        schedule = CronSim(expression, datetime.min)  # noqa: DTZ901 - a reading of a wall clock, replaced in each copy
    except CronSimError as refused:
        raise BadSchedule(f"is not understood: {refused}".lower()) from refused
    minute, hour = expression.split()[:2]
    # As Debian tells the two kinds apart: by the first character alone, so that `0-23` is a list of fixed hours.
    follows_elapsed_time = minute.startswith("*") or hour.startswith("*")
    return schedule, _due_whenever_shown if follows_elapsed_time else _due_once


@cache
def _zone(name: str) -> ZoneInfo:
    # The cache of zoneinfo itself holds no more than the last eight zones.
    return ZoneInfo(name)


@cache
def _renamed() -> dict[str, str]:
    """Names that no country's zone has any more, and what those are called now.

    A link alone does not tell: `Europe/Stockholm` is one too, and is what people in Sweden choose.
    """
    data = resources.files("tzdata").joinpath("zoneinfo")
    rows = (line.split() for line in data.joinpath("zone.tab").read_text().splitlines() if not line.startswith("#"))
    today = {row[2] for row in rows}
    links = (line.split() for line in data.joinpath("tzdata.zi").read_text().splitlines() if line.startswith("L "))
    return {old: new for _, new, old in links if new in today and old not in today}


@cache
def _timezones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones() - _NOT_ZONES)
