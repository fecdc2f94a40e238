"""What people see of heartbeats."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Literal

import orjson
from pydantic import Field

from lifesign.clock import EpochMs, rfc3339
from lifesign.events.service import StoredEvent
from lifesign.heartbeats.bodies import PING_RULES, ModeWord, Pings, Tolerance
from lifesign.heartbeats.counted import PingRules
from lifesign.heartbeats.past import Day, DayState, Period
from lifesign.heartbeats.rules import Heartbeat
from lifesign.http.answers import without_absent
from lifesign.http.fields import (
    Body,
    optional,
)

_S = 1000

StatusWord = Literal["active", "firing", "paused", "resolved"]


class ImportAnswer(Body):
    """How many events are new, and how many were there."""

    imported: int
    known: int


class ShownHeartbeat(Body):
    """A heartbeat. Members without a value are omitted."""

    id: str = Field(examples=["hb_0199e6a1b2c37d4e8f00112233445566"])
    name: str
    mode: ModeWord
    status: StatusWord
    grace: int
    timezone: str
    createdAt: datetime
    slug: str = optional()
    interval: int = optional()
    schedule: str = optional()
    policy: str = optional()
    namespace: str = optional()
    nextDeadline: datetime = optional("When the next check-in is expected, without grace.")
    metadata: dict[str, Any] = optional()
    updatedAt: datetime = optional()
    lastCheckin: datetime = optional()
    firesAt: datetime = optional("When it fires if nothing comes.")
    armed: bool = optional("Only while false.")
    incident: str = optional("The open incident, while firing.")
    pausedAt: datetime = optional()
    description: str = optional()
    tags: list[str] = optional()
    channels: list[str] = optional()
    stickyPause: bool = optional()
    tolerance: Tolerance = optional()
    dependsOn: list[str] = optional("Ids.")
    snoozedUntil: datetime = optional()
    maintenance: bool = optional("True inside a maintenance window.")
    pings: Pings = optional("Which pings count, where it is not all of them.")
    managedBy: str = optional("What it belongs to, such as `system <id>`; that alone reports for it and changes it.")
    origin: str = optional("Who made it, as they said.")
    recentPeriods: list[Period] = optional("How the last waits ended, oldest first, at most 30; when asked for.")
    pingUrl: str = optional("Whoever calls it checks in; shown to keys with `heartbeats:write`.")


class ShownDay(Body):
    """One day of a heartbeat, in its time zone."""

    date: date
    state: DayState = Field(description="`down`: an incident was open; `unknown`: paused all day.")
    downSeconds: int = Field(description="Of the day so far, with an incident open.")
    incidents: int = Field(description="That began on it.")


class DayList(Body):
    """Days, oldest first; none from before the heartbeat was made."""

    days: list[ShownDay]


class HeartbeatList(Body):
    """Heartbeats, oldest first."""

    heartbeats: list[ShownHeartbeat]
    nextCursor: str = optional("Present when there are more.")


class CheckInAnswer(Body):
    """What the heartbeat is after the check-in; `healthy` repeats what was sent."""

    status: StatusWord
    healthy: bool
    nextDeadline: datetime = optional()


class AckAnswer(Body):
    """The incident that was closed."""

    status: Literal["resolved"]
    resolvedAt: datetime
    escalationStep: int = Field(description="Steps of the policy that had run; repeats do not count.")
    message: str = optional()


class PauseAnswer(Body):
    """A paused heartbeat."""

    id: str
    status: Literal["paused"]
    pausedAt: datetime


class ResumeAnswer(Body):
    """A resumed heartbeat."""

    id: str
    status: Literal["active"]
    nextDeadline: datetime = optional("Absent where nothing is expected before the first report, as of a system.")


class SnoozeAnswer(Body):
    """A snoozed heartbeat."""

    id: str
    status: StatusWord
    snoozedUntil: datetime
    reason: str = optional()


class ShownEvent(Body):
    """One line of a heartbeat's history."""

    id: str
    type: str
    metadata: dict[str, Any]
    createdAt: datetime


class EventList(Body):
    """Events, newest first."""

    events: list[ShownEvent]
    nextCursor: str = optional("Present when there are more.")


def shown(
    heartbeat: Heartbeat,
    *,
    now: EpochMs,
    is_covered: bool = False,
    pings_at: str | None = None,
    periods: Sequence[Period] | None = None,
) -> dict[str, Any]:  # Any: JSON
    """A heartbeat on the wire. is_covered: a maintenance window that it is in is open.

    pings_at: where ping URLs begin; None for those who may not know them. periods: None when not asked for.
    """
    tolerance = {"failures": heartbeat.tolerance_failures, "window": heartbeat.tolerance_window}
    return without_absent(
        {
            "id": heartbeat.id,
            "name": heartbeat.name,
            "mode": heartbeat.mode,
            "status": heartbeat.status,
            "grace": heartbeat.grace_ms // _S,
            "timezone": heartbeat.timezone,
            "createdAt": rfc3339(heartbeat.created_at),
            "slug": heartbeat.slug,
            "interval": None if heartbeat.interval_ms is None else heartbeat.interval_ms // _S,
            "schedule": heartbeat.schedule,
            "policy": heartbeat.policy_id,
            "namespace": heartbeat.namespace,
            "nextDeadline": _time(heartbeat.next_deadline),
            "metadata": None if heartbeat.metadata is None else orjson.Fragment(heartbeat.metadata),
            "updatedAt": _time(heartbeat.updated_at),
            "lastCheckin": _time(heartbeat.last_checkin_at),
            "firesAt": _time(heartbeat.fires_at),
            "armed": None if heartbeat.is_armed else False,
            "incident": heartbeat.incident_id,
            "pausedAt": _time(heartbeat.paused_at),
            "description": heartbeat.description,
            "tags": list(heartbeat.tags) or None,
            "channels": list(heartbeat.own_channels) or None,
            "stickyPause": heartbeat.is_sticky_pause,
            "tolerance": None if heartbeat.tolerance_failures is None else tolerance,
            "dependsOn": list(heartbeat.depends_on) or None,
            "snoozedUntil": _time(heartbeat.snoozed_until) if heartbeat.is_snoozed(now) else None,
            "maintenance": is_covered or None,
            "pings": _shown_pings(PingRules.of(heartbeat.ping_rules)) or None,
            "managedBy": heartbeat.managed_by,
            "origin": heartbeat.origin,
            "recentPeriods": periods,
            "pingUrl": None if pings_at is None or heartbeat.ping_id is None else f"{pings_at}{heartbeat.ping_id}",
        }
    )


def _shown_pings(kept: PingRules) -> dict[str, str | bool]:
    told = kept.told()
    return {wire: told[name] for wire, name in PING_RULES.items() if name in told}


def shown_day(day: Day) -> dict[str, Any]:  # Any: JSON
    """One day on the wire."""
    return {
        "date": day.day.isoformat(),
        "state": day.state,
        "downSeconds": day.down_s,
        "incidents": day.incidents,
    }


def shown_event(event: StoredEvent) -> dict[str, Any]:  # Any: JSON
    """One line of history on the wire."""
    return {
        "id": event.id,
        "type": event.type,
        "metadata": orjson.Fragment(event.metadata),
        "createdAt": rfc3339(event.created_at),
    }


def _time(at: EpochMs | None) -> str | None:
    return None if at is None else rfc3339(at)
