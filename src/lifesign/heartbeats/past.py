"""What became of each wait, and of each day: read from the events and incidents that are kept. Pure."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from lifesign.clock import EpochMs, from_datetime, to_datetime

Period = Literal["on_time", "late", "missed", "unknown"]
MAX_PERIODS = 30
MAX_DAYS = 366
_S = 1000


class Happened(NamedTuple):
    """What of an event says how a wait ended. is_late, is_suppressed: as its metadata says; reason: of a firing."""

    type: str
    is_late: bool = False
    is_suppressed: bool = False
    reason: str | None = None


def periods(happened: Sequence[Happened], *, is_paused: bool) -> list[Period]:
    """How the last waits ended, oldest first, at most 30.

    happened: events, oldest first; is_paused: after the last of them. A wait goes from the moment from which a check-in
    is expected to what ends it:

    - a healthy check-in: `on_time`, or `late` past its deadline;
    - a miss, bad news or a run that stalls, whether it fires or is tolerated: `missed`. The check-in that recovers ends
      the same wait, and what is reported while it fires changes nothing;
    - a miss or bad news inside a maintenance window, a pause, and a check-in after a time in which nobody could listen:
      `unknown`.
    """
    found: list[Period] = []
    paused = _was_paused_first(happened, is_paused=is_paused)
    is_firing = is_blind = False
    for each in happened:
        match each.type:
            case "paused":
                if not (paused or is_firing):
                    found.append("unknown")
                paused, is_firing, is_blind = True, False, False
            case "resumed":
                paused = False
            case "acked" | "resolved":
                is_firing = False
            case "blind":
                is_blind = True
            case "firing":
                # Bad news has said so itself.
                if each.reason not in {"unhealthy", "run_stalled", "run_overdue"}:
                    found.append("missed")
                is_firing, is_blind = True, False
            case "checkin" if not (paused or is_firing):
                found.append("unknown" if is_blind else "late" if each.is_late else "on_time")
                is_blind = False
            case "checkin_unhealthy" | "missed" | "run_stalled" | "run_overdue" if not (paused or is_firing):
                found.append("unknown" if each.is_suppressed else "missed")
                is_blind = False
            case _:
                pass
    return found[-MAX_PERIODS:]


def _was_paused_first(happened: Sequence[Happened], *, is_paused: bool) -> bool:
    """Whether it was paused before the first event: the first that changes it tells."""
    first = next((each.type for each in happened if each.type in {"paused", "resumed"}), None)
    return is_paused if first is None else first == "resumed"


DayState = Literal["ok", "down", "unknown"]


class Span(NamedTuple):
    """From when until when; None: it goes on."""

    start: EpochMs
    end: EpochMs | None


class Day(NamedTuple):
    """One day of a heartbeat."""

    day: date
    state: DayState
    down_s: int
    incidents: int


def days(
    outages: Iterable[Span], pauses: Iterable[Span], *, timezone: str, created_at: EpochMs, count: int, now: EpochMs
) -> list[Day]:
    """The last `count` days until today, oldest first, in a time zone; those before `created_at` are left out.

    `down`: an incident was open for some of it; `unknown`: it was paused all of it; else `ok`. down_s: seconds of the
    day, as far as it has gone, in which an incident was open; incidents: how many began on it.
    """
    zone = ZoneInfo(timezone)
    today = to_datetime(now).astimezone(zone).date()
    first = max(today - timedelta(days=count - 1), to_datetime(created_at).astimezone(zone).date())
    edges = [_midnight(first + timedelta(days=n), zone) for n in range((today - first).days + 2)]
    down, begun = [0] * (len(edges) - 1), [0] * (len(edges) - 1)
    paused = [0] * (len(edges) - 1)
    for outage in outages:
        for n, overlap_ms in _overlaps(outage, edges, now):
            down[n] += overlap_ms
            begun[n] += edges[n] <= outage.start < edges[n + 1]
    for pause in pauses:
        for n, overlap_ms in _overlaps(pause, edges, now):
            paused[n] += overlap_ms
    found = []
    for n, start in enumerate(edges[:-1]):
        gone_ms = min(edges[n + 1], now) - max(start, created_at)
        is_unknown = gone_ms > 0 and paused[n] >= gone_ms
        state: DayState = "down" if down[n] or begun[n] else "unknown" if is_unknown else "ok"
        found.append(Day(first + timedelta(days=n), state, down[n] // _S, begun[n]))
    return found


def _midnight(day: date, zone: ZoneInfo) -> EpochMs:
    return from_datetime(datetime(day.year, day.month, day.day, tzinfo=zone))


def _overlaps(span: Span, edges: Sequence[EpochMs], now: EpochMs) -> Iterable[tuple[int, int]]:
    """Which days a span touches, by number, and for how many ms."""
    end = now if span.end is None else span.end
    for n in range(len(edges) - 1):
        if edges[n] >= max(end, span.start + 1):
            return
        if span.start < edges[n + 1] and end >= edges[n]:
            yield n, max(0, min(end, edges[n + 1]) - max(span.start, edges[n]))
