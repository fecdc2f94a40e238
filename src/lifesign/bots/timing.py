"""When a schedule runs: slots, windows, jitter, and what becomes of slots that passed unseen. Pure.

A slot is the nominal instant, in whole seconds; the effective instant is the slot and its jitter.
Source: spec/bots.md, section 6.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Final, Literal

from lifesign import schedule
from lifesign.clock import EpochMs, rfc3339, to_datetime
from lifesign.schedule import BadSchedule

CatchUp = Literal["skip", "one", "all"]
SlotKind = Literal["scheduled", "catch_up"]

LATE_MS: Final = 60_000
MAX_INTERVAL_MINUTES: Final = 44_640
MOST_CAUGHT_UP: Final = 10
MOST_COUNTED: Final = 10_000
"""So many missed slots of a cron schedule are counted; beyond that the number is a lower bound."""
_WALKED: Final = 50
_KEPT: Final = MOST_CAUGHT_UP + 2
_MINUTE_MS: Final = 60_000
_SECOND_MS: Final = 1000
_DAY_MINUTES: Final = 1440
# A window that never opens (02:00-02:30 on a zone's one day of change) would be looked for without end.
_MOST_DAYS: Final = 800
_CRON_YEARS: Final = 5
_FLOOR_DAYS: Final = 400
_FLOOR_SLOTS: Final = 2000
_HALF_GAP_LEAST_MS, _HALF_GAP_MOST_MS = 120_000, 7_200_000
_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])|24:00")
_DAYS = re.compile(r"[1-7](,[1-7])*")
_MACROS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


@dataclass(frozen=True, slots=True)
class Timing:
    """When a schedule runs: every so many minutes within a window, or by cron.

    window_start, window_end: minutes after midnight, both or neither; an end before its start is on the next day.
    days: 1 is Monday; empty: all.
    """

    interval_minutes: int | None = None
    cron: str | None = None
    timezone: str = "UTC"
    window_start: int | None = None
    window_end: int | None = None
    days: tuple[int, ...] = ()

    @property
    def has_window(self) -> bool:
        """Whether some time lies outside of it."""
        return self.window_start is not None or bool(self.days)


@dataclass(frozen=True, slots=True)
class Options:
    """How slots are treated."""

    jitter_s: int = 0
    catch_up: CatchUp = "one"
    catch_up_window_ms: int | None = None
    """None: half the gap between the two neighbouring slots, within bounds."""


@dataclass(frozen=True, slots=True)
class Start:
    """A slot that shall be run."""

    slot: EpochMs
    effective_at: EpochMs
    kind: SlotKind
    missed_count: int = 0


@dataclass(frozen=True, slots=True)
class Missed:
    """Slots that passed and are not run."""

    first_slot: EpochMs
    last_slot: EpochMs
    count: int


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done about the slots since the last one. next_slot: the first that is not due yet."""

    starts: tuple[Start, ...]
    missed: Missed | None
    first_slot: EpochMs
    last_slot: EpochMs
    next_slot: EpochMs
    next_effective: EpochMs


# What is accepted ---------------------------------------------------------------------------------------------------
def minutes_of(text: str) -> int | None:
    """Minutes after midnight of `HH:MM`, 1440 for `24:00`; None for anything else."""
    if _TIME.fullmatch(text) is None:
        return None
    return int(text[:2]) * 60 + int(text[3:])


def time_of(minutes: int) -> str:
    """`HH:MM` of minutes after midnight."""
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def shown(when: "Timing") -> dict[str, str | int | None]:
    """A timing, as the wire calls its members."""
    return {
        "interval_minutes": when.interval_minutes,
        "active_hours_start": None if when.window_start is None else time_of(when.window_start),
        "active_hours_end": None if when.window_end is None else time_of(when.window_end),
        "active_days": ",".join(str(day) for day in when.days) or None,
        "cron_pattern": when.cron,
        "timezone": when.timezone,
    }


def days_of(text: str) -> tuple[int, ...] | None:
    """The days in `1,3,5`, sorted; None for anything else, repeats included."""
    if _DAYS.fullmatch(text) is None:
        return None
    days = sorted(int(each) for each in text.split(","))
    return tuple(days) if len(set(days)) == len(days) else None


def cron_of(pattern: str, timezone: str, now: EpochMs) -> str:
    """The pattern with single blanks, macros kept, if it has a slot within five years. Raises BadSchedule."""
    text = " ".join(pattern.split())
    if text.startswith("@"):
        if text not in _MACROS:
            raise BadSchedule(f"is none of {', '.join(_MACROS)}, nor five fields: minute hour day month weekday")
        return text
    folded = schedule.normalized(text, timezone)
    if "W" in folded.split()[2].upper():
        raise BadSchedule("is not understood: W is no day of the month")
    first = to_datetime(schedule.next_after(folded, timezone, now))
    if first > to_datetime(now) + timedelta(days=366 * _CRON_YEARS):
        raise BadSchedule(f"has no date in the next {_CRON_YEARS} years")
    return folded


def least_gap_minutes(cron: str, now: EpochMs) -> float:
    """The smallest distance between neighbouring slots in UTC, over 400 days or 2,000 slots."""
    timing = Timing(cron=cron)
    until = now + timedelta(days=_FLOOR_DAYS) // timedelta(milliseconds=1)
    slots = [next_slot(timing, now)]
    while slots[-1] < until and len(slots) < _FLOOR_SLOTS:
        slots.append(next_slot(timing, slots[-1]))
    return min(((later - one) / _MINUTE_MS for one, later in pairwise(slots)), default=float("inf"))


# Slots --------------------------------------------------------------------------------------------------------------
def resolve(day: date, minutes: int, timezone: str) -> EpochMs:
    """The instant of a wall time: after a gap where it was skipped, the first pass where it is repeated.

    minutes: after midnight; 1440 is midnight of the next day.
    """
    reading = datetime(day.year, day.month, day.day) + timedelta(minutes=minutes)  # noqa: DTZ001 - a wall clock
    return schedule.instant_of(reading, timezone)


def window_of(timing: Timing, day: date) -> tuple[EpochMs, EpochMs] | None:
    """The instants of the window of a day, its end exclusive; None when the day is not active or has no such time."""
    if timing.days and day.isoweekday() not in timing.days:
        return None
    start = 0 if timing.window_start is None else timing.window_start
    end = _DAY_MINUTES if timing.window_end is None else timing.window_end
    opens = resolve(day, start, timing.timezone)
    closes = resolve(day + timedelta(days=1) if end < start else day, end, timing.timezone)
    return (opens, closes) if opens < closes else None


def is_legal(timing: Timing, at: EpochMs) -> bool:
    """Whether an instant lies in a window."""
    return window_at(timing, at) is not None if timing.has_window else True


def window_at(timing: Timing, at: EpochMs) -> tuple[EpochMs, EpochMs] | None:
    """The window that an instant lies in."""
    today = _day_of(timing, at)
    for day in (today, today - timedelta(days=1)):
        window = window_of(timing, day)
        if window is not None and window[0] <= at < window[1]:
            return window
    return None


def next_slot(timing: Timing, after: EpochMs) -> EpochMs:
    """The first slot after a slot. Raises BadSchedule when there is none.

    after: the last slot; of a schedule that is new, enabled or timed anew, now.
    """
    after = whole_second(after)
    if timing.cron is not None:
        return schedule.next_after(_MACROS.get(timing.cron, timing.cron), timing.timezone, after)
    at = EpochMs(after + (timing.interval_minutes or 0) * _MINUTE_MS)
    return at if is_legal(timing, at) else _next_opening(timing, at)


def whole_second(at: EpochMs) -> EpochMs:
    """An instant without its milliseconds."""
    return EpochMs(at - at % _SECOND_MS)


def slots_after(timing: Timing, after: EpochMs, count: int) -> list[EpochMs]:
    """The next slots; fewer when there are no more."""
    found: list[EpochMs] = []
    try:
        while len(found) < count:
            after = next_slot(timing, after)
            found.append(after)
    except BadSchedule:
        pass
    return found


def _day_of(timing: Timing, at: EpochMs) -> date:
    return schedule.reading_of(at, timing.timezone).date()


def _next_opening(timing: Timing, at: EpochMs) -> EpochMs:
    """The first instant at or after `at` at which a window opens."""
    day = _day_of(timing, at)
    for _ in range(_MOST_DAYS):
        window = window_of(timing, day)
        if window is not None and window[0] >= at:
            return window[0]
        day += timedelta(days=1)
    raise BadSchedule("has no window to come")


# Jitter -------------------------------------------------------------------------------------------------------------
def jitter_ms(schedule_id: str, slot: EpochMs, jitter_s: int) -> int:
    """How far a slot is moved: the same for the same schedule and slot, from 0 to `jitter_s` seconds."""
    if not jitter_s:
        return 0
    text = f"{schedule_id}:{rfc3339(slot)[:19]}Z"
    return int(hashlib.sha256(text.encode("ascii")).hexdigest()[:8], 16) % (jitter_s + 1) * _SECOND_MS


def effective_at(timing: Timing, options: Options, schedule_id: str, slot: EpochMs) -> EpochMs:
    """The slot and its jitter, which ends a second before the next slot and before the window closes."""
    moved = jitter_ms(schedule_id, slot, options.jitter_s)
    if not moved:
        return slot
    bound = next((each for each in slots_after(timing, slot, 1)), None)
    window = window_at(timing, slot) if timing.has_window else None
    ends = [each for each in (bound, window[1] if window else None) if each is not None]
    latest = min(ends, default=slot + moved + _SECOND_MS) - _SECOND_MS
    return EpochMs(max(slot, min(slot + moved, latest)))


# What is due --------------------------------------------------------------------------------------------------------
def is_late(effective: EpochMs, now: EpochMs) -> bool:
    """Whether a slot is no longer on time."""
    return now - effective > LATE_MS


def catch_up_window_ms(options: Options, gap_ms: int) -> int:
    """For how long a late slot is still worth running. gap_ms: between the two slots around now."""
    if options.catch_up_window_ms is not None:
        return options.catch_up_window_ms
    return min(max(gap_ms // 2, _HALF_GAP_LEAST_MS), _HALF_GAP_MOST_MS)


def due(timing: Timing, options: Options, schedule_id: str, last_slot: EpochMs, now: EpochMs) -> Due | None:
    """What is to be done at `now` about the slots after the last one; None when none is due.

    Raises BadSchedule when there is no next slot.
    """
    passed = _passed(timing, last_slot, now)
    latest = passed.latest
    if latest and effective_at(timing, options, schedule_id, latest[-1]) > now:
        passed = passed.without_last()
        latest = passed.latest
    if not latest:
        return None
    slot = latest[-1]
    following = next_slot(timing, slot)
    effective = effective_at(timing, options, schedule_id, slot)
    next_effective = effective_at(timing, options, schedule_id, following)
    starts, missed = _judged(timing, options, passed, effective=effective, gap_ms=following - slot, now=now)
    shifted = tuple(
        Start(each.slot, effective_at(timing, options, schedule_id, each.slot), each.kind, each.missed_count)
        for each in starts
    )
    return Due(shifted, missed, passed.first, slot, following, next_effective)


@dataclass(frozen=True, slots=True)
class _Passed:
    """Slots after the last one up to now: how many, the first, and the latest of them in order."""

    count: int
    first: EpochMs
    latest: tuple[EpochMs, ...]

    def without_last(self) -> "_Passed":
        return _Passed(self.count - 1, self.first, self.latest[:-1])


def _judged(
    timing: Timing, options: Options, passed: _Passed, *, effective: EpochMs, gap_ms: int, now: EpochMs
) -> tuple[list[Start], Missed | None]:
    slot, others = passed.latest[-1], passed.count - 1
    is_on_time = not is_late(effective, now)
    if options.catch_up == "all":
        kept = passed.latest[-MOST_CAUGHT_UP:]
        if is_on_time:
            kept = passed.latest[-MOST_CAUGHT_UP - 1 :]
        starts = [Start(each, each, "catch_up") for each in kept]
        if is_on_time:
            starts[-1] = Start(slot, slot, "scheduled")
        starts[0] = Start(starts[0].slot, starts[0].slot, starts[0].kind, passed.count - len(kept))
        return starts, None
    if is_on_time:
        if options.catch_up == "one" or not others:
            return [Start(slot, slot, "scheduled", others)], None
        return [Start(slot, slot, "scheduled")], Missed(passed.first, passed.latest[-2], others)
    is_wanted = options.catch_up == "one" and now - effective <= catch_up_window_ms(options, gap_ms)
    if is_wanted and is_legal(timing, now):
        return [Start(slot, slot, "catch_up", others)], None
    return [], Missed(passed.first, slot, passed.count)


def _passed(timing: Timing, last_slot: EpochMs, now: EpochMs) -> _Passed:
    most = MOST_COUNTED if timing.cron is not None else _WALKED
    count, first = 0, last_slot
    latest: list[EpochMs] = []
    for slot in _walk(timing, last_slot, now):
        count += 1
        first = slot if count == 1 else first
        latest = _tail([*latest, slot])
        if count >= most:
            go_on = _counted if timing.cron is None else _jumped
            return go_on(timing, count, first, latest, now)
    return _Passed(count, first, tuple(latest))


def _tail(slots: list[EpochMs]) -> list[EpochMs]:
    return slots[-_KEPT:]


def _walk(timing: Timing, last_slot: EpochMs, now: EpochMs) -> Iterator[EpochMs]:
    slot = next_slot(timing, last_slot)
    while slot <= now:
        yield slot
        slot = next_slot(timing, slot)


def _counted(timing: Timing, count: int, first: EpochMs, latest: list[EpochMs], now: EpochMs) -> _Passed:
    """Go on from some slots of an interval: within a window, or without one, they lie evenly."""
    step = (timing.interval_minutes or 0) * _MINUTE_MS
    while True:
        window = window_at(timing, latest[-1]) if timing.has_window else None
        end = now if window is None else min(now, EpochMs(window[1] - 1))
        more = (end - latest[-1]) // step
        upto = latest[-1] + more * step
        latest = _tail([*latest, *(EpochMs(upto - n * step) for n in reversed(range(min(more, _KEPT))))])
        count += more
        following = next_slot(timing, latest[-1])
        if following > now:
            return _Passed(count, first, tuple(latest))
        latest = _tail([*latest, following])
        count += 1


def _jumped(timing: Timing, count: int, first: EpochMs, latest: list[EpochMs], now: EpochMs) -> _Passed:
    """Go on from many slots of a cron schedule: look back from now, twice as far each time, until there are enough."""
    back_ms = 3_600_000
    found: list[EpochMs] = []
    while len(found) < _KEPT and now - back_ms > latest[-1]:
        found = list(_walk(timing, EpochMs(now - back_ms), now))
        back_ms *= 2
    return _Passed(count, first, tuple(_tail([*latest, *found])))
