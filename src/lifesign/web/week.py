"""The next seven days of schedules: when each may run, and when it will. Pure.

A route makes lines with `line_of`, and the template draws each day as a bar of its own, with the same in words below.
"""

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from typing import Final, NamedTuple

from lifesign import schedule as clocks
from lifesign.bots import timing
from lifesign.bots.records import Schedule
from lifesign.bots.timing import Timing
from lifesign.clock import EpochMs
from lifesign.schedule import BadSchedule

DAYS: Final = 7
WIDTH: Final = 288
HEIGHT: Final = 18
_MINUTE_MS: Final = 60_000
# Of cron each slot is walked to; what runs more often than this on a day is not counted any further.
_MOST_OF_CRON: Final = 100
# More marks than that cannot be told apart: they are drawn as one.
_MOST_MARKS: Final = 72


class Day(NamedTuple):
    """One day of the calendar; its end is exclusive."""

    name: str
    start: EpochMs
    end: EpochMs


class Box(NamedTuple):
    """A piece of a day's bar."""

    x: float
    width: float


class Cell(NamedTuple):
    """What a schedule does on a day. windows: when it may run; d: a path of marks.

    band: of runs that are too close for marks.
    """

    windows: list[Box]
    d: str
    band: Box | None
    words: str


def days_from(now: EpochMs, zone: str) -> list[Day]:
    """Today and the six days after it."""
    today = clocks.reading_of(now, zone).date()
    dates = [today + timedelta(days=n) for n in range(DAYS + 1)]
    starts = [_midnight(each, zone) for each in dates]
    return [
        Day(each.strftime("%a %d %b"), start, end) for each, start, end in zip(dates, starts, starts[1:], strict=False)
    ]


def _midnight(day: date, zone: str) -> EpochMs:
    return clocks.instant_of(datetime(day.year, day.month, day.day), zone)  # noqa: DTZ001 - a wall clock


def line_of(schedule: Schedule, days: Sequence[Day], zone: str) -> list[Cell]:
    """A schedule on these days, in the zone of the calendar."""
    series = _series(schedule, days[-1].end) if schedule.timing.cron is None else []
    return [_cell(schedule, day, zone, series) for day in days]


class Series(NamedTuple):
    """Slots that lie evenly."""

    first: EpochMs
    step_ms: int
    size: int

    def within(self, day: Day) -> "Series | None":
        """Those on a day."""
        before = max(0, -(-(day.start - self.first) // self.step_ms))
        upto = min(self.size, max(0, -(-(day.end - self.first) // self.step_ms)))
        first = EpochMs(self.first + before * self.step_ms)
        return Series(first, self.step_ms, upto - before) if upto > before else None


def _series(schedule: Schedule, until: EpochMs) -> list[Series]:
    """The slots of an interval up to an instant: within a window they lie evenly."""
    when, slot = schedule.timing, schedule.next_slot
    step = (when.interval_minutes or 1) * _MINUTE_MS
    found = []
    while slot is not None and slot < until:
        window = timing.window_at(when, slot) if when.has_window else None
        end = until if window is None else min(until, window[1])
        count = (end - 1 - slot) // step + 1
        found.append(Series(slot, step, count))
        slot = next(iter(timing.slots_after(when, EpochMs(slot + (count - 1) * step), 1)), None)
    return found


def _cell(schedule: Schedule, day: Day, zone: str, series: Sequence[Series]) -> Cell:
    windows = [_box(day, start, end) for start, end in _windows(schedule.timing, day)]
    if schedule.timing.cron is not None:
        slots = _of_cron(schedule, day)
        is_all = len(slots) < _MOST_OF_CRON
        return _drawn(windows, day, zone, slots, len(slots), is_all=is_all)
    parts = [part for each in series if (part := each.within(day)) is not None]
    count = sum(each.size for each in parts)
    if count > _MOST_MARKS:
        slots = [parts[0].first, EpochMs(parts[-1].first + (parts[-1].size - 1) * parts[-1].step_ms)]
    else:
        slots = [EpochMs(each.first + n * each.step_ms) for each in parts for n in range(each.size)]
    return _drawn(windows, day, zone, slots, count, is_all=True)


def _of_cron(schedule: Schedule, day: Day) -> list[EpochMs]:
    """The first slots of a day. Cron needs no slot before, so that a day can be begun with."""
    if schedule.next_slot is None or schedule.next_slot >= day.end:
        return []
    if schedule.next_slot >= day.start:
        found = [schedule.next_slot]
    else:
        # A second earlier, as the first slot after an instant is asked for.
        found = timing.slots_after(schedule.timing, EpochMs(day.start - 1000), 1)
    while found and found[-1] < day.end and len(found) < _MOST_OF_CRON:
        try:
            found.append(timing.next_slot(schedule.timing, found[-1]))
        except BadSchedule:
            break
    return [each for each in found if each < day.end]


def _drawn(windows: list[Box], day: Day, zone: str, slots: Sequence[EpochMs], count: int, *, is_all: bool) -> Cell:
    if not slots:
        return Cell(windows, "", None, "")
    first, last = (clocks.reading_of(each, zone).strftime("%H:%M") for each in (slots[0], slots[-1]))
    many = f"{count}{'' if is_all else ' or more'}"
    words = first if count == 1 else f"{many}, {first} to {last if is_all else '24:00'}"
    if count > _MOST_MARKS or not is_all:
        return Cell(windows, "", _box(day, slots[0], slots[-1] if is_all else day.end), words)
    return Cell(windows, "".join(f"M{_x(day, each)} 2V{HEIGHT - 2}" for each in slots), None, words)


def _windows(when: Timing, day: Day) -> Iterator[tuple[EpochMs, EpochMs]]:
    """When a schedule may run on a day, whose zone may be another than its own."""
    if not when.has_window:
        return
    at = clocks.reading_of(day.start, when.timezone).date() - timedelta(days=1)
    for _ in range(4):
        window = timing.window_of(when, at)
        if window is not None and window[0] < day.end and window[1] > day.start:
            yield max(window[0], day.start), min(window[1], day.end)
        at += timedelta(days=1)


def _x(day: Day, at: EpochMs) -> float:
    return round((at - day.start) / (day.end - day.start) * WIDTH, 1)


def _box(day: Day, start: EpochMs, end: EpochMs) -> Box:
    x = _x(day, start)
    return Box(x, max(1.5, round(_x(day, end) - x, 1)))
