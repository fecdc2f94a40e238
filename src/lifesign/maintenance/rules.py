"""What is true of maintenance windows: when one is open, and whom it covers."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from lifesign import schedule as cron
from lifesign.clock import LATEST, EpochMs

TargetKind = Literal["heartbeats", "namespaces", "tags", "all"]


class WindowNotFound(Exception):
    """The project has no maintenance window with this id."""


@dataclass(frozen=True, slots=True)
class Definition:
    """What a person says of a window: once from `starts_at` to `ends_at`, or again and again, each time of `schedule`.

    Start inclusive, end exclusive; instants are epoch ms. members: ids or slugs, namespaces, or tags; empty for `all`.
    """

    name: str
    starts_at: EpochMs | None
    ends_at: EpochMs | None
    schedule: str | None
    duration_ms: int | None
    timezone: str
    target: TargetKind
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Window(Definition):
    """A window, whole. Of heartbeats, members are ids."""

    id: str
    project_id: str
    created_at: EpochMs
    updated_at: EpochMs | None
    origin: str | None = None

    def covers(self, heartbeat_id: str, namespace: str | None, tags: Collection[str]) -> bool:
        """Whether it is meant for this heartbeat."""
        match self.target:
            case "all":
                return True
            case "heartbeats":
                return heartbeat_id in self.members
            case "namespaces":
                return namespace in self.members
            case "tags":
                return not set(self.members).isdisjoint(tags)


def open_until(window: Window, now: EpochMs) -> EpochMs | None:
    """When the window closes that is open now; None when none is.

    Of times that overlap because they last longer than the schedule's period, the first that is open counts: whoever
    waits for the end looks again then.
    """
    return closings(window, [now]).get(now)


def closings(window: Window, moments: Iterable[EpochMs]) -> dict[EpochMs, EpochMs]:
    """When the window closes that is open at each of these moments, as `open_until`; without those at which none is."""
    found: dict[EpochMs, EpochMs] = {}
    start: EpochMs | None = None
    end = EpochMs(0)
    for at in sorted(set(moments)):
        if start is None or at >= end:
            start = _start(window, at)
            if start is None:
                break
            end = _end(window, start)
        if start <= at:
            found[at] = end
    return found


def next_edge(window: Window, now: EpochMs) -> EpochMs | None:
    """When the window opens or closes next, strictly after now; None when never again."""
    start = _start(window, now)
    if start is None:
        return None
    return start if start > now else _end(window, start)


def _start(window: Window, now: EpochMs) -> EpochMs | None:
    """The start of the first time that is not over: open now, or still to come."""
    if window.schedule is None or window.duration_ms is None:
        is_over = window.ends_at is None or window.ends_at <= now
        return None if is_over else window.starts_at
    try:
        return cron.next_after(window.schedule, window.timezone, EpochMs(now - window.duration_ms))
    except cron.BadSchedule:  # no date in the next decades: it never comes again
        return None


def _end(window: Window, start: EpochMs) -> EpochMs:
    if window.duration_ms is None:
        return window.ends_at or start
    return min(EpochMs(start + window.duration_ms), LATEST)
